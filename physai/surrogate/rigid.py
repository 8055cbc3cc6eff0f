"""Smooth rigid-body dynamics of an MJCF model in JAX: what is known before anything is learned.

For a tree of bodies with joint axes S (motion vectors about one common point), velocities v and
accelerations a,

    M(q) a + c(q, v) = tau,     M_ij = S_i . Ic_i S_j,     c_i = S_i . sum over the subtree of
                                                                 (I_b A_b + V_b x* I_b V_b)

where Ic is the composite inertia of a subtree, V_b = sum S_j v_j over the path to body b, and
A_b = -g + sum Sdot_j v_j. tau holds linear joint springs and dampers, and actuators with a fixed or
affine gain on a joint, a fixed tendon or a site, and fixed tendons' springs and dampers. Contacts,
limits, friction, equality constraints, fluids and whatever else a model may have are left out.

Reference: Featherstone, "Rigid Body Dynamics Algorithms", 2008, sections 5.3 (recursive
Newton-Euler) and 6.2 (composite rigid bodies), doi:10.1007/978-1-4899-7560-7.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physai.state import (
    Array,
    Joint,
    quaternion_from_axis_angle,
    quaternion_multiply,
    rotate,
    rotation_matrix,
)

Constants = dict[str, Any]
"""Numbers of a model by name, `physai.surrogate.known` reads them from MuJoCo."""


class Actuator(NamedTuple):
    """One actuator whose force is known.

    Attributes:
        channel: index into the concatenated actions and disturbances.
        activation: index into act, -1 for none.
        body: of the site that it pushes, -1 where it drives joints.
        fixed: the direction in which it pushes a site is the world's, not the body's.
    """

    channel: int
    activation: int
    body: int
    fixed: bool


@dataclass(frozen=True)
class Tree:
    """How bodies, joints and actuators hang together; static under jit.

    Attributes:
        parents: of every body; body 0 is the world.
        joints: of every joint, in order of the degrees of freedom: its body and where it sits.
        actuators: those whose force is known.
    """

    parents: tuple[int, ...]
    joints: tuple[tuple[int, Joint], ...]
    actuators: tuple[Actuator, ...]

    @property
    def nv(self) -> int:
        """Number of degrees of freedom."""
        return sum(_DOFS[joint.kind] for _, joint in self.joints)


_FORCE, _TORQUE = slice(0, 3), slice(3, 6)  # of an actuator's gear
_DOFS = {"free": 6, "ball": 3, "slide": 1, "hinge": 1}


class Motion(NamedTuple):
    """Where everything is: of bodies and of degrees of freedom, about one common point.

    Attributes:
        position: `[..., nb, 3]`, of the bodies' frames from the common point.
        matrix: `[..., nb, 3, 3]`, bodies' frames to world.
        axes: `[..., nv, 6]`, velocity (angular, then of the common point) by unit of qvel.
    """

    position: jax.Array
    matrix: jax.Array
    axes: jax.Array


def acceleration(
    tree: Tree,
    constants: Constants,
    qpos: Array,
    qvel: Array,
    act: Array,
    control: Array,
    ahead: Array = 0.0,
) -> jax.Array:
    """Return the smooth acceleration `[..., nv]`, in the frames of qvel.

    Args:
        tree: of the plant.
        constants: of the design; arrays with the state's leading dimensions or none before theirs.
        qpos: `[..., nq]`.
        qvel: `[..., nv]`.
        act: activations `[..., na]`.
        control: actions and disturbances `[..., nu + nw]`.
        ahead: s that have passed since activations were as given, while control was held.
    """
    now = kinematics(tree, constants, qpos)
    matrix, rest = equations(tree, constants, now, qvel)
    tau = _springs(tree, constants, qpos, qvel)
    tau = tau + _actuation(tree, constants, now, (qpos, qvel, act, control), ahead)
    factor = jax.scipy.linalg.cho_factor(matrix)
    return jax.scipy.linalg.cho_solve(factor, (tau - rest)[..., None])[..., 0]


def kinematics(tree: Tree, constants: Constants, qpos: Array) -> Motion:
    """Place all bodies and joint axes, MuJoCo's way."""
    qpos = jnp.asarray(qpos)
    lead = qpos.shape[:-1]
    positions = [jnp.zeros((*lead, 3))]
    turns = [jnp.broadcast_to(jnp.array([1.0, 0.0, 0.0, 0.0]), (*lead, 4))]
    axes: list[tuple[Any, Any]] = []  # direction, and the anchor of a rotation or None
    zero = jnp.zeros((*lead, 3))
    for body, parent in enumerate(tree.parents):
        if body == 0:
            continue
        position = positions[parent] + rotate(turns[parent], constants["body_pos"][..., body, :])
        turn = quaternion_multiply(turns[parent], constants["body_quat"][..., body, :])
        for index, (owner, joint) in enumerate(tree.joints):
            if owner != body:
                continue
            q = qpos[..., joint.qpos_index :]
            if joint.kind == "free":
                position, turn = q[..., :3], q[..., 3:7]
                columns = jnp.moveaxis(rotation_matrix(turn), -1, 0)
                axes += [(jnp.broadcast_to(e, (*lead, 3)), None) for e in jnp.eye(3)]
                axes += [(column, position) for column in columns]
                continue
            offset = constants["joint_pos"][..., index, :]
            anchor = position + rotate(turn, offset)
            direction = rotate(turn, constants["joint_axis"][..., index, :])
            moved = q[..., 0] - constants["qpos0"][..., joint.qpos_index]
            if joint.kind == "slide":
                position = position + direction * moved[..., None]
                axes.append((direction, None))
                continue
            by = (
                q[..., :4]
                if joint.kind == "ball"
                else quaternion_from_axis_angle(constants["joint_axis"][..., index, :], moved)
            )
            turn = quaternion_multiply(turn, by)
            position = anchor - rotate(turn, offset)
            columns = jnp.moveaxis(rotation_matrix(turn), -1, 0)
            directions = columns if joint.kind == "ball" else [direction]
            axes += [(d, anchor) for d in directions]
        positions.append(position)
        turns.append(turn)
    # Near the machine, so that its distance from the origin costs no digits.
    point = positions[1]
    screws = [
        jnp.concatenate([zero, d] if anchor is None else [d, jnp.cross(d, point - anchor)], -1)
        for d, anchor in axes
    ]
    return Motion(
        jnp.stack([p - point for p in positions], -2),
        jnp.stack([rotation_matrix(q) for q in turns], -3),
        jnp.stack(screws, -2),
    )


