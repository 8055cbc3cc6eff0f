"""What environments do where a surrogate's input is outside its domain: accept, abstain, simulate.

Here it is outside where the sledge is pushed with more than 5 N, so that an action chooses.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from sledges import sledge, slider
from surrogates import domain_of_one, untrained_surrogate
from test_vector_env import agree

from physai.env.functional import functional_env
from physai.env.single import PlantEnv
from physai.env.vector import PlantVectorEnv
from physai.errors import InputError
from physai.plant import Plant
from physai.rollout.engine import TruePlant
from physai.state import State
from physai.surrogate.inputs import input_channels
from physai.surrogate.model import Surrogate
from physai.task import load_task

INSIDE, OUTSIDE = np.array([4.0], np.float32), np.array([6.0], np.float32)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    return sledge(tmp_path_factory.mktemp("plants") / "sledge")


@pytest.fixture(scope="module")
def surrogate(plant: Plant) -> Surrogate:
    found = untrained_surrogate(plant)
    names = [channel.name for channel in input_channels(found.layout, plant)]
    return replace(found, domain=domain_of_one(len(names), names.index("push"), 5.0))


def compare(ours: dict, theirs: dict, tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, tolerance, tolerance, err_msg=name)


def test_a_simulated_period_is_that_of_the_true_simulator(plant, surrogate) -> None:
    """From the same state, with the same action and gust; inside, it is the surrogate's."""
    env = PlantEnv(plant, surrogate, outside="simulate")
    learned, true = PlantEnv(plant, surrogate), PlantEnv(plant)
    for design in ([0.7], [1.8]):
        _, info = env.reset(seed=5, options={"design": design})
        for other in (learned, true):
            other.reset(seed=5, options={"design": design})
        for action in (INSIDE, OUTSIDE, OUTSIDE, INSIDE, OUTSIDE):
            out = action is OUTSIDE
            other = true if out else learned
            gusts = env._gust_source.bit_generator.state
            other.reset(options={"state": State(**info["state"])})
            other._gust_source.bit_generator.state = gusts
            other._steps, other._disturbances = env._steps, env._disturbances
            observation, reward, terminated, truncated, info = env.step(action)
            expected = other.step(action)
            compare(info["state"], expected[4]["state"], 1e-6)
            np.testing.assert_allclose(observation, expected[0], rtol=1e-5, atol=1e-6)
            assert reward == pytest.approx(expected[1], rel=1e-5)
            assert info["simulated"] is out and info["valid"] and not terminated and not truncated
            assert (info["domain_score"] > 1.0) is out


def test_abstaining_ends_the_episode_where_it_was(plant, surrogate) -> None:
    env, plain = PlantEnv(plant, surrogate, outside="abstain"), PlantEnv(plant, surrogate)
    for each in (env, plain):
        each.reset(seed=3)
    for _ in range(3):
        *ours, info = env.step(INSIDE)
        *theirs, expected = plain.step(INSIDE)
        assert not info["abstained"] and "abstained" not in expected
        compare(info["state"], expected["state"], 0.0)
        assert ours[1:] == theirs[1:] and ours[1] != 0.0
    observation, reward, terminated, truncated, end = env.step(OUTSIDE)
    assert end["abstained"] and truncated and not terminated and reward == 0.0 and end["valid"]
    assert end["domain_score"] > 1.0
    compare(end["state"], info["state"], 0.0)
    np.testing.assert_array_equal(observation, ours[0])
    assert not np.allclose(plain.step(OUTSIDE)[4]["state"]["qpos"], info["state"]["qpos"])


@pytest.mark.parametrize("outside", ["accept", "abstain", "simulate"])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_batch_is_as_many_single_environments(plant, surrogate, outside, mode) -> None:
    options = {"outside": outside, "duration": 0.3}
    ours = PlantVectorEnv(plant, 4, surrogate, autoreset_mode=mode, **options)
    theirs = SyncVectorEnv([lambda: PlantEnv(plant, surrogate, **options)] * 4, autoreset_mode=mode)
    for each in (ours, theirs):
        each.reset(seed=1)
    rng, handled = np.random.default_rng(0), 0
    for _ in range(40):
        actions = rng.uniform(-6.0, 6.0, (4, 1)).astype(np.float32)
        *results, info = ours.step(actions)
        *expected, expected_info = theirs.step(actions)
        for one, other in zip(results, expected, strict=True):
            agree(one, other, exact=False)
        agree(info, expected_info, exact=False)
        for told in (info, info.get("final_info", {})):
            handled += int(np.sum(told.get("abstained", told.get("simulated", 0))))
    assert (handled > 5) is (outside != "accept")


