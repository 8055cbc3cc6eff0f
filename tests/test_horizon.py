"""The horizon certificate: order statistics against closed forms, and flights that err as told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from masses import SPRING, episodes_of, machine
from scipy.stats import beta

from physai.errors import InputError
from physai.plant import Plant, load_plant
from physai.rollout.dataset import Episodes
from physai.surrogate.baseline import linear_surrogate
from physai.surrogate.features import layout_of
from physai.surrogate.horizon import (
    horizon_certificate,
    kept_steps,
    needed_flights,
    parse_tolerance,
)
from physai.surrogate.model import Surrogate


def test_the_statement_is_false_at_most_as_often_as_it_says() -> None:
    """Flights exceed with probability q a step: a share s is within for ln s / ln(1 - q) steps."""
    rng, trials, flights, q, share = np.random.default_rng(0), 3000, 120, 0.004, 0.95
    true = int(np.log(share) / np.log(1.0 - q))
    first = np.minimum(rng.geometric(q, (trials, flights)), 101)
    stated = np.array([kept_steps(row, 100, share) for row in first], float)
    wrong = (stated > true).mean()
    assert wrong < 0.05 + 4 * np.sqrt(0.05 * 0.95 / trials)
    assert wrong > 0.005 and np.median(stated) > 0  # it says something


def test_the_order_statistic_is_clopper_and_pearsons_bound() -> None:
    """The longest horizon whose one-sided lower bound of the share within is at least the share."""
    rng, n = np.random.default_rng(1), 200
    first = rng.integers(1, 60, n)
    for share in (0.5, 0.8, 0.9):
        kept = [(first > h).sum() for h in range(60)]
        low = [beta.ppf(0.05, k, n - k + 1) if k else 0.0 for k in kept]
        assert kept_steps(first, 59, share) == max(h for h in range(60) if low[h] >= share)


def test_59_flights_are_the_least_for_95_and_95_percent() -> None:
    assert needed_flights(0.95) == 59 and needed_flights(0.9) == 29
    assert kept_steps(np.full(58, 8), 20, 0.95) is None
    assert kept_steps(np.full(59, 8), 20, 0.95) == 7
    assert kept_steps(np.r_[3, np.full(58, 8)], 20, 0.95) == 2  # the worst flight decides
    assert kept_steps(np.full(59, 21), 20, 0.95) == 20


@pytest.fixture(scope="module")
def spring(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plant, Episodes, Surrogate]:
    """A linear machine, and a surrogate that is as good as exact."""
    folder = tmp_path_factory.mktemp("spring")
    plant = machine(folder, SPRING)
    data = episodes_of(plant, folder / "data", 60)
    linear = linear_surrogate(layout_of(plant, data.symmetry), None, data.episodes("train"))
    return plant, data.episodes("test"), linear


def drifting(episodes: Episodes, slopes: np.ndarray) -> Episodes:
    """Let the recorded position run away from the true one by `slopes [n]` a step."""
    steps = np.arange(episodes.states.qpos.shape[1])
    qpos = episodes.states.qpos + (slopes[:, None] * steps)[..., None]
    return replace(episodes, states=episodes.states.replace(qpos=qpos.astype(np.float32)))


def test_flights_that_drift_exceed_when_they_must(
    spring: tuple[Plant, Episodes, Surrogate],
) -> None:
    """64 flights that exceed 10 mm in steps 1 + i: at 95% and 95% the worst of them decides."""
    plant, episodes, exact = spring
    slopes = 0.010 / (np.arange(64) + 0.5)  # flight i is beyond 10 mm from step i + 1 on
    shuffled = np.random.default_rng(0).permutation(slopes)
    run = drifting(episodes, shuffled)
    found = horizon_certificate(
        exact, plant, run, parse_tolerance(["position=10mm"], plant), np.ones((50, 2))
    )
    assert (found["flights"], found["recorded"], found["steps"]) == (64, 60, 0)
    half = next(row for row in found["by_share"] if row["share"] == 0.5)
    # 64 flights, 50%: P(K <= 24) = 0.030 and P(K <= 25) = 0.052, so the 25th flight decides.
    assert half["steps"] == 24
    assert "10 mm in position for 0 steps (0 s)" in found["statement"]


def test_a_flight_that_the_task_ended_kept_the_tolerance_while_it_lasted(
    spring: tuple[Plant, Episodes, Surrogate],
) -> None:
    plant, episodes, exact = spring
    run = drifting(episodes, np.full(64, 0.01 / 30.5))  # beyond 10 mm from step 31 on
    length = np.where(np.arange(64) < 32, 20, 60).astype(np.int32)
    tolerance = parse_tolerance(["x=0.01"], plant)
    scale = np.ones((50, 2))
    whole = horizon_certificate(exact, plant, run, tolerance, scale)
    ended = horizon_certificate(exact, plant, replace(run, length=length), tolerance, scale)
    assert whole["steps"] == ended["steps"] == 30
    assert whole["lasting"] == 64 and ended["lasting"] == 32
    assert "until the task ends them: 32 of 64" in ended["statement"]
    few = replace(run, length=np.where(np.arange(64) < 50, 20, 60).astype(np.int32))
    found = horizon_certificate(exact, plant, few, tolerance, scale)
    # 14 flights are fewer than can be judged by: nothing is said beyond 20 steps.
    assert found["recorded"] == found["steps"] == 20 and "the record ends" in found["statement"]


def test_a_prediction_that_is_not_finite_exceeds_any_tolerance(
    spring: tuple[Plant, Episodes, Surrogate],
) -> None:
    plant, episodes, exact = spring
    actions = episodes.actions.copy()
    actions[:, 7] = np.nan  # the eighth period's action
    found = horizon_certificate(
        exact,
        plant,
        replace(episodes, actions=actions),
        parse_tolerance(["x=100"], plant),
        np.ones((50, 2)),
    )
    assert found["steps"] == 7


def test_the_nrmse_is_judged_up_to_the_scale_that_is_known(
    spring: tuple[Plant, Episodes, Surrogate],
) -> None:
    plant, episodes, exact = spring
    run = drifting(episodes, np.full(64, 0.01))
    scale = np.full((50, 2), 0.1)
    found = horizon_certificate(exact, plant, run, parse_tolerance(["0.5"], plant), scale)
    # error k / 10 of one of two channels: nRMSE k / (10 sqrt 2), at most 0.5 for k <= 7.07
    assert found["steps"] == 7 and found["recorded"] == 50


def test_few_flights_say_nothing_and_how_many_it_takes(
    spring: tuple[Plant, Episodes, Surrogate],
) -> None:
    plant, episodes, exact = spring
    short = np.where(np.arange(64) < 30, episodes.length, 0).astype(np.int32)
    found = horizon_certificate(
        exact,
        plant,
        replace(episodes, length=short),
        parse_tolerance(["0.1"], plant),
        np.ones((50, 2)),
    )
    assert found["steps"] is None and "takes 59 test flights, there are 30" in found["statement"]
    assert next(r for r in found["by_share"] if r["share"] == 0.9)["steps"] is not None


def test_a_tolerance_names_channels_kinds_and_units() -> None:
    plant = load_plant("quadrotor")
    names = [c.name for c in plant.state_channels]
    position, angle, single = parse_tolerance(["position=50mm", "angle=2deg", "root.z=1e-1"], plant)
    assert position.value == pytest.approx(0.05) and position.unit == "m"
    assert [[names[i] for i in v] for v in position.vectors] == [["root.x", "root.y", "root.z"]]
    assert angle.value == pytest.approx(np.deg2rad(2.0)) and str(angle) == "2 deg in angle"
    assert [names[i] for i in angle.vectors[0]] == ["root.rx", "root.ry", "root.rz"]
    assert single.vectors == ((2,),) and single.value == 0.1
    rates = parse_tolerance(["angular_velocity=1", "activation=0.1"], plant)
    assert [names[i] for i in rates[0].vectors[0]] == [f"root.r{a}.rate" for a in "xyz"]
    assert len(rates[1].vectors) == 4
    satellite = load_plant("satellite")  # whose wheels and panels turn too
    every, attitude = parse_tolerance(["angle=1", "root.angle=1"], satellite)
    assert len(every.vectors) == 7
    assert [satellite.state_channels[i].name for i in attitude.vectors[0]] == [
        *("root.rx", "root.ry", "root.rz")
    ]
    assert len(attitude.vectors) == 1
    (all_of_them,) = parse_tolerance(["0.1"], plant)
    assert all_of_them.vectors == (tuple(range(len(names))),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rotor.angle=0.1", "no channel 'rotor.angle'"),
        ("root.w=0.1", "no channel 'root.w'; expected one of position, angle"),
        ("position=2deg", "expected a unit that measures m"),
        ("position=2furlonx", "expected a unit"),
        ("position=-1", "positive"),
        ("position=", "expected a number"),
        ("close", "expected a number"),
        ("0.1m", "NAME=VALUE"),
        ("nan", "expected a number"),
    ],
)
def test_a_tolerance_that_makes_no_sense_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match="tolerance") as error:
        parse_tolerance([text], load_plant("quadrotor"))
    assert said in str(error.value)
