"""Fit the readout of sensors: on true states, with the members and sizes of the surrogate.

It minimises the mean over channels of the logarithm of the mean squared error, as the surrogate's
own fit does; of a sparse channel that of the periods in which it is not 0, and beside it the
logarithm of the mean cross entropy of being so.

What contacts make of an acceleration is partly noise to a network, and what it learned of it may be
worse than the mean. Predictions y of a channel are therefore shrunk towards its mean m, to
m + a (y - m), with the factor a between 0 and 1 that fits episodes best which training did not see.

Reference: Copas, "Regression, prediction and shrinkage", 1983, section 3,
doi:10.1111/j.2517-6161.1983.tb01258.x.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.contrib import muon

from physai.plant import Plant
from physai.progress import Progress, silent
from physai.rollout.dataset import Episodes
from physai.rollout.engine import TruePlant
from physai.rollout.symmetry import shifting, turned_states, turned_vectors
from physai.state import State
from physai.surrogate.checkpoint import Checkpoints
from physai.surrogate.features import Layout
from physai.surrogate.fit import FitSettings
from physai.surrogate.inputs import inputs
from physai.surrogate.known import Known
from physai.surrogate.model import Surrogate
from physai.surrogate.network import (
    Architecture,
    Parameters,
    apply_ensemble,
    apply_member,
    init_ensemble,
)
from physai.surrogate.normalise import positive
from physai.surrogate.prior import periods
from physai.surrogate.readout import Frame, SensorReadout, to_root
from physai.surrogate.scaling import TARGET_MARGIN, Calibration, Normaliser
from physai.surrogate.sensed import calibrate_readout
from physai.surrogate.train import CHUNK, Objective, Stage, log_error, train

SHARE = 1.0 / 3.0  # of the surrogate's steps of one-step training
SPARSE = 0.05  # share of readings that are exactly 0 above which a channel is a sparse one
CONSTANT = 8.0 * float(np.finfo(np.float32).eps)  # of a sensor's size, below which nothing changes
HELD_OUT = 10  # every tenth training episode is kept for shrinking, where there are as many
LOGIT_LIMIT = 16.0
TRIED = 32  # states that are moved to see what the sensors depend on
MOVED = 3.0  # m, and rad
DEPENDS = 1e-3  # change of a reading, relative to its spread, above which it depends on a motion


def fit_readout(
    surrogate: Surrogate,
    plant: Plant,
    training: Episodes,
    calibration: Episodes,
    settings: FitSettings,
    seed: int,
    checkpoints: Checkpoints | None = None,
    progress: Progress = silent,
) -> tuple[Surrogate, np.ndarray]:
    """Fit what sensors tell of states, and calibrate it along the surrogate's own flights.

    Args:
        surrogate: fitted and calibrated.
        plant: whose sensors the episodes record.
        training, calibration: as those of `fit_ensemble`, with sensors.
        settings: of the surrogate; a third of its one-step training is spent.
        seed: of weights and batches.
        checkpoints: where to keep the resumable state (None: nowhere).
        progress: called as training goes on.

    Returns:
        The surrogate with its readout, and the geometric mean, over outputs and steps, of the
        relative error of each 250 steps.
    """
    frames = frames_of(plant)
    layout = seen_layout(plant, surrogate.layout, frames, training)
    x, y = _pairs(layout, surrogate.known, frames, training)
    kept = _held_out(training)
    sparse = _sparse(np.asarray(y), frames)
    normaliser = _normaliser(plant, x, y, sparse)
    outputs = y.shape[1] + len(sparse)
    architecture = Architecture(x.shape[1], outputs, settings.width, settings.depth)
    key = jax.random.fold_in(jax.random.key(seed), 100)
    blank = jnp.ones((1, y.shape[1]))
    readout = SensorReadout(
        parameters=init_ensemble(architecture, surrogate.members, jax.random.fold_in(key, 0)),
        normaliser=normaliser,
        calibration=Calibration(blank, jnp.full_like(blank, jnp.inf)),
        layout=layout,
        architecture=architecture,
        frames=frames,
        sparse=sparse,
    )
    stage = _stage(readout, x[~kept], y[~kept], settings)
    kept_state = checkpoints or Checkpoints(None)
    parameters, losses = train(readout.parameters, stage, key, kept_state, progress)
    readout = replace(readout, parameters=parameters)
    if kept.any():
        readout = _shrunk(readout, x[kept], y[kept])
    told = replace(surrogate, readout=readout)
    intervals = calibrate_readout(told, calibration, settings.calibrated_horizon, settings.stride)
    return replace(told, readout=replace(readout, calibration=intervals)), losses["readout"]


def frames_of(plant: Plant) -> tuple[Frame, ...]:
    """Return which channels are told in the world's frame by sensors of free-floating trees."""
    found, first = [], 0
    for sensor in plant.sensors:
        found += [
            Frame(kind, first + address - sensor.address, root)
            for kind, address, root in sensor.frames
        ]
        first += len(sensor.channels)
    return tuple(found)


