"""What flights are drawn from: starts, gusts, noise, masses."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from pushed_cart import NOISE, PERIOD, PUSH_STD, PUSH_TIME, STEPS, TASK, damper

from physai.errors import InputError
from physai.plant import Plant
from physai.verify import (
    DISTURBED,
    NOMINAL,
    ScenarioSettings,
    draw_scenarios,
    fly,
)


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
