"""The functional environment: the single one's step, under every transformation of JAX."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sledges import Slider, sledge, slider

from physai.env.functional import EnvState, functional_env
from physai.env.single import PlantEnv
from physai.errors import InputError
from physai.plant import Plant
from physai.state import State
from physai.task import Task, load_task


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    return sledge(tmp_path_factory.mktemp("plants") / "sledge")


@pytest.fixture(scope="module")
def task(plant: Plant) -> Task:
    return load_task(plant)


def fly(env, start: EnvState, actions: jax.Array):
    def period(state, action):
        state, *rest = env.step(state, action)
        return state, (state, *rest)

    return jax.lax.scan(period, start, actions)[1]


def test_it_flies_as_the_single_environment(plant, task) -> None:
    """Without disturbances, from the same start: observation, reward and both flags."""
    env = functional_env(slider(), plant, task, disturbances=False)
    single = PlantEnv(plant, slider(), disturbances=False)
    start = jax.jit(env.reset)(jax.random.key(1))
    observation, _ = single.reset(options={"state": start.state})
    np.testing.assert_allclose(env.observe(start), observation, rtol=1e-6)
    actions = np.random.default_rng(0).uniform(-12, 12, (30, 1)).astype(np.float32)
    _, *flown = jax.jit(lambda s, a: fly(env, s, a))(start, actions)
    for k, action in enumerate(actions):
        *expected, _ = single.step(action)
        for ours, theirs in zip(flown, expected, strict=True):
            np.testing.assert_allclose(ours[k], theirs, rtol=1e-4, atol=1e-5)
    assert flown[3][-1] and not flown[3][-2]  # 0.6 s at 50 Hz


def test_a_batch_is_a_loop(plant, task) -> None:
    env = functional_env(slider(), plant, task, sensor_noise=True)
    keys, actions = jax.random.split(jax.random.key(0), 6), jnp.ones((6, 10, 1))
    together = jax.jit(jax.vmap(lambda k, a: fly(env, env.reset(k), a)))(keys, actions)
    for i in range(6):
        state = env.reset(keys[i])
        for k in range(10):
            state, observation, reward, *_ = env.step(state, actions[i, k])
            np.testing.assert_allclose(observation, together[1][i, k], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(reward, together[2][i, k], rtol=1e-5, atol=1e-6)
    assert len(np.unique(np.asarray(together[1][:, 0, 0]))) == 6


def test_disturbances_are_the_process_of_the_plant(plant, task) -> None:
    """Mean 0, standard deviation 1 at the start and later, correlation exp(-h / tau) a period."""
    env = functional_env(slider(), plant, task)
    keys = jax.random.split(jax.random.key(3), 4000)
    states = jax.jit(jax.vmap(lambda k: fly(env, env.reset(k), jnp.zeros((12, 1)))))(keys)[0]
    x = np.asarray(states.gust[..., 0])
    first = np.asarray(jax.jit(jax.vmap(env.reset))(keys).gust[:, 0])
    for values in (first, x[:, 0], x[:, -1]):
        assert abs(values.mean()) < 5 / np.sqrt(4000)
        assert values.std() == pytest.approx(1.0, abs=5 / np.sqrt(2 * 4000))
    assert np.mean(x[:, 0] * first) == pytest.approx(np.exp(-0.2), abs=0.1)
    assert np.mean(x[:, 5] * first) == pytest.approx(np.exp(-1.2), abs=0.1)
    # The force itself: std 2 N clipped to 3 N, on 1 kg for 0.02 s.
    kick = np.asarray(states.state.qvel[:, 0, 0]) / 0.02
    np.testing.assert_allclose(kick, np.clip(2.0 * first, -3.0, 3.0), rtol=1e-4, atol=1e-5)


def test_switches_leave_the_rest_as_it_was(plant, task) -> None:
    key, push = jax.random.key(5), jnp.ones((15, 1))
    plain, noisy, still, longer = (
        fly(env, env.reset(key), push)
        for env in (
            functional_env(slider(), plant, task),
            functional_env(slider(), plant, task, sensor_noise=True),
            functional_env(slider(), plant, task, disturbances=False),
            functional_env(slider(), plant, task, duration=0.1),
        )
    )
    np.testing.assert_array_equal(plain[0].state.qpos, noisy[0].state.qpos)
    noise = (np.asarray(noisy[1]) - np.asarray(plain[1])) / task.observation_noise
    assert 0.5 < noise.std() < 1.5 and len(np.unique(noise)) == noise.size
    np.testing.assert_array_equal(plain[0].state.command, still[0].state.command)
    assert not np.allclose(plain[0].state.qvel, still[0].state.qvel)
    np.testing.assert_array_equal(longer[4], np.arange(1, 16) >= 5)


def test_gradients_pass_through_a_flight(plant, task) -> None:
    """Against central differences, in an action, a design and a constant of the model."""

    def gain(x: jax.Array) -> jax.Array:
        env = functional_env(Slider(x[0]), plant, task, disturbances=False)
        start = env.reset(jax.random.key(2), x[1:2])
        return fly(env, start, jnp.full((15, 1), x[2]))[2].sum()

    x = jnp.array([0.05, 1.2, 2.0])
    gradient, eps = jax.jit(jax.grad(gain))(x), 1e-2 * x
    for i in range(3):
        step = jnp.zeros(3).at[i].set(eps[i])
        slope = (gain(x + step) - gain(x - step)) / (2.0 * eps[i])
        assert gradient[i] == pytest.approx(float(slope), rel=2e-2) and abs(slope) > 1e-3


def test_lost_and_diverged(plant, task) -> None:
    env = functional_env(slider(), plant, task)
    begun = env.reset(jax.random.key(0))
    out = begun.state.replace(qpos=jnp.array([1.2, 0.0, 0.0]))
    after, *_, terminated, _ = env.step(begun._replace(state=out), jnp.zeros(1))
    assert terminated and after.valid
    fast = begun.state.replace(qvel=jnp.array([1e9, 0.0, 0.0]))
    after, observation, reward, terminated, _ = env.step(begun._replace(state=fast), jnp.zeros(1))
    assert terminated and not after.valid and np.isfinite(reward)
    np.testing.assert_array_equal(after.state.qpos, begun.state.qpos)
    assert (np.abs(observation) <= [3.0, 5.0]).all()
    # What has diverged once stays so, though its state is sound again.
    assert not env.step(after._replace(state=begun.state), jnp.zeros(1))[0].valid


def test_a_design_and_what_is_refused(plant, task) -> None:
    env = functional_env(slider(), plant, task)
    assert env.reset(jax.random.key(0), [1.5]).state.design == 1.5
    assert env.reset(jax.random.key(0)).state.design == 1.0
    assert isinstance(env.reset(jax.random.key(0)).state, State)
    with pytest.raises(InputError, match="learned model"):
        functional_env(None, plant, task)  # type: ignore[arg-type]
    for bad, text in (("abc", "got 'abc'"), ([1.0, 1.0], "1 values"), ([9.0], "expected 0.5 to 2")):
        with pytest.raises(InputError, match=text):
            env.reset(jax.random.key(0), bad)
    with pytest.raises(InputError, match=r"expected shape \(1,\), got \(2,\)"):
        jax.jit(env.reset)(jax.random.key(0), jnp.ones(2))
    assert jax.jit(env.reset)(jax.random.key(0), jnp.array([1.5])).state.design == 1.5
    with pytest.raises(InputError, match="expected a Plant"):
        functional_env(slider(), "sledge", task)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="task"):
        functional_env(slider(), plant, 3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="duration"):
        functional_env(slider(), plant, replace(task, duration=1.0), duration=0.0)
