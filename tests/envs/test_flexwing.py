"""The flexible wing: closed forms, what design variables move, starts, reward, requirements."""

from __future__ import annotations

import re

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
    return load_plant("flexwing")


@pytest.fixture(scope="module")
def task(plant):
    return load_task(plant)


def trimmed(plant, altitude: float = 0.0) -> State:
    return State(
        qpos=jnp.asarray(plant.model.key_qpos[0]).at[2].set(altitude),
        qvel=jnp.asarray(plant.model.key_qvel[0]),
        act=jnp.zeros(0),
        time=jnp.zeros(()),
        command=jnp.zeros(1),
        design=jnp.asarray(plant.nominal),
    )


def flight(state: State, steps: int = 160) -> State:
    states = jax.tree.map(lambda x: jnp.broadcast_to(x, (steps + 1, *x.shape)), state)
    return states.replace(time=0.05 * jnp.arange(steps + 1))


@pytest.mark.parametrize(
    "design", [(1.5, 1.5, 16.0, 50.0, 0.2), (1.0, 1.0, 14.0, 40.0, 0.1), (3, 2, 18, 60, 0.3)]
)
def test_closed_forms(plant, design) -> None:
    module = load_module(plant.folder / "plant.py")
    assert module is not None
    checks = module.checks_of(plant, np.array(design, float))
    assert [c.quantity for c in checks if not c.passed] == []
    assert len(checks) == 8


def test_it_flies_level_at_trim(plant) -> None:
    aircraft = TruePlant(plant, 1)
    state = jax.tree.map(lambda x: np.asarray(x, float)[None], trimmed(plant))
    for _ in range(20):
        state = aircraft.step(state, plant.trim[None])
    assert abs(state.qpos[0, 2]) < 1e-3 and abs(state.qvel[0, 2]) < 1e-3
    assert state.qpos[0, 0] == pytest.approx(25.0, abs=1e-3)
    np.testing.assert_allclose(state.qpos[0, 7:], plant.model.key_qpos[0, 7:], atol=1e-4)


def step(plant, design=None, action=None, gust=(0.0, 0.0, 0.0), periods: int = 4) -> np.ndarray:
    """Return the velocity after some control periods from trim."""
    designs = None if design is None else np.array([design], float)
    aircraft = TruePlant(plant, 1, designs)
    state = jax.tree.map(lambda x: np.asarray(x, float)[None], trimmed(plant))
    if designs is not None:
        state = state.replace(design=designs)
    for _ in range(periods):
        state = aircraft.step(
            state, (plant.trim if action is None else action)[None], np.array([gust])
        )
    return state.qvel[0]


def test_surfaces_throttle_and_gusts_push_where_they_should(plant) -> None:
    names = [a.name for a in plant.actions]

    def moved(name: str, change: float) -> np.ndarray:
        action = plant.trim.copy()
        action[names.index(name)] += change
        return step(plant, action=action)

    assert moved("throttle", 0.2)[0] > step(plant)[0] + 0.01
    assert abs(moved("elevator", 0.05)[4]) > 0.01
    assert moved("rudder", 0.1)[5] * moved("rudder", -0.1)[5] < 0.0
    assert step(plant, gust=(1.0, 1.0, 0.0))[2] > 0.05
    up_left, up_right = (step(plant, gust=g)[3] for g in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)))
    assert up_left > 0.01 and up_left == pytest.approx(-up_right, rel=0.05)


@pytest.mark.parametrize(("index", "value"), [(0, 3.0), (2, 18.0), (3, 60.0)])
def test_a_design_moves_masses_and_springs(plant, index, value) -> None:
    """More payload sinks; a longer span weighs more; springs stiffen."""
    design = plant.nominal
    design[index] = value
    model = plant.compile(design)
    if index == 3:
        assert model.body_mass.sum() == pytest.approx(plant.model.body_mass.sum() + 10.0)
        assert step(plant, design)[2] < -0.01
    elif index == 2:
        assert model.body_mass.sum() == pytest.approx(plant.model.body_mass.sum() + 2 * 2 * 0.75)
    else:
        assert model.jnt_stiffness[1] == pytest.approx(2.0 * plant.model.jnt_stiffness[1])


