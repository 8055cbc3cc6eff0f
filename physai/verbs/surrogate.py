"""Verbs about surrogates: fit, score, distil, make intervals anew, forecast with more data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro

from physai import show
from physai.console import progress_bars
from physai.plant import load_plant
from physai.provenance import read_json
from physai.rollout.dataset import open_dataset
from physai.surrogate.distil import DistilSettings, distil
from physai.surrogate.fit import FitSettings
from physai.surrogate.learning_curve import ForecastSettings, write_forecast
from physai.surrogate.recalibrate import RecalibrateSettings, recalibrate
from physai.surrogate.release import ADAPTED, fit, write_score
from physai.surrogate.score import ScoreSettings
from physai.verbs.common import Flat, Name, done


def fit_verb(
    plant: Name,
    dataset: list[Path],
    out: Path,
    start: Annotated[Path | None, tyro.conf.arg(name="from")] = None,
    compare: bool = False,
    settings: Annotated[FitSettings, Flat] = FitSettings(),
    seed: int = 0,
    json: bool = False,
) -> int:
    """Fit a surrogate to datasets.

    Args:
        plant: the machine of the datasets.
        dataset: one or more dataset folders.
        out: folder of the surrogate.
        start: a surrogate to go on from, of this machine or of one of the same channels.
        compare: with --from, fit from scratch too, to show its error beside.
        settings: how to fit; with --from the steps are fewer and the rate is lower by themselves.
        seed: of weights and batches.
        json: print JSON to stdout.
    """
    machine = load_plant(plant)
    data = [open_dataset(folder, machine) for folder in dataset]
    with progress_bars() as progress:
        surrogate = fit(machine, data, out, settings, seed, start, progress, compare)
    result: dict[str, Any] = {"out": str(out), "members": surrogate.members}
    if start is not None:
        result["adapted"] = read_json(out / ADAPTED)
    return done(result, json, show.fitted)


def score_verb(
    plant: Name,
    surrogate: Path,
    dataset: list[Path],
    out: Path,
    settings: Annotated[ScoreSettings, Flat] = ScoreSettings(),
    seed: int = 0,
    json: bool = False,
) -> int:
    """Write the report card of a surrogate on the datasets' test episodes.

    Args:
        plant: the machine.
        surrogate: folder of the surrogate.
        dataset: one or more dataset folders.
        out: folder of the report card.
        settings: what to score, and the tolerance of the horizon certificate.
        seed: of the inputs that are pushed out of the operating domain.
        json: print JSON to stdout.
    """
    machine = load_plant(plant)
    data = [open_dataset(folder, machine) for folder in dataset]
    with progress_bars() as progress:
        card = write_score(machine, surrogate, data, out, seed, progress, settings)
    return done(card, json, show.score)


def distil_verb(
    plant: Name,
    surrogate: Path,
    dataset: list[Path],
    out: Path,
    settings: Annotated[DistilSettings, Flat] = DistilSettings(),
    seed: int = 0,
    json: bool = False,
) -> int:
    """Distil a surrogate into one small, fast network.

    Args:
        plant: the machine.
        surrogate: folder of the teacher.
        dataset: one or more dataset folders, such as those that the teacher was fitted to.
        out: folder of the student.
        settings: how to distil.
        seed: of weights, mixed control periods and batches.
        json: print JSON to stdout.
    """
    machine = load_plant(plant)
    data = [open_dataset(folder, machine) for folder in dataset]
    with progress_bars() as progress:
        record = distil(machine, surrogate, data, out, settings, seed, progress)
    return done({"out": str(out), **record}, json, show.distilled)


def recalibrate_verb(
    plant: Name,
    surrogate: Path,
    dataset: list[Path],
    out: Path,
    settings: Annotated[RecalibrateSettings, Flat] = RecalibrateSettings(),
    json: bool = False,
) -> int:
    """Make a surrogate's intervals anew, for episodes drawn like those of other datasets.

    Args:
        plant: the machine.
        surrogate: folder of the surrogate.
        dataset: one or more dataset folders, such as `physai rollout --policy` records.
        out: folder of the surrogate with the new intervals.
        settings: how to make them.
        json: print JSON to stdout.
    """
    machine = load_plant(plant)
    data = [open_dataset(folder, machine) for folder in dataset]
    with progress_bars() as progress:
        record = recalibrate(machine, surrogate, data, out, settings, progress)
    return done({"out": str(out), **record}, json, show.recalibration)


def forecast_verb(
    plant: Name,
    dataset: list[Path],
    tolerance: float,
    out: Path,
    settings: Annotated[ForecastSettings, Flat] = ForecastSettings(),
    seed: int = 0,
    json: bool = False,
) -> int:
    """Forecast how many more episodes would bring a surrogate's error below a tolerance.

    Args:
        plant: the machine of the datasets.
        dataset: one or more dataset folders.
        tolerance: the nRMSE to reach, at the horizon.
        out: folder of the forecast.
        settings: which shares of the episodes are fitted, and how.
        seed: of the shares, weights and batches.
        json: print JSON to stdout.
    """
    machine = load_plant(plant)
    data = [open_dataset(folder, machine) for folder in dataset]
    with progress_bars() as progress:
        result = write_forecast(machine, data, out, tolerance, settings, seed, progress)
    return done(result, json, show.forecast)
