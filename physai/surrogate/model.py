"""A surrogate: an ensemble that predicts a plant's next state, its intervals and its domain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from physai.errors import InputError
from physai.state import Array, State, difference
from physai.surrogate.bounds import Bounds, slowed, stopped
from physai.surrogate.domain import Domain
from physai.surrogate.features import Layout, advance
from physai.surrogate.inputs import inputs
from physai.surrogate.known import Known
from physai.surrogate.network import Architecture, Parameters, apply_ensemble, apply_member
from physai.surrogate.prior import centred, told, uncentred
from physai.surrogate.readout import Reading, SensorReadout
from physai.surrogate.scaling import Calibration, Normaliser

_EACH = slice(1, None)


class Prediction(NamedTuple):
    """An open-loop prediction and its interval.

    Attributes:
        states: predicted states `[T, ...]`, without the start.
        half_width: `[T, ..., nc]`, of the channels of `physai.state.difference`; beyond the
            calibrated horizon it is infinite: nothing is promised there.
        sensors: what sensors tell of these states, the action of the period that ended still
            applied, and its interval `[T, ..., ns]` (None: the surrogate has no readout).
    """

    states: State
    half_width: jax.Array
    sensors: Reading | None = None


class Flight(NamedTuple):
    """The mean model's flight, and how far the members' own flights are from it.

    Attributes:
        states: `[T, ...]`, without the start.
        spread: the members' root mean square distance `[T, ..., nc]`.
        readings: what sensors tell of these states `[T, ..., ns]`.
        readings_spread: the members' root mean square distance from it `[T, ..., ns]`.
    """

    states: State
    spread: jax.Array
    readings: jax.Array
    readings_spread: jax.Array


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["parameters", "normaliser", "bounds", "calibration", "domain", "known", "readout"],
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
        readout: what sensors tell of a state (None: of a plant without sensors).
    """

    parameters: Parameters
    normaliser: Normaliser
    bounds: Bounds
    calibration: Calibration
    domain: Domain
    layout: Layout
    architecture: Architecture
    known: Known | None = None
    readout: SensorReadout | None = None

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
        parameters = jax.tree.map(lambda p: p[chosen], self.parameters)
        readout = self.readout
        if readout is not None:
            told = jax.tree.map(lambda p: p[chosen], readout.parameters)
            readout = replace(readout, parameters=told)
        return replace(self, parameters=parameters, readout=readout)

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
        # A barrier: a product with inputs that come components first takes twice as long.
        raw = self.raw_inputs(state, action, disturbance)
        return jax.lax.optimization_barrier(self.normaliser.inputs(raw))

    def raw_inputs(
        self, state: State, action: Array, disturbance: Array | None = None
    ) -> jax.Array:
        """Return the network's inputs `[..., ni]` in their own units, as the domain judges them."""
        return inputs(self.layout, self.known, state, action, self._given(action, disturbance))

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
        flight = self.fly(start, actions, jnp.asarray(disturbances))
        reading = None
        if self.readout is not None:
            # Intervals begin with that of a known state.
            spread = jnp.concatenate([flight.readings_spread[:1], flight.readings_spread])
            reading = Reading(flight.readings, self.readout.calibration.half_width(spread)[1:])
        return Prediction(flight.states, self.half_width(flight.spread), reading)

    def read(self, state: State, action: Array, disturbance: Array | None = None) -> Reading:
        """Return what sensors tell of a known state, and its calibrated interval.

        Args:
            state: `[...]`.
            action: `[..., nu]` in the channels' units, that of the period that led to the state.
            disturbance: `[..., nw]` (None: zero).

        Raises:
            InputError: the surrogate has no readout.
        """
        if self.readout is None:
            raise InputError(
                "read: this surrogate has no readout: its plant has no sensors, or the dataset it "
                "was fitted to does not record them"
            )
        values, spread = self.readout.tell(
            self.known, state, action, self._given(action, disturbance)
        )
        return Reading(values, self.readout.calibration.half_width(spread[None])[0])

    def fly_with_spread(
        self, start: State, actions: jax.Array, disturbances: jax.Array
    ) -> tuple[State, jax.Array]:
        """Return the mean model's flight `[T, ...]` and the members' r.m.s. distance from it."""
        flight = replace(self, readout=None).fly(start, actions, disturbances)
        return flight.states, flight.spread

    def fly(self, start: State, actions: jax.Array, disturbances: jax.Array) -> Flight:
        """Fly the mean model, and every member beside it; sensors are empty without a readout."""

        flown = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (1 + self.members, *jnp.shape(x))), start
        )

        def period(flown: State, inputs_now: tuple[jax.Array, jax.Array]):
            flown = self._step_each(flown, *inputs_now)
            mean, each = (jax.tree.map(lambda x, part=part: x[part], flown) for part in (0, _EACH))
            apart = difference(self.layout.joints, each, jax.tree.map(lambda x: x[None], mean))
            told = self._told(mean, each, *inputs_now)
            return flown, (mean, jnp.sqrt(jnp.mean(jnp.square(apart), axis=0)), *told)

        _, flights = jax.lax.scan(period, flown, (actions, disturbances))
        return Flight(*flights)

    def _told(
        self, mean: State, each: State, action: jax.Array, disturbance: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return what sensors tell of the mean state, and the members' distance from it, each with
        its own readout at its own state."""
        readout = self.readout
        if readout is None:
            nothing = jnp.zeros((*jnp.shape(mean.time), 0))
            return nothing, nothing
        values, _ = readout.tell(self.known, mean, action, disturbance)

        def own_reading(member: Parameters, state: State) -> tuple[jax.Array, jax.Array]:
            return readout.tell_member(self.known, member, state, action, disturbance)

        own, apart = jax.vmap(own_reading)(readout.parameters, each)
        square = jnp.square(own - values) + jnp.square(apart)
        return values, jnp.sqrt(jnp.mean(square, axis=0))

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
        return self.calibration.half_width(spread)

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
