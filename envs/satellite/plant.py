"""Satellite: design variables, units, disturbance torque, closed-form checks. Constants: README.md.

The joint of a wheel carries its spin inertia, so that momentum exchange is the simulation's own.
"""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np

from physai.plant import Check, DesignVariable, Plant

BUS_SIDE = 1.0  # m
BUS_MASS = 200.0  # kg
PANEL_MASS = 10.0  # kg
PANEL_LENGTH = 2.0  # m, along y
PANEL_WIDTH = 1.0  # m
PANEL_THICKNESS = 0.02  # m
PANEL_DAMPING_RATIO = 0.005
WHEEL_MASS = 5.0  # kg
WHEEL_OFFSET = 0.25  # m, along x and along y
WHEEL_TORQUE = 0.2  # N m
WHEEL_SPEED = 200.0 * np.pi  # rad/s, 6,000 rpm
WHEEL_INERTIA = 50.0 / WHEEL_SPEED  # kg m^2: 50 N m s at 6,000 rpm
SIGNS = np.array([(1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0)])
PANEL_INERTIA = PANEL_MASS * (PANEL_LENGTH**2 / 3.0 + PANEL_THICKNESS**2 / 12.0)  # at the hinge

DESIGN = (
    DesignVariable("rotor_inertia", "kg m^2", 0.05, 0.12, float(WHEEL_INERTIA)),
    DesignVariable("cant_angle", "deg", 20.0, 55.0, float(np.degrees(np.arcsin(3**-0.5)))),
    DesignVariable("bus_mass", "kg", 120.0, 300.0, BUS_MASS),
    DesignVariable("panel_stiffness", "N m/rad", 20.0, 200.0, 50.0),
)
UNITS = {
    **{f"wheel_{i}": "N m" for i in (1, 2, 3, 4)},
    **{f"torque_{axis}": "N m" for axis in "xyz"},
}
DISTURBANCES = {
    f"torque_{axis}": {"std": 2e-3, "correlation_time": 20.0, "vector": "torque"} for axis in "xyz"
}


def wheel_axes(cant_angle: float) -> np.ndarray:
    """Spin axes `[4, 3]` of a pyramid about z, canted by an angle in degrees out of the plane."""
    cant = np.radians(cant_angle)
    flat = SIGNS * np.cos(cant) / np.sqrt(2.0)
    return np.column_stack([flat, np.full(4, np.sin(cant))])


def apply(spec: mujoco.MjSpec, design: Mapping[str, float]) -> None:
    """Write a design into the spec: wheels, bus mass, and springs and dampers of the panels."""
    rotor = design["rotor_inertia"]
    for i, (x, y, z) in enumerate(wheel_axes(design["cant_angle"]), start=1):
        wheel = spec.body(f"wheel_{i}")
        turn = np.array([1.0 + z, -y, x, 0.0])
        wheel.quat = turn / np.linalg.norm(turn)
        wheel.inertia = [0.5 * rotor, 0.5 * rotor, rotor]
    spec.geom("bus").mass = design["bus_mass"]
    stiffness = design["panel_stiffness"]
    for name in ("panel_1", "panel_2"):
        joint = spec.joint(name)
        joint.stiffness[0] = stiffness
        joint.damping[0] = 2.0 * PANEL_DAMPING_RATIO * np.sqrt(stiffness * PANEL_INERTIA)


def checks(plant: Plant) -> list[Check]:
    """Compare the simulated machine with closed forms at the nominal design."""
    return checks_of(plant, plant.nominal)


def checks_of(plant: Plant, design: np.ndarray) -> list[Check]:
    """Compare the machine of a design `[4]` with closed forms."""
    x_inertia, y_inertia = _locked_inertia(design)
    axis_y = wheel_axes(float(design[1]))[:, 1]
    rate = -float(np.sum(np.abs(axis_y))) * 0.1 * 10.0 / y_inertia
    coupling = PANEL_INERTIA + PANEL_MASS * 0.25 * BUS_SIDE * PANEL_LENGTH
    rocking = PANEL_INERTIA - 2.0 * coupling**2 / x_inertia
    mass = float(design[2]) + 4.0 * WHEEL_MASS + 2.0 * PANEL_MASS
    heaving = PANEL_INERTIA - 2.0 * (0.5 * PANEL_MASS * PANEL_LENGTH) ** 2 / mass
    modes = [float(np.sqrt(design[3] / i) / (2.0 * np.pi)) for i in (rocking, heaving)]
    expected, precession = _precession(plant, design)
    return [
        Check("rate after 10 s of 0.1 N m", "rad/s", rate, _spin_up(plant, design), 1e-8),
        Check("precession in 10 s", "rad", expected, precession, 1e-6),
        Check("drift of angular momentum in 20 s", "1", 0.0, _drift(plant, design), 1e-9),
        Check("mode with the bus turning", "Hz", modes[0], _mode(plant, design, 1.0), 1e-5),
        Check("mode with the bus moving", "Hz", modes[1], _mode(plant, design, -1.0), 1e-5),
    ]


