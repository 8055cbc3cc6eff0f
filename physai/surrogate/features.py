"""What a surrogate sees and predicts: body-frame inputs, tangent-space targets.

For one control period h the network predicts, per degree of freedom, the change of velocity and the
residual of a trapezoidal position update, both in the body frame of a free joint,

    dv = R^T (v' - v),      dq = R^T (q' (-) q) - h (u + dv / 2),     u = R^T v

and the change of every activation. R is the attitude at the start of the period for a free joint's
translation and the identity for all other degrees of freedom. Positions therefore follow from
predicted velocities, and a small learned correction.

A joint limit pushes only from where it is reached, a kink that a smooth network needs many units
for. Of a limit at distance d (negative: exceeded) and rate d', inputs are therefore how far it is
exceeded, and how far it would be at the end of the period if nothing held the joint back,

    max(0, -d),      max(0, -(d + h d'))

with the sign of the force that answers; of a contact with the ground the like
(`physai.surrogate.ground`). Where the layout has centred translations, the states in
the targets are centred ones: there the root's translation is that of its mass centre
(`physai.surrogate.centre`).

Which invariances hold is not assumed: `physai.rollout.symmetry` tests them on the true plant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physai.plant import Channel, Plant
from physai.rollout.images import Image
from physai.rollout.symmetry import Symmetry
from physai.state import (
    POSITION_WIDTH,
    VELOCITY_WIDTH,
    Array,
    Joint,
    State,
    minus,
    plus,
    rotate,
    rotate_inverse,
)
from physai.surrogate.balls import Contact
from physai.surrogate.centre import Translation
from physai.surrogate.ground import approach
from physai.surrogate.known import Known

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


def input_channels(layout: Layout, plant: Plant) -> tuple[Channel, ...]:
    """Return name, unit and (unbounded) range of every input, in the order of `inputs`."""
    names: list[tuple[str, str]] = []
    for joint in layout.joints:
        if joint.kind == "free":
            names += [(f"{joint.name}.{axis}", "m") for axis in layout.position_axes]
            names += [(f"{joint.name}.up_{a}", "1") for a in "xyz"]
            if not layout.heading_invariant:
                names += [(f"{joint.name}.north_{a}", "1") for a in "xyz"]
            names += [(f"{joint.name}.body_velocity_{a}", "m/s") for a in "xyz"]
            names += [(f"{joint.name}.body_rate_{a}", "rad/s") for a in "xyz"]
        elif joint.kind == "ball":
            names += [(f"{joint.name}.q{a}", "1") for a in "wxyz"]
            names += [(f"{joint.name}.rate_{a}", "rad/s") for a in "xyz"]
        elif joint.qpos_index in layout.idle:
            names += [(f"{joint.name}.rate", "rad/s" if joint.kind == "hinge" else "m/s")]
        elif joint.kind == "hinge":
            names += [(f"{joint.name}.cos", "1"), (f"{joint.name}.sin", "1")]
            if joint.qpos_index not in layout.turns:
                names += [(f"{joint.name}.position", "rad")]
            names += [(f"{joint.name}.rate", "rad/s")]
        else:
            names += [(f"{joint.name}.position", "m"), (f"{joint.name}.rate", "m/s")]
    rates = plant.state_channels[layout.nv : 2 * layout.nv]
    names += [(f"{rates[i].name}.sliding", "1") for i, _ in layout.friction]
    of = {j.qvel_index: (j.name, "rad" if j.kind == "hinge" else "m") for j in layout.joints}
    for suffix in ("beyond_limit", "beyond_limit_ahead"):
        found = (of[limit.qvel_index] for limit in layout.limits)
        names += [(f"{name}.{suffix}", unit) for name, unit in found]
    for suffix in ("depth", "depth_ahead"):
        names += [(f"{c.name}.{suffix}", "m") for c in layout.contacts]
    axes = ("x", "y", "z") if any(j.kind == "free" for j in layout.joints) else ("1", "2")
    names += [(f"{c.name}.slide_{axis}", "m/s") for c in layout.contacts for axis in axes]
    names += [(c.name, c.unit) for c in plant.state_channels[2 * layout.nv :]]
    names += [(c.name, c.unit) for c in (*plant.actions, *plant.disturbances)]
    names += [(f"design.{v.name}", "1") for v in plant.design]
    return tuple(Channel(n, u, -jnp.inf, jnp.inf) for n, u in names)


def inputs(
    layout: Layout, known: Known | None, state: State, action: Array, disturbance: Array
) -> jax.Array:
    """Return the network's raw inputs `[..., ni]`, each in its own unit.

    `known` places what touches the ground; where the layout has no contacts it is not looked at.
    """
    parts = []
    body = None
    for joint in layout.joints:
        q = state.qpos[..., joint.qpos_index : joint.qpos_index + POSITION_WIDTH[joint.kind]]
        v = state.qvel[..., joint.qvel_index : joint.qvel_index + VELOCITY_WIDTH[joint.kind]]
        if joint.kind == "free":
            attitude = q[..., 3:]
            body = attitude if body is None else body
            parts += [q[..., i : i + 1] for i, a in enumerate("xyz") if a in layout.position_axes]
            axes = (
                ((0.0, 0.0, 1.0),)
                if layout.heading_invariant
                else ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0))
            )
            for axis in axes:
                world = jnp.broadcast_to(jnp.array(axis), v[..., :3].shape)
                parts.append(rotate_inverse(attitude, world))
            parts += [rotate_inverse(attitude, v[..., :3]), v[..., 3:]]
        elif joint.kind == "ball":
            parts += [jnp.where(q[..., :1] < 0.0, -q, q), v]
        elif joint.qpos_index in layout.idle:
            parts += [v]
        elif joint.kind == "hinge":
            parts += [jnp.cos(q), jnp.sin(q)]
            parts += [v] if joint.qpos_index in layout.turns else [q, v]
        else:
            parts += [q, v]
    parts += [jnp.tanh(state.qvel[..., i : i + 1] / speed) for i, speed in layout.friction]
    parts += _beyond(layout, state)
    parts += _touching(layout, known, state, body)
    parts += [state.act, action, _body_frame(layout, disturbance, body)]
    low, high = jnp.array(layout.design_low), jnp.array(layout.design_high)
    parts.append(2.0 * (state.design - low) / (high - low) - 1.0)
    return jnp.concatenate([jnp.asarray(p) for p in parts], axis=-1)


def _beyond(layout: Layout, state: State) -> list[jax.Array]:
    """Return how far limits are exceeded, now and at the end of the period `[..., n]` each."""
    if not layout.limits:
        return []
    qpos_index, qvel_index, low, high = (np.array(a) for a in zip(*layout.limits, strict=True))
    position, rate = (
        jnp.asarray(x)[..., i] for x, i in ((state.qpos, qpos_index), (state.qvel, qvel_index))
    )
    ends = (position, position + layout.control_period * rate)
    return [jax.nn.relu(low - end) - jax.nn.relu(end - high) for end in ends]


def _touching(
    layout: Layout, known: Known | None, state: State, attitude: Array | None
) -> list[jax.Array]:
    """Return how deep balls are in planes, now and at the end of the period, and how they slide."""
    if not layout.contacts:
        return []
    if known is None:
        raise ValueError("contacts are inputs: the equations that place them are missing")
    found = approach(known, layout.contacts, state)
    ends = (found.distance, found.distance + layout.control_period * found.rate)
    if attitude is None:
        slide = jnp.einsum("...nk,ntk->...nt", found.slide, _tangents(layout))
    else:
        slide = rotate_inverse(attitude[..., None, :], found.slide)
    return [*(jax.nn.relu(-end) for end in ends), slide.reshape(*slide.shape[:-2], -1)]


def _tangents(layout: Layout) -> np.ndarray:
    """Return two directions along the plane of each contact `[n, 2, 3]`, x and y where it lies."""
    normals = np.array([contact.normal for contact in layout.contacts])
    first = np.cross([0.0, 1.0, 0.0], normals) + 1e-9 * np.array([1.0, 0.0, 0.0])
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    return np.stack([first, np.cross(normals, first)], 1).astype(np.float32)


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


def _body_frame(layout: Layout, disturbance: Array, attitude: Array | None) -> Array:
    if attitude is None:
        return disturbance
    disturbance = jnp.asarray(disturbance)
    for triple in layout.vectors:
        index = jnp.array(triple)
        turned = rotate_inverse(attitude, disturbance[..., index])
        disturbance = disturbance.at[..., index].set(turned)
    return disturbance


def _turn_translation(layout: Layout, qpos: Array, tangent: Array, turn) -> jax.Array:
    tangent = jnp.asarray(tangent)
    for joint in layout.joints:
        if joint.kind == "free":
            i, j = joint.qvel_index, joint.qpos_index
            turned = turn(qpos[..., j + 3 : j + 7], tangent[..., i : i + 3])
            tangent = tangent.at[..., i : i + 3].set(turned)
    return tangent


def to_body(layout: Layout, qpos: Array, tangent: Array) -> jax.Array:
    """Return a tangent vector `[..., nv]` with free joints' translations in the body frame."""
    return _turn_translation(layout, qpos, tangent, rotate_inverse)


def to_world(layout: Layout, qpos: Array, tangent: Array) -> jax.Array:
    """Return what `to_body` made this one of."""
    return _turn_translation(layout, qpos, tangent, rotate)
