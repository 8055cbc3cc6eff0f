"""More training data than were recorded: what a plant's images of itself make of its episodes.

Images are exact (`physai.rollout.images`), so that what they add is as good as what was flown. A
network that has seen both halves of a symmetry needs not learn it from chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np

from physai.rollout.dataset import Episodes
from physai.rollout.images import Image, mapped


def with_images(episodes: Episodes, images: Sequence[Image]) -> Episodes:
    """Return episodes, and after them their images, without what sensors read."""
    own = replace(episodes, sensors=None)
    every = [own, *(_image(own, image) for image in images)]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *every)


def _image(episodes: Episodes, image: Image) -> Episodes:
    return replace(
        episodes,
        states=image.state(episodes.states),
        actions=mapped(image.actions, episodes.actions),
        disturbances=mapped(image.disturbances, episodes.disturbances),
    )
