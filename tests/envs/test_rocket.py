"""The rocket: closed forms, what design variables move, starts, reward and requirements."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physai.plant import load_plant
from physai.plant.load import load_module
from physai.rollout.engine import TruePlant
from physai.rollout.excitation import draw_starts
from physai.state import State
from physai.task import load_task


@pytest.fixture(scope="module")
def plant():
    return load_plant("rocket")


@pytest.fixture(scope="module")
def task(plant):
    return load_task(plant)


def at(plant, place=(0.0, 0.0, 0.0), velocity=(0.0, 0.0, 0.0), turn=0.0, design=None) -> State:
    return State(
        qpos=jnp.array([*place, np.cos(turn / 2), np.sin(turn / 2), 0.0, 0.0]),
        qvel=jnp.array([*velocity, 0.0, 0.0, 0.0]),
        act=jnp.zeros(3),
        time=jnp.zeros(()),
        command=jnp.zeros(0),
        design=jnp.asarray(plant.nominal if design is None else design, jnp.float32),
    )


def resting(state: State, steps: int = 700) -> State:
    states = jax.tree.map(lambda x: jnp.broadcast_to(x, (steps + 1, *x.shape)), state)
    return states.replace(time=0.02 * jnp.arange(steps + 1))


def batch(state: State, n: int = 1) -> State:
    return jax.tree.map(lambda x: np.repeat(np.asarray(x, float)[None], n, axis=0), state)


@pytest.mark.parametrize("design", [(7607, 5.0, 410.9), (6500, 3.5, 330), (8700, 7.0, 400)])
def test_closed_forms(plant, design) -> None:
    module = load_module(plant.folder / "plant.py")
    assert module is not None
    checks = module.design_checks(plant, np.array(design, float))
    assert [c.quantity for c in checks if not c.passed] == []
    assert len(checks) == 6


def test_it_hovers_at_trim(plant) -> None:
    """Thrust equals weight on full tanks, up to what burns: 0.02 m/s^2 after a second."""
    rocket, state = TruePlant(plant, 1), batch(at(plant))
    for _ in range(50):
        state = rocket.step(state, plant.trim[None])
    assert abs(state.qvel[0, 2]) < 0.03 and abs(state.qpos[0, 2]) < 0.02


def test_gimbals_push_the_base_to_their_sides_and_turn_the_top_away(plant) -> None:
    rocket = TruePlant(plant, 2)
    state = batch(at(plant), 2)
    actions = np.tile(plant.trim, (2, 1))
    actions[0, 1] = actions[1, 2] = 1.0
    for _ in range(10):
        state = rocket.step(state, actions)
    assert state.qvel[0, 0] > 0.0 and state.qvel[1, 1] > 0.0
    assert state.qvel[0, 4] < 0.0 and state.qvel[1, 3] > 0.0
    assert abs(state.qvel[:, 5]).max() < 1e-9


def test_wind_pushes_along(plant) -> None:
    rocket, state = TruePlant(plant, 1), batch(at(plant))
    for _ in range(50):
        state = rocket.step(state, plant.trim[None], np.array([[5.0, 0.0, 0.0]]))
    still = 0.5 * 1.225 * 1.2 * 4.7 * 0.37 * 25.0 / 436.5  # at rest, m/s^2
    assert 0.5 * still < state.qvel[0, 0] < 1.5 * still


@pytest.mark.parametrize(
    ("design", "more"), [((8700, 5.0, 410.9), True), ((7607, 5.0, 330.0), True)]
)
def test_thrust_and_a_lighter_tank_brake_harder(plant, design, more) -> None:
    speeds = []
    for value in (plant.nominal, np.array(design, float)):
        rocket, state = TruePlant(plant, 1, value[None]), batch(at(plant, design=value))
        for _ in range(25):
            state = rocket.step(state, np.array([[1.0, 0.0, 0.0]]))
        speeds.append(state.qvel[0, 2])
    assert (speeds[1] > speeds[0] + 0.5) == more


def test_wrong_masses_reach_the_propellant_too(plant) -> None:
    """The change of speed at full thrust is that of the whole mass times the factor.

    Without air: T t / (factor m) - g t; in 0.5 s burning and drag add up to 0.05 m/s.
    """
    factors = np.array([0.9, 1.0, 1.1])
    rocket = TruePlant(plant, 3, np.tile(plant.nominal, (3, 1)), mass_scale=factors)
    state = batch(at(plant), 3)
    for _ in range(25):
        state = rocket.step(state, np.tile([1.0, 0.0, 0.0], (3, 1)))
    expected = 0.5 * (7607.0 / (436.5 * factors) - 9.81)
    np.testing.assert_allclose(state.qvel[:, 2], expected, atol=0.05)


def test_a_batch_of_designs_flies_as_each_alone(plant) -> None:
    designs = np.array([[7607, 5.0, 410.9], [6500, 3.5, 330.0], [8700, 7.0, 400.0]])
    action = np.array([[0.7, 0.5, -0.5]])
    many = TruePlant(plant, 3, designs)
    state = jax.tree.map(
        lambda *x: np.concatenate(x), *(batch(at(plant, design=d)) for d in designs)
    )
    alone = [TruePlant(plant, 1, d[None]) for d in designs]
    singles = [batch(at(plant, design=d)) for d in designs]
    for _ in range(20):
        state = many.step(state, np.tile(action, (3, 1)))
        singles = [a.step(s, action) for a, s in zip(alone, singles, strict=True)]
    for i, single in enumerate(singles):
        np.testing.assert_allclose(state.qpos[i], single.qpos[0], rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(state.act[i], single.act[0])


def test_starts_lie_within_the_observation_ranges(plant, task) -> None:
    low, high = (np.array([getattr(c, end) for c in task.observations]) for end in ("low", "high"))
    for draw in (task.reset, task.excitation):
        keys = jax.random.split(jax.random.key(0), 200)
        starts = jax.vmap(lambda k: draw(k, jnp.asarray(plant.nominal)))(keys)  # noqa: B023
        seen = np.asarray(jax.vmap(task.observe)(starts))
        assert (seen >= low).all() and (seen <= high).all()
        assert np.asarray(jax.vmap(task.terminated)(starts)).sum() == 0


def test_random_actions_do_not_diverge(plant, task) -> None:
    rocket, rng = TruePlant(plant, 256), np.random.default_rng(0)
    state = draw_starts(task, jax.random.key(1), np.tile(plant.nominal, (256, 1)))
    low, high = (np.array([getattr(a, end) for a in plant.actions]) for end in ("low", "high"))
    for _ in range(30):
        state = rocket.step(state, rng.uniform(low, high, (256, 3)))
    assert rocket.valid.all() and np.abs(state.qvel).max() < 60.0


def test_reward_is_larger_at_the_goal(plant, task) -> None:
    action, goal = jnp.zeros(3), at(plant)
    best = task.reward(goal, action, goal)
    for other in (
        at(plant, place=(2.0, 0.0, 0.0)),
        at(plant, place=(0.0, 0.0, 1.0)),
        at(plant, velocity=(0.0, 0.0, -1.0)),
        at(plant, turn=0.1),
    ):
        assert task.reward(other, action, other) < best - 0.005


@pytest.mark.parametrize(
    ("broken", "where"),
    [
        ("distance", {"place": (0.6, 0.0, 0.0)}),
        ("speed", {"velocity": (0.0, 0.0, -0.6)}),
        ("tilt", {"turn": np.radians(3.5)}),
        ("depth", {"place": (0.0, 0.0, -0.6)}),
    ],
)
def test_requirements_hold_at_the_goal_and_break_one_by_one(plant, task, broken, where) -> None:
    def met(state: State) -> dict[str, bool]:
        states = resting(state)
        return {r.name: float(r.measure(states)) <= r.limit for r in task.requirements}

    assert all(met(at(plant)).values())
    assert not met(at(plant, **where))[broken]
    assert task.settling(resting(at(plant))) == 0.0
    assert np.isinf(task.settling(resting(at(plant, place=(0.6, 0.0, 0.0)))))


def test_the_propellant_that_a_flight_burns(plant, task) -> None:
    states = resting(at(plant))
    burnt = jnp.linspace(0.0, 1.0, 701)[:, None] * jnp.array([8.0, 0.0, 0.0])
    used = task.objectives[1].measure(states.replace(act=burnt))
    assert float(used) == pytest.approx(8.0 * (7607 - 2967) / (282 * 9.80665), rel=1e-5)
