"""Learning: returns and critic targets against plain loops, gradients, resuming, the judge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from surrogates import untrained_surrogate

from physai.control.policy import Policy, init_policy, load_policy
from physai.errors import InputError
from physai.learn.imagination import Conditions, Flight, Imagination
from physai.learn.learn import Comparison, Judge, learn_policy, load_policy_folder
from physai.learn.value_gradient import (
    LearnSettings,
    LearnState,
    critic_goals,
    init_learning,
    machine_returns,
    update_policy,
    value,
)
from physai.plant import Plant, load_plant
from physai.state import rotation_matrix
from physai.surrogate.model import Surrogate
from physai.surrogate.store import save_surrogate
from physai.task import Task, load_task

SMALL = LearnSettings(hidden=(16,), critic_hidden=(16,), machines=16, horizon=6, updates=20)


@pytest.fixture(scope="module")
def plant() -> Plant:
    return load_plant("quadrotor")


@pytest.fixture(scope="module")
def task(plant: Plant) -> Task:
    return load_task(plant)


@pytest.fixture(scope="module")
def surrogate(plant: Plant) -> Surrogate:
    """An untrained ensemble: a smooth model, which is all that the mechanics of learning need."""
    return untrained_surrogate(plant, width=16, change=0.05)


@pytest.fixture(scope="module")
def learner(plant: Plant, task: Task) -> tuple[Imagination, LearnState]:
    imagination = Imagination(plant, task, Conditions())
    policy = init_policy(
        jax.random.key(1), (16,), np.zeros(19), np.ones(19), np.zeros(4), np.ones(4), plant.trim
    )
    return imagination, init_learning(policy, imagination, SMALL, jax.random.key(2))


def random_flight(horizon: int, n: int, seed: int = 0) -> Flight:
    rng = np.random.default_rng(seed)
    terminated = rng.random((horizon, n)) < 0.1
    restarted = terminated | (rng.random((horizon, n)) < 0.15)
    observation = rng.normal(size=(2, horizon, n, 19)).astype(np.float32)
    reward, disagreement = rng.normal(size=(2, horizon, n)).astype(np.float32)
    return Flight(
        *map(jnp.asarray, (*observation, reward, abs(disagreement), terminated, restarted))
    )


def test_returns_equal_a_plain_loop(learner: tuple[Imagination, LearnState]) -> None:
    _, state = learner
    flight, g = random_flight(9, 50), SMALL.discount
    after = np.asarray(value(state.target, state.policy, flight.after))
    expected = np.zeros(50)
    for i in range(50):
        weight = 1.0
        for t in range(9):
            gain = flight.reward[t, i] - SMALL.disagreement_price * flight.disagreement[t, i]
            if flight.terminated[t, i]:
                gain += -5.0 / (1.0 - g)
            elif flight.restarted[t, i] or t == 8:
                gain += g * after[t, i]
            expected[i] += weight * gain
            weight = 1.0 if flight.restarted[t, i] else weight * g
    np.testing.assert_allclose(
        machine_returns(state, flight, SMALL), expected, rtol=1e-4, atol=1e-3
    )


def test_critic_goals_equal_td_lambda_by_a_plain_loop(
    learner: tuple[Imagination, LearnState],
) -> None:
    _, state = learner
    flight, g, trace = random_flight(9, 50, 1), SMALL.discount, SMALL.trace
    after = np.asarray(value(state.target, state.policy, flight.after))
    goals = np.zeros((9, 50))
    for i in range(50):
        following = after[-1, i]
        for t in reversed(range(9)):
            gain = flight.reward[t, i] - SMALL.disagreement_price * flight.disagreement[t, i]
            if flight.terminated[t, i]:
                goal = gain - 5.0 / (1.0 - g)
            elif flight.restarted[t, i]:
                goal = gain + g * after[t, i]
            else:
                goal = gain + g * ((1 - trace) * after[t, i] + trace * following)
            goals[t, i] = following = goal
    np.testing.assert_allclose(critic_goals(state, flight, SMALL), goals, rtol=1e-4, atol=1e-3)


def test_machines_meet_the_stated_conditions(plant: Plant, task: Task) -> None:
    wide = Imagination(plant, task, Conditions(design_spread=1.0, gusts=0.5, delayed=0.25))
    machines = jax.jit(wide.start, static_argnums=1)(jax.random.key(0), 4096)
    design = np.asarray(machines.state.design)
    for i, variable in enumerate(plant.design):
        span = variable.high - variable.low
        assert abs(design[:, i].mean() - (variable.low + variable.high) / 2) < 0.02 * span
        assert abs(design[:, i].std() - span / np.sqrt(12)) < 0.02 * span
    assert abs(np.asarray(machines.delayed).mean() - 0.25) < 0.03
    assert np.asarray(machines.gust_scale).max() <= 1.0
    narrow = Imagination(plant, task, Conditions(design_spread=0.1, sensor_noise=0.0))
    machines = jax.jit(narrow.start, static_argnums=1)(jax.random.key(0), 512)
    reach = 0.1 * np.array([v.high - v.low for v in plant.design])
    assert (np.abs(np.asarray(machines.state.design) - plant.nominal) <= reach + 1e-6).all()
    exact = jax.jit(jax.vmap(task.observe))(machines.state)
    # one fused with the draws, one on its own: float32 rounds them a few ulp apart
    np.testing.assert_allclose(machines.observation, exact, atol=2e-6)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_machines_starts_upset(plant: Plant, task: Task, share: float) -> None:
    imagination = Imagination(plant, task, Conditions(upset=share))
    state = jax.jit(imagination.start, static_argnums=1)(jax.random.key(0), 4096).state
    tilt = np.degrees(np.arccos(rotation_matrix(state.qpos[:, 3:])[:, 2, 2]))
    # Tilts are uniform: up to 60 degrees as the task asks, up to 108 in data collection.
    assert np.mean(tilt > 60.1) == pytest.approx(share * 48 / 108, abs=0.03)
    speed = np.linalg.norm(state.qvel[:, :3], axis=1)
    assert speed.max() == pytest.approx(5.0 if share else 2.0, rel=0.02)


def test_a_delayed_machine_flies_the_action_of_the_last_period(
    surrogate: Surrogate, learner: tuple[Imagination, LearnState]
) -> None:
    imagination, state = learner
    machines = state.machines._replace(
        delayed=jnp.ones(16, bool), gust_scale=jnp.zeros(16), deadline=jnp.full(16, 99.0)
    )
    after, _ = imagination.fly(surrogate, state.policy, machines, jax.random.key(5), 1)
    expected = surrogate.step(machines.state, machines.held)
    np.testing.assert_allclose(after.state.qvel, expected.qvel, atol=1e-5)


def test_a_policy_gradient_matches_finite_differences(
    surrogate: Surrogate, learner: tuple[Imagination, LearnState]
) -> None:
    imagination, state = learner

    @jax.jit
    def gain(shift: jax.Array) -> jax.Array:
        biases = (*state.policy.biases[:-1], state.policy.biases[-1] + shift)
        policy = replace(state.policy, biases=biases)
        _, flight = imagination.fly(surrogate, policy, state.machines, jax.random.key(3), 4)
        return jnp.mean(machine_returns(state, flight, SMALL))

    slope = jax.jit(jax.grad(gain))(jnp.zeros(4))
    for i in range(4):
        step = jnp.zeros(4).at[i].set(0.02)
        expected = float(gain(step) - gain(-step)) / 0.04
        assert slope[i] == pytest.approx(expected, rel=0.05, abs=2e-3)


def test_learning_raises_the_imagined_reward(
    surrogate: Surrogate, learner: tuple[Imagination, LearnState]
) -> None:
    imagination, state = learner
    fresh = state.machines

    @jax.jit
    def reward(policy: Policy) -> jax.Array:
        _, flight = imagination.fly(surrogate, policy, fresh, jax.random.key(6), SMALL.horizon)
        return jnp.mean(flight.reward)

    before = float(reward(state.policy))
    run = update_policy(imagination, SMALL, 40)
    state, _ = run(state, surrogate, jax.random.key(4))
    assert float(reward(state.policy)) > before
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state))


def test_updates_compile_once(
    surrogate: Surrogate, learner: tuple[Imagination, LearnState]
) -> None:
    imagination, state = learner
    run = update_policy(imagination, SMALL, 2)
    for i in range(3):
        state, _ = run(state, surrogate, jax.random.key(i))
    assert run._cache_size() == 1  # type: ignore[attr-defined]


def test_an_interrupted_learner_resumes_to_the_same_bits(
    plant: Plant, task: Task, surrogate: Surrogate, tmp_path: Path
) -> None:
    source = tmp_path / "surrogate"
    source.mkdir()
    save_surrogate(source, surrogate, plant, {})

    def learn(folder: Path, progress) -> None:
        learn_policy(plant, task, source, folder, SMALL, seed=4, progress=progress)

    def stop(name: str, done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "a", stop)
    assert not (tmp_path / "a").exists()
    learn(tmp_path / "a", lambda *_: None)
    learn(tmp_path / "b", lambda *_: None)
    name = "policy.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "learning.csv").read_text() == (
        tmp_path / "b" / "learning.csv"
    ).read_text()
    policy, card = load_policy_folder(tmp_path / "a")
    assert policy.no == len(card["observations"]) == task.no
    assert load_policy(tmp_path / "a" / name).nu == plant.nu


def test_the_judge_flies_the_true_plant(plant: Plant, task: Task, surrogate: Surrogate) -> None:
    """Full throttle straight up: the true return is that of a machine that leaves, not imagined."""
    judge = Judge(plant, replace(task, duration=0.4), 8, seed=0)
    flat = init_policy(
        jax.random.key(0), (4,), np.zeros(19), np.ones(19), np.zeros(4), np.ones(4), np.ones(4)
    )
    seen = judge.compare(surrogate, flat)
    idle = init_policy(
        jax.random.key(0), (4,), np.zeros(19), np.ones(19), np.zeros(4), np.ones(4), np.zeros(4)
    )
    other = judge.compare(surrogate, idle)
    assert seen.true is not None and seen.imagined is not None and other.true is not None
    assert seen.true != pytest.approx(other.true, rel=1e-3)
    assert seen.shortfall == pytest.approx((seen.imagined - seen.true) / abs(seen.imagined))
    assert Comparison(None, -1.0).shortfall == np.inf


def test_a_policy_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="policy folder"):
        load_policy_folder(tmp_path)
