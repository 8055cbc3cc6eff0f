"""The default task: reach a configuration and hold it, for any model, without a line of Python.

The goal is the first key frame, or where there is none the rest pose, moved into the joints'
ranges. With e the error in the tangent space of the configuration, v the velocity and u the action,

    cost = mean((e / s_e)^2) + c_v mean((v / s_v)^2) + c_u mean(((u - u_goal) / span)^2)

where s_e is a quarter of a joint's range (half a radian or half the model's extent where it has
none), s_v is s_e a second, and u_goal is the action that holds the goal against gravity, as far as
the actuators reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from physai.errors import InputError
from physai.plant import Channel, Plant
from physai.state import VELOCITY_WIDTH, Array, Joint, State, minus, plus, rotate_inverse
from physai.task.record import ObservationChannel, Requirement, Task
from physai.task.starts import LEAST, Bank, constrained, draw_bank

DURATION = 4.0  # s
HOLD = 1.0  # s at the end in which the requirements must hold
ANGLE_LIMIT = 3.0  # degrees
DISTANCE_LIMIT = 0.02  # of the model's extent
ANGLE_SCALE = 0.5  # rad, where a joint has no range
VELOCITY_COST, ACTION_COST = 0.02, 0.01
HOLD_COST = 0.5
FAILED_RATE = 1000.0  # rad/s, or extents a second: faster than any machine that is to be held


@dataclass(frozen=True)
class _Goal:
    """What the functions of the task close over; all float32.

    Attributes:
        joints: layout of the configuration.
        qpos, act: the goal `[nq]`, `[na]`.
        action: what holds it `[nu]`.
        span: of each action's range `[nu]`.
        scale: s_e, in m and rad `[nv]`.
        unit: 1 rad, or the model's extent in m `[nv]`.
        limit: of the requirements, in m and rad `[nv]`.
        reach: how far starts lie from the goal, in m and rad `[nv]`.
        low, high: ranges of the coordinates that have one, infinite elsewhere `[nq]`.
    """

    joints: tuple[Joint, ...]
    qpos: np.ndarray
    act: np.ndarray
    action: np.ndarray
    span: np.ndarray
    scale: np.ndarray
    unit: np.ndarray
    limit: np.ndarray
    reach: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def error(self, state: State) -> jax.Array:
        """Return `qpos (-) goal` `[..., nv]`."""
        return minus(self.joints, state.qpos, jnp.asarray(self.qpos))


def hold_task(plant: Plant) -> Task:
    """Return the task of reaching and holding the first key frame, or the rest pose, of a plant.

    Starts lie within a quarter of each joint's range of the goal, at rest. Where the model has
    equality constraints they come from a bank of some hundred that satisfy them at the nominal
    design, see `physai.task.starts`; where too few are found they lie at the goal, and `notes` says
    so.

    Raises:
        InputError: a first key frame outside the joints' ranges.
    """
    goal = _goal(plant)
    bank = None
    if constrained(plant.model):
        shape = (goal.qpos, goal.reach, goal.scale, goal.low, goal.high)
        bank = draw_bank(plant.model, *(x.astype(float) for x in shape))
    steps = max(1, round(HOLD / plant.control_period))

    def start(qpos: Array, qvel: Array, design: Array) -> State:
        act = jnp.asarray(goal.act)
        return State(qpos, qvel, act, jnp.zeros(()), jnp.zeros(0), design)

    def drawn(key: jax.Array, design: jax.Array, spread: float, speed: float) -> State:
        u = jax.random.uniform(key, (2, plant.model.nv), minval=-1.0, maxval=1.0)
        qpos = plus(goal.joints, jnp.asarray(goal.qpos), spread * goal.reach * u[0])
        return start(jnp.clip(qpos, goal.low, goal.high), speed * goal.reach * u[1], design)

    def picked(
        key: jax.Array, design: jax.Array, bank: np.ndarray, speed: np.ndarray | None
    ) -> State:
        i = jax.random.randint(key, (), 0, len(bank))
        still = jnp.zeros(plant.model.nv) if speed is None else jnp.asarray(speed, jnp.float32)[i]
        return start(jnp.asarray(bank, jnp.float32)[i], still, design)

    def reset(key: jax.Array, design: jax.Array) -> State:
        return (
            drawn(key, design, 1.0, 0.0) if bank is None else picked(key, design, bank.near, None)
        )

    def excitation(key: jax.Array, design: jax.Array) -> State:
        if bank is None:
            return drawn(key, design, 2.0, 2.0)
        return picked(key, design, bank.far, bank.speed)

    def reward(state: State, action: jax.Array, next_state: State) -> jax.Array:
        error = goal.error(next_state)
        cost = jnp.mean(jnp.square(error / goal.scale))
        cost += VELOCITY_COST * jnp.mean(jnp.square(next_state.qvel / goal.scale))
        if goal.action.size:
            cost += ACTION_COST * jnp.mean(jnp.square((action - goal.action) / goal.span))
        # Saturates outside the limits: a square alone would forgive the last degree.
        off = jnp.mean(1.0 - jnp.exp(-jnp.square(error / goal.limit)))
        return -(cost + HOLD_COST * off)

    def terminated(state: State) -> jax.Array:
        return jnp.max(jnp.abs(state.qvel) / goal.unit) > FAILED_RATE

    return Task(
        commands=(),
        observations=_observations(plant, goal),
        duration=DURATION,
        reset=reset,
        excitation=excitation,
        observe=lambda state: _observe(goal, state),
        reward=reward,
        terminated=terminated,
        settling=lambda states: _settling(goal, states),
        requirements=_requirements(goal, steps),
        notes=() if bank is None else _notes(goal, bank),
    )


def _goal(plant: Plant) -> _Goal:
    model = plant.model
    key = model.nkey > 0
    qpos = np.array(model.key_qpos[0] if key else model.qpos0)
    low, high = np.full(model.nq, -np.inf), np.full(model.nq, np.inf)
    extent = float(model.stat.extent)
    linear = _linear(plant.joints, model.nv)
    unit = np.where(linear, extent, 1.0)
    scale = np.where(linear, 0.5 * extent, ANGLE_SCALE)
    limit = np.where(linear, DISTANCE_LIMIT * extent, np.radians(ANGLE_LIMIT))
    for number, joint in enumerate(plant.joints):
        if joint.kind in ("slide", "hinge") and model.jnt_limited[number]:
            i, ends = joint.qvel_index, model.jnt_range[number]
            low[joint.qpos_index], high[joint.qpos_index] = ends
            scale[i] = min(scale[i], 0.25 * (ends[1] - ends[0]))
            if key:
                _check_within(plant, joint, float(qpos[joint.qpos_index]), ends, limit[i])
            else:  # the rest pose is nobody's choice: an ankle may bend from 30 degrees on
                qpos[joint.qpos_index] = np.clip(qpos[joint.qpos_index], *ends)
    reach = _reach(plant, scale)
    span = np.array([a.high - a.low for a in plant.actions])
    action, act = _holding(plant, qpos)
    return _Goal(
        plant.joints,
        *(np.asarray(x, np.float32) for x in (qpos, act, action, span)),
        *(np.asarray(x, np.float32) for x in (scale, unit, limit, reach, low, high)),
    )


def _check_within(plant: Plant, joint: Joint, value: float, ends: np.ndarray, limit: float) -> None:
    """Refuse a key frame that no joint within its range meets the requirement for."""
    if not ends[0] - limit <= value <= ends[1] + limit:
        unit = "m" if joint.kind == "slide" else "rad"
        where = f"key frame {plant.model.key(0).name or 0!r}"
        raise InputError(
            f"{plant.folder}: {where}: joint {joint.name}: expected a goal within its range, "
            f"{ends[0]:g} to {ends[1]:g} {unit}, got {value:g}. Change qpos of the key frame (rad "
            "and m, whatever the compiler's angle) or the range"
        )


def _notes(goal: _Goal, bank: Bank) -> tuple[str, ...]:
    """Say what is wrong with the starts of a model with equality constraints."""
    notes = []
    if bank.broken:
        notes.append(
            "The goal breaks the model's equality constraints, so that it cannot be held: give a "
            "first key frame that satisfies them."
        )
    if bank.found < LEAST:
        notes.append(
            f"Every start is the goal itself, since only {bank.found} ways from it were found on "
            "which the equality constraints and the joints' ranges hold. A certificate then says "
            "little: write a `reset` and an `excitation` in task.py."
        )
    elif np.all(np.abs(minus(goal.joints, bank.near, goal.qpos)) < goal.limit):
        notes.append(
            "Every start meets the requirements already, since the equality constraints leave "
            "hardly a way from the goal: write a `reset` in task.py."
        )
    return tuple(notes)


def _linear(joints: tuple[Joint, ...], nv: int) -> np.ndarray:
    """Tell which degrees of freedom are lengths `[nv]`; the others are angles."""
    linear = np.zeros(nv, bool)
    for joint in joints:
        count = {"free": 3, "slide": 1}.get(joint.kind, 0)
        linear[joint.qvel_index : joint.qvel_index + count] = True
    return linear


def _reach(plant: Plant, scale: np.ndarray) -> np.ndarray:
    """Return how far starts lie from the goal; what floats is only tilted, not pushed about."""
    reach = scale.copy()
    for joint in plant.joints:
        if joint.kind == "free":
            reach[joint.qvel_index : joint.qvel_index + 3] = 0.0
            reach[joint.qvel_index + 3 : joint.qvel_index + 6] *= 0.2
    return reach


def _holding(plant: Plant, qpos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the action and activation that come nearest to holding a configuration at rest."""
    model, data = plant.model, mujoco.MjData(plant.model)
    data.qpos[:] = qpos
    data.ctrl[list(plant.action_ids)] = plant.trim
    act = model.key_act[0].copy() if model.nkey else np.zeros(model.na)
    data.act[:] = act
    mujoco.mj_forward(model, data)
    moment = np.zeros((model.nu, model.nv))
    if model.nu:
        mujoco.mju_sparse2dense(
            moment, data.actuator_moment, data.moment_rownnz, data.moment_rowadr, data.moment_colind
        )
    # What the actuators must add to what they give at the trim action; gain is the force per unit.
    gain = _gain(model, data)[list(plant.action_ids)]
    needed = data.qfrc_bias - data.qfrc_passive - data.qfrc_actuator - data.qfrc_constraint
    change, *_ = np.linalg.lstsq((gain[:, None] * moment[list(plant.action_ids)]).T, needed)
    low, high = (np.array([getattr(a, end) for a in plant.actions]) for end in ("low", "high"))
    action = np.clip(plant.trim + change, low, high)
    return (action if np.isfinite(action).all() else plant.trim), act


