"""Sensors: channels with units, what is recorded, what is predicted of them, files, report card."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from physai.errors import InputError
from physai.exchange.convert import convert_dataset
from physai.plant import Plant, left_out, load_plant
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.dataset import Dataset, Episodes
from physai.rollout.engine import TruePlant
from physai.rollout.excitation import draw_starts
from physai.rollout.store import describe
from physai.rollout.symmetry import Symmetry
from physai.state import State, quaternion_from_axis_angle
from physai.surrogate.features import layout_of
from physai.surrogate.fit import FitSettings
from physai.surrogate.model import Surrogate
from physai.surrogate.network import Architecture
from physai.surrogate.readout import SensorReadout, to_root, to_world
from physai.surrogate.readout_fit import frames_of, seen_layout
from physai.surrogate.readout_score import score_readout
from physai.surrogate.release import fit, join
from physai.surrogate.scaling import Calibration, Normaliser
from physai.surrogate.store import load_surrogate
from physai.task import load_task

PENDULUM = """<mujoco><option timestep="0.01"/><worldbody><body>
<joint name="pivot" type="hinge" axis="0 1 0" damping="0.05"/>
<geom type="capsule" fromto="0 0 0 0 0 -1" size="0.02" mass="1" contype="0" conaffinity="0"/>
<site name="tip" pos="0 0 -1"/></body></worldbody>
<actuator><motor name="motor" joint="pivot" ctrlrange="-4 4"/></actuator>
<sensor><framepos name="tip" objtype="site" objname="tip"/>
<accelerometer name="felt" site="tip"/><actuatorfrc name="drive" actuator="motor"/></sensor>
</mujoco>"""
BALL = """<mujoco><option timestep="0.005" cone="elliptic"/>
<worldbody><geom type="plane" size="5 5 .1"/>
<body name="ball" pos="0 0 .11"><freejoint name="root"/><geom name="ball" size=".1" mass="1"/>
<site name="middle" size=".12"/></body></worldbody>
<actuator><motor name="lift" site="middle" gear="0 0 1 0 0 0" ctrlrange="0 25"/></actuator>
<sensor><touch name="touch" site="middle"/><framepos objtype="body" objname="ball"/>
<framelinvel name="fast" objtype="body" objname="ball"/>{more}
<framequat name="turned" objtype="body" objname="ball"/><clock name="clock"/>
<user name="own" dim="2"/></sensor></mujoco>"""
CONTACT = '<contact geom1="ball" data="found force"/>'
MAGNET = '<magnetometer site="middle"/>'


def machine(folder: Path, model: str, python: str = "") -> Plant:
    folder.mkdir()
    (folder / "plant.xml").write_text(model)
    if python:
        (folder / "plant.py").write_text(python)
    return load_plant(folder)


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    return machine(tmp_path_factory.mktemp("p") / "pendulum", PENDULUM)


@pytest.fixture(scope="module")
def dataset(pendulum: Plant, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    settings = RolloutSettings(train=96, calibration=64, test=64, duration=0.6, shard_episodes=96)
    return collect(
        pendulum, load_task(pendulum), tmp_path_factory.mktemp("d") / "data", settings, 3
    )


@pytest.fixture(scope="module")
def folder(pendulum: Plant, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("s") / "surrogate"
    settings = FitSettings(
        equations=False,
        members=2,
        width=24,
        depth=1,
        steps=2250,
        calibrated_horizon=10,
    )
    fit(pendulum, [dataset], folder, settings, seed=1)
    return folder


@pytest.fixture(scope="module")
def surrogate(pendulum: Plant, folder: Path) -> Surrogate:
    return load_surrogate(folder, pendulum)


def at(count: int, **changes) -> State:
    """Return the ball at rest on the floor, `count` times."""
    qpos = np.tile([0.0, 0.0, 0.0999, 1.0, 0.0, 0.0, 0.0], (count, 1))
    nothing = np.zeros((count, 0))
    state = State(qpos, np.zeros((count, 6)), nothing, np.zeros(count), nothing, nothing)
    return state.replace(**changes)


def test_every_number_has_a_name_and_the_unit_of_its_kind(tmp_path: Path) -> None:
    ball = machine(
        tmp_path / "ball", BALL.format(more='<contact geom1="ball" data="found force"/>')
    )
    named = {c.name: c.unit for c in ball.sensor_channels}
    assert named["touch"] == "N" and named["sensor_1.x"] == "m" and named["fast.z"] == "m/s"
    assert named["turned.qw"] == "1"
    assert named["sensor_3.found"] == "1" and named["sensor_3.force_x"] == "N"
    low = {c.name: c.low for c in ball.sensor_channels}
    assert low["touch"] == 0.0 and low["fast.x"] == -np.inf
    assert dict(left_out(ball.model)).keys() == {"clock", "own"}
    assert not {"clock", "own"} & {s.name for s in ball.sensors}


def test_plant_py_chooses_sensors_and_is_told_what_cannot_be(tmp_path: Path) -> None:
    model = BALL.format(more="")
    chosen = machine(tmp_path / "a", model, 'SENSORS = ("fast",)')
    assert [c.name for c in chosen.sensor_channels] == ["fast.x", "fast.y", "fast.z"]
    assert machine(tmp_path / "b", model, "SENSORS = ()").sensors == ()
    with pytest.raises(InputError, match=r"'own' cannot be predicted: .* callback"):
        machine(tmp_path / "c", model, 'SENSORS = ("own",)')
    with pytest.raises(InputError, match="no sensor of that name; it has touch, sensor_1"):
        machine(tmp_path / "d", model, 'SENSORS = ("tuch",)')
    with pytest.raises(InputError, match="expected a tuple of names"):
        machine(tmp_path / "e", model, 'SENSORS = "fast"')


def test_a_reading_is_that_of_mj_forward_and_leaves_the_simulation_alone(tmp_path: Path) -> None:
    """In contact, where the solver's warm start would be changed, against single evaluations."""
    ball = machine(tmp_path / "ball", BALL.format(more='<accelerometer name="a" site="middle"/>'))
    read, left = TruePlant(ball, 3), TruePlant(ball, 3)
    state = other = at(3, qvel=np.arange(18.0).reshape(3, 6) * 0.05)
    rng = np.random.default_rng(0)
    touched = False
    for _ in range(20):
        action = rng.uniform(0.0, 9.0, (3, 1))
        state, other = read.step(state, action), left.step(other, action)
        found = read.sense()
        for row in range(3):
            data = mujoco.MjData(ball.model)
            data.qpos[:], data.qvel[:] = state.qpos[row], state.qvel[row]
            data.ctrl[:] = action[row]
            mujoco.mj_forward(ball.model, data)
            single = data.sensordata[: found.shape[1]].copy()
            single[-4:] *= np.sign(single[-4])  # the quaternion with w >= 0
            np.testing.assert_allclose(found[row], single, rtol=1e-4, atol=1e-4)
            touched |= single[0] > 0.0
        np.testing.assert_array_equal(state.qpos, other.qpos)
        np.testing.assert_array_equal(state.qvel, other.qvel)
    assert touched