def equations(
    tree: Tree, constants: Constants, now: Motion, qvel: Array
) -> tuple[jax.Array, jax.Array]:
    """Return the joint-space inertia `[..., nv, nv]` and the bias force c `[..., nv]`."""
    path, before, below, owner = _structure(tree)
    motion = now.axes * jnp.asarray(qvel)[..., None]
    velocity = jnp.einsum("bi,...ik->...bk", path, motion)
    passing = jnp.einsum("ij,...jk->...ik", before, motion)
    drift = jnp.einsum("bi,...ik->...bk", path, _cross_motion(passing, motion))
    gravity = jnp.asarray(constants["gravity"])
    fall = jnp.concatenate([jnp.zeros_like(gravity), -gravity], -1)[..., None, :]
    inertia = _inertias(constants, now)
    force = _times(inertia, drift + fall)
    force += _cross_force(velocity, _times(inertia, velocity))
    carried = jnp.einsum("ib,...bk->...ik", below[owner], force)
    mass, moment, second = inertia
    composite = (
        jnp.einsum("ib,...b->...i", below[owner], mass),
        jnp.einsum("ib,...bk->...ik", below[owner], moment),
        jnp.einsum("ib,...bkl->...ikl", below[owner], second),
    )
    lower = jnp.einsum("...ik,...jk->...ij", _times(composite, now.axes), now.axes)
    # Row i holds the products with the degrees of freedom above i; the rest follows by symmetry.
    above = path[owner] * np.tri(tree.nv)
    lower = lower * above
    diagonal = jnp.eye(tree.nv) * constants["armature"][..., None]
    matrix = lower + jnp.swapaxes(lower * np.tri(tree.nv, k=-1), -1, -2) + diagonal
    return matrix, jnp.sum(now.axes * carried, axis=-1)


@lru_cache(maxsize=32)
def _structure(tree: Tree) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return how motions and forces add up along the tree, as 0-1 matrices.

    Returns:
        path: `[nb, nv]`, the degrees of freedom that move a body.
        before: `[nv, nv]`, those whose motion turns the axis of a degree of freedom.
        below: `[nb, nb]`, the bodies of each body's subtree.
        owner: `[nv]`, the body of a degree of freedom.
    """
    nb, nv = len(tree.parents), tree.nv
    path, before, below = np.zeros((nb, nv)), np.zeros((nv, nv)), np.eye(nb)
    owner = np.zeros(nv, int)
    for body, parent in enumerate(tree.parents):
        path[body] = path[parent]
        for joint in (joint for where, joint in tree.joints if where == body):
            first, last = joint.qvel_index, joint.qvel_index + _DOFS[joint.kind]
            # A free translation is seen from the world; a rotation turns with all before it.
            turning = last - 3 if joint.kind == "free" else first
            path[body, first:turning] = 1.0
            before[turning:last] = path[body]
            path[body, first:last] = 1.0
            owner[first:last] = body
    for body in range(nb - 1, 0, -1):
        below[tree.parents[body]] += below[body]
    return path, before, below, owner


def _inertias(constants: Constants, now: Motion) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return mass `[..., nb]`, first moment and second moment of bodies about the common point."""
    mass = jnp.asarray(constants["mass"])
    centre = now.position + jnp.einsum("...bij,...bj->...bi", now.matrix, constants["centre"])
    own = jnp.einsum("...bij,...bjk,...blk->...bil", now.matrix, constants["inertia"], now.matrix)
    square = jnp.sum(centre * centre, -1)[..., None, None] * jnp.eye(3)
    shifted = square - centre[..., :, None] * centre[..., None, :]
    mass = jnp.broadcast_to(mass, centre.shape[:-1])
    return mass, mass[..., None] * centre, own + mass[..., None, None] * shifted


