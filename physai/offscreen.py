"""Rendering without a screen: MuJoCo's renderer on EGL, else on OSMesa."""

from __future__ import annotations

import ctypes.util
import importlib
import os
import sys
from collections.abc import Callable

import mujoco

from physai.errors import InputError

_BACKENDS = {"egl": "EGL", "osmesa": "OSMesa"}


def offscreen_renderer(model: mujoco.MjModel, width: int, height: int) -> mujoco.Renderer:
    """Make a renderer that needs no screen, unless MUJOCO_GL says otherwise.

    Raises:
        InputError: no way to render here, with what to install.
    """
    if sys.platform == "linux" and not os.environ.get("MUJOCO_GL"):
        os.environ["MUJOCO_GL"] = find_backend()
        # MuJoCo read the variable when it was imported, and chose a backend that needs a screen.
        importlib.reload(importlib.import_module("mujoco.rendering.classic.gl_context"))
    try:
        return mujoco.Renderer(model, height, width)
    except (ImportError, RuntimeError, AttributeError, mujoco.FatalError) as error:
        raise InputError(
            f"cannot render: OpenGL is not available (MUJOCO_GL={os.environ.get('MUJOCO_GL')}): "
            f"{error}. On Debian and Ubuntu: apt install libegl1 libegl-mesa0, or libosmesa6 and "
            "set MUJOCO_GL=osmesa."
        ) from error


def find_backend(find: Callable[[str], str | None] = ctypes.util.find_library) -> str:
    """Return the first rendering backend whose library `find` knows, "egl" or "osmesa"."""
    for name, library in _BACKENDS.items():
        if find(library):
            return name
    raise InputError(
        "cannot render: neither EGL nor OSMesa was found. On Debian and Ubuntu: "
        "apt install libegl1 libegl-mesa0, or libosmesa6."
    )
