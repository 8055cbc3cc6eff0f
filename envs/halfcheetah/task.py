"""Run forwards: observation, reward and start of Gymnasium's HalfCheetah-v5.

Source: Towers et al., "Gymnasium: A Standard Interface for Reinforcement Learning Environments",
2024, arXiv:2407.17032, and its `gymnasium/envs/mujoco/half_cheetah_v5.py`. Requirements are chosen.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from physai.state import State
from physai.task import Objective, ObservationChannel, Requirement, Task

CONTROL_PERIOD = 0.05  # s
CTRL_COST = 0.1
START_NOISE = 0.1


def reset(key: jax.Array, design: jax.Array) -> State:
    """Start at the model's rest pose: coordinates off by up to 0.1, rates by 0.1 at one sigma."""
    place, rate = jax.random.split(key)
    return State(
        qpos=jax.random.uniform(place, (9,), minval=-START_NOISE, maxval=START_NOISE),
        qvel=START_NOISE * jax.random.normal(rate, (9,)),
        act=jnp.zeros(0),
        time=jnp.zeros(()),
        command=jnp.zeros(0),
        design=design,
    )


def observe(state: State) -> jax.Array:
    """Return configuration without the way forward, then rates."""
    return jnp.concatenate([state.qpos[1:], state.qvel])


def reward(state: State, action: jax.Array, next_state: State) -> jax.Array:
    """Return forward speed in m/s less the cost of control."""
    speed = (next_state.qpos[0] - state.qpos[0]) / CONTROL_PERIOD
    return speed - CTRL_COST * jnp.sum(jnp.square(action))


def terminated(state: State) -> jax.Array:
    """Never: a half-cheetah may lie on its back."""
    return jnp.zeros((), bool)


def mean_speed(states: State) -> jax.Array:
    """Return the mean speed of a flight, m/s."""
    return (states.qpos[-1, 0] - states.qpos[0, 0]) / (states.time[-1] - states.time[0])


JOINTS = ("lean", "bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")
TASK = Task(
    commands=(),
    observations=(
        ObservationChannel("height", "m", -100.0, 100.0, 0.0),
        *(ObservationChannel(name, "rad", -1e4, 1e4, 0.0) for name in JOINTS),
        ObservationChannel("forward_rate", "m/s", -1e3, 1e3, 0.0),
        ObservationChannel("upward_rate", "m/s", -1e3, 1e3, 0.0),
        *(ObservationChannel(f"{name}_rate", "rad/s", -1e4, 1e4, 0.0) for name in JOINTS),
    ),
    duration=50.0,
    reset=reset,
    observe=observe,
    reward=reward,
    terminated=terminated,
    requirements=(
        Requirement(
            "slowness",
            "4 m/s less the mean speed",
            "m/s",
            0.0,
            lambda states: 4.0 - mean_speed(states),
        ),
    ),
    objectives=(Objective("speed", "mean speed forwards", "m/s", True, mean_speed),),
)
