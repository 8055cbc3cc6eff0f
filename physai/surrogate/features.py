"""What a surrogate predicts, and of what it is made: the layout of a machine, and targets.

For one control period h the network predicts, per degree of freedom, the change of velocity and the
residual of a trapezoidal position update, both in the body frame of a free joint,

    dv = R^T (v' - v),      dq = R^T (q' (-) q) - h (u + dv / 2),     u = R^T v

and the change of every activation. R is the attitude at the start of the period for a free joint's
translation and the identity for all other degrees of freedom. Positions therefore follow from
predicted velocities, and a small learned correction.

Where the layout has centred translations, the states in the targets are centred ones: there the
root's translation is that of its mass centre (`physai.surrogate.centre`).

Which invariances hold is not assumed: `physai.rollout.symmetry` tests them on the true plant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physai.plant import Plant
from physai.rollout.images import Image
from physai.rollout.symmetry import Symmetry
from physai.state import (
    Array,
    Joint,
    State,
    components,
    last,
    minus,
    plus,
    replaced,
    rotate,
    rotate_inverse,
)
from physai.surrogate.balls import Contact
from physai.surrogate.centre import Translation

IMAGES = 3
"""Images that are used at most, of an ant's seven: data four times as large train for as long."""


class Limit(NamedTuple):
    """Range of a hinge or slide, in rad or m, and where in qpos and qvel it is."""

    qpos_index: int
    qvel_index: int
    low: float
    high: float


@dataclass(frozen=True)
class Layout:
    """How a plant's state, action and disturbance map to inputs and targets; static under jit.

    Attributes:
        joints: layout of the configuration.
        nq, nv, na: sizes of position, velocity, activation.
        nu, nw, nd: sizes of action, disturbance, design.
        control_period: seconds.
        position_axes: the world axes, of "xyz", along which a free joint's position is an input.
        heading_invariant: its heading is left out of the inputs.
        vectors: triples of disturbance indices that form world-frame vectors.
        design_low, design_high: bounds of the design variables, for scaling.
        idle: indices into qpos of hinges and slides whose position is left out of the inputs.
        turns: indices into qpos of hinges of which only sine and cosine are inputs.
        friction: of each degree of freedom with dry friction, its index into qvel and the speed
            that friction takes away in a control period; the inputs hold tanh(v / speed).
        limits: of joints.
        centred: translations of roots, in whose place those of mass centres are predicted.
        equations: the targets are what the model's equations leave.
        contacts: balls and planes whose distance is an input.
        images: of the machine in itself, which training data are also seen in.
    """

    joints: tuple[Joint, ...]
    nq: int
    nv: int
    na: int
    nu: int
    nw: int
    nd: int
    control_period: float
    position_axes: str
    heading_invariant: bool
    vectors: tuple[tuple[int, int, int], ...]
    design_low: tuple[float, ...]
    design_high: tuple[float, ...]
    idle: tuple[int, ...] = ()
    turns: tuple[int, ...] = ()
    friction: tuple[tuple[int, float], ...] = ()
    limits: tuple[Limit, ...] = ()
    centred: tuple[Translation, ...] = ()
    equations: bool = False
    contacts: tuple[Contact, ...] = ()
    images: tuple[Image, ...] = ()

    @property
    def nt(self) -> int:
        """Number of targets, 2 nv + na."""
        return 2 * self.nv + self.na

    @property
    def positions(self) -> tuple[tuple[int, int], ...]:
        """Where in qpos and qvel those translations and angles are that have a range.

        Without those that the dynamics do not depend on, and angles that may turn on and on.
        """
        found: list[tuple[int, int]] = []
        for joint in self.joints:
            i, j = joint.qpos_index, joint.qvel_index
            if joint.kind == "free":
                found += [(i + k, j + k) for k, a in enumerate("xyz") if a in self.position_axes]
            elif joint.kind != "ball" and i not in (*self.idle, *self.turns):
                found.append((i, j))
        return tuple(found)


