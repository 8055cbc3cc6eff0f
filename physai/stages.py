"""The stages of a run: each makes one artefact unless it is there, and logs what it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from physai.errors import InputError
from physai.plant import Plant
from physai.progress import Progress
from physai.provenance import Source, is_complete, read_json
from physai.task import Task
from physai.verify.certificate import load_certificate


@dataclass
class Stages:
    """What the stages of a run share: where to write, and the log of what each took."""

    plant: Plant
    task: Task
    out: Path
    seed: int
    progress: Progress
    log: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def timed(self, name: str) -> Iterator[dict[str, Any]]:
        """Time a block, log it, and yield the entry for the block to say what came out."""
        started = time.monotonic()
        entry: dict[str, Any] = {"stage": name, "seconds": 0.0, "result": ""}
        yield entry
        entry["seconds"] = round(time.monotonic() - started, 2)
        self.log.append(entry)

    def stage(
        self,
        name: str,
        folder: Path,
        kind: str,
        settings: Any,
        inputs: Mapping[str, Source],
        make: Callable[[], object],
    ) -> Path:
        """Make an artefact unless it is there; refuse one that was made otherwise."""
        with self.timed(name) as entry:
            done = is_complete(folder, settings, inputs, kind=kind, seed=self.seed)
            if not done and (folder / "manifest.json").exists():
                raise InputError(
                    f"{folder}: this {kind} is damaged, or was made with other settings or from "
                    "other inputs. Remove it, or choose another --out."
                )
            if not done:
                make()
            entry["result"] = f"{describe(folder)}{', found there' if done else ''}"
        return folder


def describe(folder: Path) -> str:
    """Say in a few words what an artefact holds."""
    if (folder / "policy.json").is_file() and (card := read_json(folder / "policy.json")):
        true, imagined = (
            "none" if card[k] is None else f"{card[k]:.2f}"
            for k in ("true_return", "imagined_return")
        )
        return f"return {true} true, {imagined} imagined"
    if (folder / "surrogate.json").is_file() and (card := read_json(folder / "surrogate.json")):
        return f"{card['members']} members on {card['data']['training_steps']:,} steps"
    if (folder / "score.json").is_file() and (card := read_json(folder / "score.json")):
        return f"nRMSE {100 * card['nrmse'][-1]:.2f}% at {card['horizons'][-1]} steps"
    if (folder / "parity.json").is_file() and (parity := read_json(folder / "parity.json")):
        return f"C99 within {parity['c99_max_error']:.1e} of JAX"
    if (folder / "certificate.json").is_file():
        conditions = load_certificate(folder).conditions
        return ", ".join(f"{c.name} {c.passed}/{c.flights}" for c in conditions)
    return folder.name