def test_the_aileron_chord_changes_what_an_aileron_does(plant) -> None:
    action = plant.trim.copy()
    action[0], action[1] = 0.1, -0.1
    rolls = []
    for chord in (0.1, 0.3):
        design = plant.nominal
        design[4] = chord
        rolls.append(abs(step(plant, design, action, periods=2)[3]))
    assert abs(rolls[0] - rolls[1]) > 1e-3 and min(rolls) > 1e-3


def test_starts_lie_within_the_observation_ranges(plant, task) -> None:
    low, high = (np.array([getattr(c, end) for c in task.observations]) for end in ("low", "high"))
    ends = [np.array([getattr(v, e) for v in plant.design]) for e in ("low", "nominal", "high")]
    for draw in (task.reset, task.excitation):
        for design in ends:
            keys = jax.random.split(jax.random.key(0), 100)
            starts = jax.vmap(draw, in_axes=(0, None))(keys, jnp.asarray(design))
            seen = np.asarray(jax.vmap(task.observe)(starts))
            assert (seen >= low).all() and (seen <= high).all()
            assert not np.asarray(jax.vmap(task.terminated)(starts)).any()


def test_small_random_actions_do_not_diverge(plant, task) -> None:
    aircraft, rng = TruePlant(plant, 64), np.random.default_rng(0)
    state = draw_starts(task, jax.random.key(1), np.tile(plant.nominal, (64, 1)))
    for _ in range(20):
        state = aircraft.step(state, plant.trim + 0.03 * rng.standard_normal((64, plant.nu)))
    assert aircraft.valid.all() and np.abs(state.qvel).max() < 60.0


def test_reward_and_requirements_at_the_goal_and_away_from_it(plant, task) -> None:
    goal, action = trimmed(plant), jnp.asarray(plant.trim)
    best = task.reward(goal, action, goal)

    def met(state: State) -> dict[str, bool]:
        return {r.name: float(r.measure(flight(state))) <= r.limit for r in task.requirements}

    assert all(met(goal).values())
    banked = goal.qpos.at[3:7].set(jnp.array([np.cos(0.06), np.sin(0.06), 0.0, 0.0]))
    bent = goal.qpos.at[7].set(0.2)
    for name, state in (
        ("altitude", trimmed(plant, altitude=0.6)),
        ("speed", goal.replace(qvel=goal.qvel.at[0].set(26.5))),
        ("bank", goal.replace(qpos=banked)),
        ("root_moment", goal.replace(qpos=bent)),
    ):
        assert not met(state)[name]
        assert task.reward(state, action, state) < best - 0.01


def test_the_spec_sheet_has_the_constants_of_fuselage_tail_fin_and_engine(plant) -> None:
    model, rows = plant.model, {}
    for line in (plant.folder / "README.md").read_text(encoding="utf-8").splitlines():
        constant, value, *_ = *line.strip("|").split(" | "), ""
        rows[constant.strip()] = [float(x) for x in re.findall(r"-?\d+\.?\d*", value)]
    fuselage, tail, fin = (model.body(name) for name in ("fuselage", "tail", "fin"))
    for constant, values in {
        "payload with fuselage": fuselage.mass,
        "its inertia about x, y and z, at 50 kg": fuselage.inertia,
        "its centre of mass, behind half chord of the wing": -fuselage.ipos[:1],
        "middle of the fin above the boom": fin.pos[2:],
        "mass of tail and fin": [tail.mass[0], fin.mass[0]],
        "inertia of the tail about x, y and z": tail.inertia,
        "inertia of the fin across, along its span, about its normal": fin.inertia,
        "thrust at full throttle": model.actuator("throttle").gainprm[:1],
    }.items():
        assert rows[constant] == pytest.approx(list(values)), constant
