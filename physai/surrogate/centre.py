"""The mass centre in place of the root: coordinates in which inner forces do not show.

A machine that is free to move is pushed along by outer forces alone: gravity, contacts, thrust. The
translation of its root also jumps with everything that moves inside; that of its mass centre,

    c = t + sum_b m_b r_b(q) / sum_b m_b,       c' = t' + sum_b m_b r_b'(q, v) / sum_b m_b,

does not (t: the root's translation; r_b: a body's mass centre from there). A surrogate therefore
predicts c, and t follows from c and the predicted configuration. Without outer forces c' is
constant, exactly.

Reference: Orin, Goswami, Lee, "Centroidal dynamics of a humanoid robot", 2013, equations 5 and 28,
doi:10.1007/s10514-013-9341-4.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from physai.plant import Plant
from physai.state import Array, State, rotate
from physai.surrogate.tree import Constants, Tree


class Translation(NamedTuple):
    """One direction in which a root translates.

    Attributes:
        qpos_index, qvel_index: where it sits.
        axis: in the world.
        body: the root, whose subtree it carries.
    """

    qpos_index: int
    qvel_index: int
    axis: tuple[float, float, float]
    body: int


def translations(plant: Plant) -> tuple[Translation, ...]:
    """Return the translations of roots whose mass centre moves about them.

    Those of free joints, and of slides that nothing but other slides comes before.
    """
    model, found = plant.model, []
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    for body in range(1, model.nbody):
        joints = range(model.body_jntadr[body], model.body_jntadr[body] + model.body_jntnum[body])
        if model.body_weldid[model.body_parentid[body]] != 0 or not _shifts(model, body):
            continue
        for i in joints:
            at = int(model.jnt_qposadr[i]), int(model.jnt_dofadr[i])
            kind = model.jnt_type[i]
            if kind == mujoco.mjtJoint.mjJNT_FREE:
                world = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
                found += [Translation(at[0] + k, at[1] + k, world[k], body) for k in range(3)]
            elif kind == mujoco.mjtJoint.mjJNT_SLIDE:
                x, y, z = data.xaxis[i].tolist()
                found.append(Translation(*at, (x, y, z), body))
            else:
                break
    return tuple(found)


def _shifts(model: mujoco.MjModel, body: int) -> bool:
    """Tell whether the mass centre of a subtree moves in the frame that its root carries along."""
    inside = {body}
    for b in range(body + 1, model.nbody):
        if model.body_parentid[b] in inside:
            inside.add(b)
    mass = sum(model.body_mass[b] for b in inside)
    moving = any(model.body_jntnum[b] for b in inside - {body})
    slides = model.jnt_type[model.dof_jntid] == mujoco.mjtJoint.mjJNT_SLIDE
    own = slice(model.body_dofadr[body], model.body_dofadr[body] + model.body_dofnum[body])
    turns = bool(np.any(~slides[own]))
    off = np.linalg.norm(model.body_ipos[body]) > 1e-6 * max(model.stat.extent, 1e-9)
    return bool(mass > 0.0 and (moving or (turns and (off or len(inside) > 1))))


def to_centres(
    tree: Tree, constants: Constants, centre: tuple[Translation, ...], state: State
) -> State:
    """Return the state `[...]` with mass centres in place of root translations."""
    return _moved(tree, constants, centre, state, 1.0)


def from_centres(
    tree: Tree, constants: Constants, centre: tuple[Translation, ...], state: State
) -> State:
    """Return the state `[...]` that `to_centres` made this one of."""
    return _moved(tree, constants, centre, state, -1.0)


def _moved(
    tree: Tree, constants: Constants, centre: tuple[Translation, ...], state: State, sign: float
) -> State:
    offset, rate = _centres(tree, constants, centre, state.qpos, state.qvel)
    qpos, qvel = jnp.asarray(state.qpos), jnp.asarray(state.qvel)
    return state.replace(
        qpos=qpos.at[..., _index(centre, "qpos_index")].add(sign * offset),
        qvel=qvel.at[..., _index(centre, "qvel_index")].add(sign * rate),
    )


def _index(centre: tuple[Translation, ...], name: str) -> np.ndarray:
    return np.array([getattr(translation, name) for translation in centre])


def _centres(
    tree: Tree, constants: Constants, centre: tuple[Translation, ...], qpos: Array, qvel: Array
) -> tuple[jax.Array, jax.Array]:
    """Return places and speeds of mass centres from their roots' translations, both `[..., k]`.

    Neither depends on the translations themselves.
    """
    qpos, qvel = jnp.asarray(qpos), jnp.asarray(qvel)
    skipped = frozenset(t.qvel_index for t in centre)
    found = {
        body: _centre(tree, constants, body, skipped, qpos, qvel)
        for body in dict.fromkeys(t.body for t in centre)
    }
    places, speeds = zip(
        *(tuple(x @ jnp.array(t.axis) for x in found[t.body]) for t in centre), strict=True
    )
    return jnp.stack(places, -1), jnp.stack(speeds, -1)


class _Slot(NamedTuple):
    """One joint of each body of a level, of a body without one a joint that does nothing.

    Attributes:
        joint: indices of the joints `[n]`, 0 where there is none.
        qpos_index, qvel_index: where they sit `[n]`.
        turns, slides: 1 for hinges, for slides, else 0 `[n]`; a translation left out is none.
        rests: 1 where the joint stands for something `[n]`.
        balls: their place in the level, qpos index and qvel index.
    """

    joint: np.ndarray
    qpos_index: np.ndarray
    qvel_index: np.ndarray
    turns: np.ndarray
    slides: np.ndarray
    rests: np.ndarray
    balls: tuple[tuple[int, int, int], ...]


class _Level(NamedTuple):
    """Bodies as far from the root as each other, their joints innermost first, their parents."""

    bodies: np.ndarray
    slots: tuple[_Slot, ...]
    sums: np.ndarray


@functools.lru_cache(maxsize=64)
def _levels(tree: Tree, root: int, skipped: frozenset[int]) -> tuple[_Level, ...]:
    """Return a subtree's levels, the farthest first; the root's alone is the last.

    `sums [parents, bodies]` adds up a level for the one before it.
    """
    levels = [[root]]
    while children := [b for b, parent in enumerate(tree.parents) if b and parent in levels[-1]]:
        levels.append(children)
    found = []
    for depth, bodies in reversed(list(enumerate(levels))):
        owned = [[i for i, (b, _) in enumerate(tree.joints) if b == body][::-1] for body in bodies]
        slots = tuple(
            _slot(tree, [joints[k] if k < len(joints) else None for joints in owned], skipped)
            for k in range(max(map(len, owned)))
        )
        above = levels[depth - 1] if depth else [tree.parents[root]]
        sums = np.array([[float(tree.parents[b] == parent) for b in bodies] for parent in above])
        found.append(_Level(np.array(bodies), slots, sums))
    return tuple(found)


def _slot(tree: Tree, indices: list[int | None], skipped: frozenset[int]) -> _Slot:
    joints = [None if i is None else tree.joints[i][1] for i in indices]
    kinds = ["" if j is None or j.kind == "free" else j.kind for j in joints]
    return _Slot(
        np.array([i or 0 for i in indices]),
        np.array([0 if j is None else j.qpos_index for j in joints]),
        np.array([0 if j is None else j.qvel_index for j in joints]),
        np.array([float(kind == "hinge") for kind in kinds]),
        np.array([float(kind == "slide") for kind in kinds]),
        np.array([float(j is not None and j.qvel_index not in skipped) for j in joints]),
        tuple(
            (n, j.qpos_index, j.qvel_index)
            for n, (j, kind) in enumerate(zip(joints, kinds, strict=True))
            if j is not None and kind == "ball"
        ),
    )


def _centre(
    tree: Tree, constants: Constants, root: int, skipped: frozenset[int], qpos: Array, qvel: Array
) -> tuple[jax.Array, jax.Array]:
    """Return place and speed `[..., 3]` of a subtree's centre, some translations left out.

    From the leaves to the root, all bodies of a level at once: mass, and mass times the place and
    the speed of the centre of what a body carries, in its own frame and then in its parent's.
    """
    lead = qpos.shape[:-1]
    mass, moments = jnp.zeros((*lead, 1)), jnp.zeros((*lead, 1, 2, 3))
    for number, level in enumerate(_levels(tree, root, skipped)):
        own = jnp.asarray(constants["mass"])[..., level.bodies]
        own = jnp.broadcast_to(own, (*lead, len(level.bodies)))
        centre = own[..., None] * jnp.asarray(constants["centre"])[..., level.bodies, :]
        mass = own + (mass if number else 0.0)
        still = jnp.stack([centre, jnp.zeros_like(centre)], -2)
        moments = still + (moments if number else 0.0)
        for slot in level.slots:
            moments = _jointed(constants, slot, mass, moments, qpos, qvel)
        if level.bodies[0] != root:
            mass, moments = _fixed(constants, level, mass, moments)
    total, body = mass[..., 0, None], root
    place, speed = moments[..., 0, 0, :], moments[..., 0, 1, :]
    free = [joint for b, joint in tree.joints if b == root and joint.kind == "free"]
    if free:  # its quaternion is of the world, its rate of the body
        i, j, body = free[0].qpos_index + 3, free[0].qvel_index + 3, 0
        speed = speed + jnp.cross(qvel[..., j : j + 3], place)
        place, speed = rotate(qpos[..., i : i + 4], place), rotate(qpos[..., i : i + 4], speed)
    while body > 0:
        turn, position = constants["body_quat"][..., body, :], constants["body_pos"][..., body, :]
        place, speed = rotate(turn, place) + total * position, rotate(turn, speed)
        body = tree.parents[body]
    return place / total, speed / total


def _jointed(
    constants: Constants,
    slot: _Slot,
    mass: jax.Array,
    moments: jax.Array,
    qpos: Array,
    qvel: Array,
) -> jax.Array:
    """Return moments `[..., n, 2, 3]` in the frames before a joint of each body."""
    axis, at = (
        jnp.asarray(constants[name])[..., slot.joint, :] for name in ("joint_axis", "joint_pos")
    )
    rest = jnp.asarray(constants["qpos0"])[..., slot.qpos_index]
    moved = (qpos[..., slot.qpos_index] * slot.rests - rest)[..., None]
    rate = (qvel[..., slot.qvel_index] * slot.rests)[..., None]
    turns, slides, heavy = slot.turns[:, None], slot.slides[:, None], mass[..., None]
    anchored = turns.copy()
    for n, _, _ in slot.balls:
        anchored[n] = 1.0
    place, speed = moments[..., 0, :] - anchored * heavy * at, moments[..., 1, :]
    if slot.turns.any():
        speed = speed + turns * rate * jnp.cross(axis, place)
        sine, cosine = jnp.sin(turns * moved)[..., None], jnp.cos(turns * moved)[..., None]
        both, axes = jnp.stack([place, speed], -2), axis[..., None, :]
        along = jnp.sum(axes * both, -1, keepdims=True)
        both = cosine * both + sine * jnp.cross(axes, both) + (1.0 - cosine) * along * axes
        place, speed = both[..., 0, :], both[..., 1, :]
    for n, i, j in slot.balls:
        turning = speed[..., n, :] + jnp.cross(qvel[..., j : j + 3], place[..., n, :])
        speed = speed.at[..., n, :].set(rotate(qpos[..., i : i + 4], turning))
        place = place.at[..., n, :].set(rotate(qpos[..., i : i + 4], place[..., n, :]))
    place = place + heavy * (anchored * at + slides * moved * axis)
    return jnp.stack([place, speed + heavy * slides * rate * axis], -2)


def _fixed(
    constants: Constants, level: _Level, mass: jax.Array, moments: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return masses and moments in the frames of the parents, added up for each."""
    turn, position = (
        jnp.asarray(constants[name])[..., level.bodies, :] for name in ("body_quat", "body_pos")
    )
    moments = rotate(turn[..., None, :], moments)
    moments = moments.at[..., 0, :].add(mass[..., None] * position)
    return mass @ level.sums.T, jnp.einsum("pb,...bij->...pij", level.sums, moments)
