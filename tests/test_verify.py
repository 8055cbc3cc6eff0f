"""Verification: scenarios, flights, intervals, certificate, replay and pictures.

Most tests fly a cart, m x'' = force + push, whose every period has a closed form; the quadrotor is
flown where its task, its controller or its size matters.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from controllers import geometric_controller
from scipy.stats import binom, binomtest

from physai.control.controller import BatchController, batch_controller, policy_controller
from physai.control.policy import init_policy
from physai.errors import InputError
from physai.offscreen import find_backend
from physai.plant import Plant, load_plant
from physai.provenance import check_chain, is_complete, read_manifest, sha256_source
from physai.state import State
from physai.task import ObservationChannel, Requirement, Task, load_task
from physai.verify import (
    DISTURBED,
    NOMINAL,
    Flights,
    ScenarioSettings,
    VerifySettings,
    certify,
    clopper_pearson,
    draw_scenarios,
    fly,
    frame_indices,
    judge,
    load_certificate,
    load_flight,
    render,
    replay,
)

MASS, PERIOD, STEPS, TRIM = 2.0, 0.02, 50, 0.5
PUSH_STD, PUSH_TIME = 0.5, 0.2
NOISE = (0.1, 0.3)
CART = f"""
<mujoco>
  <compiler autolimits="true"/>
  <option timestep="0.01" gravity="0 0 0"/>
  <custom><numeric name="control_period" data="{PERIOD}"/></custom>
  <worldbody>
    <body name="cart">
      <joint name="x" type="slide" axis="1 0 0"/>
      <geom type="box" size="0.2 0.1 0.1" mass="{MASS}"/>
    </body>
  </worldbody>
  <actuator>
    <motor name="force" joint="x" ctrlrange="-10 10"/>
    <motor name="disturbance/push" joint="x" ctrlrange="-3 3"/>
  </actuator>
  <keyframe><key name="hold" ctrl="{TRIM} 0"/></keyframe>
