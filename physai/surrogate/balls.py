"""What of a machine may touch the ground: balls of its bodies and planes of the world.

A sphere is a ball, a capsule's ends are two, a box's corners are eight of radius 0; a geom's
contact margin counts as radius. Other shapes have no balls: what they touch is left to the network.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import mujoco
import numpy as np

from physai.plant import Plant

_PLANE, _SPHERE, _CAPSULE, _BOX = (
    getattr(mujoco.mjtGeom, f"mjGEOM_{kind}").value
    for kind in ("PLANE", "SPHERE", "CAPSULE", "BOX")
)


class Contact(NamedTuple):
    """A ball of a body, and a plane of the world that it may touch.

    Attributes:
        name: of the ball, after its geom or body.
        body: the body.
        ball: index into the balls of the plant's equations.
        normal: of the plane, towards the free side.
        height: of the plane along its normal, m.
    """

    name: str
    body: int
    ball: int
    normal: tuple[float, float, float]
    height: float


def balls(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """Return the places in their bodies `[n, 3]` and radii `[n]`, m, of balls that may touch."""
    places, radii = [np.zeros((0, 3))], [np.zeros(0)]
    for g in _touching(model):
        turn = np.zeros(9)
        mujoco.mju_quat2Mat(turn, model.geom_quat[g])
        own, radius = _shape(model, g)
        places.append(model.geom_pos[g] + own @ turn.reshape(3, 3).T)
        radii.append(np.full(len(own), radius + model.geom_margin[g]))
    return np.concatenate(places), np.concatenate(radii)


def contacts_of(plant: Plant) -> tuple[Contact, ...]:
    """Return all balls and planes of a plant that may touch; none where contacts are disabled."""
    model, ball, found = plant.model, 0, []
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    for g, planes in _touching(model).items():
        count = len(_shape(model, g)[0])
        for plane, number in product(planes, range(count)):
            x, y, z = (float(a) for a in data.geom_xmat[plane].reshape(3, 3)[:, 2])
            height = float(data.geom_xpos[plane] @ [x, y, z])
            name = _name(model, plane, g, number)
            body = int(model.geom_bodyid[g])
            found.append(Contact(name, body, ball + number, (x, y, z), height))
        ball += count
    return tuple(found)


def _touching(model: mujoco.MjModel) -> dict[int, list[int]]:
    """Return by moving geom, of those that have balls, the planes of the world it may touch."""
    if model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CONTACT:
        return {}
    kind, like = model.geom_contype, model.geom_conaffinity
    pairs = {frozenset(p) for p in zip(model.pair_geom1, model.pair_geom2, strict=True)}
    still = model.body_weldid[model.geom_bodyid] == 0
    planes = np.flatnonzero((model.geom_type == _PLANE) & still).tolist()
    shaped = np.isin(model.geom_type, (_SPHERE, _CAPSULE, _BOX))
    found = {}
    for g in np.flatnonzero(shaped & ~still).tolist():
        collide = kind & like[g] | kind[g] & like
        met = [p for p in planes if collide[p] or frozenset((p, g)) in pairs]
        if met:
            found[g] = met
    return found


def _shape(model: mujoco.MjModel, g: int) -> tuple[np.ndarray, float]:
    """Return the places of a geom's balls in its own frame `[n, 3]`, and their radius."""
    size = model.geom_size[g]
    if model.geom_type[g] == _SPHERE:
        return np.zeros((1, 3)), float(size[0])
    if model.geom_type[g] == _CAPSULE:
        return np.array([[0.0, 0.0, size[1]], [0.0, 0.0, -size[1]]]), float(size[0])
    return np.array(list(product((-1.0, 1.0), repeat=3))) * size, 0.0


def _name(model: mujoco.MjModel, plane: int, g: int, number: int) -> str:
    """Name a ball of a geom, and the plane where there are several."""
    body = int(model.geom_bodyid[g])
    own = model.geom(g).name or f"{model.body(body).name}_geom{g - int(model.body_geomadr[body])}"
    alone = np.count_nonzero(model.geom_type == _PLANE) == 1
    return f"{own}_{number}" + ("" if alone else f"_on_{model.geom(plane).name or plane}")
