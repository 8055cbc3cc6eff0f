"""Walk forwards: observation, reward, start and end of Gymnasium's Humanoid-v5.

Inertias, velocities, actuator and contact forces in Gymnasium's observation, and the cost of
contacts, are no function of the state alone. On the true simulator they are read out; learned
dynamics leave them out, as Gymnasium's options `include_..._in_observation=False` and
`contact_cost_weight=0` do, and take the speed of the torso, not that of the centre of mass.

Source: Towers et al., "Gymnasium: A Standard Interface for Reinforcement Learning Environments",
2024, arXiv:2407.17032, and its `gymnasium/envs/mujoco/humanoid_v5.py`. Requirements are chosen.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from physai.state import State
from physai.task import Objective, ObservationChannel, Readout, Requirement, Task

CONTROL_PERIOD = 0.015  # s
FORWARD, CTRL_COST, CONTACT_COST, CONTACT_LIMIT = 1.25, 0.1, 5e-7, 10.0

HEALTHY, HEALTHY_REWARD = (1.0, 2.0), 5.0  # m, height of the torso
START_HEIGHT, START_NOISE = 1.4, 1e-2
SHIN = 0.3  # m, of the model


def reset(key: jax.Array, design: jax.Array) -> State:
    """Start upright, every coordinate and rate off by up to 0.01; on longer shins, higher."""
    noise = jax.random.uniform(key, (47,), minval=-START_NOISE, maxval=START_NOISE)
    qpos = noise[:24].at[2].add(START_HEIGHT + design[0] - SHIN).at[3].add(1.0)
    return State(
        qpos=qpos.at[3:7].divide(jnp.linalg.norm(qpos[3:7])),
        qvel=noise[24:],
        act=jnp.zeros(0),
        time=jnp.zeros(()),
        command=jnp.zeros(0),
        design=design,
    )


def observe(state: State) -> jax.Array:
    """Return configuration without the place on the ground, then rates."""
    return jnp.concatenate([state.qpos[2:], state.qvel])


def healthy(state: State) -> jax.Array:
    """Tell whether the torso is up."""
    return (state.qpos[2] > HEALTHY[0]) & (state.qpos[2] < HEALTHY[1])


def reward(state: State, action: jax.Array, next_state: State) -> jax.Array:
    """Return 1.25 times the forward speed in m/s, plus 5 while up, less the cost of control."""
    speed = (next_state.qpos[0] - state.qpos[0]) / CONTROL_PERIOD
    cost = CTRL_COST * jnp.sum(jnp.square(action))
    return FORWARD * speed + HEALTHY_REWARD * healthy(next_state) - cost


def read(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    """Return what Gymnasium observes of each body and actuated joint, and two numbers for reward:
    the sum of squares of the contact forces, and the centre of mass's x.
    """
    centre = np.sum(model.body_mass * data.xipos[:, 0]) / np.sum(model.body_mass)
    seen = data.cinert[1:], data.cvel[1:], data.qfrc_actuator[6:], data.cfrc_ext[1:]
    last = [np.sum(np.square(data.cfrc_ext)), centre]
    return np.concatenate([*(values.ravel() for values in seen), last])


def full_reward(
    state: State, action: jax.Array, next_state: State, before: jax.Array, after: jax.Array
) -> jax.Array:
    """Return Gymnasium's reward, with the cost of contacts, of the centre of mass's speed."""
    speed = (after[-1] - before[-1]) / CONTROL_PERIOD
    cost = CTRL_COST * jnp.sum(jnp.square(action))
    cost += jnp.minimum(CONTACT_COST * after[-2], CONTACT_LIMIT)
    return FORWARD * speed + HEALTHY_REWARD * healthy(next_state) - cost


def terminated(state: State) -> jax.Array:
    """Tell whether the torso is down or up in the air."""
    return ~healthy(state)


def mean_speed(states: State) -> jax.Array:
    """Return the mean speed of a flight, m/s."""
    return (states.qpos[-1, 0] - states.qpos[0, 0]) / (states.time[-1] - states.time[0])


JOINTS = (
    *(f"abdomen_{axis}" for axis in "zyx"),
    *(f"right_{joint}" for joint in ("hip_x", "hip_z", "hip_y", "knee")),
    *(f"left_{joint}" for joint in ("hip_x", "hip_z", "hip_y", "knee")),
    *(f"right_{joint}" for joint in ("shoulder1", "shoulder2", "elbow")),
    *(f"left_{joint}" for joint in ("shoulder1", "shoulder2", "elbow")),
)
BODIES = (
    *("torso", "lwaist", "pelvis"),
    *(f"{side}_{part}" for side in ("right", "left") for part in ("thigh", "shin", "foot")),
    *(f"{side}_{part}_arm" for side in ("right", "left") for part in ("upper", "lower")),
)
TURN = tuple(ObservationChannel(f"quaternion_{a}", "1", -1.0, 1.0, 0.0) for a in "wxyz")
MOMENTS = ("inertia_xx", "inertia_yy", "inertia_zz", "inertia_xy", "inertia_xz", "inertia_yz")
INERTIA = (
    *((name, "kg m^2") for name in MOMENTS),
    *((f"first_moment_{axis}", "kg m") for axis in "xyz"),
    ("mass", "kg"),
)
MOTION = (
    *((f"turning_{axis}", "rad/s") for axis in "xyz"),
    *((f"moving_{axis}", "m/s") for axis in "xyz"),
)
WRENCH = (
    *((f"torque_{axis}", "N m") for axis in "xyz"),
    *((f"force_{axis}", "N") for axis in "xyz"),
)


def _of_bodies(parts: tuple[tuple[str, str], ...]) -> tuple[ObservationChannel, ...]:
    return tuple(
        ObservationChannel(f"{body}.{name}", unit, -1e7, 1e7, 0.0)
        for body in BODIES
        for name, unit in parts
    )


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
    duration=15.0,
    reset=reset,
    observe=observe,
    reward=reward,
    terminated=terminated,
    requirements=(
        Requirement(
            "fallen",
            "share of the flight in which the torso is down",
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
        observations=(
            *_of_bodies(INERTIA),
            *_of_bodies(MOTION),
            *(ObservationChannel(f"{name}.torque", "N m", -1e4, 1e4, 0.0) for name in JOINTS),
            *_of_bodies(WRENCH),
        ),
        read=read,
        reward=full_reward,
    ),
)
