"""Draw a flown trajectory with MuJoCo, without a screen: the frames of a film strip.

One camera for all frames, broadside to the path and as near as all of it allows. The path flown so
far is a line, the rest of it a faint one; the start is a small grey sphere, the target an orange
one. Thin plumb lines end in discs on the floor, in place of shadows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import mujoco
import numpy as np

from physai.errors import InputError
from physai.offscreen import offscreen_renderer
from physai.plant import Plant
from physai.state import State
from physai.verify.replay import Trajectory

FLOWN = (0.05, 0.40, 0.66, 1.0)
AHEAD = (0.35, 0.42, 0.50, 0.30)
START = (0.45, 0.48, 0.52, 0.90)
TARGET = (0.95, 0.45, 0.10, 0.95)
FAINT = (0.25, 0.30, 0.36, 0.22)
SMOOTH = 2  # drawn so many times larger, then averaged: the edges that multisampling would smooth
ELEVATION = np.radians(18.0)


def render(
    plant: Plant,
    trajectory: Trajectory,
    frames: int = 8,
    width: int = 480,
    height: int = 360,
) -> list[np.ndarray]:
    """Draw moments of a trajectory.

    Args:
        plant: the machine.
        trajectory: of a stored or replayed flight; its commands named position_x, position_y and
            position_z, if there are such, are the target.
        frames: number of images, at the moments of `frame_indices`.
        width, height: of an image, pixels.

    Returns:
        Images uint8 `[height, width, 3]`.

    Raises:
        InputError: OpenGL is not available, or the sizes are not positive.
    """
    if min(frames, width, height) < 1:
        raise InputError(
            f"expected at least one frame of one pixel, got {frames} of {width} x {height}"
        )
    states = trajectory.states
    model = _model(plant, states, width, height)
    data = mujoco.MjData(model)
    path, radius = _path(model, data, states)
    target = _target(trajectory)
    camera = _camera(model, path, radius, target, width / height)
    floor = _floor(model, path, radius, target)
    images = []
    with offscreen_renderer(model, SMOOTH * width, SMOOTH * height) as renderer:
        for k in frame_indices(plant, states, frames):
            data.qpos[:] = states.qpos[k]
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_camlight(model, data)
            renderer.update_scene(data, camera)
            for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
                renderer.scene.flags[flag] = 0
            _decorate(renderer.scene, path, k, target, floor, radius)
            large = renderer.render().reshape(height, SMOOTH, width, SMOOTH, 3)
            images.append(large.mean(axis=(1, 3)).round().astype(np.uint8))
    return images


def frame_indices(plant: Plant, states: State, frames: int) -> list[int]:
    """Return the moments to draw: first, last, between them evenly in way and, less so, in time.

    Evenly in time, most frames of a flight would show it hovering at the target.
    """
    qpos = np.asarray(states.qpos, float)
    position = qpos[:, :3] if plant.joints[0].kind == "free" else qpos
    steps = len(qpos) - 1
    way = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(position, axis=0), axis=1)))
    done = 0.25 * np.arange(steps + 1) / max(steps, 1) + 0.75 * way / max(way[-1], 1e-9)
    wanted = np.linspace(0.0, done[-1], frames)
    return [int(k) for k in np.clip(np.searchsorted(done, wanted - 1e-9), 0, steps)]


def _target(trajectory: Trajectory) -> np.ndarray | None:
    wanted = [f"position_{axis}" for axis in "xyz"]
    if not set(wanted) <= set(trajectory.commands):
        return None
    columns = [trajectory.commands.index(name) for name in wanted]
    return np.asarray(trajectory.states.command[-1], float)[columns]


def _model(plant: Plant, states: State, width: int, height: int) -> mujoco.MjModel:
    low, high = [v.low for v in plant.design], [v.high for v in plant.design]
    # float32 may lie a rounding error outside.
    model = plant.compile(np.clip(np.asarray(states.design[0], float), low, high))
    model.vis.global_.offwidth, model.vis.global_.offheight = SMOOTH * width, SMOOTH * height
    model.vis.quality.offsamples = 0
    return model


def _path(model: mujoco.MjModel, data: mujoco.MjData, states: State) -> tuple[np.ndarray, float]:
    """Return the way of the centre of mass `[T+1, 3]`, and the machine's radius about it."""
    root = model.body_rootid[model.jnt_bodyid[0]]
    moving = np.flatnonzero(model.geom_bodyid > 0)
    path, radius = np.empty((len(states.qpos), 3)), 0.05
    for k, qpos in enumerate(np.asarray(states.qpos)):
        data.qpos[:] = qpos
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        path[k] = data.subtree_com[root]
        far = np.linalg.norm(data.geom_xpos[moving] - path[k], axis=1) + model.geom_rbound[moving]
        radius = max(radius, float(np.max(far, initial=0.0)))
    return path, radius


