"""Intervals of what a study predicts: split-conformal, from designs that were flown both ways.

With residuals |verified - predicted| of n designs the half width is the ceil((n + 1) c)-th smallest
one. It then holds the residual of a new design with probability c or more, if the new design is one
more draw like the n. The points of a Pareto set are not: they were chosen because their predictions
look good. So the share that is found inside among them is what to go by.

Reference: Lei et al., "Distribution-free predictive inference for regression", 2018, algorithm 2,
doi:10.1080/01621459.2017.1307116.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from physai.design.sampling import Trials
from physai.design.summary import ROUNDING, number
from physai.design.variables import DesignSpace, sobol
from physai.progress import Progress, silent

CANDIDATES = 8  # designs looked at, at most, for each one that is needed


def calibrate(
    trials: Trials,
    space: DesignSpace,
    designs: int,
    coverage: float,
    progress: Progress = silent,
) -> tuple[dict[str, Any], list[list[Any]]]:
    """Fly designs from the whole space both ways; return the intervals and a table of the flights.

    The designs are those of a Sobol sequence that a search could choose: all flights settle on the
    search's own starts. The table's columns are variables, predicted and verified objectives.
    """
    points = sobol(len(space.columns), CANDIDATES * designs, trials.seed)
    found: list[np.ndarray] = []
    looked_at = 0
    while sum(map(len, found)) < designs and looked_at < len(points):
        block = space.designs(points[looked_at : looked_at + designs])
        found.append(block[trials.search(block).feasible])
        looked_at += designs
    share = sum(map(len, found)) / looked_at
    chosen = np.concatenate(found)[:designs]
    names = [o.name for o in trials.task.objectives]
    if not len(chosen):
        none = dict.fromkeys(names)
        return {"designs": 0, "feasible_share": 0.0, "half_width": none}, []
    predicted, verified = trials.predict(chosen), trials.verify(chosen, "calibrate", progress)
    width, used = half_widths(predicted.values, verified.values, coverage)
    size = np.nan_to_num(np.abs(predicted.values)).max(axis=0)
    width = np.where(width <= ROUNDING * size, 0.0, width)
    table = np.concatenate([space.chosen(chosen), predicted.values, verified.values], axis=1)
    result = {
        "designs": used,
        "feasible_share": share,
        "half_width": {name: number(w) for name, w in zip(names, width, strict=True)},
    }
    return result, [[number(x) for x in row] for row in table]


def half_widths(
    predicted: np.ndarray, verified: np.ndarray, coverage: float
) -> tuple[np.ndarray, int]:
    """Return the half widths `[no]` of predictions, and the number of designs used.

    Args:
        predicted: `[n, no]`; a row with NaN is left out, since no such design would be chosen.
        verified: `[n, no]`; NaN counts as infinitely far off.
        coverage: between 0 and 1.

    Returns:
        Half widths, inf where n is too small for the coverage or too many designs failed.
    """
    usable = ~np.isnan(predicted).any(axis=1)
    residual = np.abs(verified[usable] - predicted[usable])
    residual = np.sort(np.where(np.isnan(residual), np.inf, residual), axis=0)
    count = len(residual)
    rank = int(np.ceil((count + 1) * coverage - 1e-9))
    if rank > count:
        return np.full(predicted.shape[1], np.inf), count
    return residual[rank - 1], count
