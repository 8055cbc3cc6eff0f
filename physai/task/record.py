"""What a machine has to do: pure functions of the state, and requirements to be verified.

Every function of a `Task` is pure jax.numpy on one unbatched State, so that it runs alike on the
true plant, inside a surrogate, under vmap, grad and jit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from physai.plant import Channel, Plant
from physai.state import State


@dataclass(frozen=True)
class ObservationChannel(Channel):
    """A channel that the controller sees.

    Attributes:
        noise: standard deviation of the sensor's white noise, in `unit`.
    """

    noise: float


@dataclass(frozen=True)
class Requirement:
    """A bound on one number of a flown trajectory.

    Attributes:
        name: short identifier.
        description: one line for the certificate.
        unit: of `measure` and `limit`.
        limit: the requirement is met when `measure(states) <= limit`.
        measure: function of the states `[T+1, ...]` of one episode to a scalar.
    """

    name: str
    description: str
    unit: str
    limit: float
    measure: Callable[[State], jax.Array]


@dataclass(frozen=True)
class Objective:
    """A number that a design study improves, averaged over flights.

    Attributes:
        name: short identifier.
        description: one line for the study's table.
        unit: of `measure`.
        maximise: whether more is better.
        measure: function of the states `[T+1, ...]` of one episode to a scalar.
    """

    name: str
    description: str
    unit: str
    maximise: bool
    measure: Callable[[State], jax.Array]


@dataclass(frozen=True)
class Readout:
    """What only the true simulator tells: quantities of MjData that do not follow from `State`.

    They are for environments that have to equal another package's to the digit. Derived fields are
    as mj_step leaves them: of the state before the last physics step, or, with RK4, of its last
    stage; cfrc_ext and its like are those of mj_rnePostConstraint after that.

    Attributes:
        observations: channels that the true simulator's environments append to the observation.
        read: `(MjModel, MjData) -> [nr]`, numpy; its first numbers are those of `observations`, the
            rest is for `reward` alone. Before the first step, forces are 0.
        reward: `(state, action [nu], next_state, reading [nr], next_reading [nr]) -> scalar`, there
            in place of the task's.
    """

    observations: tuple[ObservationChannel, ...]
    read: Callable[[mujoco.MjModel, mujoco.MjData], np.ndarray]
    reward: Callable[[State, jax.Array, State, jax.Array, jax.Array], jax.Array]


@dataclass(frozen=True)
class Task:
    """A control task.

    Attributes:
        commands: channels of `State.command`.
        observations: channels of what `observe` returns, in order.
        duration: seconds of an episode.
        reset: `(key, design [nd]) -> State`, a random start.
        observe: `State -> [no]`.
        reward: `(state, action [nu], next_state) -> scalar` for one control period.
        terminated: `State -> bool`, the episode has failed for good.
        requirements: what verification judges.
        objectives: what a design study trades off.
        excitation: `(key, design [nd]) -> State`, a wider start for collecting (None: `reset`).
        settling: `states [T+1] -> s`, time after which the goal is kept (inf: never; None: no such
            measure).
        readout: what environments on the true simulator show beyond that (None: nothing).
        notes: sentences about the task that `physai check` passes on.
    """

    commands: tuple[Channel, ...]
    observations: tuple[ObservationChannel, ...]
    duration: float
    reset: Callable[[jax.Array, jax.Array], State]
    observe: Callable[[State], jax.Array]
    reward: Callable[[State, jax.Array, State], jax.Array]
    terminated: Callable[[State], jax.Array]
    requirements: tuple[Requirement, ...]
    objectives: tuple[Objective, ...] = ()
    excitation: Callable[[jax.Array, jax.Array], State] | None = None
    settling: Callable[[State], jax.Array] | None = None
    readout: Readout | None = None
    notes: tuple[str, ...] = ()

    @property
    def no(self) -> int:
        """Number of observation channels."""
        return len(self.observations)

    @property
    def observation_noise(self) -> np.ndarray:
        """Standard deviations of the sensors `[no]`."""
        return np.array([c.noise for c in self.observations])


def design_aware(task: Task, plant: Plant) -> Task:
    """Return the task with the design vector, scaled to [-1, 1], appended to the observation."""
    low = jnp.array([v.low for v in plant.design])
    high = jnp.array([v.high for v in plant.design])
    extra = tuple(ObservationChannel(f"design.{v.name}", "1", -1.0, 1.0, 0.0) for v in plant.design)

    def observe(state: State) -> jax.Array:
        scaled = 2.0 * (state.design - low) / (high - low) - 1.0
        return jnp.concatenate([task.observe(state), scaled])

    return replace(task, observations=(*task.observations, *extra), observe=observe)
