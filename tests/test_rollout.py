"""The true plant at scale: as MuJoCo steps it, collected safely, read with suspicion."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
import zarr

from physai.errors import InputError
from physai.plant import Plant, load_plant
from physai.provenance import check_chain, read_manifest, sha256_folder, write_manifest
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.dataset import open_dataset
from physai.rollout.engine import TruePlant
from physai.rollout.excitation import (
    Excitation,
    coloured_noise,
    disturbance_process,
    draw_starts,
    shake,
)
from physai.rollout.store import only_writer
from physai.rollout.symmetry import TOLERANCE, find_symmetries
from physai.state import State
from physai.task import Task, load_task

# A cart on a rail, one design variable, one gust; `spring` below 0 lets it diverge.
CART = """
<mujoco>
  <option timestep="0.005"/>
  <custom><numeric name="control_period" data="0.02"/></custom>
  <worldbody><body><joint name="x" type="slide" axis="1 0 0" stiffness="{spring}" damping="0.5"/>
    <geom name="cart" size="0.1" mass="1"/></body></worldbody>
  <actuator>
    <general name="push" joint="x" ctrlrange="-2 3" dyntype="filterexact" dynprm="0.05"/>
    <motor name="disturbance/gust" joint="x" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""
CART_PY = """
from physai.plant import DesignVariable
DESIGN = (DesignVariable("mass", "kg", 0.5, 2.0, 1.0),)
DISTURBANCES = {"gust": {"std": 0.4, "correlation_time": 0.1}}
UNITS = {"push": "N"}
def apply(spec, design):
    spec.geom("cart").mass = design["mass"]
"""
CART_TASK = """
import jax, jax.numpy as jnp
from physai.plant import Channel
from physai.state import State
from physai.task import ObservationChannel, Task

def reset(key, design):
    a, b = jax.random.split(key)
    size = 10.0 ** jax.random.uniform(a, minval={smallest}, maxval={largest})
    start = size * jnp.array([1.0, 0.0])
    place = jax.random.uniform(b, (1,), minval=-1.0, maxval=1.0)
    return State(start[:1], start[1:], jnp.zeros(1), jnp.zeros(()), place, design)

TASK = Task(
    commands=(Channel("place", "m", -1.0, 1.0),),
    observations=(
        ObservationChannel("x", "m", -5, 5, 0.01), ObservationChannel("v", "m/s", -5, 5, 0.02)
    ),
    duration=0.6,
    reset=reset,
    observe=lambda s: {observe},
    reward=lambda s, a, t: -jnp.sum(t.qpos ** 2),
    terminated=lambda s: jnp.abs(s.qpos[0]) > {limit},
    requirements=(),
)
"""
# A body that flies, pushed along its own axes and by a gust in the world's.
PUCK = """
<mujoco>
  <option timestep="0.005" {option}><flag contact="{contact}"/></option>
  <worldbody>
    <geom type="plane" size="9 9 1"/><site name="world"/>
    <body><freejoint name="root"/><geom size="0.1 0.2 0.3" type="box" mass="1"/>
      <site name="hub"/></body>
  </worldbody>
  <tendon>{tendon}</tendon>
  <actuator>
    <motor name="push" site="hub" gear="1 0 0.5 0 0.01 0" ctrlrange="-20 20"/>
    {gusts}
  </actuator>
</mujoco>
"""
GUSTS = "".join(
    f'<general name="disturbance/gust_{a}" site="hub" refsite="world" ctrlrange="-5 5" gear="{g}"/>'
    for a, g in (("x", "1 0 0 0 0 0"), ("y", "0 1 0 0 0 0"), ("z", "0 0 1 0 0 0"))
)
PUCK_PY = "DISTURBANCES = {f'gust_{a}': {'std': 1.0, 'vector': 'gust'} for a in 'xyz'}\n"
PUCK_TASK = """
import jax, jax.numpy as jnp
from physai.state import State
from physai.task import ObservationChannel, Task

def reset(key, design):
    a, b, c = jax.random.split(key, 3)
    quaternion = jax.random.normal(b, (4,))
    qpos = jnp.concatenate([jax.random.normal(a, (3,)), quaternion / jnp.linalg.norm(quaternion)])
    empty = jnp.zeros(0)
    return State(qpos, jax.random.normal(c, (6,)), empty, jnp.zeros(()), empty, design)

TASK = Task(
    commands=(), observations=(ObservationChannel("x", "m", -9, 9, 0.0),), duration=1.0,
    reset=reset,
    observe=lambda s: s.qpos[:1], reward=lambda s, a, t: 0.0 * t.qpos[0],
    terminated=lambda s: jnp.zeros((), bool), requirements=(),
)
"""
SMALL = RolloutSettings(
    train=40, calibration=16, test=8, shard_episodes=16, designs_per_shard=4, duration=0.2
)


class Machine(NamedTuple):
    plant: Plant
    task: Task


def write(folder: Path, xml: str, python: str, task: str) -> Machine:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plant.xml").write_text(xml)
    (folder / "plant.py").write_text(python)
    (folder / "task.py").write_text(task)
    plant = load_plant(folder)
    return Machine(plant, load_task(plant))


def cart(
    folder: Path,
    spring: float = 5.0,
    sizes: tuple[float, float] = (-1.0, 0.0),
    limit: float = 1e9,
    observe: str = "jnp.stack([s.qpos[0], s.qvel[0]])",
) -> Machine:
    smallest, largest = sizes
    task = CART_TASK.format(smallest=smallest, largest=largest, limit=limit, observe=observe)
    return write(folder, CART.format(spring=spring), CART_PY, task)


