"""Surrogates: the manifold update, invariances, intervals, resumable fitting, files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physai.errors import InputError
from physai.plant import Plant, load_plant
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.dataset import Dataset
from physai.state import State, difference
from physai.surrogate.baseline import linear_surrogate
from physai.surrogate.calibration import conformal_quantile
from physai.surrogate.checkpoint import Checkpoints
from physai.surrogate.features import layout_of
from physai.surrogate.fit import FitSettings
from physai.surrogate.model import Surrogate
from physai.surrogate.network import Architecture, apply_ensemble, apply_member, init_ensemble
from physai.surrogate.release import fit
from physai.surrogate.score import score
from physai.surrogate.spread import channel_spread
from physai.surrogate.store import load_surrogate, save_surrogate
from physai.task import load_task

TINY = FitSettings(
    members=2,
    width=32,
    steps=1500,
    equations=False,
)


@pytest.fixture(scope="module")
def plant() -> Plant:
    return load_plant("quadrotor")


@pytest.fixture(scope="module")
def dataset(plant: Plant, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    settings = RolloutSettings(
        train=192, calibration=96, test=96, duration=1.2, designs_per_shard=8, shard_episodes=192
    )
    return collect(plant, load_task(plant), tmp_path_factory.mktemp("d") / "data", settings, 3)


@pytest.fixture(scope="module")
def folder(plant: Plant, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("s") / "surrogate"
    fit(plant, [dataset], folder, TINY, seed=1)
    return folder


@pytest.fixture(scope="module")
def surrogate(plant: Plant, folder: Path) -> Surrogate:
    return load_surrogate(folder, plant)


def test_ensemble_equals_a_loop_over_its_members() -> None:
    architecture = Architecture(5, 3, 16, 2)
    parameters = init_ensemble(architecture, 3, jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (7, 5))
    stacked = apply_ensemble(architecture, parameters, x)
    one = [
        apply_member(architecture, jax.tree.map(lambda p, i=i: p[i], parameters), x)
        for i in range(3)
    ]
    np.testing.assert_allclose(stacked, np.stack(one), rtol=2e-5, atol=2e-6)
    assert np.abs(np.asarray(stacked[0] - stacked[1])).max() > 1e-4  # independent weights


def test_conformal_quantile_covers_what_it_promises() -> None:
    """On exchangeable scores the coverage of fresh ones is 90%, and 1/(n+1) above at most."""
    rng = np.random.default_rng(0)
    n, repeats = 99, 4000
    calibration = rng.exponential(size=(n, repeats))
    fresh = rng.exponential(size=repeats)
    covered = (fresh <= conformal_quantile(calibration, np.arange(n))).mean()
    # exactly 0.9 in expectation for n = 99; four standard errors of a binomial
    assert abs(covered - 0.9) < 4 * np.sqrt(0.09 / repeats)


def test_conformal_quantile_covers_windows_that_depend_on_each_other() -> None:
    """Eight equal scores an episode are worth one: of 12 episodes the largest, 12/13 covered."""
    rng = np.random.default_rng(0)
    episodes, windows, repeats = 12, 8, 4000
    episode = np.repeat(np.arange(episodes), windows)
    calibration = rng.exponential(size=(episodes, repeats))[episode]
    fresh = rng.exponential(size=repeats)
    covered = (fresh <= conformal_quantile(calibration, episode)).mean()
    assert abs(covered - 12 / 13) < 4 * np.sqrt(0.09 / repeats)
    # Taken for independent they promise more than they keep.
    naive = (fresh <= conformal_quantile(calibration, np.arange(len(episode)))).mean()
    assert abs(naive - 11 / 13) < 4 * np.sqrt(0.15 / repeats)


def test_conformal_quantile_is_the_order_statistic() -> None:
    scores = np.random.default_rng(1).permutation(np.arange(1.0, 51.0)).reshape(50, 1)
    assert conformal_quantile(scores, np.arange(50))[0] == 46.0  # ceil(51 * 0.9) = 46
    assert conformal_quantile(scores, np.arange(50) // 5)[0] == 50.0  # ceil(55 * 0.9) = 50
    # Of eight scores not even the largest is exceeded by a ninth in less than a tenth of the cases.
    assert conformal_quantile(scores[:8], np.arange(8))[0] == np.inf


def test_a_channel_that_never_changes_is_predicted_exactly(tmp_path: Path) -> None:
    """Nothing spins the rocket about its long axis: no error, no scale, no part in the mean."""
    rocket = load_plant("rocket")
    settings = RolloutSettings(train=64, calibration=32, test=32)
    data = collect(rocket, load_task(rocket), tmp_path / "data", settings, 0)
    rough = replace(TINY, steps=250)
    card = score(fit(rocket, [data], tmp_path / "s", rough), rocket, data.episodes("test"))
    spin = card["channels"]["flight.rz.rate"]
    assert spin["nrmse"] == [None] * 3 and max(spin["rmse"]) < 1e-9
    assert all(0.0 < x < 10.0 for x in card["nrmse"])


def test_a_short_fit_beats_persistence_and_ridge_regression(
    plant: Plant, dataset: Dataset, surrogate: Surrogate
) -> None:
    test = dataset.episodes("test")
    card = score(surrogate, plant, test)
    assert card["nrmse"][1] < 0.25 * card["curve"]["persistence"][9]
    linear = linear_surrogate(surrogate.layout, None, dataset.episodes("train"))
    assert card["nrmse"][0] < 0.5 * score(linear, plant, test)["nrmse"][0]


def test_intervals_cover_fresh_episodes(
    plant: Plant, dataset: Dataset, surrogate: Surrogate
) -> None:
    card = score(surrogate, plant, dataset.episodes("test"))
    # 96 calibration and 96 test episodes of dependent windows: a few per cent either way
    assert all(0.82 < c < 0.97 for c in card["coverage"]), card["coverage"]
    assert all(np.diff(card["curve"]["half_width"])[5:] > -0.02)


def test_prediction_equals_a_loop_of_steps(dataset: Dataset, surrogate: Surrogate) -> None:
    episodes = dataset.episodes("test")
    start = jax.tree.map(lambda x: jnp.asarray(x[:4, 0]), episodes.states)
    actions = jnp.swapaxes(jnp.asarray(episodes.actions[:4, :10]), 0, 1)
    gusts = jnp.swapaxes(jnp.asarray(episodes.disturbances[:4, :10]), 0, 1)
    prediction = surrogate.predict(start, actions, gusts)
    state = start
    for k in range(10):
        state = surrogate.step(state, actions[k], gusts[k])
        apart = difference(surrogate.layout.joints, state, prediction.states[k])
        assert np.abs(apart).max() < 1e-4
    longer = surrogate.predict(start, jnp.tile(actions, (6, 1, 1)), jnp.tile(gusts, (6, 1, 1)))
    assert np.isfinite(longer.half_width[:50]).all() and np.isinf(longer.half_width[50:]).all()


def test_gradient_through_a_step_matches_finite_differences(
    dataset: Dataset, surrogate: Surrogate
) -> None:
    state = jax.tree.map(lambda x: jnp.asarray(x[0, 0]), dataset.episodes("test").states)

    def height_rate(action: jax.Array) -> jax.Array:
        return surrogate.step(state, action).qvel[2]

    action = jnp.full(4, 0.3)
    gradient = jax.grad(height_rate)(action)
    for i in range(4):
        step = jnp.zeros(4).at[i].set(0.02)
        slope = (height_rate(action + step) - height_rate(action - step)) / 0.04
        assert gradient[i] == pytest.approx(float(slope), rel=0.05, abs=0.02)


def test_position_errors_are_divided_by_the_distance_moved(surrogate: Surrogate) -> None:
    """Machines that fly straight at 2 m/s along x: after k periods their spread is 2 k h."""
    steps, n, h = 5, 3, surrogate.layout.control_period
    qpos = np.zeros((steps + 1, n, 7), np.float32)
    qpos[..., 3] = 1.0
    qpos[..., 0] = 2.0 * h * np.arange(steps + 1)[:, None] + np.array([0.0, 50.0, -9.0])
    qvel = np.zeros((steps + 1, n, 6), np.float32)
    qvel[..., 1] = np.array([-1.0, 0.0, 1.0])  # standard deviation sqrt(2/3)
    empty = np.zeros((steps + 1, n, 4), np.float32)
    true = State(qpos, qvel, empty, empty[..., 0], empty, empty)
    spread = channel_spread(surrogate.layout.joints, true)
    np.testing.assert_allclose(spread[:, 0], 2.0 * h * np.arange(1, steps + 1), rtol=1e-4)
    np.testing.assert_allclose(spread[:, 7], np.sqrt(2 / 3), rtol=1e-6)


def test_files_give_the_same_surrogate_back(
    plant: Plant, dataset: Dataset, surrogate: Surrogate, tmp_path: Path
) -> None:
    save_surrogate(tmp_path, surrogate, plant, {"data": {}})
    again = load_surrogate(tmp_path, plant)
    for a, b in zip(jax.tree.leaves(surrogate), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.layout == surrogate.layout
    card = json.loads((tmp_path / "surrogate.json").read_text())
    named = {c["name"]: c for c in card["inputs"]}
    assert named["root.body_velocity_x"]["unit"] == "m/s"
    assert named["rotor_1"]["low"] >= 0.0 and named["rotor_1"]["high"] <= 1.0


@pytest.mark.parametrize("damage", ["truncated", "missing", "nan", "shape", "card"])
def test_damaged_files_are_refused(
    plant: Plant, surrogate: Surrogate, tmp_path: Path, damage: str
) -> None:
    save_surrogate(tmp_path, surrogate, plant, {})
    weights, card = tmp_path / "surrogate.safetensors", tmp_path / "surrogate.json"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "missing":
        weights.unlink()
    elif damage == "nan":
        bad = jax.tree.map(lambda x: x * jnp.nan, surrogate.parameters)
        save_surrogate(tmp_path, replace(surrogate, parameters=bad), plant, {})
    elif damage == "shape":
        text = json.loads(card.read_text())
        text["calibrated_horizon"] = 7
        card.write_text(json.dumps(text))
    else:
        card.write_text(card.read_text()[:-20])
    with pytest.raises(InputError, match=str(tmp_path)):
        load_surrogate(tmp_path, plant)


def test_a_surrogate_of_another_plant_is_refused(plant: Plant, folder: Path) -> None:
    with pytest.raises(InputError, match="fitted to plant quadrotor"):
        load_surrogate(folder, replace(plant, sha256="0" * 64))


def test_fit_needs_episodes_long_enough_to_calibrate(
    plant: Plant, dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="calibrated_horizon"):
        fit(plant, [dataset], tmp_path / "s", replace(TINY, calibrated_horizon=80))
    assert list(tmp_path.iterdir()) == []


def _count(start: int = 0) -> dict[str, jax.Array]:
    return {"sum": jnp.asarray(float(start)), "n": jnp.zeros((), jnp.int32)}


def _add(index: int, state: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {"sum": state["sum"] * 1.1 + index, "n": state["n"] + 1}


def test_checkpoints_of_other_settings_are_not_continued(tmp_path: Path) -> None:
    def stop_at_three(index: int, state: dict[str, jax.Array]) -> dict[str, jax.Array]:
        if index == 3:
            raise KeyboardInterrupt
        return _add(index, state)

    with pytest.raises(KeyboardInterrupt):
        Checkpoints(tmp_path / "t", {"seed": 1}).run("x", _count(), 5, stop_at_three)
    resumed: list[int] = []

    def follow(index: int, state: dict[str, jax.Array]) -> dict[str, jax.Array]:
        resumed.append(index)
        return _add(index, state)

    again = Checkpoints(tmp_path / "t", {"seed": 1})
    same = again.run("x", _count(), 5, follow)
    assert resumed == [3, 4]
    assert again.seconds is None  # it took longer than this process knows
    straight = Checkpoints(None).run("x", _count(), 5, _add)
    assert float(same["sum"]) == float(straight["sum"])
    resumed.clear()
    Checkpoints(tmp_path / "t", {"seed": 2}).run("x", _count(), 5, follow)
    assert resumed == [0, 1, 2, 3, 4]


def test_a_damaged_checkpoint_is_refused_with_the_folder_to_remove(tmp_path: Path) -> None:
    Checkpoints(tmp_path / "t", {}).run("x", _count(), 2, _add)
    for path in sorted((tmp_path / "t").rglob("*")):
        if path.is_file() and "state" in path.parts[len(tmp_path.parts) + 2 :][1:2]:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="Remove that folder"):
        Checkpoints(tmp_path / "t", {}).run("x", _count(), 2, _add)


def test_the_linear_baseline_recovers_a_linear_machine(tmp_path: Path) -> None:
    """A damped spring under a force is linear in all that ridge regression sees."""
    (tmp_path / "spring.xml").write_text(
        "<mujoco><option timestep='0.01'/><worldbody><body>"
        "<joint name='x' type='slide' axis='1 0 0' stiffness='40' damping='0.5'/>"
        "<geom size='0.1' mass='1'/></body></worldbody>"
        "<actuator><motor name='push' joint='x' ctrlrange='-5 5'/></actuator></mujoco>"
    )
    spring = load_plant(tmp_path / "spring.xml")
    settings = RolloutSettings(train=64, calibration=32, test=32)
    data = collect(spring, load_task(spring), tmp_path / "data", settings, 0)
    layout = layout_of(spring, data.symmetry)
    linear = linear_surrogate(layout, None, data.episodes("train"))
    assert max(score(linear, spring, data.episodes("test"))["nrmse"]) < 1e-3
