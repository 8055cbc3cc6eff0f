"""Flexible-wing aircraft: design variables, strip aerodynamics, closed-form checks: README.md.

Axes: x forward, y left, z up. Wing of rigid segments; a hinge's spring stands for half a segment on
either side of it, the root's for half a segment, hence twice as stiff.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np

from physai.plant import Check, DesignVariable, Plant

SEGMENTS = 6  # of a half wing
HALF_SPAN = 16.0  # m (Patil, Hodges, Cesnik, 2001)
CHORD = 1.0  # m (same)
LINE_MASS = 0.75  # kg/m (same)
LINE_INERTIA = 0.1  # kg m, about the elastic axis at half chord (same)
BENDING = 2e4  # N m^2 (same)
TORSION = 1e4  # N m^2 (same)
DENSITY = 0.0889  # kg/m^3, 20 km (same)
SPEED = 25.0  # m/s (same)
GRAVITY = 9.81  # m/s^2
SECTION_SLOPE = 2.0 * np.pi  # 1/rad, thin aerofoil
SECTION_DRAG = 0.01
STALL_LIFT = 1.5
BEND_DAMPING, TWIST_DAMPING = 0.01, 0.002  # s, damping over stiffness
TAIL_AREA, TAIL_CHORD, TAIL_SLOPE = 2.5, 0.5, 2.0 * np.pi * 10.0 / 12.0
FIN_AREA, FIN_CHORD, FIN_SLOPE = 0.8, 0.5, 2.0 * np.pi * 3.2 / 5.2
TAIL_EFFECTIVENESS = 0.6  # rad of incidence a rad of elevator or rudder
POD_DRAG = 0.1  # m^2, drag area

DESIGN = (
    DesignVariable("stiffness_inboard", "1", 1.0, 3.0, 1.5),
    DesignVariable("stiffness_outboard", "1", 1.0, 3.0, 1.5),
    DesignVariable("half_span", "m", 14.0, 18.0, HALF_SPAN),
    DesignVariable("payload", "kg", 40.0, 60.0, 50.0),
    DesignVariable("aileron_chord", "1", 0.1, 0.3, 0.2),
)
UNITS = {
    **dict.fromkeys(("aileron_left", "aileron_right", "elevator", "rudder"), "rad"),
    "throttle": "1",
    **dict.fromkeys(("gust_left", "gust_right", "gust_y"), "m/s"),
}
DISTURBANCES = {
    "gust_left": {"std": 0.4, "correlation_time": 1.0},
    "gust_right": {"std": 0.4, "correlation_time": 1.0},
    "gust_y": {"std": 0.3, "correlation_time": 1.0},
}


def apply(spec: mujoco.MjSpec, design: Mapping[str, float]) -> None:
    """Write a design into the spec: masses, inertias, lengths, springs and dampers that follow."""
    length = design["half_span"] / SEGMENTS
    spec.body("fuselage").mass = design["payload"]
    spec.body("fuselage").inertia = np.array([2.0, 20.0, 20.0]) * design["payload"] / 50.0
    for side, sign in (("left", 1.0), ("right", -1.0)):
        for i in range(SEGMENTS):
            body, geom = spec.body(f"{side}_{i}"), spec.geom(f"{side}_{i}")
            body.pos = [0.0, sign * length if i else 0.0, 0.0]
            body.ipos = [0.0, 0.5 * sign * length, 0.0]
            mass = LINE_MASS * length
            roll, pitch = mass * length**2 / 12.0, LINE_INERTIA * length
            body.mass, body.inertia = mass, [roll, pitch, roll + 0.98 * pitch]
            geom.pos, geom.size = body.ipos, [0.5 * CHORD, 0.5 * length, 0.05]
            if i == SEGMENTS - 1:
                spec.site(f"{side}_tip").pos = [0.0, sign * length, 0.0]
            share = "stiffness_inboard" if i < SEGMENTS // 2 else "stiffness_outboard"
            factor = design[share] * (1.0 if i else 2.0) / length
            for kind, rigidity, damping in (
                ("bend", BENDING, BEND_DAMPING),
                ("twist", TORSION, TWIST_DAMPING),
            ):
                joint = spec.joint(f"{side}_{kind}_{i}")
                # MjSpec stores polynomials of displacement and speed: the first term is linear.
                joint.stiffness[0] = factor * rigidity
                joint.damping[0] = damping * factor * rigidity


def lifting_line(half_span: float, points: int = 96) -> np.ndarray:
    """Return mean section lift coefficients per rad of strip angle `[12, 12]`, right tip first.

    Prandtl's lifting line by Glauert's sine series, angles constant on each strip: Anderson,
    "Fundamentals of aerodynamics" (lifting line, general lift distribution).
    """
    span, strips = 2.0 * half_span, 2 * SEGMENTS
    theta = (np.arange(points) + 0.5) * np.pi / points
    order = np.arange(1, points + 1)
    # Circulation 2 b V sum A_n sin(n theta); y = -b/2 cos(theta), from the right tip to the left.
    sine = np.sin(np.outer(theta, order))
    local = 4.0 * span / (SECTION_SLOPE * CHORD) * sine
    induced = order * sine / np.sin(theta)[:, None]
    strip = np.minimum((0.5 * (1.0 - np.cos(theta)) * strips).astype(int), strips - 1)
    series = np.linalg.solve(local + induced, np.eye(strips)[strip])
    edges = np.arccos(1.0 - 2.0 * np.arange(strips + 1) / strips)[:, None]
    # Integral of sin(n t) sin(t) over t between a strip's edges.
    after = np.sin((order + 1) * edges) / (order + 1)
    before = edges.repeat(points, 1)
    before[:, 1:] = np.sin((order[1:] - 1) * edges) / (order[1:] - 1)
    mean = 0.5 * np.diff(before - after, axis=0) * 0.5 * strips
    return 4.0 * span / CHORD * mean @ series


def _maps() -> np.ndarray:
    """Lift maps `[3, 14, 14]`, coefficients of a quadratic in half span: wing, tail, fin."""
    spans = np.array([14.0, 16.0, 18.0])
    values = np.zeros((3, 14, 14))
    for value, span in zip(values, spans, strict=True):
        value[:12, :12] = lifting_line(span)
        value[12, 12], value[13, 13] = TAIL_SLOPE, FIN_SLOPE
    powers = (spans[:, None] - HALF_SPAN) ** np.arange(3)
    return np.linalg.solve(powers, values.reshape(3, -1)).reshape(3, 14, 14)


# Surfaces: wing strips from the right tip to the left, then tail and fin.
MAPS = _maps()
SURFACES = (
    *(f"right_{i}" for i in reversed(range(SEGMENTS))),
    *(f"left_{i}" for i in range(SEGMENTS)),
    "tail",
    "fin",
)
CHORDS = np.array([CHORD] * 12 + [TAIL_CHORD, FIN_CHORD])
STATIONS = np.append((np.arange(12) - 5.5) / 6.0, [0.0, 0.0])  # of the half span, left positive


def effectiveness(chord_share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return flap lift effectiveness and moment about quarter chord per rad, nose up positive.

    Thin aerofoil with a flap: Katz and Plotkin, "Low-speed aerodynamics".
    """
    hinge = np.arccos(2.0 * chord_share - 1.0)
    sine = np.sin(hinge)
    return 1.0 - (hinge - sine) / np.pi, -0.5 * sine * (1.0 - np.cos(hinge))


