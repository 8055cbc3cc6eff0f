"""Intervals made anew for other episodes, and what intervals are worth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from masses import SPRING, episodes_of, machine
from safetensors.numpy import load_file
from scipy.stats import spearmanr

from physai import flow
from physai.cli import main
from physai.control.controller import BatchController
from physai.errors import InputError
from physai.plant import Plant
from physai.progress import silent
from physai.provenance import atomic_folder, check_chain, read_json, write_manifest
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.dataset import Dataset
from physai.stages import Stages
from physai.state import State
from physai.surrogate.baseline import linear_surrogate
from physai.surrogate.calibration import Flown, calibrate, intervals, open_loop
from physai.surrogate.coverage import coverage_of, error_spread_correlation
from physai.surrogate.features import layout_of
from physai.surrogate.model import Surrogate
from physai.surrogate.recalibrate import RecalibrateSettings, recalibrate
from physai.surrogate.store import load_surrogate, save_surrogate
from physai.task import load_task


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def plant(home: Path) -> Plant:
    return machine(home, SPRING)


@pytest.fixture(scope="module")
def shaken(plant: Plant, home: Path) -> Dataset:
    return episodes_of(plant, home / "shaken", 60, calibration=128)


@pytest.fixture(scope="module")
def held(plant: Plant, home: Path) -> Dataset:
    """Episodes in which a controller damps the spring: smaller motion than the noise makes."""

    def step(memory: None, observation: np.ndarray) -> tuple[None, np.ndarray]:
        return memory, -2.0 * observation[:, 1:2].astype(float)

    controller = BatchController(lambda n: None, step)
    settings = RolloutSettings(
        train=1, calibration=192, test=192, duration=60 * plant.control_period
    )
    return collect(plant, load_task(plant), home / "held", settings, 3, controller)


@pytest.fixture(scope="module")
def rough(plant: Plant, shaken: Dataset) -> Surrogate:
    """The exact linear model, one member a little too stiff, the other more so."""
    layout = layout_of(plant, shaken.symmetry)
    exact = linear_surrogate(layout, None, shaken.episodes("train"))
    members = jax.tree.map(lambda p: np.concatenate([1.02 * p, 1.05 * p]), exact.parameters)
    surrogate = replace(exact, parameters=members)
    return replace(
        surrogate, calibration=calibrate(surrogate, shaken.episodes("calibration"), 50, 5)
    )


def scaled(surrogate: Surrogate, factor: float) -> Surrogate:
    calibration = surrogate.calibration
    return replace(
        surrogate, calibration=replace(calibration, quantile=factor * calibration.quantile)
    )


def written(surrogate: Surrogate, plant: Plant, data: Dataset, folder: Path) -> Path:
    with atomic_folder(folder) as temporary:
        save_surrogate(temporary, surrogate, plant, {"data": {"episodes": 64}, "symmetry": {}})
        write_manifest(temporary, "surrogate", {"dataset": data}, {}, 7)
    return folder


@pytest.mark.parametrize(("factor", "low", "high"), [(0.3, 0.0, 0.7), (3.0, 0.97, 1.0)])
def test_intervals_too_narrow_and_too_wide_come_to_cover_what_they_promise(
    plant: Plant, shaken: Dataset, held: Dataset, rough: Surrogate, tmp_path: Path,
    factor: float, low: float, high: float,
) -> None:  # fmt: skip
    own = written(scaled(rough, factor), plant, shaken, tmp_path / "own")
    found = recalibrate(plant, own, [held], tmp_path / "new")
    assert found["horizons"] == [1, 10, 50]
    assert all(low <= c <= high for c in found["before"]["coverage"]), found["before"]
    assert all(0.87 < c < 0.94 for c in found["after"]["coverage"]), found["after"]
    wider = np.array(found["after"]["sharpness"]) > found["before"]["sharpness"]
    assert wider.all() if factor < 1 else not wider.any()
    # Judged by hand, with what was written: one step ahead, every control period that was cut.
    new, test = load_surrogate(tmp_path / "new", plant), held.episodes("test")
    state = jax.tree.map(lambda x: x[:, :-1:5], test.states)
    after = jax.tree.map(lambda x: x[:, 1::5], test.states)
    predicted = new.predict(state, test.actions[None, :, ::5])
    error = np.concatenate([predicted.states.qpos - after.qpos, predicted.states.qvel - after.qvel])
    inside = np.abs(error.reshape(2, -1).T) <= predicted.half_width.reshape(-1, 2)
    assert found["windows"][0] == len(inside) == 12 * 192
    assert found["after"]["coverage"][0] == pytest.approx(float(inside.mean()), abs=1e-3)


def test_only_the_intervals_change_and_the_card_says_whose_they_are(
    plant: Plant, shaken: Dataset, held: Dataset, rough: Surrogate, tmp_path: Path
) -> None:
    own = written(rough, plant, shaken, tmp_path / "own")
    record = recalibrate(plant, own, [held], tmp_path / "new")
    old, new = (load_file(f / "surrogate.safetensors") for f in (own, tmp_path / "new"))
    assert old.keys() == new.keys()
    changed = {name for name in old if old[name].tobytes() != new[name].tobytes()}
    assert changed == {"calibration.floor", "calibration.quantile"}
    card = read_json(tmp_path / "new" / "surrogate.json")
    steps = held.counts["calibration"]["valid_steps"]
    assert card.pop("calibration") == [{"controller": "unnamed", "episodes": 192, "steps": steps}]
    assert card == read_json(own / "surrogate.json")
    assert read_json(tmp_path / "new" / "recalibration.json") == record
    # The controller keeps the spring where the noise had it, so little lies outside.
    assert 0.0 <= record["outside"] < 0.2
    links = check_chain(tmp_path / "new")
    assert all(link.ok for link in links)
    assert {link.path for link in links} >= {own, held.folder, shaken.folder}
    (own / "surrogate.json").write_text("{}")
    assert [x.path for x in check_chain(tmp_path / "new") if not x.ok] == [own]


def test_the_verb_does_the_same(
    plant: Plant, shaken: Dataset, held: Dataset, rough: Surrogate, tmp_path: Path, capsys
) -> None:
    own = written(rough, plant, shaken, tmp_path / "own")
    asked = ["recalibrate", str(plant.folder), "--surrogate", str(own)]
    asked += ["--dataset", str(held.folder), "--out", str(tmp_path / "new")]
    assert main([*asked, "--calibrated-horizon", "10", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["horizons"] == [1, 10] and len(shown["before"]["coverage"]) == 2
    assert load_surrogate(tmp_path / "new", plant).calibration.floor.shape[0] == 10
    assert main(asked) == 0
    assert "192 episodes and hold for episodes drawn like these" in capsys.readouterr().out


def test_what_gives_no_intervals_is_refused_by_name(
    plant: Plant, shaken: Dataset, held: Dataset, rough: Surrogate, tmp_path: Path
) -> None:
    own = written(rough, plant, shaken, tmp_path / "own")
    out = tmp_path / "new"
    none = episodes_of(plant, tmp_path / "none", 60, calibration=0)
    with pytest.raises(InputError, match=r"none: expected calibration episodes, got none; .*--cal"):
        recalibrate(plant, own, [held, none], out)
    untested = episodes_of(plant, tmp_path / "untested", 60, test=0)
    with pytest.raises(InputError, match="untested: expected test episodes, got none"):
        recalibrate(plant, own, [untested], out)
    few = episodes_of(plant, tmp_path / "few", 60, calibration=8)
    with pytest.raises(InputError, match="at least 9 calibration episodes, got 8"):
        recalibrate(plant, own, [few], out)
    with pytest.raises(InputError, match="expected at least one dataset"):
        recalibrate(plant, own, [], out)
    with pytest.raises(InputError, match="another folder than that of the surrogate"):
        recalibrate(plant, own, [held], own)
    with pytest.raises(InputError, match="stride: expected a whole number"):
        RecalibrateSettings(stride=0)
    with pytest.raises(InputError, match="calibrated_horizon: expected a whole number"):
        RecalibrateSettings(calibrated_horizon=0)
    assert not out.exists()


def test_nothing_is_promised_where_few_episodes_last(held: Dataset, rough: Surrogate) -> None:
    """Of 192 episodes 8 last 50 periods, the others 20: the first 20 horizons get an interval."""
    episodes = held.episodes("calibration")
    length = np.where(np.arange(192) < 8, 50, 20).astype(np.int32)
    flown = open_loop(rough, replace(episodes, length=length), 50, 5)
    # Starts 0, 5, 10, 15 of the short ones, 0 to 45 of the long ones.
    judged = coverage_of(replace(rough, calibration=intervals(flown)), flown)
    for step in (0, 4, 5, 19, 20, 49):
        lasting = sum(s + step < n for n in length for s in range(0, n, 5))
        assert judged.windows[step] == lasting
    assert judged.share(19) is not None and judged.sharpness(19) is not None
    assert judged.share(20) is judged.sharpness(20) is None
    assert judged.channel(0, [49]) == {"coverage": [None], "half_width": [None]}


def test_the_late_steps_of_an_episode_count_as_the_early_ones(
    held: Dataset, rough: Surrogate
) -> None:
    """Doubled errors behind step 30, half of the windows: the 90% are those of the mixture."""
    flown = open_loop(rough, held.episodes("calibration"), 10, 5)
    late = flown.start >= 30
    flown = flown._replace(error=np.where(late[None, :, None], 2.0 * flown.error, flown.error))
    judged = coverage_of(replace(rough, calibration=intervals(flown)), flown)
    assert judged.share(0) == pytest.approx(0.9, abs=0.01)
    early = flown.of(~late)
    narrow = coverage_of(replace(rough, calibration=intervals(early)), flown)
    assert (narrow.share(0) or 1.0) < 0.87


def test_a_policy_without_intervals_does_not_end_a_run(
    plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> Dataset:
        raise InputError("nothing collected")

    monkeypatch.setattr(flow, "_collect", lost)
    stages = Stages(plant, load_task(plant), tmp_path, 0, silent)
    asked = (stages, flow.RunSettings(), tmp_path / "surrogate", tmp_path / "policy", 1)
    assert flow._recalibrate(*asked)["missing"].endswith("episodes: nothing collected")
    (tmp_path / "dataset-own").mkdir()  # of another run: not to be passed over
    with pytest.raises(InputError, match="nothing collected"):
        flow._recalibrate(*asked)


def flights(error: np.ndarray, spread: np.ndarray) -> Flown:
    """Windows of one step that each are an episode, of states that do not matter here."""
    count = error.shape[1]
    none = np.zeros((2, count, 0))
    states = State(none, none, none, np.zeros((2, count)), none, none)
    return Flown(
        np.arange(count), np.zeros(count, int), np.ones(count, int), states,
        none[:1], none[:1], error, spread,
    )  # fmt: skip


def test_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    spread = rng.exponential(size=(1, 200, 3))
    error = spread * rng.normal(size=spread.shape)
    scale = np.array([[1.0, 1.0, np.nan]])
    each = [np.asarray(spearmanr(np.abs(error[0, :, c]), spread[0, :, c]))[0] for c in (0, 1)]
    expected = float(each[0] + each[1]) / 2.0
    assert error_spread_correlation(flights(error, spread), scale, 0) == pytest.approx(expected)
    assert error_spread_correlation(flights(-(spread**3), spread), scale, 0) == pytest.approx(1.0)
    assert error_spread_correlation(flights(1 / spread, spread), scale, 0) == pytest.approx(-1.0)
    # A single member has no spread; a prediction that blew up has no rank.
    assert error_spread_correlation(flights(error, 0.0 * spread), scale, 0) is None
    blown = error.copy()
    blown[0, 0, 0] = np.nan
    found = error_spread_correlation(flights(blown, spread), scale, 0)
    assert found == error_spread_correlation(flights(error, spread).of(np.arange(1, 200)), scale, 0)
