"""The arm: closed forms at three designs, kinematics of the task, and its reward."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physai.plant import load_plant
from physai.plant.load import load_module
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