def forces(live: Any) -> None:
    """Apply quasi-steady strip forces to wing, tail, fin and pod, in N and N m."""
    model = live.plant.model
    ids = [model.body(name).id for name in SURFACES]
    design, ctrl = live.design, live.data("ctrl")
    turn = live.data("xmat")[:, ids].reshape(-1, 14, 3, 3)
    spin = live.data("cvel")[:, ids]
    behind = turn[..., 0] * (0.25 * CHORDS)[:, None]
    arm = live.data("xipos")[:, ids] - behind - live.data("subtree_com")[:, 1:2]
    air = spin[..., 3:] + np.cross(spin[..., :3], arm)  # at three quarters of the chord
    # Vertical gust, linear from tip to tip, and a lateral one.
    air[..., 2] -= 0.5 * (ctrl[:, 5:6] + ctrl[:, 6:7] + STATIONS * (ctrl[:, 5:6] - ctrl[:, 6:7]))
    air[..., 1] -= ctrl[:, 7:8]
    ahead = np.einsum("nsi,nsi->ns", air, turn[..., 0])
    up = np.einsum("nsi,nsi->ns", air, turn[..., 2])
    speed = np.sqrt(ahead**2 + up**2 + 1e-6)
    angle = np.arctan2(-up, ahead)
    lift_share, moment_share = effectiveness(design[:, 4])
    flap = np.zeros_like(angle)
    flap[:, 0:2], flap[:, 10:12] = ctrl[:, 1:2], ctrl[:, 0:1]
    incidence = angle + lift_share[:, None] * flap
    incidence[:, 12:] += TAIL_EFFECTIVENESS * ctrl[:, 2:4]
    longer = design[:, 2:3] - HALF_SPAN
    linear = incidence @ MAPS[0].T + longer * (
        incidence @ MAPS[1].T + longer * incidence @ MAPS[2].T
    )
    lift = limited(linear)
    drag = SECTION_DRAG + lift * (incidence - linear / SECTION_SLOPE)
    area = np.empty_like(angle)
    area[:, :12], area[:, 12:] = CHORD / SEGMENTS * design[:, 2:3], [TAIL_AREA, FIN_AREA]
    load = 0.5 * DENSITY * area * speed
    along, normal = -load * (lift * up + drag * ahead), load * (lift * ahead - drag * up)
    rate = np.einsum("nsi,nsi->ns", spin[..., :3], turn[..., 1])
    couple = load * CHORDS * (-moment_share[:, None] * flap * speed - np.pi / 8.0 * CHORDS * rate)
    torque = couple - 0.25 * CHORDS * normal
    applied = live.data("xfrc_applied")
    applied[:, ids, :3] = turn[..., 0] * along[..., None] + turn[..., 2] * normal[..., None]
    applied[:, ids, 3:] = turn[..., 1] * torque[..., None]
    pod = live.data("qvel")[:, :3]
    pace = np.sqrt(np.sum(pod**2, axis=1, keepdims=True))
    applied[:, 1, :3] = -0.5 * DENSITY * POD_DRAG * pace * pod


