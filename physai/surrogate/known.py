"""What a plant's model tells of its dynamics, by design: the known part of a surrogate.

The velocity after a control period h is predicted by the midpoint rule on the smooth dynamics,

    dv = h a(q + h/2 (v + h/4 a1), v + h/2 a1, u),      a1 = a(q, v, u)

and a network learns the rest. The model's numbers at a design are polynomials of the design
variables, fitted to models that MuJoCo compiled.

Reference: Hairer, Norsett, Wanner, "Solving Ordinary Differential Equations I", 1993, section II.1
(Runge's midpoint rule), doi:10.1007/978-3-540-78862-1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

from physai.plant import Plant
from physai.state import Array, Joint, State, plus
from physai.surrogate.numbers import constants_of, tree_of
from physai.surrogate.rigid import Ready, acceleration, ready
from physai.surrogate.rows import held
from physai.surrogate.tree import Actuator, Constants, Tree

DEGREE = 3
STAGES = (0.0, 0.5)  # parts of the control period at which the midpoint rule asks
PART = 2048  # control periods of which changes are computed at a time
VARIED = 1e-9
"""Relative change over the designs above which a number counts as depending on the design."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["constants", "coefficients"],
    meta_fields=["tree", "varied", "low", "high", "control_period"],
)
@dataclass(frozen=True)
class Known:
    """The smooth rigid-body dynamics of a plant, of any design.

    Attributes:
        constants: numbers of the nominal design by name.
        coefficients: by name `[terms, ...]`, of the numbers that depend on the design.
        tree: how the machine hangs together.
        varied: names of those numbers, sorted.
        low, high: bounds of the design variables.
        control_period: s.
    """

    constants: Constants
    coefficients: Constants
    tree: Tree
    varied: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    control_period: float

    def change(self, state: State, action: Array, disturbance: Array) -> jax.Array:
        """Return the change of qvel `[..., nv]` in a control period."""
        return _change(self, state, jnp.asarray(action), jnp.asarray(disturbance))

    def changes(self, states: State, actions: Array, disturbances: Array) -> jax.Array:
        """Return `change` of any number of control periods `[n, nv]`, with memory for a few.

        Always so many at once that nothing is compiled for another number of them.
        """
        count = len(actions)
        each = jax.tree.map(
            lambda x: np.resize(x, (-(-count // PART), PART, *np.shape(x)[1:])),
            (states, actions, disturbances),
        )
        parts = range(-(-count // PART))
        found = [self.change(*jax.tree.map(lambda x, i=i: x[i], each)) for i in parts]
        return jnp.concatenate(found)[:count]

    def acceleration_at(
        self, part: Array, before: Array, numbers: Ready, state: State, control: Array
    ) -> jax.Array:
        """Return the acceleration at a part of the period, given that up to there."""
        ahead = part * self.control_period
        joints = tuple(joint for _, joint in self.tree.joints)
        return acceleration(
            self.tree,
            numbers,
            plus(joints, state.qpos, ahead * (state.qvel + 0.5 * ahead * before)),
            state.qvel + ahead * before,
            state.act,
            control,
            ahead,
        )

    def description(self) -> dict[str, Any]:
        """Return what `blank_known` needs to make one of the same shapes, as JSON."""
        shapes = {
            name: {key: list(np.shape(value)) for key, value in getattr(self, name).items()}
            for name in ("constants", "coefficients")
        }
        joints = [[body, *joint] for body, joint in self.tree.joints]
        tree = {"parents": self.tree.parents, "joints": joints, "actuators": self.tree.actuators}
        rest = {"low": self.low, "high": self.high, "control_period": self.control_period}
        return {"tree": tree, **shapes, **rest}

    def explains(
        self, states: State, action: Array, disturbance: Array, after: State
    ) -> float | None:
        """Return the share of the variance of velocity changes that is known, at most 1.

        Args:
            states, action, disturbance, after: recorded control periods `[n, ...]`.

        Returns:
            The mean over degrees of freedom that move; None where nothing moves, or where a
            prediction is not finite.
        """
        predicted = np.asarray(self.changes(states, action, disturbance))
        change = np.asarray(after.qvel) - states.qvel
        moves = change.std(0) > 0.0
        if not moves.any() or not np.isfinite(predicted).all():
            return None
        rest = (change - predicted)[:, moves].var(0) / change[:, moves].var(0)
        return 1.0 - float(rest.mean())

    def at(self, design: Array) -> Constants:
        """Return the numbers of designs `[..., nd]`, those that vary with leading dimensions."""
        if not self.varied:
            return self.constants
        design = jnp.asarray(design)
        lead, flat = design.shape[:-1], design.reshape(-1, design.shape[-1])
        shapes = [self.coefficients[name].shape[1:] for name in self.varied]
        # All numbers of all designs in one product, the designs last as the equations want them.
        together = jnp.concatenate(
            [self.coefficients[n].reshape(len(self.coefficients[n]), -1) for n in self.varied], 1
        )
        numbers = together.T @ _terms(_scaled(flat, self.low, self.high))
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        varied = {
            name: jnp.moveaxis(
                rows.reshape(*shape, *lead),
                range(len(shape), len(shape) + len(lead)),
                range(len(lead)),
            )
            for name, shape, rows in zip(
                self.varied, shapes, jnp.split(numbers, ends[:-1]), strict=True
            )
        }
        return {**self.constants, **varied}


@jax.jit
def _change(known: Known, state: State, action: jax.Array, disturbance: jax.Array) -> jax.Array:
    numbers = ready(known.tree, known.at(state.design))
    control = jnp.concatenate([action, disturbance], -1)

    @jax.checkpoint
    def stage(found: jax.Array, part: jax.Array) -> tuple[jax.Array, None]:
        return known.acceleration_at(part, found, numbers, state, control), None

    # A scan, so that the equations are compiled once. What a gradient needs is found again: that is
    # faster than to store it.
    found, _ = jax.lax.scan(stage, jnp.zeros_like(state.qvel), jnp.array(STAGES))
    return known.control_period * found


def blank_known(description: Mapping[str, Any]) -> Known:
    """Return equations of the described shapes, all numbers 0, to be filled with stored ones."""
    tree = description["tree"]
    blank = {
        name: {key: jnp.zeros(shape) for key, shape in description[name].items()}
        for name in ("constants", "coefficients")
    }
    return Known(
        blank["constants"],
        blank["coefficients"],
        Tree(
            tuple(tree["parents"]),
            tuple((body, Joint(*joint)) for body, *joint in tree["joints"]),
            tuple(Actuator(*actuator) for actuator in tree["actuators"]),
        ),
        tuple(sorted(blank["coefficients"])),
        tuple(description["low"]),
        tuple(description["high"]),
        description["control_period"],
    )


def known_dynamics(plant: Plant) -> Known:
    """Read the smooth dynamics of a plant and fit their dependence on the design."""
    low, high = (tuple(getattr(v, end) for v in plant.design) for end in ("low", "high"))
    nominal = constants_of(plant, plant.model)
    varied: tuple[str, ...] = ()
    coefficients: dict[str, np.ndarray] = {}
    if plant.design:
        power = 4 * len(_exponents(len(low)))
        draws = qmc.Sobol(len(low), rng=np.random.default_rng(0)).random_base2(
            int(np.ceil(np.log2(power)))
        )
        designs = np.array(low) + draws * (np.array(high) - np.array(low))
        models = [constants_of(plant, plant.compile(d, textures=False)) for d in designs]
        terms = np.asarray(_terms(_scaled(designs, low, high)), float).T
        for name in sorted(nominal):
            values = np.stack([m[name] for m in models]).astype(float)
            flat = values.reshape(len(values), -1)
            if np.ptp(flat, axis=0).max(initial=0.0) > VARIED * np.abs(flat).max(initial=0.0):
                solution = np.linalg.lstsq(terms, flat, rcond=None)[0]
                coefficients[name] = solution.reshape(-1, *values.shape[1:])
        varied = tuple(coefficients)
    as_float = partial(jax.tree.map, lambda x: jnp.asarray(x, jnp.float32))
    return Known(
        as_float(nominal),
        as_float(coefficients),
        tree_of(plant),
        varied,
        low,
        high,
        plant.control_period,
    )


def _scaled(design: Array, low: tuple[float, ...], high: tuple[float, ...]) -> jax.Array:
    return 2.0 * (jnp.asarray(design) - jnp.array(low)) / (jnp.array(high) - jnp.array(low)) - 1.0


def _exponents(variables: int) -> list[tuple[int, ...]]:
    return [
        chosen
        for degree in range(DEGREE + 1)
        for chosen in combinations_with_replacement(range(variables), degree)
    ]


def _terms(x: jax.Array) -> jax.Array:
    """Return all products of up to three of `x [n, nd]`: `[terms, n]`."""
    variables = jnp.split(held((x.T,))[0], x.shape[1])
    products: dict[tuple[int, ...], jax.Array] = {(): jnp.ones_like(variables[0])}
    for chosen in _exponents(len(variables))[1:]:
        products[chosen] = products[chosen[:-1]] * variables[chosen[-1]]
    return jnp.concatenate(list(products.values()))
