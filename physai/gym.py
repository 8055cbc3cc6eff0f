"""Gymnasium ids of the shipped plants, registered when this module is imported and by nothing else.

    env = gymnasium.make("physai.gym:Quadrotor-v0")                    # true MuJoCo
    env = gymnasium.make("physai.gym:Quadrotor-v0", surrogate=PATH)    # a surrogate of it
    envs = gymnasium.make_vec("physai.gym:Quadrotor-v0", num_envs=64)  # all cores, one call

A user's own folder needs no id: `physai.env.single.PlantEnv(PATH)`.
"""

from __future__ import annotations

import re
import warnings

import gymnasium

from physai.plant import plant_names

ENTRY_POINT = "physai.env.single:PlantEnv"
VECTOR_ENTRY_POINT = "physai.env.vector:PlantVectorEnv"


def env_id(plant_name: str) -> str:
    """Return the id of a shipped plant: `flexible_wing` becomes `FlexibleWing-v0`."""
    words = re.split(r"[_\W]+", plant_name)
    return "".join(word[:1].upper() + word[1:] for word in words) + "-v0"


def quiet() -> None:
    """Keep Gymnasium from calling ours an old version of its own environment of that name."""
    warnings.filterwarnings("ignore", message=r".*The environment \w+-v0 is out of date.*v5")


quiet()
for _name in plant_names():
    if env_id(_name) not in gymnasium.registry:
        gymnasium.register(
            env_id(_name),
            entry_point=ENTRY_POINT,
            vector_entry_point=VECTOR_ENTRY_POINT,
            kwargs={"plant": _name},
        )
