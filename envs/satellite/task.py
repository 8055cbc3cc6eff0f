"""Turn to a commanded attitude, up to 60 degrees away, and hold it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from physai.plant import Channel
from physai.state import State, quaternion_conjugate, quaternion_exp, quaternion_log
from physai.state import quaternion_multiply as multiply
from physai.task import Objective, ObservationChannel, Requirement, Task

DURATION = 60.0  # s
STEPS_HELD = 50  # control periods, the last 10 s
SLEW = 1.0471975511965976  # rad, 60 degrees
POINTING_LIMIT = 0.5  # degrees
WHEEL_LIMIT = 628.0  # rad/s
PANEL_LIMIT = 1e-3  # rad


def _channels(names: list[str], unit: str, limit: float, noise: float):
    return tuple(ObservationChannel(n, unit, -limit, limit, noise) for n in names)


OBSERVATIONS = (
    *_channels([f"attitude_error_{a}" for a in "xyz"], "rad", 3.1416, 1e-4),
    *_channels([f"angular_velocity_{a}" for a in "xyz"], "rad/s", 0.5, 1e-5),
    *_channels([f"wheel_speed_{i}" for i in (1, 2, 3, 4)], "rad/s", 700.0, 0.1),
    *_channels(["panel_1", "panel_2"], "rad", 0.1, 1e-5),
    *_channels(["panel_rate_1", "panel_rate_2"], "rad/s", 0.2, 1e-4),
)


def _start(key: jax.Array, design: jax.Array, rate: float, wheel: float, bend: float) -> State:
    """Draw a start; rate of the bus rad/s, speed of the wheels rad/s, panel deflection rad."""
    u = jax.random.uniform(key, (15,), minval=-1.0, maxval=1.0)
    norm = jnp.sqrt(jnp.sum(jnp.square(u[:3])) + 1e-12)
    command = SLEW * u[:3] / jnp.maximum(norm, 1.0)
    return State(
        qpos=jnp.concatenate(
            [jnp.zeros(3), quaternion_exp(0.02 * u[3:6]), jnp.zeros(4), bend * u[6:8]]
        ),
        qvel=jnp.concatenate([jnp.zeros(3), rate * u[8:11], wheel * u[11:15], jnp.zeros(2)]),
        act=jnp.zeros(0),
        time=jnp.zeros(()),
        command=command,
        design=design,
    )


def reset(key: jax.Array, design: jax.Array) -> State:
    """Draw a start: nearly at rest, wheels up to 30 rad/s."""
    return _start(key, design, rate=1e-3, wheel=30.0, bend=1e-4)


def excitation(key: jax.Array, design: jax.Array) -> State:
    """Draw a wider start: up to 0.1 rad/s, wheels up to 300 rad/s, panels bent by 10 mrad."""
    return _start(key, design, rate=0.1, wheel=300.0, bend=1e-2)


def error_vector(state: State) -> jax.Array:
    """Rotation vector from the commanded attitude to the bus, rad, body frame `[3]`."""
    goal = quaternion_conjugate(quaternion_exp(state.command))
    return quaternion_log(multiply(goal, state.qpos[..., 3:7]))


def pointing_error(state: State) -> jax.Array:
    """Angle to the commanded attitude, degrees."""
    return jnp.degrees(jnp.linalg.norm(error_vector(state), axis=-1))


def observe(state: State) -> jax.Array:
    """Return what star tracker, gyros, wheels and strain gauges tell `[14]`."""
    return jnp.concatenate(
        [error_vector(state), state.qvel[3:10], state.qpos[11:13], state.qvel[10:12]]
    )


def reward(state: State, action: jax.Array, next_state: State) -> jax.Array:
    """Return minus the cost of a control period: pointing, rate, wheels, panels and torque."""
    square = jnp.sum(jnp.square(error_vector(next_state)))
    pointing_cost = jnp.sqrt(square + 1e-6) - 1e-3
    fine_cost = sum(1.0 - jnp.exp(-0.5 * square / width**2) for width in (0.1, 0.02, 0.004))
    rate_cost = 5.0 * jnp.sum(jnp.square(next_state.qvel[3:6]))
    wheel_cost = 1e-7 * jnp.sum(jnp.square(next_state.qvel[6:10]))
    panel_cost = 50.0 * jnp.sum(jnp.square(next_state.qvel[10:12]))
    effort_cost = 0.05 * jnp.sum(jnp.square(action))
    return -(pointing_cost + 0.2 * fine_cost + rate_cost + wheel_cost + panel_cost + effort_cost)


def terminated(state: State) -> jax.Array:
    """Return whether the bus tumbles (0.5 rad/s) or a wheel is past 700 rad/s."""
    fast = jnp.linalg.norm(state.qvel[..., 3:6], axis=-1) > 0.5
    return fast | (jnp.max(jnp.abs(state.qvel[..., 6:10]), axis=-1) > 700.0)


def held_error(states: State) -> jax.Array:
    """Largest pointing error of the last 10 s, degrees."""
    return jnp.max(pointing_error(states[-STEPS_HELD - 1 :]))


def held_panels(states: State) -> jax.Array:
    """Largest deflection of a panel in the last 10 s, rad."""
    return jnp.max(jnp.abs(states.qpos[-STEPS_HELD - 1 :, 11:13]))


def wheel_speed(states: State) -> jax.Array:
    """Largest speed of a wheel, rad/s."""
    return jnp.max(jnp.abs(states.qvel[:, 6:10]))


def settling_time(states: State) -> jax.Array:
    """Time after which the pointing limit is kept to the end, s (inf: never)."""
    outside = pointing_error(states) > POINTING_LIMIT
    last = jnp.max(jnp.where(outside, jnp.arange(outside.shape[0]), -1))
    return jnp.append(states.time, jnp.inf)[last + 1] - states.time[0]


TASK = Task(
    commands=tuple(Channel(f"rotation_{a}", "rad", -SLEW, SLEW) for a in "xyz"),
    observations=OBSERVATIONS,
    duration=DURATION,
    reset=reset,
    excitation=excitation,
    observe=observe,
    reward=reward,
    terminated=terminated,
    settling=settling_time,
    objectives=(
        Objective("settling_time", "time to hold the command for good", "s", False, settling_time),
        Objective("wheel_speed", "largest speed of a wheel", "rad/s", False, wheel_speed),
        Objective("bus_mass", "mass of the bus", "kg", True, lambda states: states.design[0, 2]),
    ),
    requirements=(
        Requirement(
            "pointing", "pointing error, worst of the last 10 s", "deg", POINTING_LIMIT, held_error
        ),
        Requirement(
            "panels",
            "deflection of a panel, worst of the last 10 s",
            "rad",
            PANEL_LIMIT,
            held_panels,
        ),
        Requirement(
            "wheel_speed",
            "speed of a wheel, worst of the episode",
            "rad/s",
            WHEEL_LIMIT,
            wheel_speed,
        ),
    ),
)