def limited(linear: np.ndarray) -> np.ndarray:
    """Lift coefficient that levels off at STALL_LIFT: x / (1 + x^8)^(1/8), 0.1% low at 0.45."""
    power = np.square(np.square(np.square(linear / STALL_LIFT)))
    return linear / np.sqrt(np.sqrt(np.sqrt(1.0 + power)))


def checks(plant: Plant) -> list[Check]:
    """Compare the simulated aircraft with closed forms at the nominal design."""
    return checks_of(plant, plant.nominal)


def checks_of(plant: Plant, design: np.ndarray) -> list[Check]:
    """Compare the aircraft of a design `[5]` with closed forms.

    The wing's closed forms are for equal stiffness along the span: that of the inboard half wing.
    """
    even = np.array(design, float)
    even[1] = even[0]
    scale, length = even[0], even[2]
    wing = plant.compile(even, textures=False)
    # Beam theory, q L^4 / (8 E I), under 1 N/m; hinges sum the curvature by the trapezoidal rule.
    tip = length**4 / (8.0 * scale * BENDING) * (1.0 + 1.0 / SEGMENTS**2)
    bend = 3.516 * np.sqrt(scale * BENDING / (LINE_MASS * length**4))
    twist = np.pi / (2.0 * length) * np.sqrt(scale * TORSION / LINE_INERTIA)
    lift = lattice_lift(length, np.radians(2.0))
    push = 0.5 * DENSITY * SPEED**2 * 2.0 * length * CHORD * lift
    before, after, balance = _momentum(plant, design)
    return [
        Check("tip deflection under 1 N/m", "m", tip, _deflection(wing, length), 3e-4),
        Check("first bending frequency", "rad/s", bend, _frequency(wing, 0), 0.07),
        Check("first torsion frequency", "rad/s", twist, _frequency(wing, 1), 0.5),
        Check("lift of the rigid wing at 2 degrees", "N", push, _lift(plant, design), 0.1),
        Check("change of momentum without air and gravity", "kg m/s", 0.0, after - before, 1e-3),
        Check("rate of momentum minus forces", "N", 0.0, balance, 0.5),
        Check("largest acceleration at trim", "m/s^2", 0.0, _trim_acceleration(plant), 1e-6),
        Check("root torque about the bending hinge", "N m", *_root_torque(plant, design), 1e-6),
    ]


def lattice_lift(half_span: float, angle: float, panels: int = 200) -> float:
    """Lift coefficient by horseshoe vortices, cosine spaced (Katz and Plotkin)."""
    edges = -half_span * np.cos(np.linspace(0.0, np.pi, panels + 1))
    middle = -half_span * np.cos((np.arange(panels) + 0.5) * np.pi / panels)
    gap = middle[:, None] - edges
    wash = (1.0 / gap[:, :-1] - 1.0 / gap[:, 1:]) / (4.0 * np.pi)  # per circulation over speed
    wake = np.eye(panels) * 2.0 / (SECTION_SLOPE * CHORD) + wash
    circulation = np.linalg.solve(wake, np.full(panels, angle))
    return float(2.0 * circulation @ np.diff(edges) / (2.0 * half_span * CHORD))


