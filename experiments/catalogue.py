"""Which shipped machines does `physai run` certify as it is? Default settings, every plant.

A row is written from the summary that a run leaves behind, so that a second call goes on where the
first stopped: `python experiments/catalogue.py --runs FOLDER`.
"""

from __future__ import annotations

import csv
import io
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import mujoco
import tyro

from physai.flow import RunSettings, run
from physai.learn.value_gradient import LearnSettings
from physai.plant.load import plants_folder
from physai.provenance import atomic_write, read_json
from physai.report.bench import cpu_name
from physai.rollout.collect import RolloutSettings
from physai.surrogate.fit import FitSettings
from physai.verify.certificate import load_certificate

RESULTS = Path(__file__).parent / "results" / "catalogue.csv"
COLUMNS: tuple[str, ...] = (
    "date",
    "cpu",
    "cores",
    "python",
    "mujoco",
    "jax",
    "plant",
    "nrmse_50",
    "imagined_return",
    "true_return",
    "rounds",
    "nominal_passed",
    "disturbed_passed",
    "flights",
    "seconds",
)


@dataclass(frozen=True)
class Settings:
    """What to run.

    Attributes:
        runs: folder of the runs; finished ones are read, not repeated.
        plants: names of shipped plants (empty: all).
        flights: a condition.
        seed: of everything random.
        out: the table.
        smoke: tiny budgets, to see that it works.
    """

    runs: Path
    plants: tuple[str, ...] = ()
    flights: int = 500
    seed: int = 0
    out: Path = RESULTS
    smoke: bool = False


def main(settings: Settings) -> None:
    """Run every plant; write a row for each that came to its end."""
    rows = []
    for name in settings.plants or _catalogue():
        folder = settings.runs / name
        if not (folder / "summary.json").is_file():
            run(name, folder, _budget(settings), settings.seed)
        rows.append(_row(name, folder))
        print(rows[-1], flush=True)
        _write(settings.out, rows)


def _catalogue() -> list[str]:
    return sorted(p.name for p in plants_folder().iterdir() if (p / "task.py").is_file())


def _budget(settings: Settings) -> RunSettings:
    if not settings.smoke:
        return RunSettings(flights=settings.flights)
    return RunSettings(
        rollout=RolloutSettings(train=64, calibration=32, test=32),
        fit=FitSettings(members=2, steps=250),
        learn=LearnSettings(updates=10),
        flights=4,
        rounds=0,
    )


def _row(name: str, folder: Path) -> dict[str, Any]:
    summary = read_json(folder / "summary.json")
    conditions = {c.name: c for c in load_certificate(folder / "certificate").conditions}
    returns = summary["returns"][-1]
    ended = datetime.fromtimestamp((folder / "summary.json").stat().st_mtime, UTC)
    return {
        "date": ended.isoformat(timespec="seconds"),
        **{"cpu": cpu_name(), "cores": os.cpu_count(), "python": platform.python_version()},
        **{"mujoco": mujoco.__version__, "jax": jax.__version__, "plant": name},
        "nrmse_50": summary["score"]["nrmse"][-1],
        "imagined_return": returns["imagined"],
        "true_return": returns["true"],
        "rounds": len(summary["returns"]),
        "nominal_passed": conditions["nominal"].passed,
        "disturbed_passed": conditions["disturbed"].passed,
        "flights": conditions["nominal"].flights,
        "seconds": summary["seconds"],
    }


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue())


if __name__ == "__main__":
    main(tyro.cli(Settings))
