"""The satellite: closed forms at three designs, what a design moves, and its task."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from physai.plant import load_module, load_plant
from physai.rollout.engine import TruePlant
from physai.rollout.excitation import draw_starts
from physai.state import quaternion_exp
from physai.task import load_task

PLANT = load_plant("satellite")
TASK = load_task(PLANT)
NOMINAL = jnp.asarray(PLANT.nominal)


@pytest.mark.parametrize(
    "design", [PLANT.nominal, [0.06, 25.0, 140.0, 150.0], [0.11, 50.0, 280.0, 25.0]]
)
def test_closed_forms(design):
    module = load_module(PLANT.folder / "plant.py")
    for check in module.checks_of(PLANT, np.array(design)):
        assert check.passed, check


def test_cant_angle_turns_the_wheels():
    model = PLANT.compile([0.08, 30.0, 200.0, 50.0])
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    assert data.xaxis[1:5, 2] == pytest.approx(0.5)


def episode(error: float):
    start = TASK.reset(jax.random.key(0), NOMINAL)
    turned = quaternion_exp(start.command + jnp.array([error, 0.0, 0.0]))
    qpos = jnp.concatenate([jnp.zeros(3), turned, jnp.zeros(6)])
    rest = start.replace(qpos=qpos, qvel=jnp.zeros(12))
    return jax.tree.map(lambda x: jnp.repeat(x[None], 301, 0), rest)


def test_requirements_and_reward():
    held, missed = episode(0.0), episode(0.05)
    assert all(r.measure(held) <= r.limit for r in TASK.requirements)
    assert TASK.requirements[0].measure(missed) > TASK.requirements[0].limit
    goal, near, far = (TASK.reward(e[0], jnp.zeros(4), e[0]) for e in (held, missed, episode(0.5)))
    assert goal > near > far


def test_reset_is_within_the_observation_ranges():
    keys = jax.random.split(jax.random.key(1), 64)
    seen = jax.vmap(lambda k: TASK.observe(TASK.reset(k, NOMINAL)))(keys)
    assert (seen >= jnp.array([c.low for c in TASK.observations])).all()
    assert (seen <= jnp.array([c.high for c in TASK.observations])).all()


def test_random_torques_stay_in_the_numbers():
    """Actions and disturbances over their ranges, 256 at once, for 12 s."""
    machine, rng = TruePlant(PLANT, 256), np.random.default_rng(0)
    state = draw_starts(TASK, jax.random.key(2), np.tile(PLANT.nominal, (256, 1)))
    for _ in range(60):
        state = machine.step(
            state, rng.uniform(-0.2, 0.2, (256, 4)), rng.uniform(-0.01, 0.01, (256, 3))
        )
    assert machine.valid.all()
    assert np.abs(state.qvel[:, 3:6]).max() < 0.5 and np.abs(state.qvel[:, 6:10]).max() < 700.0


def test_a_disturbance_adds_its_integral_to_the_angular_momentum():
    """0.01 N m about each world axis for 10 s, from rest: 0.1 N m s about each."""
    machine = TruePlant(PLANT, 3)
    rest = jax.tree.map(lambda x: np.repeat(np.asarray(x[0], float)[None], 3, 0), episode(0.0))
    state = rest
    for _ in range(50):
        state = machine.step(state, np.zeros((3, 4)), 0.01 * np.eye(3))
    model = PLANT.compile(PLANT.nominal)
    data = mujoco.MjData(model)
    for axis in range(3):
        data.qpos, data.qvel = state.qpos[axis], state.qvel[axis]
        mujoco.mj_forward(model, data)
        mujoco.mj_subtreeVel(model, data)
        assert data.subtree_angmom[1] == pytest.approx(0.1 * np.eye(3)[axis], abs=1e-6)
