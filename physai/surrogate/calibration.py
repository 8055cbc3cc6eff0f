"""Split-conformal intervals by channel and horizon.

For a calibration episode the normalised residual of channel c at horizon h is
|error| / sqrt(spread^2 + floor^2); the interval's factor is its ceil((n + 1)(1 - alpha))-th
smallest value. On exchangeable episodes the interval then covers at least 1 - alpha.

Reference: Lei et al., "Distribution-free predictive inference for regression", 2018, algorithm 2,
doi:10.1080/01621459.2017.1307116.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from physai.errors import InputError
from physai.rollout.dataset import Episodes
from physai.state import State, difference
from physai.surrogate.model import Flight, Surrogate
from physai.surrogate.prior import periods
from physai.surrogate.readout import SensorReadout
from physai.surrogate.scaling import Calibration

COVERAGE = 0.9


def windows(episodes: Episodes, horizon: int, stride: int) -> tuple[State, np.ndarray, np.ndarray]:
    """Cut every stretch of `horizon` valid steps that starts at a multiple of `stride`.

    Returns:
        states `[horizon + 1, n, ...]`, actions `[horizon, n, nu]`, disturbances `[horizon, n, nw]`.
    """
    cut = partial(stretches, *window_starts(episodes, horizon, stride), horizon)
    states = jax.tree.map(cut, episodes.states)
    return states, cut(episodes.actions)[:-1], cut(episodes.disturbances)[:-1]


def window_starts(episodes: Episodes, horizon: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Return episode and first step, both `[n]`, of the windows that `windows` cuts."""
    starts = np.arange(0, episodes.actions.shape[1] - horizon + 1, stride)
    episode, start = np.nonzero(episodes.length[:, None] >= starts + horizon)
    return episode, starts[start]


def stretches(
    episode: np.ndarray, start: np.ndarray, horizon: int, values: np.ndarray
) -> np.ndarray:
    """Cut `horizon + 1` moments `[horizon + 1, n, ...]` out of `values [episodes, T + 1, ...]`."""
    index = start + np.arange(horizon + 1)[:, None]
    index = np.minimum(index, values.shape[1] - 1)  # actions have one entry fewer than states
    return np.asarray(values)[episode, index]


def open_loop(
    surrogate: Surrogate, episodes: Episodes, horizon: int, stride: int
) -> tuple[State, np.ndarray, np.ndarray]:
    """Fly the surrogate open loop beside recorded episodes.

    Raises:
        InputError: no episode is long enough.

    Returns:
        The true states `[horizon + 1, n, ...]`, the errors and the members' spread, both
        `[horizon, n, nc]` in the units of `Plant.state_channels`.
    """
    states, actions, disturbances = windows(episodes, horizon, stride)
    if not actions.shape[1]:
        raise InputError(f"no episode has {horizon} valid steps: collect longer or gentler ones")
    return states, *fly_beside(surrogate, states, actions, disturbances)


def fly_beside(
    surrogate: Surrogate, states: State, actions: np.ndarray, disturbances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fly the surrogate open loop from the first of true states `[T + 1, n, ...]`.

    Returns:
        Errors and the members' spread, both `[T, n, nc]`.
    """
    mean, spread = _fly(surrogate, states[0], actions, disturbances)
    return np.asarray(_error(surrogate, mean, states[1:])), np.asarray(spread)


@jax.jit
def _fly(surrogate: Surrogate, start: State, actions: jax.Array, disturbances: jax.Array):
    return surrogate.fly_with_spread(start, actions, disturbances)


@jax.jit
def _error(surrogate: Surrogate, predicted: State, true: State) -> jax.Array:
    return difference(surrogate.layout.joints, predicted, true)


def fly_reading(
    surrogate: Surrogate, states: State, actions: np.ndarray, disturbances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fly a surrogate with a readout open loop from the first of true states `[T + 1, n, ...]`.

    Returns:
        Readings and their spread, both `[T, n, ns]`.
    """
    flight = _fly_reading(surrogate, states[0], actions, disturbances)
    return np.asarray(flight.readings), np.asarray(flight.readings_spread)


@jax.jit
def _fly_reading(
    surrogate: Surrogate, start: State, actions: jax.Array, disturbances: jax.Array
) -> Flight:
    return surrogate.fly(start, actions, disturbances)


def read_known(readout: SensorReadout, episodes: Episodes) -> tuple[np.ndarray, np.ndarray]:
    """Return readings of all recorded states that a period led to, and their spread `[N, ns]`."""
    _, actions, disturbances, after = periods(episodes)
    told, spread = jax.jit(SensorReadout.tell)(readout, after, actions, disturbances)
    return np.asarray(told), np.asarray(spread)


def sensed(episodes: Episodes) -> np.ndarray:
    """Return what sensors read at the end of all valid control periods `[N, ns]`."""
    assert episodes.sensors is not None
    return episodes.sensors[np.arange(episodes.actions.shape[1]) < episodes.length[:, None]]


def sensed_along(episodes: Episodes, horizon: int, stride: int) -> np.ndarray:
    """Return what sensors read along the windows of `windows` `[horizon, n, ns]`."""
    assert episodes.sensors is not None
    starts = window_starts(episodes, horizon, stride)
    return stretches(*starts, horizon, episodes.sensors)[:-1]


def calibrate(surrogate: Surrogate, episodes: Episodes, horizon: int, stride: int) -> Calibration:
    """Fit the interval factors for horizons 1 to `horizon` on episodes that fitting did not see."""
    _, error, spread = open_loop(surrogate, episodes, horizon, stride)
    return intervals(error, spread)


def calibrate_readout(
    surrogate: Surrogate, episodes: Episodes, horizon: int, stride: int
) -> Calibration:
    """Fit the interval factors of readings, at known states and 1 to `horizon` periods ahead."""
    assert surrogate.readout is not None
    told, spread = read_known(surrogate.readout, episodes)
    known = intervals((told - sensed(episodes))[None], spread[None])
    told, spread = fly_reading(surrogate, *windows(episodes, horizon, stride))
    along = intervals(told - sensed_along(episodes, horizon, stride), spread)
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), known, along)


def intervals(error: np.ndarray, spread: np.ndarray) -> Calibration:
    """Return the interval factors of errors whose spread was predicted, both `[H, n, nc]`."""
    # A prediction that blew up is an infinite miss from then on, not a missing one.
    sound = (np.isfinite(error) & np.isfinite(spread)).all(axis=2, keepdims=True)
    error, spread = np.where(sound, error, 0.0), np.where(sound, spread, 0.0)
    # The floor keeps an interval open where the members agree by chance.
    kept = np.maximum(sound.sum(axis=1), 1)
    floor = 0.5 * np.sqrt(np.square(spread).sum(axis=1) / kept) + 1e-9
    ratio = np.abs(error) / np.sqrt(np.square(spread) + np.square(floor[:, None]))
    ratio = np.where(sound, ratio, np.inf)
    return Calibration(
        jnp.asarray(floor, jnp.float32), jnp.asarray(conformal_quantile(ratio), jnp.float32)
    )


def conformal_quantile(scores: np.ndarray, coverage: float = COVERAGE) -> np.ndarray:
    """Return the split-conformal quantile over axis 1 of `scores [H, n, nc]`."""
    count = scores.shape[1]
    rank = min(int(np.ceil((count + 1) * coverage)), count)
    return np.partition(scores, rank - 1, axis=1)[:, rank - 1]
