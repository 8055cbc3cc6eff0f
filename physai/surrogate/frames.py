"""Where bodies are and how joints move them, MuJoCo's way, for all bodies of a tree at once.

A link (`physai.surrogate.tree`) is turned by Q = Q' f b and stands at p = p' + R' o - R c, where
Q', R', p' are of the link that carries it, f and o what lies between the two, b what its joint
turned, and c where the joint sits. Quaternions are multiplied from the world outwards, a level of
links after the other; everything else is one operation for all.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physai.state import hamilton_product
from physai.surrogate.rows import (
    Rows,
    Several,
    cross,
    held,
    matrix,
    pick,
    plus,
    scaled,
    split,
    total,
    turned,
)
from physai.surrogate.tree import Constants, Tree, dofs_of, links_of, picks


class Fixed(NamedTuple):
    """What of the links does not depend on the state; the last dimension is 1 or the batch's.

    Attributes:
        between: quaternions f of links.
        offset: vectors o of links, without what slides add.
        slide: vectors by which a unit of a slide moves a link, seen from the one that carries it.
        seat: vectors c of links, 0 for slides.
        axis: vectors of joints by link, seen from the link.
        rest: hinges' and slides' coordinates at which nothing is moved `[n, 1]`.
        direction: vectors of joints by degree of freedom, seen from the link.
    """

    between: Several
    offset: Several
    slide: Several
    seat: Several
    axis: Several
    rest: Rows
    direction: Several


class Frames(NamedTuple):
    """Where everything is.

    Attributes:
        position: of bodies' frames from a common point near the machine, vectors `[nb, B]`.
        matrix: bodies' frames to world `[nb, B]`.
        axes: velocity (angular, then of the common point) by unit of qvel, screws `[nv, B]`.
    """

    position: Several
    matrix: Several
    axes: Several


def fixed(tree: Tree, constants: Constants) -> Fixed:
    """Return what of the links depends on the design alone.

    Args:
        tree: of the plant.
        constants: of the design, the batch or 1 last.
    """
    links, dofs = links_of(tree), dofs_of(tree)
    first, hinge, slide = links.first, links.are("hinge"), links.are("slide")
    of_link, of_dof = links.joint.tolist(), dofs.joint.tolist()
    joint_axis, joint_pos = split(constants["joint_axis"]), split(constants["joint_pos"])
    axis = scaled(hinge + slide, _of(of_link, joint_axis, len(links.body)))
    seat = scaled(links.are("hinge", "ball"), _of(of_link, joint_pos, len(links.body)))
    rest = total(picks(tree)["link"], constants["qpos0"])[0]
    unit = jnp.array([1.0, 0.0, 0.0, 0.0])[:, None, None]
    between = tuple(
        first * q + (1.0 - first) * one
        for q, one in zip(
            pick(links.body.tolist(), *split(constants["body_quat"])), unit, strict=True
        )
    )
    turn = matrix(between)
    offset = scaled(first, pick(links.body.tolist(), *split(constants["body_pos"])))
    own = scaled(dofs.single, pick(of_dof, *joint_axis))
    return Fixed(
        between,
        plus(offset, turned(turn, seat)),
        scaled(slide, turned(turn, axis)),
        seat,
        scaled(hinge, axis),
        rest,
        plus(own, split(jnp.asarray(dofs.unit, jnp.float32))),
    )


def _of(indices: list[int], rows: Several, count: int) -> Several:
    """Return joints' rows by link, 0 for a machine without joints."""
    if len(rows[0]):
        return pick(indices, *rows)
    return tuple(jnp.zeros((count, 1)) for _ in rows)


def frames(tree: Tree, fixed: Fixed, qpos: jax.Array) -> Frames:
    """Place all bodies and joint axes at `qpos [nq, B]`."""
    links, dofs, chosen = links_of(tree), dofs_of(tree), picks(tree)
    moved = total(chosen["link"], qpos)[0] - fixed.rest
    turns = _turns(tree, fixed, qpos, moved)
    seat = held(turned(matrix(turns), fixed.seat))
    carrier = matrix(pick(links.before.tolist(), *turns))
    reach = turned(carrier, plus(fixed.offset, scaled(moved, fixed.slide)))
    if links.are("free").any():
        reach = plus(reach, tuple(total(rows, qpos)[0] for rows in chosen["place"]))
    step = tuple(a - b for a, b in zip(reach, seat, strict=True))
    anchor = plus(total(links.sums[dofs.link], *step), pick(dofs.link.tolist(), *seat))
    direction = held(turned(matrix(pick(dofs.frame.tolist(), *turns)), fixed.direction))
    turning = scaled(dofs.turning.astype(np.float32), direction)
    moving = scaled((1.0 - dofs.turning).astype(np.float32), direction)
    return Frames(
        total(links.sums[links.of_body], *step),
        held(matrix(pick(links.of_body.tolist(), *turns))),
        held((*turning, *plus(moving, cross(anchor, turning)))),
    )


def _turns(tree: Tree, fixed: Fixed, qpos: jax.Array, moved: Rows) -> Several:
    """Return quaternions of links."""
    links = links_of(tree)
    half = 0.5 * links.are("hinge") * moved
    cosine, sine = held((jnp.cos(half), jnp.sin(half)))
    joint = (cosine, *scaled(sine, fixed.axis))
    if links.are("free", "ball").any():
        picked = total(picks(tree)["turn"].reshape(-1, tree.nq), qpos)[0]
        still = 1.0 - links.are("free", "ball")
        joint = plus((cosine * still, *joint[1:]), tuple(jnp.split(picked, 4)))
    turns, carrier = held(hamilton_product(fixed.between, joint)), links.before
    # Of twice as many links on the way from the world each time. The world carries itself.
    while carrier.any():
        turns = held(hamilton_product(total(np.eye(len(carrier))[carrier], *turns), turns))
        carrier = carrier[carrier]
    return turns
