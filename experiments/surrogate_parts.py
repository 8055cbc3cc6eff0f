"""What does each part of the fit give, taken away from the whole?

For every plant the same data and settings, one part changed: the loss, the model's equations where
they are used, joint limits and contacts as inputs, the images of the machine, the network's linear
path, the gains of the design, batch and width, and the bounds on what may be predicted (of one and
the same weights). One
part is added that the fit does not have, running means of the weights. Where designs vary, the same
number of episodes is also collected with 64 designs a shard. Then open-loop errors on held-out
episodes, and on a second set that was shaken twice as hard. A flight whose error exceeds 100 times
the motion counts as that.

    python experiments/surrogate_parts.py --plants hopper     # some minutes each
    python experiments/surrogate_parts.py --smoke             # seconds, and no file

Data are those of `surrogate_benchmark.py`. A plant that has its rows is not done again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import optax
import surrogate_benchmark as benchmark
import table
import tyro
from flax import nnx

from physai.plant import load_plant
from physai.state import difference
from physai.surrogate import fit, train
from physai.surrogate.bounds import MARGIN, fit_bounds, recorded, unbounded
from physai.surrogate.features import Layout
from physai.surrogate.fit import FitSettings, fit_ensemble
from physai.surrogate.known import Known
from physai.surrogate.model import Surrogate
from physai.surrogate.network import Architecture, GatedNetwork
from physai.surrogate.pace import STRAYED
from physai.surrogate.prior import prior
from physai.surrogate.score import HORIZONS
from physai.surrogate.spread import channel_spread, rms
from physai.surrogate.train import CHUNK


@dataclass(frozen=True)
class Settings:
    """What to compare."""

    plants: tuple[str, ...] = ("hopper", "halfcheetah", "walker2d", "quadrotor", "flexwing")
    """Names of shipped plants."""
    seed: int = 0
    """Of data, weights and batches."""
    members: int = 2
    """Of the ensembles."""
    steps: int = 3_000
    """Optimiser steps of one-step training."""
    data: Path = Path("runs/surrogate_benchmark")
    """Where the datasets are kept."""
    out: Path = Path(__file__).parent / "results" / "surrogate_parts.csv"
    """The table."""
    smoke: bool = False
    """One plant, little data, no file."""


def main(settings: Settings) -> None:
    """Compare, and write a row a variant."""
    rows = [] if settings.smoke else table.read(settings.out)
    if settings.smoke:
        settings = replace(settings, plants=("quadrotor",), steps=250, data=settings.data / "smoke")
    done = {(row["plant"], int(row["seed"])) for row in rows}
    for name in settings.plants:
        if (name, settings.seed) in done:
            continue
        where = benchmark.Settings(data=settings.data, smoke=settings.smoke)
        sets = benchmark.Sets(where, load_plant(name), settings.seed)
        begun = time.monotonic()
        for variant, surrogate in variants(settings, where, sets):
            row = {"plant": name, "seed": settings.seed, "variant": variant}
            row |= {"members": settings.members, "steps": settings.steps}
            row["seconds"] = round(time.monotonic() - begun, 1)
            rows.append({**table.here(), "jax": jax.__version__, **row, **errors(surrogate, sets)})
            print({k: v for k, v in rows[-1].items() if k in row or "_" in k}, flush=True)
            begun = time.monotonic()
        if not settings.smoke:
            table.write(settings.out, rows)
        jax.clear_caches()  # every compiled function holds maps of memory


def variants(
    settings: Settings, where: benchmark.Settings, sets: benchmark.Sets
) -> Iterator[tuple[str, Surrogate]]:
    """Fit what is compared, one after the other."""
    layout, known, _ = prior(sets.plant, sets.layout, sets.training, equations=True)
    chosen = FitSettings(members=settings.members, steps=settings.steps)

    def fitted(
        layout: Layout,
        known: Known | None,
        chosen: FitSettings = chosen,
    ) -> Surrogate:
        data = sets.training, sets.validation
        return fit_ensemble(layout, *data, chosen, settings.seed, known=known)[0]

    whole = fitted(layout, known)
    yield "whole", whole
    yield "without bounds", replace(whole, bounds=unbounded(layout.nv))
    seen = recorded(layout, known, sets.training)
    for margin in (0.2 * MARGIN, 5.0 * MARGIN):
        bounds = replace(fit_bounds(layout, *seen, margin), pace=whole.bounds.pace)
        yield f"bounds {margin:g} wider", replace(whole, bounds=bounds)
    if whole.bounds.pace is not None:
        bounds = replace(whole.bounds, pace=None)
        yield "without a bound on the pace", replace(whole, bounds=bounds)
    if layout.equations:
        less = prior(sets.plant, sets.layout, sets.training, equations=False)[:2]
        yield "without equations", fitted(*less)
    if layout.limits:
        yield "without joint limits", fitted(replace(layout, limits=()), known)
    if layout.contacts:
        yield "without contacts", fitted(replace(layout, contacts=()), known)
    if layout.images:
        yield "without images", fitted(replace(layout, images=()), known)
    with patch.object(GatedNetwork, "__call__", without_linear):
        yield "without linear path", fitted(layout, known)
    with patch.object(fit, "Architecture", without_gains):
        yield "without gains of the design", fitted(layout, known)
    with patch.object(train, "log_error", squared):
        yield "mean squared error of all", fitted(layout, known)
    with patch.object(train, "robust", plain):
        yield "mean of squares a target", fitted(layout, known)
    with patch.object(fit, "stage_of", averaged_stage):
        yield "running means of weights", fitted(layout, known)
    for changed in ({"batch": 256}, {"width": 64}, {"steps": 2 * settings.steps}):
        named = " ".join(f"{key} {value}" for key, value in changed.items())
        yield named, fitted(layout, known, replace(chosen, **changed))
    if sets.plant.design:
        sets = benchmark.Sets(where, sets.plant, settings.seed, designs=64)
        yield "64 designs a shard", fitted(layout, known)


def without_linear(network: GatedNetwork, x: jax.Array) -> jax.Array:
    """Return normalised targets, the linear path left out: nothing trains it, and it stays 0."""
    hidden = x
    for layer in network.hidden:
        gate, value = jnp.split(layer(hidden), 2, axis=-1)
        hidden = nnx.silu(gate) * value
    y = network.readout(hidden)
    return y if network.modes is None else y + network.modes(x)


def without_gains(*sizes: int) -> Architecture:
    """Return the fit's architecture without the path whose gains the design sets."""
    return Architecture(*sizes[:4])


