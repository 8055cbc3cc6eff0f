"""What __NAME__ has to do: point the arm at a commanded angle, and hold it there.

Every function is pure jax.numpy on one State, without a batch dimension: jnp.where in place of if,
no numpy, no global that changes. The same functions run on true MuJoCo and inside the surrogate,
and policies are learned by the gradient of the reward: keep it smooth.

A State has qpos and qvel (as in MuJoCo), act, time, command (what is asked for) and design.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from physai.plant import Channel
from physai.state import State
from physai.task import Objective, ObservationChannel, Requirement, Task

DURATION = 2.0  # s
STEPS_HELD = 50  # control periods of 0.01 s at the end in which the requirements must hold
TRAVEL = 1.5  # rad, commands and starts lie within plus and minus this
POINTING_LIMIT = 2.0  # degrees
DEFLECTION_LIMIT = 4.0  # degrees
WOUND_UP = 12.0  # rad
HUB, FLEXURE = range(2)  # places in qpos and qvel

# What the controller sees: name, unit, range, and standard deviation of the sensor's white noise.
# Leave out what no sensor of the real machine tells. Ranges are for scaling: generous, but finite.
OBSERVATIONS = (
    ObservationChannel("hub_error", "rad", -15.0, 15.0, 0.001),
    ObservationChannel("deflection", "rad", -1.0, 1.0, 0.001),
    ObservationChannel("hub_rate", "rad/s", -40.0, 40.0, 0.02),
    ObservationChannel("deflection_rate", "rad/s", -40.0, 40.0, 0.02),
)


def _start(
    key: jax.Array, design: jax.Array, deflection: float, hub_rate: float, rate: float
) -> State:
    """Draw command and start; deflection in rad, rates in rad/s, each up to plus and minus that."""
    # One draw for all: a call of jax.random takes longer to compile than the rest of this function.
    u = jax.random.uniform(key, (5,), minval=-1.0, maxval=1.0)
    return State(
        qpos=jnp.stack([TRAVEL * u[1], deflection * u[2]]),
        qvel=jnp.stack([hub_rate * u[3], rate * u[4]]),
        act=jnp.zeros(0),
        time=jnp.zeros(()),
        command=TRAVEL * u[:1],
        design=design,
    )


def reset(key: jax.Array, design: jax.Array) -> State:
    """Draw a start as verification flies it: up to 3 rad off, nearly at rest."""
    return _start(key, design, deflection=0.01, hub_rate=0.05, rate=0.05)


def excitation(key: jax.Array, design: jax.Array) -> State:
    """Draw a wider start for collecting data: moving and bent, as it will be on the way."""
    return _start(key, design, deflection=0.3, hub_rate=8.0, rate=8.0)


def pointing_error(state: State) -> jax.Array:
    """Angle of the arm minus the command, rad (`...`: one state or all states of a flight)."""
    return state.qpos[..., HUB] + state.qpos[..., FLEXURE] - state.command[..., 0]


def observe(state: State) -> jax.Array:
    """Return what encoders and rate sensors tell `[4]`, in the order of OBSERVATIONS."""
    hub_error = state.qpos[HUB] - state.command[0]
    return jnp.stack([hub_error, state.qpos[FLEXURE], state.qvel[HUB], state.qvel[FLEXURE]])


def reward(state: State, action: jax.Array, next_state: State) -> jax.Array:
    """Return minus the cost of one control period.

    A cost that is linear far away pulls from everywhere; one that saturates near the goal, as wide
    as the requirement, makes the last degree worth its while. Speed and effort cost little.
    """
    square = jnp.square(pointing_error(next_state))
    distance_cost = jnp.sqrt(square + 1e-4) - 1e-2
    fine_cost = sum(1.0 - jnp.exp(-0.5 * square / width**2) for width in (0.1, 0.015))
    speed_cost = 0.002 * jnp.square(next_state.qvel[HUB])
    ringing_cost = 0.005 * jnp.square(next_state.qvel[FLEXURE])
    effort_cost = 0.005 * jnp.sum(jnp.square(action))
    return -(distance_cost + 0.2 * fine_cost + speed_cost + ringing_cost + effort_cost)


def terminated(state: State) -> jax.Array:
    """Return whether the flight is lost for good: two turns, which would tear the cable."""
    return jnp.abs(state.qpos[..., HUB]) > WOUND_UP


def settling_time(states: State) -> jax.Array:
    """Time after which the arm stays within the limit, s (inf: never)."""
    outside = jnp.degrees(jnp.abs(pointing_error(states))) > POINTING_LIMIT
    last = jnp.max(jnp.where(outside, jnp.arange(outside.shape[0]), -1))
    return jnp.append(states.time, jnp.inf)[last + 1] - states.time[0]


def held_error(states: State) -> jax.Array:
    """Largest pointing error of the last 0.5 s, degrees."""
    return jnp.max(jnp.degrees(jnp.abs(pointing_error(states[-STEPS_HELD - 1 :]))))


def held_deflection(states: State) -> jax.Array:
    """Largest deflection of the last 0.5 s, degrees."""
    return jnp.max(jnp.degrees(jnp.abs(states.qpos[-STEPS_HELD - 1 :, FLEXURE])))


# Requirements and objectives measure one flight: their functions get its states, `[T + 1, ...]`.
TASK = Task(
    commands=(Channel("angle", "rad", -TRAVEL, TRAVEL),),
    observations=OBSERVATIONS,
    duration=DURATION,
    reset=reset,
    excitation=excitation,
    observe=observe,
    reward=reward,
    terminated=terminated,
    settling=settling_time,
    # What a design study trades off (`physai design`); False: less is better.
    objectives=(
        Objective("settling_time", "time to hold the command for good", "s", False, settling_time),
        Objective("payload", "mass carried", "kg", True, lambda states: states.design[0, 0]),
    ),
    # What verification judges: met when the measure is at most the limit. Decide on them before you
    # see results; a flight passes when it meets all.
    requirements=(
        Requirement(
            "pointing",
            "angle of the arm to the command, worst of the last 0.5 s",
            "deg",
            POINTING_LIMIT,
            held_error,
        ),
        Requirement(
            "deflection",
            "deflection of the arm on the hub, worst of the last 0.5 s",
            "deg",
            DEFLECTION_LIMIT,
            held_deflection,
        ),
    ),
)
