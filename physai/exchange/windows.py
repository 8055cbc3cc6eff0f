"""From recordings to the episodes of a dataset: cut into windows, drawn into splits, padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from physai.errors import InputError
from physai.exchange.resample import Recording
from physai.plant import Plant
from physai.rollout.store import CONSTANTS, MOMENTS, PERIODS, SPLITS
from physai.settings import check_number

ENOUGH_WINDOWS = 100  # that a log is cut into, if that leaves them long enough
SHORTEST = 50  # control periods: the horizon that `fit` calibrates by default
CALIBRATION = 20  # episodes that `fit` needs to calibrate, if a third of all are as many
WHOLE = 60  # recordings from which on each goes whole into one split


@dataclass(frozen=True)
class ImportSettings:
    """How a log becomes episodes."""

    duration: float | None = None
    """Seconds of an episode (None: a hundredth of the data, from 50 control periods to the task's
    duration)."""
    calibration: float = 0.2
    """Share of the episodes to calibrate uncertainty on."""
    test: float = 0.2
    """Share of the episodes to score on."""
    suspicious: Literal["refuse", "warn"] = "refuse"
    """What to do where a unit, a sign or an order looks wrong."""
    symmetry: bool = True
    """Let a surrogate rely on the symmetries that the model was found to have."""

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if self.duration is not None:
            check_number(self, "duration", above=0.0)
        check_number(self, "calibration", "test", least=0.0, below=1.0)
        if self.calibration + self.test >= 1.0:
            raise InputError(
                "calibration and test: expected shares that leave some for training, got "
                f"{self.calibration:g} and {self.test:g}"
            )
        if self.suspicious not in ("refuse", "warn"):
            raise InputError(f"suspicious: expected refuse or warn, got {self.suspicious!r}")


def window_periods(
    recordings: Sequence[Recording], plant: Plant, duration: float, settings: ImportSettings
) -> int:
    """Return the control periods of an episode.

    Args:
        recordings: at least one.
        plant: the machine.
        duration: of the task's episodes, s.
        settings: may say the duration.
    """
    if settings.duration is not None:
        periods = round(settings.duration / plant.control_period)
        if periods < 1:
            raise InputError(
                f"duration: expected at least one control period, {plant.control_period:g} s, "
                f"got {settings.duration:g} s"
            )
        return periods
    longest, total = max(r.periods for r in recordings), sum(r.periods for r in recordings)
    most = min(longest, round(duration / plant.control_period))
    if len(recordings) >= ENOUGH_WINDOWS or most < 2 * SHORTEST:
        return max(1, most)
    return max(1, min(most, max(SHORTEST, total // ENOUGH_WINDOWS)))


def cut(recordings: Sequence[Recording], periods: int, control_period: float) -> list[Recording]:
    """Cut recordings into windows of so many control periods; the last of each may be shorter."""
    found = []
    for recording in recordings:
        for first in range(0, recording.periods, periods):
            last = min(first + periods, recording.periods)
            arrays = dict(recording.arrays)
            arrays |= {name: arrays[name][first : last + 1] for name in MOMENTS}
            arrays |= {name: arrays[name][first:last] for name in PERIODS}
            found.append(
                Recording(
                    recording.source,
                    arrays,
                    recording.start + first * control_period,
                    recording.terminated and last == recording.periods,
                )
            )
    return found


def draw_splits(
    recordings: Sequence[Recording],
    periods: int,
    control_period: float,
    settings: ImportSettings,
    seed: int,
) -> tuple[dict[str, list[Recording]], str]:
    """Draw which windows are for training, calibration and test.

    Whole recordings where there are many: windows of one recording resemble each other more than
    those of different ones. Otherwise window by window, and what is left at the end of a recording
    is for training: calibration and test need windows of full length.

    Returns:
        The windows of each split, and what was drawn: "recording" or "window".
    """
    rng = np.random.default_rng([seed, 3])
    pieces = [cut([r], periods, control_period) for r in recordings]
    drawn = "recording"
    if len(pieces) < WHOLE:
        pieces, drawn = [[window] for windows in pieces for window in windows], "window"
    total = sum(map(len, pieces))
    wanted = {split: round(getattr(settings, split) * total) for split in ("calibration", "test")}
    if settings.calibration > 0.0:
        wanted["calibration"] = max(wanted["calibration"], min(CALIBRATION, total // 3))
    splits: dict[str, list[Recording]] = {split: [] for split in SPLITS}
    order = rng.permutation(len(pieces))
    if drawn == "window":
        order = sorted(order, key=lambda i: pieces[i][0].periods < periods)
    for index in order:
        short = [s for s in wanted if len(splits[s]) < wanted[s]]
        splits[short[0] if short else "train"] += pieces[index]
    if not splits["train"]:
        raise InputError(
            f"the logs make only {total} episodes of {periods * control_period:g} s, and none is "
            "left for training; import more data, or choose a shorter --duration"
        )
    return splits, drawn


def stack(
    windows: Sequence[Recording], periods: int, shapes: dict[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Return the arrays of a split, float32, with `length` and `terminated` of each episode.

    Args:
        windows: of the split; may be none.
        periods: of an episode.
        shapes: of one episode in every array, as `physai.rollout.store.shapes` returns.
    """
    arrays = {n: np.zeros((len(windows), *shapes[n]), np.float32) for n in (*MOMENTS, *PERIODS)}
    constants = {n: np.zeros((len(windows), *shapes[n]), np.float32) for n in CONSTANTS}
    for i, window in enumerate(windows):
        for name in (*MOMENTS, *PERIODS):
            arrays[name][i, : len(window.arrays[name])] = window.arrays[name]
        for name in ("command", "design"):
            constants[name][i] = window.arrays[name]
        constants["start_time"][i] = window.start
    return {
        **arrays,
        **constants,
        "length": np.array([w.periods for w in windows], np.int32),
        "terminated": np.array([w.terminated for w in windows], bool),
    }
