"""Does it pay to fly where the members of an ensemble disagree?

A ninth of the training episodes is at hand, and as many more are to be flown. Who has a surrogate
of the first can fly eight times as many in it, start and actions drawn as ever, before the true
simulator is asked. Of each eight are flown in truth:

    random      one
    active      the one on whose predicted flight the members disagree the most

The disagreement is the members' spread as a share of the channel's motion by then, at most 1, in
the mean over channels and 50 control periods: what strays counts no more than what is as good as
unknown. An ensemble is fitted anew to all that was flown, `first` to what was at hand. Errors are
on held-out episodes, drawn like the random ones, and on a second set, shaken twice as hard.

    python experiments/active_collection.py --plants hopper     # some minutes each
    python experiments/active_collection.py --smoke             # seconds, and no file

Data are those of `surrogate_benchmark.py`. A plant and seed that has its rows is not done again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import jax
import numpy as np
import surrogate_benchmark as benchmark
import table
import tyro
from surrogate_parts import errors

from physai.plant import load_plant
from physai.rollout.dataset import Episodes
from physai.surrogate.calibration import open_loop
from physai.surrogate.fit import FitSettings, fit_ensemble
from physai.surrogate.model import Surrogate
from physai.surrogate.prior import prior
from physai.surrogate.spread import channel_spread

CANDIDATES, HORIZON = 8, 50


@dataclass(frozen=True)
class Settings:
    """What to compare."""

    plants: tuple[str, ...] = ("cartpole", "hopper", "halfcheetah", "walker2d", "flexwing")
    """Names of shipped plants."""
    seeds: tuple[int, ...] = (0, 1)
    """Of data, weights and batches."""
    members: int = 4
    """Of the ensembles."""
    steps: int = 3_000
    """Optimiser steps."""
    data: Path = Path("runs/surrogate_benchmark")
    """Where the datasets are kept."""
    out: Path = Path(__file__).parent / "results" / "active_collection.csv"
    """The table."""
    smoke: bool = False
    """One plant, little data, no file."""


def main(settings: Settings) -> None:
    """Compare, and write three rows a plant and seed."""
    rows = [] if settings.smoke else table.read(settings.out)
    if settings.smoke:
        settings = replace(settings, plants=("quadrotor",), seeds=(0,), steps=250, members=2)
        settings = replace(settings, data=settings.data / "smoke")
    done = {(row["plant"], int(row["seed"])) for row in rows}
    for seed, name in product(settings.seeds, settings.plants):
        if (name, seed) in done:
            continue
        where = benchmark.Settings(data=settings.data, smoke=settings.smoke)
        sets = benchmark.Sets(where, load_plant(name), seed)
        for method, episodes, surrogate in collected(settings, sets, seed):
            row = {"plant": name, "seed": seed, "method": method, "members": settings.members}
            row |= {"steps": settings.steps, "episodes": len(episodes.length)}
            row["train_steps"] = int(episodes.length.sum())
            rows.append({**table.here(), "jax": jax.__version__, **row, **errors(surrogate, sets)})
            print({k: v for k, v in rows[-1].items() if k in row or "_" in k}, flush=True)
        if not settings.smoke:
            table.write(settings.out, rows)
        jax.clear_caches()  # every compiled function holds maps of memory


def collected(
    settings: Settings, sets: benchmark.Sets, seed: int
) -> Iterator[tuple[str, Episodes, Surrogate]]:
    """Yield method, the episodes flown, and the surrogate fitted to them."""
    count = len(sets.training.length) // (CANDIDATES + 1)
    chosen = FitSettings(members=settings.members, steps=settings.steps)

    def fitted(rows: np.ndarray) -> tuple[Episodes, Surrogate]:
        episodes = jax.tree.map(lambda values: values[rows], sets.training)
        layout, known, _ = prior(sets.plant, sets.layout, episodes, equations=True)
        data = episodes, sets.validation
        return episodes, fit_ensemble(layout, *data, chosen, seed, known=known)[0]

    first = np.arange(count)
    episodes, surrogate = fitted(first)
    yield "first", episodes, surrogate
    groups = np.arange(count, (CANDIDATES + 1) * count).reshape(count, CANDIDATES)
    doubt = disagreement(surrogate, sets.training)
    yield "random", *fitted(np.concatenate([first, groups[:, 0]]))
    most = groups[np.arange(count), doubt[groups].argmax(axis=1)]
    yield "active", *fitted(np.concatenate([first, most]))


def disagreement(surrogate: Surrogate, episodes: Episodes) -> np.ndarray:
    """Return the members' spread on predicted flights of episodes `[n]`, 0 to 1."""
    flown = open_loop(surrogate, episodes, HORIZON, stride=10 * HORIZON)
    scale = channel_spread(surrogate.layout.joints, flown.states)[:, None]
    share = np.minimum(np.nan_to_num(flown.spread / scale, nan=0.0, posinf=1.0), 1.0)
    found = np.zeros(len(episodes.length))
    found[flown.episode] = share.mean(axis=(0, 2))
    return found


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
