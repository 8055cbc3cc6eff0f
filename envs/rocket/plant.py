"""A rocket stage that lands on its engine: thrust, gimbal, propellant that burns off, drag.

The mass of the tank and the forces of engine and air are written before every physics step. With
throttle u, 0 to 1, and specific impulse I,

    T = T_min + u (T_max - T_min),   dm/dt = -T / (I g_0)

The activation of the throttle counts the propellant burnt, in units of the flow between lowest and
highest thrust: a = m_burnt I g_0 / (T_max - T_min).

Source: G. P. Sutton, O. Biblarz, "Rocket Propulsion Elements", 9th edition, 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import mujoco
import numpy as np

from physai.plant import Check, DesignVariable, Plant
from physai.rollout.engine import TruePlant
from physai.rollout.live import Live
from physai.state import State

THRUST_MIN = 2967.0  # N
SPECIFIC_IMPULSE = 282.0  # s
GRAVITY_0 = 9.80665  # m/s^2, of the definition of specific impulse
GRAVITY = 9.81  # m/s^2
DRY_MASS, DRY_CENTRE = 25.6, 1.7  # kg, m above the gimbal
DRY_INERTIA = 47.562  # kg m^2, across, about its centre
TANK_CENTRE, TANK_LENGTH, TANK_RADIUS = 2.2, 3.6, 0.18  # m
HULL_CENTRE, HULL_LENGTH, HULL_RADIUS = 2.35, 4.7, 0.185  # m
DRAG_ACROSS, DRAG_ALONG = 1.2, 0.8

UNITS = {
    **{"throttle": "1", "gimbal_x": "1", "gimbal_y": "1"},
    **{f"wind_{axis}": "m/s" for axis in "xyz"},
}
DISTURBANCES = {
    f"wind_{axis}": {"std": std, "correlation_time": 2.0, "vector": "wind"}
    for axis, std in (("x", 2.0), ("y", 2.0), ("z", 0.5))
}
DESIGN = (
    DesignVariable("thrust_max", "N", 6500.0, 8700.0, 7607.0),
    DesignVariable("gimbal_range", "deg", 3.5, 7.0, 5.0),
    DesignVariable("propellant", "kg", 330.0, 410.9, 410.9),
)


def apply(spec: mujoco.MjSpec, design: Mapping[str, float]) -> None:
    """Fill the tank; thrust and gimbal range act through `forces`."""
    tank, mass = spec.body("propellant"), design["propellant"]
    tank.mass = mass
    tank.inertia = mass * _slenderness()


def _slenderness() -> np.ndarray:
    """Return the inertia per mass of a full cylinder of the tank's size `[3]`, m^2."""
    across = (3.0 * TANK_RADIUS**2 + TANK_LENGTH**2) / 12.0
    return np.array([across, across, 0.5 * TANK_RADIUS**2])


def forces(live: Live) -> None:
    """Burn propellant, and push with the engine and the air."""
    thrust_max, gimbal, propellant = live.design.T
    act, ctrl = live.data("act"), live.data("ctrl")
    model = live.plant.model
    span = thrust_max - THRUST_MIN
    # The integrator adds the throttle; what burns at the lowest thrust comes on top.
    burnt = act[:, 0] * span / (SPECIFIC_IMPULSE * GRAVITY_0)
    act[:, 0] += model.opt.timestep * THRUST_MIN / span
    # A flight with wrong masses (TruePlant's mass_scale) has its factor in the hull, kept here.
    mass = live.model("body_mass")
    factor = mass[:, 1] / DRY_MASS
    left = factor * np.maximum(propellant - burnt, 1e-3)
    mass[:, 2] = left
    live.model("body_inertia")[:, 2] = left[:, None] * _slenderness()
    live.model("body_subtreemass")[:, 1:] = np.stack([mass[:, 1] + left, left], 1)
    thrust = THRUST_MIN + np.clip(ctrl[:, 0], 0.0, 1.0) * span
    sides = np.sin(np.radians(gimbal)[:, None] * act[:, 1:3])
    along = np.sqrt(1.0 - np.sum(np.square(sides), axis=1, keepdims=True))
    rotation = live.data("xmat")[:, 1].reshape(-1, 3, 3)
    base = live.data("xpos")[:, 1]
    push = np.einsum("nij,nj->ni", rotation, thrust[:, None] * np.hstack([sides, along]))
    drag, centre = _drag(live, rotation, base, ctrl[:, 3:6], model)
    # Forces are applied at the centre of mass of the body that bears them.
    origin = live.data("xipos")[:, 1]
    wrench = live.data("xfrc_applied")
    wrench[:, 1, :3] = push + drag
    wrench[:, 1, 3:] = np.cross(base - origin, push) + np.cross(centre - origin, drag)