def _camera(
    model: mujoco.MjModel,
    path: np.ndarray,
    radius: float,
    target: np.ndarray | None,
    aspect: float,
) -> mujoco.MjvCamera:
    """Look broadside at the path, from the nearest place from which all of it is in the frame."""
    points = path if target is None else np.vstack([path, target])
    centre = 0.5 * (points.min(axis=0) + points.max(axis=0))
    offset = points - centre
    along = np.linalg.eigh(offset[:, :2].T @ offset[:, :2])[1][:, -1]
    level, rise = np.cos(ELEVATION), np.sin(ELEVATION)
    forward = np.array([-along[1] * level, along[0] * level, -rise])
    right = np.append(along, 0.0)
    up = np.cross(right, forward)
    # In the frame is what lies no farther aside than half the width there, tan(angle) * distance.
    half = np.tan(0.5 * np.radians(model.vis.global_.fovy))
    across = (np.abs(offset @ right) + 1.15 * radius) / (half * aspect)
    upward = (np.abs(offset @ up) + 1.15 * radius) / half
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat[:] = centre
    camera.distance = np.max(np.maximum(across, upward) - offset @ forward)
    camera.azimuth = np.degrees(np.arctan2(forward[1], forward[0]))
    camera.elevation = -np.degrees(ELEVATION)
    return camera


def _floor(
    model: mujoco.MjModel, path: np.ndarray, radius: float, target: np.ndarray | None
) -> float | None:
    """Return the height of the floor, None where there is none.

    Without contacts a floor is scenery that flights lead through: it is laid below the path.
    """
    planes = np.flatnonzero(
        (model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE) & (model.geom_bodyid == 0)
    )
    if not len(planes):
        return None
    if model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CONTACT:
        lowest = path[:, 2].min() if target is None else min(path[:, 2].min(), target[2])
        model.geom_pos[planes, 2] = lowest - 1.5 * radius
    return float(model.geom_pos[planes[0], 2])


def _decorate(
    scene: mujoco.MjvScene,
    path: np.ndarray,
    now: int,
    target: np.ndarray | None,
    floor: float | None,
    radius: float,
) -> None:
    """Add path, start, target, and the lines that show how high they are."""
    thin = 0.03 * radius
    every = max(1, len(path) // 120)
    _line(scene, [*path[now::every], path[-1]], 0.6 * thin, AHEAD)
    _line(scene, [*path[:now:every], path[now]], thin, FLOWN)
    _sphere(scene, path[0], 2.0 * thin, START)
    if target is not None:
        _sphere(scene, target, 3.0 * thin, TARGET)
    if floor is not None:
        for point in (path[now], *([] if target is None else [target])):
            foot = np.array([point[0], point[1], floor])
            _line(scene, [point, foot], 0.35 * thin, FAINT)
            size = np.array([0.35 * radius, 0.0005, 0.0])
            _geom(scene, mujoco.mjtGeom.mjGEOM_CYLINDER, size, foot, FAINT)


def _line(
    scene: mujoco.MjvScene, points: Sequence[np.ndarray], width: float, rgba: Sequence[float]
) -> None:
    for start, end in pairwise(points):
        if np.linalg.norm(end - start) < 1e-6:
            continue
        geom = _geom(scene, mujoco.mjtGeom.mjGEOM_CAPSULE, np.zeros(3), start, rgba)
        if geom is not None:
            mujoco.mjv_connector(geom, mujoco.mjtGeom.mjGEOM_CAPSULE, width, start, end)


def _sphere(
    scene: mujoco.MjvScene, position: np.ndarray, size: float, rgba: Sequence[float]
) -> None:
    _geom(scene, mujoco.mjtGeom.mjGEOM_SPHERE, np.full(3, size), position, rgba)


def _geom(
    scene: mujoco.MjvScene,
    kind: mujoco.mjtGeom,
    size: np.ndarray,
    position: np.ndarray,
    rgba: Sequence[float],
) -> mujoco.MjvGeom | None:
    if scene.ngeom >= scene.maxgeom:
        return None
    geom = scene.geoms[scene.ngeom]
    colour = np.array(rgba, np.float32)
    mujoco.mjv_initGeom(geom, kind, size, np.asarray(position, float), np.eye(3).ravel(), colour)
    geom.category = mujoco.mjtCatBit.mjCAT_DECOR
    scene.ngeom += 1
    return geom
