"""A plant's task in a surrogate as pure functions, for `jit`, `vmap`, `scan` and `grad`.

    env = functional_env(surrogate, plant, task)
    start = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 1024))
    after, observation, reward, terminated, truncated = jax.vmap(env.step)(start, actions)

Disturbances are the Ornstein-Uhlenbeck processes of `physai.rollout.excitation`, drawn with JAX:
the same distribution as in `PlantEnv`, but other numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from physai.env.model import Model, learned_model, learned_step
from physai.env.options import control_steps, given_design, given_task
from physai.env.outside import check_outside
from physai.errors import InputError
from physai.plant import Plant
from physai.state import Array, State
from physai.task import Task

_GUSTS, _NOISE = 1, 2  # what an episode's key is folded with


class EnvState(NamedTuple):
    """One episode, a pytree, float32 but for `key`, `steps` and `valid`.

    Attributes:
        state: of the plant, unbatched.
        gust: the disturbances' processes, unit variance `[nw]`, that act in the next period.
        key: of everything random in the episode after its start.
        steps: control periods since the start.
        valid: False once the prediction diverged; the state is then the last sound one.
        domain_score: distance of the last step's input to the training data; above 1 the surrogate
            extrapolates. 0 after `reset`; NaN for a model that knows no operating domain.
    """

    state: State
    gust: jax.Array
    key: jax.Array
    steps: jax.Array
    valid: jax.Array
    domain_score: jax.Array


class FunctionalEnv(NamedTuple):
    """Pure functions of one environment; `jax.vmap` makes them functions of many.

    Attributes:
        reset: `(key, design=None) -> EnvState`; design `[nd]`, None for the nominal one. One of the
            wrong length is refused; one outside its bounds too, where it is not traced.
        observe: `EnvState -> observation [no]`, clipped to its ranges, as `step` returns it.
        step: `(EnvState, action [nu]) -> (EnvState, observation [no], reward, terminated,
            truncated)`. It goes on after an end: nothing resets itself. `terminated` says that the
            task calls the episode lost or that the prediction diverged, `valid` tells which. A
            state that was put into an EnvState is not checked: its quaternions have to be unit.
    """

    reset: Callable[..., EnvState]
    observe: Callable[[EnvState], jax.Array]
    step: Callable[[EnvState, Array], tuple[EnvState, jax.Array, jax.Array, jax.Array, jax.Array]]


def functional_env(
    surrogate: str | Path | Model,
    plant: Plant,
    task: Task,
    *,
    outside: str = "accept",
    disturbances: bool = True,
    sensor_noise: bool = False,
    duration: float | None = None,
) -> FunctionalEnv:
    """Return the pure functions of a task in a surrogate.

    Gradients pass through the step, the reward and the observation. They vanish where an action
    or an observation is clipped, and are those of the frozen state where a prediction diverged.

    Args:
        surrogate: a surrogate's folder, or a learned `Model`, a pytree with a pure JAX `step`.
        plant: the machine, of which channels and control period are read.
        task: what it has to do.
        outside: "accept" what the surrogate predicts outside its training data, or "abstain": a
            step whose `domain_score` is above 1 keeps the state, gives no reward and is truncated.
        disturbances: whether the plant's disturbances act, drawn anew every episode.
        sensor_noise: whether the task's sensor noise is added to observations.
        duration: seconds after which `truncated` is True (None: the task's, inf: never).

    Raises:
        InputError: no such surrogate, one of another plant, a bad duration; from the functions, a
            bad design.
    """
    if not isinstance(plant, Plant):
        raise InputError(f"plant: expected a Plant, as load_plant returns it, got {plant!r}")
    task = given_task(plant, task)
    model = learned_model(surrogate, plant, task)
    if model is None:
        raise InputError("surrogate: expected a learned model; the true simulator is no JAX")
    abstain = check_outside(outside, model) == "abstain"
    if outside == "simulate":
        raise InputError(
            'outside: expected "accept" or "abstain", got "simulate": true MuJoCo is no JAX; '
            "PlantEnv and PlantVectorEnv can simulate"
        )
    periods = control_steps(plant, task.duration if duration is None else duration)
    limit = np.iinfo(np.int32).max if math.isinf(periods) else int(periods)
    action_low, action_high = _ranges(plant.actions)
    low, high = _ranges(task.observations)
    noise = np.asarray(task.observation_noise, np.float32)

    def reset(key: jax.Array, design: Array | None = None) -> EnvState:
        start, episode = jax.random.split(key)
        design = _design(plant, plant.nominal if design is None else design)
        gust_key = jax.random.fold_in(episode, _GUSTS)
        return EnvState(
            state=_float32(task.reset(start, design).replace(design=design)),
            gust=jax.random.normal(jax.random.fold_in(gust_key, 0), (plant.nw,)),
            key=episode,
            steps=jnp.int32(0),
            valid=jnp.array(True),
            domain_score=jnp.float32(0.0),
        )

    def observe(env: EnvState) -> jax.Array:
        observation = task.observe(env.state)
        if sensor_noise:
            key = jax.random.fold_in(jax.random.fold_in(env.key, _NOISE), env.steps)
            observation = observation + noise * jax.random.normal(key, noise.shape)
        return jnp.clip(observation, low, high)

    def step(
        env: EnvState, action: Array
    ) -> tuple[EnvState, jax.Array, jax.Array, jax.Array, jax.Array]:
        action = jnp.clip(jnp.asarray(action, jnp.float32), action_low, action_high)
        gust = _gust(plant, env.gust) if disturbances else jnp.zeros(plant.nw)
        moved = learned_step(model, env.state, action, gust)
        out = (moved.domain_score > 1.0) & abstain
        after = jax.tree.map(lambda x, old: jnp.where(out, old, x), moved.state, env.state)
        after = _float32(after)
        steps = env.steps + 1
        valid = env.valid & (moved.valid | out)
        key = jax.random.fold_in(jax.random.fold_in(env.key, _GUSTS), steps)
        onward = EnvState(
            after, _next_gust(plant, env.gust, key), env.key, steps, valid, moved.domain_score
        )
        reward = jnp.where(out, 0.0, task.reward(env.state, action, after))
        terminated = ~valid | (task.terminated(after) & ~out)
        return onward, observe(onward), reward, terminated, (steps >= limit) | out

    return FunctionalEnv(reset, observe, step)


def _design(plant: Plant, design: Array) -> jax.Array:
    """Return a design vector `[nd]`, float32; the values of a traced one cannot be checked."""
    traced = [x for x in jax.tree.leaves(design) if isinstance(x, Tracer)]
    if not traced:
        return jnp.asarray(given_design(plant, design, None), jnp.float32)
    design = jnp.asarray(design, jnp.float32)
    if design.shape != (len(plant.design),):
        raise InputError(f"design: expected shape ({len(plant.design)},), got {design.shape}")
    return design


def _gust(plant: Plant, x: jax.Array) -> jax.Array:
    """Return disturbances `[nw]` in their units, within their ranges, of unit-variance `x`."""
    low, high = _ranges(plant.disturbances)
    std = np.array([d.std for d in plant.disturbances], np.float32)
    return jnp.clip(std * x, low, high)


def _next_gust(plant: Plant, x: jax.Array, key: jax.Array) -> jax.Array:
    """Advance x_{k+1} = r x_k + sqrt(1 - r^2) e_k, r = exp(-h / tau), one control period."""
    tau = np.array([d.correlation_time for d in plant.disturbances])
    r = np.exp(-plant.control_period / tau)
    kick = np.sqrt(1.0 - np.square(r)).astype(np.float32)
    return jnp.asarray(r, jnp.float32) * x + kick * jax.random.normal(key, x.shape)


def _ranges(channels: tuple) -> tuple[np.ndarray, np.ndarray]:
    low = np.array([c.low for c in channels], np.float32)
    return low, np.array([c.high for c in channels], np.float32)


def _float32(state: State) -> State:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), state)
