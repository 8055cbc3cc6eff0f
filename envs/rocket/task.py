"""Come down to the pad and stand on the engine there, through wind.

The goal is the touchdown point, upright, at rest; what the legs do then is not simulated.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from physai.state import State, quaternion_from_axis_angle, rotate_inverse
from physai.task import Objective, ObservationChannel, Requirement, Task

DURATION = 14.0  # s
STEPS_HELD = 50  # control periods of 0.02 s: the last second
DISTANCE_LIMIT, SPEED_LIMIT, TILT_LIMIT, DEPTH_LIMIT = 0.5, 0.5, 3.0, 0.5  # m, m/s, deg, m
TOP_SPEED, TIME_CONSTANT = 8.0, 2.0  # m/s, s: of the wished descent
THRUST_MIN, EXHAUST_SPEED = 2967.0, 282.0 * 9.80665  # N, m/s
FAILED_DISTANCE, FAILED_UP = 150.0, 0.5  # m; cosine of the tilt


def _start(
    key: jax.Array, design: jax.Array, box: jax.Array, speed: jax.Array, tilt: float, more: float
) -> State:
    u = jax.random.uniform(key, (14,), minval=-1.0, maxval=1.0)
    axis = jnp.array([jnp.cos(jnp.pi * u[3]), jnp.sin(jnp.pi * u[3]), 0.0])
    place, drift = box[:, 0] + box[:, 1] * u[:3], speed[:, 0] + speed[:, 1] * u[5:8]
    span = (design[0] - THRUST_MIN) / EXHAUST_SPEED
    return State(
        qpos=jnp.concatenate([place, quaternion_from_axis_angle(axis, tilt * u[4])]),
        qvel=jnp.concatenate([drift, more * jnp.array([0.1, 0.1, 0.0]) * u[8:11]]),
        act=jnp.stack([15.0 * (more - 1.0) * (u[11] + 1.0) / span, 0.3 * u[12], 0.3 * u[13]]),
        time=jnp.zeros(()),
        command=jnp.zeros(0),
        design=design,
    )


def reset(key: jax.Array, design: jax.Array) -> State:
    """Draw a start: 40 to 60 m up and up to 8 m aside, sinking at 6 to 10 m/s, full tanks."""
    box = jnp.array([[0.0, 8.0], [0.0, 8.0], [50.0, 10.0]])
    speed = jnp.array([[0.0, 1.5], [0.0, 1.5], [-8.0, 2.0]])
    return _start(key, design, box, speed, tilt=0.1, more=1.0)


def excitation(key: jax.Array, design: jax.Array) -> State:
    """Draw a wider start: anywhere on the way down, up to 60 kg burnt."""
    box = jnp.array([[0.0, 12.0], [0.0, 12.0], [27.0, 33.0]])
    speed = jnp.array([[0.0, 5.0], [0.0, 5.0], [-4.0, 9.0]])
    return _start(key, design, box, speed, tilt=0.4, more=3.0)


def observe(state: State) -> jax.Array:
    """Return place, velocity and vertical in the body frame, rates, gimbal, propellant burnt."""
    attitude = state.qpos[3:7]
    burnt = state.act[0] * (state.design[0] - THRUST_MIN) / EXHAUST_SPEED
    return jnp.concatenate(
        [
            rotate_inverse(attitude, state.qpos[:3]),
            rotate_inverse(attitude, state.qvel[:3]),
            rotate_inverse(attitude, jnp.array([0.0, 0.0, 1.0])),
            state.qvel[3:6],
            state.act[1:],
            burnt[None],
        ]
    )


def _up(state: State) -> jax.Array:
    """Return the cosine of the tilt."""
    _, x, y, _ = state.qpos[3:7]
    return 1.0 - 2.0 * (x * x + y * y)


def tilt(state: State) -> jax.Array:
    """Return the angle between the long axis and the vertical, deg."""
    _, x, y, _ = state.qpos[3:7]
    return jnp.degrees(2.0 * jnp.arcsin(jnp.minimum(jnp.sqrt(x * x + y * y + 1e-16), 1.0)))


def distance(state: State) -> jax.Array:
    """Return the distance of the gimbal to the touchdown point, m."""
    return jnp.sqrt(jnp.sum(jnp.square(state.qpos[:3])) + 1e-16)


def speed(state: State) -> jax.Array:
    """Return the speed of the gimbal, m/s."""
    return jnp.sqrt(jnp.sum(jnp.square(state.qvel[:3])) + 1e-16)


def reward(state: State, action: jax.Array, next_state: State) -> jax.Array:
    """Return minus the cost of a control period: way left, unwished speed, tilt, rates, effort."""
    place, velocity = next_state.qpos[:3], next_state.qvel[:3]
    offset = jnp.sum(jnp.square(place))
    # Straight to the pad, at 8 m/s from afar, fading with 2 s near it.
    wished = -place / jnp.sqrt(TIME_CONSTANT**2 + offset / TOP_SPEED**2)
    strayed = jnp.sum(jnp.square(velocity - wished))
    way_cost = 0.05 * (jnp.sqrt(offset + 0.1**2) - 0.1)
    speed_cost = 0.2 * (jnp.sqrt(strayed + 0.2**2) - 0.2)
    hold_cost = 0.5 * (1.0 - jnp.exp(-0.5 * (offset / 0.3**2 + jnp.sum(velocity**2) / 0.4**2)))
    tilt_cost = 2.0 * (1.0 - _up(next_state))
    rate_cost = 0.2 * jnp.sum(jnp.square(next_state.qvel[3:6]))
    effort_cost = 0.02 * jnp.sum(jnp.square(action[1:] - state.act[1:]))
    return -(way_cost + speed_cost + hold_cost + tilt_cost + rate_cost + effort_cost)


def terminated(state: State) -> jax.Array:
    """Tell whether the rocket is lost: 150 m away, or tilted by more than 60 degrees."""
    return (distance(state) > FAILED_DISTANCE) | (_up(state) < FAILED_UP)


def _held(measure):
    return lambda states: jnp.max(jax.vmap(measure)(states[-STEPS_HELD - 1 :]))


def settling(states: State) -> jax.Array:
    """Return the time after which distance and speed stay within their limits, s."""
    outside = (jax.vmap(distance)(states) > DISTANCE_LIMIT) | (
        jax.vmap(speed)(states) > SPEED_LIMIT
    )
    last = jnp.max(jnp.where(outside, jnp.arange(outside.shape[0]), -1))
    return jnp.append(states.time, jnp.inf)[last + 1] - states.time[0]


def propellant_used(states: State) -> jax.Array:
    """Return the propellant that a flight burns, kg."""
    burnt = states.act[-1, 0] - states.act[0, 0]
    return burnt * (states.design[0, 0] - THRUST_MIN) / EXHAUST_SPEED


def _vector(name: str, unit: str, limit: float, noise: float) -> tuple[ObservationChannel, ...]:
    return tuple(ObservationChannel(f"{name}_{a}", unit, -limit, limit, noise) for a in "xyz")


TASK = Task(
    commands=(),
    observations=(
        *_vector("place", "m", 150.0, 0.02),
        *_vector("velocity", "m/s", 60.0, 0.02),
        *_vector("up", "1", 1.0, 0.001),
        *_vector("rate", "rad/s", 5.0, 0.002),
        *(ObservationChannel(f"gimbal_{a}", "1", -1.2, 1.2, 0.005) for a in "xy"),
        ObservationChannel("burnt", "kg", 0.0, 420.0, 0.1),
    ),
    duration=DURATION,
    reset=reset,
    observe=observe,
    reward=reward,
    terminated=terminated,
    requirements=(
        Requirement(
            "distance",
            "largest distance to the touchdown point in the last second",
            "m",
            DISTANCE_LIMIT,
            _held(distance),
        ),
        Requirement("speed", "largest speed in the last second", "m/s", SPEED_LIMIT, _held(speed)),
        Requirement("tilt", "largest tilt in the last second", "deg", TILT_LIMIT, _held(tilt)),
        Requirement(
            "depth",
            "farthest below the touchdown point at any time",
            "m",
            DEPTH_LIMIT,
            lambda states: jnp.max(-states.qpos[:, 2]),
        ),
    ),
    objectives=(
        Objective("settling_time", "time to stand for good", "s", False, settling),
        Objective("propellant_used", "propellant burnt", "kg", False, propellant_used),
    ),
    excitation=excitation,
    settling=settling,
)
