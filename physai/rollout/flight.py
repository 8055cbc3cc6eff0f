"""Flying one shard of episodes on the true plant: designs, starts, excitation, simulation.

Everything random in a shard is a function of (seed, split, shard).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from physai.plant import Plant
from physai.rollout.batch import checked
from physai.rollout.engine import TruePlant
from physai.rollout.excitation import Excitation, Shaking, clip_actions, draw_starts, shake
from physai.rollout.store import MOMENTS, SPLITS, Split
from physai.state import State
from physai.task import Task


class HostController(Protocol):
    """What flies in the loop: `physai.control.controller.BatchController`."""

    @property
    def init(self) -> Callable[[int], Any]:
        """`(n) -> cstate`."""
        ...

    @property
    def step(self) -> Callable[[Any, np.ndarray], tuple[Any, np.ndarray]]:
        """`(cstate, observation [n, no]) -> (cstate, action [n, nu])`."""
        ...


class Shard(NamedTuple):
    """Some episodes of a split: `episodes` rows from row `first`; shard `index` of the split.

    `number` counts the shards of all splits.
    """

    number: int
    split: Split
    index: int
    first: int
    episodes: int


class Job(NamedTuple):
    """What all shards of a collection have in common."""

    plant: Plant
    task: Task
    excitation: Excitation
    designs_per_shard: int
    steps: int
    seed: int
    controller: HostController | None


class Ready(NamedTuple):
    """A shard before take-off."""

    simulator: TruePlant
    start: State
    shaking: Shaking


class Flown(NamedTuple):
    """What the simulator gave.

    Attributes:
        arrays: float32, by the store's names, `[n, ...]`.
        sound: control periods before an episode diverged, T where it did not `[n]`.
        ended: the moment at which the task first calls an episode terminated, T+1 for never `[n]`.
    """

    arrays: dict[str, np.ndarray]
    sound: np.ndarray
    ended: np.ndarray


def prepare(job: Job, shard: Shard) -> Ready:
    """Draw everything random and compile the designs."""
    split, episodes = SPLITS.index(shard.split), shard.episodes
    rng = np.random.default_rng(np.random.SeedSequence(job.seed, spawn_key=(split, shard.index)))
    key = jax.random.key(int(rng.integers(2**31)))
    designs = _designs(job, split, shard)
    start = draw_starts(job.task, key, designs)
    controlled = job.controller is not None
    shaking = shake(job.plant, job.task, job.excitation, rng, episodes, job.steps, controlled)
    return Ready(TruePlant(job.plant, episodes, designs), start, shaking)


def _designs(job: Job, split: int, shard: Shard) -> np.ndarray:
    """Return the designs of a shard `[episodes, nd]`: its share of the split's Sobol sequence."""
    plant, count = job.plant, job.designs_per_shard
    if not plant.design or not count:
        return np.tile(plant.nominal, (shard.episodes, 1)).astype(np.float32).astype(float)
    from scipy.stats import qmc  # half a second to import

    sequence = np.random.SeedSequence(job.seed, spawn_key=(split,))
    sobol = qmc.Sobol(len(plant.design), scramble=True, rng=np.random.default_rng(sequence))
    if shard.index:
        sobol.fast_forward(shard.index * count)
    low, high = (np.array([getattr(v, end) for v in plant.design]) for end in ("low", "high"))
    points = (low + (high - low) * sobol.random(count)).astype(np.float32)
    return plant.check_design(points[np.arange(shard.episodes) % count])


class _Pilot:
    """A controller in the loop: it sees noisy observations, and its actions are disturbed."""

    def __init__(self, job: Job, controller: HostController, shaking: Shaking) -> None:
        self._plant, self._task, self._controller = job.plant, job.task, controller
        self._shaking, n = shaking, len(shaking.noise)
        self._observe = _compiled(job.task)[0]
        self._cstate = controller.init(n)
        self._before = np.broadcast_to(job.plant.trim.astype(np.float32), (n, job.plant.nu))

    def act(self, k: int, state: State) -> np.ndarray:
        """Return the actions that are applied in period k `[n, nu]`."""
        shaking, n = self._shaking, len(self._before)
        observation = np.asarray(self._observe(state))
        checked(observation, (n, self._task.no), "observation of task.py")
        observation = observation + shaking.sensor_noise[:, k]
        self._cstate, action = self._controller.step(self._cstate, observation)
        action = checked(action, (n, self._plant.nu), "action of the controller")
        action = clip_actions(self._plant, action + shaking.noise[:, k])
        applied = np.where(shaking.delayed[:, None], self._before, action)
        self._before = action
        return applied


def fly(job: Job, ready: Ready) -> Flown:
    """Fly a shard. What is applied is the float32 that is recorded, so a record replays exactly."""
    simulator, start, shaking = ready
    n, steps = simulator.nsim, job.steps
    arrays: dict[str, np.ndarray] = {
        name: np.empty((n, steps + 1, *getattr(start, name).shape[1:]), np.float32)
        for name in MOMENTS
    }
    pilot, actions = None, clip_actions(job.plant, shaking.mean + shaking.noise)
    if job.controller is not None:
        pilot = _Pilot(job, job.controller, shaking)
    sound = np.zeros(n, np.int32)
    state = start
    sensors = np.zeros((n, steps, len(job.plant.sensor_channels)), np.float32)
    for k in range(steps + 1):
        for name in MOMENTS:
            arrays[name][:, k] = getattr(state, name)
        if k == steps:
            break
        if pilot is not None:
            recorded = {name: arrays[name][:, k] for name in MOMENTS}
            actions[:, k] = pilot.act(k, state.replace(**recorded))
        state = simulator.step(state, actions[:, k], shaking.disturbances[:, k])
        if job.plant.sensors:
            sensors[:, k] = _sense(simulator)
        sound += simulator.valid
    if job.plant.sensors:
        arrays["sensor"] = sensors
    arrays |= {"command": start.command, "design": start.design, "start_time": start.time}
    arrays |= {"action": actions, "disturbance": shaking.disturbances}
    arrays = {name: np.asarray(values, np.float32) for name, values in arrays.items()}
    return Flown(arrays, sound, _ended(job, arrays))


def _sense(simulator: TruePlant) -> np.ndarray:
    """Return what the sensors read `[n, ns]`; what has no finite reading counts as diverged."""
    running = simulator.valid
    with np.errstate(over="ignore"):  # a number too large for the record is infinite
        read = simulator.sense(None if running.all() else np.flatnonzero(running))
        read = read.astype(np.float32)
    simulator.valid = running & np.isfinite(read).all(1)
    return np.where(simulator.valid[:, None], read, 0.0)


def _ended(job: Job, arrays: dict[str, np.ndarray]) -> np.ndarray:
    moments = np.arange(job.steps + 1) * job.plant.control_period
    states = State(
        **{name: arrays[name] for name in (*MOMENTS, "command", "design")},
        time=(arrays["start_time"][:, None] + moments).astype(np.float32),
    )
    over = np.asarray(_compiled(job.task)[1](states))
    return np.where(over.any(1), over.argmax(1), job.steps + 1)


@lru_cache(maxsize=8)
def _compiled(task: Task) -> tuple[Callable[[State], jax.Array], Callable[[State], jax.Array]]:
    """Return `observe` of states `[n]` and `terminated` of states `[n, T+1]`, compiled."""
    along = jax.vmap(task.terminated, (State(0, 0, 0, 0, None, None),))
    return jax.jit(jax.vmap(task.observe)), jax.jit(jax.vmap(along))
