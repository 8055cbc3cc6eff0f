"""The operating domain: where a surrogate's training data lie, and how far an input is off."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

QUANTILE = 0.99  # share of calibration inputs that counts as inside


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Domain:
    """Ranges and density of the training inputs, in the units of `input_channels`.

    Attributes:
        low, high: smallest and largest training input `[ni]`.
        mean: centre `[ni]`.
        whitening: `[ni, ni]`, so that `(x - mean) @ whitening` has unit covariance on the data.
        radius: scalar; distance that holds 99% of the calibration inputs.
    """

    low: jax.Array
    high: jax.Array
    mean: jax.Array
    whitening: jax.Array
    radius: jax.Array

    def score(self, x: jax.Array) -> jax.Array:
        """Return the distance of raw inputs `[..., ni]`: 1 at the edge, larger is farther out.

        Mahalanobis distance over the radius (Mahalanobis, "On the generalised distance in
        statistics", 1936).
        """
        return jnp.linalg.norm((x - self.mean) @ self.whitening, axis=-1) / self.radius

    def outside(self, x: jax.Array) -> jax.Array:
        """Return which channels of `x [..., ni]` lie outside their training range."""
        margin = 1e-6 * (self.high - self.low) + 1e-9
        return (x < self.low - margin) | (x > self.high + margin)


def fit_domain(training: np.ndarray, calibration: np.ndarray) -> Domain:
    """Describe training inputs `[n, ni]`; the radius is that of calibration inputs `[m, ni]`."""
    training = np.asarray(training, np.float64)
    mean, std = training.mean(0), training.std(0) + 1e-9
    unit = (training - mean) / std
    correlation = unit.T @ unit / len(unit)
    # A constant channel has no correlation; give it unit variance, so that moving it is seen.
    np.fill_diagonal(correlation, 1.0 + 1e-6)
    values, vectors = np.linalg.eigh(correlation)
    whitening = (vectors / np.sqrt(np.maximum(values, 1e-4))) / std[:, None]
    distances = np.linalg.norm((np.asarray(calibration, np.float64) - mean) @ whitening, axis=-1)
    arrays = (training.min(0), training.max(0), mean, whitening, np.quantile(distances, QUANTILE))
    return Domain(*(jnp.asarray(a, jnp.float32) for a in arrays))
