"""What a surrogate's network sees of a state, an action and a disturbance.

A joint limit pushes only from where it is reached, a kink that a smooth network needs many units
for. Of a limit at distance d (negative: exceeded) and rate d', inputs are therefore how far it is
exceeded, and how far it would be at the end of the period h if nothing held the joint back,

    max(0, -d),      max(0, -(d + h d'))

with the sign of the force that answers; of a contact with the ground the like
(`physai.surrogate.ground`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby

import jax
import jax.numpy as jnp
import numpy as np

from physai.plant import Channel, Plant
from physai.state import (
    POSITION_WIDTH,
    VELOCITY_WIDTH,
    Array,
    Joint,
    State,
    components,
    last,
    picked,
    rotate_inverse,
    together,
)
from physai.surrogate.features import Layout
from physai.surrogate.ground import approach
from physai.surrogate.known import Known


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
    q, v = components(state.qpos), components(state.qvel)
    free = next((j.qpos_index + 3 for j in layout.joints if j.kind == "free"), None)
    attitude = None if free is None else last(q[free : free + 4])
    parts = []
    for _, run in groupby(layout.joints, partial(_seen, layout)):
        parts += _of_joints(layout, tuple(run), q, v)
    if layout.friction:
        index, speeds = zip(*layout.friction, strict=True)
        parts.append(jnp.tanh(picked(v, index) / _column(speeds, v)))
    parts += _beyond(layout, q, v)
    parts += _touching(layout, known, state, attitude)
    parts += [components(state.act), components(action)]
    parts.append(_body_frame(layout, components(disturbance), attitude))
    low, high = (_column(ends, q) for ends in (layout.design_low, layout.design_high))
    parts.append(2.0 * (components(state.design) - low) / (high - low) - 1.0)
    return together(*parts)


def _column(numbers: Sequence[float], rows: jax.Array) -> jax.Array:
    """Return numbers `[k]` that broadcast with rows `[k, ...]`."""
    return jnp.array(numbers).reshape(-1, *[1] * (rows.ndim - 1))


def _seen(layout: Layout, joint: Joint) -> tuple[str, ...]:
    """Return what is seen of a joint; of neighbours of which it is the same it is so at once."""
    if joint.kind in ("free", "ball"):
        return joint.kind, joint.name
    if joint.qpos_index in layout.idle:
        return ("rate",)
    if joint.kind == "slide":
        return "position", "rate"
    angle = ("cos", "sin")
    return (*angle, "rate") if joint.qpos_index in layout.turns else (*angle, "position", "rate")


def _of_joints(
    layout: Layout, run: tuple[Joint, ...], q: jax.Array, v: jax.Array
) -> list[jax.Array]:
    """Return what is seen of a free or ball joint, or of neighbours that are seen alike."""
    first, end = run[0], run[-1]
    position = q[first.qpos_index : end.qpos_index + POSITION_WIDTH[end.kind]]
    rate = v[first.qvel_index : end.qvel_index + VELOCITY_WIDTH[end.kind]]
    if first.kind == "free":
        axes = np.eye(3)[[2] if layout.heading_invariant else [2, 0]]
        body = partial(rotate_inverse, last(position[3:]))
        return [
            *(position[i : i + 1] for i, a in enumerate("xyz") if a in layout.position_axes),
            *(components(body(axis)) for axis in axes),
            components(body(last(rate[:3]))),
            rate[3:],
        ]
    if first.kind == "ball":
        return [jnp.where(position[:1] < 0.0, -position, position), rate]
    columns = {"position": position, "rate": rate}
    if first.kind == "hinge":
        columns |= {"cos": jnp.cos(position), "sin": jnp.sin(position)}
    seen = jnp.stack([columns[name] for name in _seen(layout, first)], axis=1)
    return [_flat(seen)]


def _flat(rows: jax.Array) -> jax.Array:
    """Return `[m, k, ...]` as `[m k, ...]`."""
    return rows.reshape(rows.shape[0] * rows.shape[1], *rows.shape[2:])


def _beyond(layout: Layout, q: jax.Array, v: jax.Array) -> list[jax.Array]:
    """Return how far limits are exceeded, now and at the end of the period `[n, ...]` each."""
    if not layout.limits:
        return []
    qpos_index, qvel_index, *ends = zip(*layout.limits, strict=True)
    low, high = (_column(end, q) for end in ends)
    position, rate = picked(q, qpos_index), picked(v, qvel_index)
    reached = (position, position + layout.control_period * rate)
    return [jax.nn.relu(low - at) - jax.nn.relu(at - high) for at in reached]


def _touching(
    layout: Layout, known: Known | None, state: State, attitude: Array | None
) -> list[jax.Array]:
    """Return how deep balls are in planes, now and at the end of the period, and how they slide."""
    if not layout.contacts:
        return []
    if known is None:
        raise ValueError("contacts are inputs: the equations that place them are missing")
    found = approach(known, layout.contacts, state)
    reached = (found.distance, found.distance + layout.control_period * found.rate)
    if attitude is None:
        slide = jnp.einsum("nk...,ntk->nt...", found.slide, _tangents(layout))
    else:
        slide = jnp.moveaxis(rotate_inverse(attitude, jnp.moveaxis(found.slide, 1, -1)), -1, 1)
    return [*(jax.nn.relu(-at) for at in reached), _flat(slide)]


def _tangents(layout: Layout) -> np.ndarray:
    """Return two directions along the plane of each contact `[n, 2, 3]`, x and y where it lies."""
    normals = np.array([contact.normal for contact in layout.contacts])
    first = np.cross([0.0, 1.0, 0.0], normals) + 1e-9 * np.array([1.0, 0.0, 0.0])
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    return np.stack([first, np.cross(normals, first)], 1).astype(np.float32)


def _body_frame(layout: Layout, disturbance: jax.Array, attitude: Array | None) -> jax.Array:
    """Return disturbances `[nw, ...]`, those that are vectors seen from a body."""
    if attitude is None:
        return disturbance
    rows = [disturbance[i : i + 1] for i in range(layout.nw)]
    for triple in layout.vectors:
        turned = components(rotate_inverse(attitude, last(picked(disturbance, triple))))
        for place, row in zip(triple, turned, strict=True):
            rows[place] = row[None]
    return jnp.concatenate(rows) if rows else disturbance
