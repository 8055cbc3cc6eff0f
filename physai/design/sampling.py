"""What a design is worth: closed-loop flights from random starts, in a model and in true MuJoCo.

With flights i of a design d, each settled or not, an objective is the mean over the settled ones,

    J(d) = mean[ J_i(d) : flight i settled ],    settled share s(d) = mean[ flight i settled ]

A flight settles when it stays finite, is never terminated, each of its objectives is finite, and
the goal is kept to the end (`Task.settling`; a task without it: its requirements are met). What did
not settle is counted, not mixed into the objectives as a large number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np

from physai.control.controller import BatchController, Controller
from physai.env.model import Model
from physai.errors import InputError
from physai.plant import Plant
from physai.progress import Progress, silent
from physai.state import State
from physai.surrogate.model import Surrogate
from physai.task import Task
from physai.verify.fly import fly, judge
from physai.verify.scenarios import ScenarioSettings, draw_scenarios


class Flown(NamedTuple):
    """f flights of each of n designs.

    Attributes:
        values: the task's objectives `[n, f, no]`, in their units.
        settled: `[n, f]` bool.
        passed: the flight met every requirement of the task `[n, f]` bool.
        outside: share of the control periods outside the surrogate's domain `[n, f]`.
    """

    values: np.ndarray
    settled: np.ndarray
    passed: np.ndarray
    outside: np.ndarray


@dataclass(frozen=True)
class Outcome:
    """What the flights of n designs come to.

    Attributes:
        values: mean over the settled flights `[n, no]`; NaN where none settled.
        settled: share of flights that settled `[n]`.
        passed: flights that met every requirement `[n]`.
        outside: share of the control periods outside the surrogate's domain `[n]`.
        flights: of each design.
    """

    values: np.ndarray
    settled: np.ndarray
    passed: np.ndarray
    outside: np.ndarray
    flights: int

    @property
    def feasible(self) -> np.ndarray:
        """Designs of which every flight settled `[n]`."""
        return self.settled == 1.0


Imagine = Callable[[np.ndarray, jax.Array], Flown]


def outcome(flown: Flown) -> Outcome:
    """Average flights, design by design."""
    weight = flown.settled[..., None]
    total = np.where(weight, flown.values, 0.0).sum(axis=1, dtype=float)
    count = weight.sum(axis=1)
    values = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return Outcome(
        values=values,
        settled=flown.settled.mean(axis=1),
        passed=flown.passed.sum(axis=1),
        outside=flown.outside.mean(axis=1, dtype=float),
        flights=flown.settled.shape[1],
    )


def check_objectives(plant: Plant, task: Task) -> None:
    """Refuse a task without objectives, or with one that is not a scalar.

    Raises:
        InputError: so it is.
    """
    where = plant.folder / "task.py"
    if not task.objectives:
        raise InputError(f"{where}: the task has no objectives; a design study needs at least one")
    design = jax.ShapeDtypeStruct((len(plant.design),), jnp.float32)
    state = jax.eval_shape(task.reset, jax.random.key(0), design)
    steps = periods(plant, task) + 1
    states = jax.tree.map(lambda x: jax.ShapeDtypeStruct((steps, *x.shape), x.dtype), state)
    for objective in task.objectives:
        shape = jax.eval_shape(objective.measure, states).shape
        if shape != ():
            raise InputError(f"{where}: objective {objective.name}: expected a scalar, got {shape}")


def periods(plant: Plant, task: Task) -> int:
    """Return the number of control periods of a flight."""
    return max(1, round(task.duration / plant.control_period))


def imagined_flights(
    plant: Plant, task: Task, controller: Controller, model: Model, designs: int, flights: int
) -> Imagine:
    """Return `(design vectors [n, nd], key) -> Flown`, closed-loop flights in a model.

    One key is one set of starts, the same for every design, so that designs differ by what they are
    and not by luck. Any number of designs is flown in blocks of one fixed size: compiled once.

    Args:
        plant: gives the ranges of the actions.
        task: gives starts, observations and objectives.
        controller: closes the loop; sees no sensor noise, and its actions are not late.
        model: a surrogate, or any other `Model` in pure JAX.
        designs: in a block.
        flights: of each design.
    """
    fly_block = jax.jit(_block(plant, task, controller, flights))

    def imagine(vectors: np.ndarray, key: jax.Array) -> Flown:
        starts = jax.random.split(key, flights)
        parts = []
        for first in range(0, len(vectors), designs):
            rows = np.minimum(np.arange(first, first + designs), len(vectors) - 1)
            block = fly_block(model, jnp.asarray(vectors[rows], jnp.float32), starts)
            parts.append([np.asarray(x)[: len(vectors) - first] for x in block])
        return Flown(*(np.concatenate(x) for x in zip(*parts, strict=True)))

    return imagine


def _block(
    plant: Plant, task: Task, controller: Controller, flights: int
) -> Callable[[Any, jax.Array, jax.Array], Flown]:
    low = jnp.array([a.low for a in plant.actions], jnp.float32)
    high = jnp.array([a.high for a in plant.actions], jnp.float32)
    steps = periods(plant, task)

    def block(model: Any, designs: jax.Array, keys: jax.Array) -> Flown:
        n = designs.shape[0] * flights
        each = jnp.repeat(designs, flights, axis=0)
        start = jax.vmap(task.reset)(jnp.tile(keys, designs.shape[0]), each)
        calm = jnp.zeros((n, plant.nw), jnp.float32)

        def period(carry: tuple[Any, State], _: None) -> tuple[Any, Any]:
            cstate, state = carry
            observation = jax.vmap(task.observe)(state)
            cstate, action, _info = jax.vmap(controller.step)(cstate, observation)
            action = jnp.clip(action, low, high)
            outside = jnp.zeros(n, bool)
            if isinstance(model, Surrogate):
                outside = model.domain.score(model.raw_inputs(state, action, calm)) > 1.0
            after = model.step(state, action, calm)
            return (cstate, after), (after, outside)

        cstate = jax.vmap(controller.init)(jnp.tile(keys, designs.shape[0]))
        _, (later, outside) = jax.lax.scan(period, (cstate, start), None, length=steps)
        states = jax.tree.map(
            lambda first, rest: jnp.concatenate([first[None], rest]).swapaxes(0, 1), start, later
        )
        values, settled, passed = jax.vmap(_result(task))(states)
        flown = Flown(values, settled, passed, jnp.mean(outside, axis=0))  # type: ignore[arg-type]
        return jax.tree.map(lambda x: x.reshape(-1, flights, *x.shape[1:]), flown)

    return block


def true_flights(
    plant: Plant,
    task: Task,
    controller: BatchController,
    designs: np.ndarray,
    flights: int,
    seed: int,
    stream: str,
    progress: Progress = silent,
) -> Flown:
    """Fly `flights` fresh starts of each design vector `[n, nd]` in true MuJoCo, undisturbed.

    The starts depend on seed, stream and the design's row alone: what one design gets does not
    depend on how many others there are.
    """
    parts = []
    progress(stream, 0, len(designs))
    for row, design in enumerate(designs):
        sequence = np.random.SeedSequence(seed, spawn_key=(crc32(stream.encode()), row))
        own = int(sequence.generate_state(1)[0])
        scenarios = draw_scenarios(plant, task, ScenarioSettings(flights=flights), own, design)
        flown = fly(plant, task, controller, scenarios, block=flights)
        values, settled, _ = map(np.asarray, _results(task)(flown.states))
        passed = judge(task, flown, block=flights).passed
        sound = settled & flown.valid
        parts.append(Flown(values, sound, passed, np.zeros(flights)))
        progress(stream, row + 1, len(designs))
    return Flown(*(np.stack(x) for x in zip(*parts, strict=True)))


@dataclass(frozen=True)
class Trials:
    """The three ways in which a study flies designs, each from starts of its own.

    Attributes:
        imagine: flights in the model, from `imagined_flights`.
        controller: closes the loop in true MuJoCo.
        plant, task: what flies, and what for.
        starts: flights of a design in one call of `imagine`.
        flights: of a design in true MuJoCo.
        seed: of all starts.
    """

    imagine: Imagine
    controller: BatchController
    plant: Plant
    task: Task
    starts: int
    flights: int
    seed: int

    def search(self, designs: np.ndarray) -> Outcome:
        """Fly designs `[n, nd]` in the model from the few starts that a search compares by."""
        return outcome(self.imagine(designs, jax.random.fold_in(jax.random.key(self.seed), 0)))

    def predict(self, designs: np.ndarray) -> Outcome:
        """Fly designs in the model from about as many other starts as `verify` takes.

        What a search has chosen looks better than it is on the starts that it was chosen by.
        """
        key = jax.random.fold_in(jax.random.key(self.seed), 1)
        calls = range(-(-self.flights // self.starts))
        parts = [self.imagine(designs, jax.random.fold_in(key, i)) for i in calls]
        return outcome(Flown(*(np.concatenate(x, axis=1) for x in zip(*parts, strict=True))))

    def verify(self, designs: np.ndarray, stream: str, progress: Progress = silent) -> Outcome:
        """Fly designs in true MuJoCo, each from fresh starts of its own."""
        return outcome(
            true_flights(
                self.plant,
                self.task,
                self.controller,
                designs,
                self.flights,
                self.seed,
                stream,
                progress,
            )
        )


def _result(task: Task) -> Callable[[State], tuple[jax.Array, jax.Array, jax.Array]]:
    """Return `states [T+1, ...] -> (objectives [no], settled, passed)`."""

    def result(states: State) -> tuple[jax.Array, jax.Array, jax.Array]:
        values = jnp.stack([jnp.asarray(o.measure(states), jnp.float32) for o in task.objectives])
        met = jnp.array([r.measure(states) <= r.limit for r in task.requirements], bool)
        sound = jnp.isfinite(values).all() & jnp.isfinite(states.qpos).all()
        sound &= jnp.isfinite(states.qvel).all() & ~jnp.any(jax.vmap(task.terminated)(states))
        passed = sound & jnp.all(met)
        settled = passed
        if task.settling is not None:
            settled = sound & jnp.isfinite(task.settling(states))
        return values, settled, passed

    return result


@lru_cache(maxsize=16)
def _results(task: Task) -> Callable[[State], tuple[jax.Array, jax.Array, jax.Array]]:
    return jax.jit(jax.vmap(_result(task)))
