"""Going on from a fitted surrogate: how, and what it gave beside the start and a fresh fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from physai.rollout.dataset import Episodes
from physai.surrogate.calibration import fly_beside, windows
from physai.surrogate.fit import FitSettings
from physai.surrogate.model import Surrogate
from physai.surrogate.score import ScoreSettings, reached
from physai.surrogate.spread import channel_spread, rms

FORMAT = "physai.adapted/1"
HORIZONS = (1, 10, 50)
FEWER, SLOWER = 9, 10.0
"""By what the steps and the rate of one-step training are divided when a fit goes on from another.

With a tenth of the data of variants (one seed) a third of this rate left the error of a rocket
after 50 periods at 6.7%, this rate at 0.35%; 3.3 times the rate made that of hopper, quadrotor and
arm 7% to 12% larger, with three times the steps as well 13% to 44%."""


def going_on(settings: FitSettings) -> FitSettings:
    """Return settings for going on with a fitted surrogate: fewer, smaller steps.

    Args:
        settings: of a fit from fresh weights.
    """
    return replace(
        settings,
        steps=max(1, settings.steps // FEWER),
        learning_rate=settings.learning_rate / SLOWER,
    )


def side_by_side(surrogates: Mapping[str, Surrogate], episodes: Episodes) -> dict[str, Any]:
    """Fly surrogates open loop beside the same recorded windows.

    Args:
        surrogates: by name.
        episodes: that no fit saw.

    Returns:
        JSON-ready: `windows`, `horizons` (1, 10 and 50 control periods, without those that fewer
        than 20 windows reach), and `nrmse` and `blown_up` by name. The error is divided by the
        channels' spread, as in `physai.surrogate.score`; it is of the predictions that stayed
        finite, None where none did.

    Raises:
        InputError: no window is as long as the shortest horizon.
    """
    settings = ScoreSettings(HORIZONS)
    horizons, _ = reached(episodes, settings)
    states, actions, disturbances = windows(episodes, max(horizons), settings.stride)
    scale = channel_spread(next(iter(surrogates.values())).layout.joints, states)
    nrmse: dict[str, list[float | None]] = {}
    blown: dict[str, int] = {}
    for name, surrogate in surrogates.items():
        error, _ = fly_beside(surrogate, states, actions, disturbances)
        kept = np.isfinite(error).all(axis=(0, 2))
        blown[name] = int((~kept).sum())
        with np.errstate(over="ignore"):
            rows = (
                np.sqrt(np.mean(np.square(error[:, kept]), axis=1)) / scale if kept.any() else None
            )
        nrmse[name] = [None if rows is None else rms(rows[h - 1]) for h in horizons]
    return {
        "windows": int(actions.shape[1]),
        "horizons": list(horizons),
        "nrmse": nrmse,
        "blown_up": blown,
    }
