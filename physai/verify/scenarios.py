"""Fresh flights to verify a controller with: starts, gusts, sensor noise, delay and wrong masses.

Everything is drawn from one seed through named streams, one a flight: flight 17 of 20 is flight 17
of 2,000, and switching the gusts off leaves starts and noise as they were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np

from physai.errors import InputError
from physai.plant import Plant
from physai.rollout.excitation import disturbance_process
from physai.settings import check_number, check_whole
from physai.state import State
from physai.task import Task


@dataclass(frozen=True)
class ScenarioSettings:
    """How hard the flights are. The defaults are the nominal ones, without disturbances."""

    flights: int = 2000
    """Number of flights."""
    gusts: float = 0.0
    """Factor on the standard deviation of the plant's disturbances; 1 is what the plant says."""
    sensor_noise: float = 0.0
    """Factor on the standard deviation of the task's sensors; 1 is what the task says."""
    delay_steps: int = 0
    """Control periods between an observation and the moment its action reaches the actuators."""
    mass_spread: float = 0.0
    """Masses and inertias are scaled by a factor drawn from [1 - mass_spread, 1 + mass_spread]."""

    def __post_init__(self) -> None:
        """Refuse what cannot be flown."""
        check_whole(self, "flights", least=1)
        check_whole(self, "delay_steps", least=0)
        check_number(self, "gusts", "sensor_noise", least=0.0)
        check_number(self, "mass_spread", least=0.0, below=1.0)


NOMINAL = ScenarioSettings()
"""Random starts and nothing else."""

DISTURBED = ScenarioSettings(gusts=1.0, sensor_noise=1.0, delay_steps=1, mass_spread=0.1)
"""Gusts, sensor noise, one control period of delay and masses wrong by up to 10%, all at once."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scenarios:
    """n flights of T control periods, numpy arrays.

    Attributes:
        starts: float32 states `[n, ...]`.
        designs: float64 design vectors `[n, nd]`.
        mass_scale: factor on every mass and inertia `[n]`.
        disturbances: float32 `[n, T, nw]`, in the channels' units, held for one control period.
        noise: float32 `[n, T, no]`, added to the observation, in the channels' units.
        delay_steps: control periods that an action is late.
    """

    starts: State
    designs: np.ndarray
    mass_scale: np.ndarray
    disturbances: np.ndarray
    noise: np.ndarray
    delay_steps: int = field(metadata={"static": True})

    @property
    def flights(self) -> int:
        """Number of flights n."""
        return len(self.mass_scale)


def take(tree: Any, rows: Any) -> Any:
    """Index or slice the flights of any record of arrays `[n, ...]`."""
    return jax.tree.map(lambda x: x[rows], tree)


def draw_scenarios(
    plant: Plant,
    task: Task,
    settings: ScenarioSettings,
    seed: int,
    design: np.ndarray | None = None,
) -> Scenarios:
    """Draw the flights of one condition.

    Args:
        plant: gives the disturbances and their ranges.
        task: gives the starts, the sensors and the duration.
        settings: how hard.
        seed: of everything; two conditions with one seed share starts, and all else up to factors.
        design: design vector `[nd]`, or one a flight `[n, nd]` (None: the nominal one).

    Raises:
        InputError: a negative seed, or a design of the wrong shape or outside its bounds.
    """
    if seed < 0:
        raise InputError(f"seed: expected 0 or more, got {seed}")
    n, steps = settings.flights, max(1, round(task.duration / plant.control_period))
    given = plant.nominal if design is None else np.asarray(design, float)
    plant.check_design(given)
    try:
        designs = np.broadcast_to(given, (n, len(plant.design))).copy()
    except ValueError:
        raise InputError(
            f"design vectors: expected 1 or {n}, one a flight, got {len(given)}"
        ) from None
    masses = [_stream(seed, "mass", i).uniform(-1.0, 1.0) for i in range(n)]
    disturbances = np.empty((n, steps, plant.nw), np.float32)
    noise = np.empty((n, steps, task.no), np.float32)
    std = settings.sensor_noise * task.observation_noise
    for i in range(n):
        disturbances[i] = disturbance_process(
            plant, _stream(seed, "disturbance", i), steps, settings.gusts
        )
        noise[i] = std * _stream(seed, "noise", i).standard_normal((steps, task.no))
    return Scenarios(
        starts=_starts(task, designs, seed),
        designs=designs,
        mass_scale=1.0 + settings.mass_spread * np.array(masses),
        disturbances=disturbances,
        noise=noise,
        delay_steps=settings.delay_steps,
    )


def _stream(seed: int, name: str, flight: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(_sequence(seed, name, flight)))


def _sequence(seed: int, name: str, *index: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(crc32(name.encode()), *index))


def _starts(task: Task, designs: np.ndarray, seed: int) -> State:
    key = jax.random.key(int(_sequence(seed, "start").generate_state(1)[0]))
    reset = _reset(task.reset)
    # One at a time, not under vmap: a batch of another size may round differently.
    starts = [reset(key, i, jnp.asarray(d, jnp.float32)) for i, d in enumerate(designs)]
    return jax.tree.map(lambda *x: np.stack([np.asarray(v, np.float32) for v in x]), *starts)


@lru_cache(maxsize=16)
def _reset(
    reset: Callable[[jax.Array, jax.Array], State],
) -> Callable[[jax.Array, int, jax.Array], State]:
    return jax.jit(lambda key, flight, design: reset(jax.random.fold_in(key, flight), design))