def _locked_inertia(design: np.ndarray) -> tuple[float, float]:
    """Inertia about x and y, kg m^2, panels locked, without the free spin of the wheels."""
    rotor, cant, bus, _ = (float(v) for v in design)
    flat = np.cos(np.radians(cant)) ** 2 / 2.0
    wheels = 4.0 * (WHEEL_MASS * WHEEL_OFFSET**2 + 0.5 * rotor * (1.0 - flat))
    common = bus * BUS_SIDE**2 / 6.0 + wheels
    arm = 0.5 * (BUS_SIDE + PANEL_LENGTH)
    about_x = PANEL_MASS * ((PANEL_LENGTH**2 + PANEL_THICKNESS**2) / 12.0 + arm**2)
    about_y = PANEL_MASS * (PANEL_WIDTH**2 + PANEL_THICKNESS**2) / 12.0
    return common + 2.0 * about_x, common + 2.0 * about_y


def _run(model: mujoco.MjModel, data: mujoco.MjData, seconds: float) -> None:
    mujoco.mj_step(model, data, nstep=round(seconds / model.opt.timestep))


def _spin_up(plant: Plant, design: np.ndarray) -> float:
    """Rate about y, rad/s; a turn about y does not bend the panels."""
    model = plant.compile(design)
    data = mujoco.MjData(model)
    data.ctrl[:4] = 0.1 * np.sign(wheel_axes(float(design[1]))[:, 1])
    _run(model, data, 10.0)
    return float(data.qvel[4])


def _precession(plant: Plant, design: np.ndarray) -> tuple[float, float]:
    """Angle that the rate turns in the body in 10 s, rad: closed form and simulated.

    Bus twice as high, panels massless and locked, wheels locked: axisymmetric about z. Rate of the
    turn: (I3 - I1) / I1 w3 (Markley and Crassidis, Fundamentals of Spacecraft
    Attitude Determination and Control, 2014).
    """
    spec = plant.spec(design)
    for actuator in list(spec.actuators):
        spec.delete(actuator)
    for name in [*(f"wheel_{i}" for i in (1, 2, 3, 4)), "panel_1", "panel_2"]:
        spec.delete(spec.joint(name))
    spec.geom("panel_1").mass = spec.geom("panel_2").mass = 0.0
    spec.geom("bus").size = [0.5, 0.5, 1.0]
    model = spec.compile()
    data = mujoco.MjData(model)
    data.qvel[3:6] = (0.02, 0.0, 0.2)
    _run(model, data, 10.0)
    rotor, cant, bus, _ = (float(v) for v in design)
    square = np.sin(np.radians(cant)) ** 2
    offset = 4.0 * WHEEL_MASS * WHEEL_OFFSET**2
    along = bus / 6.0 + 2.0 * offset + 2.0 * rotor * (1.0 + square)
    across = bus * 5.0 / 12.0 + offset + 2.0 * rotor * (1.0 + 0.5 * (1.0 - square))
    turned = float(np.arctan2(data.qvel[4], data.qvel[3]))
    return float((along - across) / across * 0.2 * 10.0), turned


def _drift(plant: Plant, design: np.ndarray) -> float:
    """Relative drift of the angular momentum, wheels driven and panels swinging."""
    model = plant.compile(design)
    data = mujoco.MjData(model)
    data.qvel[3:] = (0.05, -0.03, 0.04, 100.0, -200.0, 300.0, 50.0, 0.02, -0.01)
    data.ctrl[:4] = (0.2, -0.1, 0.05, 0.2)

    def momentum() -> np.ndarray:
        mujoco.mj_forward(model, data)
        mujoco.mj_subtreeVel(model, data)
        return data.subtree_angmom[1].copy()

    start = momentum()
    _run(model, data, 20.0)
    return float(np.linalg.norm(momentum() - start) / np.linalg.norm(start))


def _mode(plant: Plant, design: np.ndarray, sign: float) -> float:
    """Frequency of both panels swinging without damping, Hz, from zero crossings."""
    model = plant.compile(design)
    model.dof_damping[:] = 0.0
    data = mujoco.MjData(model)
    data.qpos[11:13] = (1e-3, sign * 1e-3)
    times: list[float] = []
    before = data.qpos[11]
    while len(times) < 11 and data.time < 100.0:
        mujoco.mj_step(model, data)
        now = data.qpos[11]
        if before * now < 0.0:
            times.append(data.time - model.opt.timestep * now / (now - before))
        before = now
    return 5.0 / (times[-1] - times[0])
