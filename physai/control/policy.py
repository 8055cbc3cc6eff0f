"""The policy: a small network with its normaliser and its action scaling inside.

    x = clip((observation - mean) / std, -10, 10)
    x = tanh(x W_i + b_i)                          hidden layers
    y = tanh(x W_n + b_n)                          the last layer
    action = low + (high - low) (1 + y) / 2        physical units

What is trained is what is saved, exported and flown: no wrapper adds a scale or an offset
afterwards, and `tanh` is the same rational function in JAX, in C99 and in ONNX.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from physai.errors import InputError
from physai.provenance import atomic_write

TANH_CLAMP = 7.0
TANH_NUMERATOR = (0.999995708, 0.123021811, 0.00227698707, 3.93000482e-06)
TANH_DENOMINATOR = (1.0, 0.456340283, 0.0210721716, 0.000142350647)
OBSERVATION_CLIP = 10.0
"""Standard deviations at which a normalised observation is cut off."""

_FORMAT = "physai.policy/1"
_ENDS = ("observation_mean", "observation_std", "action_low", "action_high")


def rational_tanh(x: jax.Array) -> jax.Array:
    """Approximate tanh by an odd rational function: |error| <= 1.2e-6 in float32, magnitude < 1.

        r(x) = x P(x^2) / Q(x^2),  x clamped to [-7, 7],  P and Q cubic in x^2

    The coefficients are the float32 roundings of a minimax fit on [-7, 7] by Lawson's iteratively
    reweighted least squares; experiments/rational_tanh.py finds them and measures the error. The
    largest value is 1 - 6e-7, so that an action never leaves its range; NaN stays NaN.

    Args:
        x: any shape, float32.
    """
    x = jnp.clip(x, -TANH_CLAMP, TANH_CLAMP)
    t = x * x
    p0, p1, p2, p3 = TANH_NUMERATOR
    q0, q1, q2, q3 = TANH_DENOMINATOR
    return x * (((p3 * t + p2) * t + p1) * t + p0) / (((q3 * t + q2) * t + q1) * t + q0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Policy:
    """A feed-forward policy with everything between sensor and actuator, float32.

    Attributes:
        weights: one `[n_in, n_out]` a layer (input-major: y = x W + b).
        biases: one `[n_out]` a layer.
        observation_mean: `[no]`, in the units of the observation.
        observation_std: `[no]`, positive.
        action_low: `[nu]`, in the units of the action.
        action_high: `[nu]`, above `action_low`.
    """

    weights: tuple[jax.Array, ...]
    biases: tuple[jax.Array, ...]
    observation_mean: jax.Array
    observation_std: jax.Array
    action_low: jax.Array
    action_high: jax.Array

    @property
    def no(self) -> int:
        """Number of observation channels."""
        return self.weights[0].shape[0]

    @property
    def nu(self) -> int:
        """Number of action channels."""
        return self.weights[-1].shape[1]


def policy_action(policy: Policy, observation: jax.Array) -> jax.Array:
    """Compute the action of an observation.

    Args:
        policy: the policy.
        observation: `[..., no]`, in sensor units; not finite gives NaN (the exported code's guard
            holds the safe action instead, see `physai.export.guard`).

    Returns:
        `[..., nu]`, in actuator units, within `[action_low, action_high]`.
    """
    x = jnp.asarray(observation, dtype=policy.weights[0].dtype)
    x = (x - policy.observation_mean) / policy.observation_std
    x = jnp.clip(x, -OBSERVATION_CLIP, OBSERVATION_CLIP)
    for weight, bias in zip(policy.weights, policy.biases, strict=True):
        # A GPU multiplies float32 matrices in TF32 unless told otherwise, which is 1e-3 off the
        # exported code.
        x = rational_tanh(jnp.matmul(x, weight, precision="highest") + bias)
    return policy.action_low + (policy.action_high - policy.action_low) * (0.5 * (1.0 + x))


def init_policy(
    key: jax.Array,
    hidden: Sequence[int],
    observation_mean: ArrayLike,
    observation_std: ArrayLike,
    action_low: ArrayLike,
    action_high: ArrayLike,
    initial_action: ArrayLike | None = None,
) -> Policy:
    """Draw a policy that starts near one constant action.

    Hidden layers are orthogonal, the last layer is a hundredth of that, so the first actions stay
    within about a percent of the range of `initial_action`.

    Args:
        key: used once.
        hidden: widths of the hidden layers, e.g. (64, 64).
        observation_mean: `[no]`.
        observation_std: `[no]`, positive.
        action_low: `[nu]`.
        action_high: `[nu]`.
        initial_action: `[nu]`, e.g. the plant's trim; the middle of the range by default.

    Raises:
        InputError: shapes that disagree, a std that is not positive, an empty action range.
    """
    mean, std, low, high = (
        jnp.asarray(a, dtype=jnp.float32)
        for a in (observation_mean, observation_std, action_low, action_high)
    )
    sizes = {"observation_std": (std, mean), "action_low": (low, low), "action_high": (high, low)}
    for name, (array, like) in sizes.items():
        _check_array("init_policy", name, array, (like.size,))
    _check_array("init_policy", "observation_mean", mean, (mean.size,))
    _check_scales("init_policy", std, low, high)
    widths = (mean.size, *hidden, low.size)
    keys = jax.random.split(key, len(widths) - 1)
    orthogonal = jax.nn.initializers.orthogonal()
    weights = [
        orthogonal(k, (n, m), jnp.float32)
        for k, n, m in zip(keys, widths[:-1], widths[1:], strict=True)
    ]
    weights[-1] = 0.01 * weights[-1]
    biases = [jnp.zeros(n, dtype=jnp.float32) for n in widths[1:]]
    if initial_action is not None:
        initial = jnp.asarray(initial_action, dtype=jnp.float32)
        _check_array("init_policy", "initial_action", initial, (low.size,))
        fraction = (initial - low) / (high - low)
        # Beyond +-0.98 the slope of tanh is so small that learning would not leave the edge of the
        # range.
        biases[-1] = jnp.arctanh(jnp.clip(2.0 * fraction - 1.0, -0.98, 0.98))
    return Policy(tuple(weights), tuple(biases), mean, std, low, high)


def check_policy(policy: Policy, where: str) -> None:
    """Raise InputError, naming `where`, unless shapes agree and values and ranges make sense."""
    if not policy.weights or len(policy.weights) != len(policy.biases):
        raise InputError(
            f"{where}: expected a bias for each weight, "
            f"got {len(policy.weights)} weights and {len(policy.biases)} biases"
        )
    no, nu = policy.no, policy.nu
    wanted = {"observation_mean": no, "observation_std": no, "action_low": nu, "action_high": nu}
    for name, size in wanted.items():
        _check_array(where, name, getattr(policy, name), (size,))
    n_in = no
    for i, (weight, bias) in enumerate(zip(policy.weights, policy.biases, strict=True)):
        n_out = weight.shape[-1]
        _check_array(where, f"weight_{i}", weight, (n_in, n_out))
        _check_array(where, f"bias_{i}", bias, (n_out,))
        n_in = n_out
    _check_scales(where, policy.observation_std, policy.action_low, policy.action_high)


def policy_tensors(policy: Policy) -> dict[str, np.ndarray]:
    """Return the policy's arrays by the names they have on disk, float32 and contiguous."""
    tensors = {name: getattr(policy, name) for name in _ENDS}
    for i, (weight, bias) in enumerate(zip(policy.weights, policy.biases, strict=True)):
        tensors |= {f"weight_{i}": weight, f"bias_{i}": bias}
    return {name: np.ascontiguousarray(a, dtype=np.float32) for name, a in tensors.items()}


