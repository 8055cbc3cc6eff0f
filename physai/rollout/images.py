"""Images of a machine in itself: ways to relabel its parts that its dynamics do not notice.

A quadrotor seen in a mirror is a quadrotor whose rotors have changed places; a walker's left leg
may be called its right one. Such an image is a linear map g of states, actions and disturbances
with

    f(g x, g u, g w) = g f(x, u, w)

and every recorded control period then shows another one that was not flown.

Candidates are found in the geometry of the nominal design at rest: a motion G of the world that
turns or mirrors its axes and leaves gravity as it is, and a matching of bodies, onto themselves or
onto one another, that takes each joint to where G takes it. Which action or disturbance becomes
which is then measured, by pushing with each. What is left is tried as a whole, on random flights of
random designs (`physai.rollout.trial`); only what commutes to rounding is an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, permutations, product
from typing import Any, NamedTuple

import mujoco
import numpy as np

from physai.plant import Channel, Plant
from physai.rollout.trial import TOLERANCE, Trial
from physai.state import State

MATCHINGS = 8  # of bodies that are tried for one motion of the world
NEAR = 1e-5
"""Within which places (m), axes and the effects of a push (of its largest) count as the same."""

Entries = tuple[tuple[int, int, float], ...]
"""Of a matrix, those that are not 0: row, column, value."""


@dataclass(frozen=True)
class Image:
    """One image, as the entries of five square matrices.

    Attributes:
        qpos, qvel, act: of states.
        actions, disturbances: of what drives the machine; of values 1 and -1.
    """

    qpos: Entries
    qvel: Entries
    act: Entries
    actions: Entries
    disturbances: Entries

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Image:
        """Return the image that `dataclasses.asdict` made this of, lists in place of tuples."""
        return cls(**{part: tuple(map(tuple, entries)) for part, entries in described.items()})

    def state(self, state: State) -> State:
        """Return the image of states `[...]`."""
        return state.replace(
            qpos=mapped(self.qpos, state.qpos),
            qvel=mapped(self.qvel, state.qvel),
            act=mapped(self.act, state.act),
        )


class _Match(NamedTuple):
    """A joint, the one that takes its place, and how: a sign, or of a free joint a 3x3 matrix."""

    joint: int
    onto: int
    turn: np.ndarray


class _Motion(NamedTuple):
    """A model at rest and a motion of the world about a centre, under which it is looked at again.

    Attributes:
        model, data: at rest.
        children, joints: of every body, by its number.
        world: turns or mirrors the axes `[3, 3]`.
        centre: the place that stays, m.
    """

    model: mujoco.MjModel
    data: mujoco.MjData
    children: list[list[int]]
    joints: list[range]
    world: np.ndarray
    centre: np.ndarray

    def off(self, place: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Return how far the motion takes a place from another one `[3]`."""
        return self.world @ (place - self.centre) - (other - self.centre)


