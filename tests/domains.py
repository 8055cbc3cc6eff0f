"""Domains made by hand, for surrogates whose training data do not matter."""

from __future__ import annotations

import jax.numpy as jnp

from physai.surrogate.domain import Domain


def unit_domain(ni: int) -> Domain:
    """Return the domain that is the unit ball: its score is the length of an input."""
    one, zero = jnp.ones(ni), jnp.zeros(ni)
    return Domain(-one, one, zero, zero, jnp.eye(ni), jnp.zeros((1, ni)), jnp.float32(1.0))


def domain_of_one(ni: int, channel: int, limit: float) -> Domain:
    """Return a domain that one channel leaves at +-limit, and no other ever does."""
    wide = jnp.full(ni, 1e6).at[channel].set(limit)
    zero = jnp.zeros(ni)
    return Domain(-wide, wide, zero, zero, 1e-9 * jnp.eye(ni), jnp.zeros((1, ni)), jnp.float32(1.0))
