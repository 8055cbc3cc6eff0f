"""The arm: closed forms at three designs, kinematics of the task, and its reward."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from physai.plant import load_plant
from physai.plant.load import load_module
from physai.rollout.engine import TruePlant
from physai.rollout.excitation import draw_starts
from physai.task import load_task

PLANT = load_plant("arm")
MODULE = load_module(PLANT.folder / "plant.py")
TASK = load_task(PLANT)
DESIGNS = (
    [0.425, 0.3922, 100.0, 1.0, 1.0],
    [0.3, 0.5, 80.0, 1.3, 5.0],
    [0.55, 0.3, 120.0, 0.8, 0.0],
)


@pytest.mark.parametrize("design", DESIGNS)
def test_closed_forms_and_the_tool_of_the_task(design):
    for check in MODULE.checks_of(PLANT, np.array(design)):
        assert check.passed, check
    start = TASK.excitation(jax.random.key(0), jnp.array(design))
    expected = MODULE.frames(np.asarray(start.qpos), np.array(design))[0][6]
    target = start.command[:3] + start.command[3] * jnp.array([1.0, 0.0, 0.0])
    assert np.asarray(TASK.observe(start)[12:15] + target) == pytest.approx(expected, abs=1e-5)


def test_reward_is_larger_on_the_target_and_starts_are_in_range():
    keys = jax.random.split(jax.random.key(1), 64)
    starts = jax.vmap(TASK.reset, (0, None))(keys, jnp.array(DESIGNS[0]))
    seen = jax.vmap(TASK.observe)(starts)
    assert (seen >= jnp.array([c.low for c in TASK.observations])).all()
    assert (seen <= jnp.array([c.high for c in TASK.observations])).all()
    one = starts[0]
    command = one.command.at[3].set(0.0)
    tool = TASK.observe(one.replace(command=command))[12:15] + command[:3]
    there = one.replace(command=command.at[:3].set(tool))
    away = there.replace(command=there.command.at[0].add(0.05))
    assert TASK.reward(one, jnp.zeros(6), there) > TASK.reward(one, jnp.zeros(6), away)


# Universal Robots, article 45257, UR5e: a, d, alpha over pi, mass, centre of mass in the DH frame.
PUBLISHED = (
    (0.0, 0.1625, 0.5, 3.761, (0.0, -0.02561, 0.00193)),
    (-0.425, 0.0, 0.0, 8.058, (0.2125, 0.0, 0.11336)),
    (-0.3922, 0.0, 0.0, 2.846, (0.15, 0.0, 0.0265)),
    (0.0, 0.1333, 0.5, 1.37, (0.0, -0.0018, 0.01634)),
    (0.0, 0.0997, -0.5, 1.3, (0.0, 0.0018, 0.01634)),
    (0.0, 0.0996, 0.0, 0.365, (0.0, 0.0, -0.001159)),
)


def test_the_compiled_arm_is_the_published_one():
    """Masses, and centres of mass in the world at a random pose, by homogeneous transforms."""
    model = PLANT.compile(PLANT.nominal)
    data = mujoco.MjData(model)
    data.qpos[:] = np.random.default_rng(1).uniform(-3.0, 3.0, 6)
    mujoco.mj_kinematics(model, data)
    frame = np.eye(4)
    for i, (a, d, alpha, mass, centre) in enumerate(PUBLISHED):
        c, s = np.cos(data.qpos[i]), np.sin(data.qpos[i])
        ca, sa = np.cos(alpha * np.pi), np.sin(alpha * np.pi)
        frame = frame @ np.array(
            [
                [c, -s * ca, s * sa, a * c],
                [s, c * ca, -c * sa, a * s],
                [0.0, sa, ca, d],
                [0.0, 0.0, 0.0, 1.0],
            ]
        )
        body = model.body(f"link_{i + 1}").id
        assert model.body_mass[body] == mass
        expected = (frame @ np.array([*centre, 1.0]))[:3]
        np.testing.assert_allclose(data.xipos[body], expected, atol=1e-12)


def test_a_wrong_mass_fails_the_checks(monkeypatch):
    """What the model holds is compared with the constants, not with itself."""
    compile_plant = type(PLANT).compile

    def heavier(self, *args, **kwargs):
        model = compile_plant(self, *args, **kwargs)
        model.body("link_3").mass[0] *= 1.01
        mujoco.mj_setConst(model, mujoco.MjData(model))
        return model

    monkeypatch.setattr(type(PLANT), "compile", heavier)
    failed = {c.quantity for c in MODULE.checks_of(PLANT, np.array(DESIGNS[0])) if not c.passed}
    assert {"shoulder torque, arm level", "worst inverse dynamics error, 20 states"} <= failed


@pytest.mark.parametrize("payload", [0.0, 5.0])
def test_torques_hold_a_random_pose_against_gravity(payload):
    """Actions from the potential energy's gradient keep the arm at rest."""
    design = np.array([0.425, 0.3922, 100.0, 1.0, payload])
    q = np.random.default_rng(2).uniform(-1.5, 1.5, 6)

    def potential(angles: np.ndarray) -> float:
        p, r = MODULE.frames(angles, design)
        heights = [p[i + 1] + r[i + 1] @ MODULE.centres(design)[i] for i in range(6)]
        masses = np.array([row[3] for row in PUBLISHED])
        return 9.81 * (masses @ np.array(heights)[:, 2] + payload * p[6][2])

    steps = 1e-5 * np.eye(6)
    torque = np.array([(potential(q + e) - potential(q - e)) / 2e-5 for e in steps])
    action = torque / (100.0 * MODULE.MOTOR_TORQUE)
    start = TASK.reset(jax.random.key(0), jnp.array(design))
    state = jax.tree.map(lambda x: np.asarray(x, float)[None], start)
    state = state.replace(qpos=q[None], qvel=np.zeros((1, 6)))
    machine = TruePlant(PLANT, 1, design[None])
    for _ in range(20):
        state = machine.step(state, action[None])
    np.testing.assert_allclose(state.qpos[0], q, atol=1e-6)


def test_random_torques_stay_in_the_numbers():
    machine, rng = TruePlant(PLANT, 256), np.random.default_rng(0)
    state = draw_starts(TASK, jax.random.key(2), np.tile(PLANT.nominal, (256, 1)))
    for _ in range(60):
        state = machine.step(state, rng.uniform(-1.0, 1.0, (256, 6)), rng.uniform(-5, 5, (256, 3)))
    assert machine.valid.all() and np.abs(state.qvel).max() < 40.0
