"""Gymnasium's Humanoid-v5: the model of the installed package, design variables, the check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gymnasium
import mujoco

from physai.env.peer import peer_checks
from physai.plant import Check, DesignVariable, Plant

MODEL = Path(gymnasium.__file__).parent / "envs/mujoco/assets/humanoid.xml"
MODEL_SHA256 = "85816f372c826d2094b4a598918233bd9c5843b2439119eece2733bdc2e0d073"
CONTROL_PERIOD = 0.015  # s: frame_skip 5
SHIN, HEAD = 0.3, 3.053628059289279  # m, kg, of the model

UNITS = {
    **{f"abdomen_{axis}": "1" for axis in "xyz"},
    **{f"{side}_hip_{axis}": "1" for side in ("right", "left") for axis in "xyz"},
    **{f"{side}_{joint}": "1" for side in ("right", "left") for joint in ("knee", "elbow")},
    **{f"{side}_shoulder{i}": "1" for side in ("right", "left") for i in (1, 2)},
}
DESIGN = (
    DesignVariable("shin_length", "m", 0.24, 0.36, SHIN),
    DesignVariable("head_mass", "kg", 2.0, 5.0, HEAD),
)


def apply(spec: mujoco.MjSpec, design: Mapping[str, float]) -> None:
    """Write a design into the spec; the nominal one leaves every number of the file as it is."""
    spec.add_numeric(name="control_period", data=[CONTROL_PERIOD])
    if (longer := design["shin_length"] - SHIN) != 0.0:
        for side in ("right", "left"):
            spec.geom(f"{side}_shin1").fromto[5] -= longer
            spec.body(f"{side}_foot").pos[2] -= longer
    if design["head_mass"] != HEAD:
        spec.geom("head").mass = design["head_mass"]


def checks(plant: Plant) -> list[Check]:
    """Compare with Gymnasium's own environment, step by step; see `physai.env.peer`."""
    return peer_checks("Humanoid-v5", plant)
