"""Which seven float32 numbers make the best tanh for a controller?

A policy on a microcontroller cannot afford libm's `tanhf`, and one that runs a different tanh in
training and on the robot cannot be checked to the last digits. This script finds the odd rational
function

    r(x) = x P(x^2) / Q(x^2),   P = p0 + p1 t + p2 t^2 + p3 t^3,   Q = 1 + q1 t + q2 t^2 + q3 t^3,
    |x| <= c

that is closest to tanh on [-c, c] in the largest absolute error, rounds its coefficients to float32
and measures the error of the float32 evaluation. Beyond c the argument is clamped, which costs 1 -
r(c).

Method: Lawson's iteration. The linearised residual (x P - f Q) / |Q_previous| is minimised in
    weighted least squares (a
singular vector, in a Chebyshev basis because powers of t are ill conditioned) and each point's
weight is multiplied by its error, which drives the weighted solution towards the one of smallest
maximal error.

Reference: C. L. Lawson, "Contributions to the theory of linear least maximum approximation", PhD
    thesis, UCLA, 1961;
C. K. Sanathanan and J. Koerner, "Transfer function synthesis as a ratio of two complex
polynomials", IEEE Trans. Automatic Control 8 (1963) 56-58, doi:10.1109/TAC.1963.1105517.

    python experiments/rational_tanh.py            # the coefficients of physai.control.policy and
    their errors python experiments/rational_tanh.py --smoke    # fewer points and iterations, a
    second
"""

from dataclasses import dataclass, replace

import numpy as np
import tyro
from numpy.polynomial import Chebyshev, Polynomial
from numpy.polynomial.chebyshev import chebvander


@dataclass(frozen=True)
class Settings:
    """What to fit and how hard to try."""

    clamp: float = 7.0
    """Arguments beyond +-clamp are clamped; 1 - tanh(7) = 1.7e-6."""
    numerator_degree: int = 3
    """Degree of P in x^2."""
    denominator_degree: int = 3
    """Degree of Q in x^2."""
    points: int = 8000
    """Points of the fit on (0, clamp]."""
    iterations: int = 400
    """Lawson iterations."""
    smoke: bool = False
    """Finish in about a second."""


def fit(settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Fit P and Q; returns their coefficients in rising powers of x^2, scaled to Q(0) = 1."""
    c, m = settings.clamp, settings.numerator_degree
    # Half the points spread evenly, half crowd towards both ends, where a rational fit has its
    # extreme errors.
    crowded = c * (1 - np.cos(np.linspace(0, np.pi, settings.points // 2))) / 2
    x = np.unique(np.concatenate([np.linspace(0, c, settings.points // 2), crowded]))[1:]
    t, f = (x / c) ** 2, np.tanh(x)
    basis_p = (x / c)[:, None] * chebvander(2 * t - 1, m)
    basis_q = chebvander(2 * t - 1, settings.denominator_degree)

    weight, q_previous = np.full(x.size, 1.0 / x.size), np.ones(x.size)
    best_error, best = np.inf, (np.zeros(m + 1), np.ones(settings.denominator_degree + 1))
    for _ in range(settings.iterations):
        system = np.hstack([basis_p, -f[:, None] * basis_q])
        system *= (np.sqrt(weight) / np.abs(q_previous))[:, None]
        column = np.linalg.norm(system, axis=0)
        solution = np.linalg.svd(system / column, full_matrices=False)[2][-1] / column
        p, q = solution[: m + 1], basis_q @ solution[m + 1 :]
        error = np.abs(f - basis_p @ p / q)
        if error.max() < best_error and q.min() * q.max() > 0:  # no pole inside the interval
            best_error, best = error.max(), (p, solution[m + 1 :])
        q_previous = q / np.abs(q).max()
        weight = weight * error / np.sum(weight * error)
        weight = np.maximum(weight, 1e-12 * weight.max())
    powers = [
        np.asarray(Chebyshev(k, domain=[0, 1]).convert(kind=Polynomial).coef, dtype=float)
        for k in best
    ]
    p = powers[0] / c ** (2 * np.arange(m + 1) + 1)
    q = powers[1] / c ** (2 * np.arange(settings.denominator_degree + 1))
    return p / q[0], q / q[0]


def evaluate(x: np.ndarray, p: np.ndarray, q: np.ndarray, clamp: float) -> np.ndarray:
    """Evaluate r(x) by Horner's rule in the precision of `x`."""
    x = np.clip(x, x.dtype.type(-clamp), x.dtype.type(clamp))
    t = x * x
    numerator, denominator = np.full_like(x, p[-1]), np.full_like(x, q[-1])
    for k in p[-2::-1]:
        numerator = numerator * t + x.dtype.type(k)
    for k in q[-2::-1]:
        denominator = denominator * t + x.dtype.type(k)
    return x * numerator / denominator


def main(settings: Settings) -> None:
    if settings.smoke:
        settings = replace(settings, points=1000, iterations=50)
    p, q = (k.astype(np.float32) for k in fit(settings))
    print(f"clamp       +-{settings.clamp}")
    print("numerator  ", ", ".join(f"{k:.9g}" for k in p))
    print("denominator", ", ".join(f"{k:.9g}" for k in q))

    x32 = np.linspace(-settings.clamp - 1, settings.clamp + 1, 4_000_001).astype(np.float32)
    y32 = evaluate(x32, p, q, settings.clamp)
    x64 = np.linspace(0.0, settings.clamp, 2_000_001)
    y64 = evaluate(x64, p.astype(float), q.astype(float), settings.clamp)
    print(f"largest |r - tanh|, exact arithmetic    {np.abs(y64 - np.tanh(x64)).max():.3e}")
    error32 = np.abs(y32 - np.tanh(x32.astype(float))).max()
    print(f"largest |r - tanh|, float32 arithmetic  {error32:.3e}")
    print(f"1 - largest |r|, float32 arithmetic     {1 - float(np.abs(y32).max()):.3e}")
    print(f"monotone in exact arithmetic            {bool(np.all(np.diff(y64) >= 0))}")


if __name__ == "__main__":
    main(tyro.cli(Settings))
