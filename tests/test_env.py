"""Gymnasium environments: the interface, and the physics behind it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import RecordEpisodeStatistics, RescaleAction
from machines_by_hand import at_rest, pendulum, turned
from surrogates import untrained_surrogate

from physai.env.model import Model, batch_task
from physai.env.single import PlantEnv
from physai.errors import InputError
from physai.plant import load_plant
from physai.rollout.engine import TruePlant
from physai.state import Array, State, plus, rotate
from physai.surrogate.store import save_surrogate
from physai.task import design_aware, load_task

ID = "physai.gym:Quadrotor-v0"
STEPS = 250  # 5 s at 50 Hz
PLANT = load_plant("quadrotor")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PointMass:
    """A learned model's stand-in: the quadrotor without air, whose attitude follows its rates."""

    mass: jax.Array
    gravity: jax.Array

    def step(self, state: State, action: Array, disturbance: Array) -> State:
        h = 0.02
        lag = jnp.exp(-h / 0.05)
        act = action + (state.act - action) * lag
        up = rotate(state.qpos[..., 3:7], jnp.array([0.0, 0.0, 13.0]))
        force = up * act.sum(-1)[..., None] + disturbance
        acceleration = force / self.mass + jnp.array([0.0, 0.0, -1.0]) * self.gravity
        velocity = state.qvel.at[..., :3].add(h * acceleration)
        qpos = plus(PLANT.joints, state.qpos, h * velocity)
        return state.replace(qpos=qpos, qvel=velocity, act=act, time=state.time + h)


def point_mass(gravity: float = 9.81) -> PointMass:
    return PointMass(jnp.float32(1.325), jnp.float32(gravity))


@pytest.fixture(scope="module")
def surrogate_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("surrogate")
    save_surrogate(folder, untrained_surrogate(PLANT), PLANT, {})
    return folder


@pytest.fixture(params=["true", "learned", "surrogate folder"])
def surrogate(request: pytest.FixtureRequest, surrogate_folder: Path) -> Model | str | None:
    choices = {"true": None, "learned": point_mass(), "surrogate folder": str(surrogate_folder)}
    return choices[request.param]


def fly(env: gymnasium.Env, seed: int, steps: int = 20) -> tuple[np.ndarray, list[float]]:
    observation, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    observations, rewards = [observation], []
    for _ in range(steps):
        observation, reward, *_ = env.step(env.action_space.sample())
        observations.append(observation)
        rewards.append(float(reward))
    return np.array(observations), rewards


