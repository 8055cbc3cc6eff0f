"""Which symmetries a plant has, found by flying it and not by assuming them.

A plant is invariant under a motion g of its free joints when flying and moving commute,

    f(g x, u, g w) = g f(x, u, w)

for a shift of the position, and for a turn about the vertical through the position, which also
turns velocities and the disturbances that form a world-frame vector. Each free joint is moved on
its own, since a surrogate that uses the invariance leaves out each one's position and heading.
A floor, a spring to the world or a wind breaks one or both, and shows.

Likewise for single joints: the dynamics of a spinning wheel, or of a walker along its track, do not
depend on how far it has turned or gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import mujoco
import numpy as np

from physai.plant import Plant
from physai.rollout.engine import TruePlant
from physai.rollout.excitation import Excitation, clip_actions, draw_starts, shake
from physai.state import Joint, State
from physai.task import Task

TOLERANCE = 1e-6
"""Largest disagreement, relative to the motion, that counts as rounding."""
FLIGHTS = 64
DESIGNS = 8
FLIGHT_TIME = 1.0  # s
SHIFT = 10.0  # m, and rad of a single joint
IDLE_FLIGHTS = 16
IDLE_PERIODS = 10

_Move = Callable[[State], State]


@dataclass(frozen=True)
class Symmetry:
    """What the numeric test found. Errors are relative to the motion; None without a free joint.

    Attributes:
        translation: the dynamics do not depend on the free joints' positions.
        heading: nor on their headings, when world-frame disturbances turn along.
        translation_error: largest relative disagreement of the shifted flights.
        heading_error: likewise of the turned flights.
        joints: names of the hinges and slides whose position the dynamics do not depend on.
    """

    translation: bool
    heading: bool
    translation_error: float | None
    heading_error: float | None
    joints: tuple[str, ...] = ()


def find_symmetries(plant: Plant, task: Task, seed: int = 0) -> Symmetry:
    """Fly random episodes, shifted and turned, and compare after a control period and after 1 s.

    Args:
        plant: the true plant.
        task: gives the random starts.
        seed: of starts, designs, actions, disturbances, shifts and turns.

    Returns:
        What holds to 1e-6 of the motion; nothing does where more than half of the flights diverge.
    """
    joints, idle = [j for j in plant.joints if j.kind == "free"], idle_joints(plant, task, seed)
    if not joints:
        return Symmetry(False, False, None, None, idle)
    rng = np.random.default_rng([seed, 0])
    low, high = (np.array([getattr(v, end) for v in plant.design]) for end in ("low", "high"))
    designs = np.resize(low + (high - low) * rng.random((DESIGNS, len(low))), (FLIGHTS, len(low)))
    start = _starts(plant, task, designs, seed)
    steps = max(1, round(FLIGHT_TIME / plant.control_period))
    shaking = shake(plant, task, Excitation(), rng, FLIGHTS, steps, controlled=False)
    actions = clip_actions(plant, shaking.mean + shaking.noise)
    disturbances = _disturbances(plant, rng, steps)
    shifts = rng.uniform(-SHIFT, SHIFT, (len(joints), FLIGHTS, 3))
    angles = rng.uniform(-np.pi, np.pi, (len(joints), FLIGHTS))

    def shift(state: State) -> State:
        return _shifted(joints, state, shifts)

    def turn(state: State) -> State:
        return _turned(joints, state, start, angles)

    turned_disturbances = _turned_vectors(plant, disturbances, angles[0])
    kept, valid = _fly(
        plant,
        np.concatenate([designs] * 3),
        jax.tree.map(lambda *x: np.concatenate(x), start, shift(start), turn(start)),
        np.concatenate([actions] * 3),
        np.concatenate([disturbances, disturbances, turned_disturbances]),
    )
    plain, shifted, turned = (slice(i * FLIGHTS, (i + 1) * FLIGHTS) for i in range(3))

    def disagreement(moved: slice, move: _Move) -> float:
        both = valid[plain] & valid[moved]
        if np.mean(both) < 0.5:
            return 1.0
        pairs = [(state[plain], state[moved]) for state in kept]
        return max(_disagreement(plant, start, a, b, move, both) for a, b in pairs)

    translation_error = disagreement(shifted, shift)
    heading_error = disagreement(turned, turn)
    return Symmetry(
        translation=translation_error < TOLERANCE,
        heading=heading_error < TOLERANCE,
        translation_error=translation_error,
        heading_error=heading_error,
        joints=idle,
    )


def idle_joints(plant: Plant, task: Task, seed: int = 0) -> tuple[str, ...]:
    """Return the names of hinges and slides whose position the dynamics do not depend on.

    Each is moved alone for a control period, then all that passed together for ten.
    """
    model = plant.model
    # By address, not by name: a bare MJCF may leave its joints unnamed.
    index = {int(address): i for i, address in enumerate(model.jnt_qposadr)}
    candidates = [
        joint
        for joint in plant.joints
        if joint.kind in ("hinge", "slide")
        and not model.jnt_limited[index[joint.qpos_index]]
        and not model.jnt_stiffness[index[joint.qpos_index]]
    ]
    rng = np.random.default_rng([seed, 1])
    found = [j for j in candidates if _idle(plant, task, [j], 1, seed, rng)]
    if found and not _idle(plant, task, found, IDLE_PERIODS, seed, rng):
        return ()
    return tuple(joint.name for joint in found)


def _idle(
    plant: Plant,
    task: Task,
    joints: list[Joint],
    steps: int,
    seed: int,
    rng: np.random.Generator,
) -> bool:
    start = _starts(plant, task, np.tile(plant.nominal, (IDLE_FLIGHTS, 1)), seed)
    shaking = shake(plant, task, Excitation(), rng, IDLE_FLIGHTS, steps, controlled=False)
    actions = clip_actions(plant, shaking.mean + shaking.noise)
    disturbances = _disturbances(plant, rng, steps)[:IDLE_FLIGHTS]
    shifts = rng.uniform(-SHIFT, SHIFT, (len(joints), IDLE_FLIGHTS))

    def move(state: State) -> State:
        qpos = state.qpos.copy()
        for joint, shift in zip(joints, shifts, strict=True):
            qpos[:, joint.qpos_index] += shift
        return state.replace(qpos=qpos)

    kept, valid = _fly(
        plant,
        np.tile(plant.nominal, (2 * IDLE_FLIGHTS, 1)),
        jax.tree.map(lambda *x: np.concatenate(x), start, move(start)),
        np.concatenate([actions] * 2),
        np.concatenate([disturbances] * 2),
    )
    both = valid[:IDLE_FLIGHTS] & valid[IDLE_FLIGHTS:]
    if np.mean(both) < 0.5:
        return False
    end = kept[-1]
    error = _disagreement(plant, start, end[:IDLE_FLIGHTS], end[IDLE_FLIGHTS:], move, both)
    return error < TOLERANCE


def _starts(plant: Plant, task: Task, designs: np.ndarray, seed: int) -> State:
    state = draw_starts(task, jax.random.key(seed), designs)
    # float32 quaternions are not unit in float64, and g x would differ from x by that much.
    for qpos in state.qpos:
        mujoco.mj_normalizeQuat(plant.model, qpos)
    return state


def _disturbances(plant: Plant, rng: np.random.Generator, steps: int) -> np.ndarray:
    low, high = (np.array([getattr(d, end) for d in plant.disturbances]) for end in ("low", "high"))
    # Half the range: a turned vector must not be clipped.
    spread = 0.5 * rng.uniform(-0.5, 0.5, (FLIGHTS, steps, plant.nw))
    return 0.5 * (low + high) + (high - low) * spread


def _fly(
    plant: Plant, designs: np.ndarray, start: State, actions: np.ndarray, disturbances: np.ndarray
) -> tuple[list[State], np.ndarray]:
    """Return the states after the first and after the last period, and which flights are valid."""
    simulator = TruePlant(plant, len(designs), designs)
    state, kept = start, []
    for k in range(actions.shape[1]):
        state = simulator.step(state, actions[:, k], disturbances[:, k])
        if k in (0, actions.shape[1] - 1):
            kept.append(state)
    return kept, simulator.valid


def _disagreement(
    plant: Plant, start: State, plain: State, moved: State, move: _Move, valid: np.ndarray
) -> float:
    """Return the largest error relative to the motion of its flight, 1 at most."""
    worst = 0.0
    errors, motions = _blocks(plant, moved, move(plain)), _blocks(plant, plain, start)
    for error, motion in zip(errors, motions, strict=True):
        scale = np.abs(motion[valid]).max(1, initial=0.0)
        scale = np.maximum(scale, 1e-3 * scale.max() + 1e-12)
        worst = max(worst, float((np.abs(error[valid]).max(1, initial=0.0) / scale).max()))
    return min(worst, 1.0)


def _blocks(plant: Plant, to: State, start: State) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the differences of position, velocity and activation, in float64."""
    position = np.zeros((len(to.qpos), plant.model.nv))
    for difference, b, a in zip(position, to.qpos, start.qpos, strict=True):
        mujoco.mj_differentiatePos(plant.model, difference, 1.0, a, b)
    return position, to.qvel - start.qvel, to.act - start.act


