"""A hand-written flight controller, with which verification, replay and envs are tested untrained.

A cascade on the rotation group; an observer of the velocity v also estimates what the model does
not explain, d, which is wind and a wrong mass:

    v^' = F / m - g up + d^ + 2 c (v - v^)       d^' = c^2 (v - v^)       F: the thrust as measured
    F_d = m (g up - k_p e - k_v v^ - d^)         e: position error
    w_d = k_tilt (angle from b3 to F_d) + k_yaw (yaw error) b3
    M = J k_rate (w_d - w) + w x J w
    thrusts = B^-1 [F_d . b3, M],  sent ahead of the motors' lag

Reference: Lee, Leok, McClamroch, "Geometric tracking control of a quadrotor UAV on SE(3)", CDC
2010, equations 12, 15 and 16, doi:10.1109/CDC.2010.5717652; here with rates in a loop of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from physai.control.controller import Controller
from physai.plant import Plant
from physai.state import quaternion_exp, rotation_matrix


@dataclass(frozen=True)
class Gains:
    """Gains of the cascade, in SI units."""

    position: float = 5.2  # 1/s^2
    velocity: float = 4.1  # 1/s
    observer: float = 7.5  # 1/s
    tilt: float = 8.0  # 1/s
    rate: float = 17.0  # 1/s
    yaw: float = 4.0  # 1/s
    yaw_rate: float = 12.0  # 1/s
    yaw_acceleration: float = 2.0  # rad/s^2, at which a turn is braked
    lead: float = 3.0  # how far the throttle runs ahead of the motors
    error_limit: float = 1.2  # m, of the position error that is acted on
    tilt_limit: float = 0.6  # horizontal force in terms of the vertical one


def geometric_controller(plant: Plant, gains: Gains = Gains()) -> Controller:
    """Return the controller for a plant with four rotors along the body's z axis.

    Its memory is velocity and unexplained acceleration, in the frame of the commanded heading.
    """
    mass, inertia, mixer, thrust = _constants(plant)
    inertia, unmix = jnp.asarray(inertia), jnp.asarray(np.linalg.inv(mixer))
    gravity = -float(plant.model.opt.gravity[2])
    period = plant.control_period

    def init(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        return jnp.zeros(3), jnp.zeros(3), jnp.zeros((), bool)

    def step(cstate: Any, observation: jax.Array) -> tuple[Any, jax.Array, dict]:
        error, velocity, _, turned, rate = observation[:15].reshape(5, 3)
        throttle = observation[15:19]
        to_heading = rotation_matrix(quaternion_exp(turned))
        north, up = to_heading[0], to_heading[2]

        error, measured = to_heading @ error, to_heading @ velocity
        estimate, wind, flying = cstate
        estimate = jnp.where(flying, estimate, measured)
        surprise = measured - estimate
        estimate = estimate + 2.0 * gains.observer * period * surprise
        wind = wind + gains.observer**2 * period * surprise

        error = error * jnp.minimum(1.0, gains.error_limit / (jnp.linalg.norm(error) + 1e-6))
        wanted = -(gains.position * error + gains.velocity * estimate + wind)
        vertical = jnp.clip(gravity + wanted[2], 0.4 * gravity, 2.0 * gravity)
        sideways = wanted[:2]
        sideways = sideways * jnp.minimum(
            1.0, gains.tilt_limit * vertical / (jnp.linalg.norm(sideways) + 1e-6)
        )
        force = mass * to_heading.T @ jnp.append(sideways, vertical)

        lift = jnp.sum(throttle * thrust) / mass * to_heading[:, 2]
        estimate = estimate + period * (lift + wind - jnp.array([0.0, 0.0, gravity]))

        size = jnp.linalg.norm(force)
        axis = jnp.array([0.0, 0.0, 1.0])
        sine = jnp.cross(axis, force / size)
        angle = jnp.arctan2(jnp.linalg.norm(sine), force[2] / size)
        tilt = sine * angle / (jnp.linalg.norm(sine) + 1e-6)
        yaw = jnp.arctan2(north[1], north[0])
        # Rotors turn the machine with little force: brake in time, and leave them to tilt first.
        turn = jnp.sqrt(2.0 * gains.yaw_acceleration * jnp.abs(yaw))
        turn = jnp.sign(yaw) * jnp.minimum(turn, gains.yaw * jnp.abs(yaw)) * jnp.maximum(up[2], 0.0)
        wanted_rate = gains.tilt * tilt + turn * axis
        stiffness = jnp.array([gains.rate, gains.rate, gains.yaw_rate])
        moment = inertia @ (stiffness * (wanted_rate - rate)) + jnp.cross(rate, inertia @ rate)
        along = jnp.maximum(force[2], 0.3 * mass * gravity)
        first = unmix @ jnp.array([along, moment[0], moment[1], 0.0])
        last = unmix[:, 3] * moment[2]
        room = jnp.min(jnp.where(last > 0.0, thrust - first, first) / (jnp.abs(last) + 1e-6))
        wanted_throttle = (first + jnp.clip(room, 0.0, 1.0) * last) / thrust
        action = throttle + gains.lead * (wanted_throttle - throttle)
        return (estimate, wind, jnp.ones((), bool)), jnp.clip(action, 0.0, 1.0), {}

    return Controller(init, step)


def _constants(plant: Plant) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Return mass, inertia about its centre, the mixer [lift, moment] = B f, full thrusts."""
    model = plant.model
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, model.body_iquat[1])
    turn = turn.reshape(3, 3)
    inertia = turn @ np.diag(model.body_inertia[1]) @ turn.T
    columns = []
    for i in plant.action_ids:
        gear = model.actuator_gear[i]
        arm = model.site_pos[model.actuator_trnid[i, 0]] - model.body_ipos[1]
        columns.append([gear[2], *(np.cross(arm, gear[:3]) + gear[3:])])
    thrust = model.actuator_gainprm[list(plant.action_ids), 0]
    return float(model.body_mass[1]), inertia, np.array(columns).T, thrust.copy()
