"""The report card of a surrogate on episodes that neither fitting nor calibration saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from physai.errors import InputError
from physai.plant import Plant
from physai.rollout.dataset import Episodes
from physai.settings import check_whole
from physai.state import State
from physai.surrogate.alone import flown_alone
from physai.surrogate.calibration import open_loop, window_starts
from physai.surrogate.contact import contact_split
from physai.surrogate.coverage import (
    Coverage,
    coverage_of,
    error_spread_correlation,
    number_or_none,
)
from physai.surrogate.energy import energy_drift
from physai.surrogate.guard import domain_rates
from physai.surrogate.horizon import horizon_certificate, parse_tolerance
from physai.surrogate.model import Surrogate
from physai.surrogate.readout_score import score_readout
from physai.surrogate.spread import channel_spread, rms

FORMAT = "physai.score/3"
HORIZONS = (1, 10, 50, 100)
LEAST_WINDOWS = 20  # that are as long as a horizon, for it to be reported
WORST = 5  # episodes that are named


@dataclass(frozen=True)
class ScoreSettings:
    """What to score.

    Attributes:
        horizons: control periods at which errors are reported, ascending; those that fewer than 20
            windows reach are left out.
        stride: control periods between the windows cut from an episode.
        tolerance: of the horizon certificate, all parts of which have to be kept at once: the
            nRMSE of a flight (0.1), a channel (root.z=0.05), a kind of channels (position=0.05,
            angle=2deg) or that of one joint (root.angle=2deg); see
            `physai.surrogate.horizon.parse_tolerance`. Empty: no certificate.
    """

    horizons: tuple[int, ...] = HORIZONS
    stride: int = 5
    tolerance: tuple[str, ...] = ("0.1",)

    def __post_init__(self) -> None:
        """Refuse what cannot be scored."""
        check_whole(self, "horizons", "stride", least=1)
        if not self.horizons or list(self.horizons) != sorted(set(self.horizons)):
            raise InputError(f"horizons: expected ascending numbers, got {self.horizons}")


def score(
    surrogate: Surrogate,
    plant: Plant,
    episodes: Episodes,
    settings: ScoreSettings | None = None,
    ridge: Surrogate | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare open-loop predictions with the true simulator's record.

    The error of a channel is divided by its spread. For a velocity or activation that is its
    standard deviation over all windows; for a position it is the root mean square distance it
    moved from the start of the window, which is what the forecast "nothing moves" would be wrong
    by, and is smaller than the standard deviation of the position itself.

    The errors at all horizons are of the same windows, those as long as the longest horizon. The
    intervals of each horizon are judged on all windows that last so long
    (`physai.surrogate.coverage`).

    Args:
        surrogate: what predicts.
        plant: the machine.
        episodes: that neither fitting nor calibration saw.
        settings: what to score.
        ridge: `physai.surrogate.baseline.linear_surrogate` of the training episodes, to compare
            with (None: the card has no such baseline).
        seed: of the inputs that are pushed out of the operating domain.

    Returns:
        JSON-ready numbers, as docs/reference-formats.md describes them. A number is None where
        there is none: the nrmse of a channel that never changes, an interval that is infinite and
        its coverage beyond the calibrated horizon, an error of predictions that all blew up.

    Raises:
        InputError: no window is as long as the shortest horizon, every prediction blew up, or the
            plant has no channel of the tolerance.
    """
    settings = settings or ScoreSettings()
    tolerance = parse_tolerance(settings.tolerance, plant)
    horizons, short = reached(episodes, settings)
    every = open_loop(surrogate, episodes, max(horizons), settings.stride)
    judged = coverage_of(surrogate, every)
    whole = every.of(every.lasting == max(horizons))
    finite = np.asarray(np.isfinite(whole.error).all(axis=(0, 2)))
    if not finite.any():
        raise InputError("score: every open-loop prediction blew up; fit longer or on more data")
    kept = whole.of(finite)
    scale = channel_spread(surrogate.layout.joints, kept.states)
    measures = _errors(surrogate, plant, _Kept(kept.states, kept.error, scale, judged, horizons))
    alone = flown_alone(surrogate, ridge, kept.states, kept.actions, kept.disturbances, scale)
    measures["curve"] |= alone.curve
    return {
        "format": FORMAT,
        "windows": len(finite),
        "blown_up": int((~finite).sum()),
        "members": surrogate.members,
        "horizons": list(horizons),
        "too_long": short,
        "seconds": [round(h * plant.control_period, 6) for h in horizons],
        **measures,
        "error_spread_correlation": [
            error_spread_correlation(every, judged.scale, h - 1) for h in horizons
        ],
        "baselines": {name: [row[h - 1] for h in horizons] for name, row in alone.curve.items()},
        "ridge_blown_up": alone.ridge_blown_up,
        "members_nrmse": {
            name: [row[h - 1] for h in horizons] for name, row in alone.members.items()
        },
        "contact": contact_split(
            plant, episodes, kept.episode, kept.start, kept.error, scale, horizons
        ),
        "worst": _worst(plant, whole.error, scale, whole.episode, whole.start),
        "domain": {
            k: number_or_none(v) for k, v in domain_rates(surrogate, episodes, seed=seed).items()
        },
        "energy": energy_drift(surrogate, plant, episodes, horizons),
        "sensors": score_readout(surrogate, plant, episodes, horizons, settings.stride),
        "horizon_certificate": horizon_certificate(surrogate, plant, episodes, tolerance, scale)
        if tolerance
        else None,
    }


