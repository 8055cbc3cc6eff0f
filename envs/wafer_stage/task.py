"""Move to a commanded position, up to 0.2 m away, and hold it within 50 micrometres."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from physai.plant import Channel
from physai.state import State
from physai.task import Objective, ObservationChannel, Requirement, Task

DURATION = 2.0  # s
STEPS_HELD = 100  # control periods, the last 0.5 s
TRAVEL = 0.1  # m, commands and starts lie within plus and minus this
POSITION_LIMIT = 50e-6  # m
DEFLECTION_LIMIT = 20e-6  # m
END_OF_TRAVEL = 0.3  # m
FAILED_BASE = 0.05  # m
FLOOR, BASE, CARRIAGE, FRAME = range(4)

OBSERVATIONS = (
    ObservationChannel("position_error", "m", -0.5, 0.5, 1e-6),
    ObservationChannel("carriage_speed", "m/s", -3.0, 3.0, 1e-4),
    ObservationChannel("deflection", "m", -0.002, 0.002, 1e-6),
    ObservationChannel("deflection_rate", "m/s", -0.5, 0.5, 1e-4),
    ObservationChannel("base_position", "m", -0.06, 0.06, 1e-6),
    ObservationChannel("base_speed", "m/s", -0.5, 0.5, 1e-4),
)


def _start(key: jax.Array, design: jax.Array, speed: float, base: float, bend: float) -> State:
    """Draw a start; speed of the carriage m/s, base displacement m, frame deflection m."""
    u = jax.random.uniform(key, (6,), minval=-1.0, maxval=1.0)
    still = jnp.zeros(())
    return State(
        qpos=jnp.stack([still, base * u[2], TRAVEL * u[1], bend * u[3]]),
        qvel=jnp.stack([still, 10.0 * base * u[4], speed * u[5], still]),
        act=jnp.zeros(0),
        time=jnp.zeros(()),
        command=TRAVEL * u[:1],
        design=design,
    )


def reset(key: jax.Array, design: jax.Array) -> State:
    """Draw a start: up to 0.2 m away, nearly at rest."""
    return _start(key, design, speed=0.01, base=1e-4, bend=1e-5)


def excitation(key: jax.Array, design: jax.Array) -> State:
    """Draw a wider start: up to 1 m/s, the base displaced by up to 5 mm."""
    return _start(key, design, speed=1.0, base=5e-3, bend=1e-4)


def position_error(state: State) -> jax.Array:
    """Position of the frame on the base minus the command, m."""
    return state.qpos[..., CARRIAGE] + state.qpos[..., FRAME] - state.command[..., 0]


def observe(state: State) -> jax.Array:
    """Return what encoders and speed sensors tell `[6]`."""
    return jnp.stack(
        [
            position_error(state),
            state.qvel[CARRIAGE],
            state.qpos[FRAME],
            state.qvel[FRAME],
            state.qpos[BASE],
            state.qvel[BASE],
        ]
    )


def reward(state: State, action: jax.Array, next_state: State) -> jax.Array:
    """Return minus the cost of a control period: distance, fine holding, speed and voltage."""
    square = jnp.square(position_error(next_state))
    distance_cost = 10.0 * (jnp.sqrt(square + 1e-6) - 1e-3)
    # One bowl per decade: each gives a gradient where the wider one is flat.
    fine_cost = sum(1.0 - jnp.exp(-0.5 * square / width**2) for width in (5e-3, 5e-4, 5e-5))
    speed_cost = 0.02 * jnp.square(next_state.qvel[CARRIAGE])
    ringing_cost = 20.0 * jnp.square(next_state.qvel[FRAME])
    effort_cost = 1e-4 * jnp.sum(jnp.square(action))
    return -(distance_cost + 0.2 * fine_cost + speed_cost + ringing_cost + effort_cost)


def terminated(state: State) -> jax.Array:
    """Return whether the carriage is off its rails (0.3 m) or the base off its stops (50 mm)."""
    carriage, base = jnp.abs(state.qpos[..., CARRIAGE]), jnp.abs(state.qpos[..., BASE])
    return (carriage > END_OF_TRAVEL) | (base > FAILED_BASE)


def held_error(states: State) -> jax.Array:
    """Largest distance to the command in the last 0.5 s, m."""
    return jnp.max(jnp.abs(position_error(states[-STEPS_HELD - 1 :])))


def held_deflection(states: State) -> jax.Array:
    """Largest deflection of the frame in the last 0.5 s, m."""
    return jnp.max(jnp.abs(states.qpos[-STEPS_HELD - 1 :, FRAME]))


def settling_time(states: State) -> jax.Array:
    """Time after which both limits are kept to the end, s (inf: never)."""
    outside = (jnp.abs(position_error(states)) > POSITION_LIMIT) | (
        jnp.abs(states.qpos[:, FRAME]) > DEFLECTION_LIMIT
    )
    last = jnp.max(jnp.where(outside, jnp.arange(outside.shape[0]), -1))
    return jnp.append(states.time, jnp.inf)[last + 1] - states.time[0]


def base_motion(states: State) -> jax.Array:
    """Largest displacement of the base on its isolators, m."""
    return jnp.max(jnp.abs(states.qpos[:, BASE]))


TASK = Task(
    commands=(Channel("position", "m", -TRAVEL, TRAVEL),),
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
        Objective("base_motion", "largest displacement of the base", "m", False, base_motion),
        Objective("moving_mass", "mass carried", "kg", True, lambda states: states.design[0, 0]),
    ),
    requirements=(
        Requirement(
            "position",
            "distance of the frame to the command, worst of the last 0.5 s",
            "m",
            POSITION_LIMIT,
            held_error,
        ),
        Requirement(
            "deflection",
            "deflection of the frame on the carriage, worst of the last 0.5 s",
            "m",
            DEFLECTION_LIMIT,
            held_deflection,
        ),
    ),
)