def puck(folder: Path, option="", contact="disable", tendon="", python=PUCK_PY) -> Machine:
    xml = PUCK.format(option=option, contact=contact, tendon=tendon, gusts=GUSTS)
    return write(folder, xml, python, PUCK_TASK)


@pytest.fixture(scope="module")
def quadrotor() -> Machine:
    plant = load_plant("quadrotor")
    return Machine(plant, load_task(plant))


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Machine, Path]:
    """Collect a small dataset once, without an interruption."""
    folder = tmp_path_factory.mktemp("small")
    machine = cart(folder / "cart")
    collect(*machine, folder / "dataset", SMALL, seed=3)
    return machine, folder / "dataset"


def random_state(plant: Plant, n: int, rng: np.random.Generator) -> State:
    model = plant.model
    qpos = rng.normal(size=(n, model.nq))
    for row in qpos:
        mujoco.mj_normalizeQuat(model, row)
    act = rng.uniform(0, 0.5, (n, model.na))
    return State(
        qpos, rng.normal(size=(n, model.nv)), act, np.zeros(n), np.zeros((n, 0)), np.zeros((n, 0))
    )


def step_alone(
    plant: Plant, model: mujoco.MjModel, state: State, actions: np.ndarray, gusts: np.ndarray
) -> list[np.ndarray]:
    """Fly one simulation with a plain loop over mj_step; return [qpos, qvel, act] by moment."""
    data = mujoco.MjData(model)
    data.qpos, data.qvel, data.act = state.qpos, state.qvel, state.act
    moments = [np.concatenate([data.qpos, data.qvel, data.act])]
    for action, gust in zip(actions, gusts, strict=True):
        data.ctrl[list(plant.action_ids)] = action
        data.ctrl[list(plant.disturbance_ids)] = gust
        for _ in range(plant.substeps):
            mujoco.mj_step(model, data)
        moments.append(np.concatenate([data.qpos, data.qvel, data.act]))
    return moments


# --- engine


@pytest.mark.parametrize("designs", ["nominal", "one", "several"])
@pytest.mark.parametrize("scaled", [False, True])
def test_batch_is_a_loop_over_mj_step_to_the_last_bit(quadrotor, designs, scaled):
    plant, n, periods = quadrotor.plant, 6, 25
    rng = np.random.default_rng(1)
    low, high = (np.array([getattr(v, e) for v in plant.design]) for e in ("low", "high"))
    drawn = low + (high - low) * rng.random((3, len(low)))
    rows = {"nominal": plant.nominal[None], "one": drawn[:1], "several": drawn}[designs]
    design = np.resize(rows, (n, len(low)))
    scale = rng.uniform(0.8, 1.2, n) if scaled else None
    start = random_state(plant, n, rng)
    actions = rng.uniform(0, 1, (n, periods, plant.nu))
    gusts = rng.uniform(-1, 1, (n, periods, plant.nw))
    simulator = TruePlant(plant, n, design, scale)
    state, flown = start, [np.concatenate([start.qpos, start.qvel, start.act], 1)]
    for k in range(periods):
        state = simulator.step(state, actions[:, k], gusts[:, k])
        flown.append(np.concatenate([state.qpos, state.qvel, state.act], 1))
    assert simulator.valid.all()
    for i in range(n):
        model = plant.compile(design[i])
        if scale is not None:
            model.body_mass *= scale[i]
            model.body_inertia *= scale[i]
            mujoco.mj_setConst(model, mujoco.MjData(model))
        alone = step_alone(plant, model, start[i], actions[i], gusts[i])
        np.testing.assert_array_equal(np.stack(flown)[:, i], np.stack(alone))


@pytest.mark.parametrize("count", [1, 3])
def test_mass_scale_moves_masses_and_derived_constants(quadrotor, count):
    """One design takes the path of per-simulation fields, several that of per-simulation models."""
    plant, n = quadrotor.plant, 3
    design = np.tile(plant.nominal, (n, 1))
    design[:, 0] -= 0.01 * np.arange(n) % (0.01 * count)
    scale = np.array([0.7, 1.0, 1.4])
    simulator = TruePlant(plant, n, design, scale)
    for i in range(n):
        plain, scaled = plant.compile(design[i]), simulator.model_of(i)
        for name, power in (("body_mass", 1), ("body_inertia", 1), ("body_subtreemass", 1)):
            expected = getattr(plain, name) * scale[i] ** power
            np.testing.assert_allclose(getattr(scaled, name), expected, rtol=1e-12)
        np.testing.assert_allclose(
            scaled.dof_invweight0, plain.dof_invweight0 / scale[i], rtol=1e-9
        )


def test_one_diverging_simulation_stops_alone_and_is_marked(tmp_path, monkeypatch):
    """Already in its first period, where MuJoCo's reset leaves no trace in the time."""
    monkeypatch.chdir(tmp_path)
    plant = cart(tmp_path / "cart").plant
    rng = np.random.default_rng(0)
    start = random_state(plant, 4, rng)
    start.qvel[2] = 1e12
    actions = rng.uniform(-1, 1, (10, 4, 1))
    simulator, alone = TruePlant(plant, 4), TruePlant(plant, 1)
    state, single = start, start[:1]
    for action in actions:
        state = simulator.step(state, action)
        single = alone.step(single, action[:1])
        np.testing.assert_array_equal(simulator.valid, [True, True, False, True])
        np.testing.assert_array_equal(state.qvel[2], 1e12)
        np.testing.assert_array_equal(state.time[2], 0.0)
    np.testing.assert_array_equal(state.qpos[0], single.qpos[0])
    assert state.time[0] == pytest.approx(0.2)
    assert not (tmp_path / "MUJOCO_LOG.TXT").exists()


