"""Swing a hanging pole up and hold it upright in the middle of the rail.

Reference: Tassa et al., "DeepMind Control Suite", 2018, arXiv:1801.00690: cart-pole swing-up, and
the tolerance function of its section on reward.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from physai.state import State
from physai.task import Objective, ObservationChannel, Requirement, Task

DURATION = 10.0  # s
STEPS_HELD = 200  # control periods of 0.01 s in which the requirements must hold, 2 s
POSITION_LIMIT = 0.25  # m
ANGLE_LIMIT = 5.732  # degrees, arccos(0.995)
LOST_POSITION = 3.0  # m

OBSERVATIONS = (
    ObservationChannel("cart_position", "m", -2.0, 2.0, 0.001),
    ObservationChannel("pole_cos", "1", -1.0, 1.0, 0.002),
    ObservationChannel("pole_sin", "1", -1.0, 1.0, 0.002),
    ObservationChannel("cart_velocity", "m/s", -8.0, 8.0, 0.01),
    ObservationChannel("pole_velocity", "rad/s", -30.0, 30.0, 0.02),
)


def _state(qpos: jax.Array, qvel: jax.Array, design: jax.Array) -> State:
    empty = jnp.zeros((0,))
    return State(qpos, qvel, act=empty, time=jnp.zeros(()), command=empty, design=design)


def reset(key: jax.Array, design: jax.Array) -> State:
    """Draw a start: hanging at rest in the middle, each coordinate and rate off by 0.01."""
    noise = 0.01 * jax.random.normal(key, (4,))
    return _state(jnp.array([0.0, jnp.pi]) + noise[:2], noise[2:], design)


def excitation(key: jax.Array, design: jax.Array) -> State:
    """Draw a wider start: any place on the rail, any angle, up to 3 m/s and 8 rad/s."""
    u = jax.random.uniform(key, (4,), minval=-1.0, maxval=1.0)
    return _state(u[:2] * jnp.array([1.6, jnp.pi]), u[2:] * jnp.array([3.0, 8.0]), design)


def observe(state: State) -> jax.Array:
    """Return cart position, cosine and sine of the pole's angle, and both velocities `[5]`."""
    angle = state.qpos[1]
    return jnp.stack([state.qpos[0], jnp.cos(angle), jnp.sin(angle), state.qvel[0], state.qvel[1]])


def _near_zero(x: jax.Array, margin: float) -> jax.Array:
    """Tolerance of the suite with bounds (0, 0): 1 at zero, a Gaussian, 0.1 at the margin."""
    return jnp.exp(jnp.log(0.1) * jnp.square(x / margin))


def reward(state: State, action: jax.Array, next_state: State) -> jax.Array:
    """Return the suite's reward, 0 to 1: upright, centred, little control, little turning."""
    upright = 0.5 * (1.0 + jnp.cos(next_state.qpos[1]))
    centred = 0.5 * (1.0 + _near_zero(next_state.qpos[0], 2.0))
    # Quadratic, 0 at the margin of 1.
    control = 0.2 * (4.0 + jnp.maximum(1.0 - jnp.square(action[0]), 0.0))
    slow = 0.5 * (1.0 + _near_zero(next_state.qvel[1], 5.0))
    return upright * control * slow * centred


def terminated(state: State) -> jax.Array:
    """Return whether the cart left the rail, beyond its stops: only a wrong model goes there."""
    return jnp.abs(state.qpos[..., 0]) > LOST_POSITION


def angle_error(states: State) -> jax.Array:
    """Angle of the pole to upright, degrees."""
    angle = states.qpos[..., 1]
    return jnp.degrees(jnp.abs(jnp.arctan2(jnp.sin(angle), jnp.cos(angle))))


def distance(states: State) -> jax.Array:
    """Distance of the cart to the middle of the rail, m."""
    return jnp.abs(states.qpos[..., 0])


def settling_time(states: State) -> jax.Array:
    """Time after which cart and pole stay within their limits, s (inf: never)."""
    outside = (distance(states) > POSITION_LIMIT) | (angle_error(states) > ANGLE_LIMIT)
    last = jnp.max(jnp.where(outside, jnp.arange(outside.shape[0]), -1))
    times = jnp.append(states.time, jnp.inf)
    return times[last + 1] - states.time[0]


def rail_used(states: State) -> jax.Array:
    """Largest distance of the cart to the middle of the rail, m."""
    return jnp.max(distance(states))


TASK = Task(
    commands=(),
    observations=OBSERVATIONS,
    duration=DURATION,
    reset=reset,
    excitation=excitation,
    observe=observe,
    reward=reward,
    terminated=terminated,
    settling=settling_time,
    objectives=(
        Objective("settling_time", "time to hold upright for good", "s", False, settling_time),
        Objective("rail_used", "largest distance from the middle", "m", False, rail_used),
        Objective("pole_length", "length of the pole", "m", True, lambda s: s.design[0, 0]),
    ),
    requirements=(
        Requirement(
            "angle",
            "angle of the pole to upright, worst of the last 2 s",
            "deg",
            ANGLE_LIMIT,
            lambda states: jnp.max(angle_error(states)[-STEPS_HELD - 1 :]),
        ),
        Requirement(
            "position",
            "distance of the cart to the middle, worst of the last 2 s",
            "m",
            POSITION_LIMIT,
            lambda states: jnp.max(distance(states)[-STEPS_HELD - 1 :]),
        ),
    ),
)
