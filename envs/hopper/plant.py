"""Gymnasium's Hopper-v5: the model of the installed package, design variables, the check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gymnasium
import mujoco

from physai.env.peer import peer_checks
from physai.plant import Check, DesignVariable, Plant

MODEL = Path(gymnasium.__file__).parent / "envs/mujoco/assets/hopper.xml"
MODEL_SHA256 = "3ce93a055ffdcd83c0c701d2400768e40d2cbb9532f3c4ae33377c27f8b39f9e"
CONTROL_PERIOD = 0.008  # s: frame_skip 4
THIGH, LEG, TORSO = 0.45, 0.5, 3.6651914291880923  # m, m, kg, of the model

UNITS = {"thigh": "1", "leg": "1", "foot": "1"}
DESIGN = (
    DesignVariable("thigh_length", "m", 0.36, 0.54, THIGH),
    DesignVariable("leg_length", "m", 0.4, 0.6, LEG),
    DesignVariable("torso_mass", "kg", 2.5, 5.5, TORSO),
)


def apply(spec: mujoco.MjSpec, design: Mapping[str, float]) -> None:
    """Write a design into the spec; the nominal one leaves every number of the file as it is."""
    spec.add_numeric(name="control_period", data=[CONTROL_PERIOD])
    for actuator in spec.actuators:
        actuator.name = actuator.target.removesuffix("_joint")
    thigh, leg = design["thigh_length"], design["leg_length"]
    if thigh != THIGH:
        spec.geom("thigh_geom").size[1] = 0.5 * thigh
        spec.geom("thigh_geom").pos[2] = -0.5 * thigh
    if leg != LEG:
        spec.geom("leg_geom").size[1] = 0.5 * leg
        spec.joint("leg_joint").pos[2] = 0.5 * leg
        spec.body("foot").pos[2] = -0.5 * leg - 0.1
    if thigh != THIGH or leg != LEG:
        spec.body("leg").pos[2] = -thigh - 0.5 * leg
    if design["torso_mass"] != TORSO:
        spec.geom("torso_geom").mass = design["torso_mass"]


def checks(plant: Plant) -> list[Check]:
    """Compare with Gymnasium's own environment, step by step; see `physai.env.peer`."""
    return peer_checks("Hopper-v5", plant)
