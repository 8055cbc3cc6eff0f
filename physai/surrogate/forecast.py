"""The data forecast: how many more episodes would bring a surrogate's error below a tolerance.

The ensemble is fitted to nested shares of the training episodes, always with the same number of
optimiser steps, and scored on the test episodes. To the errors e of n episodes a power law with a
floor is fitted by least squares of log e,

    e(n) = floor + gain (n / N)^-exponent

with N the episodes that are there. The interval is that of a parametric bootstrap: errors are
drawn anew about the fitted law, with the standard deviation of log e that the fit left, and fitted
again.

References: Cortes, Jackel, Solla, Vapnik, Denker, "Learning curves: asymptotic values and rate of
convergence", 1993, equation 2; Efron, Tibshirani, "An introduction to the bootstrap", 1993, section
6.5, doi:10.1201/9780429246593.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from physai.errors import InputError

EXPONENTS = (0.05, 2.0)  # between which the exponent is sought
DRAWS = 200  # of the bootstrap
COVERAGE = 0.9  # of its intervals
FARTHEST = 100.0  # times the episodes that are there, beyond which nothing is forecast
LEAST_NOISE = 0.01  # standard deviation of log e, where a fit leaves less by chance


@dataclass(frozen=True)
class PowerLaw:
    """Error against number of episodes: `floor + gain (n / reference)^-exponent`."""

    floor: float
    gain: float
    exponent: float
    reference: float

    def error(self, episodes: np.ndarray) -> np.ndarray:
        """Return the error that is expected of so many episodes."""
        return self.floor + self.gain * (np.asarray(episodes) / self.reference) ** -self.exponent

    def needed(self, tolerance: float) -> float:
        """Return the episodes that an error takes; infinite where the floor lies above it."""
        if tolerance <= self.floor or self.gain == 0.0:
            return math.inf
        return self.reference * (self.gain / (tolerance - self.floor)) ** (1.0 / self.exponent)


def fit_power_law(
    episodes: np.ndarray, errors: np.ndarray, near: PowerLaw | None = None
) -> PowerLaw:
    """Fit a power law with a floor to positive errors `[m]` of so many episodes `[m]`.

    The search starts at several laws, or at `near` and one other.

    Raises:
        InputError: fewer than four errors or three numbers of episodes, or an error that is not
            positive and finite.
    """
    episodes, errors = np.asarray(episodes, float), np.asarray(errors, float)
    if len(errors) < 4 or len(np.unique(episodes)) < 3:
        raise InputError(
            "forecast: expected at least four errors at three numbers of episodes, got "
            f"{len(errors)} at {len(np.unique(episodes))}"
        )
    if not (np.isfinite(errors).all() and (errors > 0.0).all()):
        raise InputError(f"forecast: expected positive errors, got {errors}")
    reference, size = float(episodes.max()), float(errors.min())
    part, log_errors = episodes / reference, np.log(errors / size)

    def apart(x: np.ndarray) -> np.ndarray:
        return np.log(x[0] + x[1] * part ** -x[2]) - log_errors

    def slope(x: np.ndarray) -> np.ndarray:
        power = part ** -x[2]
        columns = (np.ones_like(part), power, -x[1] * np.log(part) * power)
        return np.stack(columns, axis=-1) / (x[0] + x[1] * power)[:, None]

    bounds = ([0.0, 1e-9, EXPONENTS[0]], [float(errors.max()) / size, np.inf, EXPONENTS[1]])
    starts = [(0.5, 0.5, 0.5), *((f, 1.0 - f, c) for f in (0.01, 0.9) for c in (0.3, 1.0))]
    if near is not None:
        told = (near.floor / size, near.gain / size, near.exponent)
        starts = [(0.5, 0.5, 0.5), tuple(np.clip(told, np.add(bounds[0], 1e-6), bounds[1]))]
    jac: Any = slope  # the stub knows only the names of finite differences
    found = [least_squares(apart, x, jac, bounds=bounds, max_nfev=200) for x in starts]
    floor, gain, exponent = min(found, key=lambda f: f.cost).x
    return PowerLaw(float(size * floor), float(size * gain), float(exponent), reference)


def forecast(
    episodes: Sequence[int], errors: Sequence[float], tolerance: float, seed: int = 0
) -> dict[str, Any]:
    """Say how many more episodes an error takes.

    Args:
        episodes: that the surrogates were fitted to `[m]`; the largest number are those there.
        errors: of these surrogates `[m]`.
        tolerance: the error to reach.
        seed: of the bootstrap.

    Returns:
        JSON-ready: `law` (`floor`, `gain`, `exponent`, `reference`), `fitted` (error at each of
        `episodes`), `noise` (standard deviation of log e about the law), `floor_interval`, `more`
        with `more_interval` (episodes beyond those there: 0 where the tolerance is kept already,
        None where it is not reached within `FARTHEST` times them), `unreachable` (share of the
        bootstrap's laws that do not reach it), `outcome` (`kept`, `more`, `beyond` or `floor`).

    Raises:
        InputError: as `fit_power_law` does, or a tolerance that is not positive.
    """
    if not (math.isfinite(tolerance) and tolerance > 0.0):
        raise InputError(f"tolerance: expected a positive number, got {tolerance:g}")
    n, e = np.asarray(episodes, float), np.asarray(errors, float)
    law = fit_power_law(n, e)
    fitted = law.error(n)
    left = np.log(e / fitted)
    noise = max(float(np.sqrt(np.sum(left**2) / max(len(e) - 3, 1))), LEAST_NOISE)
    rng = np.random.default_rng(seed)
    drawn = fitted * np.exp(noise * rng.standard_normal((DRAWS, len(e))))
    laws = [fit_power_law(n, row, law) for row in drawn]
    ends = (0.5 - 0.5 * COVERAGE, 0.5 + 0.5 * COVERAGE)
    needed = np.array([x.needed(tolerance) for x in laws])
    interval = [float(np.quantile(needed, end, method="nearest")) for end in ends]
    needs = law.needed(tolerance)
    outcome = "kept" if needs <= law.reference else "more"
    if needs > FARTHEST * law.reference:
        outcome = "beyond" if tolerance > law.floor else "floor"
    return {
        "tolerance": tolerance,
        "law": {"floor": law.floor, "gain": law.gain, "exponent": law.exponent,
                "reference": law.reference},
        "fitted": [float(x) for x in fitted],
        "noise": noise,
        "floor_interval": [float(np.quantile([x.floor for x in laws], end)) for end in ends],
        "more": _more(needs, law.reference),
        "more_interval": [_more(x, law.reference) for x in interval],
        "unreachable": float(np.mean(needed > FARTHEST * law.reference)),
        "outcome": outcome,
    }  # fmt: skip


def _more(needed: float, reference: float) -> int | None:
    """Return the episodes beyond those there, None where they are too many to be forecast."""
    return None if needed > FARTHEST * reference else max(math.ceil(needed - reference), 0)


def statement(found: dict[str, Any], what: str) -> str:
    """Say a forecast in words; `what` names the error."""
    law, x = found["law"], found["tolerance"]
    there, expected = f"{law['reference']:,.0f}", law["floor"] + law["gain"]
    low, high = found["more_interval"]
    floor = " to ".join(f"{v:.3g}" for v in found["floor_interval"])
    if found["outcome"] == "floor":
        return (
            f"{what} of {x:g} is not reachable with more episodes of this kind: the floor is at "
            f"{law['floor']:.3g} (90% interval {floor})."
        )
    if found["outcome"] == "beyond":
        return (
            f"{what} of {x:g} would take more than {FARTHEST:g} times the {there} episodes that "
            f"are there: too far to be forecast. The floor is at {law['floor']:.3g} (90% interval "
            f"{floor})."
        )
    if found["outcome"] == "kept":
        return f"{what} of {x:g} is kept already: {expected:.3g} is expected of {there} episodes."
    to = f"more than {FARTHEST:g} times as many" if high is None else f"{high:,}"
    return (
        f"{found['more']:,} more episodes than the {there} that are there for {what} of {x:g} "
        f"(90% interval {low:,} to {to}); {expected:.3g} is expected now."
    )
