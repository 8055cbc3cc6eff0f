"""What moves a plant while data are collected: coloured noise on its actions, and its disturbances.

Both are Ornstein-Uhlenbeck processes, sampled without a discretisation error. With period h and
correlation time tau,

    x_0 ~ N(0, 1),   x_{k+1} = r x_k + sqrt(1 - r^2) e_k,   r = exp(-h / tau),   e_k ~ N(0, 1)

so that every sample has variance 1 and the correlation over m periods is r^m. White noise would be
filtered away by actuators and inertia; slow noise alone would never excite the fast modes.

Reference: Uhlenbeck, Ornstein, "On the theory of the Brownian motion", Physical Review 36, 1930,
doi:10.1103/PhysRev.36.823; Gillespie, "Exact numerical simulation of the Ornstein-Uhlenbeck process
and its integral", Physical Review E 54, 1996, equation 1.9, doi:10.1103/PhysRevE.54.2084.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from physai.errors import InputError
from physai.plant import Plant
from physai.settings import check_number
from physai.state import State
from physai.task import Task

_BLOCK = 64


@dataclass(frozen=True)
class Excitation:
    """How hard the plant is shaken. Fractions are of an action channel's range."""

    offset: float = 0.15
    """Standard deviation of an episode's mean action about trim, the same for all channels."""
    scale: tuple[float, float] = (0.02, 0.3)
    """Standard deviation of the action noise, a fraction; log-uniform, drawn once an episode."""
    correlation_time: tuple[float, float] = (0.04, 0.8)
    """Of the action noise, s; log-uniform, drawn once an episode."""
    disturbance: float = 2.0
    """Disturbances are scaled by a factor drawn uniformly from 0 to this, once an episode."""
    controlled: tuple[float, float] = (0.1, 1.0 / 3.0)
    """With a controller in the loop: factor on the action noise; uniform, drawn once an episode."""
    delayed: float = 0.3
    """With a controller in the loop: share of the episodes whose actions come a period late."""

    def __post_init__(self) -> None:
        """Refuse what no process can have."""
        for name in ("scale", "correlation_time", "controlled"):
            low, high = getattr(self, name)
            if not 0.0 < low <= high < np.inf:
                raise InputError(f"{name}: expected 0 < low <= high, got {low}, {high}")
        check_number(self, "offset", "disturbance", least=0.0)
        check_number(self, "delayed", least=0.0, most=1.0)


class Shaking(NamedTuple):
    """Random signals for n episodes of T control periods, float32.

    Attributes:
        mean: action about which an episode without a controller moves `[n, 1, nu]`.
        noise: added to the action `[n, T, nu]`.
        disturbances: `[n, T, nw]`, within their ranges.
        sensor_noise: added to the observation `[n, T, no]`; empty without a controller.
        delayed: episodes whose actions come one period late `[n]` bool; none without a controller.
    """

    mean: np.ndarray
    noise: np.ndarray
    disturbances: np.ndarray
    sensor_noise: np.ndarray
    delayed: np.ndarray


def coloured_noise(
    rng: np.random.Generator, shape: tuple[int, ...], correlation_periods: ArrayLike
) -> np.ndarray:
    """Draw Ornstein-Uhlenbeck processes of unit variance.

    Args:
        rng: source of randomness.
        shape: `[..., T, channels]` of the result.
        correlation_periods: tau / h, above 0; broadcasts to `[..., 1, channels]`.

    Returns:
        float32 `shape`.
    """
    x = rng.standard_normal(shape, dtype=np.float32)
    r = np.exp(-1.0 / np.asarray(correlation_periods))
    x[..., 1:, :] *= np.sqrt(1.0 - np.square(r)).astype(np.float32)
    # A scan in log2(T) passes: after each, x_k holds the last 2^j terms of sum_i r^(k - i) e_i.
    shift = 1
    while shift < shape[-2]:
        x[..., shift:, :] += np.power(r, shift).astype(np.float32) * x[..., :-shift, :]
        shift *= 2
    return x


