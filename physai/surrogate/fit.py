"""Fit an ensemble to recorded episodes, one control period at a time.

Members are independent: each has its own initial weights and draws its own batches.

References: Chua et al., "Deep reinforcement learning in a handful of trials using probabilistic
dynamics models", 2018, section 4 (ensembles), arXiv:1805.12114; Jordan et al., "Muon: an optimizer
for hidden layers in neural networks", 2024. Those of the loss: see `physai.surrogate.train`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.contrib import muon

from physai.progress import Progress, silent
from physai.rollout.dataset import Episodes
from physai.settings import check_number, check_whole
from physai.surrogate.augment import with_images
from physai.surrogate.bounds import fit_bounds, recorded
from physai.surrogate.calibration import calibrate
from physai.surrogate.checkpoint import Checkpoints
from physai.surrogate.devices import record_of
from physai.surrogate.domain import fit_domain
from physai.surrogate.features import Layout
from physai.surrogate.inherit import taken_over
from physai.surrogate.known import Known
from physai.surrogate.model import Surrogate
from physai.surrogate.network import Architecture, init_ensemble
from physai.surrogate.normalise import normalised, normaliser_of, transitions
from physai.surrogate.pace import paced
from physai.surrogate.scaling import Calibration
from physai.surrogate.train import Stage, one_step, train


@dataclass(frozen=True)
class FitSettings:
    """How to fit.

    Attributes:
        members: independent networks in the ensemble.
        width, depth: of each network.
        steps: optimiser steps, rounded up to a multiple of 250.
        batch: transitions a member sees in a step.
        learning_rate: peak of the cosine schedule.
        equations: let the smooth rigid-body equations of the model predict what they can, where
            they explain at least 90% of the variance of velocity changes, and learn the rest.
        calibrated_horizon: horizons 1 to this get an interval.
        stride: control periods between the windows that calibration cuts from an episode.
    """

    members: int = 4
    width: int = 128
    depth: int = 2
    steps: int = 6_000
    batch: int = 1024
    learning_rate: float = 1e-2
    equations: bool = True
    calibrated_horizon: int = 50
    stride: int = 5

    def __post_init__(self) -> None:
        """Refuse what cannot be fitted."""
        check_whole(self, "members", "width", "depth", "steps", "batch", least=1)
        check_whole(self, "calibrated_horizon", "stride", least=1)
        check_number(self, "learning_rate", above=0.0)


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
        training: what gradients see, and the images that the layout names of it.
        calibration: what the intervals, the domain's edge and the bound on the pace are made from.
        settings: how.
        seed: of weights and batches.
        checkpoints: where to keep the resumable state (None: nowhere).
        start: a surrogate of the same inputs and targets to go on from, whose sizes the settings
            are then of no use for (None: fresh weights).
        progress: called as training goes on.
        known: what is known, as `prior` returns it with the layout.

    Returns:
        The calibrated surrogate, and by stage the geometric mean, over targets and steps, of the
        relative squared error of each 250 steps.
    """
    key = jax.random.key(seed)
    training = with_images(training, layout.images)
    surrogate, velocity, data = _begun(layout, known, training, calibration, settings, start, key)
    stage = stage_of(surrogate, data, settings)
    parameters, losses = train(
        surrogate.parameters, stage, key, checkpoints or Checkpoints(None), progress
    )
    surrogate = replace(surrogate, parameters=parameters)
    progress("calibrate", 0, 1)
    flown = settings.calibrated_horizon, settings.stride
    surrogate = paced(surrogate, velocity, calibration, *flown)
    intervals = calibrate(surrogate, calibration, *flown)
    progress("calibrate", 1, 1)
    return replace(surrogate, calibration=intervals), losses


def _begun(
    layout: Layout,
    known: Known | None,
    training: Episodes,
    calibration: Episodes,
    settings: FitSettings,
    start: Surrogate | None,
    key: jax.Array,
) -> tuple[Surrogate, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return the surrogate before training, recorded velocities, normalised inputs and targets."""
    x, y = transitions(layout, training, known)
    normaliser = normaliser_of(layout, known, training, x, y)
    qpos, velocity = recorded(layout, known, training)
    bounds = fit_bounds(layout, qpos, velocity)
    if start is None:
        sizes = x.shape[-1], y.shape[-1], settings.width, settings.depth
        architecture = Architecture(*sizes, len(layout.design_low))
        parameters = init_ensemble(architecture, settings.members, jax.random.fold_in(key, 0))
    else:
        architecture = start.architecture
        parameters, normaliser = taken_over(start, normaliser, y)
        bounds = bounds.around(start.bounds)
    surrogate = Surrogate(
        parameters=parameters,
        normaliser=normaliser,
        bounds=bounds,
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
    return surrogate, velocity, jax.device_get(normalised(normaliser, x, y))


def uncalibrated(layout: Layout) -> Calibration:
    """Return intervals that promise nothing."""
    return Calibration(jnp.ones((1, layout.nt)), jnp.full((1, layout.nt), jnp.inf))


def stage_of(
    surrogate: Surrogate, data: tuple[np.ndarray, np.ndarray], settings: FitSettings
) -> Stage:
    """Return training on normalised inputs and targets."""
    rate = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, min(200, settings.steps // 2), settings.steps, 1e-5
    )
    return Stage("fit", settings.steps, muon(rate), one_step(surrogate, settings.batch), data)


def devices_of(surrogate: Surrogate, settings: FitSettings) -> dict[str, Any]:
    """Return which devices the fit of `surrogate` takes here, for its card."""
    return record_of(surrogate.members, settings.batch)
