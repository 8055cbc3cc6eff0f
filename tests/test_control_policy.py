"""The policy against closed forms in float64, and its file against damage."""

import importlib.util
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from physai.control import (
    Controller,
    Policy,
    batch_controller,
    init_policy,
    load_policy,
    policy_action,
    policy_controller,
    rational_tanh,
    save_policy,
)
from physai.control.policy import TANH_CLAMP, TANH_DENOMINATOR, TANH_NUMERATOR
from physai.errors import InputError

NO, NU = 19, 4
LOW, HIGH = np.array([0.0, -1.0, 293.0, -13.0]), np.array([13.0, 1.0, 294.0, 0.5])


@pytest.fixture
def policy() -> Policy:
    return random_policy(0)


def random_policy(seed: int, hidden: tuple[int, ...] = (64, 64)) -> Policy:
    """A policy with full-size last layer and biases, so that every action moves."""
    rng = np.random.default_rng(seed)
    widths = (NO, *hidden, NU)
    pairs = list(pairwise(widths))
    return Policy(
        weights=tuple(jnp.asarray(rng.normal(size=s) / s[0] ** 0.5, jnp.float32) for s in pairs),
        biases=tuple(jnp.asarray(0.3 * rng.normal(size=s[1]), jnp.float32) for s in pairs),
        observation_mean=jnp.asarray(rng.normal(size=NO), jnp.float32),
        observation_std=jnp.asarray(rng.uniform(0.5, 2.0, NO), jnp.float32),
        action_low=jnp.asarray(LOW, jnp.float32),
        action_high=jnp.asarray(HIGH, jnp.float32),
    )


def action_float64(policy: Policy, observation: np.ndarray) -> np.ndarray:
    """The formula of the module's docstring with numpy's tanh in float64."""
    mean, std = np.float64(policy.observation_mean), np.float64(policy.observation_std)
    x = np.clip((observation - mean) / std, -10.0, 10.0)
    for weight, bias in zip(policy.weights, policy.biases, strict=True):
        x = np.tanh(x @ np.float64(weight) + np.float64(bias))
    low, high = np.float64(policy.action_low), np.float64(policy.action_high)
    return low + (high - low) * 0.5 * (1.0 + x)


def test_rational_tanh_is_close_odd_and_below_one() -> None:
    x = np.linspace(-20.0, 20.0, 1_000_001).astype(np.float32)
    y = np.asarray(rational_tanh(jnp.asarray(x)))
    assert np.abs(y - np.tanh(x.astype(np.float64))).max() <= 3e-6
    assert np.abs(y).max() < 1.0
    np.testing.assert_array_equal(np.asarray(rational_tanh(jnp.asarray(-x))), -y)
    # Rounding leaves steps of a few units in the last place of 1 (6e-8), and nothing more.
    assert np.diff(y).min() >= -5e-7


def test_rational_tanh_is_monotone_in_exact_arithmetic() -> None:
    x = np.linspace(0.0, TANH_CLAMP, 1_000_001)
    p, q = np.float64(np.float32(TANH_NUMERATOR)), np.float64(np.float32(TANH_DENOMINATOR))
    y = x * np.polyval(p[::-1], x * x) / np.polyval(q[::-1], x * x)
    assert np.diff(y).min() > 0.0


def test_rational_tanh_at_what_is_not_finite() -> None:
    y = np.asarray(rational_tanh(jnp.array([jnp.inf, -jnp.inf, jnp.nan, 0.0])))
    assert y[0] == -y[1]
    assert 0.999998 < y[0] < 1.0
    assert np.isnan(y[2])
    assert y[3] == 0.0


def test_rational_tanh_has_the_gradient_of_tanh() -> None:
    x = jnp.linspace(-6.5, 6.5, 1001)
    gradient = jax.vmap(jax.grad(rational_tanh))(x)
    # The slope of an approximation that oscillates 1e-6 about tanh is off by more than that.
    np.testing.assert_allclose(gradient, 1.0 - np.tanh(np.asarray(x)) ** 2, atol=1e-5)


