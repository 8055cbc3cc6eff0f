"""Fit surrogates to nested shares of the training episodes, resumably, and forecast from them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from physai.errors import InputError
from physai.plant import Plant
from physai.progress import Progress, silent
from physai.provenance import (
    atomic_folder,
    locate,
    read_json,
    sha256_source,
    write_json,
    write_manifest,
)
from physai.provenance.storage import plain
from physai.rollout.dataset import Dataset, Episodes
from physai.settings import check_whole
from physai.surrogate.calibration import open_loop
from physai.surrogate.checkpoint import Checkpoints
from physai.surrogate.features import layout_of
from physai.surrogate.fit import FitSettings, fit_ensemble
from physai.surrogate.forecast import forecast, statement
from physai.surrogate.model import Surrogate
from physai.surrogate.prior import prior
from physai.surrogate.release import fit_inputs, join
from physai.surrogate.spread import channel_spread, rms

FORECAST = "forecast.json"
FORMAT = "physai.forecast/1"
LEAST_EPISODES = 8  # in the smallest share
STRIDE = 5  # control periods between the windows that are scored


@dataclass(frozen=True)
class ForecastSettings:
    """How to find the error against the number of episodes.

    Attributes:
        shares: of the training episodes, ascending up to 1; each share is part of the next.
        repeats: times that each share is drawn and fitted, with other episodes and weights.
        horizon: control periods ahead at which the error is told.
        fit: how each surrogate is fitted; the same for all shares, so that the forecast holds for
            these settings.
    """

    shares: tuple[float, ...] = (0.0625, 0.125, 0.25, 0.5, 1.0)
    repeats: int = 2
    horizon: int = 50
    fit: FitSettings = FitSettings(steps=3_000, calibrated_horizon=1)

    def __post_init__(self) -> None:
        """Refuse what gives no forecast."""
        check_whole(self, "repeats", "horizon", least=1)
        s = self.shares
        if len(s) < 3 or list(s) != sorted(set(s)) or not s[0] > 0.0 or s[-1] != 1.0:
            raise InputError(
                f"shares: expected three or more, ascending from above 0 to 1, got {s}"
            )
        if len(s) * self.repeats < 4:
            raise InputError(f"repeats: expected at least two of {len(s)} shares, got one")


def write_forecast(
    plant: Plant,
    data: Sequence[Dataset],
    folder: Path,
    tolerance: float,
    settings: ForecastSettings | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Fit to shares of the datasets' training episodes, and forecast from the errors.

    What is fitted is kept in `<folder>.training` until all is done. A finished forecast with the
    same settings, seed and datasets is not fitted again: another tolerance is answered from it.

    Args:
        plant: the machine.
        data: at least one dataset.
        folder: of the forecast.
        tolerance: the nRMSE to reach, at the horizon.
        settings: which shares, and how to fit.
        seed: of the shares, weights and batches.
        progress: called as fitting goes on.

    Returns:
        What `forecast.json` holds: `points` (episodes and nRMSE of each fit), and what
        `physai.surrogate.forecast.forecast` returns.

    Raises:
        InputError: too few or too short episodes, or no positive tolerance.
    """
    settings = settings or ForecastSettings()
    if not data:
        raise InputError("forecast: expected at least one dataset, got none")
    if not tolerance > 0.0:
        raise InputError(f"tolerance: expected a positive number, got {tolerance:g}")
    inputs = fit_inputs(data, None)
    hashes = {role: sha256_source(locate(source)) for role, source in inputs.items()}
    identity = {"settings": asdict(settings), "seed": seed, "inputs": hashes}
    identity = plain(identity, "identity")  # as it is read again
    points = _found(folder / FORECAST, identity)
    if points is None:
        points = _points(plant, data, folder, settings, seed, identity, progress)
    found = forecast([p["episodes"] for p in points], [p["nrmse"] for p in points], tolerance, seed)
    result = {
        "format": FORMAT,
        "identity": identity,
        "horizon": settings.horizon,
        "points": points,
        **found,
        "statement": statement(found, f"an nRMSE after {settings.horizon} steps"),
    }
    with atomic_folder(folder) as temporary:
        write_json(temporary / FORECAST, result)
        write_manifest(temporary, "forecast", inputs, identity["settings"], seed)
    shutil.rmtree(_working(folder), ignore_errors=True)
    return result


def _points(
    plant: Plant,
    data: Sequence[Dataset],
    folder: Path,
    settings: ForecastSettings,
    seed: int,
    identity: dict[str, Any],
    progress: Progress,
) -> list[dict[str, Any]]:
    """Fit and score what is not there yet."""
    training, calibration, test = (
        join([d.episodes(split) for d in data]) for split in ("train", "calibration", "test")
    )
    count = len(training.length)
    least = round(settings.shares[0] * count)
    if least < LEAST_EPISODES:
        raise InputError(
            f"forecast: expected at least {LEAST_EPISODES} episodes in the smallest share, got "
            f"{least} of {count}; collect more, or choose larger shares"
        )
    # What is known of the machine is chosen once: all shares are fitted in the same way.
    layout = layout_of(plant, data[0].symmetry)
    layout, known, _ = prior(plant, layout, training, settings.fit.equations)
    jobs = [(r, s) for r in range(settings.repeats) for s in settings.shares]
    points = []
    for number, (repeat, share) in enumerate(jobs):
        progress("forecast", number, len(jobs))
        place = _working(folder) / f"{number}"
        job = {**identity, "repeat": repeat, "share": share}
        done = _found(place.with_suffix(".json"), job)
        if done is None:
            order = np.random.default_rng((seed, repeat)).permutation(count)
            part = _part(training, np.sort(order[: round(share * count)]))
            checkpoints = Checkpoints(place, job)
            one, _ = fit_ensemble(
                layout,
                part,
                calibration,
                settings.fit,
                seed + repeat,
                checkpoints,
                known=known,
            )
            error = _nrmse(one, test, settings.horizon)
            done = [{"repeat": repeat, "episodes": len(part.length), "nrmse": error}]
            write_json(place.with_suffix(".json"), {"identity": job, "points": done})
            checkpoints.remove()
        points += done
    progress("forecast", len(jobs), len(jobs))
    return points


def _part(episodes: Episodes, rows: np.ndarray) -> Episodes:
    return jax.tree.map(lambda leaf: leaf[rows], episodes)


def _nrmse(surrogate: Surrogate, test: Episodes, horizon: int) -> float:
    """Return the nRMSE at a horizon, as the report card defines it."""
    flown = open_loop(surrogate, test, horizon, STRIDE, least=horizon)
    kept = np.asarray(flown.sound.all(axis=0))
    if not kept.any():
        raise InputError("forecast: every open-loop prediction blew up; fit longer")
    flown = flown.of(kept)
    rmse = np.sqrt(np.mean(np.square(flown.error[-1]), axis=0))
    return rms(rmse / channel_spread(surrogate.layout.joints, flown.states)[-1])


def _working(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.training")


def _found(path: Path, identity: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the points in a file, None where it is missing or of something else."""
    if not path.is_file():
        return None
    there = read_json(path)
    return there["points"] if there.get("identity") == identity else None
