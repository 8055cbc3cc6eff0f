"""Fly to a commanded position and heading and hold them.

Starts up to 2 m away, tilted up to 60 degrees, at any heading, moving and turning.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from physai.plant import Channel
from physai.state import (
    State,
    quaternion_conjugate,
    quaternion_from_axis_angle,
    quaternion_log,
    quaternion_multiply,
    rotate_inverse,
)
from physai.task import Objective, ObservationChannel, Requirement, Task

DURATION = 5.0  # s
HOLD = 1.0  # s at the end in which the requirements must hold
STEPS_HELD = 50  # control periods in HOLD
POSITION_LIMIT = 0.05  # m
ATTITUDE_LIMIT = 5.0  # degrees
FAILED_DISTANCE = 8.0  # m
FAILED_RATE = 20.0  # rad/s


def _vector(name: str, unit: str, limit: float, noise: float) -> tuple[ObservationChannel, ...]:
    return tuple(ObservationChannel(f"{name}_{a}", unit, -limit, limit, noise) for a in "xyz")


OBSERVATIONS = (
    *_vector("position_error", "m", 10.0, 0.002),
    *_vector("velocity", "m/s", 15.0, 0.02),
    *_vector("up", "1", 1.0, 0.002),
    *_vector("attitude_error", "rad", 3.1416, 0.002),
    *_vector("angular_velocity", "rad/s", 30.0, 0.02),
    *(ObservationChannel(f"rotor_{i}", "1", 0.0, 1.0, 0.005) for i in (1, 2, 3, 4)),
)


def _start(
    key: jax.Array, design: jax.Array, reach: float, tilt: float, speed: float, turn: float
) -> State:
    # Two draws in all: a call of jax.random takes longer to compile than the rest of this function.
    uniform_key, normal_key = jax.random.split(key)
    u = jax.random.uniform(uniform_key, (14,))
    direction = jax.random.normal(normal_key, (3, 3))
    direction = direction / (jnp.linalg.norm(direction, axis=-1, keepdims=True) + 1e-12)
    ball = jnp.cbrt(u[:3])[:, None] * direction  # three points, uniform in the unit ball
    command = jnp.append(10.0 * u[3:6] - 5.0, jnp.pi * (2.0 * u[6] - 1.0))
    bearing, heading = jnp.pi * (2.0 * u[7:9] - 1.0)
    axis = jnp.array([jnp.cos(bearing), jnp.sin(bearing), 0.0])
    tilted = quaternion_from_axis_angle(axis, tilt * u[9])
    turned = quaternion_from_axis_angle(jnp.array([0.0, 0.0, 1.0]), heading)
    return State(
        qpos=jnp.concatenate([command[:3] + reach * ball[0], quaternion_multiply(turned, tilted)]),
        qvel=jnp.concatenate([speed * ball[1], turn * ball[2]]),
        act=0.5 * u[10:14],
        time=jnp.zeros(()),
        command=command,
        design=design,
    )


def reset(key: jax.Array, design: jax.Array) -> State:
    """Draw a start: up to 2 m away, tilted up to 60 degrees, up to 2 m/s and 3 rad/s."""
    return _start(key, design, reach=2.0, tilt=jnp.pi / 3, speed=2.0, turn=3.0)


def excitation(key: jax.Array, design: jax.Array) -> State:
    """Draw a wider start, so that the data cover what a controller meets on its way."""
    return _start(key, design, reach=2.0, tilt=0.6 * jnp.pi, speed=5.0, turn=6.0)


def _turn_from_command(state: State) -> jax.Array:
    """Rotation from level at the commanded heading to the machine's attitude, a quaternion."""
    level = quaternion_from_axis_angle(jnp.array([0.0, 0.0, 1.0]), state.command[3])
    return quaternion_multiply(quaternion_conjugate(level), state.qpos[3:7])


def observe(state: State) -> jax.Array:
    """Return what the flight computer knows, all vectors in the body frame `[19]`."""
    attitude = state.qpos[3:7]
    return jnp.concatenate(
        [
            rotate_inverse(attitude, state.qpos[:3] - state.command[:3]),
            rotate_inverse(attitude, state.qvel[:3]),
            rotate_inverse(attitude, jnp.array([0.0, 0.0, 1.0])),
            # Jumps at half a turn, where a continuous error could not say which way is shorter.
            quaternion_log(_turn_from_command(state)),
            state.qvel[3:6],
            state.act,
        ]
    )


def position_error(state: State) -> jax.Array:
    """Distance to the commanded position, m."""
    return jnp.linalg.norm(state.qpos[..., :3] - state.command[..., :3], axis=-1)


