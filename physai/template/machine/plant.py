"""__NAME__: design variables, units, a disturbance and closed-form checks. Constants: README.md.

physai reads seven names of this file, and each may be missing: DESIGN with `apply`, UNITS,
DISTURBANCES, SENSORS (those to record; without it all), `checks`, and `forces` for forces that MJCF
cannot say (this machine has neither).
"""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np

from physai.plant import Check, DesignVariable, Plant

HUB_MASS, HUB_RADIUS = 2.0, 0.08  # kg, m
BEAM_MASS, BEAM_LENGTH, BEAM_WIDTH = 0.3, 0.4, 0.03  # kg, m, m
PAYLOAD_RADIUS = 0.025  # m
MAX_TORQUE = 1.5  # N m
MAX_WIND = 0.3  # N
HUB, FLEXURE = range(2)  # places in qpos and qvel
TORQUE, WIND = range(2)  # places in ctrl

# What a design study may move: name, unit, low, high, nominal. The nominal values are those of
# plant.xml. Data are collected, and policies learned, over a range of designs.
DESIGN = (
    DesignVariable("payload", "kg", 0.1, 0.4, 0.2),
    DesignVariable("stiffness", "N m/rad", 3.0, 10.0, 5.0),
)

# Units of the actuators, without the prefix `disturbance/`.
UNITS = {"torque": "N m", "wind": "N"}

# Ornstein-Uhlenbeck processes of the actuators with that prefix: standard deviation in the
# actuator's unit, and correlation time in s. They are clipped to the actuator's range.
DISTURBANCES = {"wind": {"std": 0.1, "correlation_time": 0.5}}


def apply(spec: mujoco.MjSpec, design: Mapping[str, float]) -> None:
    """Write a design into the spec, and everything that follows from it.

    Here MuJoCo derives the inertia from the mass. What it cannot derive (a spring that is chosen
    by its frequency, the cross-section of a longer beam) has to be computed here.
    """
    spec.geom("payload").mass = design["payload"]
    # MjSpec stores a polynomial of the angle: the first term is linear.
    spec.joint("flexure").stiffness[0] = design["stiffness"]


def checks(plant: Plant) -> list[Check]:
    """Compare the nominal machine with closed forms: what `physai check` prints."""
    return design_checks(plant, plant.nominal)


def design_checks(plant: Plant, design: np.ndarray) -> list[Check]:
    """Compare the machine of one design `[2]` with closed forms.

    The closed forms use the constants above and the design, and nothing that MuJoCo computed: so a
    wrong mass, arm or gear in plant.xml shows. Their last number is the tolerance, see README.md.
    """
    payload, stiffness = (float(x) for x in design)
    hub, arm = hub_inertia(), arm_inertia(payload)
    ringing = np.sqrt(stiffness * (1.0 / hub + 1.0 / arm)) / (2.0 * np.pi)
    hub_rate, flexure_rate = _pushed(plant, design, seconds=0.1)
    momentum = hub * hub_rate + arm * (hub_rate + flexure_rate)
    bend = MAX_WIND * BEAM_LENGTH / stiffness
    return [
        Check("momentum after 0.1 s of full torque", "N m s", 0.1 * MAX_TORQUE, momentum, 1e-6),
        Check("frequency of the free arm", "Hz", ringing, _ringing(plant, design), 0.01),
        Check("deflection in steady wind", "rad", bend, _bent(plant, design), 1e-6),
    ]


def hub_inertia() -> float:
    """Moment of inertia of a cylinder about its axis, m r^2 / 2, kg m^2."""
    return 0.5 * HUB_MASS * HUB_RADIUS**2


def arm_inertia(payload: float) -> float:
    """Moment of inertia of beam and payload about the hub's axis, kg m^2, by parallel axes."""
    beam = BEAM_MASS * ((BEAM_LENGTH**2 + BEAM_WIDTH**2) / 12.0 + (0.5 * BEAM_LENGTH) ** 2)
    return beam + payload * (0.4 * PAYLOAD_RADIUS**2 + BEAM_LENGTH**2)


def _pushed(plant: Plant, design: np.ndarray, seconds: float) -> tuple[float, float]:
    """Rates of hub and flexure after full torque from rest, without friction in the bearing."""
    model = plant.compile(design, textures=False)
    model.dof_damping[HUB] = 0.0
    data = mujoco.MjData(model)
    data.ctrl[TORQUE] = MAX_TORQUE
    mujoco.mj_step(model, data, nstep=round(seconds / model.opt.timestep))
    return float(data.qvel[HUB]), float(data.qvel[FLEXURE])


def _ringing(plant: Plant, design: np.ndarray) -> float:
    """Frequency at which arm and free hub swing against each other, Hz, from zero crossings."""
    model = plant.compile(design, textures=False)
    model.dof_damping[:] = 0.0
    data = mujoco.MjData(model)
    data.qpos[FLEXURE] = 0.1
    angles = []
    for _ in range(round(5.0 / model.opt.timestep)):
        angles.append(data.qpos[FLEXURE])
        mujoco.mj_step(model, data)
    angle = np.array(angles)
    before = np.flatnonzero((angle[:-1] < 0.0) & (angle[1:] >= 0.0))
    crossings = before + angle[before] / (angle[before] - angle[before + 1])
    return float((len(crossings) - 1) / (crossings[-1] - crossings[0]) / model.opt.timestep)


def _bent(plant: Plant, design: np.ndarray) -> float:
    """Deflection after 10 s of full wind, rad: the hub held, the flexure damped more."""
    model = plant.compile(design, textures=False)
    model.dof_damping[:] = (1e9, 1.0)
    data = mujoco.MjData(model)
    data.ctrl[WIND] = MAX_WIND
    mujoco.mj_step(model, data, nstep=round(10.0 / model.opt.timestep))
    return float(data.qpos[FLEXURE])
