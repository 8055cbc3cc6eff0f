"""Walk forwards: observation, reward, start and end of Gymnasium's Walker2d-v5.

Source: Towers et al., "Gymnasium: A Standard Interface for Reinforcement Learning Environments",
2024, arXiv:2407.17032, and its `gymnasium/envs/mujoco/walker2d_v5.py`. Requirements are chosen.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from physai.state import State
from physai.task import Objective, ObservationChannel, Requirement, Task

CONTROL_PERIOD = 0.008  # s
HEIGHT = (0.8, 2.0)  # m, outside of which a walker is down
LEAN = 1.0  # rad, either way
SPEED_CLIP = 10.0  # m/s or rad/s, in the observation
CTRL_COST = 1e-3
START = jnp.zeros(9).at[1].set(1.25)
START_NOISE = 5e-3
LENGTHS = 0.45 + 0.5  # m, thigh and leg of the model


def reset(key: jax.Array, design: jax.Array) -> State:
    """Start upright, every coordinate and rate off by up to 0.005; on longer legs, higher."""
    noise = jax.random.uniform(key, (18,), minval=-START_NOISE, maxval=START_NOISE)
    higher = design[0] + design[1] - LENGTHS
    return State(
        qpos=(START + noise[:9]).at[1].add(higher),
        qvel=noise[9:],
        act=jnp.zeros(0),
        time=jnp.zeros(()),
        command=jnp.zeros(0),
        design=design,
    )


def observe(state: State) -> jax.Array:
    """Return configuration without the way forward, then rates."""
    return jnp.concatenate([state.qpos[1:], jnp.clip(state.qvel, -SPEED_CLIP, SPEED_CLIP)])


def healthy(state: State) -> jax.Array:
    """Tell whether the walker is up."""
    z, angle = state.qpos[1], state.qpos[2]
    return (z > HEIGHT[0]) & (z < HEIGHT[1]) & (jnp.abs(angle) < LEAN)


def reward(state: State, action: jax.Array, next_state: State) -> jax.Array:
    """Return forward speed in m/s, plus 1 while up, less the cost of control."""
    speed = (next_state.qpos[0] - state.qpos[0]) / CONTROL_PERIOD
    return speed + healthy(next_state) - CTRL_COST * jnp.sum(jnp.square(action))


def terminated(state: State) -> jax.Array:
    """Tell whether the walker is down."""
    return ~healthy(state)


def mean_speed(states: State) -> jax.Array:
    """Return the mean speed of a flight, m/s."""
    return (states.qpos[-1, 0] - states.qpos[0, 0]) / (states.time[-1] - states.time[0])


JOINTS = ("lean", "thigh", "leg", "foot", "thigh_left", "leg_left", "foot_left")
TASK = Task(
    commands=(),
    observations=(
        ObservationChannel("height", "m", -10.0, 10.0, 0.0),
        *(ObservationChannel(name, "rad", -1e4, 1e4, 0.0) for name in JOINTS),
        ObservationChannel("forward_rate", "m/s", -SPEED_CLIP, SPEED_CLIP, 0.0),
        ObservationChannel("upward_rate", "m/s", -SPEED_CLIP, SPEED_CLIP, 0.0),
        *(
            ObservationChannel(f"{name}_rate", "rad/s", -SPEED_CLIP, SPEED_CLIP, 0.0)
            for name in JOINTS
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
