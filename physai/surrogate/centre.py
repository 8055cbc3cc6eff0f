"""The mass centre in place of the root: coordinates in which inner forces do not show.

A machine that is free to move is pushed along by outer forces alone: gravity, contacts, thrust. The
translation of its root also jumps with everything that moves inside; that of its mass centre,

    c = t + sum_b m_b r_b(q) / sum_b m_b,       c' = t' + sum_b m_b r_b'(q, v) / sum_b m_b,

does not (t: the root's translation; r_b: a body's mass centre from there). A surrogate therefore
sees and predicts c, and t follows from c and the predicted configuration. Without outer forces c'
is constant, exactly.

Reference: Orin, Goswami, Lee, "Centroidal dynamics of a humanoid robot", 2013, equations 5 and 28,
doi:10.1007/s10514-013-9341-4.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from physai.plant import Plant
from physai.state import Array, Joint, State, rotate
from physai.surrogate.rigid import Constants, Tree


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


def change_of_centres(
    tree: Tree, constants: Constants, centre: tuple[Translation, ...], qpos: Array, change: Array
) -> jax.Array:
    """Return a change of qvel `[..., nv]` as one of the velocities of a centred state."""
    _, rate = _centres(tree, constants, centre, qpos, change)
    return jnp.asarray(change).at[..., _index(centre, "qvel_index")].add(rate)


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
    skipped = {t.qvel_index for t in centre}
    found = {
        body: _centre(tree, constants, body, skipped, qpos, qvel)
        for body in dict.fromkeys(t.body for t in centre)
    }
    places, speeds = zip(
        *(tuple(x @ jnp.array(t.axis) for x in found[t.body]) for t in centre), strict=True
    )
    return jnp.stack(places, -1), jnp.stack(speeds, -1)


class _Moment(NamedTuple):
    """Mass `[...]` of a subtree, times place and speed `[..., 3]` of its centre in some frame."""

    mass: jax.Array
    place: jax.Array
    speed: jax.Array


def _centre(
    tree: Tree, constants: Constants, root: int, skipped: set[int], qpos: jax.Array, qvel: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return place and speed `[..., 3]` of a subtree's centre, some translations left out.

    From the leaves to the root, each moment in the frame of its own body, then of its parent.
    """
    children: dict[int, list[int]] = {}
    for body, parent in enumerate(tree.parents):
        children.setdefault(parent, []).append(body)

    def carried(body: int) -> _Moment:
        mass = jnp.asarray(constants["mass"])[..., body]
        place = mass[..., None] * constants["centre"][..., body, :]
        parts = [_Moment(mass, place, jnp.zeros_like(place)), *map(carried, children.get(body, []))]
        total = _Moment(*(sum(part[1:], part[0]) for part in zip(*parts, strict=True)))
        for index, (owner, joint) in reversed(list(enumerate(tree.joints))):
            if owner == body and joint.kind == "free":
                return _turned(total, qpos, qvel, joint, offset=3)
            if owner == body:
                total = _jointed(constants, total, index, joint, skipped, qpos, qvel)
        return _fixed(constants, total, body)

    total, body = carried(root), tree.parents[root]
    while body > 0:
        total, body = _fixed(constants, total, body), tree.parents[body]
    return total.place / total.mass[..., None], total.speed / total.mass[..., None]


def _fixed(constants: Constants, moment: _Moment, body: int) -> _Moment:
    """Return a moment in the frame of a body's parent, the body at rest there."""
    turn, position = constants["body_quat"][..., body, :], constants["body_pos"][..., body, :]
    place = rotate(turn, moment.place) + moment.mass[..., None] * position
    return _Moment(moment.mass, place, rotate(turn, moment.speed))


def _jointed(
    constants: Constants,
    moment: _Moment,
    index: int,
    joint: Joint,
    skipped: set[int],
    qpos: jax.Array,
    qvel: jax.Array,
) -> _Moment:
    """Return a moment in the frame before a joint."""
    axis, at = constants["joint_axis"][..., index, :], constants["joint_pos"][..., index, :]
    mass = moment.mass[..., None]
    rest = jnp.asarray(constants["qpos0"])[..., joint.qpos_index, None]
    q, v = (x[..., i, None] for x, i in ((qpos, joint.qpos_index), (qvel, joint.qvel_index)))
    if joint.kind == "slide":
        left_out = joint.qvel_index in skipped
        q, v = (jnp.zeros_like(q), jnp.zeros_like(v)) if left_out else (q, v)
        place, speed = mass * axis * (q - rest), mass * axis * v
        return moment._replace(place=moment.place + place, speed=moment.speed + speed)
    arm = moment._replace(place=moment.place - mass * at)
    if joint.kind == "ball":
        turned = _turned(arm, qpos, qvel, joint, offset=0)
    else:
        sine, cosine = jnp.sin(q - rest), jnp.cos(q - rest)
        moved = arm.speed + v * jnp.cross(axis, arm.place)
        turned = arm._replace(
            place=_about(axis, sine, cosine, arm.place), speed=_about(axis, sine, cosine, moved)
        )
    return turned._replace(place=turned.place + mass * at)


def _about(axis: Array, sine: jax.Array, cosine: jax.Array, vector: jax.Array) -> jax.Array:
    """Turn vectors about an axis (Rodrigues' formula)."""
    along = jnp.sum(axis * vector, -1, keepdims=True)
    return cosine * vector + sine * jnp.cross(axis, vector) + (1.0 - cosine) * along * axis


def _turned(
    moment: _Moment, qpos: jax.Array, qvel: jax.Array, joint: Joint, offset: int
) -> _Moment:
    """Return a moment turned by a quaternion whose rate is a body rate."""
    i, j = joint.qpos_index + offset, joint.qvel_index + offset
    turn, turning = qpos[..., i : i + 4], qvel[..., j : j + 3]
    speed = moment.speed + jnp.cross(turning, moment.place)
    return moment._replace(place=rotate(turn, moment.place), speed=rotate(turn, speed))
