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
from physai.surrogate.bounds import recorded
from physai.surrogate.calibration import windows
from physai.surrogate.model import Surrogate
from physai.surrogate.spread import channel_spread, rms

LEVELS = (0.999, 0.99, 0.98)
"""Shares of the training moments within the bounds that are tried, besides none."""
LEAST = 64
"""Windows below which nothing is chosen."""
STRAYED = 100.0
"""Times the spread: the error of a flight that is farther off, or no number any more."""


def paced(
    surrogate: Surrogate, training: Episodes, calibration: Episodes, horizon: int, stride: int
) -> Surrogate:
    """Return the surrogate with the bound on its pace that makes its flights err the least.

    Args:
        surrogate: trained, without a bound.
        training: whose paces the bounds are taken from.
        calibration: whose windows of `horizon` periods, every `stride`, are flown.
    """
    true, actions, disturbances = windows(calibration, horizon, stride)
    if actions.shape[1] < LEAST:
        return surrogate
    velocity = recorded(surrogate.layout, surrogate.known, training)[1]
    paces = np.quantile(np.asarray(surrogate.bounds.pace_of(velocity)), LEVELS)
    tried = [
        replace(surrogate, bounds=replace(surrogate.bounds, pace=jnp.float32(pace)))
        for pace in (np.inf, *paces)
    ]
    scale = channel_spread(surrogate.layout.joints, true)[:, None]
    errors = []
    for one in tried:
        error = np.asarray(_astray(one, true, actions, disturbances)) / scale
        error = np.where(np.isfinite(error) | np.isnan(scale), error, STRAYED)
        error = np.clip(error, -STRAYED, STRAYED)
        errors.append(np.mean([np.log(rms(each) + 1e-12) for each in error]))
    return tried[int(np.argmin(errors))]


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