def _deflection(model: mujoco.MjModel, length: float) -> float:
    """Tip height under 1 N/m in segment centres, root held, first order in the load, m."""
    data, small = mujoco.MjData(model), 1e-3
    data.qpos[3] = 1.0
    mujoco.mj_forward(model, data)
    torque, jacobian = np.zeros(model.nv), np.zeros((3, model.nv))
    for i in range(SEGMENTS):
        mujoco.mj_jacBodyCom(model, data, jacobian, None, model.body(f"left_{i}").id)
        torque += small * length / SEGMENTS * jacobian[2]
    data.qpos[7:] = torque[6:] / model.jnt_stiffness[1:]
    mujoco.mj_kinematics(model, data)
    body = model.body("left_5").id
    end = data.xpos[body] + data.xmat[body].reshape(3, 3)[:, 1] * length / SEGMENTS
    return float(end[2] / small)


def _frequency(model: mujoco.MjModel, kind: int) -> float:
    """Lowest frequency of the left wing, root held, kind 0 bending or 1 torsion, rad/s."""
    data = mujoco.MjData(model)
    data.qpos[3] = 1.0
    mujoco.mj_forward(model, data)
    inertia = np.zeros((model.nv, model.nv))
    for i in range(model.nv):
        unit = np.eye(model.nv)[i]
        mujoco.mj_mulM(model, data, inertia[i], unit)
    dofs = np.arange(6 + kind, 18, 2)
    stiffness = np.diag(model.jnt_stiffness[1 + kind : 13 : 2])
    squared = np.linalg.eigvals(np.linalg.solve(inertia[np.ix_(dofs, dofs)], stiffness))
    return float(np.sqrt(np.real(squared).min()))


def _bench(plant: Plant, design: np.ndarray) -> tuple[mujoco.MjModel, mujoco.MjData, Any]:
    """Return one aircraft in level flight, its wing straight, and what forces() sees of it."""
    model = plant.compile(design, textures=False)
    data = mujoco.MjData(model)
    data.qpos[3], data.qvel[0] = 1.0, SPEED
    live = SimpleNamespace(
        plant=plant, design=np.array(design)[None], data=lambda name: getattr(data, name)[None]
    )
    return model, data, live


def _lift(plant: Plant, design: np.ndarray) -> float:
    """Lift of the wing alone, pitched up by 2 degrees, N."""
    model, data, live = _bench(plant, design)
    half = np.radians(1.0)
    data.qpos[3:7] = [np.cos(half), 0.0, -np.sin(half), 0.0]
    mujoco.mj_forward(model, data)
    forces(live)
    return float(data.xfrc_applied[[model.body(s).id for s in SURFACES[:12]], 2].sum())


def _momentum(plant: Plant, design: np.ndarray) -> tuple[float, float, float]:
    """Return momentum along z before and after 1 s in empty space, and an error of balance, N."""
    model, data, live = _bench(plant, design)
    mass = model.body_subtreemass[1]

    def along_z() -> float:
        mujoco.mj_forward(model, data)
        mujoco.mj_subtreeVel(model, data)
        return float(mass * data.subtree_linvel[1, 2])

    data.qvel[6:] = 0.1 * np.cos(np.arange(24))
    gravity = model.opt.gravity.copy()
    model.opt.gravity[:] = 0.0
    first = along_z()
    mujoco.mj_step(model, data, nstep=400)
    last = along_z()
    model.opt.gravity[:] = gravity
    mujoco.mj_resetData(model, data)
    data.qpos[:], data.qvel[0] = plant.model.key_qpos[0], SPEED
    start = along_z()
    forces(live)
    pushed = float(data.xfrc_applied[:, 2].sum()) - mass * GRAVITY
    mujoco.mj_step(model, data)
    rate = (along_z() - start) / model.opt.timestep
    return first, last, rate - pushed


def _trim_acceleration(plant: Plant) -> float:
    """Largest acceleration at the key frame, nominal design, m/s^2 or rad/s^2."""
    model, data, live = _bench(plant, plant.nominal)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_forward(model, data)
    forces(live)
    mujoco.mj_forward(model, data)
    return float(np.abs(data.qacc).max())


def _root_torque(plant: Plant, design: np.ndarray) -> tuple[float, float]:
    """Torque of the left root spring in the key frame, and that of the sensor about its hinge."""
    model, data, live = _bench(plant, design)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_forward(model, data)
    forces(live)
    mujoco.mj_forward(model, data)
    joint, site = model.joint("left_bend_0"), model.site("left_root").id
    axis = data.site_xmat[site].reshape(3, 3).T @ data.xaxis[joint.id]
    spring = -model.jnt_stiffness[joint.id] * data.qpos[joint.qposadr[0]]
    return float(spring), float(axis @ data.sensor("root_torque_left").data)
