"""The network of one ensemble member, and the ensemble as one stacked tree of parameters.

Hidden layers are gated, silu(W x + b) * (V x + c): a rigid body's equations are products of inputs
(thrust, attitude, rates, 1/mass), which a gate represents with few units. What is linear in the
inputs has a path of its own, so that no unit is spent on it.

A second path is linear in the inputs with gains g(d) that depend on the machine's design d alone,
U (g(d) * V x): the modes of a structure turn by an angle in a control period, or by several turns,
that the design sets, and all else that they do is nearly linear.

References: Shazeer, "GLU Variants Improve Transformer", 2020, equation 6, arXiv:2002.05202; Ha,
Dai, Le, "HyperNetworks", 2016, section 3.2 (weights scaled by what another network says),
arXiv:1609.09106.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

Parameters = dict[str, Any]

GAIN_UNITS = 64
"""Hidden units between a design and its gains."""


@dataclass(frozen=True)
class Architecture:
    """Sizes of a member: `inputs` -> `depth` gated layers of `width` -> `outputs`, and directly.

    Attributes:
        inputs, outputs, width, depth: of the layers.
        design: how many of the inputs, the last ones, are the design; 0: there is no path with
            gains. Such a path is `width` wide.
    """

    inputs: int
    outputs: int
    width: int
    depth: int
    design: int = 0


class GatedNetwork(nnx.Module):
    """A gated multilayer perceptron on normalised inputs `[..., ni]`, normalised targets out."""

    def __init__(self, architecture: Architecture, rngs: nnx.Rngs) -> None:
        widths = [architecture.inputs] + [architecture.width] * architecture.depth
        initial = nnx.initializers.lecun_normal()
        self.hidden = nnx.List(
            nnx.Linear(n_in, 2 * n_out, kernel_init=initial, rngs=rngs)
            for n_in, n_out in pairwise(widths)
        )
        # A small last layer starts every member near the mean of the targets.
        last = nnx.initializers.variance_scaling(0.01, "fan_in", "normal")
        self.readout = nnx.Linear(widths[-1], architecture.outputs, kernel_init=last, rngs=rngs)
        self.linear = nnx.Linear(
            *(architecture.inputs, architecture.outputs),
            use_bias=False,
            kernel_init=nnx.initializers.zeros,
            rngs=rngs,
        )
        self.modes = Modes(architecture, rngs) if architecture.design else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return normalised targets `[..., nt]`."""
        hidden = x
        for layer in self.hidden:
            gate, value = jnp.split(layer(hidden), 2, axis=-1)
            hidden = nnx.silu(gate) * value
        y = self.linear(x) + self.readout(hidden)
        return y if self.modes is None else y + self.modes(x)


class Modes(nnx.Module):
    """What is linear in the inputs `[..., ni]`, with gains that the design among them sets."""

    def __init__(self, architecture: Architecture, rngs: nnx.Rngs) -> None:
        self.design = architecture.design
        initial, spread = nnx.initializers.lecun_normal(), nnx.initializers.normal(1.0)
        self.features = nnx.Linear(
            *(architecture.design, GAIN_UNITS),
            kernel_init=spread,
            bias_init=spread,
            rngs=rngs,
        )
        self.gains = nnx.Linear(GAIN_UNITS, architecture.width, kernel_init=initial, rngs=rngs)
        self.seen = nnx.Linear(
            architecture.inputs, architecture.width, kernel_init=initial, rngs=rngs
        )
        last = nnx.initializers.variance_scaling(0.01, "fan_in", "normal")
        self.told = nnx.Linear(
            *(architecture.width, architecture.outputs),
            use_bias=False,
            kernel_init=last,
            rngs=rngs,
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return their part of the normalised targets `[..., nt]`."""
        gains = self.gains(nnx.silu(self.features(x[..., -self.design :])))
        return self.told(gains * self.seen(x))


@partial(jax.jit, static_argnums=(0, 1))
def init_ensemble(architecture: Architecture, members: int, key: jax.Array) -> Parameters:
    """Return independently initialised parameters, every leaf with a leading axis `members`."""

    def member(member_key: jax.Array) -> Parameters:
        network = GatedNetwork(architecture, nnx.Rngs(member_key))
        return nnx.to_pure_dict(nnx.state(network, nnx.Param))

    return jax.vmap(member)(jax.random.split(key, members))


def apply_member(architecture: Architecture, parameters: Parameters, x: jax.Array) -> jax.Array:
    """Evaluate one member on normalised inputs `[..., ni]`."""
    graph, abstract = _graph(architecture)
    state = jax.tree.map(lambda leaf: leaf, abstract)
    nnx.replace_by_pure_dict(state, parameters)
    return nnx.merge(graph, state)(x)


def apply_ensemble(architecture: Architecture, parameters: Parameters, x: jax.Array) -> jax.Array:
    """Evaluate every member on the same inputs `[..., ni]`; returns `[members, ..., nt]`."""
    return jax.vmap(lambda p: apply_member(architecture, p, x))(parameters)


@lru_cache(maxsize=32)
def _graph(architecture: Architecture) -> tuple[Any, Any]:
    network = nnx.eval_shape(lambda: GatedNetwork(architecture, nnx.Rngs(0)))
    return nnx.split(network, nnx.Param)