def test_coefficients_are_those_of_the_experiment() -> None:
    path = Path(__file__).parents[1] / "experiments" / "rational_tanh.py"
    spec = importlib.util.spec_from_file_location("experiment_rational_tanh", path)
    assert spec is not None
    assert spec.loader is not None
    experiment = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = experiment
    try:
        spec.loader.exec_module(experiment)
        fitted = experiment.fit(experiment.Settings(points=2000, iterations=60))
    finally:
        del sys.modules[spec.name]
    x = np.linspace(0.0, TANH_CLAMP, 100_001)
    ours = (np.array(TANH_NUMERATOR), np.array(TANH_DENOMINATOR))
    worst = [
        np.abs(experiment.evaluate(x, *c, TANH_CLAMP) - np.tanh(x)).max() for c in (ours, fitted)
    ]
    # The float32 roundings of the coefficients cost a few percent of the best error there is.
    assert worst[0] <= 1.1 * worst[1]
    assert worst[0] <= 1e-6


def test_action_is_the_formula_in_any_shape(policy: Policy) -> None:
    rng = np.random.default_rng(1)
    observation = rng.normal(scale=20.0, size=(2, 50, NO)).astype(np.float32)
    action = np.asarray(policy_action(policy, jnp.asarray(observation)))
    assert action.shape == (2, 50, NU)
    # float32 at 294 resolves 3e-5; 3e-6 of a range is the tanh and the sums.
    bound = 1e-5 * (HIGH - LOW) + 3e-5 * (np.abs(HIGH) > 100.0)
    assert np.all(np.abs(action - action_float64(policy, observation)) <= bound)
    one = np.asarray(policy_action(policy, jnp.asarray(observation[1, 7])))
    assert np.all(np.abs(one - action[1, 7]) <= bound)


def test_action_stays_in_range_however_large_the_weights(policy: Policy) -> None:
    large = replace(policy, weights=tuple(100.0 * w for w in policy.weights))
    observation = jnp.asarray(np.random.default_rng(2).normal(scale=30.0, size=(2000, NO)))
    action = np.asarray(policy_action(large, observation))
    assert np.all(action >= LOW.astype(np.float32))
    assert np.all(action <= HIGH.astype(np.float32))
    assert np.all(action.max(axis=0) > HIGH - 1e-4 * (HIGH - LOW) - 1e-4)


def test_observation_that_is_not_finite_gives_nan_not_a_number_that_looks_right(
    policy: Policy,
) -> None:
    observation = jnp.zeros(NO).at[3].set(jnp.nan)
    assert np.all(np.isnan(policy_action(policy, observation)))


def test_initial_policy_acts_near_the_wanted_action() -> None:
    wanted = np.array([3.0, 0.1, 293.4, -2.0])
    policy = init_policy(
        jax.random.key(0), (32, 32), np.zeros(NO), np.ones(NO), LOW, HIGH, initial_action=wanted
    )
    observation = np.random.default_rng(0).normal(size=(500, NO)).astype(np.float32)
    action = np.asarray(policy_action(policy, jnp.asarray(observation)))
    assert np.all(np.abs(action - wanted) <= 0.03 * (HIGH - LOW))
    assert np.all(action.std(axis=0) > 0.0)


def test_initial_policy_can_be_drawn_for_many_seeds_at_once() -> None:
    def draw(key: jax.Array) -> Policy:
        return init_policy(key, (8,), np.zeros(NO), np.ones(NO), LOW, HIGH)

    many = jax.vmap(draw)(jax.random.split(jax.random.key(0), 3))
    assert many.weights[0].shape == (3, NO, 8)
    assert not np.allclose(many.weights[0][0], many.weights[0][1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"observation_std": np.ones(NO + 1)}, r"observation_std: expected shape \[19\], got"),
        ({"observation_std": np.zeros(NO)}, "expected positive values"),
        ({"observation_mean": np.full(NO, np.nan)}, "observation_mean: expected finite"),
        ({"action_high": LOW}, "action_low < action_high"),
        ({"action_high": HIGH[:3]}, r"action_high: expected shape \[4\], got \[3\]"),
        ({"initial_action": np.zeros(3)}, r"initial_action: expected shape \[4\], got \[3\]"),
    ],
)
def test_initial_policy_refuses_what_does_not_fit(
    changed: dict[str, np.ndarray], message: str
) -> None:
    arguments = {
        "observation_mean": np.zeros(NO),
        "observation_std": np.ones(NO),
        "action_low": LOW,
        "action_high": HIGH,
    }
    with pytest.raises(InputError, match=message):
        init_policy(jax.random.key(0), (8,), **{**arguments, **changed})


