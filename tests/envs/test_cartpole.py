"""The cart and pole: closed forms, what design variables move, starts, reward and requirements."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physai.plant import load_plant
from physai.plant.load import load_module
from physai.rollout.engine import TruePlant
from physai.state import State
from physai.task import load_task


@pytest.fixture(scope="module")
def plant():
    return load_plant("cartpole")


@pytest.fixture(scope="module")
def task(plant):
    return load_task(plant)


def at(plant, qpos, qvel=(0.0, 0.0)) -> State:
    return State(
        qpos=jnp.array(qpos, jnp.float32),
        qvel=jnp.array(qvel, jnp.float32),
        act=jnp.zeros(0),
        time=jnp.zeros(()),
        command=jnp.zeros(0),
        design=jnp.asarray(plant.nominal, jnp.float32),
    )


def resting(state: State, steps: int = 1000) -> State:
    states = jax.tree.map(lambda x: jnp.broadcast_to(x, (steps + 1, *x.shape)), state)
    return states.replace(time=0.01 * jnp.arange(steps + 1))


@pytest.mark.parametrize("design", [(1.0, 0.1, 1.0), (0.5, 0.3, 0.5), (1.4, 0.06, 1.8)])
def test_closed_forms(plant, design):
    module = load_module(plant.folder / "plant.py")
    assert module is not None
    checks = module.design_checks(plant, np.array(design))
    assert [c.quantity for c in checks if not c.passed] == []
    assert len(checks) == 6


def test_constants_are_those_of_the_suite(plant):
    """Cart 1 kg, pole 0.1 kg, gear 10, rail +-1.8 m, action +-1, step 0.01 s."""
    model = plant.model
    assert list(model.body_mass[1:]) == pytest.approx([1.0, 0.1])
    assert model.actuator_gear[0, 0] == 10.0
    assert list(model.jnt_range[0]) == [-1.8, 1.8]
    assert (plant.actions[0].low, plant.actions[0].high) == (-1.0, 1.0)
    assert plant.control_period == model.opt.timestep == 0.01
    assert model.opt.density == 0.0


def test_design_variables_move_masses_and_length(plant):
    model = plant.compile([1.5, 0.3, 2.0])
    assert list(model.body_mass[1:]) == pytest.approx([2.0, 0.3])
    assert model.body_ipos[2, 2] == pytest.approx(0.75)
    assert model.body_inertia[2].max() > 5.0 * plant.model.body_inertia[2].max()


def test_starts_are_inside_the_observation_ranges(plant, task):
    low = np.array([c.low for c in task.observations])
    high = np.array([c.high for c in task.observations])
    for draw in (task.reset, task.excitation):
        keys = jax.random.split(jax.random.key(0), 200)
        starts = jax.vmap(draw, (0, None))(keys, jnp.asarray(plant.nominal, jnp.float32))
        seen = np.asarray(jax.vmap(task.observe)(starts))
        assert (seen >= low - 1e-6).all() and (seen <= high + 1e-6).all()
    hanging = jax.vmap(task.reset, (0, None))(keys, jnp.asarray(plant.nominal, jnp.float32))
    assert np.cos(np.asarray(hanging.qpos[:, 1])).max() < -0.99


def test_reward_is_that_of_the_suite(plant, task):
    """1 upright at rest in the middle; hand-computed factors elsewhere; 0 while hanging."""
    top, action = at(plant, (0.0, 0.0)), jnp.zeros(1)
    assert float(task.reward(top, action, top)) == pytest.approx(1.0)
    assert float(task.reward(top, jnp.ones(1), top)) == pytest.approx(0.8)
    for qpos, qvel, expected in [
        ((2.0, 0.0), (0.0, 0.0), 0.55),  # tolerance 0.1 at the margin: (1 + 0.1) / 2
        ((0.0, 0.0), (0.0, 5.0), 0.55),
        ((0.0, np.pi / 2), (0.0, 0.0), 0.5),
        ((0.0, np.pi), (0.0, 0.0), 0.0),
    ]:
        state = at(plant, qpos, qvel)
        assert float(task.reward(top, action, state)) == pytest.approx(expected, abs=1e-6)


def test_requirements_hold_upright_and_fail_elsewhere(plant, task):
    def measured(qpos):
        states = resting(at(plant, qpos))
        return {r.name: bool(r.measure(states) <= r.limit) for r in task.requirements}

    assert measured((0.1, 0.05)) == {"angle": True, "position": True}
    assert measured((0.1, 2 * np.pi)) == {"angle": True, "position": True}
    assert measured((0.1, np.pi)) == {"angle": False, "position": True}
    assert measured((0.5, 0.0)) == {"angle": True, "position": False}


def test_settling_time_counts_the_last_time_outside(plant, task):
    states = resting(at(plant, (0.0, 0.0)))
    assert float(task.settling(states)) == 0.0
    late = states.replace(qpos=states.qpos.at[299, 1].set(1.0))
    assert float(task.settling(late)) == pytest.approx(3.0, abs=1e-4)
    never = resting(at(plant, (0.0, np.pi)))
    assert np.isinf(float(task.settling(never)))


def test_random_actions_do_not_diverge_and_stay_on_the_rail(plant, task):
    rng = np.random.default_rng(0)
    low = np.array([v.low for v in plant.design])
    high = np.array([v.high for v in plant.design])
    designs = np.tile(low + (high - low) * rng.uniform(size=(8, 3)), (8, 1))
    keys = jax.random.split(jax.random.key(1), 64)
    starts = jax.vmap(task.excitation)(keys, jnp.asarray(designs, jnp.float32))
    simulations = TruePlant(plant, 64, designs)
    state, reached = jax.tree.map(np.asarray, starts), 0.0
    for k in range(300):
        if k % 20 == 0:
            action = rng.choice([-1.0, 1.0], size=(64, 1))
        state = simulations.step(state, action)
        reached = max(reached, float(np.abs(state.qpos[:, 0]).max()))
    assert simulations.valid.all()
    assert 1.8 < reached < 3.0  # the stops are springs, and hold short of what counts as lost
