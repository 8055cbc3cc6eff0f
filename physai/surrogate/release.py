"""Fit a surrogate to datasets, afresh or from another one, score it, and write both."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

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
from physai.rollout.store import Split
from physai.rollout.symmetry import Symmetry
from physai.surrogate.adapt import FORMAT as ADAPTED_FORMAT
from physai.surrogate.adapt import going_on, side_by_side
from physai.surrogate.baseline import linear_surrogate
from physai.surrogate.checkpoint import Checkpoints
from physai.surrogate.features import layout_of
from physai.surrogate.fit import FitSettings, devices_of, fit_ensemble
from physai.surrogate.horizon import parse_tolerance
from physai.surrogate.inherit import Start, open_start
from physai.surrogate.model import Surrogate
from physai.surrogate.prior import prior
from physai.surrogate.readout_fit import fit_readout
from physai.surrogate.score import ScoreSettings, score
from physai.surrogate.store import load_surrogate, save_surrogate
from physai.surrogate.train import CHUNK

CURVE, ADAPTED = "fit.csv", "adapted.json"
KEPT = ("data", "symmetry", "equations_explain")
"""What a surrogate's card says of its training, and what is made from it goes on to say."""


def fit(
    plant: Plant,
    datasets: Sequence[Dataset],
    folder: str | Path,
    settings: FitSettings | None = None,
    seed: int = 0,
    start: str | Path | None = None,
    progress: Progress = silent,
    compare: bool = False,
) -> Surrogate:
    """Fit an ensemble to the datasets' training episodes, resumably, and write it to `folder`.

    The training state is kept in `<folder>.training` until the surrogate is done.

    Args:
        plant: the machine that the datasets were recorded on.
        datasets: at least one.
        folder: of the surrogate.
        settings: how to fit from fresh weights; `physai.surrogate.adapt.going_on` makes of them how
            to go on from `start`.
        seed: of weights and batches.
        start: folder of a surrogate to go on from, of this plant or of one of the same channels
            (None: fresh weights). `adapted.json` then tells its error and that of the new one.
        progress: called as training goes on.
        compare: with `start`, fit from fresh weights too, for its error alone.

    Raises:
        InputError: no dataset, too few valid steps, a damaged training state, a start that does not
            fit the plant, or nothing to compare.
    """
    folder, settings = Path(folder), settings or FitSettings()
    if not datasets:
        raise InputError("fit: expected at least one dataset, got none")
    if compare and start is None:
        raise InputError("fit: --compare needs a surrogate to compare with: give one as --from")
    training, calibration = (episodes_of(datasets, split) for split in ("train", "calibration"))
    check_lengths(calibration, settings)
    symmetry = datasets[0].symmetry
    begin = None if start is None else open_start(start, plant, symmetry)
    inputs = fit_inputs(datasets, start)
    identity = identity_of(settings, seed, inputs)
    kept = folder.with_name(f"{folder.name}.training")
    checkpoints = Checkpoints(kept, identity)
    job = _Job(plant, symmetry, training, calibration, settings, seed)
    if begin is None:
        done, beside = _fresh(job, checkpoints, progress), None
    else:
        done, each = _adapted(job, begin, checkpoints, progress), {"start": begin.surrogate}
        each["adapted"] = done.surrogate
        if compare:
            named = lambda stage, *count: progress(f"{stage}, from scratch", *count)
            each["scratch"] = _fresh(job, Checkpoints(kept / "scratch", identity), named).surrogate
        beside = _beside(begin, each, datasets, settings)
    done = _sensing(job, done, [d for d in datasets if d.sensed], checkpoints, progress)
    with atomic_folder(folder) as temporary:
        counts = {"training_steps": int(training.length.sum()), "episodes": len(training.length)}
        about = {
            "data": counts,
            "symmetry": {**datasets[0].meta["symmetry"], "images": len(symmetry.images)},
            "equations_explain": done.explained,
            "start": None if begin is None else begin.plant,
            "devices": devices_of(done.surrogate, settings),
            "calibration": calibrated_on(datasets),
        }
        save_surrogate(temporary, done.surrogate, plant, about)
        atomic_write(temporary / CURVE, curve(done.losses))
        if beside is not None:
            write_json(temporary / ADAPTED, beside)
        write_manifest(temporary, "surrogate", inputs, settings, seed, checkpoints.seconds)
    checkpoints.remove()
    return done.surrogate


class _Job(NamedTuple):
    """What a fit is made from."""

    plant: Plant
    symmetry: Symmetry
    training: Episodes
    calibration: Episodes
    settings: FitSettings
    seed: int


class _Fitted(NamedTuple):
    """What a fit gives: a surrogate, its losses by stage, what the equations explain."""

    surrogate: Surrogate
    losses: dict[str, np.ndarray]
    explained: float | None


