"""State of a plant, and the arithmetic of its configuration manifold.

A configuration `qpos` lives on a product of lines (slide, hinge) and rotation groups (ball, free).
Its tangent space is that of `qvel`, in MuJoCo's frames: a free joint's linear velocity is in the
world frame, every angular velocity in the body frame. Quaternions are MuJoCo's, (w, x, y, z).

All functions are pure jax.numpy and broadcast over leading dimensions.

Reference: Sola, Deray, Atchuthan, "A micro Lie theory for state estimation in robotics", 2018,
equations 25 and 26 (right plus and minus), arXiv:1812.01537.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

Array = Any  # jax.Array or numpy.ndarray: the true plant works in numpy, surrogates in jax
JointKind = Literal["free", "ball", "slide", "hinge"]

POSITION_WIDTH: dict[str, int] = {"free": 7, "ball": 4, "slide": 1, "hinge": 1}
VELOCITY_WIDTH: dict[str, int] = {"free": 6, "ball": 3, "slide": 1, "hinge": 1}


class Joint(NamedTuple):
    """Where one joint sits in qpos and qvel."""

    name: str
    kind: JointKind
    qpos_index: int
    qvel_index: int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Everything the next control period depends on, apart from action and disturbance.

    Attributes:
        qpos: generalised positions `[..., nq]`, m, rad or unit quaternions.
        qvel: generalised velocities `[..., nv]`, m/s or rad/s.
        act: actuator activations `[..., na]`.
        time: seconds since the episode began `[...]`.
        command: what the task asks for `[..., nc]`.
        design: the design vector of the machine `[..., nd]`, in the variables' own units.
    """

    qpos: Array
    qvel: Array
    act: Array
    time: Array
    command: Array
    design: Array

    def replace(self, **changes: Array) -> State:
        """Return a copy with the named fields changed."""
        return replace(self, **changes)

    def __getitem__(self, index: Any) -> State:
        """Index or slice the leading dimensions of every field."""
        return jax.tree.map(lambda x: x[index], self)


def quaternion_multiply(a: Array, b: Array) -> jax.Array:
    """Return the Hamilton product `a * b`, both `[..., 4]`."""
    left, right = (tuple(jnp.moveaxis(jnp.asarray(q), -1, 0)) for q in (a, b))
    return jnp.stack(hamilton_product(left, right), axis=-1)


def hamilton_product(a: tuple[Array, ...], b: tuple[Array, ...]) -> tuple[jax.Array, ...]:
    """Return the components (w, x, y, z) of the product of quaternions given by theirs."""
    (aw, ax, ay, az), (bw, bx, by, bz) = a, b
    return (
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    )


def quaternion_conjugate(q: Array) -> jax.Array:
    """Return the inverse of a unit quaternion `[..., 4]`."""
    return jnp.asarray(q) * jnp.array([1.0, -1.0, -1.0, -1.0])


def rotation_matrix(q: Array) -> jax.Array:
    """Return the matrices `[..., 3, 3]` of unit quaternions `[..., 4]`, body to world frame."""
    entries = rotation_entries(*jnp.moveaxis(jnp.asarray(q), -1, 0))
    return jnp.stack(entries, axis=-1).reshape(*entries[0].shape, 3, 3)


def rotation_entries(w: Array, x: Array, y: Array, z: Array) -> tuple[jax.Array, ...]:
    """Return the nine entries, row by row, of the matrices of unit quaternions."""
    return (
        1.0 - 2.0 * (y * y + z * z),
        2.0 * (x * y - w * z),
        2.0 * (x * z + w * y),
        2.0 * (x * y + w * z),
        1.0 - 2.0 * (x * x + z * z),
        2.0 * (y * z - w * x),
        2.0 * (x * z - w * y),
        2.0 * (y * z + w * x),
        1.0 - 2.0 * (x * x + y * y),
    )


def rotate(q: Array, v: Array) -> jax.Array:
    """Rotate vectors `v [..., 3]` by unit quaternions `q [..., 4]`: body frame to world frame."""
    # A product and a sum, not a matrix product: XLA fuses it, and shares the matrix among calls.
    return jnp.sum(rotation_matrix(q) * jnp.asarray(v)[..., None, :], axis=-1)


