"""Flights in true MuJoCo act as Newton says, and a fault fails its own flight alone."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from pushed_cart import MASS, PERIOD, STEPS, TASK, TRIM, damper, ramp, stateless

from physai.control.controller import BatchController
from physai.errors import InputError
from physai.plant import Plant
from physai.state import State
from physai.task import Task
from physai.verify import (
    DISTURBED,
    ScenarioSettings,
    draw_scenarios,
    fly,
    judge,
)


@pytest.mark.parametrize("delay", [0, 1, 3, STEPS + 5])
def test_an_action_moves_the_cart_that_many_periods_later(cart: Plant, delay: int) -> None:
    scenarios = draw_scenarios(cart, TASK, ScenarioSettings(flights=3, delay_steps=delay), 0)
    flights = fly(cart, TASK, ramp(), scenarios, block=3)
    # m dv = force * period, so the change of velocity tells the force that acted.
    force = MASS * np.diff(flights.states.qvel[..., 0].astype(float), axis=1) / PERIOD
    asked = 0.1 * (np.arange(STEPS) + 1)
    expected = np.concatenate([np.full(delay, TRIM), asked])[:STEPS]
    np.testing.assert_allclose(force, np.tile(expected, (3, 1)), atol=2e-4)  # float32 velocities
    np.testing.assert_allclose(flights.actions[..., 0], np.tile(expected, (3, 1)), rtol=1e-6)


def test_gust_and_wrong_mass_act_as_newton_says(cart: Plant) -> None:
    settings = ScenarioSettings(flights=6, gusts=1.0, mass_spread=0.3)
    scenarios = draw_scenarios(cart, TASK, settings, 0)
    flights = fly(cart, TASK, damper, scenarios, block=6)
    force = flights.actions[..., 0] + scenarios.disturbances[..., 0]
    gained = np.diff(flights.states.qvel[..., 0].astype(float), axis=1)
    expected = force * PERIOD / (MASS * scenarios.mass_scale[:, None])
    np.testing.assert_allclose(gained, expected, atol=2e-6)  # float32 velocities of order 1


def test_a_heavier_quadrotor_sinks_at_its_trim(quadrotor: Plant, quadrotor_task: Task) -> None:
    drawn = draw_scenarios(quadrotor, quadrotor_task, ScenarioSettings(flights=3), 0)
    level = np.array([0, 0, 0, 1, 0, 0, 0], np.float32)
    starts = drawn.starts.replace(
        qpos=np.tile(level, (3, 1)),
        qvel=np.zeros((3, 6), np.float32),
        act=np.tile(quadrotor.trim.astype(np.float32), (3, 1)),
    )
    scale = np.array([0.9, 1.0, 1.1])
    scenarios = replace(drawn, starts=starts, mass_scale=scale)
    trim = stateless(lambda observation: np.tile(quadrotor.trim, (len(observation), 1)))
    flights = fly(quadrotor, quadrotor_task, trim, scenarios, block=3)
    # The thrust that carries the nominal weight gives g (1 / scale - 1); so slow, air is nothing.
    time = 5 * quadrotor.control_period
    expected = 9.81 * (1.0 / scale - 1.0) * time
    np.testing.assert_allclose(flights.states.qvel[:, 5, 2], expected, atol=2e-3)
    assert np.abs(flights.states.qvel[:, 5, 3:]).max() < 1e-3


def test_the_controller_sees_the_stored_state_and_the_noise(cart: Plant) -> None:
    seen = []

    def watch(observation: np.ndarray) -> np.ndarray:
        seen.append(observation.copy())
        return np.zeros((len(observation), 1))

    scenarios = draw_scenarios(cart, TASK, ScenarioSettings(flights=4, sensor_noise=1.0), 0)
    flights = fly(cart, TASK, stateless(watch), scenarios, block=4)
    state = np.concatenate([flights.states.qpos, flights.states.qvel], axis=2)[:, :-1]
    np.testing.assert_array_equal(np.stack(seen, axis=1), state + scenarios.noise)
    np.testing.assert_array_equal(flights.states.qpos[:, 0], scenarios.starts.qpos)


def test_nothing_is_compiled_in_the_loop(cart: Plant) -> None:
    traced = []

    def observe(state: State) -> jax.Array:
        traced.append(1)
        return TASK.observe(state)

    task = replace(TASK, observe=observe)
    scenarios = draw_scenarios(cart, task, ScenarioSettings(flights=11), 0)
    fly(cart, task, damper, scenarios, block=4)
    fly(cart, task, damper, scenarios, block=4)
    assert len(traced) == 1


def test_progress_counts_flights(cart: Plant) -> None:
    told = []
    scenarios = draw_scenarios(cart, TASK, ScenarioSettings(flights=5), 0)
    fly(cart, TASK, damper, scenarios, lambda *report: told.append(report), block=2)
    assert told == [("fly", done, 5) for done in (0, 2, 4, 5)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_a_faulty_action_fails_its_flight_and_no_other(cart: Plant, bad: float) -> None:
    def sometimes(k: int, observation: np.ndarray) -> tuple[int, np.ndarray]:
        action = damper.step((), observation)[1].astype(float)
        if k in (10, 11):
            action[2] = bad
        return k + 1, action

    scenarios = draw_scenarios(cart, TASK, replace(DISTURBED, flights=5), 0)
    flights = fly(cart, TASK, BatchController(lambda n: 0, sometimes), scenarios, block=5)
    sound = fly(cart, TASK, damper, scenarios, block=5)
    assert flights.faults.tolist() == [0, 0, 2, 0, 0]
    assert flights.valid.tolist() == [True, True, False, True, True]
    assert not flights.diverged.any()
    assert np.all(flights.actions[2, 11:13] == np.float32(TRIM))  # one period of delay
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(flights.states.qpos[others], sound.states.qpos[others])
    judgement = judge(TASK, flights, block=5)
    assert judge(TASK, sound, block=5).passed[2] and not judgement.passed[2]
    assert not judgement.met[2].any() and np.all(np.isinf(judgement.measures[2]))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda o: np.zeros(len(o)), r"\(3, 1\).*got \(3,\)"),
        (lambda o: np.zeros((len(o), 2)), r"\(3, 1\).*got \(3, 2\)"),
        (lambda o: [["left"]] * len(o), "numbers"),
    ],
)
def test_actions_of_another_kind_are_refused(cart: Plant, action: Any, message: str) -> None:
    scenarios = draw_scenarios(cart, TASK, ScenarioSettings(flights=3), 0)
    with pytest.raises(InputError, match=message):
        fly(cart, TASK, stateless(action), scenarios, block=3)


def test_a_diverged_flight_fails_and_no_other(cart: Plant) -> None:
    scenarios = draw_scenarios(cart, TASK, ScenarioSettings(flights=3), 0)
    scenarios.starts.qvel[1] = 1e7  # beyond what the engine takes for motion
    flights = fly(cart, TASK, damper, scenarios, block=3)
    assert flights.diverged.tolist() == [False, True, False]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(flights.states))
    assert judge(TASK, flights, block=3).passed.tolist() == [True, False, True]
