"""The part of a surrogate's report card that is about sensors."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from physai.plant import Plant
from physai.rollout.dataset import Episodes
from physai.surrogate.model import Surrogate
from physai.surrogate.readout import SensorReadout
from physai.surrogate.readout_fit import smallest
from physai.surrogate.sensed import along_flights, of_known_states, sensed
from physai.surrogate.spread import rms


def score_readout(
    surrogate: Surrogate, plant: Plant, episodes: Episodes, horizons: tuple[int, ...], stride: int
) -> dict[str, Any] | None:
    """Compare predicted readings with recorded ones, of known states and along open-loop flights.

    Known states are all recorded ones. The error of a channel is divided by its standard deviation
    over all of them: predicting the mean always would be an error of about 1. A channel that never
    changes has no relative error.

    Args:
        surrogate: what predicts.
        plant: names the channels.
        episodes: that neither fitting nor calibration saw.
        horizons: control periods ahead, ascending.
        stride: control periods between the windows cut from an episode.

    Returns:
        JSON-ready: `horizons` (0: of known states), by horizon `nrmse` (root mean square over
        channels) and `coverage`, and by channel `unit`, `rmse`, `nrmse`, `coverage`, `half_width`
        and `zero`, the share of readings that are exactly 0. None without a readout, or where the
        episodes do not record sensors.
    """
    if surrogate.readout is None or episodes.sensors is None:
        return None
    readout, at = surrogate.readout, [0, *horizons]
    every = sensed(episodes)
    known = of_known_states(surrogate, episodes)
    compared = [_Compared(known.error[0], _widths(readout, known.spread)[0])]
    along = along_flights(surrogate, episodes, max(horizons), stride)
    # Intervals begin with that of a known state.
    width = _widths(readout, np.concatenate([along.spread[:1], along.spread]))
    for h in horizons:
        there = along.recorded[h - 1]
        compared.append(_Compared(along.error[h - 1][there], width[h][there]))
    scale = np.std(every, axis=0)
    scale = np.where(scale > smallest(plant, every), scale, np.nan)
    rmse = np.stack([c.rmse for c in compared])
    coverage = np.stack([c.coverage for c in compared])
    coverage[[h >= readout.calibration.floor.shape[0] for h in at]] = np.nan
    half = np.stack([c.mean_width for c in compared])
    return {
        "horizons": at,
        "nrmse": [_number(rms(row)) for row in rmse / scale],
        "coverage": [_number(row.mean()) for row in coverage],
        "channels": {
            channel.name: {
                "unit": channel.unit,
                "rmse": [_number(x) for x in rmse[:, c]],
                "nrmse": [_number(x) for x in rmse[:, c] / scale[c]],
                "coverage": [_number(x) for x in coverage[:, c]],
                "half_width": [_number(x) for x in half[:, c]],
                "zero": float((every[:, c] == 0.0).mean()),
            }
            for c, channel in enumerate(plant.sensor_channels)
        },
    }


class _Compared(NamedTuple):
    """Errors of readings and half widths of their intervals, both `[n, ns]`."""

    error: np.ndarray
    width: np.ndarray

    @property
    def finite(self) -> np.ndarray:
        """Which rows `[n]` did not blow up."""
        return np.asarray(np.isfinite(self.error).all(axis=1))

    @property
    def rmse(self) -> np.ndarray:
        """Root mean square errors `[ns]` of what did not blow up."""
        return np.sqrt(np.mean(np.square(self.error[self.finite]), axis=0))

    @property
    def coverage(self) -> np.ndarray:
        """Share of all rows `[ns]` inside of the interval."""
        return (np.abs(self.error) <= self.width).mean(axis=0)

    @property
    def mean_width(self) -> np.ndarray:
        """Mean half width `[ns]`."""
        return self.width[self.finite].mean(axis=0)


def _widths(readout: SensorReadout, spread: np.ndarray) -> np.ndarray:
    return np.asarray(readout.calibration.half_width(jnp.asarray(spread)))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
