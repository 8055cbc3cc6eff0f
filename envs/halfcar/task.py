"""Ride smoothly over a random road: little acceleration of the body, in little rattle space."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from physai.state import State
from physai.task import Objective, ObservationChannel, Requirement, Task

DURATION = 5.0  # s
PERIOD = 0.01  # s, between two states
STEPS_HELD = 400  # control periods in which the requirements are judged, the last 4 s
# Constants of plant.py, see README.md.
BODY_MASS, PITCH_INERTIA = 965.7, 1500.0  # kg, kg m^2
FRONT, REAR = 1.3, 1.4  # m
WHEEL_FRONT, WHEEL_REAR = 40.0, 35.5  # kg
GRAVITY = 9.81  # m/s^2

HEAVE_LIMIT = 0.65  # m/s^2
PITCH_LIMIT = 0.55  # rad/s^2
TRAVEL_LIMIT = 0.1  # m
LOAD_LIMIT = 0.25  # 1
LOST_TRAVEL = 0.4  # m

OBSERVATIONS = (
    ObservationChannel("travel_front", "m", -0.3, 0.3, 0.0005),
    ObservationChannel("travel_rear", "m", -0.3, 0.3, 0.0005),
    ObservationChannel("heave", "m", -0.2, 0.2, 0.002),
    ObservationChannel("pitch", "rad", -0.2, 0.2, 0.001),
    ObservationChannel("heave_rate", "m/s", -2.0, 2.0, 0.005),
    ObservationChannel("pitch_rate", "rad/s", -2.0, 2.0, 0.005),
    ObservationChannel("travel_rate_front", "m/s", -6.0, 6.0, 0.01),
    ObservationChannel("travel_rate_rear", "m/s", -6.0, 6.0, 0.01),
)


def _start(key: jax.Array, design: jax.Array, scale: float) -> State:
    u = scale * jax.random.uniform(key, (8,), minval=-1.0, maxval=1.0)
    empty = jnp.zeros((0,))
    return State(
        qpos=u[:4] * jnp.array([0.04, 0.03, 0.01, 0.01]),
        qvel=u[4:] * jnp.array([0.3, 0.2, 0.3, 0.3]),
        act=empty,
        time=jnp.zeros(()),
        command=empty,
        design=design,
    )


def reset(key: jax.Array, design: jax.Array) -> State:
    """Draw a start: body off by up to 0.04 m and 0.03 rad, moving at up to 0.3 m/s, 0.2 rad/s."""
    return _start(key, design, 1.0)


def excitation(key: jax.Array, design: jax.Array) -> State:
    """Draw a start from twice the ranges of `reset`."""
    return _start(key, design, 2.0)


def travel(coordinates: jax.Array) -> jax.Array:
    """Extension of the struts `[..., 2]` of coordinates, or its rate of velocities `[..., 4]`."""
    heave, pitch, front, rear = jnp.moveaxis(coordinates, -1, 0)
    return jnp.stack([heave - FRONT * pitch - front, heave + REAR * pitch - rear], axis=-1)


def observe(state: State) -> jax.Array:
    """Return strut extensions, body pose and velocities, and strut rates `[8]`."""
    return jnp.concatenate([travel(state.qpos), state.qpos[:2], state.qvel[:2], travel(state.qvel)])


def _tyre_loads(acceleration: jax.Array) -> jax.Array:
    """Change of the tyre loads over the static ones `[..., 2]`, 1, of accelerations `[..., 4]`.

    Newton's law: the struts carry what accelerates the body, a tyre that and its wheel.
    """
    heave, pitch, front, rear = jnp.moveaxis(acceleration, -1, 0)
    base = FRONT + REAR
    strut_front = (REAR * BODY_MASS * heave - PITCH_INERTIA * pitch) / base
    strut_rear = (FRONT * BODY_MASS * heave + PITCH_INERTIA * pitch) / base
    static_front = GRAVITY * (BODY_MASS * REAR / base + WHEEL_FRONT)
    static_rear = GRAVITY * (BODY_MASS * FRONT / base + WHEEL_REAR)
    change = [strut_front + WHEEL_FRONT * front, strut_rear + WHEEL_REAR * rear]
    return jnp.stack([change[0] / static_front, change[1] / static_rear], axis=-1)


def reward(state: State, action: jax.Array, next_state: State) -> jax.Array:
    """Return minus the cost of a control period: accelerations, travel, tyre loads and effort."""
    acceleration = (next_state.qvel - state.qvel) / PERIOD
    ride = jnp.square(acceleration[0] / HEAVE_LIMIT) + jnp.square(acceleration[1] / PITCH_LIMIT)
    space = jnp.sum(jnp.square(travel(next_state.qpos) / (0.4 * TRAVEL_LIMIT)))
    load = jnp.sum(jnp.square(_tyre_loads(acceleration) / LOAD_LIMIT))
    pose = jnp.square(next_state.qpos[0] / 0.04) + jnp.square(next_state.qpos[1] / 0.03)
    return -0.1 * (ride + 0.3 * space + 0.3 * load + 0.3 * pose + 0.05 * jnp.sum(action**2))


def terminated(state: State) -> jax.Array:
    """Return whether a strut is beyond 0.4 m, more than any has."""
    return jnp.any(jnp.abs(travel(state.qpos)) > LOST_TRAVEL, axis=-1)


def _rms(values: jax.Array) -> jax.Array:
    # The small number keeps the derivative finite at rest.
    return jnp.sqrt(jnp.mean(jnp.square(values), axis=0) + 1e-12)


def accelerations(states: State) -> jax.Array:
    """Mean accelerations over the control periods that are judged `[400, 4]`, m/s^2 and rad/s^2."""
    return jnp.diff(states.qvel[-STEPS_HELD - 1 :], axis=0) / PERIOD


def heave_acceleration(states: State) -> jax.Array:
    """Root mean square of the body's vertical acceleration, m/s^2."""
    return _rms(accelerations(states)[:, 0])


