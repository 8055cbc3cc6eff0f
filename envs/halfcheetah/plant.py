"""Gymnasium's HalfCheetah-v5: the model of the installed package, design variables, the check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gymnasium
import mujoco

from physai.env.peer import peer_checks
from physai.plant import Check, DesignVariable, Plant

MODEL = Path(gymnasium.__file__).parent / "envs/mujoco/assets/half_cheetah.xml"
MODEL_SHA256 = "11797a5d69e8ac955e89ca6fdd3a0087f1c990094fda401ac51420de1b6c5494"
CONTROL_PERIOD = 0.05  # s: frame_skip 5
SPINE, MASS = 1.0, 14.0  # m, kg, of the model

UNITS = {f"{end}{part}": "1" for end in "bf" for part in ("thigh", "shin", "foot")}
DESIGN = (
    DesignVariable("spine_length", "m", 0.8, 1.2, SPINE),
    DesignVariable("mass", "kg", 10.0, 20.0, MASS),
)


def apply(spec: mujoco.MjSpec, design: Mapping[str, float]) -> None:
    """Write a design into the spec; the nominal one leaves every number of the file as it is."""
    spec.add_numeric(name="control_period", data=[CONTROL_PERIOD])
    if (half := 0.5 * design["spine_length"]) != 0.5 * SPINE:
        spec.geom("torso").fromto = [-half, 0.0, 0.0, half, 0.0, 0.0]
        spec.geom("head").pos[0] = half + 0.1
        spec.body("bthigh").pos[0] = -half
        spec.body("fthigh").pos[0] = half
    spec.compiler.settotalmass = design["mass"]


def checks(plant: Plant) -> list[Check]:
    """Compare with Gymnasium's own environment, step by step; see `physai.env.peer`."""
    return peer_checks("HalfCheetah-v5", plant)
