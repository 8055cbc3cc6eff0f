"""Gymnasium's and Stable-Baselines3's own checks of every plant, and what both build on."""

from __future__ import annotations

import contextlib
import warnings
from types import SimpleNamespace

import gymnasium
import mujoco.viewer
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import physai.gym
from physai.env import view
from physai.env.single import PlantEnv
from physai.env.vector import PlantVectorEnv
from physai.errors import InputError
from physai.plant import load_plant, plant_names
from physai.report.inspection import untrained
from physai.rollout.symmetry import Symmetry

PHYSICAL = ".*we recommend using a symmetric and normalized space"
"""Channels are in physical units: volts, shares of a thrust. `RescaleAction` is Gymnasium's way."""


def model_of(name: str, dynamics: str):
    """Return None for the true simulator, else a surrogate with random weights."""
    if dynamics == "true":
        return None
    return untrained(load_plant(name), Symmetry())


@pytest.mark.parametrize("dynamics", ["true", "learned"])
@pytest.mark.parametrize("name", plant_names())
def test_gymnasiums_check_is_clean(name: str, dynamics: str) -> None:
    env_id = f"physai.gym:{physai.gym.env_id(name)}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", PHYSICAL)
        warnings.filterwarnings("ignore", ".*is out of date.*v5")
        env = gymnasium.make(env_id, surrogate=model_of(name, dynamics))
        assert env.spec is not None
        periods = env.get_wrapper_attr("task").duration / load_plant(name).control_period
        assert env.spec.max_episode_steps == round(periods)
        check_env(env.unwrapped)
    env.close()


@pytest.mark.parametrize("dynamics", ["true", "learned"])
@pytest.mark.parametrize("name", plant_names())
def test_stable_baselines_check_is_clean(name: str, dynamics: str) -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker", reason="extra sb3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*use a symmetric and normalized Box action space")
        checker.check_env(PlantEnv(name, model_of(name, dynamics)))


def test_no_warning_sends_users_to_another_package() -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        physai.gym.quiet()
        gymnasium.make("physai.gym:Hopper-v0").close()
    assert [str(w.message) for w in found] == []


@pytest.mark.parametrize(("limit", "steps"), [({}, 250), ({"max_episode_steps": 7}, 7)])
def test_the_spec_tells_the_limit(limit, steps) -> None:
    assert gymnasium.make("physai.gym:Quadrotor-v0", **limit).spec.max_episode_steps == steps
    many = gymnasium.make_vec("physai.gym:Quadrotor-v0", 2, **limit)
    assert many.spec is not None and many.spec.max_episode_steps == steps
    forever = gymnasium.make("physai.gym:Quadrotor-v0", duration=np.inf)
    assert forever.spec is not None and forever.spec.max_episode_steps is None


# --- a window


class Viewer:
    """Stands for MuJoCo's window."""

    def __init__(self, model, data, **_) -> None:
        self.data, self.shown, self.open = data, [], True

    def is_running(self) -> bool:
        return self.open

    def lock(self):
        return contextlib.nullcontext()

    def sync(self) -> None:
        self.shown.append(self.data.qpos.copy())

    def close(self) -> None:
        self.open = False


@pytest.mark.parametrize("many", [False, True])
def test_a_window_shows_every_reset_and_step_in_real_time(monkeypatch, many: bool) -> None:
    viewers, waited = [], []

    def launch(*arguments, **options) -> Viewer:
        viewers.append(Viewer(*arguments, **options))
        return viewers[-1]

    monkeypatch.setattr(mujoco.viewer, "launch_passive", launch)
    monkeypatch.setattr("glfw.init", lambda: True)
    clock = SimpleNamespace(sleep=waited.append, monotonic=lambda: 100.0)
    monkeypatch.setattr(view, "time", clock)
    if many:
        env = PlantVectorEnv("cartpole", 2, render_mode="human")
    else:
        env = PlantEnv("cartpole", render_mode="human")
    env.reset(seed=0)
    states = [env.step(np.zeros(env.action_space.shape))[-1]["state"]["qpos"] for _ in range(3)]
    (viewer,) = viewers
    assert len(viewer.shown) == 4
    last = np.asarray(states[-1])
    np.testing.assert_array_equal(viewer.shown[-1], last[0] if many else last)
    assert waited == pytest.approx([0.0, 0.01, 0.02, 0.03])  # the clock stands still
    viewer.open = False  # the user closes it
    env.step(np.zeros(env.action_space.shape))
    assert len(viewer.shown) == 4 and env.render() is None
    env.close()


def test_without_a_screen_a_window_is_refused(monkeypatch) -> None:
    monkeypatch.setattr("glfw.init", lambda: False)
    env = PlantEnv("cartpole", render_mode="human")
    with pytest.raises(InputError, match="needs a screen, and there is none"):
        env.reset(seed=0)


# --- Stable-Baselines3


@pytest.mark.parametrize("dynamics", ["true", "learned"])
def test_stable_baselines_trains_on_the_vector_environment(dynamics: str) -> None:
    sb3 = pytest.importorskip("stable_baselines3", reason="extra sb3")
    from physai.env.stable_baselines import stable_baselines_env

    model = model_of("quadrotor", dynamics)
    envs = stable_baselines_env("quadrotor", 4, model, duration=0.1)
    learner = sb3.PPO("MlpPolicy", envs, n_steps=16, batch_size=32, seed=0, device="cpu")
    learner.learn(64)
    assert learner.num_timesteps == 64


def test_it_ends_episodes_as_stable_baselines_expects() -> None:
    pytest.importorskip("stable_baselines3", reason="extra sb3")
    from physai.env.stable_baselines import stable_baselines_env

    envs = stable_baselines_env("quadrotor", 3, duration=0.1)
    plain = PlantVectorEnv("quadrotor", 3, duration=0.1, autoreset_mode=AutoresetMode.SAME_STEP)
    envs.seed(5)
    np.testing.assert_array_equal(envs.reset(), plain.reset(seed=5)[0])
    low, high = plain.single_action_space.low, plain.single_action_space.high
    for k in range(5):
        share = np.full((3, 4), 0.2 * k - 0.5)
        seen, reward, over, infos = envs.step(share)
        expected, paid, _, truncated, info = plain.step(low + 0.5 * (share + 1) * (high - low))
        np.testing.assert_allclose(seen, expected, atol=1e-6)
        np.testing.assert_allclose(reward, paid, rtol=1e-5)
        np.testing.assert_array_equal(over, truncated)
    assert over.all() and all(i["TimeLimit.truncated"] for i in infos)
    np.testing.assert_allclose(infos[1]["terminal_observation"], info["final_obs"][1], atol=1e-6)
    with pytest.raises(InputError, match="SAME_STEP"):
        stable_baselines_env("quadrotor", 3, autoreset_mode="NextStep")
