"""Fit an ensemble to recorded episodes: one-step training, then fine-tuning on its own predictions.

Members are independent: each has its own initial weights and draws its own batches. The second
stage differentiates through `horizon` autoregressive steps, so that errors that would add up are
trained away.

Both stages minimise the mean over targets of log(mean squared error), the likelihood of Gaussian
errors whose variance is each target's own: what contacts make unpredictable then does not drown
what can be learned well.

References: Chua et al., "Deep reinforcement learning in a handful of trials using probabilistic
dynamics models", 2018, section 4 (ensembles), arXiv:1805.12114; Jordan et al., "Muon: an optimizer
for hidden layers in neural networks", 2024; Li et al., "Robotic world model", 2025, equation 2
(autoregressive training), arXiv:2501.10100; Kendall, Gal, Cipolla, "Multi-task learning using
uncertainty to weigh losses", 2018, equation 5 with the variances at their optimum,
arXiv:1705.07115.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.contrib import muon

from physai.progress import Progress, silent
from physai.rollout.dataset import Episodes
from physai.settings import check_number, check_whole
from physai.state import State, difference
from physai.surrogate.bounds import fit_bounds
from physai.surrogate.calibration import calibrate
from physai.surrogate.checkpoint import Checkpoints
from physai.surrogate.domain import fit_domain
from physai.surrogate.features import Layout, inputs, targets
from physai.surrogate.known import Known
from physai.surrogate.model import Surrogate
from physai.surrogate.network import Architecture, Parameters, apply_member, init_ensemble
from physai.surrogate.prior import PROBE, centred, periods, told
from physai.surrogate.scaling import TARGET_MARGIN, Calibration, Normaliser

ROUNDED = 64  # episodes on which the record's rounding is measured
DROWNED = 5.0  # times the rounding below which a target holds nothing to learn
SETTLED = 1e-9  # squared error, in units of a step's change, below which it teaches nothing more
CHUNK = 250  # optimiser steps in one compiled call: progress and Ctrl-C are this fine


@dataclass(frozen=True)
class FitSettings:
    """How to fit.

    Attributes:
        members: independent networks in the ensemble.
        width, depth: of each network.
        steps: optimiser steps of one-step training, rounded up to a multiple of 250.
        batch: transitions a member sees in a step.
        learning_rate: peak of the cosine schedule of one-step training.
        fine_steps: optimiser steps of multi-step fine-tuning, rounded up likewise; 0: none.
        fine_batch: windows a member sees in a fine-tuning step.
        fine_horizon: control periods in a window.
        fine_rate: initial learning rate of fine-tuning.
        equations: let the smooth rigid-body equations of the model predict what they can, where
            they explain at least 90% of the variance of velocity changes, and learn the rest.
        calibrated_horizon: horizons 1 to this get an interval.
        stride: control periods between the windows that calibration cuts from an episode.
    """

    members: int = 4
    width: int = 64
    depth: int = 2
    steps: int = 9_000
    batch: int = 256
    learning_rate: float = 1e-2
    fine_steps: int = 1_000
    fine_batch: int = 64
    fine_horizon: int = 25
    fine_rate: float = 2e-4
    equations: bool = False
    calibrated_horizon: int = 50
    stride: int = 5

    def __post_init__(self) -> None:
        """Refuse what cannot be fitted."""
        check_whole(self, "members", "width", "depth", "steps", "batch", least=1)
        check_whole(self, "fine_batch", "fine_horizon", "calibrated_horizon", "stride", least=1)
        check_whole(self, "fine_steps", least=0)
        check_number(self, "learning_rate", "fine_rate", above=0.0)


class TrainState(NamedTuple):
    """What a checkpoint holds: parameters, optimiser states, losses so far `[chunks]`."""

    parameters: Parameters
    optimiser: Any
    losses: jax.Array


class Windows(NamedTuple):
    """Training episodes on the device: states `[n, T+1, ...]`, actions, disturbances, lengths."""

    states: State
    actions: jax.Array
    disturbances: jax.Array
    length: jax.Array


def fit_ensemble(
    layout: Layout,
    training: Episodes,
    calibration: Episodes,
    settings: FitSettings,
    seed: int,
    checkpoints: Checkpoints | None = None,
    start: Surrogate | None = None,
    progress: Progress = silent,
    known: Known | None = None,
) -> tuple[Surrogate, dict[str, np.ndarray]]:
    """Fit an ensemble.

    Args:
        layout: from `layout_of`.
        training: what gradients see.
        calibration: what the intervals and the domain's edge are made from.
        settings: how.
        seed: of weights and batches.
        checkpoints: where to keep the resumable state (None: nowhere).
        start: a surrogate of the same architecture to go on from (None: fresh weights).
        progress: called as training goes on.
        known: what is known, as `prior` returns it with the layout.

    Returns:
        The calibrated surrogate, and by stage the geometric mean, over targets and steps, of the
        relative squared error of each 250 steps.
    """
    x, y = transitions(layout, training, known)
    normaliser = (
        start.normaliser if start is not None else normaliser_of(layout, known, training, x, y)
    )
    architecture = Architecture(x.shape[-1], y.shape[-1], settings.width, settings.depth)
    data = normalised(normaliser, x, y)
    key = jax.random.key(seed)
    surrogate = Surrogate(
        parameters=start.parameters
        if start is not None
        else init_ensemble(architecture, settings.members, jax.random.fold_in(key, 0)),
        normaliser=normaliser,
        bounds=fit_bounds(layout, known, training),
        calibration=uncalibrated(layout),
        domain=fit_domain(
            np.asarray(x),
            np.asarray(transitions(layout, calibration, known)[0]),
            calibration.length,
        ),
        layout=layout,
        architecture=architecture,
        known=known,
    )
    windows = Windows(
        jax.tree.map(jnp.asarray, training.states),
        jnp.asarray(training.actions),
        jnp.asarray(training.disturbances),
        jnp.asarray(training.length),
    )
    surrogate, losses = _train(
        surrogate, data, windows, settings, key, checkpoints or Checkpoints(None), progress
    )
    progress("calibrate", 0, 1)
    intervals = calibrate(surrogate, calibration, settings.calibrated_horizon, settings.stride)
    progress("calibrate", 1, 1)
    return replace(surrogate, calibration=intervals), losses


def transitions(
    layout: Layout, episodes: Episodes, known: Known | None = None
) -> tuple[jax.Array, jax.Array]:
    """Return raw inputs `[N, ni]` and targets `[N, nt]` of all valid control periods.

    States are seen centred, and the targets are what the equations leave, as the layout says.
    """

    def pair_of(period: tuple[State, jax.Array, jax.Array, State]) -> tuple[jax.Array, jax.Array]:
        state, action, disturbance, after = period
        seen, reached = (centred(layout, known, s) for s in (state, after))
        y = targets(layout, seen, reached)
        if known is not None and layout.equations:
            y -= told(layout, known, state, action, disturbance)
        return inputs(layout, state, action, disturbance), y

    every = jax.tree.map(jnp.asarray, periods(episodes))
    if not layout.equations:
        return jax.jit(pair_of)(every)
    # In batches: the joint-space inertias of all periods at once would be large.
    return jax.jit(partial(jax.lax.map, pair_of, batch_size=PROBE))(every)


def normaliser_of(
    layout: Layout, known: Known | None, training: Episodes, x: jax.Array, y: jax.Array
) -> Normaliser:
    """Scale inputs `[N, ni]` and targets `[N, nt]` by their standard deviations.

    A constant input keeps its unit scale. A target that is constant, or little more than what the
    record's rounding makes of it, gets 0: its mean alone is predicted, as there is nothing to
    learn, and the noise would drown what the other targets teach.
    """
    x_mean, y_mean, x_std, y_std = x.mean(0), y.mean(0), x.std(0), y.std(0)
    constant = x_std <= 1e-7 * jnp.abs(x_mean) + 1e-12
    noise = rounding(layout, known, training)
    idle = y_std <= jnp.maximum(DROWNED * noise, 1e-7 * jnp.abs(y_mean) + 1e-12)
    y_std = jnp.where(idle, 0.0, y_std)
    limit = TARGET_MARGIN * jnp.max(jnp.abs(y - y_mean), axis=0) / positive(y_std)
    return Normaliser(x_mean, jnp.where(constant, 1.0, x_std), y_mean, y_std, limit)


def rounding(layout: Layout, known: Known | None, training: Episodes) -> jax.Array:
    """Return what moving recorded states by float32's rounding changes in the targets `[nt]`."""
    rng = np.random.default_rng(0)
    few = rng.choice(len(training.length), min(len(training.length), ROUNDED), replace=False)
    part = jax.tree.map(lambda leaf: leaf[few], training)

    def moved(values: np.ndarray) -> np.ndarray:
        size = np.sqrt(np.mean(np.square(values), axis=(0, 1)))
        nudge = rng.uniform(-1.0, 1.0, values.shape) * np.finfo(np.float32).eps * size
        return (values + nudge).astype(np.float32)

    states = part.states.replace(qpos=moved(part.states.qpos), qvel=moved(part.states.qvel))
    shaken = replace(part, states=states)
    both = jax.tree.map(lambda *parts: np.concatenate(parts), part, shaken)  # compiled once
    moved_by = jnp.diff(jnp.stack(jnp.split(transitions(layout, both, known)[1], 2)), axis=0)[0]
    return jnp.std(moved_by, axis=0)