def test_growth_beyond_all_speeds_counts_as_diverged(tmp_path):
    plant = cart(tmp_path / "cart", spring=-400.0).plant
    start = random_state(plant, 2, np.random.default_rng(0))
    start.qpos[:] = [[0.0], [1.0]]
    start.qvel[:] = start.act[:] = 0.0
    simulator, state = TruePlant(plant, 2), start
    for _ in range(60):
        state = simulator.step(state, np.zeros((2, 1)))
    np.testing.assert_array_equal(simulator.valid, [True, False])
    assert np.isfinite(state.qpos).all() and np.isfinite(state.qvel).all()
    simulator.step(start, np.zeros((2, 1)))
    assert simulator.valid.all()  # a new state is a new flight


def test_a_flight_does_not_depend_on_the_one_before(tmp_path):
    """Contacts use the solver's warm start, which must not pass from one flight to the next."""
    plant = puck(tmp_path / "puck", contact="enable").plant
    rng = np.random.default_rng(0)
    start = random_state(plant, 8, rng)
    start.qpos[:, 2] = 0.3
    simulator, ends = TruePlant(plant, 8), []
    for _ in range(2):
        state = start
        for _ in range(40):
            state = simulator.step(state, np.zeros((8, 1)))
        ends.append(state.qpos)
    assert (np.abs(ends[0][:, 2]) < 0.6).all()  # they lie on the floor
    np.testing.assert_array_equal(ends[0], ends[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": np.full((2, 1), np.nan)}, r"action: expected finite numbers, got nan at index"),
        ({"action": np.zeros((2, 3))}, r"action: expected shape \(2, 1\), got \(2, 3\)"),
        ({"gust": np.zeros((1, 1))}, r"disturbance: expected shape \(2, 1\), got \(1, 1\)"),
        ({"gust": np.full((2, 1), np.inf)}, "disturbance: expected finite numbers, got inf"),
        (
            {"qpos": np.full((2, 1), np.nan)},
            r"qpos: expected finite numbers, got nan at index \(0, 0",
        ),
        ({"qvel": np.zeros(2)}, r"qvel: expected shape \(2, 1\), got \(2,\)"),
        ({"time": np.full(2, np.nan)}, "time: expected finite numbers"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, change, message):
    plant = cart(tmp_path / "cart").plant
    start = random_state(plant, 2, np.random.default_rng(0))
    state = start.replace(**{k: v for k, v in change.items() if k not in ("action", "gust")})
    action, gust = change.get("action", np.zeros((2, 1))), change.get("gust", np.zeros((2, 1)))
    with pytest.raises(InputError, match=message):
        TruePlant(plant, 2).step(state, action, gust)


def test_bad_designs_and_masses_are_refused(tmp_path):
    plant = cart(tmp_path / "cart").plant
    with pytest.raises(InputError, match=r"mass: expected 0.5 to 2 kg, got 3"):
        TruePlant(plant, 2, np.array([[1.0], [3.0]]))
    with pytest.raises(InputError, match=r"designs: expected shape \(2, 1\)"):
        TruePlant(plant, 2, np.ones((3, 1)))
    with pytest.raises(InputError, match="mass_scale: expected factors above 0, got 0"):
        TruePlant(plant, 2, None, np.array([1.0, 0.0]))
    rounded = np.full((2, 1), np.nextafter(np.float32(2.0), np.float32(3.0)), float)
    assert TruePlant(plant, 2, rounded).designs.max() == 2.0


# --- excitation


def test_coloured_noise_is_its_recursion():
    """The scan in log2(T) passes against x_k+1 = r x_k + sqrt(1 - r^2) e_k, step by step."""
    periods = np.array([[[0.5]], [[3.0]], [[200.0]]])
    got = coloured_noise(np.random.default_rng(5), (3, 77, 2), periods)
    e = np.random.default_rng(5).standard_normal((3, 77, 2), dtype=np.float32).astype(float)
    r = np.exp(-1 / periods[:, 0])
    expected = [e[:, 0]]
    for k in range(1, 77):
        expected.append(r * expected[-1] + np.sqrt(1 - r * r) * e[:, k])
    np.testing.assert_allclose(got, np.stack(expected, 1), atol=3e-6)  # float32 sums


def test_coloured_noise_has_unit_variance_and_the_stated_correlation():
    x = coloured_noise(np.random.default_rng(0), (4000, 60, 1), 7.0)[..., 0]
    # 4000 independent rows: standard errors of 2.2% for a variance, 1.6% for a covariance.
    np.testing.assert_allclose(x.var(0), 1.0, atol=0.12)
    for lag in (1, 7, 20):
        covariance = np.mean(x[:, 10] * x[:, 10 + lag])
        assert covariance == pytest.approx(np.exp(-lag / 7.0), abs=0.08)


def test_disturbances_have_the_plants_statistics_and_range(quadrotor):
    plant = quadrotor.plant
    calm = disturbance_process(plant, np.random.default_rng(0), 50, np.zeros(3))
    assert calm.shape == (3, 50, 3) and not calm.any()
    one = disturbance_process(plant, np.random.default_rng(0), 50, 1.0)
    assert one.shape == (50, 3) and one.dtype == np.float32
    many = disturbance_process(plant, np.random.default_rng(0), 50, np.ones(3000))
    # std 0.2 N of a range of 1.5 N: nothing is clipped; 9000 independent rows give 0.75%.
    np.testing.assert_allclose(many.std((0, 2)), 0.2, rtol=0.04)
    wild = disturbance_process(plant, np.random.default_rng(0), 50, np.full(9, 100.0))
    assert wild.min() == -1.5 and wild.max() == 1.5


def test_action_noise_spans_the_stated_scales(quadrotor):
    settings, rng = Excitation(), np.random.default_rng(0)
    shaking = shake(*quadrotor, settings, rng, 3000, 200, controlled=False)
    assert shaking.mean.shape == (3000, 1, 4)
    offset = (shaking.mean - quadrotor.plant.trim)[:, 0]
    assert (offset == offset[:, :1]).all()
    assert offset[:, 0].std() == pytest.approx(0.15, rel=0.05)
    scale = shaking.noise.std((1, 2))
    # Log-uniform 0.02 to 0.3: the median is their geometric mean, 0.077.
    assert np.median(scale) == pytest.approx(np.sqrt(0.02 * 0.3), rel=0.1)
    assert 0.005 < scale.min() < 0.03 and 0.2 < scale.max() < 0.6
    assert shaking.sensor_noise.size == 0 and not shaking.delayed.any()


def test_noise_about_a_controller_is_smaller_and_some_actions_are_late(quadrotor):
    rng = np.random.default_rng(0)
    shaking = shake(*quadrotor, Excitation(), rng, 3000, 50, controlled=True)
    # The factor is uniform in 0.1 to 1/3, its mean 0.217; log-uniform scales have mean 0.103.
    assert shaking.noise.std() == pytest.approx(0.217 * 0.133, rel=0.15)
    assert shaking.delayed.mean() == pytest.approx(0.3, abs=0.03)
    expected = quadrotor.task.observation_noise
    np.testing.assert_allclose(shaking.sensor_noise.std((0, 1)), expected, rtol=0.02)


def test_starts_do_not_depend_on_how_many_are_drawn(tmp_path):
    machine = cart(tmp_path / "cart")
    few, many = (
        draw_starts(machine.task, jax.random.key(0), np.ones((n, 1))).qpos for n in (5, 150)
    )
    assert few.shape == (5, 1) and len(np.unique(many)) == 150
    np.testing.assert_array_equal(few, many[:5])


@pytest.mark.parametrize(
    "bad",
    [
        {"scale": (0.0, 0.3)},
        {"scale": (0.3, 0.02)},
        {"correlation_time": (0.04, np.inf)},
        {"offset": -1.0},
        {"disturbance": np.nan},
        {"delayed": 1.5},
    ],
)
def test_bad_excitations_are_refused(bad):
    with pytest.raises(InputError, match=f"^{next(iter(bad))}: expected"):
        Excitation(**bad)


# --- symmetry


def test_quadrotor_is_invariant_to_rounding(quadrotor):
    found = find_symmetries(*quadrotor, seed=0)
    assert found.translation == "xyz" and found.heading
    assert max(found.errors.values()) < 1e-10


@pytest.mark.parametrize(
    ("broken", "translation", "heading"),
    [
        ({}, "xyz", True),
        # A wind is everywhere the same, so only the heading feels it.
        ({"option": 'wind="3 0 0" density="1.2"'}, "xyz", False),
        ({"option": 'gravity="1 0 -9.81"'}, "xyz", False),
        # MuJoCo's pyramid of friction stands along fixed axes of the floor, its cone does not.
        ({"contact": "enable"}, "xy", False),
        ({"contact": "enable", "option": 'cone="elliptic"'}, "xy", True),
        (
            {"tendon": '<spatial stiffness="2"><site site="world"/><site site="hub"/></spatial>'},
            "",
            False,
        ),
        # World-frame gusts that are not marked as a vector do not turn along.
        ({"python": ""}, "xyz", False),
    ],
    ids=["free", "wind", "slope", "floor", "round floor", "spring", "unmarked gust"],
)
def test_what_breaks_a_symmetry_is_found(tmp_path, broken, translation, heading):
    found = find_symmetries(*puck(tmp_path / "puck", **broken), seed=1)
    assert (found.translation, found.heading) == (translation, heading)
    for moved, error in found.errors.items():
        holds = heading if moved == "heading" else moved in translation
        assert error < 1e-9 if holds else error > 1e-4  # no verdict by a hair's breadth


def test_a_cart_on_a_rail_has_no_free_joint_to_move(tmp_path):
    found = find_symmetries(*cart(tmp_path / "cart"))
    assert (found.translation, found.heading, found.errors) == ("", False, {})


@pytest.mark.parametrize(
    ("name", "translation", "heading", "joints"),
    [
        ("satellite", "xyz", True, ("wheel_1", "wheel_2", "wheel_3", "wheel_4")),
        ("wafer_stage", "", False, ("carriage",)),
        ("hopper", "", False, ("rootx",)),
        ("cartpole", "", False, ()),
        ("ant", "xy", True, ()),
    ],
)
def test_the_symmetries_of_shipped_plants(name, translation, heading, joints):
    """Wheels, a long rail, a walker's track, a floor; but no pole under gravity, no spring."""
    plant = load_plant(name)
    found = find_symmetries(plant, load_task(plant))
    assert (found.translation, found.heading, found.joints) == (translation, heading, joints)
    for moved, error in found.errors.items():
        holds = heading if moved == "heading" else moved in translation
        assert error < 0.1 * TOLERANCE if holds else error > 10.0 * TOLERANCE


def test_a_joint_without_a_name_may_be_idle_too(tmp_path):
    """A flywheel on a fixed vertical axle, beside a pendulum that gravity turns back."""
    model = tmp_path / "wheel.xml"
    model.write_text(
        "<mujoco><worldbody><body><joint axis='0 0 1'/><geom size='0.1'/></body>"
        "<body pos='2 0 0'><joint axis='0 1 0'/><geom size='0.1' pos='0 0 -1'/></body>"
        "</worldbody></mujoco>"
    )
    plant = load_plant(model)
    assert find_symmetries(plant, load_task(plant)).joints == (plant.joints[0].name,)


# --- collecting


def test_every_episode_replays_from_what_is_stored(small):
    """Start, actions, disturbances and design, as stored in float32, give the stored states."""
    (plant, _), folder = small
    for split in ("train", "calibration", "test"):
        episodes = open_dataset(folder, plant).episodes(split)
        states = episodes.states
        for i in range(0, len(episodes.length), 5):
            model = plant.compile(states.design[i, 0].astype(float))
            start = jax.tree.map(lambda x, i=i: x[i, 0].astype(float), states)
            moments = step_alone(plant, model, start, episodes.actions[i], episodes.disturbances[i])
            stored = np.concatenate([states.qpos[i], states.qvel[i], states.act[i]], -1)
            np.testing.assert_array_equal(np.stack(moments).astype(np.float32), stored)


def test_dataset_says_what_it_holds(small):
    (plant, _), folder = small
    dataset = open_dataset(folder, plant)
    assert (dataset.periods, dataset.steps, dataset.diverged) == (10, 640, 0)
    assert {s: c["episodes"] for s, c in dataset.counts.items()} == {
        "train": 40,
        "calibration": 16,
        "test": 8,
    }
    assert dataset.counts["train"]["valid_steps"] == 400
    assert len(dataset.diverged_episodes().length) == 0
    meta = dataset.meta
    assert (meta["mujoco"], meta["seed"], meta["control_period"]) == (mujoco.__version__, 3, 0.02)
    assert meta["plant"] == {"name": "cart", "sha256": plant.sha256}
    assert meta["design"][0] == {
        "name": "mass", "unit": "kg", "low": 0.5, "high": 2.0, "nominal": 1.0
    }  # fmt: skip
    assert meta["committed"] == meta["shards"] == 5
    root = zarr.open_group(folder, mode="r")
    for path, columns, units in (
        ("train/qpos", ["x"], ["m"]),
        ("test/qvel", ["x.rate"], ["m/s"]),
        ("train/act", ["push.activation"], ["1"]),
        ("train/action", ["push"], ["N"]),
        ("train/disturbance", ["gust"], ["N"]),
        ("train/command", ["place"], ["m"]),
        ("train/design", ["mass"], ["kg"]),
    ):
        attributes = root[path].attrs
        assert (attributes["columns"], attributes["units"]) == (columns, units)
        assert root[path].dtype == np.float32
    manifest = read_manifest(folder)
    assert manifest["kind"] == "dataset" and manifest["inputs"]["plant"]["content"] == plant.sha256
    assert all(link.ok for link in check_chain(folder))
    episodes = dataset.episodes("train")
    np.testing.assert_allclose(episodes.states.time[5], 0.02 * np.arange(11), atol=1e-6)
    assert episodes.states.command.shape == (40, 11, 1)
    assert episodes.actions.min() >= -2 and episodes.actions.max() <= 3
    assert np.abs(episodes.disturbances).max() <= 1


def test_splits_share_no_design_and_no_start(small):
    (plant, _), folder = small
    dataset = open_dataset(folder, plant)
    designs, starts = {}, {}
    for split in ("train", "calibration", "test"):
        states = dataset.episodes(split).states
        designs[split] = set(states.design[:, 0, 0].tolist())
        starts[split] = set(states.qpos[:, 0, 0].tolist())
        assert min(designs[split]) >= 0.5 and max(designs[split]) <= 2.0
    assert {split: len(d) for split, d in designs.items()} == {
        "train": 12, "calibration": 4, "test": 4
    }  # fmt: skip
    # Sobol points: each quarter of the range holds a quarter of each shard's designs.
    first = dataset.episodes("train").states.design[:4, 0, 0]
    assert sorted(np.floor((first - 0.5) / 0.375)) == [0, 1, 2, 3]
    for a, b in (("train", "calibration"), ("train", "test"), ("calibration", "test")):
        assert not designs[a] & designs[b] and not starts[a] & starts[b]


def test_equal_settings_give_equal_bytes_and_another_seed_does_not(small, tmp_path):
    machine, folder = small
    collect(*machine, tmp_path / "again", SMALL, seed=3)
    assert sha256_folder(tmp_path / "again") == sha256_folder(folder)
    collect(*machine, tmp_path / "other", SMALL, seed=4)
    assert sha256_folder(tmp_path / "other") != sha256_folder(folder)


def test_a_plant_without_design_variables_collects_its_nominal_self(tmp_path):
    machine = puck(tmp_path / "puck")
    dataset = collect(*machine, tmp_path / "dataset", dataclasses.replace(SMALL, duration=0.1), 0)
    episodes = dataset.episodes("train")
    assert episodes.states.design.shape == (40, 6, 0) and episodes.states.act.shape == (40, 6, 0)
    assert dataset.symmetry.translation == "xyz" and dataset.symmetry.heading
    assert open_dataset(tmp_path / "dataset", machine.plant).periods == 5


def test_termination_cuts_an_episode(tmp_path):
    machine = cart(tmp_path / "cart", spring=-50.0, sizes=(-1.0, 0.3), limit=2.0)
    settings = dataclasses.replace(SMALL, duration=None)
    dataset = collect(*machine, tmp_path / "dataset", settings, seed=0)
    episodes = dataset.episodes("train")
    assert dataset.periods == 30  # the task's duration
    x, length = np.abs(episodes.states.qpos[..., 0]), episodes.length
    assert 0 < (length < 30).sum() < 40
    assert dataset.counts["train"]["terminated"] == (x[np.arange(40), length] > 2.0).sum()
    assert dataset.counts["train"]["valid_steps"] == length.sum()
    for i, end in enumerate(length):
        assert (x[i, :end] <= 2.0).all()
        assert end == 30 or x[i, end] > 2.0
        np.testing.assert_array_equal(x[i, end:], x[i, end])
        np.testing.assert_allclose(episodes.states.time[i, end:], 0.02 * end, atol=1e-6)
        assert not episodes.actions[i, end:].any()


def test_a_machine_that_diverges_at_once_is_told_after_the_first_shard(tmp_path):
    """The default task calls it terminated, since rates pass 1000 before MuJoCo gives up."""
    (tmp_path / "stiff.xml").write_text(
        '<mujoco><option timestep="0.02"/><worldbody><body><joint name="x" type="slide"'
        ' stiffness="1e7"/><geom size="0.1" mass="0.1"/></body></worldbody>'
        '<actuator><motor joint="x" ctrlrange="-1e4 1e4"/></actuator></mujoco>'
    )
    plant = load_plant(tmp_path / "stiff.xml")
    shown = []
    with pytest.raises(InputError, match=r"16 of the first 16 episodes end within 2 .*diverge"):
        collect(
            plant,
            load_task(plant),
            tmp_path / "dataset",
            SMALL,
            progress=lambda _, done, total: shown.append((done, total)),
        )
    assert shown == [(0, 64)]
    assert not (tmp_path / "dataset").exists()  # the machine that is mended is another one


def test_a_task_that_ends_every_episode_at_once_is_told(tmp_path):
    machine = cart(tmp_path / "cart", spring=1.0, sizes=(-1.0, 0.3), limit=-1.0)
    with pytest.raises(InputError, match=r"end within 2 .*look at `terminated` and at the starts$"):
        collect(*machine, tmp_path / "dataset", SMALL)


def test_diverged_episodes_are_kept_apart_and_counted(tmp_path):
    machine = cart(tmp_path / "cart", spring=-400.0, sizes=(-3.0, 6.5), limit=1e5)
    settings = dataclasses.replace(SMALL, duration=0.4, train=64)
    dataset = collect(*machine, tmp_path / "dataset", settings, seed=0)
    counts, diverged = dataset.counts["train"], dataset.diverged_episodes()
    assert counts["episodes"] + counts["diverged"] == 64
    assert counts["diverged"] > 5 and counts["terminated"] > 2
    everywhere = sum(c["diverged"] for c in dataset.counts.values())
    assert len(diverged.length) == len(diverged.actions) == dataset.diverged == everywhere
    episodes = dataset.episodes("train")
    assert len(episodes.length) == counts["episodes"]
    for part in (episodes, diverged):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(part))
    assert (diverged.length < 20).all()
    # What is kept explains it: the stored start, design and actions diverge again, then and there.
    for i in range(0, len(diverged.length), 4):
        simulator = TruePlant(machine.plant, 1, diverged.states.design[i, :1].astype(float))
        state = jax.tree.map(lambda x, i=i: x[i, :1].astype(float), diverged.states)
        sound = 0
        for action, gust in zip(diverged.actions[i], diverged.disturbances[i], strict=True):
            state = simulator.step(state, action[None], gust[None])
            sound += int(simulator.valid[0])
        assert sound == diverged.length[i]
    # Read without physai, a row without data is NaN, and nothing else is.
    raw = np.asarray(zarr.open_group(tmp_path / "dataset", mode="r")["train/qpos"][:])
    assert np.isnan(raw[:, 0, 0]).sum() == counts["diverged"]
    # Beyond the limit first and beyond all numbers later is an ending, not a divergence.
    assert (np.abs(diverged.states.qpos[..., 0]) <= 1e5).all()


# --- a controller in the loop


class Counting(NamedTuple):
    """Commands 0.01 k in period k, whatever it sees; keeps what it saw."""

    seen: list[np.ndarray]

    def init(self, n: int) -> int:
        return 0

    def step(self, k: int, observation: np.ndarray) -> tuple[int, np.ndarray]:
        self.seen.append(observation)
        return k + 1, np.full((len(observation), 1), 0.01 * (k + 1))


def controlled(**excitation: object) -> RolloutSettings:
    return dataclasses.replace(
        SMALL, train=64, shard_episodes=64, calibration=0, test=0,
        excitation=Excitation(**excitation),  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_late_action_is_that_of_the_period_before(tmp_path):
    machine, pilot = cart(tmp_path / "cart"), Counting([])
    settings = controlled(controlled=(1e-9, 1e-9), delayed=0.5)
    dataset = collect(*machine, tmp_path / "dataset", settings, 0, controller=pilot)
    actions = dataset.episodes("train").actions[..., 0]
    prompt = 0.01 * np.arange(1, 11)
    late = np.concatenate([machine.plant.trim, prompt[:-1]])
    is_late = np.isclose(actions, late, atol=1e-6).all(1)
    assert (is_late | np.isclose(actions, prompt, atol=1e-6).all(1)).all()
    assert 16 < is_late.sum() < 48
    assert dataset.meta["controller"] == "unnamed"


def test_a_controller_sees_the_state_and_the_sensors_noise(tmp_path):
    machine, pilot = cart(tmp_path / "cart"), Counting([])
    dataset = collect(*machine, tmp_path / "dataset", controlled(), 0, controller=pilot)
    states = dataset.episodes("train").states
    truth = np.concatenate([states.qpos, states.qvel], -1)[:, :-1]
    noise = np.stack(pilot.seen, 1) - truth
    # 640 samples each: a standard error of 2.8%.
    np.testing.assert_allclose(noise.std((0, 1)), [0.01, 0.02], rtol=0.12)
    np.testing.assert_allclose(noise.mean((0, 1)), 0.0, atol=0.004)
    residual = dataset.episodes("train").actions[:, 1:, 0] - 0.01 * np.arange(2, 11)
    assert 0.0 < residual.std() < 0.3 * 5.0 / 3.0


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda n: np.full((n, 1), np.nan), "action of the controller: expected finite numbers"),
        (lambda n: np.zeros((n, 2)), r"action of the controller: expected shape \(64, 1\)"),
    ],
)
def test_bad_actions_of_a_controller_are_refused(tmp_path, action, message):
    class Bad(Counting):
        def step(self, k: int, observation: np.ndarray) -> tuple[int, np.ndarray]:
            return k, action(len(observation))

    machine = cart(tmp_path / "cart")
    with pytest.raises(InputError, match=message):
        collect(*machine, tmp_path / "dataset", controlled(), 0, controller=Bad([]))


