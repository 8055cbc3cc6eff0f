"""Surrogates that nobody trained, and domains made by hand, where the training does not matter."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from physai.plant import Plant
from physai.rollout.symmetry import Symmetry
from physai.surrogate.bounds import unbounded
from physai.surrogate.domain import Domain
from physai.surrogate.features import layout_of
from physai.surrogate.inputs import input_channels
from physai.surrogate.model import Surrogate
from physai.surrogate.network import Architecture, init_ensemble
from physai.surrogate.scaling import Calibration, Normaliser


def untrained_surrogate(plant: Plant, width: int = 8, change: float = 1e-3) -> Surrogate:
    """Return a surrogate of two members with random weights, whose targets are of this size."""
    layout = layout_of(plant, Symmetry("xyz", heading=True))
    ni, nt = len(input_channels(layout, plant)), layout.nt
    architecture = Architecture(inputs=ni, outputs=nt, width=width, depth=1)
    return Surrogate(
        init_ensemble(architecture, 2, jax.random.key(0)),
        Normaliser(
            jnp.zeros(ni), jnp.ones(ni), jnp.zeros(nt), jnp.full(nt, change), jnp.full(nt, 12.0)
        ),
        unbounded(layout.nv),
        Calibration(jnp.zeros((5, nt)), jnp.zeros((5, nt))),
        unit_domain(ni),
        layout,
        architecture,
    )


def unit_domain(ni: int) -> Domain:
    """Return the domain that is the unit ball: its score is the length of an input."""
    one, zero = jnp.ones(ni), jnp.zeros(ni)
    return Domain(-one, one, zero, zero, jnp.eye(ni), jnp.zeros((1, ni)), jnp.float32(1.0))


def domain_of_one(ni: int, channel: int, limit: float) -> Domain:
    """Return a domain that one channel leaves at +-limit, and no other ever does."""
    wide = jnp.full(ni, 1e6).at[channel].set(limit)
    zero = jnp.zeros(ni)
    return Domain(-wide, wide, zero, zero, 1e-9 * jnp.eye(ni), jnp.zeros((1, ni)), jnp.float32(1.0))
