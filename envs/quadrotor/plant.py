"""Quadrotor: design variables, units, gusts and closed-form checks. Constants: README.md."""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np

from physai.plant import Check, DesignVariable, Plant

ROTOR_MASS = 0.23  # kg at 13 N maximal thrust; grows in proportion to the thrust
ARM_MASS_PER_LENGTH = 0.15  # kg/m
YAW_MOMENT = 0.0201  # N m per N of thrust, that is m
MAX_THRUST = 13.0  # N a rotor
ARM_LENGTH = float(np.hypot(0.14, 0.18))  # m, centre to rotor axis
ROTOR_RADIUS = 0.13  # m at the nominal arm length; grows in proportion to it

DESIGN = (
    DesignVariable("arm_length", "m", 0.16, 0.34, ARM_LENGTH),
    DesignVariable("payload", "kg", 0.0, 0.6, 0.0),
    DesignVariable("max_thrust", "N", 9.0, 18.0, MAX_THRUST),
    DesignVariable("motor_time_constant", "s", 0.03, 0.10, 0.05),
)
UNITS = {
    **{f"rotor_{i}": "1" for i in (1, 2, 3, 4)},
    **{f"gust_{axis}": "N" for axis in "xyz"},
}
DISTURBANCES = {
    f"gust_{axis}": {"std": 0.2, "correlation_time": 0.5, "vector": "gust"} for axis in "xyz"
}


def apply(spec: mujoco.MjSpec, design: Mapping[str, float]) -> None:
    """Write a design into the spec: geometry, masses, thrust and motor lag."""
    scale = design["arm_length"] / ARM_LENGTH
    thrust = design["max_thrust"]
    for i, (x, y) in enumerate([(1, -1), (1, 1), (-1, 1), (-1, -1)], start=1):
        tip = [0.14 * x * scale, 0.18 * y * scale]
        rotor, arm = spec.geom(f"rotor_{i}"), spec.geom(f"arm_{i}")
        rotor.pos = [*tip, 0.03]
        rotor.size = [ROTOR_RADIUS * scale, 0.006, 0.0]
        rotor.mass = ROTOR_MASS * thrust / MAX_THRUST
        arm.fromto = [0.0, 0.0, 0.01, *tip, 0.01]
        arm.mass = ARM_MASS_PER_LENGTH * design["arm_length"]
        spec.site(f"thrust_{i}").pos = [*tip, 0.03]
        actuator = spec.actuator(f"rotor_{i}")
        actuator.gainprm[0] = thrust
        actuator.dynprm[0] = design["motor_time_constant"]
    spec.geom("payload").mass = design["payload"]


def checks(plant: Plant) -> list[Check]:
    """Compare the simulated machine with closed forms."""
    model = plant.model
    weight = float(model.body_subtreemass[0]) * -float(model.opt.gravity[2])
    return [
        Check("mass", "kg", 1.325, float(model.body_subtreemass[0]), 1e-3),
        Check("hover thrust of a rotor", "N", 3.2496, _hover_thrust(model), 1e-3),
        Check("thrust-to-weight ratio", "1", 4.0, _full_thrust(model) / weight, 1e-3),
        Check("height lost in 1 s of free fall", "m", 4.905, _free_fall(model), 0.02),
        Check(
            "drift of angular momentum in 1 s of torque-free rotation", "1", 0.0, _spin(model), 0.01
        ),
        Check("motor response after one time constant", "1", 1 - np.exp(-1), _motor(plant), 1e-6),
    ]


def _bare(model: mujoco.MjModel) -> mujoco.MjModel:
    """Return a copy without air, for closed forms that know none."""
    import copy

    model = copy.copy(model)
    model.opt.density = model.opt.viscosity = 0.0
    return model


def _vertical_force(model: mujoco.MjModel, throttle: float) -> float:
    data = mujoco.MjData(model)
    data.act[:] = throttle
    mujoco.mj_forward(model, data)
    return float(data.qfrc_actuator[2])


def _hover_thrust(model: mujoco.MjModel) -> float:
    """Thrust of a rotor at the throttle that makes the vertical acceleration vanish (secant)."""

    def acceleration(throttle: float) -> float:
        data = mujoco.MjData(_bare(model))
        data.act[:] = throttle
        mujoco.mj_forward(_bare(model), data)
        return float(data.qacc[2])

    low, high = acceleration(0.0), acceleration(1.0)
    return _vertical_force(model, -low / (high - low)) / 4.0


def _full_thrust(model: mujoco.MjModel) -> float:
    return _vertical_force(model, 1.0)


def _free_fall(model: mujoco.MjModel) -> float:
    model = _bare(model)
    data = mujoco.MjData(model)
    mujoco.mj_step(model, data, nstep=round(1.0 / model.opt.timestep))
    return float(-data.qpos[2])


def _spin(model: mujoco.MjModel) -> float:
    """Relative drift of the angular momentum vector of a tumbling body, no gravity, no air."""
    model = _bare(model)
    model.opt.gravity[:] = 0.0
    data = mujoco.MjData(model)
    data.qvel[3:] = (3.0, -2.0, 4.0)

    def momentum() -> np.ndarray:
        mujoco.mj_forward(model, data)
        mujoco.mj_subtreeVel(model, data)
        return data.subtree_angmom[1].copy()

    start = momentum()
    mujoco.mj_step(model, data, nstep=round(1.0 / model.opt.timestep))
    return float(np.linalg.norm(momentum() - start) / np.linalg.norm(start))


def _motor(plant: Plant) -> float:
    """Activation one time constant after a step of the throttle from 0 to 1."""
    model = plant.compile(
        [v.nominal if v.name != "motor_time_constant" else 0.08 for v in plant.design]
    )
    data = mujoco.MjData(model)
    data.ctrl[list(plant.action_ids)] = 1.0
    mujoco.mj_step(model, data, nstep=round(0.08 / model.opt.timestep))
    return float(data.act[0])
