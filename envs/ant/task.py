"""Walk forwards: observation, reward, start and end of Gymnasium's Ant-v5.

The contact forces in Gymnasium's observation and reward are no function of the state. On the true
simulator they are read out; learned dynamics leave them out, as Gymnasium's options
`include_cfrc_ext_in_observation=False` and `contact_cost_weight=0` do, and take the speed of the
torso from its position.

Source: Towers et al., "Gymnasium: A Standard Interface for Reinforcement Learning Environments",
2024, arXiv:2407.17032, and its `gymnasium/envs/mujoco/ant_v5.py`. Requirements are chosen.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from physai.state import State
from physai.task import Objective, ObservationChannel, Readout, Requirement, Task

CONTROL_PERIOD = 0.05  # s
CTRL_COST, CONTACT_COST = 0.5, 5e-4
FORCE_CLIP = 1.0  # N and N m, in observation and cost
HEALTHY = (0.2, 1.0)  # m, height of the torso
START_HEIGHT, START_NOISE = 0.75, 0.1
JOINTS = tuple(f"{joint}_{leg}" for leg in (1, 2, 3, 4) for joint in ("hip", "ankle"))
BODIES = ("torso", *(f"{part}_{leg}" for leg in (1, 2, 3, 4) for part in ("leg", "aux", "shin")))


def reset(key: jax.Array, design: jax.Array) -> State:
    """Start above the ground, coordinates off by up to 0.1, rates by 0.1 at one sigma."""
    place, rate = jax.random.split(key)
    qpos = jax.random.uniform(place, (15,), minval=-START_NOISE, maxval=START_NOISE)
    qpos = qpos.at[2].add(START_HEIGHT).at[3].add(1.0)
    return State(
        qpos=qpos.at[3:7].divide(jnp.linalg.norm(qpos[3:7])),
        qvel=START_NOISE * jax.random.normal(rate, (14,)),
        act=jnp.zeros(0),
        time=jnp.zeros(()),
        command=jnp.zeros(0),
        design=design,
    )


def observe(state: State) -> jax.Array:
    """Return configuration without the place on the ground, then rates."""
    return jnp.concatenate([state.qpos[2:], state.qvel])


def healthy(state: State) -> jax.Array:
    """Tell whether the torso is neither down nor up in the air."""
    return (state.qpos[2] >= HEALTHY[0]) & (state.qpos[2] <= HEALTHY[1])


def reward(state: State, action: jax.Array, next_state: State) -> jax.Array:
    """Return forward speed in m/s, plus 1 while healthy, less the cost of control."""
    speed = (next_state.qpos[0] - state.qpos[0]) / CONTROL_PERIOD
    return speed + healthy(next_state) - CTRL_COST * jnp.sum(jnp.square(action))


def read(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    """Return clipped contact forces on each body, their sum of squares, and the torso's x."""
    forces = np.minimum(np.maximum(data.cfrc_ext, -FORCE_CLIP), FORCE_CLIP)
    reading = np.empty(forces.size - 4)
    reading[:-2] = forces[1:].ravel()
    reading[-2:] = np.vdot(forces, forces), data.xpos[1, 0]
    return reading


def full_reward(
    state: State, action: jax.Array, next_state: State, before: jax.Array, after: jax.Array
) -> jax.Array:
    """Return Gymnasium's reward, which tells the speed from the body's last computed position."""
    speed = (after[-1] - before[-1]) / CONTROL_PERIOD
    cost = CTRL_COST * jnp.sum(jnp.square(action)) + CONTACT_COST * after[-2]
    return speed + healthy(next_state) - cost


def terminated(state: State) -> jax.Array:
    """Tell whether the torso is down or up in the air."""
    return ~healthy(state)


def mean_speed(states: State) -> jax.Array:
    """Return the mean speed of a flight, m/s."""
    return (states.qpos[-1, 0] - states.qpos[0, 0]) / (states.time[-1] - states.time[0])


WRENCH = ("torque_x", "torque_y", "torque_z", "force_x", "force_y", "force_z")
TURN = tuple(ObservationChannel(f"quaternion_{a}", "1", -1.0, 1.0, 0.0) for a in "wxyz")
TASK = Task(
    commands=(),
    observations=(
        ObservationChannel("height", "m", -100.0, 100.0, 0.0),
        *TURN,
        *(ObservationChannel(name, "rad", -100.0, 100.0, 0.0) for name in JOINTS),
        *(ObservationChannel(f"velocity_{a}", "m/s", -1e3, 1e3, 0.0) for a in "xyz"),
        *(ObservationChannel(f"rate_{a}", "rad/s", -1e4, 1e4, 0.0) for a in "xyz"),
        *(ObservationChannel(f"{name}_rate", "rad/s", -1e4, 1e4, 0.0) for name in JOINTS),
    ),
    duration=50.0,
    reset=reset,
    observe=observe,
    reward=reward,
    terminated=terminated,
    requirements=(
        Requirement(
            "fallen",
            "share of the flight in which the torso is down or up in the air",
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
    readout=Readout(
        observations=tuple(
            ObservationChannel(
                f"{body}.{part}",
                "N" if part.startswith("force") else "N m",
                -FORCE_CLIP,
                FORCE_CLIP,
                0.0,
            )
            for body in BODIES
            for part in WRENCH
        ),
        read=read,
        reward=full_reward,
    ),
)
