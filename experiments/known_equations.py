"""What do the model's own equations give a surrogate, and what do they cost?

For every plant the same data and the same number of optimiser steps, with `FitSettings.equations`
off and on: open-loop error at 1, 10 and 50 control periods, seconds of the fit, and control steps a
second of the ensemble. Where the equations explain too little they are left out by `fit` itself,
and the plant has no second row. A plant whose rows are there is not done again.

    python experiments/known_equations.py --plants arm satellite     # some minutes each
    python experiments/known_equations.py --smoke                    # seconds, and no file
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import table
import tyro

from physai.plant import load_plant
from physai.report.bench import bench
from physai.rollout.collect import RolloutSettings, collect
from physai.surrogate.features import layout_of
from physai.surrogate.fit import FitSettings, fit_ensemble
from physai.surrogate.prior import prior
from physai.surrogate.score import score
from physai.task import load_task

SMOOTH = ("arm", "halfcar", "quadrotor", "satellite", "wafer_stage")


@dataclass(frozen=True)
class Settings:
    """What to compare."""

    plants: tuple[str, ...] = SMOOTH
    """Names of shipped plants."""
    seed: int = 0
    """Of data, weights and batches."""
    data: Path = Path("runs/known_equations")
    """Where the datasets are kept."""
    out: Path = Path(__file__).parent / "results" / "known_equations.csv"
    """The table."""
    smoke: bool = False
    """One plant, little data, no file."""


def main(settings: Settings) -> None:
    """Compare, and write a row a fit."""
    rows = table.read(settings.out)
    done = {(row["plant"], int(row["seed"])) for row in rows}
    for name in ("arm",) if settings.smoke else settings.plants:
        if settings.smoke or (name, settings.seed) not in done:
            rows += compare(settings, name)
            if not settings.smoke:
                table.write(settings.out, rows)


def compare(settings: Settings, name: str) -> list[dict[str, Any]]:
    """Return the rows of a plant: without the equations, and with them if they are worth it."""
    plant = load_plant(name)
    rollout, fitting = RolloutSettings(), FitSettings()
    if settings.smoke:
        rollout = replace(rollout, train=64, calibration=32, test=32)
        fitting = replace(fitting, steps=250)
    folder = settings.data / f"{'smoke_' if settings.smoke else ''}{name}_{settings.seed}"
    data = collect(plant, load_task(plant), folder, rollout, settings.seed)
    training, calibration, test = (data.episodes(s) for s in ("train", "calibration", "test"))
    layout = layout_of(plant, data.symmetry)
    rows = []
    choices = {e: prior(plant, layout, training, e) for e in (False, True)}
    explained = choices[True][2]
    for equations, (chosen, known, _) in choices.items():
        begun = time.monotonic()
        if equations and not chosen.equations:
            continue
        fitted, _ = fit_ensemble(chosen, training, calibration, fitting, settings.seed, known=known)
        seconds = time.monotonic() - begun
        card = score(fitted, plant, test)
        speed = {row["model"]: row["steps_per_second"] for row in bench(plant, fitted)}
        rows.append(
            {
                **table.here(),
                "jax": jax.__version__,
                **{"plant": name, "seed": settings.seed, "explained": explained},
                "equations": equations,
                **{f"nrmse_{h}": e for h, e in zip(card["horizons"], card["nrmse"], strict=True)},
                "fit_seconds": round(seconds, 1),
                "ensemble_steps_per_second": round(speed["surrogate"]),
                "mujoco_steps_per_second": round(speed["mujoco"]),
            }
        )
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
