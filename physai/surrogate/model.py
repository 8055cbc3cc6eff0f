"""A surrogate: an ensemble that predicts a plant's next state, its intervals and its domain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from physai.state import Array, State, difference
from physai.surrogate.bounds import Bounds, slowed, stopped
from physai.surrogate.domain import Domain
from physai.surrogate.features import Layout, advance, inputs
from physai.surrogate.known import Known
from physai.surrogate.network import Architecture, Parameters, apply_ensemble, apply_member
from physai.surrogate.prior import centred, told, uncentred

INPUT_LIMIT = 12.0
"""Standard deviations of the training data at which inputs are clipped."""
TARGET_MARGIN = 2.0
"""Largest change that may be predicted, in largest changes that the training data hold."""
_EACH = slice(1, None)


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


class Prediction(NamedTuple):
    """An open-loop prediction and its interval.

    Attributes:
        states: predicted states `[T, ...]`, without the start.
        half_width: `[T, ..., nc]`, of the channels of `physai.state.difference`; beyond the
            calibrated horizon it is infinite: nothing is promised there.
    """

    states: State
    half_width: jax.Array


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["parameters", "normaliser", "bounds", "calibration", "domain", "known"],
    meta_fields=["layout", "architecture"],
)
@dataclass(frozen=True)
class Surrogate:
    """A learned `Model`; a frozen pytree, so that it passes through jit, grad and scan.

    Attributes:
        parameters: stacked parameters of the members.
        normaliser: of inputs and targets.
        bounds: which no prediction leaves.
        calibration: of the intervals.
        domain: where the training data lie.
        layout: how states map to inputs and targets.
        architecture: sizes of a member.
        known: what the model tells of its kinematics and dynamics (None: nothing is used).
    """

    parameters: Parameters
    normaliser: Normaliser
    bounds: Bounds
    calibration: Calibration
    domain: Domain
    layout: Layout
    architecture: Architecture
    known: Known | None = None

    @property
    def members(self) -> int:
        """Number of ensemble members."""
        return jax.tree.leaves(self.parameters)[0].shape[0]

    def subset(self, key: jax.Array, count: int) -> Surrogate:
        """Return a surrogate of `count` neighbouring members, drawn at random (all, if fewer)."""
        if count >= self.members:
            return self
        first = jax.random.randint(key, (), 0, self.members)
        chosen = (first + jnp.arange(count)) % self.members
        return replace(self, parameters=jax.tree.map(lambda p: p[chosen], self.parameters))

    def step(self, state: State, action: Array, disturbance: Array | None = None) -> State:
        """Return the ensemble's mean next state, one control period on; any leading dimensions.

        Args:
            state: `[...]`.
            action: `[..., nu]` in the channels' units.
            disturbance: `[..., nw]` (None: zero).
        """
        return self.step_with_spread(state, action, disturbance)[0]

    def step_with_spread(
        self, state: State, action: Array, disturbance: Array | None = None
    ) -> tuple[State, jax.Array]:
        """Return the mean next state, and the members' disagreement.

        The disagreement `[...]` is the root mean square, over targets, of the members' standard
        deviation in units of the targets' own standard deviation.
        """
        predicted = self._targets(state, action, disturbance)
        variance = jnp.var(predicted, axis=0)
        spread = jnp.sqrt(jnp.mean(variance, axis=-1) + 1e-12)
        mean = self._denormalised(jnp.mean(predicted, axis=0), state, action, disturbance)
        return self._advanced(state, mean), spread

    def step_member(
        self, member: Parameters, state: State, action: Array, disturbance: Array
    ) -> State:
        """Return the next state that one member's parameters predict."""
        x = self.normalised_inputs(state, action, disturbance)
        y = apply_member(self.architecture, member, x)
        return self._advanced(state, self._denormalised(y, state, action, disturbance))

    def normalised_inputs(
        self, state: State, action: Array, disturbance: Array | None
    ) -> jax.Array:
        """Return the network's inputs `[..., ni]`, normalised by the training data."""
        return self.normaliser.inputs(self.raw_inputs(state, action, disturbance))

    def raw_inputs(
        self, state: State, action: Array, disturbance: Array | None = None
    ) -> jax.Array:
        """Return the network's inputs `[..., ni]` in their own units, as the domain judges them."""
        return inputs(self.layout, state, action, self._given(action, disturbance))

    def predict(
        self, start: State, actions: Array, disturbances: Array | None = None
    ) -> Prediction:
        """Predict an open-loop trajectory with its calibrated interval.

        Every member flies on its own; the prediction is the flight of the mean model.

        Args:
            start: `[...]`.
            actions: `[T, ..., nu]`.
            disturbances: `[T, ..., nw]` (None: zero).
        """
        actions = jnp.asarray(actions)
        if disturbances is None:
            disturbances = jnp.zeros((*actions.shape[:-1], self.layout.nw))
        mean, spread = self.fly_with_spread(start, actions, jnp.asarray(disturbances))
        return Prediction(mean, self.half_width(spread))

    def fly_with_spread(
        self, start: State, actions: jax.Array, disturbances: jax.Array
    ) -> tuple[State, jax.Array]:
        """Return the mean model's flight `[T, ...]` and the members' r.m.s. distance from it."""

        flown = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (1 + self.members, *jnp.shape(x))), start
        )

        def period(flown: State, inputs_now: tuple[jax.Array, jax.Array]):
            flown = self._step_each(flown, *inputs_now)
            mean, each = (jax.tree.map(lambda x, part=part: x[part], flown) for part in (0, _EACH))
            apart = difference(self.layout.joints, each, jax.tree.map(lambda x: x[None], mean))
            return flown, (mean, jnp.sqrt(jnp.mean(jnp.square(apart), axis=0)))

        _, (mean, spread) = jax.lax.scan(period, flown, (actions, disturbances))
        return mean, spread

    def _step_each(self, flown: State, action: jax.Array, disturbance: jax.Array) -> State:
        """Return the next states of the mean model and of every member `[1 + members, ...]`.

        All at once, so that what is known is compiled, and computed, as one batch.
        """
        given = (jnp.broadcast_to(x, (1 + self.members, *x.shape)) for x in (action, disturbance))
        action, disturbance = given
        x = self.normalised_inputs(flown, action, disturbance)
        mean = jnp.mean(apply_ensemble(self.architecture, self.parameters, x[0]), axis=0)
        each = jax.vmap(partial(apply_member, self.architecture))(self.parameters, x[_EACH])
        predicted = jnp.concatenate([mean[None], each])
        return self._advanced(flown, self._denormalised(predicted, flown, action, disturbance))

    def half_width(self, spread: jax.Array) -> jax.Array:
        """Turn the members' spread `[T, ..., nc]` at horizons 1 to T into interval half widths."""
        steps, calibrated = spread.shape[0], self.calibration.floor.shape[0]
        shape = (steps,) + (1,) * (spread.ndim - 2) + (spread.shape[-1],)
        index = jnp.minimum(jnp.arange(steps), calibrated - 1)
        floor = self.calibration.floor[index].reshape(shape)
        quantile = self.calibration.quantile[index].reshape(shape)
        width = quantile * jnp.sqrt(jnp.square(spread) + jnp.square(floor))
        beyond = (jnp.arange(steps) >= calibrated).reshape((steps,) + (1,) * (spread.ndim - 1))
        return jnp.where(beyond, jnp.inf, width)

    def _denormalised(
        self, predicted: jax.Array, state: State, action: Array, disturbance: Array | None
    ) -> jax.Array:
        """Return targets `[..., nt]` in their units, the known part added."""
        learned = self.normaliser.targets(predicted)
        if self.known is None or not self.layout.equations:
            return learned
        given = self._given(action, disturbance)
        return learned + told(self.layout, self.known, state, action, given)

    def _advanced(self, state: State, targets: jax.Array) -> State:
        seen = centred(self.layout, self.known, state)
        after = advance(self.layout, seen, slowed(self.layout, self.bounds, seen, targets))
        return stopped(self.layout, self.bounds, state, uncentred(self.layout, self.known, after))

    def _given(self, action: Array, disturbance: Array | None) -> Array:
        if disturbance is None:
            return jnp.zeros((*jnp.shape(action)[:-1], self.layout.nw))
        return disturbance

    def _targets(self, state: State, action: Array, disturbance: Array | None) -> jax.Array:
        x = self.normalised_inputs(state, action, disturbance)
        return apply_ensemble(self.architecture, self.parameters, x)
