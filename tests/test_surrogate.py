"""Surrogates: the manifold update, invariances, intervals, resumable fitting, files."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from physai.errors import InputError
from physai.plant import Plant, load_plant
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.dataset import Dataset, Episodes
from physai.rollout.symmetry import Symmetry
from physai.state import Joint, State, difference, quaternion_from_axis_angle, quaternion_multiply
from physai.surrogate.baseline import linear_surrogate
from physai.surrogate.calibration import conformal_quantile
from physai.surrogate.checkpoint import Checkpoints
from physai.surrogate.domain import fit_domain
from physai.surrogate.features import (
    Layout,
    advance,
    input_channels,
    inputs,
    layout_of,
    targets,
)
from physai.surrogate.fit import FitSettings, rounding, transitions
from physai.surrogate.model import Surrogate
from physai.surrogate.network import Architecture, apply_ensemble, apply_member, init_ensemble
from physai.surrogate.prior import centred, prior
from physai.surrogate.release import fit
from physai.surrogate.score import channel_spread, score
from physai.surrogate.store import load_surrogate, save_surrogate
from physai.task import load_task

TINY = FitSettings(members=2, width=32, steps=1500, fine_steps=250, fine_batch=32, fine_horizon=4)


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


ALL_KINDS = (
    Joint("root", "free", 0, 0),
    Joint("ball", "ball", 7, 6),
    Joint("slide", "slide", 11, 9),
    Joint("hinge", "hinge", 12, 10),
)


def random_layout(translation: bool = True, heading: bool = True) -> Layout:
    return Layout(
        joints=ALL_KINDS,
        nq=13,
        nv=11,
        na=2,
        nu=2,
        nw=4,
        nd=1,
        control_period=0.02,
        position_axes="" if translation else "xyz",
        heading_invariant=heading,
        vectors=((1, 2, 3),),
        design_low=(1.0,),
        design_high=(3.0,),
    )


def random_state(rng: np.random.Generator, n: int = 32) -> State:
    def quaternion() -> np.ndarray:
        q = rng.normal(size=(n, 4))
        return q / np.linalg.norm(q, axis=1, keepdims=True)

    qpos = [rng.normal(size=(n, 3)), quaternion(), quaternion(), rng.normal(size=(n, 2))]
    return State(
        qpos=np.concatenate(qpos, axis=1).astype(np.float32),
        qvel=rng.normal(size=(n, 11)).astype(np.float32),
        act=rng.uniform(size=(n, 2)).astype(np.float32),
        time=np.zeros(n, np.float32),
        command=np.zeros((n, 0), np.float32),
        design=np.full((n, 1), 2.0, np.float32),
    )


def test_advance_inverts_targets_for_every_joint_kind() -> None:
    rng, layout = np.random.default_rng(0), random_layout()
    before, after = random_state(rng), random_state(rng)
    reached = advance(layout, before, targets(layout, before, after))
    # float32 rotations compose to a few ulp of their angle
    assert np.abs(difference(layout.joints, reached, after)).max() < 2e-5


def test_a_body_in_uniform_motion_has_zero_targets() -> None:
    """Constant world velocity and spin about a principal axis: nothing is left to learn."""
    layout = replace(random_layout(), joints=ALL_KINDS[:1], nq=7, nv=6, na=0)
    h, velocity, spin = 0.02, np.array([1.0, -2.0, 0.5]), np.array([0.0, 0.0, 3.0])
    start = np.asarray(quaternion_from_axis_angle(np.array([0.6, 0.0, 0.8]), 0.7))
    turn = quaternion_from_axis_angle(np.array([0.0, 0.0, 1.0]), 3.0 * h)
    end = quaternion_multiply(start, turn)

    def state(position: np.ndarray, attitude: np.ndarray) -> State:
        qpos = np.concatenate([position, attitude])[None]
        empty = np.zeros((1, 0))
        return State(qpos, np.append(velocity, spin)[None], empty, np.zeros(1), empty, empty)

    y = targets(layout, state(np.zeros(3), start), state(velocity * h, np.asarray(end)))
    assert np.abs(np.asarray(y)).max() < 1e-6


@pytest.mark.parametrize("heading", [True, False])
def test_inputs_ignore_heading_only_where_the_layout_says_so(heading: bool) -> None:
    rng, layout = np.random.default_rng(1), random_layout(heading=heading)
    state, angle = random_state(rng), 1.1
    action, wind = rng.uniform(size=(32, 2)), rng.normal(size=(32, 4))
    turn = np.asarray(quaternion_from_axis_angle(np.array([0.0, 0.0, 1.0]), angle))
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    qpos, qvel, turned_wind = state.qpos.copy(), state.qvel.copy(), wind.copy()
    qpos[:, :3] = qpos[:, :3] @ matrix.T + 5.0
    qpos[:, 3:7] = quaternion_multiply(np.broadcast_to(turn, (32, 4)), state.qpos[:, 3:7])
    qvel[:, :3] = qvel[:, :3] @ matrix.T
    turned_wind[:, 1:] = wind[:, 1:] @ matrix.T
    x = inputs(layout, state, action, wind)
    y = inputs(layout, state.replace(qpos=qpos, qvel=qvel), action, turned_wind)
    assert (np.abs(np.asarray(x - y)).max() < 1e-5) == heading


def test_inputs_see_position_where_translation_matters(plant: Plant) -> None:
    rng = np.random.default_rng(2)
    state = random_state(rng)
    moved = state.replace(qpos=state.qpos + np.eye(13, dtype=np.float32)[0])
    for axes, invariant in (("", True), ("xyz", False), ("z", True), ("x", False)):
        layout = replace(random_layout(), position_axes=axes)
        see = partial(inputs, layout, action=np.zeros((32, 2)), disturbance=np.zeros((32, 4)))
        assert np.allclose(see(state), see(moved)) == invariant


def test_input_channels_name_every_input(plant: Plant) -> None:
    for symmetry in (Symmetry("xyz", heading=True), Symmetry("xy"), Symmetry()):
        layout = layout_of(plant, symmetry)
        state = jax.tree.map(lambda x: np.asarray(x)[None], _zero_state(plant))
        x = inputs(layout, state, np.zeros((1, plant.nu)), np.zeros((1, plant.nw)))
        names = [c.name for c in input_channels(layout, plant)]
        assert len(names) == x.shape[-1] == len(set(names))


def _zero_state(plant: Plant) -> State:
    data = mujoco.MjData(plant.model)
    return State(
        data.qpos, data.qvel, data.act, np.zeros(()), np.zeros(4), plant.nominal.astype(np.float32)
    )


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
    calibration = rng.exponential(size=(1, n, repeats))
    fresh = rng.exponential(size=repeats)
    covered = (fresh <= conformal_quantile(calibration)[0]).mean()
    # exactly 0.9 in expectation for n = 99; four standard errors of a binomial
    assert abs(covered - 0.9) < 4 * np.sqrt(0.09 / repeats)


def test_conformal_quantile_is_the_order_statistic() -> None:
    scores = np.random.default_rng(1).permutation(np.arange(1.0, 51.0)).reshape(1, 50, 1)
    assert conformal_quantile(scores)[0, 0] == 46.0  # ceil(51 * 0.9) = 46


def test_domain_score_is_one_at_the_edge_and_flags_ranges() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 3))
    x = rng.normal(size=(20_000, 3)) @ mixing + 5.0
    domain = fit_domain(x[:10_000], x[10_000:])
    fresh = rng.normal(size=(20_000, 3)) @ mixing + 5.0
    outside = float((np.asarray(domain.score(jnp.asarray(fresh))) > 1.0).mean())
    assert abs(outside - 0.01) < 0.005
    # for a Gaussian the squared radius is the 99% quantile of chi-square with three degrees: 11.345
    assert float(domain.radius) ** 2 == pytest.approx(11.345, rel=0.05)
    assert bool(domain.outside(jnp.asarray(x.max(0) + 1.0)).all())
    assert not bool(domain.outside(jnp.asarray(x[:10_000])).any())


def test_an_idle_joint_is_no_input_and_friction_is_one() -> None:
    stage = load_plant("wafer_stage")
    plain, layout = (layout_of(stage, Symmetry(joints=idle)) for idle in ((), ("carriage",)))
    names = [c.name for c in input_channels(layout, stage)]
    assert "carriage.position" not in names and "carriage.rate.sliding" in names
    task = load_task(stage)
    state = task.excitation(jax.random.key(0), jnp.asarray(stage.nominal))
    moved = state.replace(qpos=state.qpos.at[2].add(0.5))
    now, later = (inputs(layout, s, jnp.zeros(1), jnp.zeros(1)) for s in (state, moved))
    np.testing.assert_array_equal(now, later)
    assert len(now) == len(names) == len(input_channels(plain, stage)) - 1
    # EMPS: 20.39 N slow what they move by 20.39 * 0.005 / m in a period, m between both masses.
    ((index, speed),) = layout.friction
    assert index == 2 and 20.39 * 0.005 / 95.1 <= speed <= 20.39 * 0.005 / 70.0
    sliding = inputs(layout, state.replace(qvel=state.qvel.at[2].set(speed)), *2 * [jnp.zeros(1)])
    assert float(sliding[names.index("carriage.rate.sliding")]) == pytest.approx(np.tanh(1.0))


def test_rounding_of_the_record_is_that_of_float32() -> None:
    """A wheel that turned by 1,000 rad is known to 1.2e-4 rad, an attitude to 1.2e-7."""
    satellite = load_plant("satellite")
    layout, task = layout_of(satellite, Symmetry("xyz", heading=True)), load_task(satellite)
    start = task.reset(jax.random.key(0), jnp.asarray(satellite.nominal))
    start = start.replace(qpos=start.qpos.at[7:11].set(1000.0).at[3:7].set(0.5))
    n, steps = 32, 20
    states = jax.tree.map(lambda x: np.tile(np.asarray(x), (n, steps + 1, *[1] * x.ndim)), start)
    still = Episodes(
        states,
        np.zeros((n, steps, satellite.nu), np.float32),
        np.zeros((n, steps, satellite.nw), np.float32),
        np.full(n, steps, np.int32),
    )
    found = np.asarray(rounding(layout, None, still))
    assert (found[6:10] > 0.4 * 1000.0 * 2.0**-23).all()
    assert (found[6:10] < 2.0 * 1000.0 * 2.0**-23).all()
    assert (found[3:6] > 0.2 * 2.0**-23).all() and (found[3:6] < 4.0 * 2.0**-23).all()
    assert (found[:3] == 0.0).all()


def test_a_channel_that_never_changes_is_predicted_exactly(tmp_path: Path) -> None:
    """Nothing spins the rocket about its long axis: no error, no scale, no part in the mean."""
    rocket = load_plant("rocket")
    settings = RolloutSettings(train=64, calibration=32, test=32)
    data = collect(rocket, load_task(rocket), tmp_path / "data", settings, 0)
    rough = replace(TINY, steps=250, fine_steps=0)
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
    x, y = (np.asarray(a, float) for a in transitions(surrogate.layout, dataset.episodes("train")))
    u, v = (np.asarray(a, float) for a in transitions(surrogate.layout, test))
    scale = x.std(0) + 1e-6
    one = np.hstack([(x - x.mean(0)) / scale, np.ones((len(x), 1))])
    ridge = np.linalg.solve(one.T @ one + 1e-3 * np.eye(one.shape[1]), one.T @ y)
    linear = np.hstack([(u - x.mean(0)) / scale, np.ones((len(u), 1))]) @ ridge - v
    predicted = apply_ensemble(
        surrogate.architecture,
        surrogate.parameters,
        (u - surrogate.normaliser.input_mean) / surrogate.normaliser.input_std,
    ).mean(0)
    network = predicted * surrogate.normaliser.target_std + surrogate.normaliser.target_mean - v
    assert np.mean((np.asarray(network) / y.std(0)) ** 2) < 0.3 * np.mean((linear / y.std(0)) ** 2)


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


def test_an_interrupted_fit_resumes_to_the_same_bits(
    plant: Plant, dataset: Dataset, folder: Path, tmp_path: Path
) -> None:
    """Ctrl-C in the middle of either stage, then the same call: the weights are those of one go."""
    target = tmp_path / "surrogate"
    for stage, chunk in (("fit", 750), ("fine-tune", 0)):

        def stop(name: str, done: int, total: int, stage=stage, chunk=chunk) -> None:
            if name == stage and done * 250 >= chunk:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit(plant, [dataset], target, TINY, seed=1, progress=stop)
        assert not target.exists()
    fit(plant, [dataset], target, TINY, seed=1)
    weights = "surrogate.safetensors"
    assert (target / weights).read_bytes() == (folder / weights).read_bytes()
    assert not target.with_name("surrogate.training").exists()


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

    same = Checkpoints(tmp_path / "t", {"seed": 1}).run("x", _count(), 5, follow)
    assert resumed == [3, 4]
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


def test_mass_centres_are_chosen_where_they_calm_the_root(tmp_path: Path) -> None:
    """Panels shake a satellite's root, never its mass centre; a quadrotor has little inside."""
    found = {}
    for name in ("satellite", "quadrotor"):
        machine = load_plant(name)
        settings = RolloutSettings(train=64, calibration=32, test=32)
        data = collect(machine, load_task(machine), tmp_path / name, settings, 0)
        layout = layout_of(machine, data.symmetry)
        found[name] = prior(machine, layout, data.episodes("train"), False)
    layout, known, explained = found["satellite"]
    assert len(layout.centred) == 3 and known is not None and explained is None
    assert found["quadrotor"][0].centred == () and found["quadrotor"][1] is None


def test_a_surrogate_with_mass_centres_keeps_momentum_and_comes_back_from_disk(
    tmp_path: Path,
) -> None:
    satellite = load_plant("satellite")
    settings = RolloutSettings(train=64, calibration=32, test=32)
    data = collect(satellite, load_task(satellite), tmp_path / "data", settings, 0)
    rough = replace(TINY, steps=250, fine_steps=0)
    fitted = fit(satellite, [data], tmp_path / "s", rough)
    again = load_surrogate(tmp_path / "s", satellite)
    assert again.layout == fitted.layout and len(again.layout.centred) == 3
    test = data.episodes("test")
    states = jax.tree.map(lambda x: jnp.asarray(x[:, 0]), test.states)
    reached = again.step(states, jnp.asarray(test.actions[:, 0]))
    np.testing.assert_array_equal(
        reached.qpos, fitted.step(states, jnp.asarray(test.actions[:, 0])).qpos
    )
    # However rough the network, the mass centre's velocity stays what it was.
    before, after = (
        centred(again.layout, again.known, state).qvel[:, :3] for state in (states, reached)
    )
    np.testing.assert_allclose(after, before, atol=2e-7)
