"""The training loop of an ensemble, stage by stage, and the losses of both stages.

Both losses are the mean over targets of log(mean squared error), the likelihood of Gaussian errors
whose variance is each target's own: what contacts make unpredictable then does not drown what can
be learned well. In one-step training the mean is a weighted one, the likelihood of errors by
Student's distribution with as many degrees of freedom as targets: nor do a few impacts drown the
other control periods of the same target. With the mean square d of a period's errors, each in units
of its target's, its weight is 1 / (1 + d).

References: Li et al., "Robotic world model", 2025, equation 2 (autoregressive training),
arXiv:2501.10100; Kendall, Gal, Cipolla, "Multi-task learning using uncertainty to weigh losses",
2018, equation 5 with the variances at their optimum, arXiv:1705.07115; Lange, Little, Taylor,
"Robust statistical modeling using the t distribution", 1989, section 2 (weights),
doi:10.1080/01621459.1989.10478852.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from physai.progress import Progress
from physai.state import Array, State, difference
from physai.surrogate.checkpoint import Checkpoints
from physai.surrogate.devices import BATCH, MEMBERS, along, device_mesh
from physai.surrogate.model import Surrogate
from physai.surrogate.network import Parameters, apply_member
from physai.surrogate.normalise import positive

SETTLED = 1e-9  # squared error, in units of a step's change, below which it teaches nothing more
CHUNK = 250  # optimiser steps in one compiled call: progress and Ctrl-C are this fine


class Objective(NamedTuple):
    """What a stage minimises.

    Attributes:
        batch: examples that a member sees in a step.
        draw: called with a key and all examples; returns which ones the member sees, arrays
            `[batch]`.
        loss: called with the parameters of a member, what it drew, and all examples.
    """

    batch: int
    draw: Callable[[jax.Array, Any], Any]
    loss: Callable[[Parameters, Any, Any], jax.Array]


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
        objective: what each member minimises.
        examples: what the objective draws from, the same for all members, as NumPy arrays: they
            are on the devices during their stage only, a copy on each.
    """

    name: str
    steps: int
    optimiser: optax.GradientTransformation
    objective: Objective
    examples: Any


class Windows(NamedTuple):
    """Training episodes: states `[n, T+1, ...]`, actions, disturbances, lengths."""

    states: State
    actions: Array
    disturbances: Array
    length: Array


def train(
    parameters: Parameters,
    stages: Sequence[Stage],
    key: jax.Array,
    checkpoints: Checkpoints,
    progress: Progress,
) -> tuple[Parameters, dict[str, np.ndarray]]:
    """Train all members through the stages, resumably, on all of this process's devices.

    Batches do not depend on the number of devices, so that results agree up to rounding, and a
    training that was stopped may go on with another number.

    Args:
        parameters: stacked, of the members.
        stages: one after the other; their names differ.
        key: of the batches. Stage number n (from 1) and chunk i draw from it folded with n, then i.
        checkpoints: where the training state is kept.
        progress: called before each chunk.

    Returns:
        The parameters, on the default device, and by stage the exponential of the mean loss of
        each chunk.
    """
    losses = {}
    for number, stage in enumerate(stages, 1):
        state = _train_stage(
            parameters, stage, jax.random.fold_in(key, number), checkpoints, progress
        )
        parameters, losses[stage.name] = state.parameters, np.asarray(state.losses)
    return jax.tree.map(jnp.asarray, jax.device_get(parameters)), losses


def _train_stage(
    parameters: Parameters,
    stage: Stage,
    key: jax.Array,
    checkpoints: Checkpoints,
    progress: Progress,
) -> TrainState:
    members, chunks = jax.tree.leaves(parameters)[0].shape[0], -(-stage.steps // CHUNK)
    mesh = device_mesh(members, stage.objective.batch)
    by_member: Any = along(mesh, MEMBERS)
    everywhere: Any = along(mesh)
    placed = TrainState(by_member, by_member, everywhere)
    begun = jax.jit(jax.vmap(stage.optimiser.init))(parameters)
    state = jax.device_put(TrainState(parameters, begun, jnp.zeros(chunks)), placed)
    examples = jax.device_put(stage.examples, everywhere)
    run = _chunk(stage, members, mesh, placed)

    def advance(index: int, state: TrainState) -> TrainState:
        return run(state, jax.random.fold_in(key, index), index, examples)

    return checkpoints.run(stage.name, state, chunks, advance, progress)


def _chunk(stage: Stage, members: int, mesh: Mesh, placed: TrainState) -> Callable:
    """Compile `CHUNK` optimiser steps of all members as one scan, partitioned over the mesh."""
    draw, gradient = stage.objective.draw, jax.value_and_grad(stage.objective.loss)

    def step(carry: tuple[Parameters, Any], key: jax.Array, examples: Any):
        parameters, state = carry
        drawn = jax.vmap(draw, in_axes=(0, None))(jax.random.split(key, members), examples)
        drawn = jax.lax.with_sharding_constraint(drawn, along(mesh, MEMBERS, BATCH))
        value, slope = jax.vmap(gradient, in_axes=(0, 0, None))(parameters, drawn, examples)
        update, state = jax.vmap(stage.optimiser.update)(slope, state, parameters)
        changed: Any = optax.apply_updates(parameters, update)
        return (changed, state), jnp.mean(value)

    @partial(jax.jit, out_shardings=placed)
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


def robust(error: jax.Array, learned: jax.Array) -> jax.Array:
    """Return the weighted mean squares `[nt]` of errors `[n, nt]`; targets not `learned` have none.

    The weights are held fixed where this is differentiated.
    """
    square = jnp.square(error)
    scale = jnp.mean(square, axis=0) + SETTLED
    relative = jnp.sum(learned * square / scale, axis=1) / jnp.maximum(jnp.sum(learned), 1)
    weight = jax.lax.stop_gradient(1.0 / (1.0 + relative))
    return jnp.mean(weight[:, None] * square, axis=0)


def one_step(surrogate: Surrogate, batch: int) -> Objective:
    """Return the objective of one control period, on normalised inputs and targets `[N, ...]`."""
    learned = surrogate.normaliser.target_std > 0.0

    def draw(key: jax.Array, data: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jax.random.randint(key, (batch,), 0, data[0].shape[0])

    def loss(member: Parameters, index: jax.Array, data: tuple[jax.Array, jax.Array]) -> jax.Array:
        x, y = data
        error = apply_member(surrogate.architecture, member, x[index]) - y[index]
        return log_error(robust(error, learned), learned)

    return Objective(batch, draw, loss)


def autoregressive(surrogate: Surrogate, batch: int, horizon: int) -> Objective:
    """Return the objective of `horizon` periods on a member's own predictions, on `Windows`."""
    layout = surrogate.layout
    changes = surrogate.normaliser.target_std
    velocity = changes[layout.nv : 2 * layout.nv]
    position = changes[: layout.nv] + 0.5 * layout.control_period * velocity
    scale = positive(jnp.concatenate([position, changes[layout.nv :]]))

    def draw(key: jax.Array, windows: Windows) -> tuple[jax.Array, jax.Array]:
        episode_key, start_key = jax.random.split(key)
        episode = jax.random.randint(episode_key, (batch,), 0, len(windows.length))
        room = jnp.maximum(windows.length[episode] - horizon, 0)
        uniform = jax.random.uniform(start_key, (batch,))
        return episode, jnp.floor(uniform * (room + 1)).astype(int)

    def loss(member: Parameters, drawn: tuple[jax.Array, jax.Array], windows: Windows) -> jax.Array:
        episode, start = drawn
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

    return Objective(batch, draw, loss)