def test_bad_observations_are_refused(tmp_path):
    plant, task = cart(tmp_path / "cart")
    broken = dataclasses.replace(task, observe=lambda s: jnp.sqrt(-1.0 - jnp.tile(s.qpos, 2)))
    with pytest.raises(InputError, match=r"observation of task.py: expected finite numbers"):
        collect(plant, broken, tmp_path / "dataset", controlled(), 0, controller=Counting([]))


def test_bad_starts_are_refused(tmp_path):
    plant, task = cart(tmp_path / "cart")
    far = dataclasses.replace(
        task, reset=lambda key, d: task.reset(key, d).replace(qpos=jnp.full(1, jnp.inf))
    )
    with pytest.raises(InputError, match="qpos: expected finite numbers, got inf"):
        collect(plant, far, tmp_path / "dataset", SMALL, 0)


# --- stopped and started again


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 3, 4])
def test_an_interrupted_collection_ends_as_if_it_was_not(small, tmp_path, after):
    machine, folder = small
    reports = []

    def stop(stage: str, done: int, total: int) -> None:
        reports.append((stage, done, total))
        if len(reports) > after:
            raise Stop

    out = tmp_path / "dataset"
    with pytest.raises(Stop):
        collect(*machine, out, SMALL, 3, progress=stop)
    assert reports[-1] == ("collect", [0, 16, 32, 40, 56][after], 64)
    with pytest.raises(InputError, match=r"unfinished, \d of 5 shards are there"):
        open_dataset(out)
    # What a kill leaves: a half-written shard under zarr's temporary name and under its own.
    shard = out / "test" / "qpos" / "c" / "0" / "0"
    shard.mkdir(parents=True, exist_ok=True)
    (shard / "0.0123456789abcdef.partial").write_bytes(b"half")
    (shard / "0").write_bytes(b"half")
    (out / ".zarr.json.tmp-999999999-0").write_bytes(b"{")
    collect(*machine, out, SMALL, 3)
    assert sha256_folder(out) == sha256_folder(folder)
    assert {p.name for p in out.iterdir()} == {p.name for p in folder.iterdir()}


