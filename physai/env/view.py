"""Images of one plant: its first camera, else one that follows what flies."""

from __future__ import annotations

import mujoco
import numpy as np

from physai.offscreen import offscreen_renderer


class View:
    """Draws configurations of one model: its first camera, else one that follows what flies."""

    def __init__(self, model: mujoco.MjModel, height: int, width: int) -> None:
        model.vis.global_.offheight = max(height, model.vis.global_.offheight)
        model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
        # Without multisampling, shadows and reflections a frame takes a tenth of the time.
        model.vis.quality.offsamples = 0
        self._data = mujoco.MjData(model)
        self._model = model
        self._renderer = offscreen_renderer(model, width, height)
        self._camera = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(model, self._camera)
        if model.ncam:
            self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
        self._follow = not model.ncam and mujoco.mjtJoint.mjJNT_FREE in model.jnt_type[:1]

    def draw(self, qpos: np.ndarray) -> np.ndarray:
        self._data.qpos[:] = qpos
        mujoco.mj_fwdPosition(self._model, self._data)
        if self._follow:
            self._camera.lookat[:] = self._data.subtree_com[1]
            self._camera.distance = 5.0 * _radius(self._model, self._data)
        self._renderer.update_scene(self._data, self._camera)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = 0
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()


def _radius(model: mujoco.MjModel, data: mujoco.MjData) -> float:
    """Return the radius of a sphere about the centre of mass that holds every moving geom, m."""
    moving = model.geom_bodyid > 0
    reach = np.linalg.norm(data.geom_xpos[moving] - data.subtree_com[1], axis=1)
    return float(np.max(reach + model.geom_rbound[moving], initial=0.1))
