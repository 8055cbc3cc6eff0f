"""Change altitude and hold it with wings level through gusts, at little wing root bending."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from physai.plant import Channel
from physai.state import State, quaternion_exp, quaternion_multiply, rotate_inverse
from physai.task import Objective, ObservationChannel, Requirement, Task

DURATION = 8.0  # s
STEPS_HELD = 40  # control periods in which the requirements are judged, the last 2 s
SPEED = 25.0  # m/s
# Constants of plant.py and trim of plant.xml.
ROOT_STIFFNESS = 2.0 * 6.0 * 2e4  # N m^2 / rad: of the root hinge times half span, nominal EI
TRIM_PITCH = 0.11931  # rad, nose up
TRIM_BEND = jnp.array([0.08860, 0.12436, 0.07908, 0.04336, 0.01828, 0.00425])  # rad, from the root
TRIM_TWIST = jnp.array([0.00626, 0.01232, 0.01062, 0.00812, 0.00528, 0.00240])  # rad
TRIM_ACTION = jnp.array([0.00000, 0.00000, -0.08760, 0.00000, 0.26884])
TRIM_MOMENT = 1994.0  # N m, at the root

ALTITUDE_LIMIT = 0.5  # m
SPEED_LIMIT = 1.0  # m/s
BANK_LIMIT = 5.0  # degrees
MOMENT_LIMIT = 3500.0  # N m

OBSERVATIONS = (
    ObservationChannel("altitude_error", "m", -10.0, 10.0, 0.02),
    ObservationChannel("airspeed", "m/s", 10.0, 40.0, 0.05),
    ObservationChannel("side_speed", "m/s", -10.0, 10.0, 0.05),
    ObservationChannel("down_speed", "m/s", -5.0, 15.0, 0.05),
    ObservationChannel("climb_rate", "m/s", -10.0, 10.0, 0.05),
    ObservationChannel("pitch", "1", -1.0, 1.0, 0.002),
    ObservationChannel("bank", "1", -1.0, 1.0, 0.002),
    *(ObservationChannel(f"rate_{a}", "rad/s", -3.0, 3.0, 0.005) for a in "xyz"),
    *(
        ObservationChannel(f"strain_{side}_{i}", "rad", -0.5, 0.5, 0.0005)
        for side in ("left", "right")
        for i in (0, 2, 4)
    ),
    *(ObservationChannel(f"twist_{side}", "rad", -0.5, 0.5, 0.001) for side in ("left", "right")),
)


def _start(key: jax.Array, design: jax.Array, scale: float) -> State:
    u = jax.random.uniform(key, (34,), minval=-1.0, maxval=1.0)
    v = scale * u
    stiff = jnp.repeat(design[:2], 3)
    # The trimmed shape of this design, to first order.
    load = (design[3] + 24.0) / 74.0 * design[2] / 16.0
    bend = TRIM_BEND * 1.5 / stiff * load
    shape = jnp.stack([bend, TRIM_TWIST * 1.5 / stiff], axis=1).ravel()
    hinges = jnp.concatenate([shape * (1.0 + 0.1 * v[0]), shape * (1.0 + 0.1 * v[1])])
    pitch = TRIM_PITCH + 0.03 * v[2]
    level = quaternion_exp(jnp.array([0.0, -1.0, 0.0]) * pitch)
    attitude = quaternion_multiply(quaternion_exp(jnp.array([0.1, 0.0, 0.0]) * v[3]), level)
    return State(
        qpos=jnp.concatenate([jnp.zeros(2), 0.3 * v[4:5], attitude, hinges]),
        qvel=jnp.concatenate(
            [
                jnp.array([SPEED, 0.0, 0.0]) + jnp.array([0.5, 0.2, 0.3]) * v[5:8],
                0.05 * v[8:11],
                0.01 * v[10:34],
            ]
        ),
        act=jnp.zeros((0,)),
        time=jnp.zeros(()),
        command=1.5 * u[9:10],
        design=design,
    )


def reset(key: jax.Array, design: jax.Array) -> State:
    """Draw a start near trim: 0.5 m/s, 0.03 rad of pitch and 0.1 rad of bank off at most."""
    return _start(key, design, 1.0)


def excitation(key: jax.Array, design: jax.Array) -> State:
    """Draw a start from three times the ranges of `reset`."""
    return _start(key, design, 3.0)


def observe(state: State) -> jax.Array:
    """Return air data over ground (gusts unseen), attitude, rates and strains `[18]`."""
    attitude = state.qpos[3:7]
    speed = rotate_inverse(attitude, state.qvel[:3])
    up = rotate_inverse(attitude, jnp.array([0.0, 0.0, 1.0]))
    hinges = state.qpos[7:31]
    return jnp.concatenate(
        [
            altitude_error(state)[None],
            speed * jnp.array([1.0, 1.0, -1.0]),
            state.qvel[2:3],
            up[:2],
            state.qvel[3:6],
            hinges[jnp.array([0, 4, 8, 12, 16, 20])],
            hinges[jnp.array([1, 13])],
        ]
    )


def altitude_error(state: State) -> jax.Array:
    """Altitude above the commanded one, m."""
    return state.qpos[..., 2] - state.command[..., 0]


def speed_error(state: State) -> jax.Array:
    """Speed over ground above 25 m/s, m/s."""
    return jnp.linalg.norm(state.qvel[..., :3], axis=-1) - SPEED


def bank(state: State) -> jax.Array:
    """Sine of the angle of the wing's axis above the horizon, left wing up, 1."""
    w, x, y, z = jnp.moveaxis(state.qpos[..., 3:7], -1, 0)
    return 2.0 * (y * z + w * x)


