"""The manifest of an artefact: what it is, what it was made from, and with what."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from physai.errors import InputError
from physai.provenance.hashing import (
    MANIFEST,
    content_hash,
    hash_files,
    is_portable,
    list_files,
    sha256_file,
    sha256_source,
)
from physai.provenance.storage import plain, read_json, write_json

_HASH = re.compile("[0-9a-f]{64}")
_HASHES = ("content", "record")
_PACKAGES = ("jax jaxlib flax optax orbax-checkpoint mujoco numpy scipy zarr gymnasium").split()


class _HasFolder(Protocol):
    @property
    def folder(self) -> Path: ...


Source = str | Path | _HasFolder
"""A file, an artefact folder, a plant folder, or an object such as a Plant that has one."""


def write_manifest(
    folder: str | Path,
    kind: str,
    inputs: Mapping[str, Source],
    settings: Any,
    seed: int | None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Write `manifest.json`, the last file of an artefact, and return what it says.

    Args:
        folder: the artefact, complete but for its manifest.
        kind: what it is, such as "dataset".
        inputs: what it was made from, by role.
        settings: a mapping or dataclass of what it was made with.
        seed: the seed it was made with, if any.
        seconds: how long making it took, where it was made in one go and that is of interest.

    Raises:
        InputError: an input is missing or damaged, a setting is not finite, or the folder cannot
            be read or written.
    """
    files = hash_files(list_files(folder))
    manifest = {
        "kind": kind,
        "content": content_hash(files),
        "files": files,
        "inputs": {role: _describe(source, Path(folder)) for role, source in inputs.items()},
        "settings": plain(settings, "settings"),
        "seed": plain(seed, "seed"),
        "versions": _versions(),
        "git": _git_state(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": None if seconds is None else round(seconds, 1),
    }
    manifest["record"] = _record(manifest)
    write_json(Path(folder) / MANIFEST, manifest)
    return manifest


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Read an artefact's manifest; `check_chain` tells whether what it says still holds.

    Raises:
        InputError: there is none, or it is not one that physai writes.
    """
    path = Path(folder) / MANIFEST
    if not os.path.lexists(path):
        raise InputError(
            f"{folder}: expected an artefact folder with a {MANIFEST}, found none; "
            "a run that was stopped early leaves none: start it again"
        )
    manifest = read_json(path)
    if defect := _defect(manifest):
        raise InputError(f"{path}: {defect}; make this artefact again")
    return manifest


def is_complete(
    folder: str | Path,
    settings: Any = None,
    inputs: Mapping[str, Source] | None = None,
    *,
    kind: str | None = None,
    seed: int | None = None,
) -> bool:
    """Tell whether an artefact is whole and was made from just these inputs, settings and seed.

    What is None is not compared. Every file is hashed, so a damaged artefact is not complete.
    """
    asked = {"kind": kind, "seed": seed, "settings": settings}
    asked = {key: plain(value, key) for key, value in asked.items() if value is not None}
    try:
        manifest = read_manifest(folder)
        if any(manifest[key] != value for key, value in asked.items()):
            return False
        if inputs is not None:
            now = {role: _identity(locate(source)) for role, source in inputs.items()}
            if now != {role: hashes(entry) for role, entry in manifest["inputs"].items()}:
                return False
        return not differences(Path(folder), manifest)
    except InputError:
        return False


def differences(folder: Path, manifest: Mapping[str, Any]) -> str:
    """Say how an artefact differs from its manifest; "" where it does not."""
    listed, found = manifest["files"], list_files(folder)
    present = sorted(listed.keys() & found.keys())
    findings = {
        "missing": sorted(listed.keys() - found.keys()),
        "changed": [name for name in present if sha256_file(found[name]) != listed[name]],
        "not listed in the manifest": sorted(found.keys() - listed.keys()),
    }
    problems = [
        names[0] + (f" and {len(names) - 1} more" if names[1:] else "") + f" {what}"
        for what, names in findings.items()
        if names
    ]
    if manifest["content"] != content_hash(listed) or manifest["record"] != _record(manifest):
        problems.append(f"{MANIFEST} was edited after it was written")
    return "; ".join(problems)


def _describe(source: Source, folder: Path) -> dict[str, str]:
    """Return what a manifest says of one input."""
    path = locate(source)
    try:
        relative = Path(os.path.relpath(path, locate(folder))).as_posix()
    except ValueError:  # another drive
        relative = path.as_posix()
    entry = {"path": relative, **_identity(path)}
    if path.parent == shipped_folder():
        entry["shipped"] = path.name
    return entry


def locate(source: Source) -> Path:
    """Return the absolute path of a source."""
    path = Path(os.path.abspath(source if isinstance(source, str | Path) else source.folder))
    # The last part may be a link to another disk: its own name is what moves with the run.
    return Path(os.path.realpath(path.parent)) / path.name


def shipped_folder() -> Path:
    """Return the folder of the plants that come with physai, in a wheel or in a checkout."""
    package = Path(os.path.realpath(__file__)).parents[1]
    return package / "envs" if (package / "envs").is_dir() else package.parent / "envs"


def _identity(path: Path) -> dict[str, str]:
    if os.path.isfile(path / MANIFEST):
        return hashes(read_manifest(path))
    return {"content": sha256_source(path)}


def hashes(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return what identifies a source: its content, and its record if it is an artefact."""
    return {key: entry[key] for key in _HASHES if key in entry}


def _record(manifest: Mapping[str, Any]) -> str:
    claims = {key: manifest[key] for key in ("kind", "content", "settings", "seed")}
    claims["inputs"] = {role: hashes(entry) for role, entry in manifest["inputs"].items()}
    return hashlib.sha256(json.dumps(claims, sort_keys=True).encode()).hexdigest()


def _defect(manifest: Any) -> str:
    """Say why this is not a manifest; "" where it is one."""
    if not isinstance(manifest, dict) or not _has_hashes(manifest, *_HASHES):
        return "expected a manifest of physai, got other JSON"
    kind, files, inputs = (manifest.get(key) for key in ("kind", "files", "inputs"))
    if not (isinstance(kind, str) and isinstance(files, dict) and isinstance(inputs, dict)):
        return "expected a kind, files and inputs"
    if missing := {"settings", "seed"} - manifest.keys():
        return f"expected {' and '.join(sorted(missing))}, got none"
    for name in files:
        if not is_portable(name) or not _has_hashes(files, name):
            return f"expected files inside the folder and their hashes, got {name!r}"
    for role, entry in inputs.items():
        if not isinstance(entry, dict) or not _has_hashes({"record": "0" * 64, **entry}, *_HASHES):
            return f"input {role!r}: expected its content and record"
        path, shipped = entry.get("path"), entry.get("shipped", "x")
        if not isinstance(path, str) or "\0" in path:
            return f"input {role!r}: expected a path, got {path!r}"
        if not isinstance(shipped, str) or "/" in shipped or not is_portable(shipped):
            return f"input {role!r}: expected the name of a shipped plant, got {shipped!r}"
    return ""


def _has_hashes(entry: Mapping[str, Any], *keys: str) -> bool:
    values = [entry.get(key) for key in keys]
    return all(isinstance(value, str) and _HASH.fullmatch(value) for value in values)


@functools.cache
def _versions() -> dict[str, str]:
    # From sys.modules: an import of the package from here would import what lies above this layer.
    found = {
        "physai": sys.modules["physai"].__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def _git_state() -> dict[str, Any] | None:
    """Return the commit this package runs from and whether it was edited since, where known."""
    package = Path(__file__).resolve().parents[1]
    head = (_git(package, "rev-parse", "--show-toplevel", "HEAD") or "").splitlines()
    # A virtual environment may lie in somebody else's repository, whose commit says nothing here.
    if len(head) != 2 or Path(head[0]).resolve() != package.parent:
        return None
    status = _git(package.parent, "status", "--porcelain", "--", "physai", "envs")
    return {"commit": head[1], "dirty": None if status is None else bool(status.strip())}


def _git(folder: Path, *arguments: str) -> str | None:
    # A hook's GIT_DIR would point to another repository; a status must not lock the index.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
