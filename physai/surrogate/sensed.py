"""What a readout tells beside what sensors read: of known states, and along flights."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physai.rollout.dataset import Episodes
from physai.state import State
from physai.surrogate.calibration import cut, factors, in_parts, stretches, window_starts
from physai.surrogate.model import Surrogate
from physai.surrogate.prior import periods
from physai.surrogate.readout import SensorReadout
from physai.surrogate.scaling import Calibration


class Sensed(NamedTuple):
    """Predicted readings beside recorded ones.

    Attributes:
        error, spread: of the prediction `[H, n, ns]`.
        recorded: which of the n are recorded at each horizon `[H, n]`.
        episode: of each `[n]`.
    """

    error: np.ndarray
    spread: np.ndarray
    recorded: np.ndarray
    episode: np.ndarray


def sensed(episodes: Episodes) -> np.ndarray:
    """Return what sensors read at the end of all valid control periods `[N, ns]`."""
    assert episodes.sensors is not None
    return episodes.sensors[_valid(episodes)]


def of_known_states(surrogate: Surrogate, episodes: Episodes) -> Sensed:
    """Read all recorded states that a control period led to; H is 1."""
    _, actions, disturbances, after = periods(episodes)
    assert surrogate.readout is not None
    told, spread = jax.jit(SensorReadout.tell)(
        surrogate.readout, surrogate.known, after, actions, disturbances
    )
    error = np.asarray(told) - sensed(episodes)
    episode = np.nonzero(_valid(episodes))[0]
    return Sensed(error[None], np.asarray(spread)[None], np.ones((1, len(error)), bool), episode)


def along_flights(surrogate: Surrogate, episodes: Episodes, horizon: int, stride: int) -> Sensed:
    """Fly open loop beside recorded episodes, for horizons 1 to H, and read the predicted states.

    Args:
        surrogate: with a readout.
        episodes: with sensors.
        horizon: control periods to fly, H.
        stride: control periods between the windows cut from an episode.
    """
    assert episodes.sensors is not None
    episode, start = window_starts(episodes, 1, stride)
    told, spread = in_parts(_fly, surrogate, *cut(episodes, episode, start, horizon))
    read = stretches(episode, start, horizon, episodes.sensors)[:-1]
    lasting = episodes.length[episode] - start
    recorded = np.arange(1, horizon + 1)[:, None] <= lasting
    return Sensed(told - read, spread, recorded, episode)


def calibrate_readout(
    surrogate: Surrogate, episodes: Episodes, horizon: int, stride: int
) -> Calibration:
    """Fit the interval factors of readings, at known states and 1 to `horizon` periods ahead."""
    assert surrogate.readout is not None
    known = factors(*of_known_states(surrogate, episodes))
    along = factors(*along_flights(surrogate, episodes, horizon, stride))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), known, along)


@jax.jit
def _fly(
    surrogate: Surrogate, states: State, actions: jax.Array, disturbances: jax.Array
) -> tuple[jax.Array, jax.Array]:
    flight = surrogate.fly(states[0], actions, disturbances)
    return flight.readings, flight.readings_spread


def _valid(episodes: Episodes) -> np.ndarray:
    return np.arange(episodes.actions.shape[1]) < episodes.length[:, None]
