"""Pass rates come with intervals of stated confidence."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from physai.errors import InputError
from physai.verify import (
    clopper_pearson,
)


@pytest.mark.parametrize(
    ("passed", "flights", "low", "high"),
    # Printed in tables of exact 95% limits since Clopper and Pearson (1934), figure 4.
    [
        (0, 10, 0.0, 0.3085),
        (5, 10, 0.1871, 0.8129),
        (10, 100, 0.0490, 0.1762),
        (1, 20, 0.0013, 0.2487),
    ],
)
def test_interval_is_the_published_one(passed: int, flights: int, low: float, high: float) -> None:
    assert clopper_pearson(passed, flights) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("flights", [1, 7, 100, 2000])
def test_interval_is_scipys_exact_one(flights: int, confidence: float) -> None:
    for passed in sorted({0, 1, flights // 3, flights // 2, flights - 1, flights}):
        expected = binomtest(passed, flights).proportion_ci(confidence, method="exact")
        # SciPy inverts the binomial test with a root finder: its error is the tolerance.
        assert clopper_pearson(passed, flights, confidence) == pytest.approx(
            tuple(expected), abs=1e-9
        )


def test_interval_of_all_passed_has_a_closed_form() -> None:
    # P(all n pass | p) = p^n = a/2.
    assert clopper_pearson(2000, 2000) == (pytest.approx(0.025 ** (1 / 2000), rel=1e-12), 1.0)


@pytest.mark.parametrize("flights", [10, 60])
def test_interval_covers_as_often_as_it_says(flights: int) -> None:
    counts = np.arange(flights + 1)
    low, high = np.transpose([clopper_pearson(int(k), flights, 0.9) for k in counts])
    shares = []
    for probability in np.linspace(0.005, 0.995, 199):
        inside = (low <= probability) & (probability <= high)
        shares.append(binom.pmf(counts, flights, probability)[inside].sum())
    assert min(shares) >= 0.9
    # Exact limits are conservative, yet not idle: somewhere they cover little more than they say.
    assert min(shares) < 0.95


def test_interval_covers_drawn_samples() -> None:
    drawn = np.random.default_rng(0).binomial(40, 0.93, 4000)
    limits = {k: clopper_pearson(int(k), 40) for k in np.unique(drawn)}
    covered = np.mean([limits[k][0] <= 0.93 <= limits[k][1] for k in drawn])
    assert covered >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 4000)  # three standard errors of 4000 draws


@pytest.mark.parametrize(
    "arguments", [(-1, 5), (6, 5), (0, 0), (1, 5, 0.0), (1, 5, 1.0), (1, 5, float("nan"))]
)
def test_interval_refuses_nonsense(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(InputError):
        clopper_pearson(*arguments)
