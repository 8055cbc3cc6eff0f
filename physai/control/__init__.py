"""Controllers: a pair of pure functions each, and the policy that is trained and exported."""

from physai.control.controller import (
    BatchController,
    Controller,
    batch_controller,
    policy_controller,
)
from physai.control.policy import (
    Policy,
    init_policy,
    load_policy,
    policy_action,
    rational_tanh,
    save_policy,
)

__all__ = [
    "BatchController",
    "Controller",
    "Policy",
    "batch_controller",
    "init_policy",
    "load_policy",
    "policy_action",
    "policy_controller",
    "rational_tanh",
    "save_policy",
]
