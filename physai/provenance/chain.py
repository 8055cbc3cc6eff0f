"""The chain from an artefact to its sources, checked link by link."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from physai.errors import InputError
from physai.provenance.hashing import MANIFEST, sha256_source
from physai.provenance.manifest import (
    differences,
    hashes,
    locate,
    read_manifest,
    shipped_folder,
)


@dataclass(frozen=True)
class Link:
    """One artefact or source of a chain, and whether it is what it was when it was used."""

    name: str
    """The role it was used in, such as "dataset"; for the artefact asked for, its kind."""
    path: Path
    """Where it is, or where it was expected."""
    ok: bool
    """Whether it holds."""
    detail: str
    """What was found; where `ok` is False, what is wrong."""


def check_chain(path: str | Path) -> list[Link]:
    """Check an artefact and everything it was made from, depth first; the artefact comes first.

    A link holds when its files are those of its manifest, its manifest was not edited, and it is
    what it was when the artefact above it was made. Nothing is raised for what does not hold.

    Args:
        path: an artefact folder or its manifest.json.
    """
    start = locate(path)
    start = start.parent if start.name == MANIFEST else start
    links: list[Link] = []
    seen: set[tuple[Path, str]] = set()
    pending: list[tuple[str, Path, dict[str, str], frozenset[Path]]]
    pending = [(start.name, start, {}, frozenset())]
    while pending:
        name, place, expected, above = pending.pop()
        real = Path(os.path.realpath(place))
        if real in above:
            links.append(Link(name, place, False, "it is said to be made from itself"))
            continue
        if (real, str(expected)) in seen:
            continue
        seen.add((real, str(expected)))
        link, inputs = _check_link(name, place, expected)
        links.append(link)
        pending += [
            (role, _resolve(place, entry), hashes(entry), above | {real})
            for role, entry in sorted(inputs.items(), reverse=True)
        ]
    return links


def _check_link(
    name: str, place: Path, expected: Mapping[str, str]
) -> tuple[Link, dict[str, dict[str, str]]]:
    """Check one artefact or source, and return its inputs; nothing is expected of the first."""
    if expected and not os.path.exists(place):
        detail = f"missing: expected at {place}; put it back there or make this artefact again"
        return Link(name, place, False, detail), {}
    manifest: dict[str, Any] = {}
    try:
        if os.path.isfile(place / MANIFEST) or not expected:
            manifest = read_manifest(place)
            found, problem = hashes(manifest), differences(place, manifest)
        else:
            found, problem = {"content": sha256_source(place)}, ""
    except InputError as error:
        return Link(name, place, False, str(error)), {}
    for key, value in expected.items():
        if found.get(key) != value and not problem:
            now = found.get(key, "unknown")
            problem = f"changed since it was used: {key} was {value:.12}, is {now:.12}"
    detail = problem or f"content {found['content']:.12}"
    name = name if expected else manifest["kind"]
    return Link(name, place, not problem, detail), manifest.get("inputs", {})


def _resolve(folder: Path, entry: Mapping[str, str]) -> Path:
    """Return where an input is, or where it was expected."""
    # Where the folder is a link to another disk, its sources may be beside the link or over there.
    places = [folder / entry["path"], Path(os.path.realpath(folder)) / entry["path"]]
    if "shipped" in entry:
        places.append(shipped_folder() / entry["shipped"])
    places = [locate(place) for place in places]
    return next(filter(os.path.exists, places), places[0])
