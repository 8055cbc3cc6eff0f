"""Bring the tool to a point that moves on a circle, and keep it there."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from physai.plant import Channel
from physai.state import State
from physai.task import Objective, ObservationChannel, Requirement, Task

DURATION = 4.0  # s
STEPS_HELD = 100  # control periods, the last 1 s
HOME = jnp.array([0.0, -1.2, 1.6, -1.97, -1.57, 0.0])  # rad
CENTRE = jnp.array([-0.6, -0.13, 0.3])  # m, middle of the commands
SPREAD = 0.08  # m
CIRCLE_RATE = 1.5  # rad/s
ERROR_LIMIT = 0.01  # m
SPEED_LIMIT = jnp.pi  # rad/s, 180 deg/s
D = (0.1625, 0.0, 0.0, 0.1333, 0.0997, 0.0996)  # m, README.md
COS_ALPHA, SIN_ALPHA = (0, 1, 1, 0, 0, 1), (1, 0, 0, 1, -1, 0)

OBSERVATIONS = (
    *(ObservationChannel(f"angle_{i}", "rad", -6.3, 6.3, 1e-4) for i in range(1, 7)),
    *(ObservationChannel(f"rate_{i}", "rad/s", -6.3, 6.3, 1e-3) for i in range(1, 7)),
    *(ObservationChannel(f"error_{a}", "m", -2.0, 2.0, 1e-4) for a in "xyz"),
    *(ObservationChannel(f"target_rate_{a}", "m/s", -0.2, 0.2, 0.0) for a in "xy"),
)


def tool(q: jax.Array, design: jax.Array) -> jax.Array:
    """Position of the tool `[3]`, m: the product of the DH transforms, from the tool inwards."""
    lengths = (0.0, -design[0], -design[1], 0.0, 0.0, 0.0)
    x, y, z = 0.0, 0.0, 0.0
    for i in reversed(range(6)):
        y, z = COS_ALPHA[i] * y - SIN_ALPHA[i] * z, SIN_ALPHA[i] * y + COS_ALPHA[i] * z
        x, z = x + lengths[i], z + D[i]
        x, y = jnp.cos(q[i]) * x - jnp.sin(q[i]) * y, jnp.sin(q[i]) * x + jnp.cos(q[i]) * y
    return jnp.stack([x, y, z])


def target(state: State) -> tuple[jax.Array, jax.Array]:
    """Commanded position `[3]`, m, and velocity `[3]`, m/s: a level circle."""
    phase, radius = CIRCLE_RATE * state.time, state.command[3]
    c, s, zero = jnp.cos(phase), jnp.sin(phase), jnp.zeros(())
    position = state.command[:3] + radius * jnp.stack([c, s, zero])
    return position, radius * CIRCLE_RATE * jnp.stack([-s, c, zero])


def _start(key: jax.Array, design: jax.Array, angle: float, rate: float) -> State:
    u = jax.random.uniform(key, (16,), minval=-1.0, maxval=1.0)
    return State(
        qpos=HOME + angle * u[:6],
        qvel=rate * u[6:12],
        act=jnp.zeros(0),
        time=jnp.zeros(()),
        command=jnp.append(CENTRE + SPREAD * u[12:15], 0.025 + 0.025 * u[15]),
        design=design,
    )


def reset(key: jax.Array, design: jax.Array) -> State:
    """Draw a start: joints off home by up to 0.1 rad, nearly at rest."""
    return _start(key, design, 0.1, 0.02)


def excitation(key: jax.Array, design: jax.Array) -> State:
    """Draw a wider start: up to 0.5 rad off home and 1 rad/s."""
    return _start(key, design, 0.5, 1.0)


def error(state: State) -> jax.Array:
    """Tool minus target `[3]`, m."""
    return tool(state.qpos, state.design) - target(state)[0]


def observe(state: State) -> jax.Array:
    """Return joint angles and rates, tool error and target rate `[17]`."""
    return jnp.concatenate([state.qpos, state.qvel, error(state), target(state)[1][:2]])


def reward(state: State, action: jax.Array, next_state: State) -> jax.Array:
    """Return minus the cost of a control period: distance, speed, posture, effort."""
    square = jnp.sum(jnp.square(error(next_state)))
    cost = 5.0 * (jnp.sqrt(square + 1e-4) - 1e-2) + 0.3 * (1.0 - jnp.exp(-square / 1e-4))
    posture = 0.02 * jnp.sum(jnp.square(next_state.qpos - HOME))
    speed = 0.01 * jnp.sum(jnp.square(next_state.qvel))
    return -(cost + posture + speed + 0.01 * jnp.sum(jnp.square(action)))


def terminated(state: State) -> jax.Array:
    """Return whether a joint is beyond a full turn, the published range."""
    return jnp.any(jnp.abs(state.qpos) > 2.0 * jnp.pi, axis=-1)


def _errors(states: State) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(jax.vmap(error)(states)), axis=-1) + 1e-12)


def held_error(states: State) -> jax.Array:
    """Largest distance of the tool to the target in the last 1 s, m."""
    return jnp.max(_errors(states[-STEPS_HELD - 1 :]))


def top_speed(states: State) -> jax.Array:
    """Largest joint speed, rad/s."""
    return jnp.max(jnp.abs(states.qvel))


def settling_time(states: State) -> jax.Array:
    """Time after which the error limit is kept to the end, s (inf: never)."""
    outside = _errors(states) > ERROR_LIMIT
    last = jnp.max(jnp.where(outside, jnp.arange(outside.shape[0]), -1))
    return jnp.append(states.time, jnp.inf)[last + 1] - states.time[0]


TASK = Task(
    commands=(
        Channel("x", "m", -0.68, -0.52),
        Channel("y", "m", -0.21, -0.05),
        Channel("z", "m", 0.22, 0.38),
        Channel("radius", "m", 0.0, 0.05),
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
        Objective("settling_time", "time to hold the target for good", "s", False, settling_time),
        Objective("payload", "mass carried", "kg", True, lambda states: states.design[0, 4]),
    ),
    requirements=(
        Requirement("error", "tool to target, worst of the last 1 s", "m", ERROR_LIMIT, held_error),
        Requirement("speed", "largest joint speed", "rad/s", float(SPEED_LIMIT), top_speed),
    ),
)
