"""Half car on a random road: design variables, units, road and closed-form checks: README.md."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import mujoco
import numpy as np

from physai.plant import Check, DesignVariable, Plant

GRAVITY = 9.81  # m/s^2
BODY_MASS = 965.7  # kg
PITCH_INERTIA = 1500.0  # kg m^2
FRONT, REAR = 1.3, 1.4  # m, centre of mass to the axles
WHEELBASE = FRONT + REAR  # m
WHEEL_MASS = (40.0, 35.5)  # kg, front and rear
TYRE = 175500.0  # N/m

# One-sided displacement spectrum of a road of ISO 8608, in m^3, and the filter that approaches it.
ROUGHNESS = 256e-6  # m^3 at REFERENCE: geometric mean of class C
REFERENCE = 0.1  # cycles/m
CORNER = 0.011  # cycles/m, below which the filter lets the spectrum level off
SPEED = 20.0  # m/s
LENGTH = 1.0 / (2.0 * np.pi * CORNER)  # m, correlation length
ROAD_STD = float(np.sqrt(np.pi**2 * LENGTH * ROUGHNESS * REFERENCE**2))  # m
ROAD_TIME = float(LENGTH / SPEED)  # s

DESIGN = (
    DesignVariable("spring_front", "N/m", 15000.0, 40000.0, 24453.0),
    DesignVariable("spring_rear", "N/m", 12000.0, 32000.0, 19636.0),
    DesignVariable("damper_front", "N s/m", 800.0, 3500.0, 1786.0),
    DesignVariable("damper_rear", "N s/m", 800.0, 3500.0, 1649.0),
    DesignVariable("max_force", "N", 1000.0, 4000.0, 2500.0),
)
UNITS = {"force_front": "1", "force_rear": "1", "road_front": "m", "road_rear": "m"}
DISTURBANCES = {
    name: {"std": ROAD_STD, "correlation_time": ROAD_TIME} for name in ("road_front", "road_rear")
}

# Rows: how the extension of the front and the rear strut follows from the coordinates heave, pitch,
# front wheel, rear wheel.
STRUTS = np.array([[1.0, -FRONT, -1.0, 0.0], [1.0, REAR, 0.0, -1.0]])
BODY_LOADS = BODY_MASS * GRAVITY * np.array([REAR, FRONT]) / WHEELBASE  # N on front and rear strut
AXLE_LOADS = BODY_LOADS + GRAVITY * np.array(WHEEL_MASS)  # N on front and rear tyre


def apply(spec: mujoco.MjSpec, design: Mapping[str, float]) -> None:
    """Write a design into the spec; spring seats follow, so that the static ride height stays."""
    for i, axle in enumerate(("front", "rear")):
        strut = spec.tendon(f"strut_{axle}")
        strut.stiffness = [design[f"spring_{axle}"], 0.0, 0.0]  # linear, then higher orders
        strut.damping = [design[f"damper_{axle}"], 0.0, 0.0]
        seat = float(BODY_LOADS[i]) / design[f"spring_{axle}"]
        strut.springlength = [seat, seat]
        spec.joint(f"wheel_{axle}").springref = float(AXLE_LOADS[i]) / TYRE
        spec.actuator(f"force_{axle}").gainprm[0] = design["max_force"]


def matrices(design: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mass, damping and stiffness matrices `[4, 4]` of a design `[5]`, SI units.

    Coordinates: heave of the centre of mass (m, up), pitch (rad, nose down), heights of the front
    and the rear wheel (m, up), all from static equilibrium.
    """
    springs, dampers = np.diag(design[:2]), np.diag(design[2:4])
    mass = np.diag([BODY_MASS, PITCH_INERTIA, *WHEEL_MASS])
    tyres = np.diag([0.0, 0.0, TYRE, TYRE])
    return mass, STRUTS.T @ dampers @ STRUTS, STRUTS.T @ springs @ STRUTS + tyres


def checks(plant: Plant) -> list[Check]:
    """Compare the nominal machine with closed forms."""
    return design_checks(plant, plant.nominal)


def design_checks(plant: Plant, design: np.ndarray) -> list[Check]:
    """Compare the machine of one design `[5]` with closed forms."""
    model = plant.compile(design, textures=False)
    found = []
    frequencies = undamped_frequencies(design)
    simulated = _undamped_frequencies(model)
    for mode, expected, got in zip(
        ("1st", "2nd", "3rd", "4th"), frequencies, simulated, strict=True
    ):
        found.append(
            Check(f"{mode} undamped natural frequency", "Hz", expected, got, 1e-3 * expected)
        )
    height, loads = _settled(model)
    found.append(Check("static ride height", "m", 0.0, height, 1e-6))
    for i, axle in enumerate(("front", "rear")):
        found.append(Check(f"static {axle} axle load", "N", float(AXLE_LOADS[i]), loads[i], 0.01))
    for frequency in (1.0, 3.0, 10.0):
        gain = heave_gain(design, frequency)
        got = _heave_gain(model, frequency)
        found.append(
            Check(f"gain, front road to heave, {frequency:g} Hz", "1", gain, got, 2e-3 * gain)
        )
    decay = slowest_decay(design)
    found.append(
        Check("decay rate of the slowest mode", "1/s", decay, _slowest_decay(model, design), 1e-3)
    )
    found.append(
        Check("front force at full action", "N", float(design[4]), _full_force(model), 1e-6)
    )
    return found


