"""The report card: horizons, baselines, members, contact, worst episodes, energy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from masses import SPRING, episodes_of, machine

from physai.errors import InputError
from physai.plant import Plant
from physai.provenance import check_chain, read_json
from physai.report.score import sentences
from physai.rollout.dataset import Dataset, Episodes
from physai.state import State
from physai.surrogate.baseline import linear_surrogate
from physai.surrogate.calibration import window_starts
from physai.surrogate.contact import contact_split, touching
from physai.surrogate.energy import energies, energy_drift
from physai.surrogate.features import layout_of
from physai.surrogate.fit import FitSettings
from physai.surrogate.model import Surrogate
from physai.surrogate.release import fit, write_score
from physai.surrogate.score import ScoreSettings, score
from physai.surrogate.store import load_surrogate

TINY = FitSettings(members=3, width=8, depth=1, steps=250, equations=False)


@pytest.fixture(scope="module")
def spring(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plant, Dataset, Path]:
    """A spring, its episodes of 120 periods, and the folder of a rough surrogate of it."""
    folder = tmp_path_factory.mktemp("spring")
    plant = machine(folder, SPRING)
    data = episodes_of(plant, folder / "data")
    fit(plant, [data], folder / "surrogate", TINY)
    return plant, data, folder / "surrogate"


@pytest.fixture(scope="module")
def test_set(spring: tuple[Plant, Dataset, Path]) -> Episodes:
    return spring[1].episodes("test")


@pytest.fixture(scope="module")
def rough(spring: tuple[Plant, Dataset, Path]) -> Surrogate:
    return load_surrogate(spring[2], spring[0])


@pytest.fixture(scope="module")
def card(spring: tuple[Plant, Dataset, Path], tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("card") / "score"
    settings = ScoreSettings(tolerance=("position=0.05",))
    written = write_score(spring[0], spring[2], [spring[1]], out, settings=settings)
    assert read_json(out / "score.json") == written and check_chain(out)[0].ok
    return written


def few(episodes: Episodes, count: int) -> Episodes:
    return jax.tree.map(lambda leaf: leaf[:count], episodes)


def test_horizons_that_fewer_than_twenty_windows_reach_are_left_out(
    spring: tuple[Plant, Dataset, Path], rough: Surrogate, test_set: Episodes
) -> None:
    """An episode of 120 periods has 24, 23, 15 and 5 windows of 1, 10, 50 and 100, each 5."""
    plant = spring[0]
    four, three, one = (score(rough, plant, few(test_set, n)) for n in (4, 3, 1))
    assert four["horizons"] == [1, 10, 50, 100] and four["too_long"] == []
    assert four["windows"] == 20
    assert three["horizons"] == [1, 10, 50]
    assert three["too_long"] == [{"steps": 100, "windows": 15}]
    assert one["horizons"] == [1, 10] and len(one["worst"]) == 1
    short = replace(few(test_set, 1), length=np.array([52], np.int32))
    # Eleven windows of one step, none of twenty: what there is is told.
    card = score(rough, plant, short)
    assert card["sensors"] is None  # the plant has none
    assert card["horizons"] == [1, 10, 50] and card["windows"] == 1
    with pytest.raises(InputError, match="no episode has 1 valid steps"):
        score(rough, plant, replace(short, length=np.array([0], np.int32)))


def test_coverage_ends_with_the_calibrated_horizon(card: dict) -> None:
    assert all(0.8 < c < 1.0 for c in card["coverage"][:3]) and card["coverage"][3] is None
    assert card["curve"]["coverage"][49] is not None and card["curve"]["coverage"][50] is None
    channel = card["channels"]["x"]
    assert channel["coverage"][3] is channel["half_width"][3] is None and channel["rmse"][3] > 0.0
    assert card["sharpness"][3] is None and all(x > 0.0 for x in card["sharpness"][:3])
    # The members' spread needs no calibration.
    assert all(-1.0 < x < 1.0 for x in card["error_spread_correlation"])


def test_intervals_are_judged_on_all_windows_that_last_so_long(card: dict) -> None:
    """64 episodes of 120 periods; the errors are of the windows of 100 alone."""
    windows = card["curve"]["windows"]
    assert [windows[h - 1] for h in (1, 10, 50, 100)] == [64 * n for n in (24, 23, 15, 5)]
    assert card["windows"] == 64 * 5


def test_baselines_are_those_scored_alone(
    spring: tuple[Plant, Dataset, Path], card: dict, test_set: Episodes
) -> None:
    plant, data, _ = spring
    linear = linear_surrogate(layout_of(plant, data.symmetry), None, data.episodes("train"))
    assert card["baselines"]["ridge"] == pytest.approx(
        score(linear, plant, test_set)["nrmse"], rel=1e-3
    )
    # "Nothing moves" is wrong in position by just what the error is divided by.
    speed = np.stack([test_set.states.qvel[:, k : k + 101, 0] for k in range(0, 25, 5)])
    change = np.sqrt(np.mean((speed[..., 100] - speed[..., 0]) ** 2)) / speed.std()
    assert card["baselines"]["persistence"][3] == pytest.approx(
        np.sqrt((1.0 + change**2) / 2.0), rel=1e-4
    )
    assert card["curve"]["ridge"][99] == card["baselines"]["ridge"][3]
    assert card["ridge_blown_up"] == 0


def test_the_spread_over_members_is_that_of_surrogates_of_one_member(
    spring: tuple[Plant, Dataset, Path], card: dict, rough: Surrogate, test_set: Episodes
) -> None:
    single = [
        replace(rough, parameters=jax.tree.map(lambda p, i=i: p[i : i + 1], rough.parameters))
        for i in range(rough.members)
    ]
    each = np.array([score(s, spring[0], test_set)["nrmse"] for s in single])
    for name, over in (("min", np.min), ("median", np.median), ("max", np.max)):
        assert card["members_nrmse"][name] == pytest.approx(over(each, axis=0), rel=1e-3)
    assert (each.max(axis=0) > each.min(axis=0)).all()


def test_the_worst_episode_is_the_one_that_is_wrong(
    spring: tuple[Plant, Dataset, Path], rough: Surrogate, test_set: Episodes
) -> None:
    """A record with a jump of 9 m/s in one episode's last moments: the last window ends there."""
    qvel = test_set.states.qvel.copy()
    qvel[11, 116:] += 9.0
    spoilt = replace(test_set, states=test_set.states.replace(qvel=qvel))
    worst = score(rough, spring[0], spoilt, ScoreSettings(horizons=(1, 10)))["worst"]
    assert len(worst) == 5 and len({w["episode"] for w in worst}) == 5
    first = worst[0]
    assert (first["episode"], first["channel"], first["unit"]) == (11, "x.rate", "m/s")
    assert first["start"] == 110 and first["error"] == pytest.approx(-9.0, abs=1.0)
    sizes = [w["nrmse"] for w in worst]
    assert sizes == sorted(sizes, reverse=True)


