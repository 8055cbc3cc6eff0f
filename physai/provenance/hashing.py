"""Hashes of files and folders, and nothing that can be followed out of them."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import mujoco

from physai.errors import InputError

MANIFEST = "manifest.json"
LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<kind>tmp|old)-(?P<pid>\d+)-\d+")
_SOURCE_LIMIT = 10_000


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        InputError: it cannot be read, or is not a regular file.
    """
    digest, buffer = hashlib.sha256(), memoryview(bytearray(1 << 18))
    with open_regular(path) as file:
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
    return digest.hexdigest()


def sha256_folder(folder: str | Path, ignore: tuple[str, ...] = (MANIFEST,)) -> str:
    """Return one SHA-256 over the sorted relative paths and hashes of the files in a folder.

    Args:
        folder: the folder. `__pycache__` and leftovers of interrupted writes are no part of it.
        ignore: files and folders to leave out, as POSIX paths relative to `folder`.

    Raises:
        InputError: a file cannot be read, or an entry is neither file nor folder. A link to a
            file counts as the file; a link to a folder is refused, since it may lead anywhere.
    """
    return content_hash(hash_files(list_files(folder, ignore)))


def sha256_source(path: str | Path) -> str:
    """Return the SHA-256 of what a user provides: a model file, or a plant folder.

    Hidden entries, `runs` and MUJOCO_LOG.TXT at the top of a plant folder are no part of it. What
    an MJCF file includes and refers to (meshes, textures, height fields) is.
    """
    if not os.path.isdir(path):
        files = _with_dependencies(path)
        return content_hash(hash_files(files)) if len(files) > 1 else sha256_file(path)
    with _reading(path):
        hidden = tuple(name for name in os.listdir(path) if name.startswith("."))
    ignore = (MANIFEST, "runs", "MUJOCO_LOG.TXT", *hidden)
    return content_hash(hash_files(list_files(path, ignore, _SOURCE_LIMIT)))


def _with_dependencies(path: str | Path) -> dict[str, str]:
    """Map relative names to the paths of an MJCF file and of all it needs; of others, the file."""
    files = {os.path.basename(path): os.fspath(path)}
    if os.fspath(path).endswith(".xml"):
        folder = os.path.dirname(os.path.abspath(path))
        for needed in mujoco.mju_getXMLDependencies(os.path.abspath(path)):
            name = os.path.relpath(os.path.join(folder, needed), folder)
            files[name.replace(os.sep, "/")] = os.path.join(folder, needed)
    return files


def content_hash(files: Mapping[str, str]) -> str:
    lines = (f"{files[name]}  {name}\0" for name in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def hash_files(files: Mapping[str, str]) -> dict[str, str]:
    return {name: sha256_file(path) for name, path in files.items()}


def list_files(
    folder: str | Path, ignore: tuple[str, ...] = (MANIFEST,), limit: int | None = None
) -> dict[str, str]:
    """Map the relative POSIX path of each file in a folder to its path."""
    found: dict[str, str] = {}
    pending = [(os.fspath(folder), "")]
    while pending:
        directory, prefix = pending.pop()
        with _reading(directory), os.scandir(directory) as entries:
            for entry in entries:
                name = prefix + entry.name
                if name in ignore or entry.name == "__pycache__" or LEFTOVER.fullmatch(entry.name):
                    continue
                if not is_portable(name):
                    raise InputError(f"{entry.path!r}: expected a name that every system can hold")
                if entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, name + "/"))
                elif entry.is_file():
                    found[name] = entry.path
                else:
                    raise InputError(
                        f"{entry.path}: expected a file or a folder, got a link to a folder, "
                        "a broken link or a device; put a copy of what it means there"
                    )
        if limit is not None and len(found) + len(pending) > limit:
            raise InputError(
                f"{folder}: expected a plant folder, got more than {limit} files; "
                "give the plant a folder of its own"
            )
    return found


def is_portable(name: str) -> bool:
    """Tell whether a relative POSIX path names a file below its folder, on every system."""
    utf8 = name == name.encode(errors="replace").decode()
    plain = "\\" not in name and "\0" not in name and not re.match("[A-Za-z]:", name)
    return utf8 and plain and not {"", ".", ".."}.intersection(name.split("/"))


@contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


@contextmanager
def open_regular(path: str | Path) -> Iterator[FileIO]:
    with _reading(path):
        # Without O_NONBLOCK, opening a named pipe waits for a writer that may never come.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with FileIO(descriptor) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InputError(f"cannot read {path}: expected a regular file")
            yield file