def test_forces_of_the_plant_act_while_it_is_read(tmp_path: Path) -> None:
    """The rocket's forces write its mass, a field of the model: that is put back too."""
    folder = tmp_path / "rocket"
    shutil.copytree(load_plant("rocket").folder, folder)
    model = (folder / "plant.xml").read_text()
    sensor = '<sensor><accelerometer name="felt" site="engine"/></sensor></mujoco>'
    (folder / "plant.xml").write_text(model.replace("</mujoco>", sensor))
    plant = load_plant(folder)
    state = other = draw_starts(load_task(plant), jax.random.key(0), plant.nominal[None])
    read, left = TruePlant(plant, 1), TruePlant(plant, 1)
    wind = np.full((1, plant.nw), 8.0)
    for _ in range(5):
        state = read.step(state, plant.trim[None], wind)
        found = read.sense()
        other = left.step(other, plant.trim[None], wind)
        np.testing.assert_array_equal(state.qpos, other.qpos)
        np.testing.assert_array_equal(state.qvel, other.qvel)
        masses = (simulator.model_of(0).body_mass for simulator in (read, left))
        np.testing.assert_array_equal(*masses)
    again = TruePlant(plant, 1).sense_at(state, plant.trim[None], wind)
    np.testing.assert_allclose(found, again, rtol=1e-8, atol=1e-6)
    calm = TruePlant(plant, 1).sense_at(state, plant.trim[None])
    assert np.abs(calm - found).max() > 0.01  # the wind reaches the sensor at once


def test_a_dataset_holds_what_mj_forward_says_of_its_states(
    pendulum: Plant, dataset: Dataset
) -> None:
    episodes = dataset.episodes("test")
    assert episodes.sensors is not None
    model, data = pendulum.model, mujoco.MjData(pendulum.model)
    for episode, period in [(0, 0), (3, 7), (5, 29)]:
        data.qpos[:] = episodes.states.qpos[episode, period + 1]
        data.qvel[:] = episodes.states.qvel[episode, period + 1]
        data.ctrl[:] = episodes.actions[episode, period]
        mujoco.mj_forward(model, data)
        np.testing.assert_allclose(
            episodes.sensors[episode, period], data.sensordata, rtol=1e-4, atol=1e-5
        )
    assert dataset.meta["columns"]["sensor"][0] == ["tip.x", "m"]