def test_saved_policy_comes_back_bit_for_bit(policy: Policy, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_policy(tmp_path / name, policy)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = load_policy(tmp_path / "a")
    assert jax.tree.structure(loaded) == jax.tree.structure(policy)
    for ours, theirs in zip(jax.tree.leaves(policy), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_policy_that_is_not_finite_is_not_saved(policy: Policy, tmp_path: Path) -> None:
    broken = jax.tree.map(lambda a: a.at[(0,) * a.ndim].set(jnp.inf), policy)
    with pytest.raises(InputError, match="expected finite values"):
        save_policy(tmp_path / "policy", broken)
    assert list(tmp_path.iterdir()) == []


def test_truncated_or_foreign_file_is_refused(policy: Policy, tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    with pytest.raises(InputError, match=r"policy\.safetensors: cannot be read"):
        load_policy(path)
    save_policy(path, policy)
    data = path.read_bytes()
    for damaged in (data[:-1], data[: len(data) // 2], data[:4], b"", b"not a policy" * 9):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"policy\.safetensors: expected a safetensors file"):
            load_policy(path)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("weight_1", np.zeros((63, 64), np.float32), r"expected shape \[64, 64\], got \[63, 64\]"),
        ("bias_2", np.zeros(5, np.float32), r"bias_2: expected shape \[4\], got \[5\]"),
        ("weight_0", np.zeros(19, np.float32), r"weight_0: expected shape \[n_in, n_out\]"),
        ("bias_0", np.zeros(64, np.float64), "bias_0: expected float32, got float64"),
        ("bias_0", np.full(64, np.nan, np.float32), "bias_0: expected finite values"),
        ("action_low", None, "missing or unknown: action_low"),
        ("weight_1", None, "missing or unknown"),
        ("surprise", np.zeros(1, np.float32), "missing or unknown: surprise"),
    ],
)
def test_wrong_tensor_is_named(
    policy: Policy, tmp_path: Path, name: str, tensor: np.ndarray | None, message: str
) -> None:
    path = tmp_path / "policy.safetensors"
    save_policy(path, policy)
    tensors = safetensors.load(path.read_bytes())
    tensors.pop(name, None)
    if tensor is not None:
        tensors[name] = tensor
    path.write_bytes(safetensors.save(tensors))
    with pytest.raises(InputError, match=f"policy.safetensors: .*{message}"):
        load_policy(path)


def test_batch_controller_is_the_loop_over_its_rows(policy: Policy) -> None:
    batch = batch_controller(policy_controller(policy))
    observation = np.random.default_rng(3).normal(size=(7, NO))
    _, action = batch.step(batch.init(7), observation)
    assert isinstance(action, np.ndarray)
    assert action.dtype == np.float64
    for row, expected in zip(observation, action, strict=True):
        # Rounding at 294 is 3e-5.
        np.testing.assert_allclose(policy_action(policy, jnp.asarray(row)), expected, atol=4e-5)


def test_batch_controller_keeps_a_state_for_each_row_and_compiles_once() -> None:
    traced = []

    def step(
        cstate: jax.Array, observation: jax.Array
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        traced.append(observation.shape)
        cstate = cstate + observation[0]
        return cstate, cstate[None], {"unused": observation}

    batch = batch_controller(Controller(jax.random.uniform, step))
    cstate = batch.init(3)
    start = np.asarray(cstate)
    assert len(set(start.tolist())) == 3
    for _ in range(4):
        cstate, action = batch.step(cstate, np.array([[1.0], [2.0], [3.0]]))
    np.testing.assert_allclose(action[:, 0], start + np.array([4.0, 8.0, 12.0]), rtol=1e-6)
    assert len(traced) == 1


def test_policy_is_a_pytree_with_gradients(policy: Policy) -> None:
    def cost(policy: Policy) -> jax.Array:
        return jnp.sum(policy_action(policy, jnp.ones(NO)))

    gradient = jax.grad(cost)(policy)
    step = 1e-2
    bias = policy.biases[-1] + step * jnp.eye(NU)[0]
    moved = replace(policy, biases=(*policy.biases[:-1], bias))
    # The first action alone moves, so the difference is free of the rounding at 294.
    difference = (
        policy_action(moved, jnp.ones(NO))[0] - policy_action(policy, jnp.ones(NO))[0]
    ) / step
    np.testing.assert_allclose(gradient.biases[-1][0], difference, rtol=1e-2)