def _drag(
    live: Live,
    rotation: np.ndarray,
    base: np.ndarray,
    wind: np.ndarray,
    model: mujoco.MjModel,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the drag of a cylinder `[n, 3]`, N, and where it acts: across and along by itself."""
    density = model.numeric_data[model.numeric_adr[model.numeric("air_density").id]]
    arm = HULL_CENTRE * rotation[:, :, 2]
    qvel = live.data("qvel")
    rates = np.einsum("nij,nj->ni", rotation, qvel[:, 3:6])
    air = np.einsum("nji,nj->ni", rotation, qvel[:, :3] + np.cross(rates, arm) - wind)
    across = np.linalg.norm(air[:, :2], axis=1)
    side, end = 2.0 * HULL_RADIUS * HULL_LENGTH, np.pi * HULL_RADIUS**2
    scale = (
        -0.5
        * density
        * np.stack(
            [
                DRAG_ACROSS * side * across,
                DRAG_ACROSS * side * across,
                DRAG_ALONG * end * np.abs(air[:, 2]),
            ],
            axis=1,
        )
    )
    return np.einsum("nij,nj->ni", rotation, scale * air), base + arm


def checks(plant: Plant) -> list[Check]:
    """Compare the simulated rocket with closed forms at the nominal design."""
    return design_checks(plant, plant.nominal)


def design_checks(plant: Plant, design: np.ndarray) -> list[Check]:
    """Compare the rocket of a design vector `[3]` with closed forms."""
    thrust, gimbal, propellant = (float(x) for x in design)
    speed = SPECIFIC_IMPULSE * GRAVITY_0
    flow, full = thrust / speed, DRY_MASS + propellant
    seconds = 20.0
    empty = full - flow * seconds
    burn = _flown(plant, design, seconds, throttle=1.0, gravity=0.0)
    brake = _flown(plant, design, 5.0, throttle=1.0, start=-60.0)
    after = full - flow * 5.0
    height = -60.0 * 5.0 - 0.5 * GRAVITY * 25.0
    height += speed * (5.0 + after / flow * np.log(after / full))
    moment = -THRUST_MIN * np.sin(np.radians(gimbal)) * _centre(propellant)
    turned = _flown(plant, design, 0.02, throttle=0.0, gimbal=1.0, gravity=0.0)
    slowed = _flown(plant, design, 0.02, throttle=0.0, start=-40.0, air=True, gravity=0.0)
    smooth = _flown(plant, design, 0.02, throttle=0.0, start=-40.0, gravity=0.0)
    drag = 0.5 * 1.225 * DRAG_ALONG * np.pi * HULL_RADIUS**2 * 40.0**2
    return [
        _check(
            "speed gained in a burn of 20 s",
            "m/s",
            speed * np.log(full / empty),
            burn.qvel[0, 2],
            0.02,
        ),
        _check("propellant burnt in 20 s", "kg", flow * seconds, _burnt(design, burn), 1e-6),
        _check(
            "speed after braking for 5 s",
            "m/s",
            -60.0 - 5.0 * GRAVITY + speed * np.log(full / after),
            brake.qvel[0, 2],
            0.005,
        ),
        _check("height by then", "m", height, brake.qpos[0, 2], 0.3),
        _check(
            "turning under full gimbal",
            "rad/s^2",
            moment / _inertia(propellant),
            turned.qvel[0, 4] / 0.02,
            1e-3,
        ),
        _check(
            "drag at 40 m/s", "N", drag, (slowed.qvel[0, 2] - smooth.qvel[0, 2]) * full / 0.02, 0.5
        ),
    ]


def _check(quantity: str, unit: str, expected: float, found: float, tolerance: float) -> Check:
    return Check(quantity, unit, float(expected), float(found), tolerance)


def _centre(propellant: float) -> float:
    """Return the height of the centre of mass above the gimbal, m."""
    return (DRY_MASS * DRY_CENTRE + propellant * TANK_CENTRE) / (DRY_MASS + propellant)


def _inertia(propellant: float) -> float:
    """Return the inertia across, about the centre of mass, kg m^2."""
    pair = DRY_MASS * propellant / (DRY_MASS + propellant) * (TANK_CENTRE - DRY_CENTRE) ** 2
    return DRY_INERTIA + propellant * float(_slenderness()[0]) + pair


def _burnt(design: Sequence[float] | np.ndarray, state: State) -> float:
    """Return the propellant burnt, kg."""
    return float(state.act[0, 0] * (design[0] - THRUST_MIN) / (SPECIFIC_IMPULSE * GRAVITY_0))


def _flown(
    plant: Plant,
    design: np.ndarray,
    seconds: float,
    throttle: float,
    start: float = 0.0,
    gimbal: float = 0.0,
    gravity: float = GRAVITY,
    air: bool = False,
) -> State:
    """Return the state after a flight from upright at a vertical speed `start`, m/s."""
    spec = plant.source.copy()
    spec.option.gravity = [0.0, 0.0, -gravity]
    if not air:
        spec.numeric("air_density").data = [0.0]
    changed = replace(plant, source=spec, model=_compiled(plant, spec))
    rocket = TruePlant(changed, 1, design[None], nthread=1)
    state = State(
        qpos=np.array([[0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]]),
        qvel=np.array([[0.0, 0.0, start, 0.0, 0.0, 0.0]]),
        act=np.array([[0.0, gimbal, 0.0]]),
        time=np.zeros(1),
        command=np.zeros((1, 0)),
        design=design[None],
    )
    for _ in range(round(seconds / plant.control_period)):
        state = rocket.step(state, np.array([[throttle, gimbal, 0.0]]))
    return state


def _compiled(plant: Plant, spec: mujoco.MjSpec) -> mujoco.MjModel:
    copy = spec.copy()
    apply(copy, {v.name: v.nominal for v in plant.design})
    return copy.compile()
