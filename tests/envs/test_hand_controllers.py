"""The tasks of satellite and flexwing can be done: textbook controllers meet the requirements."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import scipy.linalg

from physai.plant import Plant, load_plant
from physai.rollout.engine import TruePlant
from physai.state import State, minus, plus, quaternion_conjugate, quaternion_exp, quaternion_log
from physai.state import quaternion_multiply as multiply
from physai.task import Task, load_task

FLIGHTS = 16
Control = Callable[[State, float], np.ndarray]


def passed(plant: Plant, task: Task, controller: Callable[[State], Control]) -> np.ndarray:
    """Fly fresh starts with disturbances in the true simulator; whether each meets all `[n]`."""
    rng = np.random.default_rng(0)
    keys = jax.random.split(jax.random.key(0), FLIGHTS)
    nominal = jnp.asarray(plant.nominal, jnp.float32)
    starts = jax.vmap(task.reset, (0, None))(keys, nominal)
    state = jax.tree.map(lambda leaf: np.asarray(leaf, float), starts)
    control, simulator = controller(state), TruePlant(plant, FLIGHTS)
    low, high = np.array([(a.low, a.high) for a in plant.actions]).T
    keep = np.exp([-plant.control_period / d.correlation_time for d in plant.disturbances])
    std = np.array([d.std for d in plant.disturbances])
    noise = std * rng.standard_normal((FLIGHTS, plant.nw))
    states = [state]
    for k in range(round(task.duration / plant.control_period)):
        fresh = std * rng.standard_normal((FLIGHTS, plant.nw))
        noise = keep * noise + np.sqrt(1.0 - keep**2) * fresh
        action = np.clip(control(state, k * plant.control_period), low, high)
        state = simulator.step(state, action, noise)
        states.append(state)
    assert simulator.valid.all()
    flights = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves, 1)), *states)
    met = [np.asarray(jax.vmap(r.measure)(flights)) <= r.limit for r in task.requirements]
    return np.all(met, axis=0)


def test_a_shaped_slew_of_the_satellite_meets_its_requirements() -> None:
    """Quintic slew about the eigenaxis in 40 s, feed-forward, gyroscopic term, PD at 0.25 rad/s."""
    plant = load_plant("satellite")
    assert passed(plant, load_task(plant), lambda starts: _slew(plant, starts)).sum() >= 15


def test_a_linear_quadratic_regulator_of_the_flexwing_meets_its_requirements() -> None:
    """Full state feedback from a linearisation of the true simulator at trim."""
    plant = load_plant("flexwing")
    gain, key = _regulator(plant)

    def control(state: State, _: float) -> np.ndarray:
        x = _tangent(plant, state, key)
        x[:, 2] = np.clip(state.qpos[:, 2] - state.command[:, 0], -1.0, 1.0)
        return plant.trim - x[:, 2:] @ gain.T

    task = load_task(plant)
    assert passed(plant, task, lambda starts: control).sum() >= 15
    idle = passed(plant, task, lambda starts: lambda state, time: np.tile(plant.trim, (FLIGHTS, 1)))
    assert idle.sum() <= 4


def _slew(plant: Plant, starts: State, duration: float = 40.0) -> Control:
    model = plant.compile(plant.nominal)
    data = mujoco.MjData(model)
    mass = np.empty((model.nv, model.nv))
    mujoco.mj_forward(model, data)
    mujoco.mj_fullM(model, data, mass)
    spins = mass[3:6, 6:10]
    axes = spins / np.linalg.norm(spins, axis=0)
    inertia = mass[3:6, 3:6] - spins @ axes.T
    distribute = -np.linalg.pinv(axes)
    goal = jax.vmap(quaternion_exp)(jnp.asarray(starts.command))
    error = jax.jit(jax.vmap(lambda g, q: quaternion_log(multiply(quaternion_conjugate(g), q))))
    slew = np.asarray(error(goal, starts.qpos[:, 3:7]))
    reference = jax.jit(jax.vmap(lambda g, e: multiply(g, quaternion_exp(e))))

    def control(state: State, time: float) -> np.ndarray:
        s = min(time / duration, 1.0)
        left = 1.0 - s**3 * (10.0 - 15.0 * s + 6.0 * s**2)
        pace = 30.0 * (s * (1.0 - s)) ** 2 / duration
        push = 60.0 * s * (1.0 - s) * (1.0 - 2.0 * s) / duration**2
        offset = np.asarray(error(reference(goal, left * slew), state.qpos[:, 3:7]))
        rate = np.asarray(state.qvel[:, 3:6])
        wanted = -push * slew - 0.25**2 * offset - 2.0 * 0.9 * 0.25 * (rate + pace * slew)
        torque = wanted @ inertia + np.cross(rate, state.qvel @ mass[3:6].T)
        return torque @ distribute.T

    return control


def _tangent(plant: Plant, state: State, key: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    with jax.enable_x64(True):
        moved = minus(plant.joints, jnp.asarray(state.qpos), jnp.asarray(key[0]))
    return np.concatenate([np.asarray(moved), state.qvel - key[1]], axis=1)


def _regulator(plant: Plant) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Gain `[nu, 2 nv - 2]` on the deviation from trim without x and y, and the trim."""
    model = plant.compile(plant.nominal)
    key = (model.key_qpos[0].copy(), model.key_qvel[0].copy())
    nx, nu, small = 2 * model.nv, plant.nu, 1e-4
    offsets = np.concatenate([np.eye(nx), -np.eye(nx), np.zeros((2 * nu, nx))]) * small
    actions = np.tile(plant.trim, (len(offsets), 1))
    actions[2 * nx :] += small * np.concatenate([np.eye(nu), -np.eye(nu)])
    with jax.enable_x64(True):
        qpos = plus(plant.joints, jnp.asarray(key[0]), jnp.asarray(offsets[:, : model.nv]))
    count = len(offsets)
    start = State(
        qpos=np.asarray(qpos),
        qvel=key[1] + offsets[:, model.nv :],
        act=np.zeros((count, 0)),
        time=np.zeros(count),
        command=np.zeros((count, 1)),
        design=np.tile(plant.nominal, (count, 1)),
    )
    after = _tangent(plant, TruePlant(plant, count).step(start, actions), key)
    a = ((after[:nx] - after[nx : 2 * nx]) / (2.0 * small)).T[2:, 2:]
    b = ((after[2 * nx : 2 * nx + nu] - after[2 * nx + nu :]) / (2.0 * small)).T[2:]
    cost = np.full(nx, 1e-3)
    cost[2:6] = (10.0, 20.0, 5.0, 0.05)
    cost[model.nv : model.nv + 6] = (4.0, 0.5, 1.0, 2.0, 2.0, 2.0)
    effort = 10.0 * np.diag([1.0, 1.0, 1.0, 1.0, 0.1])
    riccati = scipy.linalg.solve_discrete_are(a, b, np.diag(cost[2:]), effort)
    return np.linalg.solve(effort + b.T @ riccati @ b, b.T @ riccati @ a), key
