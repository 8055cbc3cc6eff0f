"""What sensors tell, predicted beside the state: an ensemble of networks from state to readings.

A reading is that of the end of a control period, a function of the state there and of the action
and disturbance that are still applied (`TruePlant.sense`). What a sensor of a free-floating tree
tells in the world's frame is learned in the frame of that tree's root, at position p and attitude
R,

    point R^T (y - p),      vector R^T y,      quaternion conj(q) y

so that it can be told from inputs without position and heading. A sensor that is exactly 0 most of
the time, as a touch sensor in the air is, has two outputs: the probability P that it is not, and
its mean v where it is not. The reading is P v; it varies about it by v sqrt(P (1 - P)) for want of
knowing which of both it is.

Reference: Cragg, "Some statistical models for limited dependent variables", 1971, section 2 (a
probability and a mean of what is not zero), doi:10.2307/1909582.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from physai.state import (
    Array,
    State,
    quaternion_conjugate,
    quaternion_multiply,
    rotate,
    rotate_inverse,
)
from physai.surrogate.features import Layout
from physai.surrogate.inputs import inputs
from physai.surrogate.known import Known
from physai.surrogate.network import Architecture, Parameters, apply_ensemble, apply_member
from physai.surrogate.scaling import Calibration, Normaliser


class Frame(NamedTuple):
    """Channels that are told in the world's frame, and the free joint in whose they are learned.

    Attributes:
        kind: `point`, `vector` or `quaternion`.
        channel: the first of its three or four channels.
        qpos_index: where in qpos the free joint is.
    """

    kind: str
    channel: int
    qpos_index: int


class Reading(NamedTuple):
    """What sensors are predicted to tell, in the channels' units.

    Attributes:
        values: `[..., ns]`; the mean where a sensor may be 0 or not.
        half_width: of the 90% interval `[..., ns]`, infinite beyond the calibrated horizon.
    """

    values: jax.Array
    half_width: jax.Array


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["parameters", "normaliser", "calibration"],
    meta_fields=["layout", "architecture", "frames", "sparse"],
)
@dataclass(frozen=True)
class SensorReadout:
    """An ensemble that tells sensors from states; a frozen pytree.

    Attributes:
        parameters: stacked parameters of the members.
        normaliser: of inputs and outputs; outputs are the ns channels, then a logit for each of
            the `sparse` ones.
        calibration: of the intervals, first at a known state, then 1, 2, ... control periods ahead.
        layout: how states map to inputs; it may see more than the surrogate's does.
        architecture: sizes of a member.
        frames: channels that are learned in the frame of a free joint.
        sparse: channels that are 0 most of the time.
    """

    parameters: Parameters
    normaliser: Normaliser
    calibration: Calibration
    layout: Layout
    architecture: Architecture
    frames: tuple[Frame, ...] = ()
    sparse: tuple[int, ...] = ()

    @property
    def ns(self) -> int:
        """Number of channels."""
        return self.architecture.outputs - len(self.sparse)

    def tell(
        self, known: Known | None, state: State, action: Array, disturbance: Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return the ensemble's mean reading of known states, and its spread, both `[..., ns]`."""
        x = self._inputs(known, state, action, disturbance)
        own, apart = self._split(apply_ensemble(self.architecture, self.parameters, x))
        mean = to_world(self.frames, state, jnp.mean(own, axis=0))
        square = jnp.square(apart) + jnp.square(to_world(self.frames, state, own) - mean)
        return mean, jnp.sqrt(jnp.mean(square, axis=0))

    def tell_member(
        self,
        known: Known | None,
        member: Parameters,
        state: State,
        action: Array,
        disturbance: Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Return one member's reading, and how far it varies about it, both `[..., ns]`."""
        x = self._inputs(known, state, action, disturbance)
        own, apart = self._split(apply_member(self.architecture, member, x))
        return to_world(self.frames, state, own), apart

    def _inputs(
        self, known: Known | None, state: State, action: Array, disturbance: Array
    ) -> jax.Array:
        return self.normaliser.inputs(inputs(self.layout, known, state, action, disturbance))

    def _split(self, outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return mean and deviation `[..., ns]` in the frames that are learned in."""
        told = self.normaliser.targets(outputs)
        values, logits = told[..., : self.ns], told[..., self.ns :]
        if not self.sparse:
            return values, jnp.zeros_like(values)
        index = jnp.array(self.sparse)
        chance, size = jax.nn.sigmoid(logits), values[..., index]
        apart = jnp.abs(size) * jnp.sqrt(chance * (1.0 - chance))
        return (
            values.at[..., index].set(chance * size),
            jnp.zeros_like(values).at[..., index].set(apart),
        )


def to_root(frames: tuple[Frame, ...], state: State, readings: Array) -> jax.Array:
    """Return readings `[..., ns]`, those in the world's frame turned into a free joint's."""
    readings = jnp.asarray(readings)
    for frame in frames:
        part, position, attitude = _parts(frame, state)
        told = readings[..., part]
        if frame.kind == "quaternion":
            own = _upper(quaternion_multiply(quaternion_conjugate(attitude), told))
        else:
            own = rotate_inverse(attitude, told - position if frame.kind == "point" else told)
        readings = readings.at[..., part].set(own)
    return readings


def to_world(frames: tuple[Frame, ...], state: State, readings: Array) -> jax.Array:
    """Return the readings that `to_root` made these of."""
    readings = jnp.asarray(readings)
    for frame in frames:
        part, position, attitude = _parts(frame, state)
        own = readings[..., part]
        if frame.kind == "quaternion":
            turned = quaternion_multiply(attitude, own)
            told = _upper(turned / jnp.linalg.norm(turned, axis=-1, keepdims=True))
        else:
            told = rotate(attitude, own) + (position if frame.kind == "point" else 0.0)
        readings = readings.at[..., part].set(told)
    return readings


def _parts(frame: Frame, state: State) -> tuple[slice, Array, Array]:
    i = frame.qpos_index
    width = 4 if frame.kind == "quaternion" else 3
    part = slice(frame.channel, frame.channel + width)
    return part, state.qpos[..., i : i + 3], state.qpos[..., i + 3 : i + 7]


def _upper(quaternion: jax.Array) -> jax.Array:
    """Return of both quaternions of a rotation the one with w >= 0, as sensors are read."""
    return jnp.where(quaternion[..., :1] < 0.0, -quaternion, quaternion)