def squared(square: jax.Array, counted: jax.Array) -> jax.Array:
    """Return the logarithm of the mean of squared errors `[n]`, in place of the mean of theirs."""
    return jnp.log(jnp.sum(counted * square) / jnp.maximum(jnp.sum(counted), 1))


def plain(error: jax.Array, learned: jax.Array) -> jax.Array:
    """Return the mean squares `[nt]` of errors `[n, nt]`."""
    return jnp.where(learned, jnp.mean(jnp.square(error), axis=0), 0.0)


def averaged_stage(*arguments: Any, make: Any = fit.stage_of) -> train.Stage:
    """Return the fit's stage, which ends with the running means of its weights."""
    stage = make(*arguments)
    steps = -(-stage.steps // CHUNK) * CHUNK
    return replace(stage, optimiser=averaged(stage.optimiser, steps))


def averaged(
    optimiser: optax.GradientTransformation, steps: int, decay: float = 0.999
) -> optax.GradientTransformation:
    """Replace the weights by their exponential running means at the last of `steps`.

    The decay after k steps is at most (1 + k) / (10 + k), so that the initial weights are soon
    forgotten.

    Reference: Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", 1992,
    doi:10.1137/0330046, where the mean is a plain one.
    """

    def init(params: Any) -> Any:
        return optimiser.init(params), params, jnp.zeros((), jnp.int32)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        inner, mean, count = state
        updates, inner = optimiser.update(updates, inner, params)
        kept = jnp.minimum(decay, (1.0 + count) / (10.0 + count))
        after: Any = optax.apply_updates(params, updates)
        mean = jax.tree.map(lambda m, p: kept * m + (1.0 - kept) * p, mean, after)
        last = count + 1 == steps
        updates = jax.tree.map(lambda u, m, p: jnp.where(last, m - p, u), updates, mean, params)
        return updates, (inner, mean, count + 1)

    return optax.GradientTransformation(init, update)


def errors(surrogate: Surrogate, sets: benchmark.Sets) -> dict[str, Any]:
    """Return the errors by set and horizon, and deciles of the flights' errors at the last."""
    found: dict[str, Any] = {}
    joints = surrogate.layout.joints
    for name, prefix in (("test", "nrmse"), ("beyond", "beyond")):
        windows = getattr(sets, name)
        true = windows[0]
        scale = channel_spread(joints, true)[:, None]
        error = np.asarray(difference(joints, benchmark.fly(surrogate, windows), true[1:])) / scale
        most = STRAYED
        error = np.clip(np.nan_to_num(error, nan=most), -most, most)
        error = np.where(np.isnan(scale), np.nan, error)
        by_flight = np.sqrt(np.nanmean(np.square(error), axis=-1))
        found |= {f"{prefix}_{h}": rms(by_flight[h - 1]) for h in HORIZONS[:3]}
        if name == "test":
            deciles = np.quantile(by_flight[HORIZONS[2] - 1], (0.5, 0.9))
            found |= dict(zip(("median_50", "decile_9_50"), map(float, deciles), strict=True))
    return found


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
