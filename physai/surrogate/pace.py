"""How fast all of a machine may move at once: chosen by which bound makes flights err the least.

In contact a flight that leaves the data gains speed everywhere at once, and a few such flights are
most of the error. A bound that is narrow enough to hold them holds what a falling machine does,
too: which of the two counts for more differs from machine to machine, and is measured, on the
flights that calibrate the intervals: by the mean over horizons of the logarithm of the error.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from physai.rollout.dataset import Episodes
from physai.state import State, difference
from physai.surrogate.bounds import Pace
from physai.surrogate.calibration import windows
from physai.surrogate.model import Surrogate
from physai.surrogate.spread import channel_spread, rms

LEVELS = (0.999, 0.99, 0.98)
"""Shares of the training moments within the bounds that are tried, besides none."""
RIGID = 1e-6
"""Variance, where each velocity's own is 1, below which velocities are tied to one another."""
LEAST = 64
"""Windows below which nothing is chosen."""
STRAYED = 100.0
"""Times the spread: the error of a flight that is farther off, or no number any more."""


def paced(
    surrogate: Surrogate, velocity: np.ndarray, calibration: Episodes, horizon: int, stride: int
) -> Surrogate:
    """Return the surrogate with the bound on its pace that makes its flights err the least.

    Args:
        surrogate: trained, without a bound.
        velocity: of the training data `[n, nv]`, as `physai.surrogate.bounds.recorded` returns it.
        calibration: whose windows of `horizon` periods, every `stride`, are flown.
    """
    true, actions, disturbances = windows(calibration, horizon, stride)
    if actions.shape[1] < LEAST:
        return surrogate
    tried = [
        replace(surrogate, bounds=replace(surrogate.bounds, pace=pace))
        for pace in (None, *paces(velocity))
    ]
    scale = channel_spread(surrogate.layout.joints, true)[:, None]
    errors = []
    for one in tried:
        error = np.asarray(_astray(one, true, actions, disturbances)) / scale
        error = np.where(np.isfinite(error) | np.isnan(scale), error, STRAYED)
        error = np.clip(error, -STRAYED, STRAYED)
        errors.append(np.mean([np.log(rms(each) + 1e-12) for each in error]))
    return tried[int(np.argmin(errors))]


def paces(velocity: np.ndarray) -> list[Pace]:
    """Return bounds that a share, each of `LEVELS`, of the velocities `[n, nv]` keeps to."""
    mean, scale = (jnp.asarray(n, jnp.float32) for n in (velocity.mean(0), whitening(velocity)))
    lengths = np.asarray(Pace(mean, scale, jnp.float32(np.inf)).of(velocity))
    return [Pace(mean, scale, jnp.float32(most)) for most in np.quantile(lengths, LEVELS)]


def whitening(velocity: np.ndarray) -> np.ndarray:
    """Return `Pace.whitening`, without the directions in which nothing moves."""
    spread = velocity.std(0, dtype=float)
    moves = spread > 0.0
    each = np.where(moves, 1.0 / np.where(moves, spread, 1.0), 0.0)
    share, along = np.linalg.eigh(np.atleast_2d(np.cov(velocity.T)) * np.outer(each, each))
    kept = share > RIGID
    scale = np.where(kept, 1.0 / np.sqrt(np.where(kept, share, 1.0)), 0.0)
    return each[:, None] * along * scale / np.sqrt(max(kept.sum(), 1))


@jax.jit
def _astray(
    surrogate: Surrogate, true: State, actions: jax.Array, disturbances: jax.Array
) -> jax.Array:
    """Return how far the mean model's flights are from the true ones `[H, n, nc]`."""

    def period(state: State, now: tuple[jax.Array, jax.Array]) -> tuple[State, State]:
        state = surrogate.step(state, *now)
        return state, state

    _, flown = jax.lax.scan(period, true[0], (actions, disturbances))
    return difference(surrogate.layout.joints, flown, true[1:])
