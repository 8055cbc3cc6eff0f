"""What the flights of one condition say: shares with confidence intervals, by requirement.

For k of n flights that pass, Clopper and Pearson's interval [low, high] holds the probability of
passing with at least the stated confidence 1 - a, whatever that probability is:

    P(K >= k | low) = a/2,   P(K <= k | high) = a/2
    low = B(a/2; k, n - k + 1),   high = B(1 - a/2; k + 1, n - k)

with B(p; x, y) the quantile p of the beta distribution.

Reference: Clopper, Pearson, "The use of confidence or fiducial limits illustrated in the case of
the binomial", Biometrika 26, 1934, doi:10.1093/biomet/26.4.404.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import beta

from physai.errors import InputError
from physai.task import Requirement, Task
from physai.verify.fly import Flights, Judgement
from physai.verify.scenarios import ScenarioSettings


@dataclass(frozen=True)
class RequirementResult:
    """How one requirement fared. A number is None where a flight failed outright, so none exists.

    Attributes:
        name, description, unit, limit: of the requirement.
        passed: flights that met it.
        rate, low, high: share of the flights, and its confidence interval.
        median, p95, worst: of what was measured, in `unit`.
        worst_flight: number of the flight with the worst measure.
    """

    name: str
    description: str
    unit: str
    limit: float
    passed: int
    rate: float
    low: float
    high: float
    median: float | None
    p95: float | None
    worst: float | None
    worst_flight: int


@dataclass(frozen=True)
class ConditionResult:
    """How the flights of one condition fared.

    Attributes:
        name: "nominal" or "disturbed".
        settings: what the flights met.
        flights: their number.
        passed: flights that met every requirement and did not fail otherwise.
        rate, low, high: share of the flights, and its confidence interval.
        requirements: one by one.
        diverged: flights in which the simulation blew up.
        lost: flights that the task called failed for good at some moment.
        controller_faults: flights in which the controller returned NaN or infinity.
        mean_return: mean sum of rewards (None: not finite).
        settling_median, settling_p95: settling time, s (None: not measured, or never settled).
        never_settled: flights that never settled (None: not measured).
        worst_flight, typical_flight: numbers of the flights with the largest and the median margin;
            a flight's margin is its largest measure in terms of the limit.
        worst_margin, typical_margin: these margins, at most 1 when all is met (None: failed).
    """

    name: str
    settings: ScenarioSettings
    flights: int
    passed: int
    rate: float
    low: float
    high: float
    requirements: tuple[RequirementResult, ...]
    diverged: int
    lost: int
    controller_faults: int
    mean_return: float | None
    settling_median: float | None
    settling_p95: float | None
    never_settled: int | None
    worst_flight: int
    worst_margin: float | None
    typical_flight: int
    typical_margin: float | None


def clopper_pearson(passed: int, flights: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the two-sided interval `(low, high)` of a probability, after `passed` of `flights`.

    Raises:
        InputError: not 0 <= passed <= flights, no flights, or a confidence outside (0, 1).

    Reference: Clopper and Pearson, 1934, doi:10.1093/biomet/26.4.404.
    """
    if not 0 <= passed <= flights or flights < 1:
        raise InputError(f"expected 0 <= passed <= flights, got {passed} of {flights}")
    if not 0.0 < confidence < 1.0:
        raise InputError(f"confidence: expected a number between 0 and 1, got {confidence}")
    tail = 0.5 * (1.0 - confidence)
    low = beta.ppf(tail, passed, flights - passed + 1) if passed else 0.0
    high = beta.isf(tail, passed + 1, flights - passed) if passed < flights else 1.0
    return float(low), float(high)


def condition_result(
    name: str,
    settings: ScenarioSettings,
    task: Task,
    flown: Flights,
    judged: Judgement,
    confidence: float,
) -> ConditionResult:
    """Sum up the flights of one condition."""
    n, passed = len(judged.margin), int(judged.passed.sum())
    low, high = clopper_pearson(passed, n, confidence)
    ranked = np.argsort(judged.margin, kind="stable")
    worst, typical = int(np.argmax(judged.margin)), int(ranked[(n - 1) // 2])
    settling = judged.settling
    return ConditionResult(
        name=name,
        settings=settings,
        flights=n,
        passed=passed,
        rate=passed / n,
        low=low,
        high=high,
        requirements=tuple(
            _requirement(r, judged.measures[:, i], judged.met[:, i], confidence)
            for i, r in enumerate(task.requirements)
        ),
        diverged=int(flown.diverged.sum()),
        lost=int(judged.lost.sum()),
        controller_faults=int(np.count_nonzero(flown.faults)),
        mean_return=_finite(judged.returns.mean(dtype=float)),
        settling_median=None if settling is None else _quantile(settling, 0.5),
        settling_p95=None if settling is None else _quantile(settling, 0.95),
        never_settled=None if settling is None else int(np.isinf(settling).sum()),
        worst_flight=worst,
        worst_margin=_finite(judged.margin[worst]),
        typical_flight=typical,
        typical_margin=_finite(judged.margin[typical]),
    )


def _requirement(
    requirement: Requirement, measures: np.ndarray, met: np.ndarray, confidence: float
) -> RequirementResult:
    passed, worst = int(met.sum()), int(np.argmax(measures))
    low, high = clopper_pearson(passed, len(met), confidence)
    return RequirementResult(
        name=requirement.name,
        description=requirement.description,
        unit=requirement.unit,
        limit=float(requirement.limit),
        passed=passed,
        rate=passed / len(met),
        low=low,
        high=high,
        median=_quantile(measures, 0.5),
        p95=_quantile(measures, 0.95),
        worst=_finite(measures[worst]),
        worst_flight=worst,
    )


def _quantile(values: np.ndarray, share: float) -> float | None:
    """Return the smallest value that at least this share does not exceed; None where it is inf.

    No interpolation: between a number and the infinity of a failed flight there is none.
    """
    return _finite(np.sort(values)[math.ceil(share * len(values)) - 1])


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
