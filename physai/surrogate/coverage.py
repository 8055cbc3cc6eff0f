"""What intervals are worth: how often they hold, how wide they are, whether width tells error.

Each horizon is judged on all windows that last so long, so that the first steps of an episode weigh
no more than the others.

Reference: Gneiting, Balabdaoui, Raftery, "Probabilistic forecasts, calibration and sharpness",
2007, section 1.2: sharpness is worth asking for among intervals that are calibrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata

from physai.surrogate.calibration import Flown
from physai.surrogate.model import Surrogate
from physai.surrogate.spread import channel_spread, rms


@dataclass(frozen=True)
class Coverage:
    """Intervals beside flights, for horizons 1 to H.

    Attributes:
        windows: that last to each horizon `[H]`.
        inside: share of the true values inside their interval `[H, nc]`; NaN where nothing is
            promised, or no window lasts so long.
        half_width: mean over these windows `[H, nc]`, in the channels' units; infinite where
            nothing is promised.
        scale: spread of the channels over these windows `[H, nc]`, NaN for none: see
            `physai.surrogate.spread.channel_spread`.
    """

    windows: np.ndarray
    inside: np.ndarray
    half_width: np.ndarray
    scale: np.ndarray

    def share(self, step: int) -> float | None:
        """Return the mean coverage over the channels that move, None where nothing is promised."""
        moving = self.inside[step][np.isfinite(self.scale[step])]
        return number_or_none(moving.mean()) if len(moving) else None

    def sharpness(self, step: int) -> float | None:
        """Return the mean half width in units of the motion, root mean square over channels.

        The smaller, the sharper. None where nothing is promised.
        """
        scaled = self.half_width[step] / self.scale[step]
        return number_or_none(rms(scaled)) if np.isfinite(self.scale[step]).any() else None

    def channel(self, channel: int, steps: Sequence[int]) -> dict[str, list[float | None]]:
        """Return coverage and mean half width of a channel, in its unit, at some steps."""
        return {
            "coverage": [number_or_none(self.inside[i, channel]) for i in steps],
            "half_width": [number_or_none(self.half_width[i, channel]) for i in steps],
        }


def coverage_of(surrogate: Surrogate, flown: Flown) -> Coverage:
    """Judge a surrogate's intervals on flights beside episodes that it has not seen.

    A prediction that is not finite lies outside of its interval, and has no width.
    """
    recorded = flown.recorded
    width = np.asarray(surrogate.half_width(jnp.asarray(flown.spread)))
    promised = np.isfinite(surrogate.calibration.quantile).all(axis=1)
    promised = np.pad(np.asarray(promised), (0, len(width)))[: len(width)]
    count = np.where(promised, recorded.sum(axis=1), 0)[:, None]
    inside = (np.abs(flown.error) <= width) & recorded[..., None]
    finite = (recorded & flown.sound)[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(count > 0, inside.sum(axis=1) / count, np.nan)
        mean = np.where(finite, width, 0.0).sum(axis=1) / finite.sum(axis=1)
    scale = channel_spread(surrogate.layout.joints, flown.states, flown.lasting)
    return Coverage(recorded.sum(axis=1), share, np.where(promised[:, None], mean, np.inf), scale)


def error_spread_correlation(flown: Flown, scale: np.ndarray, step: int) -> float | None:
    """Return Spearman's rank correlation of |error| with the members' spread, mean over channels.

    A channel's half width grows with the spread, so that the correlation with it is the same,
    whatever the calibration: 0 where the spread tells nothing, 1 where it orders the errors.

    Args:
        flown: flights.
        scale: of the channels `[H, nc]`; a channel without (NaN) is left out.
        step: of the horizon, from 0.

    Returns:
        None where no channel has a correlation, as for a single member.
    """
    rows = flown.recorded[step] & flown.sound[step]
    moving = np.isfinite(scale[step])
    error, spread = (np.abs(x[step])[rows][:, moving] for x in (flown.error, flown.spread))
    ranks = [rankdata(x, axis=0) - 0.5 * (len(x) + 1) for x in (error, spread)]
    with np.errstate(invalid="ignore"):  # equal ranks have no correlation
        lengths = [np.linalg.norm(x, axis=0) for x in ranks]
        found = (ranks[0] * ranks[1]).sum(axis=0) / (lengths[0] * lengths[1])
    found = found[np.isfinite(found)]
    return number_or_none(found.mean()) if len(found) else None


def number_or_none(value: float) -> float | None:
    """Return a number, None where it is not finite."""
    return float(value) if np.isfinite(value) else None
