"""Cart and pole: design variables, units and closed-form checks. Constants: README.md."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import mujoco
import numpy as np

from physai.plant import Check, DesignVariable, Plant

GRAVITY = 9.81  # m/s^2
POLE_RADIUS = 0.045  # m
FULL_FORCE = 10.0  # N

DESIGN = (
    DesignVariable("pole_length", "m", 0.5, 1.5, 1.0),
    DesignVariable("pole_mass", "kg", 0.05, 0.3, 0.1),
    DesignVariable("cart_mass", "kg", 0.5, 2.0, 1.0),
)
UNITS = {"push": "1"}
DISTURBANCES: dict[str, dict[str, float | str]] = {}


def apply(spec: mujoco.MjSpec, design: Mapping[str, float]) -> None:
    """Write a design into the spec: length and mass of the pole, mass of the cart."""
    pole = spec.geom("pole")
    pole.fromto = [0.0, 0.0, 0.0, 0.0, 0.0, design["pole_length"]]
    pole.mass = design["pole_mass"]
    spec.geom("cart").mass = design["cart_mass"]


def capsule_inertia(mass: float, radius: float, length: float) -> float:
    """Moment of inertia of a solid capsule about a transverse axis through its centre, kg m^2.

    A cylinder of `length` and two half balls of `radius`, of one density, each about its own centre
    of mass and moved by the parallel-axis theorem; a half ball's centre of mass lies 3/8 of the
    radius off its flat face, and its inertia about a transverse axis through the face is 2/5 m r^2.
    """
    cylinder_volume, ball_volume = np.pi * radius**2 * length, 4.0 / 3.0 * np.pi * radius**3
    cylinder = mass * cylinder_volume / (cylinder_volume + ball_volume)
    ball = mass - cylinder
    own = 0.4 * radius**2 - (3.0 / 8.0 * radius) ** 2
    offset = 0.5 * length + 3.0 / 8.0 * radius
    return float(cylinder * (length**2 / 12.0 + radius**2 / 4.0) + ball * (own + offset**2))


def checks(plant: Plant) -> list[Check]:
    """Compare the nominal machine with closed forms."""
    return design_checks(plant, plant.nominal)


def design_checks(plant: Plant, design: np.ndarray) -> list[Check]:
    """Compare the machine of one design `[3]` with closed forms."""
    length, pole, cart = (float(x) for x in design)
    arm = 0.5 * length  # m, hinge to the pole's centre of mass
    inertia = capsule_inertia(pole, POLE_RADIUS, length) + pole * arm**2
    total, coupling = cart + pole, pole * arm
    frequency = np.sqrt(GRAVITY * coupling / (inertia - coupling**2 / total)) / (2.0 * np.pi)
    acceleration = FULL_FORCE / (total - coupling**2 / inertia)
    model = plant.compile(design, textures=False)
    mass_matrix = _recovered_mass_matrix(model)

    def energy(qpos: np.ndarray, qvel: np.ndarray) -> float:
        kinetic = 0.5 * (total * qvel[0] ** 2 + inertia * qvel[1] ** 2)
        kinetic += coupling * np.cos(qpos[1]) * qvel[0] * qvel[1]
        return float(kinetic + coupling * GRAVITY * np.cos(qpos[1]))

    released = np.array([0.0, 1.0])  # m, rad
    return [
        Check("moving mass", "kg", total, float(mass_matrix[0, 0]), 1e-6),
        Check("inertia about the hinge", "kg m^2", inertia, float(mass_matrix[1, 1]), 1e-6),
        Check("first moment of the pole", "kg m", coupling, float(mass_matrix[0, 1]), 1e-6),
        Check(
            "energy 5 s after a release at 1 rad, no friction",
            "J",
            energy(released, np.zeros(2)),
            energy(*_released(model, released, 5.0)),
            1e-4,
        ),
        Check("frequency of the hanging pole", "Hz", frequency, _frequency(model), 1e-4),
        Check("acceleration under full force", "m/s^2", acceleration, _pushed(model), 1e-3),
    ]


def _frictionless(model: mujoco.MjModel) -> mujoco.MjModel:
    model = copy.copy(model)
    model.dof_damping[:] = 0.0
    return model


def _recovered_mass_matrix(model: mujoco.MjModel) -> np.ndarray:
    """Mass matrix `[2, 2]` of the upright pole, from what unit loads do to the accelerations."""
    model = _frictionless(model)
    columns = []
    for load in np.eye(2):
        data = mujoco.MjData(model)
        data.qfrc_applied[:] = load
        mujoco.mj_forward(model, data)
        columns.append(data.qacc.copy())
    return np.linalg.inv(np.array(columns).T)


def _released(
    model: mujoco.MjModel, qpos: np.ndarray, seconds: float
) -> tuple[np.ndarray, np.ndarray]:
    """Position and velocity `seconds` after a release from rest, without friction."""
    model = _frictionless(model)
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_step(model, data, nstep=round(seconds / model.opt.timestep))
    return data.qpos.copy(), data.qvel.copy()


def _frequency(model: mujoco.MjModel) -> float:
    """Frequency of the pole hanging on the free cart, from its upward crossings of the vertical."""
    model = _frictionless(model)
    data = mujoco.MjData(model)
    data.qpos[1] = np.pi + 0.01
    angles = []
    for _ in range(round(10.0 / model.opt.timestep)):
        angles.append(data.qpos[1] - np.pi)
        mujoco.mj_step(model, data)
    angle = np.array(angles)
    before = np.flatnonzero((angle[:-1] < 0.0) & (angle[1:] >= 0.0))
    crossings = before + angle[before] / (angle[before] - angle[before + 1])
    return float((len(crossings) - 1) / (crossings[-1] - crossings[0]) / model.opt.timestep)


def _pushed(model: mujoco.MjModel) -> float:
    """Acceleration of the cart at rest with the pole hanging, at full action."""
    data = mujoco.MjData(model)
    data.qpos[1] = np.pi
    data.ctrl[0] = 1.0
    mujoco.mj_forward(model, data)
    return float(data.qacc[0])