WORK = """
import sys
from physai.plant import load_plant
from physai.task import load_task
from physai.rollout.collect import RolloutSettings, collect
plant = load_plant(sys.argv[1])
settings = RolloutSettings(
    train=160, calibration=16, test=16, shard_episodes=8, designs_per_shard=4, duration=0.2
)
print("loaded", flush=True)
collect(plant, load_task(plant), sys.argv[2], settings, 5, progress=lambda *a: print(a, flush=True))
print("done", flush=True)
"""


def test_kill_9_at_random_moments_leaves_the_same_bytes(tmp_path):
    machine = cart(tmp_path / "cart", spring=-400.0, sizes=(-3.0, 6.5), limit=1e5)
    arguments = [sys.executable, "-c", WORK, str(tmp_path / "cart")]

    def start(out: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*arguments, str(tmp_path / out)], stdout=subprocess.PIPE, text=True
        )

    # Moments by the lines it has printed and a delay, since seconds mean little on a busy machine.
    chance, kills = random.Random(), []
    for lines in (1, chance.randint(2, 8), chance.randint(2, 8)):
        delay = chance.uniform(0.0, 0.05 if lines > 1 else 1.0)
        process = start("killed")
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills.append((lines, delay, process.returncode))
    assert any(code == -signal.SIGKILL for *_, code in kills)
    last = start("killed")
    assert "done" in last.communicate()[0]
    whole = start("whole")
    assert "done" in whole.communicate()[0]
    assert sha256_folder(tmp_path / "killed") == sha256_folder(tmp_path / "whole"), kills
    dataset = open_dataset(tmp_path / "killed", machine.plant)
    assert dataset.counts["train"]["diverged"] > 10
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (12000, 12000))\n"


