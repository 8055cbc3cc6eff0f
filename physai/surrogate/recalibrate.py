"""Intervals for the episodes that a surrogate is used on, in place of those it was fitted on.

Intervals hold for episodes drawn like those that they were made from. Under a controller states and
actions are others than under the noise that collected the training data. Here they are made anew
from such episodes; nothing else of the surrogate changes. Its operating domain stays, too: it says
where the networks were trained, and these episodes trained nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from physai.errors import InputError
from physai.plant import Plant
from physai.progress import Progress, silent
from physai.provenance import (
    Source,
    atomic_folder,
    locate,
    read_json,
    read_manifest,
    write_json,
    write_manifest,
)
from physai.rollout.dataset import Dataset, Episodes
from physai.rollout.store import Split
from physai.settings import check_whole
from physai.surrogate.calibration import COVERAGE, Flown, intervals, open_loop
from physai.surrogate.coverage import Coverage, coverage_of, error_spread_correlation
from physai.surrogate.guard import periods_of, scores_of
from physai.surrogate.model import Surrogate
from physai.surrogate.release import KEPT, calibrated_on, dataset_roles, join
from physai.surrogate.score import HORIZONS
from physai.surrogate.sensed import calibrate_readout
from physai.surrogate.store import CARD, load_surrogate, save_surrogate

FORMAT, RECORD = "physai.recalibration/1", "recalibration.json"
LEAST = round(COVERAGE / (1.0 - COVERAGE))
"""Episodes without which no finite interval covers as much."""


@dataclass(frozen=True)
class RecalibrateSettings:
    """How to make intervals.

    Attributes:
        calibrated_horizon: horizons 1 to this get an interval (None: as many as the surrogate had);
            no more than the longest episode has periods.
        stride: control periods between the windows cut from an episode.
    """

    calibrated_horizon: int | None = None
    stride: int = 5

    def __post_init__(self) -> None:
        """Refuse what cannot be cut."""
        check_whole(self, "stride", least=1)
        if self.calibrated_horizon is not None:
            check_whole(self, "calibrated_horizon", least=1)


def recalibrate(
    plant: Plant,
    surrogate: str | Path,
    datasets: Sequence[Dataset],
    folder: str | Path,
    settings: RecalibrateSettings | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Make a surrogate's intervals anew from datasets, and write it with them to `folder`.

    The calibration episodes make the intervals; on the test episodes old and new ones are judged.
    Nothing is random; the manifest keeps the seed of the weights.

    Args:
        plant: the machine.
        surrogate: folder of the surrogate.
        datasets: at least one, such as `physai rollout --policy` records.
        folder: of the surrogate with new intervals.
        settings: how to make them.
        progress: called as the work goes on.

    Returns:
        JSON-ready numbers, also in `folder/recalibration.json`, as docs/reference-formats.md
        describes them.

    Raises:
        InputError: as `load_surrogate` does; the folder is the surrogate's own; no dataset, one
            without calibration or test episodes, or fewer than 9 calibration episodes in all.
    """
    settings, started = settings or RecalibrateSettings(), time.monotonic()
    if locate(folder) == locate(surrogate):
        raise InputError(f"{folder}: expected another folder than that of the surrogate")
    learned = load_surrogate(surrogate, plant)
    calibration, test = (_episodes(datasets, split) for split in ("calibration", "test"))
    both = join([calibration, test])
    horizon = settings.calibrated_horizon or len(learned.calibration.floor)
    horizon = min(horizon, int(both.length.max()))
    progress("recalibrate", 0, 2)
    # Flown together: one compiled program.
    flown = open_loop(learned, both, horizon, settings.stride)
    first = len(calibration.length)
    renewed = replace(learned, calibration=intervals(flown.of(flown.episode < first)))
    renewed = _of_sensors(renewed, calibration, horizon, settings.stride)
    progress("recalibrate", 1, 2)
    seen = flown.of(flown.episode >= first)
    scores = scores_of(learned.domain, learned.layout, learned.known, periods_of(test))
    record = {
        "format": FORMAT,
        "episodes": {"calibration": first, "test": len(test.length)},
        **_judged(plant, learned, renewed, seen),
        "outside": float(np.mean(scores > 1.0)),
    }
    card = read_json(Path(surrogate) / CARD)
    about = {key: card[key] for key in KEPT if key in card}
    about["calibration"] = calibrated_on(datasets)
    with atomic_folder(folder) as temporary:
        save_surrogate(temporary, renewed, plant, about)
        write_json(temporary / RECORD, record)
        seed = read_manifest(surrogate)["seed"]
        inputs = recalibrate_inputs(surrogate, datasets)
        spent = time.monotonic() - started
        write_manifest(temporary, "surrogate", inputs, settings, seed, spent)
    progress("recalibrate", 2, 2)
    return record


def recalibrate_inputs(surrogate: str | Path, datasets: Sequence[Dataset]) -> dict[str, Source]:
    """Return what a surrogate with new intervals is made from, by role."""
    return {"surrogate": Path(surrogate), **dataset_roles(datasets)}


def _of_sensors(surrogate: Surrogate, episodes: Episodes, horizon: int, stride: int) -> Surrogate:
    """Make the intervals of readings anew too, where there are any and the episodes record them."""
    readout = surrogate.readout
    if readout is None or episodes.sensors is None:
        return surrogate
    made = calibrate_readout(surrogate, episodes, horizon, stride)
    return replace(surrogate, readout=replace(readout, calibration=made))


def _episodes(datasets: Sequence[Dataset], split: Split) -> Episodes:
    """Return the episodes of all datasets; each has to have some, the calibration enough."""
    if not datasets:
        raise InputError("recalibrate: expected at least one dataset, got none")
    parts = [dataset.episodes(split) for dataset in datasets]
    for dataset, part in zip(datasets, parts, strict=True):
        if not part.length.any():
            raise InputError(
                f"{dataset.folder}: expected {split} episodes, got none; "
                f"collect it with --{split}, or leave it out"
            )
    episodes = join(parts)
    count = int((episodes.length > 0).sum())
    if split == "calibration" and count < LEAST:
        raise InputError(
            f"recalibrate: expected at least {LEAST} calibration episodes, got {count}: so few "
            f"cannot promise {100 * COVERAGE:g}%; collect more"
        )
    return episodes


def _judged(plant: Plant, old: Surrogate, new: Surrogate, flown: Flown) -> dict[str, Any]:
    """Return what old and new intervals are worth on the same flights."""
    before, after = coverage_of(old, flown), coverage_of(new, flown)
    last = len(flown.error)
    horizons = sorted({h for h in HORIZONS if h < last} | {last})
    return {
        "horizons": horizons,
        "seconds": [round(h * plant.control_period, 6) for h in horizons],
        "windows": [int(before.windows[h - 1]) for h in horizons],
        "error_spread_correlation": [
            error_spread_correlation(flown, before.scale, h - 1) for h in horizons
        ],
        "before": _worth(plant, before, horizons),
        "after": _worth(plant, after, horizons),
    }


def _worth(plant: Plant, judged: Coverage, horizons: Sequence[int]) -> dict[str, Any]:
    at = [h - 1 for h in horizons]
    return {
        "coverage": [judged.share(i) for i in at],
        "sharpness": [judged.sharpness(i) for i in at],
        "channels": {
            channel.name: judged.channel(c, at) for c, channel in enumerate(plant.state_channels)
        },
    }
