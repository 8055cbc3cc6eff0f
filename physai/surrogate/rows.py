"""Algebra on many bodies and many states at once, the batch along the last axis.

A number of n bodies is an array `[n, B]`, a vector a tuple of three such, a screw (motion or force)
one of six: the turning part, then the moving one. Sums and products of them run along contiguous
memory, whatever the machine, and XLA fuses them; sums along a tree of bodies are products with 0-1
matrices. In place of B stands 1 where a number does not depend on the state.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from physai.state import rotation_entries

Rows = jax.Array
"""`[n, B]`"""
Several = tuple[Rows, ...]
"""Of a vector 3, of a quaternion 4, of a screw 6, of a matrix 9 by rows."""


def split(array: jax.Array) -> Several:
    """Return the components of `[n, k, B]`."""
    # Not by slices: a gradient would add up as many padded arrays.
    return tuple(part[:, 0] for part in jnp.split(array, array.shape[1], axis=1))


def pick(indices: Sequence[int], *components: Rows) -> Several:
    """Return rows by index."""
    chosen, count = list(indices), len(components[0])
    if chosen == list(range(count)):
        return components
    first, end = chosen[0], chosen[0] + len(chosen)
    if chosen == list(range(first, end)):
        return tuple(jnp.split(rows, [first, end])[1] for rows in components)
    return total(np.eye(count)[chosen], *components)


def total(matrix: np.ndarray, *components: Rows) -> Several:
    """Return sums of rows: `matrix [m, n]` times each component `[n, B]`, in one product."""
    return tuple(jnp.asarray(matrix, rows.dtype) @ rows for rows in components)


def apply(matrix: jax.Array, rows: Rows) -> Rows:
    """Return `[m, B]`, `matrix [m, n, B or 1]` times rows `[n, B]`."""
    if matrix.shape[-1] == 1:
        return matrix[..., 0] @ rows
    return jnp.sum(matrix * rows, axis=1)


def held(components: Several) -> Several:
    """Return the same, computed once.

    XLA on a CPU computes sums and products anew in everything that they enter, and their number
    then grows with each step. It does not do so with divisions.
    """
    ones = {x.shape: jnp.ones(x.shape, x.dtype) for x in components}
    ones = jax.lax.optimization_barrier(ones)
    return tuple(x / ones[x.shape] for x in components)


def plus(a: Several, b: Several) -> Several:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def scaled(by: Rows | np.ndarray | float, a: Several) -> Several:
    return tuple(jnp.asarray(by * x) for x in a)


def dot(a: Several, b: Several) -> Rows:
    found = a[0] * b[0]
    for x, y in zip(a[1:], b[1:], strict=True):
        found = found + x * y
    return found


def cross(a: Several, b: Several) -> Several:
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )


def cross_motion(v: Several, m: Several) -> Several:
    """Return the rate of motions m carried along by motions v."""
    return (*cross(v[:3], m[:3]), *plus(cross(v[:3], m[3:]), cross(v[3:], m[:3])))


def cross_force(v: Several, f: Several) -> Several:
    """Return the rate of forces (torque, force) f carried along by motions v."""
    return (*plus(cross(v[:3], f[:3]), cross(v[3:], f[3:])), *cross(v[:3], f[3:]))


def matrix(q: Several) -> Several:
    """Return rotation matrices of unit quaternions, body to world frame."""
    return rotation_entries(*q)


def turned(m: Several, v: Several) -> Several:
    """Return vectors turned by rotation matrices."""
    return tuple(dot(m[3 * i : 3 * i + 3], v) for i in range(3))


def factor(columns: Sequence[Rows], descendants: Sequence[tuple[int, ...]]) -> list[Rows]:
    """Factorise symmetric matrices U U' from the last column on.

    A column is touched by those of its descendants in the tree alone, so that no zero fills
    (Featherstone 2008, section 6.5, doi:10.1007/978-1-4899-7560-7).

    Args:
        columns: of every index k, rows 0 to k of its column `[k + 1, B]`, 0 for all but its
            ancestors and itself.
        descendants: of every index.

    Returns:
        Of every column of U rows 0 to k `[k + 1, B]`.
    """
    found = list(columns)
    for k in range(len(columns) - 1, -1, -1):
        column = columns[k]
        for m in descendants[k]:
            column = column - found[m][: k + 1] * found[m][k]
        found[k] = column / jnp.sqrt(column[k])
    return found


def solve(factors: list[Rows], ancestors: Sequence[tuple[int, ...]], right: Rows) -> Rows:
    """Return the solution `[n, B]` of the factorised equations for `right [n, B]`."""
    rest = list(right)
    for k in range(len(rest) - 1, -1, -1):
        rest[k] = rest[k] / factors[k][k]
        for i in ancestors[k]:
            rest[i] = rest[i] - factors[k][i] * rest[k]
    for k, column in enumerate(factors):
        for i in ancestors[k]:
            rest[k] = rest[k] - column[i] * rest[i]
        rest[k] = rest[k] / column[k]
    return jnp.stack(rest)
