"""State of a plant, and the arithmetic of its configuration manifold.

A configuration `qpos` lives on a product of lines (slide, hinge) and rotation groups (ball, free).
Its tangent space is that of `qvel`, in MuJoCo's frames: a free joint's linear velocity is in the
world frame, every angular velocity in the body frame. Quaternions are MuJoCo's, (w, x, y, z).

All functions are pure jax.numpy and broadcast over leading dimensions. Inside, components come
first: sums then run along contiguous memory, which XLA makes four times as fast on a CPU.

Reference: Sola, Deray, Atchuthan, "A micro Lie theory for state estimation in robotics", 2018,
equations 25 and 26 (right plus and minus), arXiv:1812.01537.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
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


def components(array: Array) -> jax.Array:
    """Return `[..., k]` as `[k, ...]`."""
    return jnp.moveaxis(jnp.asarray(array), -1, 0)


def together(*parts: jax.Array) -> jax.Array:
    """Return components, `[k, ...]` each, as one array `[..., sum of k]`."""
    return last(jnp.concatenate(parts))


def last(rows: jax.Array) -> jax.Array:
    """Return `[k, ...]` as `[..., k]`."""
    return jnp.moveaxis(rows, 0, -1)


def _components_of_both(a: Array, b: Array) -> tuple[jax.Array, jax.Array]:
    """Return the components of arrays whose leading dimensions broadcast."""
    lead = jnp.broadcast_shapes(jnp.shape(a)[:-1], jnp.shape(b)[:-1])
    first, second = (components(jnp.broadcast_to(x, (*lead, jnp.shape(x)[-1]))) for x in (a, b))
    return first, second


def picked(rows: jax.Array, index: Sequence[int]) -> jax.Array:
    """Return the rows of `[k, ...]` at these places."""
    return jnp.concatenate([rows[i:end] for i, end in _runs(index)])


def replaced(rows: jax.Array, index: Sequence[int], by: jax.Array) -> jax.Array:
    """Return `[k, ...]` with other rows at these places, which are in ascending order."""
    parts, done, used = [], 0, 0
    for i, end in _runs(index):
        parts += [rows[done:i], by[used : used + end - i]]
        done, used = end, used + end - i
    return jnp.concatenate([*parts, rows[done:]])


def _runs(index: Sequence[int]) -> list[tuple[int, int]]:
    """Return where neighbouring places begin and end."""
    found: list[tuple[int, int]] = []
    for i in map(int, index):
        if found and found[-1][1] == i:
            found[-1] = (found[-1][0], i + 1)
        else:
            found.append((i, i + 1))
    return found


def quaternion_multiply(a: Array, b: Array) -> jax.Array:
    """Return the Hamilton product `a * b`, both `[..., 4]`."""
    return together(jnp.stack(hamilton_product(tuple(components(a)), tuple(components(b)))))


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
    entries = rotation_entries(*components(q))
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
    m, (x, y, z) = rotation_entries(*components(q)), components(v)
    turned = (m[i] * x + m[i + 1] * y + m[i + 2] * z for i in (0, 3, 6))
    return together(jnp.stack(tuple(turned)))


def rotate_inverse(q: Array, v: Array) -> jax.Array:
    """Rotate vectors by the inverse of `q`: world frame to body frame."""
    m, (x, y, z) = rotation_entries(*components(q)), components(v)
    turned = (m[i] * x + m[i + 3] * y + m[i + 6] * z for i in (0, 1, 2))
    return together(jnp.stack(tuple(turned)))


def quaternion_exp(rotation: Array) -> jax.Array:
    """Return the unit quaternion `[..., 4]` of a rotation vector `[..., 3]` in rad.

    Differentiable at zero: sin(x)/x and cos(x) are functions of x squared there.
    """
    rows = components(rotation)
    squared = jnp.sum(jnp.square(rows), axis=0, keepdims=True)
    small = squared < 1e-6
    angle = jnp.sqrt(jnp.where(small, 1.0, squared))
    half_sinc = jnp.where(small, 0.5 - squared / 48.0, jnp.sin(0.5 * angle) / angle)
    cosine = jnp.where(small, 1.0 - squared / 8.0, jnp.cos(0.5 * angle))
    return together(cosine, half_sinc * rows)


def quaternion_log(q: Array) -> jax.Array:
    """Return the rotation vector `[..., 3]`, at most pi long, of unit quaternions `[..., 4]`."""
    rows = components(q)
    w, u = jnp.split(jnp.where(rows[:1] < 0.0, -rows, rows), [1])
    squared = jnp.sum(jnp.square(u), axis=0, keepdims=True)
    small = squared < 1e-8
    norm = jnp.sqrt(jnp.where(small, 1.0, squared))
    scale = jnp.where(small, 2.0 + squared / 3.0, 2.0 * jnp.arctan2(norm, w) / norm)
    return together(scale * u)


def quaternion_from_axis_angle(axis: Array, angle: Array) -> jax.Array:
    """Return `[..., 4]` for unit axes `[..., 3]` and angles `[...]` in rad."""
    half = 0.5 * jnp.asarray(angle)[..., None]
    return jnp.concatenate([jnp.cos(half), jnp.sin(half) * jnp.asarray(axis)], axis=-1)


@lru_cache(maxsize=64)
def _parts(joints: tuple[Joint, ...]) -> tuple[tuple[str, slice, slice], ...]:
    """Return lines, as many at once as lie side by side, and rotations: where in qpos and qvel."""
    found: list[tuple[str, slice, slice]] = []
    for joint in joints:
        at, along = joint.qpos_index, joint.qvel_index
        lines = {"free": 3, "ball": 0}.get(joint.kind, 1)
        if lines and found and found[-1][0] == "line":
            _, before, under = found.pop()
            found.append(
                ("line", slice(before.start, at + lines), slice(under.start, along + lines))
            )
        elif lines:
            found.append(("line", slice(at, at + lines), slice(along, along + lines)))
        if joint.kind in ("free", "ball"):
            at, along = at + lines, along + lines
            found.append(("rotation", slice(at, at + 4), slice(along, along + 3)))
    return tuple(found)


def plus(joints: tuple[Joint, ...], qpos: Array, tangent: Array) -> jax.Array:
    """Move a configuration along a tangent vector: `qpos (+) tangent`.

    Args:
        joints: the layout of the configuration.
        qpos: `[..., nq]`.
        tangent: `[..., nv]`, m and rad, a free joint's translation in the world frame.

    Returns:
        The new configuration `[..., nq]`; quaternions come out normalised.
    """
    q, d = _components_of_both(qpos, tangent)
    parts = []
    for kind, at, along in _parts(joints):
        if kind == "line":
            parts.append(q[at] + d[along])
        else:
            turned = components(quaternion_multiply(last(q[at]), quaternion_exp(last(d[along]))))
            parts.append(turned / jnp.sqrt(jnp.sum(jnp.square(turned), axis=0, keepdims=True)))
    return together(*parts)


def minus(joints: tuple[Joint, ...], to: Array, start: Array) -> jax.Array:
    """Return the tangent vector `[..., nv]` that leads from `start` to `to`, both `[..., nq]`."""
    b, a = _components_of_both(to, start)
    parts = []
    for kind, at, _ in _parts(joints):
        if kind == "line":
            parts.append(b[at] - a[at])
        else:
            apart = quaternion_multiply(quaternion_conjugate(last(a[at])), last(b[at]))
            parts.append(components(quaternion_log(apart)))
    return together(*parts)


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
