"""The operating domain: where a surrogate's training data lie, and how far an input is off.

An input x is outside where one of its channels leaves the range of the training data, or where it
is far from all of them. With centre c_i and half width h_i of channel i, and prototypes p_j,

    e(x) = max_i |x_i - c_i| / h_i - 1 - slack_i,     d(x) = min_j |W^T (x - m) - p_j|
    score(x) = max( d(x) / radius,  min( e(x) / EDGE,  1 + e(x) ) )

Ranges alone miss a combination that was never recorded of values that were; a distance alone misses
a single channel among many. W divides by the standard deviations, and along the eigenvectors of the
correlation by the fourth root of the eigenvalue. By nothing, and an input that breaks a correlation
is not seen; by the square root, as Mahalanobis did, and one that follows it too far is seen late.

References: Lloyd, "Least squares quantization in PCM", 1982 (prototypes, as means of clusters);
Sun, Ming, Zhu, Li, "Out-of-distribution detection with deep nearest neighbors", 2022,
arXiv:2204.06507 (distance to the nearest datum); Angelopoulos, Bates, Fisch, Lei, Schuster,
"Conformal risk control", 2022, arXiv:2208.02814 (thresholds, of inputs that come in episodes).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from scipy.cluster.vq import kmeans2

FALSE_ALARMS = 0.01
"""Share of the calibration inputs that may lie outside."""
RISK = 0.02
"""The same, were one more episode, as long as the longest, wholly outside."""
EDGE = 1e-3
"""Half widths beyond a range at which the score is 1: a ramp, so that it is continuous."""
PROTOTYPES = 256
SAMPLE = 20_000
"""Training inputs that the prototypes are made from."""
GAPS, MOST = 5.0, 0.2
"""Mean gaps between recorded values that still count as inside, and half widths at most."""
FAR = 1e3
"""Widths beyond a range at which the score grows no more: float32 would overflow."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Domain:
    """Ranges and density of the training inputs, in the units of `input_channels`.

    Attributes:
        low, high: smallest and largest training input `[ni]`.
        slack: `[ni]`; half widths beyond them that still count as inside.
        mean: centre `[ni]`.
        whitening: `[ni, ni]`, W above.
        prototypes: `[k, ni]`, means of clusters of `(x - mean) @ whitening` on the data.
        radius: scalar; distance from the nearest prototype at the edge.
    """

    low: jax.Array
    high: jax.Array
    slack: jax.Array
    mean: jax.Array
    whitening: jax.Array
    prototypes: jax.Array
    radius: jax.Array

    def score(self, x: jax.Array) -> jax.Array:
        """Return the score of raw inputs `[..., ni]`: 1 at the edge, larger is farther out.

        Finite for finite inputs, continuous, and differentiable almost everywhere.
        """
        width = self.high - self.low + rounding(self.low, self.high)
        x = jnp.clip(x, self.low - FAR * width, self.high + FAR * width)
        beyond = jnp.maximum(self._beyond(x).max(-1), 0.0)
        reach = jnp.minimum(beyond / EDGE, 1.0 + beyond)
        return jnp.maximum(self.distance(x) / self.radius, reach)

    def distance(self, x: jax.Array) -> jax.Array:
        """Return the distance `[...]` of raw inputs `[..., ni]` from the nearest prototype."""
        z = (x - self.mean) @ self.whitening
        # |z - p|^2 as a product of matrices: a difference would need [..., k, ni] of memory.
        lengths = jnp.sum(jnp.square(self.prototypes), axis=-1)
        nearest = jnp.min(lengths - 2.0 * z @ self.prototypes.T, axis=-1)
        return jnp.sqrt(jnp.maximum(nearest + jnp.sum(jnp.square(z), axis=-1), 1e-12))

    def outside(self, x: jax.Array) -> jax.Array:
        """Return which channels of `x [..., ni]` lie outside their training range."""
        return self._beyond(x) > EDGE

    def _beyond(self, x: jax.Array) -> jax.Array:
        """Return by how many half widths channels `[..., ni]` leave their range, below 0 inside."""
        half = 0.5 * (self.high - self.low) + rounding(self.low, self.high)
        return jnp.abs(x - 0.5 * (self.low + self.high)) / half - 1.0 - self.slack