def root_moment(state: State) -> jax.Array:
    """Bending moments of the left and right root springs `[..., 2]`, N m, wings up positive."""
    stiffness = ROOT_STIFFNESS * state.design[..., 0] / state.design[..., 2]
    return stiffness[..., None] * state.qpos[..., jnp.array([7, 19])]


def reward(state: State, action: jax.Array, next_state: State) -> jax.Array:
    """Return minus the cost of a control period: altitude, speed, attitude, bending, effort."""
    height = jnp.sqrt(jnp.square(altitude_error(next_state)) + 0.1**2) - 0.1
    pace = 0.3 * jnp.square(speed_error(next_state))
    roll = 10.0 * jnp.square(bank(next_state))
    climb = 0.1 * jnp.square(next_state.qvel[2])
    side = 0.05 * jnp.square(next_state.qvel[1])
    turning = 2.0 * jnp.sum(jnp.square(next_state.qvel[3:6]))
    bending = 0.2 * jnp.sum(jnp.square((root_moment(next_state) - TRIM_MOMENT) / 800.0))
    effort = 0.5 * jnp.sum(jnp.square(action - TRIM_ACTION) * jnp.array([1.0, 1, 1, 1, 0.1]))
    return -0.2 * (height + pace + roll + climb + side + turning + bending + effort)


def terminated(state: State) -> jax.Array:
    """Return whether the aircraft is lost: 15 m off, 10 m/s off, or banked past 60 degrees."""
    return (
        (jnp.abs(altitude_error(state)) > 15.0)
        | (jnp.abs(speed_error(state)) > 10.0)
        | (jnp.abs(bank(state)) > 0.87)
    )


def _end(states: State) -> State:
    return states[-STEPS_HELD - 1 :]


def altitude(states: State) -> jax.Array:
    """Largest altitude error of the last 2 s, m."""
    return jnp.max(jnp.abs(altitude_error(_end(states))))


def speed(states: State) -> jax.Array:
    """Largest speed error of the last 2 s, m/s."""
    return jnp.max(jnp.abs(speed_error(_end(states))))


def largest_bank(states: State) -> jax.Array:
    """Largest bank of the last 2 s, degrees."""
    return jnp.degrees(jnp.max(jnp.arcsin(jnp.clip(jnp.abs(bank(_end(states))), 0.0, 1.0))))


def largest_moment(states: State) -> jax.Array:
    """Largest root bending moment of the flight, N m."""
    return jnp.max(jnp.abs(root_moment(states)))


TASK = Task(
    commands=(Channel("altitude", "m", -1.5, 1.5),),
    observations=OBSERVATIONS,
    duration=DURATION,
    reset=reset,
    excitation=excitation,
    observe=observe,
    reward=reward,
    terminated=terminated,
    objectives=(
        Objective("root_moment", "largest root bending moment", "N m", False, largest_moment),
        Objective("altitude", "largest altitude error, last 2 s", "m", False, altitude),
        Objective("payload", "mass carried", "kg", True, lambda states: states.design[0, 3]),
    ),
    requirements=(
        Requirement(
            "altitude", "largest altitude error of the last 2 s", "m", ALTITUDE_LIMIT, altitude
        ),
        Requirement("speed", "largest speed error of the last 2 s", "m/s", SPEED_LIMIT, speed),
        Requirement("bank", "largest bank of the last 2 s", "deg", BANK_LIMIT, largest_bank),
        Requirement(
            "root_moment",
            "largest root bending moment of the whole flight",
            "N m",
            MOMENT_LIMIT,
            largest_moment,
        ),
    ),
)
