"""The true plant at scale steps as MuJoCo does."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from rails import (
    cart,
    puck,
    step_alone,
)

from physai.errors import InputError
from physai.plant import Plant
from physai.rollout.engine import TruePlant
from physai.state import State


def random_state(plant: Plant, n: int, rng: np.random.Generator) -> State:
    model = plant.model
    qpos = rng.normal(size=(n, model.nq))
    for row in qpos:
        mujoco.mj_normalizeQuat(model, row)
    act = rng.uniform(0, 0.5, (n, model.na))
    return State(
        qpos, rng.normal(size=(n, model.nv)), act, np.zeros(n), np.zeros((n, 0)), np.zeros((n, 0))
    )


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
