"""How far a prediction may stray: a little beyond what the training data hold, and no farther.

Where a prediction has left the data nothing was learned that would bring it back: a joint runs
through the limit that the true one never passed, and open loop the error soon has no bound. A
position that would leave its range by more than `MARGIN` of its width therefore stays there and
loses its outward velocity, and a velocity stays at its bound. All velocities together are also
bound, by Mahalanobis's distance from their mean: one joint may turn as fast as it ever did, but not
all at once and against one another. Whether, and how closely, is chosen by what makes flights err
the least (`physai.surrogate.pace`). A state that is farther out already is left where it is, and
may come back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from physai.rollout.dataset import Episodes
from physai.state import Array, State, components, last, picked, replaced
from physai.surrogate.features import Layout, to_body
from physai.surrogate.known import Known
from physai.surrogate.prior import centred

MARGIN = 0.1
"""Share of a range's width (experiments/results/surrogate_parts.csv)."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pace:
    """Bound on all body-frame velocities together.

    Attributes:
        mean: `[nv]`, of the training data, m/s or rad/s.
        whitening: `[nv, nv]`; takes distances from the mean to a length of 1, in the root mean
            square over the training data.
        most: of that length.
    """

    mean: jax.Array
    whitening: jax.Array
    most: jax.Array

    def of(self, velocity: Array) -> jax.Array:
        """Return how far velocities `[..., nv]` are from their mean `[...]`."""
        away = (velocity - self.mean) @ self.whitening
        return jnp.sqrt(jnp.sum(jnp.square(away), axis=-1) + 1e-12)

    def held(self, velocity: jax.Array, reached: jax.Array) -> jax.Array:
        """Return what is reached from a velocity `[..., nv]`, or of it what the bound lets pass."""
        most = jnp.maximum(self.most, self.of(velocity))
        share = (1.0 / jnp.maximum(1.0, self.of(reached) / most))[..., None]
        return jnp.where(share < 1.0, self.mean + share * (reached - self.mean), reached)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bounds:
    """Bounds by degree of freedom, of positions (infinite: none) and of body-frame velocities.

    Attributes:
        position_low, position_high: `[nv]`, m or rad.
        velocity_low, velocity_high: `[nv]`, m/s or rad/s.
        pace: of all velocities together (None: unbound).
    """

    position_low: jax.Array
    position_high: jax.Array
    velocity_low: jax.Array
    velocity_high: jax.Array
    pace: Pace | None = None

    def around(self, other: Bounds) -> Bounds:
        """Return the narrowest bounds that hold both, without one on the pace."""
        return Bounds(
            jnp.minimum(self.position_low, other.position_low),
            jnp.maximum(self.position_high, other.position_high),
            jnp.minimum(self.velocity_low, other.velocity_low),
            jnp.maximum(self.velocity_high, other.velocity_high),
        )


def fit_bounds(
    layout: Layout, qpos: np.ndarray, velocity: np.ndarray, margin: float = MARGIN
) -> Bounds:
    """Return the ranges of what was recorded, a margin of their width wider at both ends.

    Args:
        layout: which positions have a range.
        qpos: positions `[n, nq]`.
        velocity: in the body frame `[n, nv]`, both as `recorded` returns them.
        margin: share of the width.
    """
    qpos_index, qvel_index = _indices(layout)
    low, high = np.full(layout.nv, -np.inf), np.full(layout.nv, np.inf)
    low[qvel_index], high[qvel_index] = _wider(qpos[:, qpos_index], margin)
    ends = (low, high, *_wider(velocity, margin))
    low, high, slowest, fastest = (jnp.asarray(end, jnp.float32) for end in ends)
    return Bounds(low, high, slowest, fastest)


def recorded(
    layout: Layout, known: Known | None, episodes: Episodes
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions `[n, nq]` and body-frame velocities `[n, nv]` of all valid moments.

    Velocities are those of the targets: of mass centres where the layout has them.
    """
    valid = np.arange(episodes.states.time.shape[1]) <= episodes.length[:, None]
    states = jax.tree.map(lambda leaf: leaf[valid], episodes.states)
    seen = jax.jit(partial(centred, layout, known))(states)
    return states.qpos, np.asarray(to_body(layout, seen.qpos, seen.qvel))


def unbounded(nv: int) -> Bounds:
    """Return bounds that hold nothing back."""
    wide = jnp.full(nv, jnp.inf)
    return Bounds(-wide, wide, -wide, wide)


def slowed(layout: Layout, bounds: Bounds, state: State, targets: jax.Array) -> jax.Array:
    """Return targets `[..., nt]` that lead to velocities within bounds."""
    velocity = to_body(layout, state.qpos, state.qvel)
    residual, change, lag = jnp.split(targets, [layout.nv, 2 * layout.nv], axis=-1)
    low = jnp.minimum(bounds.velocity_low - velocity, 0.0)
    high = jnp.maximum(bounds.velocity_high - velocity, 0.0)
    change = jnp.clip(change, low, high)
    if bounds.pace is not None:
        change = bounds.pace.held(velocity, velocity + change) - velocity
    return jnp.concatenate([residual, change, lag], axis=-1)


def stopped(layout: Layout, bounds: Bounds, before: State, after: State) -> State:
    """Return the state `[...]` that follows `before`, its positions within bounds."""
    if not layout.positions:
        return after
    places, rates = zip(*layout.positions, strict=True)
    qpos, qvel = components(after.qpos), components(after.qvel)
    at, reached = (picked(rows, places) for rows in (components(before.qpos), qpos))
    rate = picked(qvel, rates)
    ends = (bounds.position_low, bounds.position_high)
    low, high = (picked(end, rates).reshape(-1, *[1] * (at.ndim - 1)) for end in ends)
    low, high = jnp.minimum(low, at), jnp.maximum(high, at)
    rate = jnp.where(reached < low, jnp.maximum(rate, 0.0), rate)
    rate = jnp.where(reached > high, jnp.minimum(rate, 0.0), rate)
    return after.replace(
        qpos=last(replaced(qpos, places, jnp.clip(reached, low, high))),
        qvel=last(replaced(qvel, rates, rate)),
    )


def _indices(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    indices = np.array(layout.positions, int).reshape(-1, 2)
    return indices[:, 0], indices[:, 1]


def _wider(values: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    low, high = values.min(0), values.max(0)
    return low - margin * (high - low), high + margin * (high - low)