</mujoco>
"""
CART_PLANT = f"""
DISTURBANCES = {{"push": {{"std": {PUSH_STD}, "correlation_time": {PUSH_TIME}}}}}
"""


def _reset(key: jax.Array, design: jax.Array) -> State:
    x, v = jax.random.uniform(key, (2, 1), minval=-1.0)
    nothing = jnp.zeros(0)
    return State(x, v, nothing, jnp.zeros(()), nothing, design)


def _settling(states: State) -> jax.Array:
    outside = jnp.abs(states.qpos[:, 0]) > 0.5
    last = jnp.max(jnp.where(outside, jnp.arange(outside.shape[0]), -1))
    return jnp.append(states.time, jnp.inf)[last + 1]


TASK = Task(
    commands=(),
    observations=(
        ObservationChannel("x", "m", -10.0, 10.0, NOISE[0]),
        ObservationChannel("v", "m/s", -10.0, 10.0, NOISE[1]),
    ),
    duration=STEPS * PERIOD,
    reset=_reset,
    observe=lambda state: jnp.concatenate([state.qpos, state.qvel]),
    reward=lambda state, action, after: -jnp.abs(after.qpos[0]),
    terminated=lambda state: jnp.abs(state.qpos[0]) > 50.0,
    requirements=(
        Requirement("end", "distance at the end", "m", 0.5, lambda s: jnp.abs(s.qpos[-1, 0])),
        Requirement("reach", "largest distance", "m", 3.0, lambda s: jnp.max(jnp.abs(s.qpos))),
    ),
    settling=_settling,
)


@pytest.fixture(scope="module")
def cart(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    folder = tmp_path_factory.mktemp("cart")
    (folder / "plant.xml").write_text(CART)
    (folder / "plant.py").write_text(CART_PLANT)
    return load_plant(folder)


@pytest.fixture(scope="module")
def quadrotor() -> Plant:
    return load_plant("quadrotor")


@pytest.fixture(scope="module")
def quadrotor_task(quadrotor: Plant) -> Task:
    return load_task(quadrotor)


@pytest.fixture(scope="module")
def pilot(quadrotor: Plant) -> BatchController:
    return batch_controller(geometric_controller(quadrotor))


def stateless(action: Any) -> BatchController:
    """Return the controller `action(observation)`."""
    return BatchController(lambda n: (), lambda cstate, observation: ((), action(observation)))


def ramp(n_actions: int = 1) -> BatchController:
    """Return the controller whose action in period k is k + 1, whatever it sees."""

    def step(k: int, observation: np.ndarray) -> tuple[int, np.ndarray]:
        return k + 1, np.full((len(observation), n_actions), 0.1 * (k + 1))

    return BatchController(lambda n: 0, step)


damper = stateless(lambda observation: -8.0 * observation[:, :1] - 6.0 * observation[:, 1:])
holder = stateless(lambda observation: np.zeros((len(observation), 1)))


# Intervals


@pytest.mark.parametrize(
    ("passed", "flights", "low", "high"),
    # Printed in tables of exact 95% limits since Clopper and Pearson (1934), figure 4.
    [
        (0, 10, 0.0, 0.3085),
        (5, 10, 0.1871, 0.8129),
        (10, 100, 0.0490, 0.1762),
        (1, 20, 0.0013, 0.2487),
    ],
)
def test_interval_is_the_published_one(passed: int, flights: int, low: float, high: float) -> None:
    assert clopper_pearson(passed, flights) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("flights", [1, 7, 100, 2000])
def test_interval_is_scipys_exact_one(flights: int, confidence: float) -> None:
    for passed in sorted({0, 1, flights // 3, flights // 2, flights - 1, flights}):
        expected = binomtest(passed, flights).proportion_ci(confidence, method="exact")
        # SciPy inverts the binomial test with a root finder: its error is the tolerance.
        assert clopper_pearson(passed, flights, confidence) == pytest.approx(
            tuple(expected), abs=1e-9
        )


def test_interval_of_all_passed_has_a_closed_form() -> None:
    # P(all n pass | p) = p^n = a/2.
    assert clopper_pearson(2000, 2000) == (pytest.approx(0.025 ** (1 / 2000), rel=1e-12), 1.0)


@pytest.mark.parametrize("flights", [10, 60])
def test_interval_covers_as_often_as_it_says(flights: int) -> None:
    counts = np.arange(flights + 1)
    low, high = np.transpose([clopper_pearson(int(k), flights, 0.9) for k in counts])
    shares = []
    for probability in np.linspace(0.005, 0.995, 199):
        inside = (low <= probability) & (probability <= high)
        shares.append(binom.pmf(counts, flights, probability)[inside].sum())
    assert min(shares) >= 0.9
    # Exact limits are conservative, yet not idle: somewhere they cover little more than they say.
    assert min(shares) < 0.95


def test_interval_covers_drawn_samples() -> None:
    drawn = np.random.default_rng(0).binomial(40, 0.93, 4000)
    limits = {k: clopper_pearson(int(k), 40) for k in np.unique(drawn)}
    covered = np.mean([limits[k][0] <= 0.93 <= limits[k][1] for k in drawn])
    assert covered >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 4000)  # three standard errors of 4000 draws


@pytest.mark.parametrize(
    "arguments", [(-1, 5), (6, 5), (0, 0), (1, 5, 0.0), (1, 5, 1.0), (1, 5, float("nan"))]
)
def test_interval_refuses_nonsense(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(InputError):
        clopper_pearson(*arguments)


# Scenarios


@pytest.mark.parametrize(
    "wrong",
    [
        {"flights": 0},
        {"flights": 2.5},
        {"gusts": -1.0},
        {"gusts": float("nan")},
        {"sensor_noise": float("inf")},
        {"delay_steps": -1},
        {"mass_spread": 1.0},
        {"mass_spread": -0.1},
    ],
)
def test_settings_refuse_what_cannot_be_flown(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        ScenarioSettings(**wrong)


def test_scenarios_refuse_a_negative_seed_and_a_foreign_design(
    cart: Plant, quadrotor: Plant
) -> None:
    with pytest.raises(InputError, match="seed"):
        draw_scenarios(cart, TASK, replace(NOMINAL, flights=2), -1)
    task = replace(TASK, observations=())
    with pytest.raises(InputError, match="design"):
        draw_scenarios(quadrotor, task, replace(NOMINAL, flights=3), 0, np.zeros((2, 3)))
    with pytest.raises(InputError, match="one a flight"):
        draw_scenarios(
            quadrotor, task, replace(NOMINAL, flights=3), 0, np.tile(quadrotor.nominal, (2, 1))
        )


def test_a_flight_does_not_depend_on_how_many_there_are(cart: Plant) -> None:
    few, many = (draw_scenarios(cart, TASK, replace(DISTURBED, flights=n), seed=3) for n in (7, 30))
    for a, b in zip(jax.tree.leaves(few), jax.tree.leaves(many), strict=True):
        np.testing.assert_array_equal(a, b[:7])
    flown_few = fly(cart, TASK, damper, few, block=4)
    flown_many = fly(cart, TASK, damper, many, block=4)
    for a, b in zip(jax.tree.leaves(flown_few), jax.tree.leaves(flown_many), strict=True):
        np.testing.assert_array_equal(a, b[:7])


def test_scenarios_come_from_the_seed_alone(cart: Plant) -> None:
    settings = replace(DISTURBED, flights=5)
    first, again, other = (draw_scenarios(cart, TASK, settings, seed) for seed in (1, 1, 2))
    for a, b, c in zip(*map(jax.tree.leaves, (first, again, other)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.size == 0 or not np.any(a) or not np.array_equal(a, c)


def test_flights_differ_and_conditions_share_their_starts(cart: Plant) -> None:
    disturbed = draw_scenarios(cart, TASK, replace(DISTURBED, flights=50), 1)
    nominal = draw_scenarios(cart, TASK, replace(NOMINAL, flights=50), 1)
    np.testing.assert_array_equal(disturbed.starts.qpos, nominal.starts.qpos)
    assert len(np.unique(nominal.starts.qpos)) == len(np.unique(disturbed.mass_scale)) == 50
    assert not nominal.noise.any() and not nominal.disturbances.any()
    assert np.all(nominal.mass_scale == 1.0)
    assert np.ptp(disturbed.mass_scale) > 0.15
    assert np.all(np.abs(disturbed.mass_scale - 1.0) <= 0.1)


def test_gusts_are_the_process_that_the_plant_states(cart: Plant) -> None:
    settings = ScenarioSettings(flights=1500, gusts=2.0)
    gusts = draw_scenarios(cart, TASK, settings, 0).disturbances[..., 0].astype(float)
    # 1500 s at a correlation time of 0.2 s are some 3750 independent samples: 1.2% of the std.
    assert gusts.std() == pytest.approx(2.0 * PUSH_STD, rel=0.05)
    assert gusts[:, 0].std() == pytest.approx(2.0 * PUSH_STD, rel=0.08)  # stationary from the start
    lag = round(PUSH_TIME / PERIOD)
    correlation = np.mean(gusts[:, lag:] * gusts[:, :-lag]) / gusts.var()
    assert correlation == pytest.approx(np.exp(-1.0), abs=0.04)


def test_gusts_stay_in_their_range(cart: Plant) -> None:
    gusts = draw_scenarios(cart, TASK, ScenarioSettings(flights=50, gusts=20.0), 0).disturbances
    assert np.abs(gusts).max() == pytest.approx(3.0)


def test_noise_is_white_with_the_sensors_deviations(cart: Plant) -> None:
    settings = ScenarioSettings(flights=400, sensor_noise=0.5)
    noise = draw_scenarios(cart, TASK, settings, 0).noise
    assert noise.shape == (400, STEPS, 2) and noise.dtype == np.float32
    # 20,000 independent samples: 0.5% of the deviation, 0.7% of a correlation.
    np.testing.assert_allclose(noise.std(axis=(0, 1)), 0.5 * np.array(NOISE), rtol=0.025)
    assert abs(np.corrcoef(noise[:, 1:, 0].ravel(), noise[:, :-1, 0].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.03


# Flights


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


# Judgement


def _drifting(distances: list[float]) -> Flights:
    """Return flights of a cart that stands at a distance."""
    n = len(distances)
    qpos = np.tile(np.array(distances, np.float32)[:, None, None], (1, STEPS + 1, 1))
    nothing = np.zeros((n, STEPS + 1, 0), np.float32)
    time = np.tile(PERIOD * np.arange(STEPS + 1, dtype=np.float32), (n, 1))
    states = State(qpos, np.zeros_like(qpos), nothing, time, nothing, nothing)
    return Flights(states, np.zeros((n, STEPS, 1), np.float32), np.zeros(n, bool), np.zeros(n, int))


def test_a_requirement_is_met_at_its_limit_and_not_beyond() -> None:
    # 0.1 rounds up in float32: compared in float64, a flight at the limit would fail.
    limit = np.float32(0.1)
    task = replace(TASK, requirements=(replace(TASK.requirements[0], limit=0.1),))
    below, above = np.nextafter(limit, np.float32([0, 1]))
    judgement = judge(task, _drifting([below, limit, above]), block=3)
    assert judgement.met[:, 0].tolist() == [True, True, False]
    assert (judgement.margin <= 1.0).tolist() == [True, True, False]


def test_margin_is_the_largest_measure_in_terms_of_its_limit() -> None:
    judgement = judge(TASK, _drifting([0.25, 1.0]), block=2)
    np.testing.assert_allclose(judgement.margin, [0.5, 2.0])
    signed = Requirement("sign", "", "m", -1.0, lambda s: s.qpos[-1, 0])
    judgement = judge(replace(TASK, requirements=(signed,)), _drifting([-1.5, -1.0, -0.5]), block=3)
    np.testing.assert_allclose(judgement.margin, [0.5, 1.0, 1.5])
    assert judgement.met[:, 0].tolist() == [True, True, False]


def test_return_and_settling_are_the_tasks() -> None:
    flights = _drifting([0.25, 2.0])
    flights.states.qpos[0, :10] = 0.75
    judgement = judge(TASK, flights, block=2)
    # Rewards are of the 50 states after the first, 9 of which are at 0.75.
    assert judgement.returns[0] == pytest.approx(-(9 * 0.75 + 41 * 0.25), rel=1e-6)
    assert judgement.settling is not None
    assert judgement.settling[0] == pytest.approx(10 * PERIOD)
    assert np.isinf(judgement.settling[1])


def test_a_flight_that_was_lost_fails_though_it_came_back() -> None:
    flights = _drifting([0.0, 0.0])
    flights.states.qpos[1, 20] = 60.0
    task = replace(TASK, requirements=TASK.requirements[:1])
    judgement = judge(task, flights, block=2)
    assert judgement.lost.tolist() == [False, True]
    assert judgement.passed.tolist() == [True, False]


def test_a_measure_that_is_not_a_number_is_not_met() -> None:
    broken = Requirement("broken", "", "m", 1.0, lambda s: jnp.sqrt(s.qpos[-1, 0]))
    judgement = judge(replace(TASK, requirements=(broken,)), _drifting([-1.0, 0.5]), block=2)
    assert judgement.passed.tolist() == [False, True]


def _hovering(task: Task, offset: float = 0.0, tilt: float = 0.0) -> State:
    """Return 5 s of a quadrotor that hovers beside its target, offset in m, tilted by degrees."""
    steps = 251
    qpos = np.zeros((1, steps, 7), np.float32)
    qpos[..., 0] = offset
    qpos[..., 3] = np.cos(np.radians(tilt) / 2)
    qpos[..., 4] = np.sin(np.radians(tilt) / 2)
    zeros = lambda n: np.zeros((1, steps, n), np.float32)
    time = 0.02 * np.arange(steps, dtype=np.float32)[None]
    return State(qpos, zeros(6), zeros(4), time, zeros(4), zeros(4))


def _met(task: Task, states: State) -> list[bool]:
    flights = Flights(
        states, np.zeros((1, 250, 4), np.float32), np.zeros(1, bool), np.zeros(1, int)
    )
    return judge(task, flights, block=1).met[0].tolist()


@pytest.mark.parametrize(
    ("offset", "tilt", "met"),
    [
        (0.04999, 4.999, [True, True]),
        (0.05001, 4.999, [False, True]),
        (0.04999, 5.001, [True, False]),
    ],
)
def test_quadrotor_holds_5_cm_and_5_degrees(
    quadrotor_task: Task, offset: float, tilt: float, met: list[bool]
) -> None:
    assert _met(quadrotor_task, _hovering(quadrotor_task, offset, tilt)) == met


def test_quadrotor_is_judged_in_the_last_second_of_five(quadrotor_task: Task) -> None:
    for moment, met in ((199, True), (200, False), (250, False)):
        states = _hovering(quadrotor_task)
        states.qpos[0, moment, 2] = 0.06
        assert _met(quadrotor_task, states) == [met, True]


# The certificate


SMALL = VerifySettings(block=4).with_flights(10)


def test_a_controller_that_always_passes(cart: Plant, tmp_path: Any) -> None:
    easy = replace(TASK, requirements=(replace(TASK.requirements[1], limit=40.0),))
    certificate = certify(cart, easy, damper, tmp_path / "c", settings=SMALL)
    for condition in certificate.conditions:
        assert condition.passed == condition.flights == 10
        assert (condition.low, condition.high) == (pytest.approx(0.025**0.1), 1.0)
        assert condition.worst_margin is not None and condition.worst_margin <= 1.0


def test_a_controller_that_never_passes(cart: Plant, tmp_path: Any) -> None:
    hard = replace(TASK, requirements=(replace(TASK.requirements[0], limit=1e-9),))
    certificate = certify(cart, hard, holder, tmp_path / "c", settings=SMALL)
    for condition in certificate.conditions:
        (requirement,) = condition.requirements
        assert condition.passed == requirement.passed == 0
        assert (condition.low, condition.high) == (0.0, pytest.approx(1.0 - 0.025**0.1))
        assert requirement.worst is not None and requirement.worst > 1e-9


def test_a_controller_that_returns_nan(cart: Plant, tmp_path: Any) -> None:
    broken = stateless(lambda observation: np.full((len(observation), 1), np.nan))
    certificate = certify(cart, TASK, broken, tmp_path / "c", settings=SMALL)
    for condition in certificate.conditions:
        assert condition.controller_faults == 10 and condition.passed == 0
        assert condition.worst_margin is None and condition.never_settled == 10
        assert all(r.worst is None and r.median is None for r in condition.requirements)
    assert load_certificate(tmp_path / "c") == certificate


def test_certificate_counts_what_flights_npz_says(cart: Plant, tmp_path: Any) -> None:
    certificate = certify(cart, TASK, damper, tmp_path / "c", flights=40, settings=SMALL, seed=5)
    with np.load(tmp_path / "c" / "flights.npz", allow_pickle=False) as flights:
        for c in certificate.conditions:
            assert c.settings == replace(getattr(SMALL, c.name), flights=40)
            assert c.passed == flights[f"{c.name}.passed"].sum()
            assert c.mean_return == pytest.approx(flights[f"{c.name}.return"].mean(dtype=float))
            margins = flights[f"{c.name}.margin"]
            assert c.worst_flight == np.argmax(margins) and c.worst_margin == margins.max()
            assert np.sum(margins < c.typical_margin) <= 20 <= np.sum(margins <= c.typical_margin)
            for r, limit in zip(c.requirements, (0.5, 3.0), strict=True):
                measures = np.sort(flights[f"{c.name}.measure.{r.name}"])
                assert r.limit == limit and r.passed == np.sum(measures <= limit)
                assert (r.median, r.p95, r.worst) == tuple(measures[[19, 37, 39]].tolist())
                assert (r.low, r.high) == clopper_pearson(r.passed, 40)


def test_equal_inputs_give_equal_bytes(cart: Plant, tmp_path: Any) -> None:
    """A run that was killed and started again ends with the same certificate."""
    source = tmp_path / "controller.txt"
    source.write_text("damper")
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        certify(cart, TASK, damper, folder, inputs={"controller": source}, settings=SMALL, seed=7)
    names = sorted(path.name for path in a.iterdir())
    assert names == sorted(
        ["certificate.json", "flights.npz", "manifest.json"]
        + [f"{c}_{k}.npz" for c in ("nominal", "disturbed") for k in ("worst", "typical")]
    )
    for name in set(names) - {"manifest.json"}:  # which says when it was made
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    assert read_manifest(a)["record"] == read_manifest(b)["record"]
    other = certify(cart, TASK, damper, b, inputs={"controller": source}, settings=SMALL, seed=8)
    assert other != load_certificate(a)


KILLED = """
import os, signal, sys
import test_verify as t

