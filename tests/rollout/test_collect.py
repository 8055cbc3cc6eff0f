"""Episodes are collected as settings say, with or without a controller."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
import zarr
from rails import (
    SMALL,
    Counting,
    cart,
    puck,
    step_alone,
)

from physai.errors import InputError
from physai.plant import load_plant
from physai.provenance import check_chain, read_manifest, sha256_folder
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.dataset import open_dataset
from physai.rollout.engine import TruePlant
from physai.rollout.excitation import (
    Excitation,
)
from physai.task import load_task


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