def undamped_frequencies(design: np.ndarray) -> np.ndarray:
    """Natural frequencies without damping `[4]`, Hz, ascending: eigenvalues of M^-1 K."""
    mass, _, stiffness = matrices(design)
    squared = np.real(np.linalg.eigvals(np.linalg.solve(mass, stiffness)))
    return np.sqrt(np.sort(squared)) / (2.0 * np.pi)


def heave_gain(design: np.ndarray, frequency: float) -> float:
    """Heave of the centre of mass per height of the front road at `frequency` in Hz, passive.

    The first row of (K - w^2 M + i w C)^-1 times the tyre's force per road height.
    """
    mass, damping, stiffness = matrices(design)
    w = 2.0 * np.pi * frequency
    dynamic = stiffness - w**2 * mass + 1j * w * damping
    return float(np.abs(np.linalg.solve(dynamic, np.array([0.0, 0.0, TYRE, 0.0]))[0]))


def modes(design: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues `[8]` and eigenvectors `[8, 8]` of the passive car, state (q, dq/dt)."""
    mass, damping, stiffness = matrices(design)
    lower = -np.linalg.solve(mass, np.hstack([stiffness, damping]))
    return np.linalg.eig(np.vstack([np.hstack([np.zeros((4, 4)), np.eye(4)]), lower]))


def slowest_decay(design: np.ndarray) -> float:
    """Decay rate of the mode that dies out last, 1/s: damping ratio times natural frequency."""
    return float(-np.real(modes(design)[0]).max())


def _undamped_frequencies(model: mujoco.MjModel) -> np.ndarray:
    """Natural frequencies `[4]`, Hz, from how accelerations answer to displacements, undamped."""
    model = copy.copy(model)
    model.tendon_damping[:] = 0.0
    columns = []
    for displaced in 1e-3 * np.eye(4):
        data = mujoco.MjData(model)
        data.qpos[:] = displaced
        mujoco.mj_forward(model, data)
        columns.append(-data.qacc / 1e-3)
    squared = np.real(np.linalg.eigvals(np.array(columns).T))
    return np.sqrt(np.sort(squared)) / (2.0 * np.pi)


def _settled(model: mujoco.MjModel) -> tuple[float, np.ndarray]:
    """Heave 20 s after a drop from 3 cm, m, and the forces in the tyres then, N."""
    data = mujoco.MjData(model)
    data.qpos[0] = 0.03
    mujoco.mj_step(model, data, nstep=round(20.0 / model.opt.timestep))
    dofs = [model.joint(name).dofadr[0] for name in ("wheel_front", "wheel_rear")]
    compression = model.qpos_spring[dofs] - data.qpos[dofs]
    return float(data.qpos[0]), model.jnt_stiffness[dofs] * compression


def _heave_gain(model: mujoco.MjModel, frequency: float) -> float:
    """Amplitude of heave per amplitude of a sinusoidal front road, by correlation, once steady."""
    model = copy.copy(model)
    model.opt.timestep = 0.001  # the road is held constant over a step
    data = mujoco.MjData(model)
    road, amplitude = model.actuator("disturbance/road_front").id, 0.01
    settle, whole = round(10.0 / 0.001), round(2.0 / 0.001)
    total = 0.0 + 0.0j
    for i in range(settle + whole):
        data.ctrl[road] = amplitude * np.sin(2.0 * np.pi * frequency * data.time)
        if i >= settle:
            total += data.qpos[0] * np.exp(-2.0j * np.pi * frequency * data.time)
        mujoco.mj_step(model, data)
    return float(2.0 * abs(total) / whole / amplitude)


def _slowest_decay(model: mujoco.MjModel, design: np.ndarray) -> float:
    """Decay rate, 1/s, of a motion that starts in the mode that dies out last.

    The projection on the mode's left eigenvector decays as exp(-rate t).
    """
    values, vectors = modes(design)
    slowest = int(np.argmax(np.real(values)))
    left = np.linalg.inv(vectors)[slowest]
    start = 0.02 * np.real(vectors[:, slowest]) / np.abs(vectors[:4, slowest]).max()
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = start[:4], start[4:]
    mujoco.mj_step(model, data, nstep=round(1.0 / model.opt.timestep))
    after = np.concatenate([data.qpos, data.qvel])
    return float(-np.log(abs(left @ after) / abs(left @ start)))


def _full_force(model: mujoco.MjModel) -> float:
    """Lift of the body by the front actuator at full action, N."""
    data = mujoco.MjData(model)
    data.ctrl[model.actuator("force_front").id] = 1.0
    mujoco.mj_forward(model, data)
    return float(data.qfrc_actuator[0])
