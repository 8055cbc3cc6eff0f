"""A controller is a pair (init, step) of pure functions; PID, LQR, MPC and policy alike.

Two views of the same thing. `Controller` is JAX, unbatched, and composes with scan, vmap and grad.
`BatchController` is its host side: numpy in, numpy out, a whole batch a call, which is what flies
the true simulator. Compiled code, an ONNX session or a pilot's stick is a `BatchController` too,
without a line of JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physai.control.policy import Policy, policy_action


class Controller(NamedTuple):
    """One controller as pure JAX functions, unbatched.

    Attributes:
        init: `(key) -> cstate`, any pytree of arrays.
        step: `(cstate, observation [no]) -> (cstate, action [nu], info)`; info is a dict of arrays
            that nothing but a log reads.
    """

    init: Callable[[jax.Array], Any]
    step: Callable[[Any, jax.Array], tuple[Any, jax.Array, dict[str, jax.Array]]]


@dataclass(frozen=True)
class BatchController:
    """n controllers side by side on the host.

    Attributes:
        init: `(n) -> cstate`.
        step: `(cstate, observation [n, no]) -> (cstate, action [n, nu])`, numpy in and out,
            physical units.
    """

    init: Callable[[int], Any]
    step: Callable[[Any, np.ndarray], tuple[Any, np.ndarray]]


def batch_controller(controller: Controller, seed: int = 0) -> BatchController:
    """Run a controller on batches from numpy: jit(vmap(step)), compiled once a batch size.

    Args:
        controller: what to run.
        seed: of the keys that `init` splits among the n controllers.
    """
    initialise = jax.jit(jax.vmap(controller.init))

    @jax.jit
    def advance(cstate: Any, observation: jax.Array) -> tuple[Any, jax.Array]:
        cstate, action, _ = jax.vmap(controller.step)(cstate, observation)
        return cstate, action

    def init(n: int) -> Any:
        return initialise(jax.random.split(jax.random.key(seed), n))

    def step(cstate: Any, observation: np.ndarray) -> tuple[Any, np.ndarray]:
        cstate, action = advance(cstate, jnp.asarray(observation, dtype=jnp.float32))
        return cstate, np.asarray(action, dtype=np.float64)

    return BatchController(init, step)


def policy_controller(policy: Policy) -> Controller:
    """Return the controller that applies a policy; cstate and info are empty: no memory."""

    def init(key: jax.Array) -> tuple[()]:
        return ()

    def step(
        cstate: tuple[()], observation: jax.Array
    ) -> tuple[tuple[()], jax.Array, dict[str, jax.Array]]:
        return cstate, policy_action(policy, observation), {}

    return Controller(init, step)
