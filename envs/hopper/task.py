"""Hop forwards: observation, reward, start and end of Gymnasium's Hopper-v5.

Source: Towers et al., "Gymnasium: A Standard Interface for Reinforcement Learning Environments",
2024, arXiv:2407.17032, and its `gymnasium/envs/mujoco/hopper_v5.py`. Requirements are chosen.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from physai.state import State
from physai.task import Objective, ObservationChannel, Requirement, Task

CONTROL_PERIOD = 0.008  # s
HEIGHT = 0.7  # m, below which a hopper is down
LEAN = 0.2  # rad, either way
STATE_LIMIT = 100.0
SPEED_CLIP = 10.0  # m/s or rad/s, in the observation
CTRL_COST = 1e-3
START = jnp.array([0.0, 1.25, 0.0, 0.0, 0.0, 0.0])
START_NOISE = 5e-3
LENGTHS = 0.45 + 0.5  # m, thigh and leg of the model


def reset(key: jax.Array, design: jax.Array) -> State:
    """Start upright, every coordinate and rate off by up to 0.005; on longer legs, higher."""
    noise = jax.random.uniform(key, (12,), minval=-START_NOISE, maxval=START_NOISE)
    higher = design[0] + design[1] - LENGTHS
    return State(
        qpos=(START + noise[:6]).at[1].add(higher),
        qvel=noise[6:],
        act=jnp.zeros(0),
        time=jnp.zeros(()),
        command=jnp.zeros(0),
        design=design,
    )


def observe(state: State) -> jax.Array:
    """Return configuration without the way forward, then rates."""
    return jnp.concatenate([state.qpos[1:], jnp.clip(state.qvel, -SPEED_CLIP, SPEED_CLIP)])


def healthy(state: State) -> jax.Array:
    """Tell whether the hopper is up."""
    z, angle = state.qpos[1], state.qpos[2]
    rest = jnp.concatenate([state.qpos[2:], state.qvel])
    return (z > HEIGHT) & (jnp.abs(angle) < LEAN) & jnp.all(jnp.abs(rest) < STATE_LIMIT)


def reward(state: State, action: jax.Array, next_state: State) -> jax.Array:
    """Return forward speed in m/s, plus 1 while up, less the cost of control."""
    speed = (next_state.qpos[0] - state.qpos[0]) / CONTROL_PERIOD
    return speed + healthy(next_state) - CTRL_COST * jnp.sum(jnp.square(action))


def terminated(state: State) -> jax.Array:
    """Tell whether the hopper is down."""
    return ~healthy(state)


def mean_speed(states: State) -> jax.Array:
    """Return the mean speed of a flight, m/s."""
    return (states.qpos[-1, 0] - states.qpos[0, 0]) / (states.time[-1] - states.time[0])


TASK = Task(
    commands=(),
    observations=(
        ObservationChannel("height", "m", -10.0, 10.0, 0.0),
        *(
            ObservationChannel(name, "rad", -1e4, 1e4, 0.0)
            for name in ("lean", "thigh", "leg", "foot")
        ),
        ObservationChannel("forward_rate", "m/s", -SPEED_CLIP, SPEED_CLIP, 0.0),
        ObservationChannel("upward_rate", "m/s", -SPEED_CLIP, SPEED_CLIP, 0.0),
        *(
            ObservationChannel(f"{name}_rate", "rad/s", -SPEED_CLIP, SPEED_CLIP, 0.0)
            for name in ("lean", "thigh", "leg", "foot")
        ),
    ),
    duration=8.0,
    reset=reset,
    observe=observe,
    reward=reward,
    terminated=terminated,
    requirements=(
        Requirement(
            "fallen",
            "share of the flight in which it is down",
            "1",
            0.0,
            lambda states: jnp.mean(1.0 - jax.vmap(healthy)(states)),
        ),
        Requirement(
            "slowness",
            "1 m/s less the mean speed",
            "m/s",
            0.0,
            lambda states: 1.0 - mean_speed(states),
        ),
    ),
    objectives=(Objective("speed", "mean speed forwards", "m/s", True, mean_speed),),
)