def save_policy(path: Path, policy: Policy) -> None:
    """Write the policy to one safetensors file, atomically; the same policy gives the same bytes.

    Raises:
        InputError: a policy that `load_policy` would refuse, or a place that cannot be written.
    """
    check_policy(policy, str(path))
    tensors = policy_tensors(policy)
    # One entry of metadata only: safetensors does not keep the order of several, and the hash would
    # change.
    atomic_write(Path(path), safetensors.save(tensors, metadata={"format": _FORMAT}))


def load_policy(path: Path) -> Policy:
    """Read a policy from a safetensors file.

    Raises:
        InputError: missing or truncated file, missing tensor, wrong shape or type, a value that is
            not finite.
    """
    try:
        tensors = safetensors.load(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except SafetensorError as error:
        raise InputError(
            f"{path}: expected a safetensors file, got one that is damaged or cut short "
            f"({error}); make it again"
        ) from error
    layers = sum(name.startswith("weight_") for name in tensors)
    names = {*_ENDS, *(f"{kind}_{i}" for kind in ("weight", "bias") for i in range(layers))}
    if layers == 0 or names != set(tensors):
        wrong = sorted(names ^ set(tensors)) or ["weight_0"]
        raise InputError(
            f"{path}: expected a policy's tensors, missing or unknown: {', '.join(wrong)}"
        )
    for name, tensor in tensors.items():
        if name.startswith("weight_") and tensor.ndim != 2:
            raise InputError(
                f"{path}: {name}: expected shape [n_in, n_out], got {list(tensor.shape)}"
            )
        if tensor.dtype != np.float32:
            raise InputError(f"{path}: {name}: expected float32, got {tensor.dtype}")
    arrays = {name: jnp.asarray(tensor) for name, tensor in tensors.items()}
    policy = Policy(
        weights=tuple(arrays[f"weight_{i}"] for i in range(layers)),
        biases=tuple(arrays[f"bias_{i}"] for i in range(layers)),
        **{name: arrays[name] for name in _ENDS},
    )
    check_policy(policy, str(path))
    return policy


def _check_array(where: str, name: str, array: jax.Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise InputError(f"{where}: {name}: expected shape {list(shape)}, got {list(array.shape)}")
    if not np.all(np.isfinite(np.asarray(array))):
        raise InputError(f"{where}: {name}: expected finite values, got NaN or infinity")


def _check_scales(where: str, std: jax.Array, low: jax.Array, high: jax.Array) -> None:
    if not np.all(np.asarray(std) > 0.0):
        raise InputError(f"{where}: observation_std: expected positive values, got {np.min(std)}")
    if not np.all(np.asarray(low) < np.asarray(high)):
        raise InputError(f"{where}: expected action_low < action_high in every channel")
