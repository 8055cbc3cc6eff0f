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

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physai.state import Array
from physai.surrogate.frames import Fixed, Frames, fixed, frames
from physai.surrogate.rows import (
    Rows,
    Several,
    apply,
    cross,
    cross_force,
    cross_motion,
    dot,
    factor,
    held,
    matrix,
    pick,
    plus,
    scaled,
    solve,
    split,
    total,
    turned,
)
from physai.surrogate.tree import Constants, Tree, dofs_of, picks

DIMENSIONS = {
    "gravity": 1, "body_pos": 2, "body_quat": 2, "mass": 1, "centre": 2, "inertia": 3,
    "joint_pos": 2, "joint_axis": 2, "qpos0": 1, "spring": 1, "stiffness": 1, "damping": 1,
    "armature": 1, "tendon_moment": 2, "tendon_stiffness": 1, "tendon_damping": 1,
    "tendon_low": 1, "tendon_high": 1, "moment": 2, "gear": 2, "site_pos": 2, "site_quat": 2,
    "gain": 2, "bias": 2, "lag": 1, "force_low": 1, "force_high": 1,
    "ball_place": 2, "ball_radius": 1,
}  # fmt: skip
"""Of the constants, without leading ones."""
UNROLLED = 16
"""Degrees of freedom above which the library solves. Of 30 an unrolled solution is no faster (60 us
a control period, the library's 41), and takes 17 s more to compile."""


class Ready(NamedTuple):
    """Constants of a design, as the equations use them: the batch, or 1 for it, last."""

    constants: Constants
    links: Fixed


class _Inertia(NamedTuple):
    """Of bodies or subtrees about the common point: mass, first and second moment (6 numbers)."""

    mass: Rows
    moment: Several
    second: Several


def ready(tree: Tree, constants: Constants) -> Ready:
    """Return constants `[...]` of designs for `acceleration`, whatever the state."""
    last = {}
    for name, own in DIMENSIONS.items():
        array = jnp.asarray(constants[name])
        count = array.ndim - own
        moved = jnp.moveaxis(array, range(count), range(-count, 0))
        last[name] = moved.reshape(*moved.shape[:own], int(np.prod(moved.shape[own:])))
    return Ready(last, fixed(tree, last))


def acceleration(
    tree: Tree,
    known: Ready,
    qpos: Array,
    qvel: Array,
    act: Array,
    control: Array,
    ahead: Array = 0.0,
) -> jax.Array:
    """Return the smooth acceleration `[..., nv]`, in the frames of qvel.

    Args:
        tree: of the plant.
        known: of the design, or of as many designs as there are states.
        qpos: `[..., nq]`.
        qvel: `[..., nv]`.
        act: activations `[..., na]`.
        control: actions and disturbances `[..., nu + nw]`.
        ahead: s that have passed since activations were as given, while control was held.
    """
    lead = jnp.shape(qvel)[:-1]
    q, v, a, u = (_last(x) for x in (qpos, qvel, act, control))
    now = frames(tree, known.links, q)
    inertia = _inertias(known.constants, now)
    velocity = _carried(tree, scaled(v, now.axes))
    coordinates = total(picks(tree)["dof"], q)[0]
    tau = _springs(tree, known.constants, coordinates, v)
    force = _bias(tree, known.constants, now, inertia, velocity, v)
    if tree.actuators:
        drive = _drive(tree, known.constants, now, velocity)
        push = _push(tree, known.constants, drive, (coordinates, v, a, u), ahead)
        tau = tau + apply(jnp.swapaxes(known.constants["moment"], 0, 1), push)
        force = _pushed(tree, drive, push, force)
    right = tau - _felt(tree, now, force)
    return _first(_solved(tree, known.constants, now, inertia, right), lead)


def equations(tree: Tree, known: Ready, qpos: Array, qvel: Array) -> tuple[jax.Array, jax.Array]:
    """Return the joint-space inertia `[..., nv, nv]` and the bias force c `[..., nv]`."""
    lead = jnp.shape(qvel)[:-1]
    q, v = _last(qpos), _last(qvel)
    now = frames(tree, known.links, q)
    inertia = _inertias(known.constants, now)
    velocity = _carried(tree, scaled(v, now.axes))
    force = _bias(tree, known.constants, now, inertia, velocity, v)
    lower = _lower(tree, known.constants, now, inertia)
    full = lower + jnp.swapaxes(lower * np.tri(tree.nv, k=-1, dtype=np.float32), -1, -2)
    bias = _first(_felt(tree, now, force), lead)
    return full.reshape(*lead, tree.nv, tree.nv), bias


def _last(array: Array) -> jax.Array:
    """Return `[n, B]` of `[..., n]`."""
    moved = jnp.moveaxis(jnp.asarray(array), -1, 0)
    return held((moved.reshape(len(moved), int(np.prod(moved.shape[1:]))),))[0]


