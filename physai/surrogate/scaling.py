"""Scales of a network's inputs and targets, and what turns spread into calibrated intervals."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

INPUT_LIMIT = 12.0
"""Standard deviations of the training data at which inputs are clipped."""
TARGET_MARGIN = 2.0
"""Largest change that may be predicted, in largest changes that the training data hold."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Normaliser:
    """Mean and standard deviation of inputs `[ni]` and targets `[nt]` on the training data.

    `target_limit [nt]` bounds the normalised targets that may be predicted.
    """

    input_mean: jax.Array
    input_std: jax.Array
    target_mean: jax.Array
    target_std: jax.Array
    target_limit: jax.Array

    def inputs(self, raw: jax.Array) -> jax.Array:
        """Normalise raw inputs `[..., ni]`, clipped at `INPUT_LIMIT` standard deviations.

        Beyond it a gated layer would extrapolate as a product, and an open-loop prediction that
        strays would soon leave the numbers that a float holds.
        """
        scaled = (raw - self.input_mean) / self.input_std
        return jnp.clip(scaled, -INPUT_LIMIT, INPUT_LIMIT)

    def targets(self, predicted: jax.Array) -> jax.Array:
        """Return predicted targets `[..., nt]` in their units, within `target_limit`.

        Nothing seen ever changed the machine by much more; a flight that strays leaves at a walk.
        """
        bounded = jnp.clip(predicted, -self.target_limit, self.target_limit)
        return bounded * self.target_std + self.target_mean


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Calibration:
    """What turns the members' spread into intervals of stated coverage, for horizons 1 to H.

    The half width of channel c at horizon h is `quantile[h, c] * sqrt(spread^2 + floor[h, c]^2)`.

    Attributes:
        floor: `[H, nc]`, in the channels' units.
        quantile: `[H, nc]`.
    """

    floor: jax.Array
    quantile: jax.Array

    def half_width(self, spread: jax.Array) -> jax.Array:
        """Turn spread `[T, ..., nc]` at the first T horizons into interval half widths.

        Beyond the calibrated horizons they are infinite.
        """
        steps, calibrated = spread.shape[0], self.floor.shape[0]
        shape = (steps,) + (1,) * (spread.ndim - 2) + (spread.shape[-1],)
        index = jnp.minimum(jnp.arange(steps), calibrated - 1)
        floor, quantile = (x[index].reshape(shape) for x in (self.floor, self.quantile))
        width = quantile * jnp.sqrt(jnp.square(spread) + jnp.square(floor))
        beyond = (jnp.arange(steps) >= calibrated).reshape((steps,) + (1,) * (spread.ndim - 1))
        return jnp.where(beyond, jnp.inf, width)