def test_a_table_tells_a_reading_at_the_moment_that_it_belongs_to(
    pendulum: Plant, dataset: Dataset, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    convert_dataset(pendulum, load_task(pendulum), dataset, "csv", tmp_path / "csv")
    with (tmp_path / "csv" / "episodes.csv").open() as file:
        rows = [row for row, _ in zip(csv.DictReader(file), range(3), strict=False)]
    assert rows[0]["sensor.tip.x"] == ""
    for row in rows[1:]:
        angle = float(row["position.pivot"])
        assert float(row["sensor.tip.x"]) == pytest.approx(-np.sin(angle), abs=1e-5)


def test_a_plant_without_sensors_is_described_as_before() -> None:
    arm = load_plant("arm")
    found = describe(arm, load_task(arm), 5, {"train": 1}, 1, {}, 0, None, sensed=True)
    assert "sensor" not in found["columns"]


def test_datasets_without_sensors_are_joined_without(dataset: Dataset) -> None:
    episodes = dataset.episodes("test")
    assert join([episodes, replace(episodes, sensors=None)]).sensors is None
    both = join([episodes, episodes]).sensors
    assert both is not None and len(both) == 2 * len(episodes.length)


def test_the_tip_of_a_pendulum_is_told_from_its_angle(
    pendulum: Plant, dataset: Dataset, surrogate: Surrogate
) -> None:
    """Against closed forms: the tip is at -(sin, cos) of the angle, the motor gives its control."""
    angle = np.linspace(-1.0, 1.0, 21)
    n, empty = len(angle), np.zeros((21, 0))
    state = State(angle[:, None], np.zeros((n, 1)), empty, np.zeros(n), empty, empty)
    action = np.linspace(-2.0, 2.0, n)[::-1, None]
    values = np.asarray(surrogate.read(state, action).values)
    seen = np.abs(angle) < np.abs(dataset.episodes("train").states.qpos).max()
    np.testing.assert_allclose(values[seen, 0], -np.sin(angle)[seen], atol=0.03)
    np.testing.assert_allclose(values[seen, 2], -np.cos(angle)[seen], atol=0.03)
    np.testing.assert_allclose(values[:, 6], action[:, 0], atol=0.15)
    assert np.abs(values[:, [1, 4]]).max() < 1e-6  # nothing moves along y


def test_the_report_card_tells_error_and_coverage_of_sensors(
    pendulum: Plant, dataset: Dataset, surrogate: Surrogate
) -> None:
    found = score_readout(surrogate, pendulum, dataset.episodes("test"), (1, 10, 20), 5)
    assert found is not None and found["horizons"] == [0, 1, 10, 20]
    tip = found["channels"]["tip.x"]
    assert tip["unit"] == "m" and max(tip["nrmse"][:2]) < 0.05
    assert tip["nrmse"][2] < 0.2
    assert found["channels"]["tip.y"]["nrmse"] == [None] * 4
    for channel in ("tip.x", "tip.z", "felt.x", "felt.z", "drive"):
        # 64 calibration and 64 test episodes of dependent moments
        assert all(0.78 < c < 0.99 for c in found["channels"][channel]["coverage"][:3]), channel
    assert tip["coverage"][-1] is None and tip["half_width"][-1] is None
    unread = replace(dataset.episodes("test"), sensors=None)
    assert score_readout(surrogate, pendulum, unread, (1,), 5) is None


def test_a_prediction_reads_the_states_that_it_predicts(
    dataset: Dataset, surrogate: Surrogate
) -> None:
    episodes = dataset.episodes("test")
    start = jax.tree.map(lambda x: jnp.asarray(x[:4, 0]), episodes.states)
    actions = jnp.swapaxes(jnp.asarray(episodes.actions[:4, :12]), 0, 1)
    found = jax.jit(Surrogate.predict)(surrogate, start, actions)
    assert found.sensors is not None
    read = surrogate.read(found.states, actions)
    np.testing.assert_allclose(found.sensors.values, read.values, rtol=1e-4, atol=1e-5)
    assert np.isfinite(found.sensors.half_width[:10]).all()
    assert np.isinf(found.sensors.half_width[10:]).all()


def test_a_surrogate_without_readout_says_so(surrogate: Surrogate) -> None:
    with pytest.raises(InputError, match="no readout"):
        replace(surrogate, readout=None).read(at(1), np.zeros((1, 1)))


def test_files_give_the_same_readout_back(
    pendulum: Plant, folder: Path, surrogate: Surrogate
) -> None:
    readout = surrogate.readout
    assert readout is not None and readout.ns == len(pendulum.sensor_channels)
    again = load_surrogate(folder, pendulum).readout
    assert again is not None
    assert (again.layout, again.frames, again.sparse) == (
        readout.layout, readout.frames, readout.sparse
    )  # fmt: skip
    subset = surrogate.subset(jax.random.key(0), 1)
    assert subset.readout is not None
    assert jax.tree.leaves(subset.readout.parameters)[0].shape[0] == subset.members == 1
    rows = (folder / "fit.csv").read_text().splitlines()
    assert [row for row in rows if row.startswith("readout,")]


def test_what_is_told_in_the_world_is_learned_in_the_body(tmp_path: Path) -> None:
    """Moved and turned about the vertical, MuJoCo's readings are the same in the root's frame."""
    ball = machine(tmp_path / "ball", BALL.format(more=""))
    frames, turn = frames_of(ball), 2.0
    state = at(1, qvel=np.array([[0.3, -0.2, 0.1, 1.0, 2.0, 3.0]]))
    half = np.asarray(quaternion_from_axis_angle(jnp.array([0.6, 0.0, 0.8]), jnp.array(0.7)))
    state.qpos[0, 3:] = half
    about = np.array([np.cos(turn / 2), 0.0, 0.0, np.sin(turn / 2)])
    moved = State(state.qpos.copy(), state.qvel.copy(), *(
        getattr(state, name) for name in ("act", "time", "command", "design")
    ))  # fmt: skip
    moved.qpos[0, :2] += [3.0, -2.0]
    mujoco.mju_mulQuat(moved.qpos[0, 3:], about, half.astype(float))
    c, s = np.cos(turn), np.sin(turn)
    moved.qvel[0, :2] = np.array([[c, -s], [s, c]]) @ state.qvel[0, :2]
    simulator = TruePlant(ball, 1)
    plain, other = (simulator.sense_at(x, np.zeros((1, 1))) for x in (state, moved))
    assert np.abs(plain - other).max() > 1.0
    ours, theirs = (to_root(frames, x, r) for x, r in ((state, plain), (moved, other)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(to_world(frames, moved, theirs), other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("more", "heading"), [("", True), (MAGNET, False)])
def test_the_readout_sees_the_heading_where_a_sensor_depends_on_it(
    tmp_path: Path, more: str, heading: bool
) -> None:
    ball = machine(tmp_path / "ball", BALL.format(more=more))
    rng = np.random.default_rng(0)
    state = at(16, qvel=rng.standard_normal((16, 6)))
    pairs = jax.tree.map(lambda x: np.stack([x, x], axis=1).astype(np.float32), state)
    some = Episodes(pairs, np.ones((16, 1, 1)), np.zeros((16, 1, 0)), np.ones(16, int))
    layout = layout_of(ball, Symmetry("xy", heading=True))
    seen = seen_layout(ball, layout, frames_of(ball), some)
    assert seen.position_axes == "z" and seen.heading_invariant is heading


def test_a_sensor_that_may_be_zero_is_read_as_its_mean_and_spread() -> None:
    """One sparse channel: against draws of a number that is v with probability P, else 0."""
    chance, size = 0.3, 5.0
    logit = np.log(chance / (1.0 - chance))
    architecture = Architecture(1, 2, 0, 0)
    layout = replace(layout_of(load_plant("cartpole"), Symmetry()), nw=0)
    kernel = jnp.zeros((1, 1, 2))
    one, zero = jnp.ones(2), jnp.zeros(2)
    readout = SensorReadout(
        {
            "hidden": {},
            "readout": {"kernel": kernel, "bias": jnp.array([[size, logit]])},
            "linear": {"kernel": kernel},
        },
        Normaliser(zero[:1], one[:1], zero, one, 100.0 * one),
        Calibration(jnp.ones((1, 1)), jnp.ones((1, 1))),
        layout,
        architecture,
        sparse=(0,),
    )
    mean, spread = readout._split(jnp.array([size, logit]))
    draws = size * (np.random.default_rng(0).random(200_000) < chance)
    assert float(mean[0]) == pytest.approx(draws.mean(), rel=0.02)
    assert float(spread[0]) == pytest.approx(draws.std(), rel=0.02)