def find_images(trial: Trial) -> tuple[Image, ...]:
    """Return the images of a plant, the identity not among them, as flown by `trial`."""
    model = trial.plant.model
    state = trial.states[len(trial.states) // 2]
    state = state.replace(act=np.zeros_like(state.act))  # its own image, whatever that is
    effects: list[np.ndarray] = []
    tried = [(_entries(np.eye(model.nq)), _entries(np.eye(model.nv)))]
    found = []
    for world, matches in _candidates(model):
        qpos, qvel = (_entries(matrix) for matrix in _of_states(model, world, matches))
        if (qpos, qvel) in tried:  # as is a planar machine seen from its other side
            continue
        tried.append((qpos, qvel))
        effects = effects or _effects(trial, state)
        image = _driven(trial, state, Image(qpos, qvel, (), (), ()), effects)
        if image is None:
            continue
        moved = mapped(image.disturbances, trial.disturbances), mapped(image.actions, trial.actions)
        if trial.worst(lambda now, _, image=image: image.state(now), *moved) < TOLERANCE:
            found.append(image)
    return tuple(found)


def _effects(trial: Trial, state: State) -> list[np.ndarray]:
    """Return what a push of each channel does."""
    return [trial.pushed(state, c) for c in range(trial.plant.nu + trial.plant.nw)]


def mapped(entries: Entries, values: np.ndarray) -> np.ndarray:
    """Return a matrix times vectors `[..., n]`."""
    values = np.asarray(values)
    found = np.zeros_like(values)
    for row, column, factor in entries:
        found[..., row] += np.asarray(factor, values.dtype) * values[..., column]
    return found


def _entries(matrix: np.ndarray) -> Entries:
    matrix = np.where(np.abs(matrix) < NEAR, 0.0, matrix)
    return tuple((int(i), int(j), float(matrix[i, j])) for i, j in np.argwhere(matrix))


def _candidates(model: mujoco.MjModel) -> Iterator[tuple[np.ndarray, list[_Match]]]:
    """Yield motions of the world `[3, 3]` and matchings of joints that go with them at rest."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    children = [np.flatnonzero(model.body_parentid == body).tolist() for body in range(model.nbody)]
    children[0] = [body for body in children[0] if body]
    joints = [
        range(max(first, 0), max(first, 0) + count)
        for first, count in zip(model.body_jntadr, model.body_jntnum, strict=True)
    ]
    if np.any(model.jnt_type == mujoco.mjtJoint.mjJNT_BALL):
        return
    free = np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)
    centre = data.xpos[model.jnt_bodyid[free[0]]] if len(free) else np.zeros(3)
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            world = np.diag(signs)[:, list(order)]
            if np.allclose(world @ model.opt.gravity, model.opt.gravity):
                motion = _Motion(model, data, children, joints, world, centre)
                matchings = islice(_matchings(motion, 0, 0), MATCHINGS)
                yield from ((world, matches) for matches in matchings)


def _matchings(motion: _Motion, body: int, onto: int) -> Iterator[list[_Match]]:
    """Yield the ways in which the subtree of a body takes the place of another's."""
    own = _joints_of(motion, body, onto)
    below, places = motion.children[body], motion.children[onto]
    if own is None or len(below) != len(places):
        return

    def others(left: list[int], free: list[int]) -> Iterator[list[_Match]]:
        if not left:
            yield []
            return
        for place in free:
            remaining = [other for other in free if other != place]
            for first in _matchings(motion, left[0], place):
                yield from (first + later for later in others(left[1:], remaining))

    yield from (own + matches for matches in others(below, places))


def _joints_of(motion: _Motion, body: int, onto: int) -> list[_Match] | None:
    """Return how the joints of a body take the places of another's, None where they cannot."""
    model, data = motion.model, motion.data
    off = motion.off(data.xipos[body], data.xipos[onto])
    lighter = abs(model.body_mass[body] - model.body_mass[onto])
    if body and (np.abs(off).max() > NEAR or lighter > NEAR * model.body_mass[onto]):
        return None
    if len(motion.joints[body]) != len(motion.joints[onto]):
        return None
    found, left = [], list(motion.joints[onto])
    for joint in motion.joints[body]:
        fitting = (_joint(motion, joint, other) for other in left)
        match = next((match for match in fitting if match is not None), None)
        if match is None:
            return None
        found.append(match)
        left.remove(match.onto)
    return found


def _joint(motion: _Motion, joint: int, onto: int) -> _Match | None:
    """Return how a joint takes the place of another, None where it cannot."""
    model, data, world = motion.model, motion.data, motion.world
    kind = model.jnt_type[joint]
    if kind != model.jnt_type[onto]:
        return None
    if kind == mujoco.mjtJoint.mjJNT_FREE:
        bodies = model.jnt_bodyid[[joint, onto]]
        before, after = data.xmat[bodies].reshape(2, 3, 3)
        return _Match(joint, onto, after.T @ world @ before)
    hinge = kind == mujoco.mjtJoint.mjJNT_HINGE
    axis = world @ data.xaxis[joint] * (np.linalg.det(world) if hinge else 1.0)
    sign = np.sign(axis @ data.xaxis[onto])
    off = motion.off(data.xanchor[joint], data.xanchor[onto])
    off -= (off @ data.xaxis[onto]) * data.xaxis[onto]
    away = max(np.abs(axis - sign * data.xaxis[onto]).max(), np.abs(off).max() if hinge else 0.0)
    return None if away > NEAR else _Match(joint, onto, sign)


def _of_states(
    model: mujoco.MjModel, world: np.ndarray, matches: list[_Match]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices of qpos and qvel."""
    qpos, qvel = np.zeros((model.nq, model.nq)), np.zeros((model.nv, model.nv))
    mirrored = np.linalg.det(world)
    for joint, onto, turn in matches:
        (column, row), (from_, to) = (
            at[[joint, onto]] for at in (model.jnt_qposadr, model.jnt_dofadr)
        )
        if np.ndim(turn):
            qpos[row : row + 3, column : column + 3] = world
            qpos[row + 3 : row + 7, column + 3 : column + 7] = _quaternions(world, turn)
            qvel[to : to + 3, from_ : from_ + 3] = world
            qvel[to + 3 : to + 6, from_ + 3 : from_ + 6] = mirrored * turn
        else:
            qpos[row, column] = qvel[to, from_] = turn
    return qpos, qvel


def _quaternions(world: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Return the matrix `[4, 4]` of quaternions for attitudes R -> world R body'."""
    left, right = np.zeros(4), np.zeros(4)
    mirrored = np.linalg.det(world)  # of both: the sign drops out of their product
    mujoco.mju_mat2Quat(left, (mirrored * world).ravel())
    mujoco.mju_mat2Quat(right, (mirrored * body.T).ravel())
    columns = np.eye(4)
    for column in columns:
        mujoco.mju_mulQuat(column, left, column.copy())
        mujoco.mju_mulQuat(column, column.copy(), right)
    return columns.T


def _driven(trial: Trial, state: State, image: Image, effects: list[np.ndarray]) -> Image | None:
    """Add how an image maps what drives the plant; None where a channel has no counterpart."""
    plant = trial.plant
    moved = image.state(state)
    channels, trim = (*plant.actions, *plant.disturbances), [*plant.trim, *np.zeros(plant.nw)]
    reached = _effects(trial, moved)
    free, entries = list(range(len(channels))), []
    for channel, effect in enumerate(effects):
        wanted = mapped(image.qvel, effect)
        # Those of a kind alone: an action may act as a gust does, and is none.
        same_kind = [c for c in free if (c < plant.nu) == (channel < plant.nu)]
        sign, other = next(
            (
                (sign, other)
                for sign, other in product((1, -1), same_kind)
                if _ranges_match(channels[channel], channels[other], sign)
                and abs(trim[other] - sign * trim[channel]) < NEAR
                and _same(wanted, reached[other][::sign])
            ),
            (0, -1),
        )
        if not sign:
            return None
        free.remove(other)
        entries.append((other, channel, float(sign)))
    actions = tuple(entry for entry in entries if entry[1] < plant.nu)
    shifted = ((to - plant.nu, by - plant.nu, sign) for to, by, sign in entries[plant.nu :])
    act = _activations(plant, entries)
    return Image(image.qpos, image.qvel, act, actions, tuple(shifted))


def _ranges_match(channel: Channel, other: Channel, sign: int) -> bool:
    ends = sorted((sign * channel.low, sign * channel.high))
    return bool(np.allclose(ends, (other.low, other.high)))


def _same(wanted: np.ndarray, reached: np.ndarray) -> bool:
    known = np.isfinite(wanted) & np.isfinite(reached)
    apart = np.abs(wanted - reached)[known].max(initial=0.0)
    pushed = np.abs(np.diff(wanted, axis=0))[0]
    return bool(known.any() and apart <= NEAR * np.nanmax(pushed, initial=0.0) + 1e-12)


def _activations(plant: Plant, entries: list[tuple[int, int, float]]) -> Entries:
    """Return how activations go with their actuators."""
    actuators = [*plant.action_ids, *plant.disturbance_ids]
    first, count = plant.model.actuator_actadr, plant.model.actuator_actnum
    return tuple(
        (int(first[actuators[to]]) + k, int(first[actuators[by]]) + k, sign)
        for to, by, sign in entries
        for k in range(count[actuators[by]])
    )