def test_each_machine_is_simulated_with_its_design(plant, surrogate) -> None:
    envs = PlantVectorEnv(plant, 3, surrogate, outside="simulate", disturbances=False)
    for designs in (np.array([[0.6], [1.0], [1.9]]), np.array([[1.2], [0.5], [2.0]])):
        _, before = envs.reset(seed=0, options={"design": designs})
        actions = np.stack([OUTSIDE, INSIDE, OUTSIDE])
        info = envs.step(actions)[4]
        assert info["simulated"].tolist() == [True, False, True]
        for i in (0, 2):
            env = PlantEnv(plant, disturbances=False)
            start = {name: before["state"][name][i] for name in info["state"] if name[0] != "_"}
            env.reset(options={"state": State(**start)})
            expected = env.step(OUTSIDE)[4]["state"]
            compare({name: info["state"][name][i] for name in expected}, expected, 1e-6)


def test_device_arrays_may_be_simulated(plant, surrogate) -> None:
    options = {"outside": "simulate", "disturbances": False}
    device = PlantVectorEnv(plant, 2, surrogate, device_arrays=True, **options)
    host = PlantVectorEnv(plant, 2, surrogate, **options)
    for each in (device, host):
        each.reset(seed=0)
    actions = np.stack([OUTSIDE, INSIDE])
    ours, theirs = device.step(jnp.asarray(actions)), host.step(actions)
    assert isinstance(ours[0], jax.Array) and isinstance(ours[4]["simulated"], jax.Array)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
    observation = device.step(jnp.array([[6.0], [jnp.nan]]))[0]  # of the other machine's action
    assert np.isfinite(observation[0]).all()


def test_the_functional_environment_abstains(plant, surrogate) -> None:
    env = functional_env(surrogate, plant, load_task(plant), outside="abstain", disturbances=False)
    plain = functional_env(surrogate, plant, load_task(plant), disturbances=False)
    keys = jax.random.split(jax.random.key(0), 2)
    start = jax.vmap(env.reset)(keys)
    actions = jnp.stack([INSIDE, OUTSIDE])
    after, observation, reward, terminated, truncated = jax.jit(jax.vmap(env.step))(start, actions)
    expected = jax.vmap(plain.step)(start, actions)
    assert truncated.tolist() == [False, True] and not terminated.any() and after.valid.all()
    assert (np.asarray(after.domain_score) > 1.0).tolist() == [False, True]
    assert reward[0] == pytest.approx(float(expected[2][0]), rel=1e-5)
    assert reward[1] == 0.0 and min(abs(expected[2])) > 1e-3
    for name in ("qpos", "qvel", "act", "time"):
        kept, before = (getattr(s.state, name) for s in (after, start))
        np.testing.assert_allclose(kept[0], getattr(expected[0].state, name)[0], rtol=1e-5)
        np.testing.assert_array_equal(kept[1], before[1])
    second = jax.tree.map(lambda x: x[1], start)
    np.testing.assert_allclose(observation[1], env.observe(second), rtol=1e-6)
    slope = jax.grad(lambda a: env.step(second, a)[2])(actions[1])
    assert slope == 0.0


def test_what_is_refused(plant, surrogate) -> None:
    for make in (PlantEnv, lambda plant, *a, **k: PlantVectorEnv(plant, 2, *a, **k)):
        with pytest.raises(InputError, match='"simulate", got \'x'):
            make(plant, surrogate, outside="x")
        for outside in ("abstain", "simulate"):
            with pytest.raises(InputError, match="the true simulator has no operating domain"):
                make(plant, outside=outside)
            with pytest.raises(InputError, match="Slider has no operating domain"):
                make(plant, slider(), outside=outside)
    with pytest.raises(InputError, match="true MuJoCo is no JAX"):
        functional_env(surrogate, plant, load_task(plant), outside="simulate")


def test_stepping_some_simulations_leaves_the_others(plant) -> None:
    rng, n = np.random.default_rng(0), 5
    designs = rng.uniform(0.5, 2.0, (n, 1))
    state = State(
        *(rng.uniform(-0.1, 0.1, (n, 3)), rng.standard_normal((n, 3))),
        *(rng.standard_normal((n, 1)), np.zeros(n), np.zeros((n, 1)), designs),
    )
    actions, rows = rng.uniform(-9.0, 9.0, (n, 1)), np.array([1, 4])
    some, all_ = TruePlant(plant, n, designs), TruePlant(plant, n, designs)
    for _ in range(3):
        after, whole = some.step(state, actions, rows=rows), all_.step(state, actions)
        for name in ("qpos", "qvel", "act", "time"):
            ours, theirs, before = (getattr(s, name) for s in (after, whole, state))
            np.testing.assert_array_equal(ours[rows], theirs[rows])
            np.testing.assert_array_equal(np.delete(ours, rows, 0), np.delete(before, rows, 0))
        state = jax.tree.map(np.copy, whole)  # placed anew, in both
