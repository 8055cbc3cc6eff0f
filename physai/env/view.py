"""Images of one plant, and a window: its first camera, else one that follows what flies."""

from __future__ import annotations

import os
import sys
import time
import warnings

import gymnasium
import mujoco
import numpy as np

from physai.env.options import count
from physai.errors import InputError
from physai.offscreen import offscreen_renderer
from physai.plant import Plant

RENDER_MODES = (None, "rgb_array", "human")


def render_modes() -> list[str]:
    """Return the render modes that can work here: "human" needs a screen."""
    linux = sys.platform == "linux"
    screen = not linux or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return ["rgb_array", "human"] if screen else ["rgb_array"]


class Display:
    """Shows machines of a plant as an environment's render_mode says.

    Args:
        plant: the plant.
        mode: None, "rgb_array" or "human".
        width, height: of images, pixels.

    Raises:
        InputError: another mode, or a size that is no whole number above 0.
    """

    def __init__(self, plant: Plant, mode: str | None, width: int, height: int) -> None:
        if mode not in RENDER_MODES:
            raise InputError(f'render_mode: expected None, "rgb_array" or "human", got {mode!r}')
        self._plant, self._mode = plant, mode
        self._size = (count(height, "height"), count(width, "width"))
        self._views: dict[bytes, View] = {}
        self._window: Window | None = None

    def images(self, qpos: np.ndarray, designs: np.ndarray) -> tuple[np.ndarray, ...] | None:
        """Return images uint8 `[height, width, 3]` of machines `[n, nq]`, `[n, nd]`, or None.

        Raises:
            InputError: OpenGL is not available.
        """
        if self._mode is None:
            gymnasium.logger.warn('render() needs render_mode="rgb_array" when the env is made')
        if self._mode != "rgb_array":
            return None
        found = []
        for configuration, design in zip(np.asarray(qpos, float), designs, strict=True):
            key = design.tobytes()
            if key not in self._views:
                self._views[key] = View(self._plant.compile(design), *self._size)
            found.append(self._views[key].draw(configuration).copy())
        return tuple(found)

    def show(self, qpos: np.ndarray, designs: np.ndarray) -> None:
        """Show the first of these machines in the window, where the mode is "human".

        Raises:
            InputError: there is no screen.
        """
        if self._mode != "human":
            return
        if self._window is None:
            self._window = Window(self._plant.compile(designs[0]), self._plant.control_period)
        self._window.draw(np.asarray(qpos[0], float))

    def close(self) -> None:
        """Free renderers and window; they are made anew when needed."""
        for view in (*self._views.values(), self._window):
            if view is not None:
                view.close()
        self._views, self._window = {}, None


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


class Window:
    """MuJoCo's viewer, in which the user may turn the camera, shown no faster than in real time."""

    def __init__(self, model: mujoco.MjModel, period: float = 0.0) -> None:
        # Imported here: they need a screen's libraries.
        import glfw
        import mujoco.viewer

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not glfw.init():  # the viewer would end the process
                raise InputError(
                    'render_mode "human" needs a screen, and there is none; use "rgb_array"'
                )
        self._model, self._data = model, mujoco.MjData(model)
        self._period, self._due = period, 0.0
        try:
            self._viewer = mujoco.viewer.launch_passive(
                model, self._data, show_left_ui=False, show_right_ui=False
            )
        except (RuntimeError, mujoco.FatalError) as error:
            raise InputError(
                f'render_mode "human" cannot open a window: {error}. On macOS start Python as '
                'mjpython; or use "rgb_array"'
            ) from error

    def draw(self, qpos: np.ndarray) -> None:
        """Show a configuration, not before a control period after the last, unless closed."""
        if not self._viewer.is_running():
            return
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._due = max(self._due, time.monotonic()) + self._period
        with self._viewer.lock():
            self._data.qpos[:] = qpos
            mujoco.mj_fwdPosition(self._model, self._data)
        self._viewer.sync()

    def close(self) -> None:
        self._viewer.close()


def _radius(model: mujoco.MjModel, data: mujoco.MjData) -> float:
    """Return the radius of a sphere about the centre of mass that holds every moving geom, m."""
    moving = model.geom_bodyid > 0
    reach = np.linalg.norm(data.geom_xpos[moving] - data.subtree_com[1], axis=1)
    return float(np.max(reach + model.geom_rbound[moving], initial=0.1))