def rounding(low: jax.Array, high: jax.Array) -> jax.Array:
    """Return what a channel that is constant may move by: the rounding of many steps in float32."""
    return 1e-5 * jnp.maximum(jnp.abs(low), jnp.abs(high)) + 1e-7


def fit_domain(
    training: np.ndarray,
    calibration: np.ndarray,
    length: np.ndarray | None = None,
    prototypes: int = PROTOTYPES,
) -> Domain:
    """Describe training inputs, and set the edge by inputs that they do not hold.

    At most 1% of the calibration inputs lie outside; fewer where the episodes are few, so that the
    expected share on fresh episodes stays below 2%.

    Args:
        training: `[n, ni]`.
        calibration: `[m, ni]`, the episodes one after the other.
        length: of the calibration episodes, in control periods (None: all 1, independent inputs).
        prototypes: how many.
    """
    training, calibration = (np.asarray(a, np.float64) for a in (training, calibration))
    low, high, mean = training.min(0), training.max(0), training.mean(0)
    std = np.maximum(training.std(0), np.asarray(rounding(low, high)))
    whitening = _whitening((training - mean) / std) / std[:, None]
    points = _prototypes((training - mean) @ whitening, prototypes)
    arrays = (low, high, _gaps(training), mean, whitening, points, 1.0)
    domain = Domain(*(jnp.asarray(a, jnp.float32) for a in arrays))
    return _with_edge(domain, calibration, 1 if length is None else int(np.max(length)))


def _with_edge(domain: Domain, calibration: np.ndarray, longest: int) -> Domain:
    """Set slack and radius so that as many calibration inputs lie outside as may."""
    count = len(calibration)
    allowed = min(FALSE_ALARMS * count, RISK * (count + longest) - longest)
    allowed = max(0, int(allowed))
    x = jnp.asarray(calibration, jnp.float32)
    beyond = np.asarray(domain._beyond(x)).max(axis=1)
    more = max(np.sort(beyond)[::-1][allowed // 2], 0.0)  # half of them by their range
    within = beyond <= more
    distance = np.sort(np.asarray(jax.jit(Domain.distance)(domain, x))[within])[::-1]
    radius = distance[allowed - (count - len(distance))]
    # A rounding more, as another batch may round otherwise.
    return replace(domain, slack=domain.slack + more, radius=jnp.float32(1.00001 * radius + 1e-6))


def _gaps(training: np.ndarray) -> np.ndarray:
    """Return the half widths `[ni]` by which a channel's true range may exceed that of its values.

    Of a design a hundred values are recorded, not a hundred thousand. Where m values are drawn
    evenly, the next one lies t widths beyond them with a chance of exp(-m t) / m at either end.
    """
    distinct = np.array([len(np.unique(column)) for column in training.T])
    return np.minimum(2.0 * GAPS / distinct, MOST)


def _whitening(unit: np.ndarray) -> np.ndarray:
    """Return `[ni, ni]`, W of standardised inputs `[n, ni]`."""
    correlation = unit.T @ unit / len(unit)
    # A constant channel has no correlation; give it unit variance, so that moving it is seen.
    np.fill_diagonal(correlation, 1.0)
    values, vectors = np.linalg.eigh(correlation)
    return vectors / np.maximum(values, 1e-4) ** 0.25


def _prototypes(points: np.ndarray, count: int) -> np.ndarray:
    """Return means of clusters `[count, ni]` of points `[n, ni]`, repeated where n is less."""
    rng = np.random.default_rng(0)
    sample = points[rng.choice(len(points), min(len(points), SAMPLE), replace=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster keeps its first point
        means = kmeans2(sample, min(count, len(sample)), minit="points", rng=rng)[0]
    return np.resize(means, (count, points.shape[1]))
