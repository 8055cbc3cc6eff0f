"""The guard around an exported policy, as the numpy reference that C99 and ONNX are compared with.

    any observation NaN or infinite   -> the safe action,  status NOT_FINITE
    else any outside [low, high]      -> the policy's action, status OUT_OF_RANGE
    else                              -> the policy's action, status OK

An observation outside its range is reported, not altered: the policy's own normaliser limits it at
ten standard deviations, in training, in verification and here. A clamp that only the exported code
had would make it another controller than the one that holds the certificate.
"""

from __future__ import annotations

import jax
import numpy as np

from physai.control.policy import Policy, policy_action
from physai.errors import InputError
from physai.export.contract import NOT_FINITE, OK, OUT_OF_RANGE, Contract

_action = jax.jit(policy_action)


def guarded_action(
    policy: Policy, contract: Contract, observation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute what the exported code has to return.

    Args:
        policy: the policy.
        contract: its ranges and its safe action.
        observation: `[n, no]`, any numbers, rounded to float32 first.

    Returns:
        Actions `[n, nu]` float32 in actuator units, and status bits `[n]` int32.

    Raises:
        InputError: wrong shape.
    """
    observation = np.asarray(observation)
    if observation.ndim != 2 or observation.shape[1] != policy.no:
        raise InputError(
            f"observation: expected shape [n, {policy.no}], got {list(observation.shape)}"
        )
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which the guard is for
        observation = observation.astype(np.float32)
    finite = np.all(np.isfinite(observation), axis=1)
    outside = (observation < contract.observation_low) | (observation > contract.observation_high)
    status = np.where(finite, np.where(outside.any(axis=1), OUT_OF_RANGE, OK), NOT_FINITE)
    action = np.asarray(_action(policy, np.where(finite[:, None], observation, 0.0)))
    action = np.clip(action, np.asarray(policy.action_low), np.asarray(policy.action_high))
    safe = np.asarray(contract.safe_action, dtype=np.float32)
    return np.where(finite[:, None], action, safe), status.astype(np.int32)