def normalised(normaliser: Normaliser, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return inputs and targets in units of their scales; targets that have none are 0."""
    scaled = (y - normaliser.target_mean) / positive(normaliser.target_std)
    return normaliser.inputs(x), jnp.where(normaliser.target_std > 0.0, scaled, 0.0)


def positive(scale: jax.Array) -> jax.Array:
    return jnp.where(scale > 0.0, scale, 1.0)


def uncalibrated(layout: Layout) -> Calibration:
    """Return intervals that promise nothing."""
    return Calibration(jnp.ones((1, layout.nt)), jnp.full((1, layout.nt), jnp.inf))


def _train(
    surrogate: Surrogate,
    data: tuple[jax.Array, jax.Array],
    windows: Windows,
    settings: FitSettings,
    key: jax.Array,
    checkpoints: Checkpoints,
    progress: Progress,
) -> tuple[Surrogate, dict[str, np.ndarray]]:
    rate = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, min(200, settings.steps // 2), settings.steps, 1e-5
    )
    fine_rate = optax.cosine_decay_schedule(settings.fine_rate, max(settings.fine_steps, 1))
    one_step, fine = muon(rate), optax.adam(fine_rate)
    stages = (
        ("fit", settings.steps, one_step, _one_step_loss(surrogate, settings), data),
        ("fine-tune", settings.fine_steps, fine, _fine_loss(surrogate, settings), windows),
    )
    parameters, losses = surrogate.parameters, {}
    for number, (name, steps, optimiser, loss, examples) in enumerate(stages):
        chunks = -(-steps // CHUNK)
        run = chunk(optimiser, loss, settings.members)
        stage_key = jax.random.fold_in(key, 1 + number)

        def advance(index: int, state: TrainState, run=run, key=stage_key, examples=examples):
            return run(state, jax.random.fold_in(key, index), index, examples)

        state = TrainState(
            parameters, jax.jit(jax.vmap(optimiser.init))(parameters), jnp.zeros(chunks)
        )
        state = checkpoints.run(name, state, chunks, advance, progress)
        parameters, losses[name] = state.parameters, np.asarray(state.losses)
    return replace(surrogate, parameters=parameters), losses


def chunk(optimiser: optax.GradientTransformation, loss: Callable, members: int) -> Callable:
    """Compile `CHUNK` optimiser steps of all members as one scan."""

    def step(carry: tuple[Parameters, Any], key: jax.Array, examples: Any):
        parameters, state = carry
        keys = jax.random.split(key, members)
        value, gradient = jax.vmap(jax.value_and_grad(loss), in_axes=(0, 0, None))(
            parameters, keys, examples
        )
        update, state = jax.vmap(optimiser.update)(gradient, state, parameters)
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


def _one_step_loss(surrogate: Surrogate, settings: FitSettings) -> Callable:
    learned = surrogate.normaliser.target_std > 0.0

    def loss(member: Parameters, key: jax.Array, data: tuple[jax.Array, jax.Array]) -> jax.Array:
        x, y = data
        index = jax.random.randint(key, (settings.batch,), 0, x.shape[0])
        error = apply_member(surrogate.architecture, member, x[index]) - y[index]
        return log_error(jnp.mean(jnp.square(error), axis=0), learned)

    return loss


def _fine_loss(surrogate: Surrogate, settings: FitSettings) -> Callable:
    layout, horizon = surrogate.layout, settings.fine_horizon
    changes = surrogate.normaliser.target_std
    velocity = changes[layout.nv : 2 * layout.nv]
    position = changes[: layout.nv] + 0.5 * layout.control_period * velocity
    scale = positive(jnp.concatenate([position, changes[layout.nv :]]))

    def loss(member: Parameters, key: jax.Array, windows: Windows) -> jax.Array:
        episode_key, start_key = jax.random.split(key)
        episode = jax.random.randint(episode_key, (settings.fine_batch,), 0, len(windows.length))
        room = jnp.maximum(windows.length[episode] - horizon, 0)
        uniform = jax.random.uniform(start_key, (settings.fine_batch,))
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
