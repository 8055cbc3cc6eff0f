"""How fast are released surrogates and students beside the true simulator, and at what error?

For every checkpoint with a student, `physai bench` of the ensemble and of the student, each timed
in turn with bare `mujoco.batch` on all cores, and beside each speed the error after 1, 10 and 50
control periods from its report card. A row a model.

    python experiments/speed.py                  # a minute a plant
    python experiments/speed.py --smoke          # one plant, short, no file
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import table
import tyro

from physai.plant import load_plant
from physai.provenance.storage import read_json
from physai.report.bench import bench
from physai.surrogate.store import load_surrogate

MODELS = {"ensemble": ("surrogate", "score"), "student": ("student", "student-score")}


@dataclass(frozen=True)
class Settings:
    """What to time."""

    plants: tuple[str, ...] = ()
    """Names of plants (empty: all that have a student)."""
    name: str = "v1"
    """Of the checkpoints."""
    checkpoints: Path = Path(__file__).parents[1] / "checkpoints"
    """Where they are."""
    batch: int = 8192
    """Machines side by side."""
    repeats: int = 5
    """Timed runs a row."""
    out: Path = Path(__file__).parent / "results" / "speed.csv"
    """The table."""
    smoke: bool = False
    """One plant, one repeat, no file."""


def main(settings: Settings) -> None:
    """Time, and write two rows a plant."""
    found = sorted(
        p.parents[1].name for p in settings.checkpoints.glob(f"*/{settings.name}/student")
    )
    plants = settings.plants or tuple(found)
    if settings.smoke:
        settings, plants = replace(settings, batch=64, repeats=1), plants[:1]
    rows = [] if settings.smoke else table.read(settings.out)
    rows = [row for row in rows if row["plant"] not in plants]
    for name in plants:
        rows += measure(settings, name)
        if not settings.smoke:
            table.write(settings.out, rows)


def measure(settings: Settings, name: str) -> list[dict[str, Any]]:
    """Return the rows of a plant."""
    plant, folder = load_plant(name), settings.checkpoints / name / settings.name
    rows, errors = [], {}
    for model, (part, card) in MODELS.items():
        surrogate, score = (
            load_surrogate(folder / part, plant),
            read_json(folder / card / "score.json"),
        )
        timed = bench(plant, surrogate, settings.batch, settings.repeats)
        speed = {row["model"]: row for row in timed}
        errors[model] = dict(zip(score["horizons"], score["nrmse"], strict=True))
        rows.append(
            {
                **{**table.here(), "jax": jax.__version__, "plant": name, "model": model},
                **{f"nrmse_{h}": errors[model][h] for h in (1, 10, 50)},
                **{
                    f"to_ensemble_{h}": errors[model][h] / errors["ensemble"][h]
                    for h in (1, 10, 50)
                },
                "steps_per_second": round(speed["surrogate"]["steps_per_second"]),
                "mujoco_steps_per_second": round(speed["mujoco"]["steps_per_second"]),
                "ratio": speed["surrogate"]["ratio"],
                **{"batch": settings.batch, "load": speed["mujoco"]["load"]},
            }
        )
        print({k: v for k, v in rows[-1].items() if k not in table.here()}, flush=True)
    return rows


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
