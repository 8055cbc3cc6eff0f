"""The training loop of an ensemble, and what it minimises.

The loss is the mean over targets of log(mean squared error), the likelihood of Gaussian errors
whose variance is each target's own: what contacts make unpredictable then does not drown what can
be learned well. The mean is a weighted one, the likelihood of errors by Student's distribution with
as many degrees of freedom as targets: nor do a few impacts drown the other control periods of the
same target. With the mean square d of a period's errors, each in units of its target's, its weight
is 1 / (1 + d).

References: Kendall, Gal, Cipolla, "Multi-task learning using uncertainty to weigh losses",
2018, equation 5 with the variances at their optimum, arXiv:1705.07115; Lange, Little, Taylor,
"Robust statistical modeling using the t distribution", 1989, section 2 (weights),
doi:10.1080/01621459.1989.10478852.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from physai.progress import Progress
from physai.surrogate.checkpoint import Checkpoints
from physai.surrogate.devices import BATCH, MEMBERS, along, device_mesh
from physai.surrogate.model import Surrogate
from physai.surrogate.network import Parameters, apply_member

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
    """What is trained, and how: an ensemble, or its readout of sensors.

    Attributes:
        name: in progress, checkpoints and the record of losses.
        steps: optimiser steps, rounded up to a multiple of `CHUNK`.
        optimiser: of each member.
        objective: what each member minimises.
        examples: what the objective draws from, the same for all members, as NumPy arrays: they
            are on the devices during training only, a copy on each.
    """

    name: str
    steps: int
    optimiser: optax.GradientTransformation
    objective: Objective
    examples: Any


def train(
    parameters: Parameters,
    stage: Stage,
    key: jax.Array,
    checkpoints: Checkpoints,
    progress: Progress,
) -> tuple[Parameters, dict[str, np.ndarray]]:
    """Train all members, resumably, on all of this process's devices.

    Batches do not depend on the number of devices, so that results agree up to rounding, and a
    training that was stopped may go on with another number.

    Args:
        parameters: stacked, of the members.
        stage: what is done.
        key: of the batches. Chunk i draws from it folded with 1, then i.
        checkpoints: where the training state is kept.
        progress: called before each chunk.

    Returns:
        The parameters, on the default device, and by the stage's name the exponential of the mean
        loss of each chunk.
    """
    members, chunks = jax.tree.leaves(parameters)[0].shape[0], -(-stage.steps // CHUNK)
    key = jax.random.fold_in(key, 1)  # the key itself makes initial weights
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

    done = checkpoints.run(stage.name, state, chunks, advance, progress)
    trained = jax.tree.map(jnp.asarray, jax.device_get(done.parameters))
    return trained, {stage.name: np.asarray(done.losses)}


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
