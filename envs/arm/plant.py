"""Six-axis arm: design variables, units, closed-form checks. Constants and sources: README.md."""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np

from physai.plant import Check, DesignVariable, Plant

GRAVITY = 9.81  # m/s^2
D = np.array([0.1625, 0.0, 0.0, 0.1333, 0.0997, 0.0996])  # m
ALPHA = np.array([0.5, 0.0, 0.0, 0.5, -0.5, 0.0]) * np.pi  # rad
MASS = np.array([3.761, 8.058, 2.846, 1.37, 1.3, 0.365])  # kg
COM_YZ = np.array(  # m, in the DH frame of the link
    [
        [-0.02561, 0.00193],
        [0.0, 0.11336],
        [0.0, 0.0265],
        [-0.0018, 0.01634],
        [0.0018, 0.01634],
        [0.0, -0.001159],
    ]
)
COM_SHARE = (0.2125 / 0.425, 0.15 / 0.3922)  # centre of mass of links 2, 3 from the far end, 1
RADIUS = 0.06  # m, of the primitives whose inertia the links have
PAYLOAD_RADIUS = 0.05  # m
MOTOR_TORQUE = np.array([1.5, 1.5, 1.5, 0.28, 0.28, 0.28])  # N m, 100 times it is the limit
ROTOR_INERTIA = np.array([1e-4, 1e-4, 1e-4, 1e-5, 1e-5, 1e-5])  # kg m^2
VISCOUS = np.array([10.0, 10.0, 10.0, 1.0, 1.0, 1.0])  # N m s/rad, at the joint

DESIGN = (
    DesignVariable("upper_arm", "m", 0.3, 0.55, 0.425),
    DesignVariable("forearm", "m", 0.3, 0.5, 0.3922),
    DesignVariable("gear_ratio", "1", 80.0, 120.0, 100.0),
    DesignVariable("motor_size", "1", 0.8, 1.3, 1.0),
    DesignVariable("payload", "kg", 0.0, 5.0, 1.0),
)
UNITS = {f"torque_{i}": "1" for i in range(1, 7)} | {f"force_{a}": "N" for a in "xyz"}
DISTURBANCES = {
    f"force_{a}": {"std": 1.0, "correlation_time": 0.3, "vector": "force"} for a in "xyz"
}


def link_lengths(design: np.ndarray) -> np.ndarray:
    """DH parameters a `[6]`, m."""
    return np.array([0.0, -design[0], -design[1], 0.0, 0.0, 0.0])


def centres(design: np.ndarray) -> np.ndarray:
    """Centres of mass `[6, 3]`, m, in the DH frame of each link."""
    x = np.array([0.0, COM_SHARE[0] * design[0], COM_SHARE[1] * design[1], 0.0, 0.0, 0.0])
    return np.column_stack([x, COM_YZ])


def inertias(design: np.ndarray) -> np.ndarray:
    """Principal inertias `[6, 3]`, kg m^2: cylinders along x for links 2 and 3, else spheres."""
    found = np.repeat(0.4 * MASS[:, None] * RADIUS**2, 3, 1)
    for i, length in ((1, design[0]), (2, design[1])):
        across = MASS[i] * (3.0 * RADIUS**2 + length**2) / 12.0
        found[i] = [0.5 * MASS[i] * RADIUS**2, across, across]
    return found


def apply(spec: mujoco.MjSpec, design: Mapping[str, float]) -> None:
    """Write a design into the spec: frames, inertias, armatures, motor gains and payload."""
    vector = np.array([design[v.name] for v in DESIGN])
    lengths, com, inertia = link_lengths(vector), centres(vector), inertias(vector)
    names = ["link_2", "link_3", "link_4", "link_5", "link_6", "tool"]
    for i, child in enumerate(names):
        turn = np.array([np.cos(ALPHA[i] / 2), np.sin(ALPHA[i] / 2), 0.0, 0.0])
        rotation = _turn_x(ALPHA[i])
        offset = np.array([lengths[i], 0.0, D[i]])
        spec.body(child).pos, spec.body(child).quat = offset, turn
        body = spec.body(f"link_{i + 1}")
        body.mass, body.inertia = MASS[i], inertia[i]
        body.ipos, body.iquat = offset + rotation @ com[i], turn
        joint, motor = spec.joint(f"joint_{i + 1}"), spec.actuator(f"torque_{i + 1}")
        joint.armature = design["gear_ratio"] ** 2 * design["motor_size"] * ROTOR_INERTIA[i]
        motor.gainprm[0] = design["gear_ratio"] * design["motor_size"] * MOTOR_TORQUE[i]
    for i, length in ((2, vector[0]), (3, vector[1])):
        spec.geom(f"tube_{i}").fromto = [0, 0, 0.1 * (3 - i), -length, 0, 0.1 * (3 - i)]
    spec.geom("payload").mass = design["payload"]


