"""Film strips: pictures of a stored flight, as JPEG inside the page."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from physai.errors import InputError
from physai.plant import Plant
from physai.report.series import Flown
from physai.verify import frame_indices, render

FRAMES = 8
SIZE = (320, 240)  # pixels
QUALITY = 80  # of 100: about 8 kB a picture


class Frame(NamedTuple):
    """One picture, and the moment it shows."""

    uri: str
    seconds: str


class Strip(NamedTuple):
    """The pictures of a flight, or the reason why there are none."""

    title: str
    frames: list[Frame]
    missing: str


def strip(plant: Plant, flown: Flown, title: str) -> Strip:
    """Render a stored flight up to the moment it was lost, or else to its end.

    A machine that cannot render gets the reason instead.
    """
    whole = flown.saved.trajectory
    # A lost machine may fly off for a hundred metres, and would be a dot in every picture.
    trajectory = replace(whole, states=whole.states[: flown.end + 1])
    if flown.end + 1 < len(whole.states.time):
        title = f"{title}, until it was lost"
    try:
        images = render(plant, trajectory, FRAMES, *SIZE)
    except InputError as error:
        return Strip(title, [], str(error))
    except Exception as error:  # what a broken OpenGL raises differs by system; the rest is sound
        return Strip(title, [], f"{type(error).__name__} while rendering: {error}")
    moments = flown.time[frame_indices(plant, trajectory.states, FRAMES)]
    frames = [Frame(_jpeg(i), f"{t:.2f}") for i, t in zip(images, moments, strict=True)]
    return Strip(title, frames, "")


def _jpeg(image: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    picture = Image.fromarray(np.asarray(image, np.uint8)).convert("RGB")
    picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
