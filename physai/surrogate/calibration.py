"""Split-conformal intervals by channel and horizon.

For a window of a calibration episode the normalised residual of channel c at horizon h is
|error| / sqrt(spread^2 + floor^2). Of the n windows that last h periods, at most m of one episode,
the interval's factor is the ceil((1 - alpha) (n + m))-th smallest residual. With one window an
episode, m = 1, this is the split-conformal quantile. With more, they depend on each other: take as
an episode's loss its windows outside less alpha times its windows, at most (1 - alpha) m. By
conformal risk control its expectation in one more exchangeable episode is at most 0, so that of
the windows of fresh episodes at least 1 - alpha are covered.

References: Lei et al., "Distribution-free predictive inference for regression", 2018, algorithm 2,
doi:10.1080/01621459.2017.1307116; Angelopoulos, Bates, Fisch, Lei, Schuster, "Conformal risk
control", 2022, theorem 1, arXiv:2208.02814.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physai.errors import InputError
from physai.rollout.dataset import Episodes
from physai.state import State, difference
from physai.surrogate.model import Surrogate
from physai.surrogate.scaling import Calibration

COVERAGE = 0.9
CHUNK = 2048
"""Windows that are flown side by side: one compiled program, and memory that does not grow."""


class Flown(NamedTuple):
    """The surrogate's open-loop flights beside windows of recorded episodes.

    Attributes:
        episode, start: of each window, `[n]`.
        lasting: control periods that its record lasts, `[n]`, at most H; what is behind counts for
            nothing.
        states: the true ones `[H + 1, n, ...]`.
        actions, disturbances: `[H, n, ...]`.
        error, spread: of the prediction, `[H, n, nc]`, in the units of `Plant.state_channels`.
    """

    episode: np.ndarray
    start: np.ndarray
    lasting: np.ndarray
    states: State
    actions: np.ndarray
    disturbances: np.ndarray
    error: np.ndarray
    spread: np.ndarray

    @property
    def recorded(self) -> np.ndarray:
        """Which windows `[H, n]` last to each horizon."""
        return np.arange(1, len(self.error) + 1)[:, None] <= self.lasting

    @property
    def sound(self) -> np.ndarray:
        """Where `[H, n]` the prediction is finite."""
        return np.asarray((np.isfinite(self.error) & np.isfinite(self.spread)).all(axis=2))

    def of(self, rows: np.ndarray) -> Flown:
        """Return some of the windows."""
        rest: Any = (self.states, self.actions, self.disturbances, self.error, self.spread)
        rest = jax.tree.map(lambda values: values[:, rows], rest)
        return Flown(self.episode[rows], self.start[rows], self.lasting[rows], *rest)


def windows(episodes: Episodes, horizon: int, stride: int) -> tuple[State, np.ndarray, np.ndarray]:
    """Cut every stretch of `horizon` valid steps that starts at a multiple of `stride`.

    Returns:
        states `[horizon + 1, n, ...]`, actions `[horizon, n, nu]`, disturbances `[horizon, n, nw]`.
    """
    return cut(episodes, *window_starts(episodes, horizon, stride), horizon)


def window_starts(episodes: Episodes, least: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Return episode and first step, both `[n]`, of the windows of at least `least` valid steps."""
    starts = np.arange(0, episodes.actions.shape[1] - least + 1, stride)
    episode, start = np.nonzero(episodes.length[:, None] >= starts + least)
    return episode, starts[start]


def cut(
    episodes: Episodes, episode: np.ndarray, start: np.ndarray, horizon: int
) -> tuple[State, np.ndarray, np.ndarray]:
    """Cut windows out of episodes: states, actions and disturbances, as `windows` does."""
    part = partial(stretches, episode, start, horizon)
    states = jax.tree.map(part, episodes.states)
    return states, part(episodes.actions)[:-1], part(episodes.disturbances)[:-1]


def stretches(
    episode: np.ndarray, start: np.ndarray, horizon: int, values: np.ndarray
) -> np.ndarray:
    """Cut `horizon + 1` moments `[horizon + 1, n, ...]` out of `values [episodes, T + 1, ...]`.

    Behind the last moment it is repeated.
    """
    index = start + np.arange(horizon + 1)[:, None]
    index = np.minimum(index, values.shape[1] - 1)  # actions have one entry fewer than states
    return np.asarray(values)[episode, index]


