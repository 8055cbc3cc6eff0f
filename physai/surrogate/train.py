"""The training loop of an ensemble, stage by stage, and the losses of both stages.

Both losses are the mean over targets of log(mean squared error), the likelihood of Gaussian errors
whose variance is each target's own: what contacts make unpredictable then does not drown what can
be learned well.

References: Li et al., "Robotic world model", 2025, equation 2 (autoregressive training),
arXiv:2501.10100; Kendall, Gal, Cipolla, "Multi-task learning using uncertainty to weigh losses",
2018, equation 5 with the variances at their optimum, arXiv:1705.07115.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from physai.progress import Progress
from physai.rollout.dataset import Episodes
from physai.state import State, difference
from physai.surrogate.checkpoint import Checkpoints
from physai.surrogate.model import Surrogate
from physai.surrogate.network import Parameters, apply_member
from physai.surrogate.normalise import positive

SETTLED = 1e-9  # squared error, in units of a step's change, below which it teaches nothing more
CHUNK = 250  # optimiser steps in one compiled call: progress and Ctrl-C are this fine

Loss = Callable[[Parameters, jax.Array, Any], jax.Array]
"""Called with one member's parameters, a key and the examples."""


class TrainState(NamedTuple):
    """What a checkpoint holds: parameters, optimiser states, losses so far `[chunks]`."""

    parameters: Parameters
    optimiser: Any
    losses: jax.Array


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        name: in progress, checkpoints and the record of losses.
        steps: optimiser steps, rounded up to a multiple of `CHUNK`.
        optimiser: of each member.
        loss: of one member on a batch that it draws.
        examples: what the loss draws from, the same for all members.
    """

    name: str
    steps: int
    optimiser: optax.GradientTransformation
    loss: Loss
    examples: Any


class Windows(NamedTuple):
    """Training episodes on the device: states `[n, T+1, ...]`, actions, disturbances, lengths."""

    states: State
    actions: jax.Array
    disturbances: jax.Array
    length: jax.Array


def windows_of(episodes: Episodes) -> Windows:
    """Bring episodes to the device."""
    return Windows(
        jax.tree.map(jnp.asarray, episodes.states),
        jnp.asarray(episodes.actions),
        jnp.asarray(episodes.disturbances),
        jnp.asarray(episodes.length),
    )


def train(
    parameters: Parameters,
    stages: Sequence[Stage],
    key: jax.Array,
    checkpoints: Checkpoints,
    progress: Progress,
) -> tuple[Parameters, dict[str, np.ndarray]]:
    """Train all members through the stages, resumably.

    Args:
        parameters: stacked, of the members.
        stages: one after the other; their names differ.
        key: of the batches. Stage number n (from 1) and chunk i draw from it folded with n, then i.
        checkpoints: where the training state is kept.
        progress: called before each chunk.

    Returns:
        The parameters, and by stage the exponential of the mean loss of each chunk.
    """
    members, losses = jax.tree.leaves(parameters)[0].shape[0], {}
    for number, stage in enumerate(stages, 1):
        chunks, run = -(-stage.steps // CHUNK), _chunk(stage, members)
        stage_key = jax.random.fold_in(key, number)

        def advance(index: int, state: TrainState, run=run, key=stage_key, stage=stage):
            return run(state, jax.random.fold_in(key, index), index, stage.examples)

        begun = jax.jit(jax.vmap(stage.optimiser.init))(parameters)
        state = TrainState(parameters, begun, jnp.zeros(chunks))
        state = checkpoints.run(stage.name, state, chunks, advance, progress)
        parameters, losses[stage.name] = state.parameters, np.asarray(state.losses)
    return parameters, losses


def _chunk(stage: Stage, members: int) -> Callable:
    """Compile `CHUNK` optimiser steps of all members as one scan."""

    def step(carry: tuple[Parameters, Any], key: jax.Array, examples: Any):
        parameters, state = carry
        keys = jax.random.split(key, members)
        value, gradient = jax.vmap(jax.value_and_grad(stage.loss), in_axes=(0, 0, None))(
            parameters, keys, examples
        )
        update, state = jax.vmap(stage.optimiser.update)(gradient, state, parameters)
        changed: Any = optax.apply_updates(parameters, update)
        return (changed, state), jnp.mean(value)

    @jax.jit
    def run(state: TrainState, key: jax.Array, index: jax.Array, examples: Any) -> TrainState:
        (parameters, optimiser_state), values = jax.lax.scan(
            lambda carry, k: step(carry, k, examples),
            (state.parameters, state.optimiser),
            jax.random.split(key, CHUNK),
        )
        losses = state.losses.at[index].set(jnp.exp(jnp.mean(values)))
        return TrainState(parameters, optimiser_state, losses)

    return run


def log_error(square: jax.Array, counted: jax.Array) -> jax.Array:
    """Return the mean logarithm of squared errors `[n]`, of those that count."""
    return jnp.sum(counted * jnp.log(square + SETTLED)) / jnp.maximum(jnp.sum(counted), 1)


def one_step_loss(surrogate: Surrogate, batch: int) -> Loss:
    """Return the loss of one control period, on `batch` of the inputs and targets `[N, ...]`."""
    learned = surrogate.normaliser.target_std > 0.0

    def loss(member: Parameters, key: jax.Array, data: tuple[jax.Array, jax.Array]) -> jax.Array:
        x, y = data
        index = jax.random.randint(key, (batch,), 0, x.shape[0])
        error = apply_member(surrogate.architecture, member, x[index]) - y[index]
        return log_error(jnp.mean(jnp.square(error), axis=0), learned)

    return loss


def autoregressive_loss(surrogate: Surrogate, batch: int, horizon: int) -> Loss:
    """Return the loss of `horizon` periods on its own predictions, in `batch` windows."""
    layout = surrogate.layout
    changes = surrogate.normaliser.target_std
    velocity = changes[layout.nv : 2 * layout.nv]
    position = changes[: layout.nv] + 0.5 * layout.control_period * velocity
    scale = positive(jnp.concatenate([position, changes[layout.nv :]]))

    def loss(member: Parameters, key: jax.Array, windows: Windows) -> jax.Array:
        episode_key, start_key = jax.random.split(key)
        episode = jax.random.randint(episode_key, (batch,), 0, len(windows.length))
        room = jnp.maximum(windows.length[episode] - horizon, 0)
        uniform = jax.random.uniform(start_key, (batch,))
        start = jnp.floor(uniform * (room + 1)).astype(int)
        inside = windows.length[episode] >= horizon

        def period(state: State, k: jax.Array) -> tuple[State, jax.Array]:
            now = (episode, start + k)
            state = surrogate.step_member(
                member, state, windows.actions[now], windows.disturbances[now]
            )
            true = jax.tree.map(lambda leaf: leaf[episode, start + k + 1], windows.states)
            error = difference(layout.joints, state, true) / scale
            return state, jnp.sum(jnp.square(error) * inside[:, None], axis=0)

        first = jax.tree.map(lambda leaf: leaf[episode, start], windows.states)
        _, errors = jax.lax.scan(period, first, jnp.arange(horizon))
        square = jnp.sum(errors, axis=0) / (jnp.sum(inside) * horizon + 1e-9)
        return log_error(square, jnp.ones_like(square))

    return loss
