"""Fly a batch of scenarios in true MuJoCo, and judge the flights by the task's requirements.

One period k of the control loop, with a delay of d periods:

    y_k = observe(x_k) + noise_k
    a_k = controller(y_k)
    x_{k+1} = MuJoCo(x_k, a_{k-d}, disturbance_k)        a_j = trim for j < 0

Flights are flown in blocks of a fixed number, the last one filled up with copies. A matrix product
may round differently in a batch of another size; in equal blocks a flight is the same to the bit,
whether 20 or 2,000 are flown, and when it is replayed alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from physai.control.controller import BatchController
from physai.errors import InputError
from physai.plant import Plant
from physai.progress import Progress, silent
from physai.rollout.engine import TruePlant
from physai.rollout.excitation import clip_actions
from physai.state import State
from physai.task import Task
from physai.verify.scenarios import Scenarios, take

BLOCK = 500


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Flights:
    """What happened in n flights of T control periods, numpy arrays.

    Attributes:
        states: float32 `[n, T+1, ...]`; a flight that diverged repeats its last state.
        actions: what the actuators received, float32 `[n, T, nu]`, delayed and within their ranges.
        diverged: the simulation blew up `[n]`.
        faults: control periods in which the controller returned NaN or infinity `[n]`; the trim
            action was flown instead.
    """

    states: State
    actions: np.ndarray
    diverged: np.ndarray
    faults: np.ndarray

    @property
    def valid(self) -> np.ndarray:
        """Flights that neither diverged nor saw a controller fault `[n]`."""
        return ~self.diverged & (self.faults == 0)


@dataclass(frozen=True)
class Judgement:
    """What the task says of n flights, numpy arrays.

    Attributes:
        measures: what each requirement measured `[n, nr]`, in its unit; inf for a failed flight.
        margin: largest measure in terms of its limit `[n]`, at most 1 when all are met.
        met: `[n, nr]`.
        lost: the task called the flight failed for good at some moment `[n]`.
        failed: diverged, lost, or the controller faulted `[n]`; such a flight meets no requirement.
        returns: sum of rewards `[n]`.
        settling: settling time, s `[n]` (inf: never), or None where the task has no such measure.
    """

    measures: np.ndarray
    margin: np.ndarray
    met: np.ndarray
    lost: np.ndarray
    failed: np.ndarray
    returns: np.ndarray
    settling: np.ndarray | None

    @property
    def passed(self) -> np.ndarray:
        """Flights that met every requirement `[n]`."""
        return self.met.all(axis=1) & ~self.failed


def fly(
    plant: Plant,
    task: Task,
    controller: BatchController,
    scenarios: Scenarios,
    progress: Progress = silent,
    block: int = BLOCK,
    stage: str = "fly",
) -> Flights:
    """Fly every scenario in true MuJoCo.

    Args:
        plant: the machine.
        task: gives the observation; nothing stops a flight early.
        controller: gets observations `[block, no]` float32, must return actions `[block, nu]`.
        scenarios: n of them.
        progress: called with the number of flights done.
        block: how many fly side by side; fewer for a controller that needs much memory.
        stage: what `progress` is told.

    Raises:
        InputError: the controller's actions have the wrong shape or are not numbers.
    """
    n = scenarios.flights
    if block < 1:
        raise InputError(f"block: expected at least 1 flight, got {block}")
    parts = []
    progress(stage, 0, n)
    for first in range(0, n, block):
        rows = np.minimum(np.arange(first, first + block), n - 1)
        flown = _fly_block(plant, task, controller, take(scenarios, rows))
        parts.append(take(flown, slice(0, n - first)))
        progress(stage, min(first + block, n), n)
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def judge(task: Task, flights: Flights, block: int = BLOCK) -> Judgement:
    """Measure n flights by the task's requirements, reward and termination.

    A measure is compared with its limit in float32, in which it was computed. A measure that comes
    out as NaN counts as not met.
    """
    n = len(flights.faults)
    parts = []
    for first in range(0, n, block):
        rows = np.minimum(np.arange(first, first + block), n - 1)
        judged = _judge(task)(*take((flights.states, flights.actions), rows))
        parts.append(take(jax.tree.map(np.asarray, judged), slice(0, n - first)))
    measures, lost, returns, settling = jax.tree.map(lambda *a: np.concatenate(a), *parts)
    failed = ~flights.valid | lost
    measures = np.where(failed[:, None] | np.isnan(measures), np.inf, measures)
    limits = np.array([r.limit for r in task.requirements], np.float32)
    if settling is not None:
        settling = np.where(failed | np.isnan(settling), np.inf, settling)
    return Judgement(
        measures=measures,
        margin=np.where(failed, np.inf, _margins(measures, limits).max(axis=1, initial=0.0)),
        met=measures <= limits,
        lost=lost,
        failed=failed,
        returns=returns,
        settling=settling,
    )


def _fly_block(
    plant: Plant, task: Task, controller: BatchController, scenarios: Scenarios
) -> Flights:
    n, steps = scenarios.disturbances.shape[:2]
    scaled = np.any(scenarios.mass_scale != 1.0)
    simulator = TruePlant(plant, n, scenarios.designs, scenarios.mass_scale if scaled else None)
    trim = np.broadcast_to(np.asarray(plant.trim, np.float32), (n, plant.nu))

    states = jax.tree.map(lambda x: np.empty((steps + 1, *x.shape), np.float32), scenarios.starts)
    actions = np.empty((steps, n, plant.nu), np.float32)
    faults = np.zeros(n, np.int64)
    observe = _observe(task.observe)
    on_the_way = deque([trim] * scenarios.delay_steps)
    cstate = controller.init(n)
    state = jax.tree.map(lambda x: np.asarray(x, np.float64), scenarios.starts)
    for k in range(steps):
        now = _store(states, k, state)
        observation = np.asarray(observe(now)) + scenarios.noise[:, k]
        cstate, action = controller.step(cstate, observation)
        action, fault = _sound_action(action, trim)
        faults += fault
        on_the_way.append(clip_actions(plant, action))
        actions[k] = on_the_way.popleft()
        state = simulator.step(state, actions[k], scenarios.disturbances[:, k])
    _store(states, steps, state)
    states, actions = jax.tree.map(
        lambda x: np.ascontiguousarray(x.swapaxes(0, 1)), (states, actions)
    )
    return Flights(states, actions, ~simulator.valid, faults)


def _store(states: State, k: int, state: State) -> State:
    """Write moment k in float32 and return it: what is stored is what the controller saw."""

    def write(stored: np.ndarray, value: np.ndarray) -> np.ndarray:
        stored[k] = value
        return stored[k]

    return jax.tree.map(write, states, state)


def _sound_action(action: Any, trim: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the action with faulty rows replaced by trim, and which rows those are."""
    try:
        with np.errstate(over="ignore"):  # beyond float32 becomes infinite, hence a fault
            action = np.asarray(action, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"controller: expected numbers as actions, got {error}") from error
    if action.shape != trim.shape:
        raise InputError(
            f"controller: expected actions of shape {trim.shape} (flights, action channels), "
            f"got {action.shape}"
        )
    fault = ~np.isfinite(action).all(axis=1)
    return np.where(fault[:, None], trim, action), fault


def _margins(measures: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Return measure / limit; where the limit is not positive, 1 plus the excess over it."""
    positive = limits > 0.0
    return np.where(positive, measures / np.where(positive, limits, 1.0), 1.0 + measures - limits)


@lru_cache(maxsize=16)
def _observe(observe: Callable[[State], jax.Array]) -> Callable[[State], jax.Array]:
    return jax.jit(jax.vmap(observe))


@lru_cache(maxsize=16)
def _judge(task: Task) -> Callable[[State, jax.Array], tuple[Any, ...]]:
    def one(states: State, actions: jax.Array) -> tuple[Any, ...]:
        measures = [jnp.asarray(r.measure(states), jnp.float32) for r in task.requirements]
        rewards = jax.vmap(task.reward)(states[:-1], actions, states[1:])
        settling = None if task.settling is None else task.settling(states)
        return (
            jnp.stack(measures) if measures else jnp.zeros((0,)),
            jnp.any(jax.vmap(task.terminated)(states)),
            jnp.sum(rewards),
            settling,
        )

    return jax.jit(jax.vmap(one))
