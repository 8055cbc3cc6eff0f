"""Wafer stage: design variables, units, floor vibration, closed-form checks. Constants: README.md.

Coordinates are nested along x: floor in the world, base on the floor, carriage on the base, frame
on the carriage. The joints' springs and dampers thus act on relative displacements and speeds.
"""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np

from physai.plant import Check, DesignVariable, Plant

MOVING_MASS = 95.1  # kg, carriage and frame together (EMPS, 2019)
VISCOUS_FRICTION = 203.5  # N s/m (EMPS, 2019)
COULOMB_FRICTION = 20.39  # N (EMPS, 2019)
MOTOR_GAIN = 35.15  # N/V (EMPS, 2019)
MAX_VOLTAGE = 10.0  # V (EMPS, 2019)
FRAME_MASS = 15.0  # kg
FRAME_DAMPING_RATIO = 0.02
BASE_MASS = 1000.0  # kg
FLOOR_MASS = 1e5  # kg
FLOOR_FREQUENCY = 15.0  # Hz
FLOOR_DAMPING_RATIO = 0.05

DESIGN = (
    DesignVariable("moving_mass", "kg", 70.0, 130.0, MOVING_MASS),
    DesignVariable("motor_gain", "N/V", 25.0, 50.0, MOTOR_GAIN),
    DesignVariable("isolator_frequency", "Hz", 1.0, 5.0, 2.0),
    DesignVariable("isolator_damping_ratio", "1", 0.05, 0.4, 0.1),
    DesignVariable("mode_frequency", "Hz", 20.0, 60.0, 40.0),
)
UNITS = {"motor": "V", "ground": "m"}
DISTURBANCES = {"ground": {"std": 6e-6, "correlation_time": 0.05}}


def _spring(mass: float, frequency: float, damping_ratio: float) -> tuple[float, float]:
    """Return stiffness m w^2 in N/m and damping 2 zeta m w in N s/m, of a frequency in Hz."""
    omega = 2.0 * np.pi * frequency
    return mass * omega**2, 2.0 * damping_ratio * mass * omega


def apply(spec: mujoco.MjSpec, design: Mapping[str, float]) -> None:
    """Write a design into the spec: masses, motor gain, and springs and dampers that follow."""
    moving = design["moving_mass"]
    spec.geom("slab").mass = FLOOR_MASS
    spec.geom("base").mass = BASE_MASS
    spec.geom("carriage").mass = moving - FRAME_MASS
    spec.geom("chuck").mass = FRAME_MASS
    springs = {
        "floor": _spring(FLOOR_MASS, FLOOR_FREQUENCY, FLOOR_DAMPING_RATIO),
        "base": _spring(
            BASE_MASS + moving, design["isolator_frequency"], design["isolator_damping_ratio"]
        ),
        "frame": _spring(FRAME_MASS, design["mode_frequency"], FRAME_DAMPING_RATIO),
    }
    for name, (stiffness, damping) in springs.items():
        joint = spec.joint(name)
        # MjSpec stores a polynomial of the displacement and of the speed: the first term is linear.
        joint.stiffness[0], joint.damping[0] = stiffness, damping
    spec.actuator("motor").gainprm[0] = design["motor_gain"]
    spec.actuator("disturbance/ground").gainprm[0] = springs["floor"][0]


def checks(plant: Plant) -> list[Check]:
    """Compare the simulated machine with closed forms at the nominal design."""
    return checks_of(plant, plant.nominal)


def checks_of(plant: Plant, design: np.ndarray) -> list[Check]:
    """Compare the machine of a design `[5]` with closed forms."""
    mass, gain, mode = float(design[0]), float(design[1]), float(design[4])
    acceleration = gain * MAX_VOLTAGE / mass
    free = mode * np.sqrt(1.0 + FRAME_MASS / (mass - FRAME_MASS))
    reaction = -mass / (BASE_MASS + mass)
    move, base = _bang_bang(plant, design)
    return [
        Check("time of a 0.2 m move", "s", 2.0 * np.sqrt(0.2 / acceleration), move, 1e-3),
        Check("speed at 5 V", "m/s", _speed(gain, 5.0), _steady(plant, design, 5.0), 1e-4),
        Check("breakaway voltage", "V", COULOMB_FRICTION / gain, _breakaway(plant, design), 3e-3),
        Check("speed at 90% of breakaway", "m/s", 0.0, _stuck(plant, design), 1e-6),
        Check("free-free mode", "Hz", free, _ringing(plant, design), 2e-3 * free),
        Check("base moved per travel", "1", reaction, base, 1e-3 * abs(reaction)),
        *(_transmission(plant, design, ratio) for ratio in (0.5, 1.0, 3.0)),
    ]


def _transmission(plant: Plant, design: np.ndarray, ratio: float) -> Check:
    """Check base over floor at a frequency ratio: distance in the complex plane.

    Semi-implicit Euler with step h is of first order, a relative error near w h / 2 (phase). The
    tolerance is twice that, and 0.002 for the flexible frame, which the closed form holds rigid.
    """
    frequency = ratio * float(design[2])
    expected = _transmissibility(ratio, float(design[3]))
    error = abs(_transmitted(plant, design, frequency) - expected)
    tolerance = 0.002 + abs(expected) * 2.0 * np.pi * frequency * plant.model.opt.timestep
    return Check(f"error of transmissibility at ratio {ratio:g}", "1", 0.0, error, float(tolerance))