def seen_layout(
    plant: Plant, layout: Layout, frames: tuple[Frame, ...], training: Episodes
) -> Layout:
    """Return the surrogate's layout with those positions added that the sensors depend on.

    What the dynamics do not depend on is left out of the surrogate's inputs. Whether the sensors
    depend on it is found by moving recorded states and reading them anew in MuJoCo.
    """
    free = [joint for joint in plant.joints if joint.kind == "free"]
    trial = _Trial(plant, frames, training)
    axes = "".join(
        axis
        for i, axis in enumerate("xyz")
        if axis in layout.position_axes
        or (free and trial.depends(shifting([j.qpos_index + i for j in free], trial.shifts)))
    )
    heading = layout.heading_invariant
    if heading and free:
        angles = trial.shifts[: len(free)]
        gusts = turned_vectors(plant, trial.disturbances[:, None], angles[0])[:, 0]
        heading = not trial.depends(lambda s, start: turned_states(free, s, start, angles), gusts)
    whole = 2.0 * np.pi * np.ones_like(trial.shifts[:1])
    return replace(
        layout,
        position_axes=axes,
        heading_invariant=heading,
        idle=tuple(i for i in layout.idle if not trial.depends(shifting([i], trial.shifts))),
        turns=tuple(i for i in layout.turns if not trial.depends(shifting([i], whole))),
        images=(),  # which say nothing of sensors
    )


class _Trial:
    """Recorded states, and what moving them does to the readings."""

    def __init__(self, plant: Plant, frames: tuple[Frame, ...], training: Episodes) -> None:
        rng = np.random.default_rng(0)
        _, actions, disturbances, after = periods(training)
        few = rng.choice(len(actions), min(len(actions), TRIED), replace=False)
        self.state = jax.tree.map(lambda leaf: np.asarray(leaf[few], float), after)
        self.actions, self.disturbances = actions[few], disturbances[few]
        self.shifts = rng.uniform(0.5, 1.0, (max(1, len(plant.joints)), len(few))) * MOVED
        self._frames = frames
        self._simulator = TruePlant(plant, len(few), self.state.design)
        self._plain = self._read(self.state, self.disturbances)
        spread = np.nanstd(self._plain, axis=0)
        size = np.nanmax(np.abs(self._plain), axis=0, initial=0.0)
        self._scale = np.maximum(spread, CONSTANT / DEPENDS * size + 1e-9)

    def depends(
        self, move: Callable[[State, State], State], disturbances: np.ndarray | None = None
    ) -> bool:
        """Tell whether moving the states changes the readings in their roots' frames."""
        moved = move(self.state, self.state)
        read = self._read(moved, self.disturbances if disturbances is None else disturbances)
        return bool(np.nanmax(np.abs(read - self._plain) / self._scale, initial=0.0) > DEPENDS)

    def _read(self, state: State, disturbances: np.ndarray) -> np.ndarray:
        read = self._simulator.sense_at(state, self.actions, disturbances)
        return np.asarray(to_root(self._frames, state, read))


def _pairs(
    layout: Layout, known: Known | None, frames: tuple[Frame, ...], episodes: Episodes
) -> tuple[jax.Array, jax.Array]:
    """Return raw inputs `[N, ni]` and readings in their roots' frames `[N, ns]`."""
    assert episodes.sensors is not None
    valid = np.arange(episodes.actions.shape[1]) < episodes.length[:, None]
    _, actions, disturbances, after = jax.tree.map(jnp.asarray, periods(episodes))
    read = jnp.asarray(episodes.sensors[valid])
    x = jax.jit(partial(inputs, layout))(known, after, actions, disturbances)
    return x, jax.jit(partial(to_root, frames))(after, read)


def _held_out(episodes: Episodes) -> np.ndarray:
    """Tell which valid periods `[N]` are of episodes that training does not see."""
    valid = np.arange(episodes.actions.shape[1]) < episodes.length[:, None]
    return np.nonzero(valid)[0] % HELD_OUT == HELD_OUT - 1