def _gain(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    fixed = model.actuator_gaintype == int(mujoco.mjtGain.mjGAIN_FIXED)
    stateless = model.actuator_dyntype == int(mujoco.mjtDyn.mjDYN_NONE)
    return np.where(fixed & stateless, model.actuator_gainprm[:, 0], 0.0)


def _observations(plant: Plant, goal: _Goal) -> tuple[ObservationChannel, ...]:
    channels: list[Channel] = []
    for joint in goal.joints:
        name = joint.name
        if joint.kind == "hinge" and np.isfinite(goal.low[joint.qpos_index]):
            span = float(goal.high[joint.qpos_index] - goal.low[joint.qpos_index])
            channels.append(Channel(f"{name}.error", "rad", -1.5 * span, 1.5 * span))
        elif joint.kind == "hinge":
            channels += [Channel(f"{name}.error_{f}", "1", -1.0, 1.0) for f in ("sin", "cos")]
        elif joint.kind == "slide":
            far = 1e3 * float(goal.scale[joint.qvel_index])
            channels.append(Channel(f"{name}.error", "m", -far, far))
        else:
            if joint.kind == "free":
                channels += [Channel(f"{name}.error_{a}", "m", -1e3, 1e3) for a in "xyz"]
            channels += [Channel(f"{name}.turn_{a}", "rad", -3.15, 3.15) for a in "xyz"]
    for channel in plant.state_channels[plant.model.nv : 2 * plant.model.nv]:
        channels.append(Channel(channel.name, channel.unit, -1e4, 1e4))
    for channel in plant.state_channels[2 * plant.model.nv :]:
        channels.append(Channel(channel.name, channel.unit, -1e4, 1e4))
    return tuple(ObservationChannel(c.name, c.unit, c.low, c.high, 0.0) for c in channels)


def _observe(goal: _Goal, state: State) -> jax.Array:
    error, velocity = goal.error(state), jnp.asarray(state.qvel)
    parts = []
    for joint in goal.joints:
        i = joint.qvel_index
        e = error[i : i + VELOCITY_WIDTH[joint.kind]]
        if joint.kind == "hinge" and not np.isfinite(goal.low[joint.qpos_index]):
            parts += [jnp.sin(e), jnp.cos(e)]
        elif joint.kind == "free":
            attitude = state.qpos[joint.qpos_index + 3 : joint.qpos_index + 7]
            parts += [rotate_inverse(attitude, e[:3]), e[3:]]
            turned = rotate_inverse(attitude, velocity[i : i + 3])
            velocity = velocity.at[i : i + 3].set(turned)
        else:
            parts.append(e)
    return jnp.concatenate([*parts, velocity, state.act])


def _worst(goal: _Goal, states: State, dofs: np.ndarray, steps: int) -> jax.Array:
    return jnp.max(jnp.abs(goal.error(states[-steps - 1 :])[..., dofs]))


def _requirements(goal: _Goal, steps: int) -> tuple[Requirement, ...]:
    angular = ~_linear(goal.joints, len(goal.limit))
    kinds = []
    if angular.any():
        turn, dofs = "largest angle to the goal, worst of the last second", np.flatnonzero(angular)
        kinds.append(("angle", turn, "deg", ANGLE_LIMIT, dofs, 180.0 / np.pi))
    if not angular.all():
        way, dofs = "largest distance to the goal, worst of the last second", ~angular
        limit = float(goal.limit[dofs][0])
        kinds.append(("distance", way, "m", limit, np.flatnonzero(dofs), 1.0))
    return tuple(
        Requirement(n, d, u, lim, lambda s, i=i, f=f: f * _worst(goal, s, i, steps))
        for n, d, u, lim, i, f in kinds
    )


def _settling(goal: _Goal, states: State) -> jax.Array:
    """Time after which every error stays within its limit, s (inf: never)."""
    outside = jnp.any(jnp.abs(goal.error(states)) > goal.limit, axis=-1)
    last = jnp.max(jnp.where(outside, jnp.arange(outside.shape[0]), -1))
    times = jnp.append(states.time, jnp.inf)
    return times[last + 1] - states.time[0]