def attitude_error(state: State) -> jax.Array:
    """Angle between the attitude and level at the commanded heading, rad."""
    error = _turn_from_command(state)
    return 2.0 * jnp.arctan2(jnp.linalg.norm(error[1:]), jnp.abs(error[0]))


def reward(state: State, action: jax.Array, next_state: State) -> jax.Array:
    """Return minus the cost of a control period: distance, attitude, speed, turning and effort."""
    offset = jnp.sum(jnp.square(next_state.qpos[:3] - next_state.command[:3]))
    turned = jnp.sum(jnp.square(quaternion_log(_turn_from_command(next_state))))
    # Nearly proportional to the error down to a fifth of the limits: a square would forgive the
    # last centimetre.
    distance_cost = jnp.sqrt(offset + 0.01**2) - 0.01
    attitude_cost = 0.3 * (jnp.sqrt(turned + 0.02**2) - 0.02)
    # Saturates outside: it says nothing of the way there, and much of the last centimetres and
    # degrees.
    hold_cost = 0.5 * (1.0 - jnp.exp(-0.5 * (offset / 0.03**2 + turned / 0.08**2)))
    speed_cost = 0.02 * jnp.sum(jnp.square(next_state.qvel[:3]))
    turn_cost = 0.004 * jnp.sum(jnp.square(next_state.qvel[3:6]))
    effort_cost = 0.02 * jnp.sum(jnp.square(action - state.act))
    return -(distance_cost + hold_cost + attitude_cost + speed_cost + turn_cost + effort_cost)


def terminated(state: State) -> jax.Array:
    """Return whether the machine is lost: farther than 8 m from the command, or past 20 rad/s."""
    rate = jnp.linalg.norm(state.qvel[..., 3:6], axis=-1)
    return (position_error(state) > FAILED_DISTANCE) | (rate > FAILED_RATE)


def _held(measure):
    def worst_at_the_end(states: State) -> jax.Array:
        return jnp.max(jax.vmap(measure)(states[-STEPS_HELD - 1 :]))

    return worst_at_the_end


def settling_time(states: State) -> jax.Array:
    """Time after which position and attitude stay within their limits, s (inf: never)."""
    outside = (jax.vmap(position_error)(states) > POSITION_LIMIT) | (
        jnp.degrees(jax.vmap(attitude_error)(states)) > ATTITUDE_LIMIT
    )
    last = jnp.max(jnp.where(outside, jnp.arange(outside.shape[0]), -1))
    times = jnp.append(states.time, jnp.inf)
    return times[last + 1] - states.time[0]


AIR_DENSITY = 1.225  # kg/m^3
NOMINAL_ARM = 0.22803508501982758  # m, hypot(0.14, 0.18)
NOMINAL_ROTOR_RADIUS = 0.13  # m; grows in proportion to the arm


def hover_power(states: State) -> jax.Array:
    """Ideal rotor power over the last second, W: sum of T^1.5 / sqrt(2 rho A) over the rotors.

    Reference: Leishman, "Principles of helicopter aerodynamics", 2006, equation 2.14 (momentum
    theory of a hovering rotor).
    """
    arm, max_thrust = states.design[-1, 0], states.design[-1, 2]
    area = jnp.pi * jnp.square(NOMINAL_ROTOR_RADIUS * arm / NOMINAL_ARM)
    thrust = max_thrust * jnp.clip(states.act[-STEPS_HELD:], 0.0, 1.0)
    return jnp.mean(jnp.sum(thrust**1.5, axis=-1)) / jnp.sqrt(2.0 * AIR_DENSITY * area)


TASK = Task(
    commands=(
        *(Channel(f"position_{a}", "m", -5.0, 5.0) for a in "xyz"),
        Channel("heading", "rad", -3.1416, 3.1416),
    ),
    observations=OBSERVATIONS,
    duration=DURATION,
    reset=reset,
    excitation=excitation,
    observe=observe,
    reward=reward,
    terminated=terminated,
    settling=settling_time,
    objectives=(
        Objective("hover_power", "ideal rotor power, last second", "W", False, hover_power),
        Objective("settling_time", "time to hold the command for good", "s", False, settling_time),
        Objective("payload", "mass carried", "kg", True, lambda states: states.design[0, 1]),
    ),
    requirements=(
        Requirement(
            "position",
            "distance to the command, worst of the last second",
            "m",
            POSITION_LIMIT,
            _held(position_error),
        ),
        Requirement(
            "attitude",
            "angle to level at the commanded heading, worst of the last second",
            "deg",
            ATTITUDE_LIMIT,
            _held(lambda state: jnp.degrees(attitude_error(state))),
        ),
    ),
)