def _shifted(joints: list[Joint], state: State, shifts: np.ndarray) -> State:
    qpos = state.qpos.copy()
    for joint, shift in zip(joints, shifts, strict=True):
        qpos[:, joint.qpos_index : joint.qpos_index + 3] += shift
    return state.replace(qpos=qpos)


def _turned(joints: list[Joint], state: State, start: State, angles: np.ndarray) -> State:
    """Turn each free joint about the vertical through where it was at the start."""
    qpos, qvel = state.qpos.copy(), state.qvel.copy()
    for joint, angle in zip(joints, angles, strict=True):
        i, j = joint.qpos_index, joint.qvel_index
        centre = start.qpos[:, i : i + 3]
        qpos[:, i : i + 3] = centre + _turn(qpos[:, i : i + 3] - centre, angle)
        qvel[:, j : j + 3] = _turn(qvel[:, j : j + 3], angle)
        half = 0.5 * angle
        quaternion = np.zeros((len(angle), 4))
        quaternion[:, 0], quaternion[:, 3] = np.cos(half), np.sin(half)
        for attitude, q in zip(qpos[:, i + 3 : i + 7], quaternion, strict=True):
            mujoco.mju_mulQuat(attitude, q, attitude.copy())
    return state.replace(qpos=qpos, qvel=qvel)


def _turned_vectors(plant: Plant, disturbances: np.ndarray, angle: np.ndarray) -> np.ndarray:
    turned = disturbances.copy()
    for vector in {d.vector for d in plant.disturbances if d.vector}:
        index = [i for i, d in enumerate(plant.disturbances) if d.vector == vector]
        turned[..., index] = _turn(disturbances[..., index], angle[:, None])
    return turned


def _turn(vectors: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Turn vectors `[..., 3]` about the z axis."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c * x - s * y, s * x + c * y, z], axis=-1)
