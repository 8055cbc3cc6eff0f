"""Signals of a log as signals of the plant's channels, in the channels' units."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from physai.errors import InputError
from physai.exchange.logs import Log, Signal
from physai.exchange.mapping import ColumnMap, Entry, Quaternion
from physai.exchange.units import convert
from physai.plant import Plant

NORM_TOLERANCE = 1e-3
"""A quaternion's norm may be off 1 by this: four digits after the point leave 1e-4."""


@dataclass(frozen=True)
class Turning:
    """Samples of an orientation: unit quaternions (w, x, y, z) `[n, 4]`, on one hemisphere."""

    time: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Machine:
    """What a log says of the plant, at the log's own times.

    Attributes:
        log: that it comes from.
        signals: by group and name, in the channels' units.
        constants: by group and name, likewise.
        turning: by joint.
        unwrapped: hinges whose angle jumped by a turn, made continuous.
    """

    log: Log
    signals: dict[str, dict[str, Signal]]
    constants: dict[str, dict[str, float]]
    turning: dict[str, Turning]
    unwrapped: list[str]

    @property
    def moving(self) -> list[Signal | Turning]:
        """What is interpolated, and so must not be interrupted."""
        groups = ("position", "velocity", "activation")
        found = [s for group in groups for s in self.signals[group].values()]
        return [*found, *self.turning.values()]

    @property
    def inputs(self) -> list[Signal]:
        """What is held from sample to sample."""
        return [s for group in ("action", "disturbance") for s in self.signals[group].values()]


def machine_signals(log: Log, mapping: ColumnMap, plant: Plant) -> Machine:
    """Convert the columns of a log.

    Raises:
        InputError: quaternions that are not of unit length, or no signal with two samples.
    """
    signals: dict[str, dict[str, Signal]] = {}
    constants: dict[str, dict[str, float]] = {}
    for group, entries in mapping.channels.items():
        signals[group], constants[group] = {}, {}
        for name, entry in entries.items():
            where = f"{mapping.path}: [{group}] {name}"
            if not entry.column:
                constants[group][name] = float(
                    convert(entry.value, entry.unit, entry.channel_unit, where)
                )
                continue
            signal = log.signals[entry.column]
            signals[group][name] = replace(signal, values=_converted(signal, entry, where))
    turning = {
        joint: _turning(log, joint, quaternion) for joint, quaternion in mapping.quaternions.items()
    }
    unwrapped = []
    for i, joint in enumerate(plant.joints):
        signal = signals["position"].get(joint.name)
        endless = joint.kind == "hinge" and not plant.model.jnt_limited[i]
        if signal is not None and endless and _wraps(signal):
            signals["position"][joint.name] = replace(signal, values=np.unwrap(signal.values))
            unwrapped.append(joint.name)
    machine = Machine(log, signals, constants, turning, unwrapped)
    if all(len(signal.time) < 2 for signal in machine.moving):
        raise InputError(
            f"{log.name}: expected at least 2 samples of a position, got 1 of each; are these "
            "columns empty, or is this the right file?"
        )
    return machine


def _converted(signal: Signal, entry: Entry, where: str) -> np.ndarray:
    return convert(
        entry.scale * signal.values + entry.offset, entry.unit, entry.channel_unit, where
    )


def _turning(log: Log, joint: str, quaternion: Quaternion) -> Turning:
    four = [log.signals[column] for column in quaternion.wxyz]
    time = reduce(np.intersect1d, [signal.time for signal in four])
    if len(time) < 2:
        raise InputError(
            f"{log.name}: quaternion {joint}: expected its four columns at the same times"
        )
    values = np.stack([s.values[np.searchsorted(s.time, time)] for s in four], axis=-1)
    norm = np.linalg.norm(values, axis=-1)
    worst = int(np.argmax(np.abs(norm - 1.0)))
    if abs(norm[worst] - 1.0) > NORM_TOLERANCE:
        bad = int((np.abs(norm - 1.0) > NORM_TOLERANCE).sum())
        raise InputError(
            f"{log.name}: quaternion {joint} ({', '.join(quaternion.columns)}): expected a norm of "
            f"1 within {NORM_TOLERANCE:g}, got {norm[worst]:.6g} at {time[worst]:g} s, and "
            f"{bad} of {len(norm)} samples are off; are these the four columns of one quaternion?"
        )
    values /= norm[:, None]
    # q and -q are one orientation; without jumps between them it can be interpolated.
    flips = np.sum(values[1:] * values[:-1], axis=-1) < 0.0
    return Turning(time, values * np.cumprod(np.where([False, *flips], -1.0, 1.0))[:, None])


def _wraps(signal: Signal) -> bool:
    """Tell whether an angle jumps by about a turn between samples."""
    jumps = np.abs(np.diff(signal.values))
    jumps = jumps[jumps > math.pi]
    # An angle in degrees, read as rad, jumps too, but by any amount: that is suspected elsewhere.
    return len(jumps) > 0 and bool((np.abs(jumps - 2.0 * math.pi) < 1.0).all())
