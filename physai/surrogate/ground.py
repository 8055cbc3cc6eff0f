"""How near a machine is to the ground: distances that contact forces follow from.

A contact pushes only from where it is reached, a kink in coordinates that no network has as its
inputs: the height of a foot is a sum of products of sines along the leg. Of every ball of a body
(`physai.surrogate.balls`) at distance d from a plane of the world, and its rate d', inputs are
therefore how deep it is in the plane, and how deep it would be at the end of the control period h
if nothing held it back,

    max(0, -d),      max(0, -(d + h d')),

and the velocity at which it would slide along the plane.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from physai.state import State
from physai.surrogate.balls import Contact
from physai.surrogate.frames import frames
from physai.surrogate.known import Known
from physai.surrogate.rigid import ready
from physai.surrogate.rows import cross, dot, pick, plus, scaled, split, total, turned
from physai.surrogate.tree import dofs_of

TOUCHED = 1e-3
"""Share of the recorded states above which a contact is an input."""


class Approach(NamedTuple):
    """How balls come near planes.

    Attributes:
        distance: `[n, ...]`, m, negative inside the plane.
        rate: of the distance `[n, ...]`, m/s.
        slide: velocity along the plane, in the world's frame `[n, 3, ...]`, m/s.
    """

    distance: jax.Array
    rate: jax.Array
    slide: jax.Array


def touched(known: Known, contacts: tuple[Contact, ...], states: State) -> tuple[Contact, ...]:
    """Return the contacts that at least `TOUCHED` of the states `[n]` are in."""
    if not contacts:
        return ()
    reached = jnp.mean(_distance(known, contacts, states) < 0.0, axis=1)
    return tuple(c for c, share in zip(contacts, reached.tolist(), strict=True) if share >= TOUCHED)


@partial(jax.jit, static_argnums=1)
def _distance(known: Known, contacts: tuple[Contact, ...], states: State) -> jax.Array:
    return approach(known, contacts, states).distance


def approach(known: Known, contacts: tuple[Contact, ...], state: State) -> Approach:
    """Return how balls come near planes in states `[...]`, which come last in what is returned."""
    qpos, qvel = jnp.asarray(state.qpos), jnp.asarray(state.qvel)
    lead, tree = qvel.shape[:-1], known.tree
    numbers = ready(tree, known.at(state.design))
    q, v = (x.reshape(-1, x.shape[-1]).T for x in (qpos, qvel))
    now = frames(tree, numbers.links, q)
    bodies, chosen = [c.body for c in contacts], [c.ball for c in contacts]
    screw = total(dofs_of(tree).path[bodies], *scaled(v, now.axes))
    own = pick(chosen, *split(numbers.constants["ball_place"]))
    at = plus(pick(bodies, *now.position), turned(pick(bodies, *now.matrix), own))
    velocity = plus(screw[3:], cross(screw[:3], at))
    normal = tuple(jnp.array([[c.normal[k]] for c in contacts]) for k in range(3))
    (radius,) = pick(chosen, numbers.constants["ball_radius"])
    # Places are from a point near the machine; the world's frame is the first body's.
    above = tuple(a - position[:1] for a, position in zip(at, now.position, strict=True))
    height = jnp.array([[c.height] for c in contacts])
    rate = dot(normal, velocity)
    along = (x - rate * n for x, n in zip(velocity, normal, strict=True))
    distance = dot(normal, above) - height - radius
    rows = (distance, rate, jnp.stack(tuple(along), axis=1))
    return Approach(*(x.reshape(*x.shape[:-1], *lead) for x in rows))