def _first(array: jax.Array, lead: tuple[int, ...]) -> jax.Array:
    """Return `[*lead, ...]` of `[..., B]`."""
    found = array.reshape(*array.shape[:-1], *lead)
    return jnp.moveaxis(found, range(-len(lead), 0), range(len(lead)))


def _carried(tree: Tree, motion: Several) -> Several:
    """Return motions of bodies that degrees of freedom add up to."""
    return total(dofs_of(tree).path, *motion)


def _felt(tree: Tree, now: Frames, force: Several) -> Rows:
    """Return what degrees of freedom feel of forces on bodies `[nv, B]`."""
    dofs = dofs_of(tree)
    return dot(now.axes, total(dofs.below[dofs.owner], *force))


def _inertias(constants: Constants, now: Frames) -> _Inertia:
    """Return bodies' inertias about the common point."""
    mass, m = constants["mass"], now.matrix
    centre = plus(now.position, turned(m, split(constants["centre"])))
    given = constants["inertia"]
    given = split(given.reshape(len(given), 9, -1))
    rows = [turned(m, given[i : i + 3]) for i in (0, 3, 6)]  # I R'
    xx, xy, xz, _, yy, yz, _, _, zz = (
        dot(m[3 * i : 3 * i + 3], tuple(row[j] for row in rows)) for i in range(3) for j in range(3)
    )
    moment = held(scaled(mass, centre))
    (x, y, z), (hx, hy, hz) = centre, moment
    second = (
        xx + (hy * y + hz * z),
        yy + (hx * x + hz * z),
        zz + (hx * x + hy * y),
        xy - hx * y,
        xz - hx * z,
        yz - hy * z,
    )
    return _Inertia(jnp.broadcast_to(mass, x.shape), moment, held(second))


def _times(inertia: _Inertia, motion: Several) -> Several:
    xx, yy, zz, xy, xz, yz = inertia.second
    (a, b, c), moving = motion[:3], motion[3:]
    turned_by = xx * a + xy * b + xz * c, xy * a + yy * b + yz * c, xz * a + yz * b + zz * c
    torque = plus(turned_by, cross(inertia.moment, moving))
    return (*torque, *plus(scaled(inertia.mass, moving), cross(motion[:3], inertia.moment)))


def _bias(
    tree: Tree,
    constants: Constants,
    now: Frames,
    inertia: _Inertia,
    velocity: Several,
    v: Rows,
) -> Several:
    """Return the forces on bodies `[nb, B]` that hold them to their motion at a = 0."""
    motion = scaled(v, now.axes)
    drift = _carried(tree, cross_motion(total(dofs_of(tree).before, *motion), motion))
    fall = tuple(-g for g in jnp.split(constants["gravity"], 3))
    moving = (*drift[:3], *plus(drift[3:], fall))
    momentum = held(_times(inertia, velocity))
    return plus(_times(inertia, moving), cross_force(velocity, momentum))


def _borne(tree: Tree, now: Frames, inertia: _Inertia) -> Several:
    """Return forces `[nv, B]` that accelerate subtrees with a unit of each degree of freedom."""
    dofs = dofs_of(tree)
    parts = total(dofs.below[dofs.owner], inertia.mass, *inertia.moment, *inertia.second)
    return held(_times(_Inertia(parts[0], parts[1:4], parts[4:]), now.axes))


def _columns(tree: Tree, constants: Constants, now: Frames, inertia: _Inertia) -> list[Rows]:
    """Return rows 0 to k of each column k of the joint-space inertia `[k + 1, B]`."""
    dofs, force = dofs_of(tree), _borne(tree, now, inertia)
    columns = []
    for k in range(tree.nv):
        above = dofs.path[dofs.owner[k], : k + 1, None].astype(np.float32)
        column = dot(tuple(f[k] for f in force), tuple(s[: k + 1] for s in now.axes)) * above
        columns.append(column.at[k].add(constants["armature"][k]))
    return columns


def _lower(tree: Tree, constants: Constants, now: Frames, inertia: _Inertia) -> jax.Array:
    """Return the lower triangle of the joint-space inertia, the batch first `[B, nv, nv]`."""
    dofs = dofs_of(tree)
    force, axes = jnp.stack(_borne(tree, now, inertia)), jnp.stack(now.axes)
    above = np.tril(dofs.path[dofs.owner]).astype(np.float32)
    armature = constants["armature"].T[..., None] * np.eye(tree.nv, dtype=np.float32)
    return jnp.einsum("cib,cjb->bij", force, axes) * above + armature


