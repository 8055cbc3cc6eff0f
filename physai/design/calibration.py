"""Intervals of what a study predicts: split-conformal, from designs that were flown both ways.

With residuals |verified - predicted| of n designs the half width is the ceil((n + 1) c)-th smallest
one. It then holds the residual of a new design with probability c or more, if the new design is one
more draw like the n.

A Pareto set is no random draw: it lies where predictions look good and, often, on the faces of a
design space, where a surrogate is worst. So the n designs are the next best ones of a search,
which missed the set for being too close to its points or a little behind them. In a trial with the
quadrotor their intervals held the hover power of 33 of 36 Pareto points, intervals from designs all
over the space 25. The next best are like the set, but no draw from it either: the share that is
found inside is what to go by.

Reference: Lei et al., "Distribution-free predictive inference for regression", 2018, algorithm 2,
doi:10.1080/01621459.2017.1307116.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from physai.design.evaluations import Evaluations, number
from physai.design.optimise import best
from physai.design.sampling import Outcome, Trials
from physai.progress import Progress, silent

ROUNDING = 1e-6  # relative; an objective that is exact may differ by the order of a float32 sum


def next_best(found: Evaluations, maximise: Sequence[bool], designs: int) -> np.ndarray:
    """Return the indices of at most `designs` of the best feasible evaluations outside the set."""
    left = np.flatnonzero(found.feasible & ~found.pareto)
    return left[best(found.values[left], maximise, designs)]


def calibrate(
    trials: Trials, designs: np.ndarray, coverage: float, progress: Progress = silent
) -> tuple[dict[str, Any], Outcome, Outcome]:
    """Fly designs `[n, nd]` both ways.

    Returns:
        Coverage, number of designs and half widths (None: no bound), in JSON's own types; what was
        predicted; and what was verified.
    """
    names = [o.name for o in trials.task.objectives]
    if len(designs):
        predicted, verified = trials.predict(designs), trials.verify(designs, "calibrate", progress)
    else:
        none = np.empty(0)
        predicted = verified = Outcome(np.empty((0, len(names))), none, none, none, trials.flights)
    width, used = half_widths(predicted.values, verified.values, coverage)
    size = np.nan_to_num(np.abs(predicted.values)).max(axis=0, initial=0.0)
    width = np.where(width <= ROUNDING * size, 0.0, width)
    half_width = {name: number(w) for name, w in zip(names, width, strict=True)}
    return {"coverage": coverage, "designs": used, "half_width": half_width}, predicted, verified


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