def pitch_acceleration(states: State) -> jax.Array:
    """Root mean square of the body's pitch acceleration, rad/s^2."""
    return _rms(accelerations(states)[:, 1])


def largest_travel(states: State) -> jax.Array:
    """Largest extension or compression of a strut from its static length, m."""
    return jnp.max(jnp.abs(travel(states.qpos[-STEPS_HELD - 1 :])))


def load_variation(states: State) -> jax.Array:
    """Root mean square of the change of a tyre's load over its static load, worse axle, 1."""
    return jnp.max(_rms(_tyre_loads(accelerations(states))))


TASK = Task(
    commands=(),
    observations=OBSERVATIONS,
    duration=DURATION,
    reset=reset,
    excitation=excitation,
    observe=observe,
    reward=reward,
    terminated=terminated,
    objectives=(
        Objective(
            "heave_acceleration",
            "RMS vertical acceleration, last 4 s",
            "m/s^2",
            False,
            heave_acceleration,
        ),
        Objective("travel", "largest strut travel, last 4 s", "m", False, largest_travel),
        Objective("load_variation", "RMS tyre load change, last 4 s", "1", False, load_variation),
    ),
    requirements=(
        Requirement(
            "heave_acceleration",
            "RMS vertical acceleration of the body over the last 4 s",
            "m/s^2",
            HEAVE_LIMIT,
            heave_acceleration,
        ),
        Requirement(
            "pitch_acceleration",
            "RMS pitch acceleration of the body over the last 4 s",
            "rad/s^2",
            PITCH_LIMIT,
            pitch_acceleration,
        ),
        Requirement(
            "travel",
            "largest strut travel from static, worst of the last 4 s",
            "m",
            TRAVEL_LIMIT,
            largest_travel,
        ),
        Requirement(
            "load_variation",
            "RMS change of tyre load over static load, worse axle, last 4 s",
            "1",
            LOAD_LIMIT,
            load_variation,
        ),
    ),
)