def _turn_x(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def frames(q: np.ndarray, design: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Origins and rotations of the DH frames 0 to 6: Rz(q) Tz(d) Tx(a) Rx(alpha) in a row."""
    p, r = [np.zeros(3)], [np.eye(3)]
    for i, a in enumerate(link_lengths(design)):
        c, s = np.cos(q[i]), np.sin(q[i])
        about = r[-1] @ np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        p.append(p[-1] + about @ np.array([a, 0.0, D[i]]))
        r.append(about @ _turn_x(ALPHA[i]))
    return p, r


def inverse_dynamics(
    q: np.ndarray, v: np.ndarray, acceleration: np.ndarray, design: np.ndarray
) -> np.ndarray:
    """Joint torques `[6]`, N m, by the Newton-Euler recursion in the world frame.

    J. Luh, M. Walker, R. Paul, "On-line computational scheme for mechanical manipulators", 1980.
    """
    p, r = frames(q, design)
    w, dw, a = np.zeros(3), np.zeros(3), np.array([0.0, 0.0, GRAVITY])
    loads = []
    for i in range(6):
        axis = r[i][:, 2]
        dw = dw + axis * acceleration[i] + np.cross(w, axis * v[i])
        w = w + axis * v[i]
        parts = [(MASS[i], p[i + 1] + r[i + 1] @ centres(design)[i], inertias(design)[i])]
        if i == 5:
            parts.append((design[4], p[6], np.full(3, 0.4 * design[4] * PAYLOAD_RADIUS**2)))
        for mass, centre, inertia in parts:
            arm, world = centre - p[i], r[i + 1] @ np.diag(inertia) @ r[i + 1].T
            force = mass * (a + np.cross(dw, arm) + np.cross(w, np.cross(w, arm)))
            loads.append((i, centre, force, world @ dw + np.cross(w, world @ w)))
        step = p[i + 1] - p[i]
        a = a + np.cross(dw, step) + np.cross(w, np.cross(w, step))
    rotor = design[2] ** 2 * design[3] * ROTOR_INERTIA * acceleration
    found = rotor + VISCOUS * v
    for j in range(6):
        moment = sum(m + np.cross(c - p[j], f) for i, c, f, m in loads if i >= j)
        found[j] += r[j][:, 2] @ moment
    return found


def checks(plant: Plant) -> list[Check]:
    """Compare the nominal arm with closed forms."""
    return checks_of(plant, plant.nominal)


def checks_of(plant: Plant, design: np.ndarray) -> list[Check]:
    """Compare the arm of a design `[5]` with closed forms."""
    model = plant.compile(design, textures=False)
    data, rng, found = mujoco.MjData(model), np.random.default_rng(0), []
    worst = reach = 0.0
    for _ in range(20):
        data.qpos[:], data.qvel[:], data.qacc[:] = rng.uniform(-2.0, 2.0, (3, 6))
        expected = inverse_dynamics(data.qpos, data.qvel, data.qacc, design)
        mujoco.mj_inverse(model, data)
        worst = max(worst, np.abs(data.qfrc_inverse - expected).max())
        tool = frames(data.qpos, design)[0][6]
        reach = max(reach, np.abs(data.body("tool").xpos - tool).max())
    found.append(Check("worst inverse dynamics error, 20 states", "N m", 0.0, float(worst), 1e-8))
    found.append(Check("worst tool position error, 20 poses", "m", 0.0, float(reach), 1e-12))
    data.qvel[:], data.qacc[:], data.qpos[:] = 0.0, 0.0, 0.0
    mujoco.mj_inverse(model, data)
    upper, fore, payload = design[0], design[1], design[4]
    tip = MASS[3:].sum() + payload
    # Stretched out level along -x; the wrist's first offset from the forearm is along y.
    elbow = MASS[2] * (1.0 - COM_SHARE[1]) * fore + tip * fore
    shoulder = MASS[1] * (1.0 - COM_SHARE[0]) * upper + (MASS[2] + tip) * upper + elbow
    found.extend(_level(data, shoulder, elbow))
    found.extend(_alone(plant, design, i) for i in (0, 5))
    return found


def _level(data: mujoco.MjData, shoulder: float, elbow: float) -> list[Check]:
    # Centres off the wrist's axis along x do not exist at zero angles: moments are m g x.
    pairs = (("shoulder", 1, shoulder), ("elbow", 2, elbow))
    return [
        Check(f"{n} torque, arm level", "N m", -GRAVITY * m, float(data.qfrc_inverse[i]), 1e-8)
        for n, i, m in pairs
    ]


def _alone(plant: Plant, design: np.ndarray, joint: int) -> Check:
    """Acceleration at half torque of a vertical joint, all others locked, from rest at zero angles.

    Torque over the sum of m r^2, of every body's own inertia, and of the reflected rotor.
    """
    spec = plant.spec(design)
    for other in range(1, 7):
        if other != joint + 1:
            spec.delete(spec.actuator(f"torque_{other}"))
            spec.delete(spec.joint(f"joint_{other}"))
    for key in list(spec.keys):
        spec.delete(key)
    spec.option.gravity = [0.0, 0.0, 0.0]
    model = spec.compile()
    data = mujoco.MjData(model)
    data.ctrl[0] = 0.5
    mujoco.mj_forward(model, data)
    torque = 0.5 * design[2] * design[3] * MOTOR_TORQUE[joint]
    p, r = frames(np.zeros(6), design)
    axis, own = r[joint][:, 2], inertias(design)
    inertia = design[2] ** 2 * design[3] * ROTOR_INERTIA[joint]
    inertia += design[4] * (np.sum(np.cross(axis, p[6] - p[joint]) ** 2) + 0.4 * PAYLOAD_RADIUS**2)
    for i in range(joint, 6):
        centre = p[i + 1] + r[i + 1] @ centres(design)[i]
        inertia += MASS[i] * np.sum(np.cross(axis, centre - p[joint]) ** 2)
        inertia += own[i] @ (r[i + 1].T @ axis) ** 2
    name = f"acceleration of joint {joint + 1} alone"
    return Check(name, "rad/s^2", float(torque / inertia), float(data.qacc[0]), 1e-9)