def _speed(gain: float, voltage: float) -> float:
    """Steady speed, m/s: (V gain - Fc) / Fv."""
    return (voltage * gain - COULOMB_FRICTION) / VISCOUS_FRICTION


def _transmissibility(ratio: float, zeta: float) -> complex:
    """Base over floor displacement, derived: m x" = k (z - x) + c (z' - x')."""
    damping = 2.0j * zeta * ratio
    return (1.0 + damping) / (1.0 - ratio**2 + damping)


def _free(plant: Plant, design: np.ndarray) -> mujoco.MjModel:
    """Return a copy without friction, without damping and with no springs at the base."""
    model = plant.compile(design, textures=False)
    model.dof_damping[1:] = 0.0
    model.dof_frictionloss[:] = 0.0
    model.jnt_stiffness[1] = 0.0
    return model


def _bang_bang(plant: Plant, design: np.ndarray) -> tuple[float, float]:
    """Return the time of a 0.2 m move at full voltage, base held; and base per stage travel.

    Travel is that of the centre of mass of carriage and frame, relative to the base.
    """
    share = FRAME_MASS / float(design[0])
    model = _free(plant, design)
    data = mujoco.MjData(model)
    data.ctrl[0] = MAX_VOLTAGE
    mujoco.mj_step(model, data, nstep=600)
    ratio = data.qpos[1] / (data.qpos[2] + share * data.qpos[3])
    model.body_mass[2] = 1e9
    mujoco.mj_setConst(model, data)
    mujoco.mj_resetData(model, data)
    speed = 1.0
    while speed > 0.0 and data.time < 5.0:
        travel = data.qpos[2] + share * data.qpos[3]
        data.ctrl[0] = MAX_VOLTAGE if travel < 0.1 else -MAX_VOLTAGE
        mujoco.mj_step(model, data)
        speed = data.qvel[2] + share * data.qvel[3]
    return float(data.time), float(ratio)


def _steady(plant: Plant, design: np.ndarray, voltage: float, seconds: float = 20.0) -> float:
    """Speed of the carriage on the base after a constant voltage, m/s."""
    model = plant.compile(design, textures=False)
    data = mujoco.MjData(model)
    data.ctrl[0] = voltage
    mujoco.mj_step(model, data, nstep=round(seconds / model.opt.timestep))
    return float(data.qvel[2])


def _stuck(plant: Plant, design: np.ndarray) -> float:
    return _steady(plant, design, 0.9 * COULOMB_FRICTION / float(design[1]))


def _breakaway(plant: Plant, design: np.ndarray) -> float:
    """Voltage at which the carriage goes on sliding, by bisection to 0.5 mV.

    Below 0.15 mm/s the regularised friction counts as stuck: less than 1.3 mV of viscous friction.
    """
    low, high = 0.0, 2.0
    for _ in range(12):
        middle = 0.5 * (low + high)
        if _steady(plant, design, middle, seconds=10.0) > 1.5e-4:
            high = middle
        else:
            low = middle
    return high


def _ringing(plant: Plant, design: np.ndarray) -> float:
    """Frequency at which carriage and frame ring against each other, Hz, from zero crossings."""
    model = _free(plant, design)
    data = mujoco.MjData(model)
    data.qpos[3] = 1e-4
    times: list[float] = []
    before = data.qpos[3]
    while len(times) < 41:
        mujoco.mj_step(model, data)
        now = data.qpos[3]
        if before * now < 0.0:
            times.append(data.time - model.opt.timestep * now / (now - before))
        before = now
    return 20.0 / (times[-1] - times[0])


def _transmitted(plant: Plant, design: np.ndarray, frequency: float) -> complex:
    """Base over floor displacement at a frequency in Hz: five periods fitted by a sinusoid.

    The carriage is held by dry friction, so that base and stage move as one mass. Ten time
    constants of the isolators pass first.
    """
    model = plant.compile(design, textures=False)
    model.dof_frictionloss[2] = 1e6
    data = mujoco.MjData(model)
    omega = 2.0 * np.pi * frequency
    wait = 10.0 / (2.0 * np.pi * float(design[2]) * float(design[3]))
    samples = []
    while data.time < wait + 5.0 / frequency:
        data.ctrl[1] = 2e-5 * np.sin(omega * data.time)
        mujoco.mj_step(model, data)
        if data.time > wait:
            samples.append((data.time, data.qpos[0], data.qpos[0] + data.qpos[1]))
    time, floor, base = np.array(samples).T
    wave = np.stack([np.cos(omega * time), np.sin(omega * time), np.ones_like(time)], axis=1)
    fit = np.linalg.lstsq(wave, np.stack([floor, base], axis=1), rcond=None)[0]
    phasor = fit[0] - 1j * fit[1]
    return complex(phasor[1] / phasor[0])