def _fresh(job: _Job, checkpoints: Checkpoints, progress: Progress) -> _Fitted:
    layout = layout_of(job.plant, job.symmetry)
    layout, known, explained = prior(job.plant, layout, job.training, job.settings.equations)
    data = job.training, job.calibration
    found = fit_ensemble(layout, *data, job.settings, job.seed, checkpoints, None, progress, known)
    return _Fitted(*found, explained)


def _adapted(job: _Job, begin: Start, checkpoints: Checkpoints, progress: Progress) -> _Fitted:
    start, data = begin.fitting, (job.training, job.calibration)
    chosen = going_on(job.settings)
    found = fit_ensemble(
        start.layout, *data, chosen, job.seed, checkpoints, start, progress, start.known
    )
    return _Fitted(*found, None)


def _sensing(
    job: _Job,
    done: _Fitted,
    sensed: Sequence[Dataset],
    checkpoints: Checkpoints,
    progress: Progress,
) -> _Fitted:
    """Add a readout, fitted to the datasets that record sensors."""
    if not (job.plant.sensors and sensed):
        return done
    surrogate, losses = fit_readout(
        done.surrogate,
        job.plant,
        episodes_of(sensed, "train"),
        episodes_of(sensed, "calibration"),
        job.settings,
        job.seed,
        checkpoints,
        progress,
    )
    return done._replace(surrogate=surrogate, losses={**done.losses, "readout": losses})


def _beside(
    begin: Start,
    surrogates: Mapping[str, Surrogate],
    datasets: Sequence[Dataset],
    settings: FitSettings,
) -> dict[str, Any]:
    """Return what `adapted.json` holds."""
    split, episodes = held_out(datasets)
    return {
        "format": ADAPTED_FORMAT,
        "start": begin.plant,
        "settings": asdict(going_on(settings)),
        "split": split,
        **side_by_side(surrogates, episodes),
    }


def identity_of(settings: Any, seed: int, inputs: Mapping[str, Source]) -> dict[str, Any]:
    """Return by what a training state is known to be of the same settings, seed and inputs."""
    hashes = {role: sha256_source(locate(source)) for role, source in inputs.items()}
    return {"settings": asdict(settings), "seed": seed, "inputs": hashes}


def fit_inputs(data: Sequence[Dataset], start: str | Path | None) -> dict[str, Source]:
    """Return what a surrogate is made from, by role."""
    inputs = dataset_roles(data)
    return inputs if start is None else {**inputs, "start": Path(start)}


def dataset_roles(data: Sequence[Dataset]) -> dict[str, Source]:
    """Return datasets by the role that a manifest names them with."""
    names = ["dataset", *(f"dataset-{i}" for i in range(1, len(data)))]
    return {name: dataset.folder for name, dataset in zip(names, data, strict=True)}


def calibrated_on(data: Sequence[Dataset]) -> list[dict[str, Any]]:
    """Say for a surrogate's card whose episodes its intervals were made from, by dataset."""
    return [
        {
            "controller": dataset.meta["controller"],
            "episodes": dataset.counts["calibration"]["episodes"],
            "steps": dataset.counts["calibration"]["valid_steps"],
        }
        for dataset in data
    ]


def score_inputs(surrogate: Path, data: Sequence[Dataset]) -> dict[str, Source]:
    """Return what a report card is made from, by role."""
    return {"surrogate": surrogate, **dataset_roles(data)}


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
    training, test = (episodes_of(data, split) for split in ("train", "test"))
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


def held_out(datasets: Sequence[Dataset]) -> tuple[Split, Episodes]:
    """Return the test episodes, or where there are none those of calibration, and which it is."""
    episodes = episodes_of(datasets, "test")
    if len(episodes.length):
        return "test", episodes
    return "calibration", episodes_of(datasets, "calibration")


def episodes_of(datasets: Sequence[Dataset], split: Split) -> Episodes:
    """Return the episodes of all datasets."""
    return join([dataset.episodes(split) for dataset in datasets])


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


def check_lengths(episodes: Episodes, settings: FitSettings) -> None:
    """Refuse calibration episodes that are too few for intervals.

    Raises:
        InputError: fewer than 20 are as long as the calibrated horizon.
    """
    enough = int((episodes.length >= settings.calibrated_horizon).sum())
    if enough < 20:
        raise InputError(
            f"calibration: expected at least 20 episodes of {settings.calibrated_horizon} valid "
            f"steps, got {enough}; collect more or longer episodes, or lower calibrated_horizon"
        )


def curve(losses: dict[str, np.ndarray]) -> str:
    """Return the losses of all stages as a table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["stage", "step", "loss"])
    for stage, values in losses.items():
        writer.writerows([stage, (i + 1) * CHUNK, f"{v:.9g}"] for i, v in enumerate(values))
    return text.getvalue()