def test_predictions_that_are_not_finite_are_told_apart(
    spring: tuple[Plant, Dataset, Path], rough: Surrogate, test_set: Episodes
) -> None:
    actions = test_set.actions.copy()
    actions[5] = np.nan
    card = score(rough, spring[0], replace(test_set, actions=actions))
    assert card["blown_up"] == 5  # the windows of this episode
    assert card["worst"][0]["episode"] == 5 and card["worst"][0]["nrmse"] is None
    assert np.isfinite(card["nrmse"]).all() and all(c < 1.0 for c in card["coverage"][:3])
    with pytest.raises(InputError, match="every open-loop prediction blew up"):
        score(rough, spring[0], replace(test_set, actions=np.full_like(actions, np.nan)))


def test_the_certificate_stands_in_the_card(card: dict) -> None:
    found = card["horizon_certificate"]
    assert found["flights"] == 64 and found["recorded"] == 120
    assert found["statement"].startswith("With 95% confidence, at least 95% of flights")
    assert f"for {found['steps']} steps" in found["statement"]


def test_the_domain_tells_its_rates(
    card: dict, spring: tuple[Plant, Dataset, Path], rough: Surrogate, test_set: Episodes
) -> None:
    state = test_set.states
    before = np.arange(test_set.actions.shape[1]) < test_set.length[:, None]
    raw = rough.raw_inputs(
        jax.tree.map(lambda x: x[:, :-1][before], state),
        test_set.actions[before],
        test_set.disturbances[before],
    )
    alarms = np.mean(np.asarray(rough.domain.score(raw)) > 1.0)
    assert card["domain"]["false_alarms"] == pytest.approx(alarms, abs=1e-6)
    assert card["domain"]["inputs"] == card["domain"]["beyond"] == test_set.length.sum()
    assert card["domain"]["auc"] > 0.95 and card["domain"]["misses"] < 0.1
    assert any("false alarms" in sentence for sentence in sentences(card))