class _Kept(NamedTuple):
    """The windows whose predictions stayed finite, and what was found in them.

    Shapes: `[H, n, nc]`, the scale `[H, nc]`. The intervals are judged on shorter windows, too.
    """

    states: State
    error: np.ndarray
    scale: np.ndarray
    judged: Coverage
    horizons: tuple[int, ...]


def reached(
    episodes: Episodes, settings: ScoreSettings
) -> tuple[tuple[int, ...], list[dict[str, int]]]:
    """Return the horizons that can be scored, and the others with their number of windows."""
    count = {h: len(window_starts(episodes, h, settings.stride)[0]) for h in settings.horizons}
    enough = tuple(h for h, n in count.items() if n >= LEAST_WINDOWS)
    enough = enough or tuple(h for h, n in count.items() if n)  # few are better than none
    if not enough:
        raise InputError(f"no episode has {min(count)} valid steps: collect longer or gentler ones")
    left = [{"steps": h, "windows": n} for h, n in count.items() if h not in enough]
    return enough, left


def _errors(surrogate: Surrogate, plant: Plant, kept: _Kept) -> dict[str, Any]:
    """Return errors and coverage by horizon, by channel and step by step."""
    at = [h - 1 for h in kept.horizons]
    error, scale, judged = kept.error, kept.scale, kept.judged
    rmse = np.sqrt(np.mean(np.square(error), axis=1))
    nrmse = rmse / scale
    flown = _distance_flown(surrogate, kept.states)
    steps = range(len(error))
    return {
        "nrmse": [rms(nrmse[i]) for i in at],
        "coverage": [judged.share(i) for i in at],
        "sharpness": [judged.sharpness(i) for i in at],
        "position_error": [_position_error(surrogate, error, flown, i) for i in at],
        "channels": {
            channel.name: {
                "unit": channel.unit,
                "rmse": [float(rmse[i, c]) for i in at],
                "nrmse": [number_or_none(nrmse[i, c]) for i in at],
                **judged.channel(c, at),
            }
            for c, channel in enumerate(plant.state_channels)
        },
        "curve": {
            "nrmse": [rms(row) for row in nrmse],
            "coverage": [judged.share(i) for i in steps],
            "half_width": [judged.sharpness(i) for i in steps],
            "windows": judged.windows.tolist(),
        },
    }


def _worst(
    plant: Plant, error: np.ndarray, scale: np.ndarray, episode: np.ndarray, start: np.ndarray
) -> list[dict[str, Any]]:
    """Return the episodes with the largest error at the last step of a window, worst first.

    Args:
        plant: names the channels.
        error: `[H, n, nc]`; a window with a number that is not finite is worse than any other.
        scale: `[H, nc]`.
        episode, start: of the windows `[n]`.
    """
    finite = np.asarray(np.isfinite(error).all(axis=(0, 2)))
    scaled = np.where(finite[:, None], np.abs(error[-1]), 0.0) / scale[-1]
    size = np.where(finite, np.sqrt(np.nanmean(np.square(scaled), axis=1)), np.inf)
    order = np.argsort(-size, kind="stable")
    _, first = np.unique(episode[order], return_index=True)
    found = []
    for window in order[np.sort(first)[:WORST]]:
        known = bool(finite[window])
        c = int(np.nanargmax(scaled[window])) if known else None
        found.append(
            {
                "episode": int(episode[window]),
                "start": int(start[window]),
                "nrmse": float(size[window]) if known else None,
                "channel": None if c is None else plant.state_channels[c].name,
                "error": None if c is None else float(error[-1, window, c]),
                "unit": None if c is None else plant.state_channels[c].unit,
            }
        )
    return found


def _distance_flown(surrogate: Surrogate, true: State) -> np.ndarray | None:
    """Path length of the first free joint up to each horizon `[H, n]`, None without one."""
    free = [joint for joint in surrogate.layout.joints if joint.kind == "free"]
    if not free:
        return None
    i = free[0].qpos_index
    steps = np.diff(np.asarray(true.qpos)[..., i : i + 3], axis=0)
    return np.cumsum(np.linalg.norm(steps, axis=-1), axis=0)


def _position_error(
    surrogate: Surrogate, error: np.ndarray, flown: np.ndarray | None, step: int
) -> float | None:
    if flown is None:
        return None
    i = next(joint.qvel_index for joint in surrogate.layout.joints if joint.kind == "free")
    return float(np.linalg.norm(error[step, :, i : i + 3], axis=-1).mean() / flown[step].mean())