def open_loop(
    surrogate: Surrogate, episodes: Episodes, horizon: int, stride: int, least: int = 1
) -> Flown:
    """Fly the surrogate open loop beside recorded episodes.

    Args:
        surrogate: what flies.
        episodes: beside which.
        horizon: steps to fly, H.
        stride: control periods between the windows cut from an episode.
        least: valid steps that a window has at least.

    Raises:
        InputError: no episode is long enough.
    """
    episode, start = window_starts(episodes, least, stride)
    if not len(episode):
        raise InputError(f"no episode has {least} valid steps: collect longer or gentler ones")
    given = cut(episodes, episode, start, horizon)
    lasting = np.minimum(episodes.length[episode] - start, horizon)
    return Flown(episode, start, lasting, *given, *fly_beside(surrogate, *given))


def fly_beside(
    surrogate: Surrogate, states: State, actions: np.ndarray, disturbances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fly the surrogate open loop from the first of true states `[T + 1, n, ...]`.

    Returns:
        Errors and the members' spread, both `[T, n, nc]`.
    """
    error, spread = in_parts(_fly, surrogate, states, actions, disturbances)
    return error, spread


def in_parts(
    flight: Callable[..., tuple[jax.Array, ...]],
    surrogate: Surrogate,
    states: State,
    actions: np.ndarray,
    disturbances: np.ndarray,
) -> list[np.ndarray]:
    """Call a compiled function of a surrogate and windows, on `CHUNK` windows at a time.

    Args:
        flight: returns arrays whose second axis is that of the windows.
        surrogate: its first argument.
        states, actions, disturbances: its others, the windows along the second axis.
    """
    given, count = (states, actions, disturbances), actions.shape[1]
    size = min(count, CHUNK)
    parts = []
    for first in range(0, count, size):
        # The last chunk is filled with windows once more, so that it is compiled no second time.
        rows = np.arange(first, first + size) % count
        flown = flight(surrogate, *jax.tree.map(lambda x, rows=rows: x[:, rows], given))
        parts.append([np.asarray(values)[:, : count - first] for values in flown])
    return [np.concatenate(values, axis=1) for values in zip(*parts, strict=True)]


@jax.jit
def _fly(
    surrogate: Surrogate, states: State, actions: jax.Array, disturbances: jax.Array
) -> tuple[jax.Array, jax.Array]:
    mean, spread = surrogate.fly_with_spread(states[0], actions, disturbances)
    return difference(surrogate.layout.joints, mean, states[1:]), spread


def calibrate(surrogate: Surrogate, episodes: Episodes, horizon: int, stride: int) -> Calibration:
    """Fit the interval factors for horizons 1 to `horizon` on episodes that fitting did not see."""
    return intervals(open_loop(surrogate, episodes, horizon, stride))


def intervals(flown: Flown) -> Calibration:
    """Fit the interval factors to flights beside episodes that fitting did not see."""
    return factors(flown.error, flown.spread, flown.recorded, flown.episode)


def factors(
    error: np.ndarray, spread: np.ndarray, recorded: np.ndarray, episode: np.ndarray
) -> Calibration:
    """Fit the interval factors to errors whose spread was predicted.

    Each horizon is calibrated on all windows that last so long. Where they are too few for any
    finite interval to cover 90%, the factor is infinite: nothing is promised there.

    Args:
        error, spread: `[H, n, nc]`.
        recorded: which windows last to each horizon `[H, n]`.
        episode: of each window `[n]`.
    """
    sound = np.asarray((np.isfinite(error) & np.isfinite(spread)).all(axis=2))
    kept = (recorded & sound)[..., None]
    error, spread = np.where(kept, error, 0.0), np.where(kept, spread, 0.0)
    # The floor keeps an interval open where the members agree by chance.
    mean_square = np.square(spread).sum(axis=1) / np.maximum(kept.sum(axis=1), 1)
    floor = 0.5 * np.sqrt(mean_square) + 1e-9
    ratio = np.abs(error) / np.sqrt(np.square(spread) + np.square(floor[:, None]))
    # A prediction that blew up is an infinite miss from then on, not a missing one.
    ratio = np.where(sound[..., None], ratio, np.inf)
    quantile = [
        conformal_quantile(ratio[step, recorded[step]], episode[recorded[step]])
        for step in range(len(ratio))
    ]
    return Calibration(jnp.asarray(floor, jnp.float32), jnp.asarray(quantile, jnp.float32))


def conformal_quantile(
    scores: np.ndarray, episode: np.ndarray, coverage: float = COVERAGE
) -> np.ndarray:
    """Return the conformal quantile `[nc]` of scores `[n, nc]`, which share episodes `[n]`.

    Of the scores of fresh episodes at least `coverage` are expected to be no larger. Infinite where
    the scores are too few for that.
    """
    count = len(scores)
    most = int(np.bincount(episode).max()) if count else 1
    rank = int(np.ceil((count + most) * coverage))
    if rank > count:
        return np.full(scores.shape[1], np.inf)
    return np.partition(scores, rank - 1, axis=0)[rank - 1]