def _shrunk(readout: SensorReadout, x: jax.Array, y: jax.Array) -> SensorReadout:
    """Shrink predictions towards the mean, by raw inputs and readings that training did not see."""
    scales, ns = readout.normaliser, readout.ns
    told = jax.jit(apply_ensemble, static_argnums=0)(
        readout.architecture, readout.parameters, scales.inputs(x)
    ).mean(axis=0)[:, :ns]
    limit = scales.target_limit[:ns]
    told = jnp.clip(told, -limit, limit)
    counted = (y != 0.0) | _always(readout)
    wanted = (y - scales.target_mean[:ns]) / positive(scales.target_std[:ns])
    square = jnp.sum(counted * jnp.square(told), axis=0)
    factor = jnp.sum(counted * told * wanted, axis=0) / positive(square)
    factor = jnp.where(square > 0.0, jnp.clip(factor, 0.0, 1.0), 1.0)
    std = scales.target_std.at[:ns].multiply(factor)
    return replace(readout, normaliser=replace(scales, target_std=std))


def _always(readout: SensorReadout) -> jax.Array:
    """Tell which channels `[ns]` count in every period, 0 or not."""
    return jnp.ones(readout.ns, bool).at[jnp.array(readout.sparse, int)].set(False)


def _sparse(readings: np.ndarray, frames: tuple[Frame, ...]) -> tuple[int, ...]:
    """Return the channels that are exactly 0 for a while, and not always."""
    zero = (readings == 0.0).mean(axis=0)
    framed = {f.channel + k for f in frames for k in range(4 if f.kind == "quaternion" else 3)}
    return tuple(c for c in range(readings.shape[1]) if SPARSE <= zero[c] < 1.0 and c not in framed)


def _normaliser(plant: Plant, x: jax.Array, y: jax.Array, sparse: tuple[int, ...]) -> Normaliser:
    """Scale inputs and readings by their standard deviations, a sparse one's where it is not 0."""
    x_mean, x_std = x.mean(0), x.std(0)
    still = x_std <= 1e-7 * jnp.abs(x_mean) + 1e-12
    counted = np.ones(y.shape, bool)
    counted[:, list(sparse)] = np.asarray(y)[:, list(sparse)] != 0.0
    weight = jnp.asarray(counted / counted.sum(axis=0))
    mean = jnp.sum(weight * y, axis=0)
    std = jnp.sqrt(jnp.sum(weight * jnp.square(y - mean), axis=0))
    std = jnp.where(std <= smallest(plant, np.asarray(y)), 0.0, std)
    largest = jnp.max(jnp.abs(y - mean) * counted, axis=0)
    limit = TARGET_MARGIN * largest / positive(std)
    ones = jnp.ones(len(sparse))
    return Normaliser(
        x_mean,
        jnp.where(still, 1.0, x_std),
        jnp.concatenate([mean, 0.0 * ones]),
        jnp.concatenate([std, ones]),
        jnp.concatenate([limit, LOGIT_LIMIT * ones]),
    )


def smallest(plant: Plant, readings: np.ndarray) -> np.ndarray:
    """Return below what changes `[ns]` of readings `[n, ns]` are rounding, by a sensor's size."""
    size, first = np.abs(readings).max(axis=0), 0
    for sensor in plant.sensors:
        part = slice(first, first + len(sensor.channels))
        size[part] = size[part].max()
        first = part.stop
    return CONSTANT * size + 1e-12


def _stage(readout: SensorReadout, x: jax.Array, y: jax.Array, settings: FitSettings) -> Stage:
    """Return the training on raw inputs `[N, ni]` and readings `[N, ns]`."""
    steps = max(1, round(SHARE * settings.steps / CHUNK)) * CHUNK
    rate = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, min(200, steps // 2), steps, 1e-5
    )
    normaliser = readout.normaliser
    mean, std = (a[: readout.ns] for a in (normaliser.target_mean, normaliser.target_std))
    data = jax.device_get((normaliser.inputs(x), (y - mean) / positive(std), y != 0.0))
    return Stage("readout", steps, muon(rate), _objective(readout, settings.batch), data)


def _objective(readout: SensorReadout, batch: int) -> Objective:
    ns, sparse = readout.ns, jnp.array(readout.sparse, int)
    learned = readout.normaliser.target_std > 0.0
    always = _always(readout)

    def draw(key: jax.Array, data: tuple[jax.Array, ...]) -> jax.Array:
        return jax.random.randint(key, (batch,), 0, data[0].shape[0])

    def loss(member: Parameters, index: jax.Array, data: tuple[jax.Array, ...]) -> jax.Array:
        x, y, other = data
        out = apply_member(readout.architecture, member, x[index])
        counted = other[index] | always
        square = jnp.square(out[:, :ns] - y[index]) * counted
        square = jnp.sum(square, axis=0) / jnp.maximum(jnp.sum(counted, axis=0), 1)
        told = other[index][:, sparse]
        entropy = jnp.mean(optax.sigmoid_binary_cross_entropy(out[:, ns:], told), axis=0)
        return log_error(jnp.concatenate([square, entropy]), learned)

    return Objective(batch, draw, loss)