def rotate_inverse(q: Array, v: Array) -> jax.Array:
    """Rotate vectors by the inverse of `q`: world frame to body frame."""
    return jnp.sum(rotation_matrix(q) * jnp.asarray(v)[..., :, None], axis=-2)


def quaternion_exp(rotation: Array) -> jax.Array:
    """Return the unit quaternion `[..., 4]` of a rotation vector `[..., 3]` in rad.

    Differentiable at zero: sin(x)/x and cos(x) are functions of x squared there.
    """
    squared = jnp.sum(jnp.square(rotation), axis=-1, keepdims=True)
    small = squared < 1e-6
    angle = jnp.sqrt(jnp.where(small, 1.0, squared))
    half_sinc = jnp.where(small, 0.5 - squared / 48.0, jnp.sin(0.5 * angle) / angle)
    cosine = jnp.where(small, 1.0 - squared / 8.0, jnp.cos(0.5 * angle))
    return jnp.concatenate([cosine, half_sinc * rotation], axis=-1)


def quaternion_log(q: Array) -> jax.Array:
    """Return the rotation vector `[..., 3]`, at most pi long, of unit quaternions `[..., 4]`."""
    q = jnp.where(q[..., :1] < 0.0, -q, q)
    w, u = q[..., :1], q[..., 1:]
    squared = jnp.sum(jnp.square(u), axis=-1, keepdims=True)
    small = squared < 1e-8
    norm = jnp.sqrt(jnp.where(small, 1.0, squared))
    scale = jnp.where(small, 2.0 + squared / 3.0, 2.0 * jnp.arctan2(norm, w) / norm)
    return scale * u


def quaternion_from_axis_angle(axis: Array, angle: Array) -> jax.Array:
    """Return `[..., 4]` for unit axes `[..., 3]` and angles `[...]` in rad."""
    half = 0.5 * jnp.asarray(angle)[..., None]
    return jnp.concatenate([jnp.cos(half), jnp.sin(half) * jnp.asarray(axis)], axis=-1)


def plus(joints: tuple[Joint, ...], qpos: Array, tangent: Array) -> jax.Array:
    """Move a configuration along a tangent vector: `qpos (+) tangent`.

    Args:
        joints: the layout of the configuration.
        qpos: `[..., nq]`.
        tangent: `[..., nv]`, m and rad, a free joint's translation in the world frame.

    Returns:
        The new configuration `[..., nq]`; quaternions come out normalised.
    """
    parts = []
    for joint in joints:
        q = qpos[..., joint.qpos_index : joint.qpos_index + POSITION_WIDTH[joint.kind]]
        d = tangent[..., joint.qvel_index : joint.qvel_index + VELOCITY_WIDTH[joint.kind]]
        if joint.kind in ("slide", "hinge"):
            parts.append(q + d)
            continue
        if joint.kind == "free":
            parts.append(q[..., :3] + d[..., :3])
            q, d = q[..., 3:], d[..., 3:]
        turned = quaternion_multiply(q, quaternion_exp(d))
        parts.append(turned / jnp.linalg.norm(turned, axis=-1, keepdims=True))
    return jnp.concatenate(parts, axis=-1)


def minus(joints: tuple[Joint, ...], to: Array, start: Array) -> jax.Array:
    """Return the tangent vector `[..., nv]` that leads from `start` to `to`, both `[..., nq]`."""
    parts = []
    for joint in joints:
        index = slice(joint.qpos_index, joint.qpos_index + POSITION_WIDTH[joint.kind])
        b, a = to[..., index], start[..., index]
        if joint.kind in ("slide", "hinge"):
            parts.append(b - a)
            continue
        if joint.kind == "free":
            parts.append(b[..., :3] - a[..., :3])
            b, a = b[..., 3:], a[..., 3:]
        parts.append(quaternion_log(quaternion_multiply(quaternion_conjugate(a), b)))
    return jnp.concatenate(parts, axis=-1)


def difference(joints: tuple[Joint, ...], to: State, start: State) -> jax.Array:
    """Return `to (-) start` as one vector `[..., 2 nv + na]`: position, velocity, activation."""
    return jnp.concatenate(
        [
            minus(joints, to.qpos, start.qpos),
            jnp.asarray(to.qvel) - start.qvel,
            jnp.asarray(to.act) - start.act,
        ],
        axis=-1,
    )