def disturbance_process(
    plant: Plant, rng: np.random.Generator, steps: int, scale: ArrayLike = 1.0
) -> np.ndarray:
    """Draw the plant's disturbances.

    Args:
        plant: says standard deviation, correlation time and range of each channel.
        rng: source of randomness.
        steps: control periods T.
        scale: factor on the standard deviations, a scalar or one an episode `[n]`.

    Returns:
        float32 `[T, nw]`, or `[n, T, nw]` where scale is `[n]`, clipped to the channels' ranges.
    """
    scale = np.asarray(scale, float)
    channels = plant.disturbances
    shape = (*scale.shape, steps, len(channels))
    if not channels:
        return np.zeros(shape, np.float32)
    periods = np.array([d.correlation_time for d in channels]) / plant.control_period
    values = coloured_noise(rng, shape, periods)
    values *= (scale[..., None, None] * [d.std for d in channels]).astype(np.float32)
    return _clip(values, [d.low for d in channels], [d.high for d in channels])


def shake(
    plant: Plant,
    task: Task,
    settings: Excitation,
    rng: np.random.Generator,
    episodes: int,
    steps: int,
    controlled: bool,
) -> Shaking:
    """Draw everything random that a batch of episodes needs after its start."""
    n, span = episodes, np.array([a.high - a.low for a in plant.actions])
    scale = _log_uniform(rng, settings.scale, n)
    periods = _log_uniform(rng, settings.correlation_time, n) / plant.control_period
    mean = plant.trim + settings.offset * rng.standard_normal((n, 1, 1)) * span
    noise = coloured_noise(rng, (n, steps, plant.nu), periods)
    disturbances = disturbance_process(plant, rng, steps, rng.uniform(0.0, settings.disturbance, n))
    sensor_noise, delayed = np.zeros((n, 0, task.no), np.float32), np.zeros(n, bool)
    if controlled:
        scale = scale * rng.uniform(*settings.controlled, (n, 1, 1))
        sensor_noise = rng.standard_normal((n, steps, task.no), dtype=np.float32)
        sensor_noise *= task.observation_noise.astype(np.float32)
        delayed = rng.random(n) < settings.delayed
    noise *= (scale * span).astype(np.float32)
    return Shaking(mean.astype(np.float32), noise, disturbances, sensor_noise, delayed)


def draw_starts(task: Task, key: jax.Array, designs: np.ndarray) -> State:
    """Draw the starts of n episodes, wide ones where the task has them.

    Args:
        task: its `excitation`, else its `reset`.
        key: source of randomness.
        designs: `[n, nd]`.

    Returns:
        State of float64 numpy arrays `[n, ...]`, exactly representable in float32.
    """
    n = len(designs)
    size = -(-n // _BLOCK) * _BLOCK
    keys = jax.random.split(key, size)
    padded = np.resize(designs, (size, designs.shape[1])).astype(np.float32)
    draw = _draw(task)
    # In blocks of one size: compiled once, and a start does not depend on how many are drawn.
    blocks = [
        draw(keys[i : i + _BLOCK], jnp.asarray(padded[i : i + _BLOCK]))
        for i in range(0, size, _BLOCK)
    ]
    return jax.tree.map(lambda *x: np.concatenate(x).astype(np.float64)[:n], *blocks)


@lru_cache(maxsize=8)
def _draw(task: Task) -> Any:
    return jax.jit(jax.vmap(task.excitation or task.reset))


def clip_actions(plant: Plant, actions: np.ndarray) -> np.ndarray:
    """Return actions `[..., nu]` clipped to their ranges, float32: what is applied and recorded."""
    return _clip(
        np.asarray(actions, np.float32),
        [a.low for a in plant.actions],
        [a.high for a in plant.actions],
    )


def _clip(values: np.ndarray, low: list[float], high: list[float]) -> np.ndarray:
    return np.clip(values, np.array(low, np.float32), np.array(high, np.float32))


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float], n: int) -> np.ndarray:
    return np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]), (n, 1, 1)))