def _times(inertia: tuple[jax.Array, jax.Array, jax.Array], motion: jax.Array) -> jax.Array:
    mass, moment, second = inertia
    turning, moving = motion[..., :3], motion[..., 3:]
    torque = jnp.einsum("...ij,...j->...i", second, turning) + jnp.cross(moment, moving)
    return jnp.concatenate([torque, mass[..., None] * moving - jnp.cross(moment, turning)], -1)


def _cross_motion(velocity: jax.Array, motion: jax.Array) -> jax.Array:
    w, u, a, b = velocity[..., :3], velocity[..., 3:], motion[..., :3], motion[..., 3:]
    return jnp.concatenate([jnp.cross(w, a), jnp.cross(w, b) + jnp.cross(u, a)], -1)


def _cross_force(velocity: jax.Array, force: jax.Array) -> jax.Array:
    w, u, t, f = velocity[..., :3], velocity[..., 3:], force[..., :3], force[..., 3:]
    return jnp.concatenate([jnp.cross(w, t) + jnp.cross(u, f), jnp.cross(w, f)], -1)


def _coordinates(tree: Tree, values: Array) -> jax.Array:
    """Return what `[..., nq]` holds of hinges and slides by degree of freedom, 0 elsewhere."""
    chosen = np.zeros(tree.nv, int)
    single = np.zeros(tree.nv)
    for _, joint in tree.joints:
        if joint.kind in ("hinge", "slide"):
            chosen[joint.qvel_index], single[joint.qvel_index] = joint.qpos_index, 1.0
    return jnp.asarray(values)[..., chosen] * single


def _springs(tree: Tree, constants: Constants, qpos: Array, qvel: Array) -> jax.Array:
    coordinates = _coordinates(tree, qpos)
    stretched = coordinates - _coordinates(tree, constants["spring"])
    force = -constants["stiffness"] * stretched - constants["damping"] * qvel
    moment = constants["tendon_moment"]
    length, speed = (jnp.einsum("...ti,...i->...t", moment, x) for x in (coordinates, qvel))
    slack = jnp.clip(length, constants["tendon_low"], constants["tendon_high"])
    pull = constants["tendon_stiffness"] * (slack - length) - constants["tendon_damping"] * speed
    return force + jnp.einsum("...ti,...t->...i", moment, pull)


def _actuation(
    tree: Tree,
    constants: Constants,
    now: Motion,
    state: tuple[Array, Array, Array, Array],
    ahead: Array,
) -> jax.Array:
    qpos, qvel, act, control = state
    total = jnp.zeros_like(jnp.asarray(qvel))
    if not tree.actuators:
        return total
    path = _structure(tree)[0]
    coordinates = _coordinates(tree, qpos)
    for i, actuator in enumerate(tree.actuators):
        moment = constants["moment"][..., i, :]
        if actuator.body >= 0:
            moment = _site_moment(constants, now, path[actuator.body], i, actuator)
        length = jnp.sum(constants["moment"][..., i, :] * coordinates, -1)
        speed = jnp.sum(moment * qvel, -1)
        u = control[..., actuator.channel]
        if actuator.activation >= 0:
            lag = constants["lag"][..., i]
            left = jnp.where(lag > 0.0, jnp.exp(-ahead / jnp.where(lag > 0.0, lag, 1.0)), 1.0)
            u = u + (act[..., actuator.activation] - u) * left
        gain, bias = constants["gain"][..., i, :], constants["bias"][..., i, :]
        force = gain[..., 0] + gain[..., 1] * length + gain[..., 2] * speed
        force = force * u + bias[..., 0] + bias[..., 1] * length + bias[..., 2] * speed
        force = jnp.clip(force, constants["force_low"][..., i], constants["force_high"][..., i])
        total = total + moment * force[..., None]
    return total


def _site_moment(
    constants: Constants, now: Motion, path: np.ndarray, index: int, actuator: Actuator
) -> jax.Array:
    """Return the generalised force `[..., nv]` of an actuator's unit wrench on a site."""
    frame = now.matrix[..., actuator.body, :, :]
    turn = rotation_matrix(constants["site_quat"][..., index, :])
    turn = turn if actuator.fixed else frame @ turn
    gear = constants["gear"][..., index, :]
    force, torque = ((turn @ gear[..., part, None])[..., 0] for part in (_FORCE, _TORQUE))
    place = (frame @ constants["site_pos"][..., index, :, None])[..., 0]
    at = now.position[..., actuator.body, :] + place
    force = jnp.broadcast_to(force, at.shape)
    wrench = jnp.concatenate([torque + jnp.cross(at, force), force], -1)
    return jnp.asarray(path) * jnp.einsum("...ik,...k->...i", now.axes, wrench)
