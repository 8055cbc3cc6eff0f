"""What the network sees and is asked for: inputs and targets of control periods, their scales."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from physai.rollout.dataset import Episodes
from physai.state import Array, State
from physai.surrogate.features import Layout, targets, velocity_target
from physai.surrogate.inputs import inputs
from physai.surrogate.known import Known
from physai.surrogate.prior import centred, periods
from physai.surrogate.scaling import TARGET_MARGIN, Normaliser

ROUNDED = 64  # episodes on which the record's rounding is measured
DROWNED = 5.0  # times the rounding below which a target holds nothing to learn


def transitions(
    layout: Layout, episodes: Episodes, known: Known | None = None
) -> tuple[jax.Array, jax.Array]:
    """Return raw inputs `[N, ni]` and targets `[N, nt]` of all valid control periods.

    States are seen centred, and the targets are what the equations leave, as the layout says.
    """

    state, action, disturbance, after = periods(episodes)
    x, y = _pairs(layout, known, state, action, disturbance, after)
    if known is not None and layout.equations:
        y -= velocity_target(layout, state.qpos, known.changes(state, action, disturbance))
    return x, y


@partial(jax.jit, static_argnums=0)
def _pairs(
    layout: Layout,
    known: Known | None,
    state: State,
    action: Array,
    disturbance: Array,
    after: State,
) -> tuple[jax.Array, jax.Array]:
    seen, reached = (centred(layout, known, s) for s in (state, after))
    return inputs(layout, known, state, action, disturbance), targets(layout, seen, reached)


def normaliser_of(
    layout: Layout, known: Known | None, training: Episodes, x: jax.Array, y: jax.Array
) -> Normaliser:
    """Scale inputs `[N, ni]` and targets `[N, nt]` by their standard deviations.

    A constant input keeps its unit scale. A target that is constant, or little more than what the
    record's rounding makes of it, gets 0: its mean alone is predicted, as there is nothing to
    learn, and the noise would drown what the other targets teach.
    """
    x_mean, y_mean, x_std, y_std = x.mean(0), y.mean(0), x.std(0), y.std(0)
    constant = x_std <= 1e-7 * jnp.abs(x_mean) + 1e-12
    noise = rounding(layout, known, training)
    idle = y_std <= jnp.maximum(DROWNED * noise, 1e-7 * jnp.abs(y_mean) + 1e-12)
    y_std = jnp.where(idle, 0.0, y_std)
    limit = TARGET_MARGIN * jnp.max(jnp.abs(y - y_mean), axis=0) / positive(y_std)
    return Normaliser(x_mean, jnp.where(constant, 1.0, x_std), y_mean, y_std, limit)


def rounding(layout: Layout, known: Known | None, training: Episodes) -> jax.Array:
    """Return what moving recorded states by float32's rounding changes in the targets `[nt]`."""
    rng = np.random.default_rng(0)
    few = rng.choice(len(training.length), min(len(training.length), ROUNDED), replace=False)
    part = jax.tree.map(lambda leaf: leaf[few], training)

    def moved(values: np.ndarray) -> np.ndarray:
        size = np.sqrt(np.mean(np.square(values), axis=(0, 1)))
        nudge = rng.uniform(-1.0, 1.0, values.shape) * np.finfo(np.float32).eps * size
        return (values + nudge).astype(np.float32)

    states = part.states.replace(qpos=moved(part.states.qpos), qvel=moved(part.states.qvel))
    shaken = replace(part, states=states)
    both = jax.tree.map(lambda *parts: np.concatenate(parts), part, shaken)  # compiled once
    moved_by = jnp.diff(jnp.stack(jnp.split(transitions(layout, both, known)[1], 2)), axis=0)[0]
    return jnp.std(moved_by, axis=0)


def normalised(normaliser: Normaliser, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return inputs and targets in units of their scales; targets that have none are 0."""
    scaled = (y - normaliser.target_mean) / positive(normaliser.target_std)
    return normaliser.inputs(x), jnp.where(normaliser.target_std > 0.0, scaled, 0.0)


def positive(scale: jax.Array) -> jax.Array:
    """Return scales to divide by: 1 where there is none."""
    return jnp.where(scale > 0.0, scale, 1.0)
