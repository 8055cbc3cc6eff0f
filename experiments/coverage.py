"""Do the 90% intervals cover 90%, on fresh episodes and on those that the trained policy flies?

Of every released surrogate, and of the policy that was released with it or else is learned in it
with default settings:

    fresh       the surrogate's own intervals, on episodes of noise with another seed than the fit's
    before      the same intervals, on episodes that the policy flies, noise on top
    after       intervals made anew from other such episodes

at 1, 10 and 50 control periods: coverage, the lowest and the highest coverage of a channel, the
mean half width as the nRMSE, and the rank correlation of error with spread. `low` and `high` are a
95% interval of the coverage, of a bootstrap over the test episodes; `designs` of them are distinct.

    python experiments/coverage.py              # minutes a plant
    python experiments/coverage.py --smoke      # a minute, and no file

A plant that has its rows is not done again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import table
import tyro

from physai.control.controller import batch_controller, policy_controller
from physai.learn.learn import learn_policy, load_policy_folder
from physai.learn.value_gradient import LearnSettings
from physai.plant import Plant, load_plant
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.dataset import Dataset
from physai.surrogate.calibration import Flown, open_loop
from physai.surrogate.coverage import coverage_of, error_spread_correlation
from physai.surrogate.guard import periods_of, scores_of
from physai.surrogate.model import Surrogate
from physai.surrogate.recalibrate import recalibrate
from physai.surrogate.store import load_surrogate
from physai.task import load_task

HORIZONS, STRIDE, BOOTSTRAP = (1, 10, 50), 5, 1000
CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    plants: tuple[str, ...] = ()
    """Names of plants (empty: all that have such a checkpoint)."""
    name: str = "v1"
    """Of the checkpoints."""
    seed: int = 0
    """Of a policy; the fresh episodes have the next one, the policy's the one after."""
    runs: Path = Path("runs/coverage")
    """Where policies and datasets are kept."""
    out: Path = Path(__file__).parent / "results" / "coverage.csv"
    """The table."""
    smoke: bool = False
    """One plant, little learning, no file."""


def main(settings: Settings) -> None:
    """Measure, and write three rows a plant; one that has them is not done again."""
    if settings.smoke:
        settings = replace(settings, plants=("cartpole",), runs=settings.runs / "smoke")
    rows = [] if settings.smoke else table.read(settings.out)
    done = {(row["plant"], row["surrogate"], int(row["seed"])) for row in rows}
    released = sorted(p.parents[1].name for p in CHECKPOINTS.glob(f"*/{settings.name}/surrogate"))
    for name in settings.plants or released:
        if (name, settings.name, settings.seed) in done:
            continue
        rows += measure(settings, load_plant(name))
        for row in rows[-3:]:
            print({k: v for k, v in row.items() if k not in table.here()}, flush=True)
        if not settings.smoke:
            table.write(settings.out, rows)
        jax.clear_caches()  # else the process runs out of maps of memory


def measure(settings: Settings, plant: Plant) -> list[dict[str, Any]]:
    """Return the rows of a plant: fresh, before and after."""
    home = settings.runs / plant.name
    made = CHECKPOINTS / plant.name / settings.name
    task, learned = load_task(plant), load_surrogate(made / "surrogate", plant)
    policy = made / "policy"
    if not policy.is_dir():
        policy = home / f"policy-{settings.seed}"
        learning = LearnSettings(updates=10) if settings.smoke else LearnSettings()
        if not policy.is_dir():
            learn_policy(plant, task, made / "surrogate", policy, learning, seed=settings.seed)
    rollout = replace(RolloutSettings(), train=1)
    if settings.smoke:
        rollout = replace(rollout, calibration=32, test=32)
    name = settings.name
    fresh = collect(
        plant, task, home / f"fresh-{settings.seed}", replace(rollout, calibration=0),
        settings.seed + 1,
    )  # fmt: skip
    controller = batch_controller(policy_controller(load_policy_folder(policy)[0]))
    own = collect(
        plant, task, home / f"own-{name}-{settings.seed}", rollout, settings.seed + 2, controller,
        policy_folder=policy,
    )  # fmt: skip
    folder = home / f"recalibrated-{name}-{settings.seed}"
    recalibrate(plant, made / "surrogate", [own], folder)
    renewed = load_surrogate(folder, plant)
    judged = (("fresh", learned, fresh), ("before", learned, own), ("after", renewed, own))
    return [
        {
            **table.here(),
            **{"jax": jax.__version__, "plant": plant.name, "surrogate": name},
            **{"seed": settings.seed, "intervals": kind},
            **worth(surrogate, data),
        }
        for kind, surrogate, data in judged
    ]


def worth(surrogate: Surrogate, data: Dataset) -> dict[str, Any]:
    """Return what intervals are worth on test episodes; empty where no window lasts so long."""
    test = data.episodes("test")
    flown = open_loop(surrogate, test, max(HORIZONS), STRIDE)
    judged = coverage_of(surrogate, flown)
    given = surrogate.domain, surrogate.layout, surrogate.known
    scores = scores_of(*given, periods_of(test))
    found: dict[str, Any] = {
        "episodes": len(test.length),
        "designs": len(np.unique(test.states.design[:, 0], axis=0)),
        "outside": np.mean(scores > 1.0),
    }
    for h in HORIZONS:
        moving = judged.inside[h - 1][np.isfinite(judged.scale[h - 1])]
        there = judged.share(h - 1) is not None
        low, high = interval(surrogate, flown, judged.scale, h - 1) if there else (None, None)
        found |= {
            f"windows_{h}": int(judged.windows[h - 1]),
            f"coverage_{h}": judged.share(h - 1),
            **{f"low_{h}": low, f"high_{h}": high},
            f"least_{h}": moving.min() if there else None,
            f"most_{h}": moving.max() if there else None,
            f"sharpness_{h}": judged.sharpness(h - 1),
            f"correlation_{h}": error_spread_correlation(flown, judged.scale, h - 1),
        }
    return {k: round(float(v), 5) if isinstance(v, float) else v for k, v in found.items()}


def interval(
    surrogate: Surrogate, flown: Flown, scale: np.ndarray, step: int
) -> tuple[float, float]:
    """Return a 95% interval of the coverage at a step: episodes drawn anew, with their windows."""
    rows = flown.recorded[step]
    width = np.asarray(surrogate.half_width(jnp.asarray(flown.spread)))[step][rows]
    moving = np.isfinite(scale[step])
    inside = (np.abs(flown.error[step][rows]) <= width)[:, moving].mean(axis=1)
    _, episode = np.unique(flown.episode[rows], return_inverse=True)
    sums, counts = np.bincount(episode, inside), np.bincount(episode)
    drawn = np.random.default_rng(0).integers(len(counts), size=(BOOTSTRAP, len(counts)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), (0.025, 0.975))
    return float(low), float(high)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