def layout_of(plant: Plant, symmetry: Symmetry) -> Layout:
    """Return the layout of a plant, given what the numeric symmetry tests found."""
    model = plant.model
    dry = np.asarray(model.dof_frictionloss)
    speeds = dry * np.asarray(model.dof_invweight0) * plant.control_period
    return Layout(
        joints=plant.joints,
        nq=model.nq,
        nv=model.nv,
        na=model.na,
        nu=plant.nu,
        nw=plant.nw,
        nd=len(plant.design),
        control_period=plant.control_period,
        position_axes="".join(axis for axis in "xyz" if axis not in symmetry.translation),
        heading_invariant=symmetry.heading,
        vectors=_vectors(plant),
        design_low=tuple(v.low for v in plant.design),
        design_high=tuple(v.high for v in plant.design),
        idle=tuple(j.qpos_index for j in plant.joints if j.name in symmetry.joints),
        turns=tuple(j.qpos_index for j in plant.joints if j.name in symmetry.turns),
        friction=tuple((int(i), float(speeds[i])) for i in np.flatnonzero(dry > 0.0)),
        limits=tuple(
            Limit(j.qpos_index, j.qvel_index, *map(float, model.jnt_range[i]))
            for i, j in enumerate(plant.joints)
            if model.jnt_limited[i] and j.kind in ("hinge", "slide")
        ),
        images=symmetry.images[:IMAGES],
    )


def targets(layout: Layout, state: State, after: State) -> jax.Array:
    """Return what the network has to predict `[..., 2 nv + na]` for one observed control period."""
    velocity = to_body(layout, state.qpos, state.qvel)
    next_velocity = to_body(layout, state.qpos, after.qvel)
    moved = to_body(layout, state.qpos, minus(layout.joints, after.qpos, state.qpos))
    change = next_velocity - velocity
    residual = moved - layout.control_period * (velocity + 0.5 * change)
    return jnp.concatenate([residual, change, after.act - state.act], axis=-1)


def advance(layout: Layout, state: State, predicted: Array) -> State:
    """Return the next state from predicted targets `[..., 2 nv + na]`; the inverse of `targets`."""
    residual, change, lag = jnp.split(predicted, [layout.nv, 2 * layout.nv], axis=-1)
    velocity = to_body(layout, state.qpos, state.qvel)
    moved = residual + layout.control_period * (velocity + 0.5 * change)
    return state.replace(
        qpos=plus(layout.joints, state.qpos, to_world(layout, state.qpos, moved)),
        qvel=to_world(layout, state.qpos, velocity + change),
        act=state.act + lag,
        time=state.time + layout.control_period,
    )


def velocity_target(layout: Layout, qpos: Array, change: Array) -> jax.Array:
    """Return a change of qvel `[..., nv]` as a target `[..., 2 nv + na]`, 0 for the others."""
    change = to_body(layout, qpos, change)
    lead = change.shape[:-1]
    zeros = jnp.zeros((*lead, layout.nv)), jnp.zeros((*lead, layout.na))
    return jnp.concatenate([zeros[0], change, zeros[1]], axis=-1)


def _vectors(plant: Plant) -> tuple[tuple[int, int, int], ...]:
    groups: dict[str, list[int]] = {}
    for i, channel in enumerate(plant.disturbances):
        if channel.vector:
            groups.setdefault(channel.vector, []).append(i)
    return tuple((a, b, c) for a, b, c in groups.values())


def _turn_translation(layout: Layout, qpos: Array, tangent: Array, turn) -> jax.Array:
    q, rows = components(qpos), components(tangent)
    for joint in layout.joints:
        if joint.kind == "free":
            i, j = joint.qvel_index, joint.qpos_index
            turned = turn(last(q[j + 3 : j + 7]), last(rows[i : i + 3]))
            rows = replaced(rows, range(i, i + 3), components(turned))
    return last(rows)


def to_body(layout: Layout, qpos: Array, tangent: Array) -> jax.Array:
    """Return a tangent vector `[..., nv]` with free joints' translations in the body frame."""
    return _turn_translation(layout, qpos, tangent, rotate_inverse)


def to_world(layout: Layout, qpos: Array, tangent: Array) -> jax.Array:
    """Return what `to_body` made this one of."""
    return _turn_translation(layout, qpos, tangent, rotate)
