"""What does it give a surrogate to predict mass centres in place of root translations?

For every plant whose roots carry a mass centre about with them: the same data and the same number
of optimiser steps without and with them, whatever `prior` would choose. `calmer` is by how much the
centres' velocity changes are smaller than the roots', at the worst of the translations. A plant
whose rows are there is not done again.

    python experiments/mass_centres.py --plants satellite hopper     # two minutes each
    python experiments/mass_centres.py --smoke                       # seconds, and no file
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import table
import tyro

from physai.plant import load_plant
from physai.rollout.collect import RolloutSettings, collect
from physai.surrogate.centre import translations
from physai.surrogate.features import layout_of
from physai.surrogate.fit import FitSettings, fit_ensemble
from physai.surrogate.known import known_dynamics
from physai.surrogate.prior import centred, periods
from physai.surrogate.score import score
from physai.task import load_task

PLANTS = ("satellite", "rocket", "quadrotor", "hopper", "halfcheetah")


@dataclass(frozen=True)
class Settings:
    """What to compare."""

    plants: tuple[str, ...] = PLANTS
    """Names of shipped plants."""
    seed: int = 0
    """Of data, weights and batches."""
    data: Path = Path("runs/known_equations")
    """Where the datasets are kept."""
    out: Path = Path(__file__).parent / "results" / "mass_centres.csv"
    """The table."""
    smoke: bool = False
    """One plant, little data, no file."""


def main(settings: Settings) -> None:
    """Compare, and write a row a fit."""
    rows = table.read(settings.out)
    done = {(row["plant"], int(row["seed"])) for row in rows}
    for name in ("hopper",) if settings.smoke else settings.plants:
        if settings.smoke or (name, settings.seed) not in done:
            rows += compare(settings, name)
            if not settings.smoke:
                table.write(settings.out, rows)


def compare(settings: Settings, name: str) -> list[dict[str, Any]]:
    """Return the rows of a plant: without mass centres, and with them."""
    plant = load_plant(name)
    rollout, fitting = RolloutSettings(), FitSettings()
    if settings.smoke:
        rollout = replace(rollout, train=512, calibration=256, test=256)
        fitting = replace(fitting, steps=250)
    folder = settings.data / f"{'smoke_' if settings.smoke else ''}{name}_{settings.seed}"
    data = collect(plant, load_task(plant), folder, rollout, settings.seed)
    training, calibration, test = (data.episodes(s) for s in ("train", "calibration", "test"))
    plain, known = layout_of(plant, data.symmetry), known_dynamics(plant)
    moving = replace(plain, centred=translations(plant))
    before, _, _, after = periods(training)
    change = np.std(after.qvel - before.qvel, axis=0)
    see = jax.jit(lambda state: centred(moving, known, state))
    outer = np.std(np.asarray(see(after).qvel) - np.asarray(see(before).qvel), axis=0)
    rows = []
    for layout in (plain, moving):
        begun = time.monotonic()
        fitted, _ = fit_ensemble(
            layout,
            training,
            calibration,
            fitting,
            settings.seed,
            known=known if layout.centred else None,
        )
        card = score(fitted, plant, test)
        rows.append(
            {
                **table.here(),
                "jax": jax.__version__,
                **{"plant": name, "seed": settings.seed, "mass_centres": bool(layout.centred)},
                "calmer": max(
                    float(outer[t.qvel_index] / change[t.qvel_index]) for t in moving.centred
                ),
                **{f"nrmse_{h}": e for h, e in zip(card["horizons"], card["nrmse"], strict=True)},
                "blown_up": card["blown_up"],
                "fit_seconds": round(time.monotonic() - begun, 1),
            }
        )
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