def step(k, observation):
    if k == 40:
        os.kill(os.getpid(), signal.SIGKILL)
    return k + 1, t.damper.step((), observation)[1]

plant = t.load_plant(sys.argv[1])
t.certify(plant, t.TASK, t.BatchController(lambda n: 0, step), sys.argv[2], settings=t.SMALL)
"""


def test_a_killed_verification_leaves_nothing_that_counts(cart: Plant, tmp_path: Any) -> None:
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, cart.folder, tmp_path / "c"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "c").exists()
    assert [path.name for path in tmp_path.iterdir()] != []  # it was at work there
    certify(cart, TASK, damper, tmp_path / "c", settings=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    undisturbed = tmp_path / "undisturbed"
    certify(cart, TASK, damper, undisturbed, settings=SMALL)
    for path in undisturbed.glob("*.npz"):
        assert path.read_bytes() == (tmp_path / "c" / path.name).read_bytes()
    assert load_certificate(undisturbed) == load_certificate(tmp_path / "c")


def test_certificate_vouches_for_its_inputs(cart: Plant, tmp_path: Any) -> None:
    source = tmp_path / "controller.txt"
    source.write_text("damper")
    inputs = {"controller": source}
    certificate = certify(cart, TASK, damper, tmp_path / "c", inputs=inputs, settings=SMALL, seed=7)
    assert certificate.inputs["controller"] == sha256_source(source)
    assert certificate.inputs["plant"] == sha256_source(cart.folder)
    links = check_chain(tmp_path / "c")
    assert {link.name for link in links} == {"certificate", "controller", "plant"}
    assert all(link.ok for link in links)
    given = {"plant": cart, **inputs}
    assert is_complete(tmp_path / "c", SMALL, given, kind="certificate", seed=7)
    assert not is_complete(tmp_path / "c", SMALL.with_flights(11), given, seed=7)
    source.write_text("another")
    assert not all(link.ok for link in check_chain(tmp_path / "c"))


def test_a_failure_leaves_no_folder_behind(cart: Plant, tmp_path: Any) -> None:
    def fail(observation: np.ndarray) -> np.ndarray:
        raise RuntimeError("out of fuel")

    with pytest.raises(RuntimeError, match="out of fuel"):
        certify(cart, TASK, stateless(fail), tmp_path / "c", settings=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_certificate_flies_the_design_it_names(
    quadrotor: Plant, quadrotor_task: Task, tmp_path: Any
) -> None:
    design = tuple((quadrotor.nominal + np.array([0.0, 0.3, 0.0, 0.0])).tolist())
    settings = replace(VerifySettings(block=2).with_flights(2), design=design)
    trim = stateless(lambda observation: np.tile(quadrotor.trim, (len(observation), 1)))
    certificate = certify(quadrotor, quadrotor_task, trim, tmp_path / "c", settings=settings)
    assert certificate.design == design and load_certificate(tmp_path / "c") == certificate
    saved = load_flight(tmp_path / "c" / "nominal_worst.npz")
    np.testing.assert_array_equal(saved.scenario.designs[0], design)
    np.testing.assert_allclose(saved.trajectory.states.design[0], design, rtol=1e-6)


def test_rows_and_summary_are_plain(cart: Plant, tmp_path: Any) -> None:
    certificate = certify(cart, TASK, damper, tmp_path / "c", settings=SMALL)
    rows = certificate.rows()
    assert [row[:2] for row in rows] == [
        (c, r) for c in ("nominal", "disturbed") for r in ("end", "reach", "all together")
    ]
    assert rows[2][3] == certificate.condition("nominal").passed
    summary = certificate.summary()
    assert len(summary["columns"]) == len(summary["rows"][0]) == len(rows[0])
    assert summary["conditions"]["disturbed"]["low"] == certificate.condition("disturbed").low
    with pytest.raises(InputError, match="nominal or disturbed"):
        certificate.condition("stormy")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"conditions": [{}]}', '{"conditions": 3}'])
def test_what_is_no_certificate_is_refused(tmp_path: Any, text: str) -> None:
    (tmp_path / "certificate.json").write_text(text)
    with pytest.raises(InputError, match=r"certificate\.json"):
        load_certificate(tmp_path)


# Replay


@pytest.fixture(scope="module")
def certified(
    quadrotor: Plant, quadrotor_task: Task, pilot: BatchController, tmp_path_factory: Any
) -> Any:
    folder = tmp_path_factory.mktemp("run") / "certificate"
    settings = VerifySettings(block=6).with_flights(10)
    certify(quadrotor, quadrotor_task, pilot, folder, settings=settings, seed=1)
    return folder


@pytest.mark.parametrize("name", ["nominal_worst", "nominal_typical", "disturbed_worst"])
def test_replay_is_the_stored_flight_to_the_bit(
    quadrotor: Plant, quadrotor_task: Task, pilot: BatchController, certified: Any, name: str
) -> None:
    stored = load_flight(certified / f"{name}.npz").trajectory
    again = replay(quadrotor, quadrotor_task, pilot, certified / f"{name}.npz")
    assert again.identical
    np.testing.assert_array_equal(again.states.qpos, stored.states.qpos)
    np.testing.assert_array_equal(again.actions, stored.actions)
    np.testing.assert_array_equal(again.measures, stored.measures)


def test_replay_of_a_network_is_the_stored_flight_to_the_bit(
    quadrotor: Plant, quadrotor_task: Task, tmp_path: Any
) -> None:
    """Matrix products round by batch size: the block is what makes a flight alone the same."""
    low, high = np.transpose([(a.low, a.high) for a in quadrotor.actions])
    mean, std = np.zeros(19), np.ones(19)
    policy = init_policy(jax.random.key(0), (64, 64), mean, std, low, high, quadrotor.trim)
    controller = batch_controller(policy_controller(policy))
    certify(quadrotor, quadrotor_task, controller, tmp_path / "c", flights=3)
    for path in sorted((tmp_path / "c").glob("*_worst.npz")):
        assert replay(quadrotor, quadrotor_task, controller, path).identical, path.name


def test_replay_with_another_controller_says_so(
    quadrotor: Plant, quadrotor_task: Task, certified: Any
) -> None:
    trim = stateless(lambda observation: np.tile(quadrotor.trim, (len(observation), 1)))
    path = certified / "disturbed_worst.npz"
    flown = replay(quadrotor, quadrotor_task, trim, path)
    stored = load_flight(path).trajectory
    assert not flown.identical
    np.testing.assert_array_equal(flown.states.qpos[0], stored.states.qpos[0])
    np.testing.assert_array_equal(flown.disturbances, stored.disturbances)


def test_replay_refuses_another_plant_task_or_file(
    cart: Plant, quadrotor: Plant, quadrotor_task: Task, pilot: BatchController, certified: Any
) -> None:
    path = certified / "nominal_worst.npz"
    with pytest.raises(InputError, match="verify again"):
        replay(cart, TASK, damper, path)
    blind = replace(quadrotor_task, observations=quadrotor_task.observations[:-1])
    with pytest.raises(InputError, match="19 observation channels"):
        replay(quadrotor, blind, pilot, path)
    with pytest.raises(InputError, match="saved by verify"):
        load_flight(certified / "flights.npz")
    with pytest.raises(InputError, match="cannot be read"):
        load_flight(certified / "certificate.json")
    with pytest.raises(InputError, match="cannot be read"):
        load_flight(certified / "missing.npz")


# The hand-written controller, and pictures


def test_geometric_controller_passes_most_flights(
    quadrotor: Plant, quadrotor_task: Task, pilot: BatchController
) -> None:
    for settings, least in ((NOMINAL, 90), (DISTURBED, 85)):
        scenarios = draw_scenarios(quadrotor, quadrotor_task, replace(settings, flights=100), 4)
        assert (
            judge(quadrotor_task, fly(quadrotor, quadrotor_task, pilot, scenarios)).passed.sum()
            >= least
        )


def test_frames_go_from_start_to_end(quadrotor: Plant, certified: Any) -> None:
    states = load_flight(certified / "nominal_typical.npz").trajectory.states
    moments = frame_indices(quadrotor, states, 8)
    assert len(moments) == 8 and moments[0] == 0 and moments[-1] == 250
    assert all(a < b for a, b in pairwise(moments))
    assert frame_indices(quadrotor, states[:1], 3) == [0, 0, 0]


def _pictures(*arguments: Any) -> list[np.ndarray]:
    try:
        return render(*arguments)
    except InputError as error:
        pytest.skip(str(error))


def test_pictures_show_machine_and_target(quadrotor: Plant, certified: Any) -> None:
    trajectory = load_flight(certified / "nominal_typical.npz").trajectory
    images = _pictures(quadrotor, trajectory, 3, 160, 120)
    assert [(i.shape, i.dtype) for i in images] == [((120, 160, 3), np.uint8)] * 3
    rgb = images[0].astype(int)
    orange = (rgb[..., 0] > 170) & (rgb[..., 1] < 150) & (rgb[..., 2] < 90)
    dark = rgb.sum(axis=2) < 270  # the rotors; the scenery is light
    assert orange.any() and dark.sum() > 20
    assert np.abs(rgb - images[-1]).max() > 50  # it has moved


def test_pictures_of_a_plant_without_floor_and_target(cart: Plant, tmp_path: Any) -> None:
    certify(cart, TASK, damper, tmp_path / "c", settings=SMALL)
    trajectory = load_flight(tmp_path / "c" / "nominal_worst.npz").trajectory
    (image,) = _pictures(cart, trajectory, 1, 64, 48)
    assert image.shape == (48, 64, 3) and image.std() > 1.0


def test_pictures_of_no_size_are_refused(quadrotor: Plant, certified: Any) -> None:
    trajectory = load_flight(certified / "nominal_typical.npz").trajectory
    with pytest.raises(InputError, match="at least one frame"):
        render(quadrotor, trajectory, 0)


def test_a_machine_that_cannot_render_is_told_what_to_install() -> None:
    assert find_backend(lambda library: library) == "egl"
    assert find_backend(lambda library: library if library == "OSMesa" else None) == "osmesa"
    with pytest.raises(InputError, match="apt install"):
        find_backend(lambda library: None)