def _solved(tree: Tree, constants: Constants, now: Frames, inertia: _Inertia, right: Rows) -> Rows:
    """Return accelerations `[nv, B]` at which bodies' inertia is felt as `right`.

    The derivative follows from that condition, not from the way in which it was met.
    """
    given = tree, *jax.lax.stop_gradient((constants, now, inertia))
    if tree.nv <= UNROLLED:
        dofs = dofs_of(tree)
        factors = factor(_columns(*given), dofs.descendants)

        def solved(b: Rows) -> Rows:
            return solve(factors, dofs.ancestors, b)

    else:
        dense = jax.scipy.linalg.cho_factor(_lower(*given), lower=True)

        def solved(b: Rows) -> Rows:
            return jax.scipy.linalg.cho_solve(dense, b.T[..., None])[..., 0].T

    def felt(a: Rows) -> Rows:
        moved = _times(inertia, _carried(tree, scaled(a, now.axes)))
        return _felt(tree, now, moved) + constants["armature"] * a

    return jax.lax.custom_linear_solve(felt, right, lambda _, b: solved(b), symmetric=True)


def _springs(tree: Tree, constants: Constants, coordinates: Rows, v: Rows) -> Rows:
    stretched = coordinates - total(picks(tree)["dof"], constants["spring"])[0]
    force = -constants["stiffness"] * stretched - constants["damping"] * v
    moment = constants["tendon_moment"]
    if not len(moment):
        return force
    length, speed = apply(moment, coordinates), apply(moment, v)
    slack = jnp.clip(length, constants["tendon_low"], constants["tendon_high"])
    pull = constants["tendon_stiffness"] * (slack - length) - constants["tendon_damping"] * speed
    return force + apply(jnp.swapaxes(moment, 0, 1), pull)


class _Drive(NamedTuple):
    """Of actuators on sites: which they are, the force of each by unit and the speed it sees."""

    sites: tuple[int, ...]
    wrench: Several
    speed: Rows


def _drive(tree: Tree, constants: Constants, now: Frames, velocity: Several) -> _Drive:
    sites = tuple(i for i, actuator in enumerate(tree.actuators) if actuator.body >= 0)
    if not sites:
        return _Drive((), (), jnp.zeros((0, 1)))
    bodies = [tree.actuators[i].body for i in sites]
    still = np.array([[float(tree.actuators[i].fixed)] for i in sites], np.float32)
    frame = pick(bodies, *now.matrix)
    gear = pick(sites, *split(constants["gear"]))
    turn = matrix(pick(sites, *split(constants["site_quat"])))

    def seen(vector: Several) -> Several:
        own = turned(turn, vector)
        return plus(scaled(still, own), scaled(1.0 - still, turned(frame, own)))

    force, torque = seen(gear[:3]), seen(gear[3:])
    place = turned(frame, pick(sites, *split(constants["site_pos"])))
    at = plus(pick(bodies, *now.position), place)
    wrench = (*plus(torque, cross(at, force)), *force)
    wrench = held(wrench)
    return _Drive(sites, wrench, dot(wrench, pick(bodies, *velocity)))


def _push(
    tree: Tree,
    constants: Constants,
    drive: _Drive,
    state: tuple[Rows, Rows, Rows, Rows],
    ahead: Array,
) -> Rows:
    """Return the forces of actuators `[n, B]`."""
    coordinates, v, act, control = state
    length, speed = apply(constants["moment"], coordinates), apply(constants["moment"], v)
    if drive.sites:
        place = np.zeros((len(tree.actuators), len(drive.sites)))
        place[list(drive.sites), np.arange(len(drive.sites))] = 1.0
        speed = speed + total(place, drive.speed)[0]
    (u,) = pick([actuator.channel for actuator in tree.actuators], control)
    filtered = np.array([[float(a.activation >= 0)] for a in tree.actuators], np.float32)
    if filtered.any():
        (begun,) = pick([max(actuator.activation, 0) for actuator in tree.actuators], act)
        lag = constants["lag"]
        left = jnp.where(lag > 0.0, jnp.exp(-ahead / jnp.where(lag > 0.0, lag, 1.0)), 1.0)
        u = u + filtered * (begun - u) * left
    gain, bias = split(constants["gain"]), split(constants["bias"])
    force = (gain[0] + gain[1] * length + gain[2] * speed) * u
    force = force + bias[0] + bias[1] * length + bias[2] * speed
    return jnp.clip(force, constants["force_low"], constants["force_high"])


def _pushed(tree: Tree, drive: _Drive, push: Rows, force: Several) -> Several:
    """Return forces on bodies less what actuators apply to them."""
    if not drive.sites:
        return force
    applied = scaled(pick(drive.sites, push)[0], drive.wrench)
    place = np.zeros((len(tree.parents), len(drive.sites)))
    place[[tree.actuators[i].body for i in drive.sites], np.arange(len(drive.sites))] = -1.0
    return plus(force, total(place, *applied))