def test_a_misspelt_channel_is_refused_before_anything_is_flown(
    spring: tuple[Plant, Dataset, Path], tmp_path: Path
) -> None:
    plant, data, folder = spring
    with pytest.raises(InputError, match="no channel 'y'; expected one of position, velocity, x"):
        settings = ScoreSettings(tolerance=("y=1",))
        write_score(plant, folder, [data], tmp_path / "score", settings=settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("horizons", [(), (0, 1), (10, 1), (1, 1)])
def test_horizons_that_make_no_sense_are_refused(horizons: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="horizons"):
        ScoreSettings(horizons=horizons)


BALL = """
<mujoco><option timestep="0.005"/><worldbody><geom type="plane" size="9 9 1"/>
<body pos="0 0 0"><joint name="z" type="slide" axis="0 0 1"/><geom size="0.1" mass="1"/></body>
</worldbody><actuator><motor name="lift" joint="z" ctrlrange="-1 1"/></actuator></mujoco>
"""


def test_contact_is_where_the_ball_is_no_higher_than_its_radius(tmp_path: Path) -> None:
    plant = machine(tmp_path, BALL)
    height = np.array([[0.3, 0.2, 0.1001, 0.0999], [0.5, 0.09, 0.2, 0.3]])
    found = touching(plant, height[..., None], np.zeros((2, 0)))
    np.testing.assert_array_equal(found, height < 0.1)
    length = np.array([3, 3], np.int32)
    empty = np.zeros((2, 4, 0), np.float32)
    states = State(height[..., None], empty, empty, np.zeros(empty.shape[:2]), empty, empty)
    episodes = Episodes(states, empty[:, :3], empty[:, :3], length)
    windows = window_starts(episodes, 2, 1)  # (0, 0), (0, 1), (1, 0), (1, 1)
    error = np.arange(1.0, 9.0).reshape(2, 4, 1)
    split = contact_split(plant, episodes, *windows, error, np.full((2, 1), 2.0), (1, 2))
    # Touching between start and horizon: one step on the windows of episode 1 alone.
    assert split["windows_free"] == [2, 1] and split["windows_contact"] == [2, 3]
    assert split["nrmse_free"] == pytest.approx([np.sqrt((1 + 4) / 2) / 2, 5.0 / 2])
    assert split["nrmse_contact"] == pytest.approx(
        [np.sqrt((9 + 16) / 2) / 2, np.sqrt((36 + 49 + 64) / 3) / 2]
    )


def test_contact_within_its_gap_is_none(tmp_path: Path) -> None:
    """Found from 0.15 m on, but without force above 0.1 m."""
    plant = machine(tmp_path, BALL.replace('size="0.1"', 'size="0.1" gap="0.05"'))
    found = touching(plant, np.array([[[0.12], [0.09]]]), np.zeros((1, 0)))
    assert found.tolist() == [[False, True]]


def test_a_split_of_one_kind_has_no_numbers(card: dict) -> None:
    assert card["contact"]["windows_contact"] == [0] * 4
    assert card["contact"]["nrmse_free"] == card["contact"]["nrmse_contact"] == [None] * 4


PENDULUM = """
<mujoco><option timestep="0.002" integrator="RK4"/>
<custom><numeric name="control_period" data="0.02"/></custom><worldbody><body>
<joint name="swing" type="hinge" axis="0 1 0" damping="{damping}"/>
<geom type="sphere" size="0.05" pos="0 0 -0.8" mass="2"/></body></worldbody>
<actuator><motor name="turn" joint="swing" ctrlrange="-5 5"/></actuator></mujoco>
"""


def pendulum(folder: Path, damping: float) -> tuple[Plant, Surrogate, Episodes]:
    plant = machine(folder, PENDULUM.format(damping=damping))
    data = episodes_of(plant, folder / "data", 60)
    layout = layout_of(plant, data.symmetry)
    return plant, linear_surrogate(layout, None, data.episodes("train")), data.episodes("test")


def test_energy_is_that_of_a_pendulum(tmp_path: Path) -> None:
    """m = 2 kg at l = 0.8 m, a sphere of 2/5 m r^2: E = (m l^2 + I) w^2 / 2 - m g l cos q."""
    plant = machine(tmp_path, PENDULUM.format(damping=0))
    q, w = np.random.default_rng(0).normal(size=(2, 4, 3, 1))
    empty = np.zeros((4, 3, 0))
    kinetic, total = energies(plant, State(q, w, empty, np.zeros(empty.shape[:2]), empty, empty))
    inertia = 2.0 * 0.8**2 + 0.4 * 2.0 * 0.05**2
    np.testing.assert_allclose(kinetic, 0.5 * inertia * w[..., 0] ** 2)
    # MuJoCo's potential energy is zero at height zero.
    np.testing.assert_allclose(total - kinetic, -2.0 * 9.81 * 0.8 * np.cos(q[..., 0]))


def test_energy_drift_is_told_where_the_true_machine_conserves(tmp_path: Path) -> None:
    plant, linear, test = pendulum(tmp_path / "free", 0.0)
    found = energy_drift(linear, plant, test, (1, 10, 50))
    assert found is not None and found["conserving"] >= 0.9 * found["flights"]
    assert max(found["true"]) < 1e-3 * found["scale"]
    # A linear model of a pendulum that swings over does not keep its energy.
    assert found["surrogate"][2] > 10.0 * found["true"][2]
    assert found["relative"][2] == pytest.approx(found["surrogate"][2] / found["scale"])
    assert 0.0 <= found["outside"] < 0.5
    damped, linear, test = pendulum(tmp_path / "damped", 0.5)
    assert energy_drift(linear, damped, test, (1, 10, 50)) is None
