"""After how many control steps a surrogate has paid back what making it took.

    steps = cost / (1 / simulator - 1 / surrogate)

with the cost in seconds and both speeds in control steps a second. What gradients and uncertainty
are worth is not in it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from physai.errors import InputError
from physai.provenance import read_manifest

MADE = ("dataset", "surrogate")
"""Kinds of artefacts that belong to the cost of a surrogate."""


def break_even(surrogate: str | Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a surrogate cost and when that is paid back.

    Args:
        surrogate: its folder; what it was made from is sought where the manifests say.
        rows: of `physai.report.bench.bench`, of the same surrogate.

    Returns:
        `parts`, each with `path`, `kind` and `seconds` (None: not known); `seconds` of all parts,
        None where one is not known; `steps`, None where the seconds are not known or the simulator
        is at least as fast; `statement`, in words.
    """
    parts = _parts(Path(surrogate), "surrogate", set())
    known = [part["seconds"] for part in parts if part["seconds"] is not None]
    seconds = sum(known) if len(known) == len(parts) else None
    speed = {row["model"]: float(row["steps_per_second"]) for row in rows}
    true, learned = speed["mujoco"], speed["surrogate"]
    steps = None
    if seconds is not None and learned > true:
        steps = seconds / (1.0 / true - 1.0 / learned)
    statement = _statement(parts, seconds, steps, true)
    return {"parts": parts, "seconds": seconds, "steps": steps, "statement": statement}


def _parts(folder: Path, role: str, seen: set[Path]) -> list[dict[str, Any]]:
    """Return an artefact and all below it that belongs to the cost, each once."""
    real = Path(os.path.realpath(folder))
    if real in seen:
        return []
    seen.add(real)
    try:
        manifest = read_manifest(folder)
    except InputError:
        return [{"path": str(folder), "kind": role, "seconds": None}]
    if manifest["kind"] not in MADE:
        return []
    part = {"path": str(folder), "kind": manifest["kind"], "seconds": manifest.get("seconds")}
    below = [
        found
        for name, entry in manifest["inputs"].items()
        if name.partition("-")[0] in ("dataset", "surrogate", "start")
        for found in _parts(Path(os.path.normpath(folder / entry["path"])), name, seen)
    ]
    return [part, *below]


def _statement(
    parts: Sequence[Mapping[str, Any]], seconds: float | None, steps: float | None, true: float
) -> str:
    if seconds is None:
        unknown = next(part["path"] for part in parts if part["seconds"] is None)
        return f"break-even: not known, since {unknown} does not tell how long making it took"
    cost = f"{seconds:,.0f} s of rollouts and training"
    if steps is None:
        return f"break-even: never in time, since MuJoCo is at least as fast ({cost})"
    return (
        f"break-even: {cost} are paid back after {steps:,.0f} control steps, "
        f"{steps / true:,.0f} s of MuJoCo"
    )
