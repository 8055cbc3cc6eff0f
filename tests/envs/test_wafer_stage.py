"""The wafer stage: closed forms at three designs, what a design moves, and its task."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physai.plant import load_module, load_plant
from physai.task import load_task

DESIGNS = (
    [95.1, 35.15, 2.0, 0.1, 40.0],
    [75.0, 45.0, 4.0, 0.3, 25.0],
    [125.0, 28.0, 1.5, 0.2, 55.0],
)
PLANT = load_plant("wafer_stage")
TASK = load_task(PLANT)


@pytest.mark.parametrize("design", DESIGNS)
def test_closed_forms(design):
    module = load_module(PLANT.folder / "plant.py")
    for check in module.checks_of(PLANT, np.array(design)):
        assert check.passed, check


def test_isolator_stiffness_follows_the_moving_mass():
    model = PLANT.compile([120.0, 35.15, 3.0, 0.1, 40.0])
    assert model.body_mass[3] + model.body_mass[4] == pytest.approx(120.0)
    assert model.jnt_stiffness[1] == pytest.approx(1120.0 * (6.0 * np.pi) ** 2)


def episode(error: float):
    start = TASK.reset(jax.random.key(0), jnp.array(DESIGNS[0]))
    rest = start.replace(
        qpos=jnp.array([0.0, 0.0, start.command[0] + error, 0.0]), qvel=jnp.zeros(4)
    )
    return jax.tree.map(lambda x: jnp.repeat(x[None], 401, 0), rest)


def test_requirements_and_reward():
    held, missed = episode(0.0), episode(1e-4)
    assert all(r.measure(held) <= r.limit for r in TASK.requirements)
    assert TASK.requirements[0].measure(missed) > TASK.requirements[0].limit
    goal, near, far = (TASK.reward(e[0], jnp.zeros(1), e[0]) for e in (held, missed, episode(0.05)))
    assert goal > near > far


def test_reset_is_within_the_observation_ranges():
    keys = jax.random.split(jax.random.key(1), 64)
    seen = jax.vmap(lambda k: TASK.observe(TASK.reset(k, jnp.array(DESIGNS[0]))))(keys)
    assert (seen >= jnp.array([c.low for c in TASK.observations])).all()
    assert (seen <= jnp.array([c.high for c in TASK.observations])).all()
