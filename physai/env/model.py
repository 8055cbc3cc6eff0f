"""`Model`, the one interface between physics and all that flies, and a task, compiled for batches.

A model advances a state by one control period,

    x_{k+1} = f(x_k, u_k, w_k),

with action u and disturbance w held over the period. Environments, policies and planners are
written once, against this.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from physai.errors import InputError
from physai.plant import Plant
from physai.rollout.engine import SPEED_LIMIT
from physai.state import Array, State
from physai.surrogate.model import Surrogate
from physai.surrogate.store import load_surrogate
from physai.task import Task


class Model(Protocol):
    """What moves a plant: `rollout.engine.TruePlant` and `surrogate.model.Surrogate` alike.

    The true plant takes exactly one leading dimension, its number of simulations, in numpy float64;
    it stays on the host and cannot be traced. A learned model is pure JAX and a pytree, takes any
    leading dimensions `[...]`, and passes through jit, vmap, grad and scan.
    """

    def step(self, state: State, action: Array, disturbance: Array) -> State:
        """Return the state one control period on.

        Args:
            state: `[...]`; its command and design come back unchanged.
            action: `[..., nu]` in the units and within the ranges of `Plant.actions`.
            disturbance: `[..., nw]` in the units of `Plant.disturbances`.
        """
        ...


class BatchTask(NamedTuple):
    """A task's functions, compiled; all but `start` for states with one leading dimension `[n]`.

    Attributes:
        start: `(seed uint32, design [nd]) -> State`, one random start, unbatched: a batch of
            another size may round differently, and one seed is to be one start everywhere.
        observe: `State -> [n, no]`, not clipped.
        judge: `(state, action [n, nu], next_state) -> (observation [n, no], reward [n],
            terminated [n])`; observation and termination are those of `next_state`.
    """

    start: Callable[[Array, Array], State]
    observe: Callable[[State], jax.Array]
    judge: Callable[[State, Array, State], tuple[jax.Array, jax.Array, jax.Array]]


@lru_cache(maxsize=32)
def batch_task(task: Task) -> BatchTask:
    """Compile a task's functions for batches; every environment of this task shares them."""

    def judge(
        state: State, action: jax.Array, next_state: State
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        reward = task.reward(state, action, next_state)
        return task.observe(next_state), reward, task.terminated(next_state)

    return BatchTask(
        _compiled_start(task.reset), jax.jit(jax.vmap(task.observe)), jax.jit(jax.vmap(judge))
    )


@lru_cache(maxsize=32)
def _compiled_start(
    reset: Callable[[jax.Array, jax.Array], State],
) -> Callable[[Array, Array], State]:
    """Compile a task's reset: the costly part, which variants of a task have in common."""
    return jax.jit(lambda seed, design: reset(jax.random.key(seed), design))


class LearnedStep(NamedTuple):
    """One control period of n learned simulations.

    Attributes:
        state: the next state `[n, ...]`; rows that diverged repeat their last one.
        valid: False where the prediction diverged `[n]`, by the rule of the true plant.
        domain_score: distance of state, action and disturbance to the training data `[n]`: above 1
            the surrogate extrapolates. NaN for a model that knows no operating domain.
    """

    state: State
    valid: jax.Array
    domain_score: jax.Array


@jax.jit
def learned_step(model: Model, state: State, action: Array, disturbance: Array) -> LearnedStep:
    """Advance a learned model, freezing what diverges as the true plant does.

    Args:
        model: a pytree; its arrays are arguments: equal architectures share one compilation.
        state: `[n, ...]`.
        action: `[n, nu]`.
        disturbance: `[n, nw]`.
    """
    after = model.step(state, action, disturbance)
    total = after.qpos.sum(-1) + after.qvel.sum(-1) + after.act.sum(-1)
    speed = jnp.abs(after.qvel).max(-1, initial=0.0)
    valid = jnp.isfinite(total) & (speed < SPEED_LIMIT)

    def keep(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(valid.reshape(valid.shape + (1,) * (new.ndim - 1)), new, old)

    if isinstance(model, Surrogate):
        score = model.domain.score(model.raw_inputs(state, action, disturbance))
    else:
        score = jnp.full(valid.shape, jnp.nan)
    return LearnedStep(jax.tree.map(keep, after, state), valid, score)


def state_shapes(plant: Plant, task: Task, *leading: int) -> State:
    """Return a State of `jax.ShapeDtypeStruct`, float32, as `plant` and `task` lay it out."""
    m = plant.model
    widths = ((m.nq,), (m.nv,), (m.na,), (), (len(task.commands),), (len(plant.design),))
    return State(*(jax.ShapeDtypeStruct((*leading, *w), jnp.float32) for w in widths))


def learned_model(surrogate: str | Path | Model | None, plant: Plant, task: Task) -> Model | None:
    """Load a surrogate and try its step on shapes alone, without computing; None stays None.

    Args:
        surrogate: a surrogate's folder, or a learned model.
        plant: the machine that it has to predict.
        task: gives the width of the command.

    Raises:
        InputError: no such folder, no learned model, or one of another plant.
    """
    if surrogate is None:
        return None
    if isinstance(surrogate, (str, Path)):
        if not Path(surrogate).is_dir():
            raise InputError(
                f"surrogate: no folder {str(surrogate)!r}. Fit one with `physai fit`, or leave "
                "surrogate out to use the true simulator."
            )
        surrogate = load_surrogate(surrogate, plant)
    state = state_shapes(plant, task, 1)
    action = jax.ShapeDtypeStruct((1, plant.nu), jnp.float32)
    disturbance = jax.ShapeDtypeStruct((1, plant.nw), jnp.float32)
    try:
        after = jax.eval_shape(learned_step, surrogate, state, action, disturbance).state
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise _foreign(plant, f"its step fails: {error}") from error
    if jax.tree.map(jnp.shape, after) != jax.tree.map(jnp.shape, state):
        raise _foreign(plant, "its step returns a state of another shape")
    if isinstance(surrogate, Surrogate) and surrogate.layout.joints != plant.joints:
        names = ", ".join(joint.name for joint in surrogate.layout.joints)
        raise _foreign(plant, f"it was fitted to joints {names}")
    return surrogate


def _foreign(plant: Plant, why: str) -> InputError:
    return InputError(
        f"surrogate: not a model of plant {plant.name} (nq {plant.model.nq}, nv {plant.model.nv}, "
        f"{plant.nu} actions, {plant.nw} disturbances): {why}"
    )
