"""Fit a surrogate to datasets, score it, and write both as artefacts."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from physai.errors import InputError
from physai.plant import Plant
from physai.progress import Progress, silent
from physai.provenance import (
    Source,
    atomic_folder,
    atomic_write,
    locate,
    sha256_source,
    write_json,
    write_manifest,
)
from physai.rollout.dataset import Dataset, Episodes
from physai.surrogate.baseline import linear_surrogate
from physai.surrogate.checkpoint import Checkpoints
from physai.surrogate.features import layout_of
from physai.surrogate.fit import CHUNK, FitSettings, fit_ensemble
from physai.surrogate.horizon import parse_tolerance
from physai.surrogate.model import Surrogate
from physai.surrogate.prior import prior
from physai.surrogate.readout_fit import fit_readout
from physai.surrogate.score import ScoreSettings, score
from physai.surrogate.store import load_surrogate, save_surrogate

CURVE = "fit.csv"


def fit(
    plant: Plant,
    datasets: Sequence[Dataset],
    folder: str | Path,
    settings: FitSettings | None = None,
    seed: int = 0,
    start: str | Path | None = None,
    progress: Progress = silent,
) -> Surrogate:
    """Fit an ensemble to the datasets' training episodes, resumably, and write it to `folder`.

    The training state is kept in `<folder>.training` until the surrogate is done.

    Args:
        plant: the machine that the datasets were recorded on.
        datasets: at least one.
        folder: of the surrogate.
        settings: how to fit.
        seed: of weights and batches.
        start: folder of a surrogate to go on from (None: fresh weights).
        progress: called as training goes on.

    Raises:
        InputError: no dataset, too few valid steps, or a damaged training state.
    """
    folder, settings = Path(folder), settings or FitSettings()
    if not datasets:
        raise InputError("fit: expected at least one dataset, got none")
    training, calibration = _joined(datasets)
    _check_lengths(calibration, settings)
    layout = layout_of(plant, datasets[0].symmetry)
    begin = None if start is None else load_surrogate(start, plant)
    layout, known, explained = prior(plant, layout, training, settings.equations)
    if begin is not None:
        layout, known = begin.layout, begin.known
    inputs = fit_inputs(datasets, start)
    identity = {
        "settings": asdict(settings),
        "seed": seed,
        "inputs": {role: sha256_source(locate(source)) for role, source in inputs.items()},
    }
    checkpoints = Checkpoints(folder.with_name(f"{folder.name}.training"), identity)
    surrogate, losses = fit_ensemble(
        layout,
        training,
        calibration,
        settings,
        seed,
        checkpoints,
        begin,
        progress,
        known,
    )
    if plant.sensors and (sensed := [d for d in datasets if d.sensed]):
        training, calibration = _joined(sensed)
        surrogate, losses["readout"] = fit_readout(
            surrogate, plant, training, calibration, settings, seed, checkpoints, progress
        )
    with atomic_folder(folder) as temporary:
        counts = {"training_steps": int(training.length.sum()), "episodes": len(training.length)}
        about = {
            "data": counts,
            "symmetry": datasets[0].meta["symmetry"],
            "equations_explain": explained,
        }
        save_surrogate(temporary, surrogate, plant, about)
        atomic_write(temporary / CURVE, _curve(losses))
        write_manifest(temporary, "surrogate", inputs, settings, seed)
    checkpoints.remove()
    return surrogate


def fit_inputs(data: Sequence[Dataset], start: str | Path | None) -> dict[str, Source]:
    """Return what a surrogate is made from, by role."""
    inputs = _datasets(data)
    return inputs if start is None else {**inputs, "start": Path(start)}


def score_inputs(surrogate: Path, data: Sequence[Dataset]) -> dict[str, Source]:
    """Return what a report card is made from, by role."""
    return {"surrogate": surrogate, **_datasets(data)}


def write_score(
    plant: Plant,
    surrogate: Path,
    data: Sequence[Dataset],
    folder: Path,
    seed: int = 0,
    progress: Progress = silent,
    settings: ScoreSettings | None = None,
) -> dict[str, Any]:
    """Score a surrogate on the datasets' test episodes and write the report card to `folder`.

    Ridge regression on the datasets' training episodes, seen as the surrogate sees them, is scored
    beside it.

    Args:
        plant: the machine.
        surrogate: folder of the surrogate.
        data: datasets; episodes are numbered through them in this order.
        folder: of the report card.
        seed: of the inputs that are pushed out of the operating domain.
        progress: called as scoring goes on.
        settings: what to score.

    Raises:
        InputError: as `load_surrogate` and `score` do.
    """
    settings = settings or ScoreSettings()
    parse_tolerance(settings.tolerance, plant)  # before anything takes long
    learned = load_surrogate(surrogate, plant)
    progress("score", 0, 2)
    training, test = (join([d.episodes(split) for d in data]) for split in ("train", "test"))
    ridge = None
    if training.length.sum() > learned.architecture.inputs:  # else there is nothing to regress on
        ridge = linear_surrogate(learned.layout, learned.known, training)
    progress("score", 1, 2)
    card = score(learned, plant, test, settings, ridge, seed)
    with atomic_folder(folder) as temporary:
        write_json(temporary / "score.json", card)
        write_manifest(temporary, "score", score_inputs(surrogate, data), settings, seed)
    progress("score", 2, 2)
    return card


def join(parts: Sequence[Episodes]) -> Episodes:
    """Concatenate episodes of equal horizon along their first axis.

    Sensors are kept where all parts have them.
    """
    if len({part.actions.shape[1] for part in parts}) > 1:
        raise InputError("fit: the datasets' episodes have different numbers of steps")
    sensors = [part.sensors for part in parts]
    return Episodes(
        states=jax.tree.map(lambda *x: np.concatenate(x), *[part.states for part in parts]),
        actions=np.concatenate([part.actions for part in parts]),
        disturbances=np.concatenate([part.disturbances for part in parts]),
        length=np.concatenate([part.length for part in parts]),
        sensors=None if any(s is None for s in sensors) else np.concatenate(sensors),  # type: ignore[arg-type]
    )


def _joined(datasets: Sequence[Dataset]) -> tuple[Episodes, Episodes]:
    """Return the datasets' episodes to fit and to calibrate on."""
    training, calibration = (
        join([dataset.episodes(split) for dataset in datasets])
        for split in ("train", "calibration")
    )
    return training, calibration


def _check_lengths(episodes: Episodes, settings: FitSettings) -> None:
    enough = int((episodes.length >= settings.calibrated_horizon).sum())
    if enough < 20:
        raise InputError(
            f"calibration: expected at least 20 episodes of {settings.calibrated_horizon} valid "
            f"steps, got {enough}; collect more or longer episodes, or lower calibrated_horizon"
        )


def _datasets(data: Sequence[Dataset]) -> dict[str, Source]:
    names = ["dataset", *(f"dataset-{i}" for i in range(1, len(data)))]
    return {name: dataset.folder for name, dataset in zip(names, data, strict=True)}


def _curve(losses: dict[str, np.ndarray]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["stage", "step", "loss"])
    for stage, values in losses.items():
        writer.writerows([stage, (i + 1) * CHUNK, f"{v:.9g}"] for i, v in enumerate(values))
    return text.getvalue()
