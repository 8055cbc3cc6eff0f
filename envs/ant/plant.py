"""Gymnasium's Ant-v5: the model of the installed package, design variables, the check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gymnasium
import mujoco

from physai.env.peer import peer_checks
from physai.plant import Check, DesignVariable, Plant

MODEL = Path(gymnasium.__file__).parent / "envs/mujoco/assets/ant.xml"
MODEL_SHA256 = "cd5f83ef0ea35b0969e65d360c5bacd5b74ccaef6b27e4433b5168c605e3e2be"
CONTROL_PERIOD = 0.05  # s: frame_skip 5
SHIN, TORSO = 0.4 * 2.0**0.5, 0.32724923474893675  # m, kg, of the model
SHINS = ("left_ankle", "right_ankle", "third_ankle", "fourth_ankle")

UNITS = {f"{joint}_{leg}": "1" for joint in ("hip", "ankle") for leg in (1, 2, 3, 4)}
DESIGN = (
    DesignVariable("shin_length", "m", 0.45, 0.68, SHIN),
    DesignVariable("torso_mass", "kg", 0.2, 0.6, TORSO),
)


def apply(spec: mujoco.MjSpec, design: Mapping[str, float]) -> None:
    """Write a design into the spec; the nominal one leaves every number of the file as it is."""
    spec.add_numeric(name="control_period", data=[CONTROL_PERIOD])
    for actuator in spec.actuators:
        actuator.name = actuator.target
    if design["shin_length"] != SHIN:
        for name in SHINS:
            geom = spec.geom(f"{name}_geom")
            geom.fromto[3:] = geom.fromto[3:] * (design["shin_length"] / SHIN)
    if design["torso_mass"] != TORSO:
        spec.geom("torso_geom").mass = design["torso_mass"]


def checks(plant: Plant) -> list[Check]:
    """Compare with Gymnasium's own environment, step by step; see `physai.env.peer`."""
    return peer_checks("Ant-v5", plant)