def test_a_full_disk_is_said_and_can_be_continued(tmp_path):
    """A limit on the size of files is refused by the kernel in the same place as a full disk."""
    cart(tmp_path / "cart")
    work = WORK.replace("shard_episodes=8", "shard_episodes=80").replace("0.2", "1.0")
    command = [sys.executable, "-c", FULL + work, str(tmp_path / "cart"), str(tmp_path / "full")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode and "InputError: cannot write" in done.stderr, done.stderr[-2000:]
    command[2] = work
    assert "done" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    command[-1] = str(tmp_path / "whole")
    subprocess.run(command, capture_output=True, check=True)
    assert sha256_folder(tmp_path / "full") == sha256_folder(tmp_path / "whole")


def test_a_finished_dataset_is_returned_as_it_is(small):
    machine, folder = small
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    dataset = collect(*machine, folder, SMALL, 3)
    assert dataset.counts["test"]["episodes"] == 8
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_other_settings_are_refused(small, tmp_path):
    machine, folder = small
    other = dataclasses.replace(SMALL, train=80)
    with pytest.raises(InputError, match=r"settings train 40, expected 80.*choose|Choose"):
        collect(*machine, folder, other, 3)
    with pytest.raises(InputError, match="seed 3, expected 4"):
        collect(*machine, folder, SMALL, 4)
    with pytest.raises(InputError, match="plant sha256"):
        collect(*cart(tmp_path / "cart", spring=6.0), folder, SMALL, 3)
    with pytest.raises(InputError, match="controller None, expected unnamed"):
        collect(*machine, folder, SMALL, 3, controller=Counting([]))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(InputError, match=r"expected a dataset with a zarr.json"):
        collect(*machine, tmp_path / "photos", SMALL, 3)
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_two_collections_into_one_folder_are_refused(small):
    machine, folder = small
    with only_writer(folder), pytest.raises(InputError, match="another process is collecting"):
        collect(*machine, folder, SMALL, 3)


@pytest.mark.parametrize(
    "bad",
    [
        {"train": 0},
        {"test": -1},
        {"designs_per_shard": 3},
        {"duration": 0.0},
        {"shard_episodes": 0},
    ],
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(InputError, match=f"{next(iter(bad))}: expected"):
        RolloutSettings(**bad)


def test_a_duration_below_the_control_period_is_refused(small, tmp_path):
    machine, _ = small
    settings = dataclasses.replace(SMALL, duration=0.005)
    with pytest.raises(InputError, match=r"at least one control period, 0.02 s, got 0.005 s"):
        collect(*machine, tmp_path / "dataset", settings, 0)


# --- reading with suspicion


@pytest.fixture
def copy(small, tmp_path) -> tuple[Machine, Path]:
    machine, _ = small
    collect(*machine, tmp_path / "dataset", SMALL, 3)
    return machine, tmp_path / "dataset"


def reseal(machine: Machine, folder: Path) -> None:
    """Write a new manifest, as a tool would that made such a dataset."""
    (folder / "manifest.json").unlink()
    write_manifest(folder, "dataset", {"plant": machine.plant}, SMALL, 3)


def edit(folder: Path, **changes: object) -> None:
    document = json.loads((folder / "zarr.json").read_text())
    document["attributes"].update(changes)
    (folder / "zarr.json").write_text(json.dumps(document))


def test_a_truncated_chunk_is_found(copy):
    (plant, _), folder = copy
    chunk = folder / "train" / "qpos" / "c" / "1" / "0" / "0"
    os.truncate(chunk, chunk.stat().st_size // 2)
    with pytest.raises(InputError, match="train/qpos/c/1/0/0 changed"):
        open_dataset(folder, plant)


def test_a_missing_chunk_is_found(copy):
    """zarr itself would read it as fill values, without a word."""
    (plant, _), folder = copy
    (folder / "calibration" / "action" / "c" / "0" / "0" / "0").unlink()
    with pytest.raises(InputError, match="calibration/action/c/0/0/0 missing"):
        open_dataset(folder, plant)


def test_edited_attributes_are_found(copy):
    (plant, _), folder = copy
    edit(folder, seed=99)
    with pytest.raises(InputError, match=r"zarr.json changed"):
        open_dataset(folder, plant)


def test_nan_in_a_dataset_is_found(copy):
    machine, folder = copy
    array = zarr.open_group(folder, mode="r+")["train/qvel"]
    array[7, 2, 0] = np.nan
    reseal(machine, folder)
    dataset = open_dataset(folder, machine.plant)
    with pytest.raises(InputError, match=r"train/qvel: expected finite numbers.*episode 7"):
        dataset.episodes("train")
    assert len(dataset.episodes("test").length) == 8


def test_a_wrong_shape_in_a_dataset_is_found(copy):
    machine, folder = copy
    zarr.open_group(folder, mode="r+")["train/qpos"].resize((40, 5, 1))
    reseal(machine, folder)
    expected = r"train/qpos: expected shape \(40, 11, 1\), got \(40, 5, 1\)"
    with pytest.raises(InputError, match=expected):
        open_dataset(folder, machine.plant)


def test_a_missing_array_is_found(copy):
    machine, folder = copy
    (folder / "test" / "length" / "zarr.json").unlink()
    reseal(machine, folder)
    with pytest.raises(InputError, match=r"test/length: expected shape \(8,\), got None"):
        open_dataset(folder, machine.plant)


def test_a_dataset_of_another_plant_is_refused(small, tmp_path):
    (plant, _), folder = small
    other = cart(tmp_path / "cart", spring=6.0).plant
    expected = f"plant files: the dataset has {plant.sha256[:12]}, expected {other.sha256[:12]}"
    with pytest.raises(InputError, match=expected):
        open_dataset(folder, other)


def test_a_dataset_of_another_design_space_is_refused(small):
    (plant, _), folder = small
    wider = dataclasses.replace(plant, design=(dataclasses.replace(plant.design[0], high=3.0),))
    with pytest.raises(InputError, match=r"design space: the dataset has .*2.0.*expected .*3.0"):
        open_dataset(folder, wider)


def test_a_dataset_of_another_mujoco_is_refused(copy):
    machine, folder = copy
    edit(folder, mujoco="3.9.0")
    reseal(machine, folder)
    expected = f"MuJoCo: the dataset has 3.9.0, expected {mujoco.__version__}"
    with pytest.raises(InputError, match=expected):
        open_dataset(folder)


def test_what_is_no_dataset_is_refused(small, tmp_path):
    (plant, _), folder = small
    with pytest.raises(InputError, match=r"expected a dataset with a zarr.json"):
        open_dataset(tmp_path)
    zarr.create_group(tmp_path / "other")
    with pytest.raises(InputError, match="another zarr store"):
        open_dataset(tmp_path / "other")
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(InputError, match="expected JSON"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match="expected one of train, calibration, test, got 'dev'"):
        open_dataset(folder, plant).episodes("dev")  # type: ignore[arg-type]