@pytest.mark.parametrize("sensor_noise", [False, True])
def test_check_env_is_clean(surrogate, sensor_noise) -> None:
    env = gymnasium.make(
        ID, surrogate=surrogate, sensor_noise=sensor_noise, render_mode="rgb_array"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    env.close()


def test_spaces_are_the_ranges_of_task_and_plant() -> None:
    env = PlantEnv(PLANT)
    task = load_task(PLANT)
    np.testing.assert_array_equal(
        env.observation_space.high, np.float32([c.high for c in task.observations])
    )
    np.testing.assert_array_equal(env.action_space.low, np.zeros(4, np.float32))
    assert env.observation_space.dtype == env.action_space.dtype == np.float32
    assert env.metadata["render_fps"] == 50


def test_one_seed_is_one_trajectory(surrogate) -> None:
    first, second = (gymnasium.make(ID, surrogate=surrogate, sensor_noise=True) for _ in range(2))
    observations, rewards = fly(first, seed=3)
    fly(first, seed=5)  # what came before must not matter
    for env in (first, second):
        again, same_rewards = fly(env, seed=3)
        np.testing.assert_array_equal(again, observations)
        assert same_rewards == rewards
    assert not np.allclose(fly(first, seed=4)[0][0], observations[0])
    following = first.reset()[0]
    assert not np.allclose(following, fly(first, seed=4)[0][0])


def test_disturbances_and_noise_leave_the_start_alone() -> None:
    settings = [(False, False), (True, False), (False, True)]
    envs = [PlantEnv(PLANT, disturbances=d, sensor_noise=n) for d, n in settings]
    flights = [fly(env, seed=0) for env in envs]
    starts = [env.reset(seed=0)[1]["state"] for env in envs]
    for start in starts[1:]:
        np.testing.assert_array_equal(start["qpos"], starts[0]["qpos"])
    np.testing.assert_array_equal(flights[0][0][0], flights[1][0][0])
    assert not np.allclose(flights[0][0][-1], flights[1][0][-1], atol=1e-4)
    # Noise is on the observation only: the reward, which sees the state, is the same to the bit.
    assert flights[0][1] == flights[2][1]
    difference = flights[2][0] - flights[0][0]
    std = envs[2].task.observation_noise
    inside = np.abs(flights[0][0]) < envs[0].observation_space.high - 6 * std
    scaled = (difference / std)[inside]
    # About 300 standard normal draws: their standard deviation is within 5 / sqrt(2 n) of 1.
    assert abs(scaled.std() - 1.0) < 5.0 / np.sqrt(2 * scaled.size)


def test_true_env_is_a_bare_mujoco_loop() -> None:
    design = [0.2, 0.4, 15.0, 0.06]
    env = PlantEnv("quadrotor", disturbances=False)
    _, info = env.reset(seed=1, options={"design": design})
    model = PLANT.compile(design)
    data = mujoco.MjData(model)
    for name in ("qpos", "qvel", "act"):
        getattr(data, name)[:] = info["state"][name]
    np.testing.assert_array_equal(info["state"]["design"], design)
    rng = np.random.default_rng(0)
    before = State(**info["state"])
    for _ in range(30):
        action = rng.uniform(0.0, 1.0, 4).astype(np.float32)
        observation, reward, _, _, info = env.step(action)
        data.ctrl[list(PLANT.action_ids)] = action
        mujoco.mj_step(model, data, nstep=5)
        after = State(**{**info["state"], "qpos": data.qpos.copy(), "qvel": data.qvel.copy()})
        np.testing.assert_array_equal(info["state"]["qpos"], data.qpos)
        # float32 against float32 in another order of operations: a few units in the last place
        space = env.observation_space
        expected = np.clip(env.task.observe(after), space.low, space.high)
        np.testing.assert_allclose(observation, expected, rtol=1e-5, atol=1e-5)
        assert reward == pytest.approx(float(env.task.reward(before, action, after)), rel=1e-5)
        before = State(**info["state"])
    assert info["state"]["time"] == pytest.approx(0.6)


def test_learned_env_is_a_loop_over_its_model() -> None:
    model = point_mass()
    env = PlantEnv(PLANT, model, disturbances=False)
    _, info = env.reset(seed=1)
    state = jax.tree.map(jnp.float32, State(**info["state"]))
    for _ in range(30):
        state = model.step(state, jnp.full(4, 0.3), jnp.zeros(3))
        info = env.step(np.full(4, 0.3, np.float32))[4]
    np.testing.assert_allclose(info["state"]["qpos"], state.qpos, rtol=1e-4, atol=1e-5)
    assert "domain_score" not in info


def test_hover_keeps_its_altitude_and_no_thrust_falls(surrogate) -> None:
    if isinstance(surrogate, str):
        surrogate = point_mass(gravity=1.62)  # on the Moon the same throttle climbs
    env = PlantEnv(PLANT, surrogate, disturbances=False)
    env.reset(options={"state": at_rest()})
    for _ in range(50):
        info = env.step(PLANT.trim)[4]
    # The trim is exact to 4e-6: 0.02 mm in a second. On the Moon 9.81 - 1.62 m/s^2 are left.
    lunar = surrogate is not None and float(surrogate.gravity) < 5.0
    climb = 0.5 * 8.19 if lunar else 0.0
    assert info["state"]["qpos"][2] == pytest.approx(climb, rel=0.03, abs=1e-3)
    env.reset(options={"state": at_rest(act=np.zeros(4))})
    for _ in range(20):
        info = env.step(np.zeros(4))[4]
    # 0.4 s of free fall; drag and the step's first-order error take less than 6%.
    gravity = 1.62 if lunar else 9.81
    assert info["state"]["qpos"][2] == pytest.approx(-0.5 * gravity * 0.4**2, rel=0.06)


def test_actions_beyond_their_range_saturate(surrogate) -> None:
    env = PlantEnv(PLANT, surrogate, disturbances=False)
    outcomes = []
    for action in (np.full(4, 1.0), np.full(4, 7.0)):
        env.reset(options={"state": at_rest()})
        observation, reward, *_ = env.step(action)
        outcomes.append((observation, reward))
    np.testing.assert_array_equal(outcomes[0][0], outcomes[1][0])
    assert outcomes[0][1] == outcomes[1][1]


@pytest.mark.parametrize(
    ("action", "text"),
    [
        ([0.2, np.nan, 0.2, 0.2], r"action rotor_2: expected 0 to 1 1, got nan"),
        ([0.2, 0.2, 0.2, -np.inf], r"action rotor_4: .*got -inf"),
        ([0.2, 0.2], r"expected shape \(4,\) \(rotor_1, .*got \(2,\)"),
        ([[0.2] * 4], r"expected shape \(4,\).*got \(1, 4\)"),
        (None, r"expected shape \(4,\)|expected 4 numbers"),
        ("up", r"expected 4 numbers, got 'up'"),
    ],
)
def test_bad_actions_are_refused(surrogate, action, text) -> None:
    env = PlantEnv(PLANT, surrogate)
    env.reset(seed=0)
    with pytest.raises(InputError, match=text):
        env.step(action)


def test_unknown_and_foreign_surrogates_are_refused(surrogate_folder, tmp_path) -> None:
    with pytest.raises(InputError, match=r"no folder 'nowhere'.*physai fit"):
        PlantEnv(PLANT, "nowhere")
    with pytest.raises(InputError, match=r"expected a surrogate folder"):
        PlantEnv(PLANT, tmp_path)
    other = replace(PLANT, sha256="0" * 64, name="other")
    with pytest.raises(InputError, match=r"fitted to plant quadrotor .*not to other"):
        PlantEnv(other, surrogate_folder, task=load_task(PLANT))
    with pytest.raises(InputError, match=r"not a model of plant pendulum \(nq 1, .*its step fails"):
        PlantEnv(*pendulum(tmp_path), surrogate=untrained_surrogate(PLANT))
    with pytest.raises(InputError, match=r"not a model of plant quadrotor"):
        PlantEnv(PLANT, TruePlant(PLANT, 1))  # no pytree: pure JAX only


def test_a_users_folder_and_observations_beyond_their_range(tmp_path) -> None:
    env = PlantEnv(*pendulum(tmp_path))
    observation, info = env.reset(seed=0)
    assert info["state"]["qpos"] == [1.0]
    np.testing.assert_array_equal(observation, np.float32([0.5]))  # the sensor saturates
    truncated = [env.step(np.zeros(1))[3] for _ in range(5)]
    assert truncated == [False] * 4 + [True]  # 0.1 s at the default 0.02 s


def test_a_state_whose_quaternion_is_nearly_unit_is_that_of_the_unit_one(surrogate) -> None:
    """What was typed with three digits is normalised; what is unit to rounding is not touched."""
    env = PlantEnv(PLANT, surrogate, disturbances=False)
    exact = np.array([np.cos(0.4), np.sin(0.4), 0.0, 0.0])
    expected = env.reset(options={"state": turned(exact)})[0], *env.step(PLANT.trim)[:2]
    observation, info = env.reset(options={"state": turned(1.0009 * exact)})
    assert np.linalg.norm(info["state"]["qpos"][3:7]) == pytest.approx(1.0, abs=1e-15)
    for ours, theirs in zip((observation, *env.step(PLANT.trim)[:2]), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    single = np.float32(exact).astype(float)
    kept = env.reset(options={"state": turned(single)})[1]["state"]["qpos"][3:7]
    np.testing.assert_array_equal(kept, single)


def test_an_infos_state_is_a_start(surrogate) -> None:
    env = PlantEnv(PLANT, surrogate, disturbances=False)
    bounds = [0.34, 0.6, 18.0, 0.1]  # which float32 rounds
    env.reset(seed=0, options={"design": bounds})
    for _ in range(5):
        info = env.step(PLANT.trim)[4]
    onward = [env.step(PLANT.trim)[0] for _ in range(5)]
    env.reset(options={"state": State(**info["state"])})
    again = [env.step(PLANT.trim)[0] for _ in range(5)]
    np.testing.assert_array_equal(again, onward)


def test_lost_is_terminated_and_valid(surrogate) -> None:
    env = PlantEnv(PLANT, surrogate)
    env.reset(options={"state": at_rest(height=7.9, qvel=np.array([0, 0, 10.0, 0, 0, 0]))})
    *_, terminated, truncated, info = env.step(PLANT.trim)  # 8.1 m from the command; 8 m is lost
    assert terminated and not truncated and info["valid"]


def test_diverged_is_terminated_and_not_valid() -> None:
    fast = at_rest(qvel=np.full(6, 1e7))
    for surrogate, start in ((None, fast), (point_mass(), fast), (point_mass(np.nan), at_rest())):
        env = PlantEnv(PLANT, surrogate)
        env.reset(options={"state": start})
        observation, reward, terminated, _, info = env.step(PLANT.trim)
        assert terminated and not info["valid"]
        assert observation in env.observation_space and np.isfinite(reward)
        np.testing.assert_array_equal(info["state"]["qpos"], at_rest().qpos)
        assert env.reset(seed=0)[1]["valid"]


def test_duration_truncates_and_wrappers_work(surrogate) -> None:
    env = RescaleAction(
        RecordEpisodeStatistics(gymnasium.make(ID, surrogate=surrogate, disturbances=False)),
        np.float32(-1.0),
        np.float32(1.0),
    )
    env.reset(options={"state": at_rest()})
    total = 0.0
    for k in range(1, STEPS + 1):
        action = (2.0 * PLANT.trim - 1.0).astype(np.float32)
        _, reward, terminated, truncated, info = env.step(action)
        total += float(reward)
        assert not terminated and truncated == (k == STEPS)
    assert info["episode"]["l"] == STEPS
    assert info["episode"]["r"] == pytest.approx(total, rel=1e-5)


def test_the_limit_can_be_moved() -> None:
    short = gymnasium.make(ID, max_episode_steps=3)
    short.reset(seed=0)
    assert [short.step(PLANT.trim.astype(np.float32))[3] for _ in range(3)] == [False, False, True]
    endless = PlantEnv(PLANT, duration=float("inf"))
    endless.reset(options={"state": at_rest()})
    assert not any(endless.step(PLANT.trim)[3] for _ in range(STEPS + 10))


def test_sync_vector_env_stacks_it() -> None:
    envs = gymnasium.make_vec(ID, num_envs=2, vectorization_mode="sync")
    observation, info = envs.reset(seed=0)
    single, _ = gymnasium.make(ID).reset(seed=1)
    np.testing.assert_array_equal(observation[1], single)
    assert info["state"]["qpos"].shape == (2, 7)
    envs.close()


def test_domain_score_is_that_of_the_surrogate() -> None:
    surrogate = untrained_surrogate(PLANT)
    env = PlantEnv(PLANT, surrogate, disturbances=False)
    _, start = env.reset(seed=0)
    info = env.step(PLANT.trim)[4]
    x = surrogate.raw_inputs(jax.tree.map(jnp.float32, State(**start["state"])), PLANT.trim)
    assert info["domain_score"] == pytest.approx(float(surrogate.domain.score(x)), rel=1e-5)
    assert start["valid"] and "domain_score" not in start


def test_another_task_of_the_same_plant() -> None:
    env = PlantEnv(PLANT, task=design_aware(PlantEnv(PLANT).task, PLANT))
    observation, _ = env.reset(seed=0, options={"design": [0.34, 0.0, 13.0, 0.03]})
    assert observation.shape == (23,)
    np.testing.assert_allclose(observation[-4:], [1.0, -1.0, -1 / 9, -1.0], atol=1e-6)


def test_nothing_compiles_after_the_first_step(surrogate, caplog) -> None:
    def use(env: PlantEnv) -> None:
        env.reset(seed=0)
        env.step(PLANT.trim)
        env.reset(options={"design": [0.3, 0.1, 12.0, 0.04]})
        for action in (PLANT.trim, PLANT.trim.astype(np.float32), list(PLANT.trim)):
            env.step(action)
        env.reset(options={"state": at_rest()})
        env.step(PLANT.trim)

    env = PlantEnv("quadrotor", surrogate)
    env.reset(seed=0)
    env.step(PLANT.trim)
    with jax.log_compiles(), caplog.at_level(logging.DEBUG, logger="jax"):
        use(env)
        if not isinstance(surrogate, str):  # loading a folder is not free, stepping it is
            use(PlantEnv("quadrotor", surrogate))
        compiled = [m for m in caplog.messages if "ompil" in m]
        assert compiled == []
        jax.jit(lambda x: x + 1.5)(1.0)
        assert any("ompil" in m for m in caplog.messages)  # a compilation would be seen
    assert batch_task(env.task) is batch_task(PlantEnv("quadrotor").task)


def test_images_show_the_machine_move(surrogate) -> None:
    env = PlantEnv(PLANT, surrogate, render_mode="rgb_array", width=160, height=120)
    tilted = np.array([0.0, 0.0, 0.0, np.cos(0.4), np.sin(0.4), 0.0, 0.0])
    images = []
    longer = np.array([0.34, 0.0, 13.0, 0.05])
    for state in (at_rest(), at_rest(), at_rest(qpos=tilted), at_rest(design=longer)):
        env.reset(options={"state": state})
        image = env.render()
        assert image is not None and image.shape == (120, 160, 3) and image.dtype == np.uint8
        images.append(image.astype(int))
    changed = [np.abs(image - images[0]).max(axis=2) > 30 for image in images[1:]]
    assert changed[0].sum() == 0  # the same configuration, the same image
    assert 100 < changed[1].sum() < 0.5 * changed[1].size  # the machine, not the whole picture
    assert changed[2].any()  # longer arms
    env.reset(options={"state": at_rest(qvel=np.array([0.0, 0.0, 0.0, 3.0, 0.0, 0.0]))})
    for _ in range(10):
        env.step(PLANT.trim)  # rolls by 0.6 rad
    assert (np.abs(env.render() - images[0]).max(axis=2) > 30).any()  # type: ignore[operator]
    env.close()
    env.close()


def test_importing_the_ids_compiles_nothing() -> None:
    code = """
import os, mujoco
environment = dict(os.environ)
mujoco.MjSpec.from_file = None
import physai.gym, gymnasium, jax
from jax._src import xla_bridge
assert gymnasium.spec("Quadrotor-v0").kwargs == {"plant": "quadrotor"}
assert not xla_bridge.backends_are_initialized(), "a jax array was made"
assert dict(os.environ) == environment
assert physai.gym.env_id("flexible_wing") == "FlexibleWing-v0"
"""
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    subprocess.run(command, check=True, env=os.environ)
