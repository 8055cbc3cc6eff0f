"""Which symmetries a plant has, found by flying it and not by assuming them.

A plant is invariant under a motion g of its joints when flying and moving commute,

    f(g x, u, g w) = g f(x, u, w)

Tried are, for every free joint: a shift along each world axis, and a turn about the vertical
through its position, which also turns velocities and the disturbances that form a world-frame
vector; for every hinge and slide without limits and springs: a shift, as of a spinning wheel's
angle or of a walker's way along its track; and for every such hinge: whole turns, as of a pendulum.
Each joint is moved on its own, since a surrogate that uses the invariance leaves each one's
position out. A floor breaks the vertical shift alone, a spring to the world or a wind more, and
both show.

The motions are tried at states that random flights come through, one control period at a time:
over longer times a machine in contact doubles rounding errors until nothing commutes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import mujoco
import numpy as np

from physai.plant import Plant
from physai.rollout.images import Image, find_images
from physai.rollout.trial import FLIGHTS, TOLERANCE, Move, Trial, worst
from physai.state import Joint, State
from physai.task import Task

FLIGHTS_A_JOINT = 4  # at least, that move one hinge or slide
SHIFT = 10.0  # m, and rad of a single joint


@dataclass(frozen=True)
class Symmetry:
    """What the numeric test found; by default that nothing may be relied on.

    Attributes:
        translation: the world axes, of "xyz", along which the free joints' positions do not matter.
        heading: nor do their headings, when world-frame disturbances turn along.
        joints: names of the hinges and slides whose position the dynamics do not depend on.
        turns: names of the hinges of which whole turns change nothing, without those of `joints`.
        errors: by what was moved ("x", "y", "z", "heading"), the largest disagreement relative to
            the motion; empty without a free joint.
        images: ways to relabel the machine's parts that change nothing.
    """

    translation: str = ""
    heading: bool = False
    joints: tuple[str, ...] = ()
    turns: tuple[str, ...] = ()
    errors: Mapping[str, float] = field(default_factory=dict)
    images: tuple[Image, ...] = ()


def find_symmetries(plant: Plant, task: Task, seed: int = 0) -> Symmetry:
    """Fly random episodes for 1 s; move states on their way, and compare after a control period.

    Args:
        plant: the true plant.
        task: gives the random starts.
        seed: of starts, designs, actions, disturbances, shifts and turns.

    Returns:
        What holds to 1e-6 of the motion; nothing does where more than half of the flights diverge.
    """
    trial = Trial(plant, task, seed)
    free, single = [j for j in plant.joints if j.kind == "free"], _candidates(plant)
    shifts = trial.rng.uniform(-SHIFT, SHIFT, (len(plant.joints), FLIGHTS))
    angles = trial.rng.uniform(-np.pi, np.pi, (len(free), FLIGHTS))
    errors: dict[str, float] = {}
    for axis, name in enumerate("xyz" if free else ""):
        indices = [joint.qpos_index + axis for joint in free]
        errors[name] = trial.worst(shifting(indices, shifts))
    if free:
        turned = turned_vectors(plant, trial.disturbances, angles[0])
        errors["heading"] = trial.worst(
            lambda state, start: turned_states(free, state, start, angles), turned
        )

    idle = _kept(trial, single, shifts)
    turning = [joint for joint in single if joint.kind == "hinge" and joint not in idle]
    whole_turns = 2.0 * np.pi * trial.rng.integers(1, 3, shifts.shape)
    return Symmetry(
        translation="".join(axis for axis in "xyz" if errors.get(axis, 1.0) < TOLERANCE),
        heading=errors.get("heading", 1.0) < TOLERANCE,
        joints=tuple(joint.name for joint in idle),
        turns=tuple(joint.name for joint in _kept(trial, turning, whole_turns)),
        errors=errors,
        images=find_images(trial),
    )


def _kept(trial: Trial, joints: list[Joint], shifts: np.ndarray) -> list[Joint]:
    """Return the joints whose shift changes nothing, none if all of theirs together do.

    Every flight moves one joint, so that a machine of a hundred joints takes seven trials.
    """
    found = []
    at_once = FLIGHTS // FLIGHTS_A_JOINT
    for group in (joints[i : i + at_once] for i in range(0, len(joints), at_once)):
        moved = np.arange(FLIGHTS) % len(group)
        alone = [np.where(moved == i, shifts[i], 0.0) for i in range(len(group))]
        errors = trial.disagreement(shifting([joint.qpos_index for joint in group], alone))
        found += [j for i, j in enumerate(group) if worst(errors[moved == i]) < TOLERANCE]
    together = shifting([joint.qpos_index for joint in found], shifts)
    return found if not found or trial.worst(together) < TOLERANCE else []


def _candidates(plant: Plant) -> list[Joint]:
    """Return the hinges and slides without limits and springs."""
    model = plant.model
    # By address, not by name: a bare MJCF may leave its joints unnamed.
    index = {int(address): i for i, address in enumerate(model.jnt_qposadr)}
    return [
        joint
        for joint in plant.joints
        if joint.kind in ("hinge", "slide")
        and not model.jnt_limited[index[joint.qpos_index]]
        and not model.jnt_stiffness[index[joint.qpos_index]]
    ]


def shifting(indices: list[int], shifts: Sequence[np.ndarray] | np.ndarray) -> Move:
    """Return the move that shifts `qpos[:, index]`, each index by a row of `shifts`."""

    def move(state: State, _: State) -> State:
        qpos = state.qpos.copy()
        for index, shift in zip(indices, shifts, strict=False):
            qpos[:, index] += shift
        return state.replace(qpos=qpos)

    return move


def turned_states(joints: list[Joint], state: State, start: State, angles: np.ndarray) -> State:
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


def turned_vectors(plant: Plant, disturbances: np.ndarray, angle: np.ndarray) -> np.ndarray:
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
