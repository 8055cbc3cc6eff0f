"""What in a log looks as if its unit, its sign or its order were another than the mapping says.

Nothing is corrected: a suspicion is told, with the number that raised it, and the user decides. The
tests compare the log with the joints' limits, with the channels' ranges, with itself (a velocity is
the derivative of a position) and with how fast the model moves when it is shaken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from scipy.spatial.transform import Rotation

from physai.exchange.channels import Machine
from physai.exchange.logs import Signal
from physai.exchange.mapping import ColumnMap
from physai.exchange.resample import Recording, tangents
from physai.exchange.units import convert
from physai.plant import Plant
from physai.rollout.engine import TruePlant
from physai.rollout.excitation import Excitation, clip_actions, draw_starts, shake
from physai.rollout.store import columns
from physai.task import Task

DEGREES = 180.0 / math.pi
_UNITS = {
    "rad": (("deg", DEGREES), ("turns", 1.0 / (2.0 * math.pi))),
    "m": (("cm", 100.0), ("mm", 1000.0)),
}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_FACTORS = (
    (DEGREES, "deg against rad"),
    (1000.0, "mm against m, or ms against s"),
    (60.0 / (2.0 * math.pi), "rpm against rad/s"),
    (2.0 * math.pi, "turns against rad"),
)
# The trapezoidal rule says too little of what swings: by tan(x) / x with x = pi f h, which is 3 at
# 0.4 of the sampling rate. None of the factors above is below 6.
_SLACK = 3.0
_FLIGHTS, _FLIGHT_TIME = 64, 1.0  # s


def suspect_time(machine: Machine, mapping: ColumnMap, period: float) -> list[str]:
    """Suspect a time in ms that is said to be in s, or the reverse."""
    signals: Sequence[Any] = machine.moving
    step = min(float(np.median(np.diff(s.time))) for s in signals if len(s.time) > 1)
    if mapping.time.column and step > 30.0 * period:
        factor = 1e-3
    elif mapping.time.column and step < period / 500.0:
        factor = 1e3
    else:
        return []
    if not 1.0 / 30.0 < factor * step / period < 3.0:
        return []
    said = float(convert(1.0, mapping.time.unit or "s", "s", "[time]"))
    unit = next((u for u, s in _SECONDS.items() if math.isclose(s, factor * said)), "another unit")
    return [
        f"{machine.log.name}: time (column {mapping.time.column!r}, declared "
        f"{mapping.time.unit or 'a date'}): a sample every {step:g} s, the control period is "
        f"{period:g} s; in {unit} it would be every {factor * step:g} s: is the column in {unit}?"
    ]


def suspect_positions(machine: Machine, mapping: ColumnMap, plant: Plant) -> list[str]:
    """Suspect positions outside their joint's limits, and say in which unit they would fit."""
    found = []
    for i, joint in enumerate(plant.joints):
        signal = machine.signals["position"].get(joint.name)
        if signal is None or not plant.model.jnt_limited[i]:
            continue
        low, high = (float(x) for x in plant.model.jnt_range[i])
        unit = "rad" if joint.kind == "hinge" else "m"
        source = _source(mapping, "position", joint.name)
        found += _outside(
            f"{machine.log.name}: position {joint.name} ({source})",
            signal,
            (low, high, unit),
            slack=0.1,
            others=_UNITS[unit],
            what="the joint's limits are",
        )
    return found


def note_still(
    name: str, recordings: Sequence[Recording], mapping: ColumnMap, plant: Plant, task: Task
) -> list[str]:
    """Note logged positions that never change through all recordings of a log."""
    qpos = np.concatenate([r.arrays["qpos"] for r in recordings])
    still = np.ptp(qpos, axis=0) == 0.0
    found = []
    for i, (channel, unit) in enumerate(columns(plant, task)["qpos"]):
        entry = mapping.channels["position"].get(channel)
        if still[i] and entry is not None and entry.column:
            found.append(
                f"{name}: position {channel} ({_source(mapping, 'position', channel)}): is "
                f"{qpos[0, i]:.6g} {unit} through the whole log; is it the right column, and the "
                "sensor alive?"
            )
    return found


def suspect_actions(machine: Machine, mapping: ColumnMap, plant: Plant) -> list[str]:
    """Suspect actions outside their channel's range."""
    found = []
    for group, channels in (("action", plant.actions), ("disturbance", plant.disturbances)):
        for channel in channels:
            if (signal := machine.signals[group].get(channel.name)) is None:
                continue
            others = (*_UNITS.get(channel.unit, ()), ("percent", 100.0), ("thousandths", 1000.0))
            found += _outside(
                f"{machine.log.name}: {group} {channel.name} "
                f"({_source(mapping, group, channel.name)})",
                signal,
                (channel.low, channel.high, channel.unit),
                slack=0.01,
                others=others,
                what="the channel's range is",
            )
    return found


def _outside(
    where: str,
    signal: Signal,
    bounds: tuple[float, float, str],
    slack: float,
    others: Sequence[tuple[str, float]],
    what: str,
) -> list[str]:
    low, high, unit = bounds
    slack *= high - low
    least, most = float(signal.values.min()), float(signal.values.max())

    def inside(factor: float) -> bool:
        return low - slack <= least / factor and most / factor <= high + slack

    if inside(1.0):
        return []
    shown = "" if unit == "1" else f" {unit}"
    text = f"{where}: {least:g} to {most:g}{shown}, but {what} {low:g} to {high:g}{shown}"
    fitting = [(name, factor) for name, factor in others if factor > 1.0 and inside(factor)]
    if fitting:
        names, factor = " or ".join(name for name, _ in fitting), fitting[0][1]
        return [
            f"{text}; it would fit as {names}, {least / factor:.4g} to {most / factor:.4g}"
            f"{shown}: is the column in {names}?"
        ]
    return [text]


def suspect_rates(
    recordings: Sequence[Recording],
    machine: Machine,
    mapping: ColumnMap,
    plant: Plant,
    task: Task,
    fastest: np.ndarray,
) -> list[str]:
    """Suspect velocities that are not the derivative of the position, and say by which factor.

    Over a recording the position moves by the integral of the velocity, so the slope of the one
    over the other is 1; both are compared period by period, the integral by the trapezoidal rule.
    What moves at less than 2% of the shaken model's speeds may be noise and is not judged.
    """
    steps = [tangents(plant, r.arrays["qpos"][1:], r.arrays["qpos"][:-1]) for r in recordings]
    moved = np.concatenate(steps)
    speed = [r.arrays["qvel"] for r in recordings]
    integral = np.concatenate([0.5 * (v[1:] + v[:-1]) for v in speed]) * plant.control_period
    found = []
    for i, (channel, unit) in enumerate(columns(plant, task)["qvel"]):
        name = channel.removesuffix(".rate")
        if name not in machine.signals["velocity"]:
            continue
        a, b = moved[:, i], integral[:, i]
        least = 0.02 * fastest[i] * plant.control_period
        power = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
        if power <= 0.0 or max(np.sqrt(np.mean(a * a)), np.sqrt(np.mean(b * b))) < least:
            continue
        correlation, slope = float(np.sum(a * b)) / power, float(np.sum(a * b) / np.sum(b * b))
        where = f"{machine.log.name}: velocity {name} ({_source(mapping, 'velocity', name)})"
        if abs(correlation) < 0.5:
            found.append(
                f"{where}: does not follow the position (correlation {correlation:.2f}); is it "
                "another joint's, of another frame, or late?"
            )
        elif not 1.0 / _SLACK < slope < _SLACK:
            found.append(f"{where}: {_slope(slope, unit)}")
    return found


def _slope(slope: float, unit: str) -> str:
    size = abs(slope)
    sign = " and the other way" if slope < 0.0 else ""
    shown = (
        f"the position moves {size:.4g} times as fast{sign}"
        if size >= 1.0
        else f"it is {1.0 / size:.4g} times the derivative of the position{sign}"
    )
    if 1.0 / _SLACK < size < _SLACK:
        return "the position moves the other way: is its sign, or the position's, reversed?"
    for factor, name in _FACTORS:
        if abs(math.log(max(size, 1.0 / size) / factor)) < 0.1:
            if factor == DEGREES and unit == "rad/s":
                which = "position" if size > 1.0 else "velocity"
                return f"{shown}: {name}; is the {which} in degrees?"
            return f"{shown}: {name}?"
    return shown


def suspect_speeds(
    recordings: Sequence[Recording],
    machine: Machine,
    mapping: ColumnMap,
    plant: Plant,
    task: Task,
    fastest: np.ndarray,
) -> list[str]:
    """Suspect motion that is much faster than the model's, and say in which unit it would not be.

    Args:
        recordings: of one log.
        machine: the same at its own times.
        mapping: names the columns.
        plant: the machine.
        task: as the recordings were made with.
        fastest: speeds of the model when shaken, `[nv]`.
    """
    speeds = np.concatenate([np.abs(r.arrays["qvel"]) for r in recordings])
    usual = np.quantile(speeds, 0.95, axis=0)
    found = []
    for i, (channel, unit) in enumerate(columns(plant, task)["qvel"]):
        name = channel.removesuffix(".rate")
        factor, other = (DEGREES, "deg") if unit == "rad/s" else (1000.0, "mm")
        enough = 10.0 if unit == "rad/s" else 30.0
        if fastest[i] <= 1e-9 or not enough < usual[i] / fastest[i] < 3.0 * factor:
            continue
        group = "velocity" if name in machine.signals["velocity"] else "position"
        where = f"{machine.log.name}: {group} {name} ({_source(mapping, group, name)})"
        found.append(
            f"{where}: moves at {usual[i]:.4g} {unit}, the model when shaken at {fastest[i]:.4g} "
            f"{unit} at most; is it in {other}{'/s' if group == 'velocity' else ''}?"
        )
    return found


def shaken(plant: Plant, task: Task, seed: int) -> np.ndarray:
    """Return velocities of the nominal model under random actions for 1 s, `[n, T+1, nv]`."""
    rng = np.random.default_rng([seed, 2])
    designs = np.tile(plant.nominal, (_FLIGHTS, 1))
    steps = max(1, round(_FLIGHT_TIME / plant.control_period))
    shaking = shake(plant, task, Excitation(), rng, _FLIGHTS, steps, controlled=False)
    actions = clip_actions(plant, shaking.mean + shaking.noise)
    state = draw_starts(task, jax.random.key(seed), designs)
    simulator, speeds = TruePlant(plant, _FLIGHTS, designs), [state.qvel]
    for k in range(steps):
        state = simulator.step(state, actions[:, k], shaking.disturbances[:, k])
        speeds.append(state.qvel)
    return np.stack(speeds, axis=1)[simulator.valid]


def suspect_order(
    recordings: Sequence[Recording], machine: Machine, mapping: ColumnMap, plant: Plant
) -> tuple[list[str], list[str]]:
    """Suspect a quaternion whose columns are in the other order.

    With angular velocities, by which order moves as they say. Without, by how the machine lies: one
    that is level in the other order is upside down in "xyzw", which is suspicious, and turned by
    half a turn about the vertical in "wxyz", which it may well be.

    Returns:
        Suspicions and notes.
    """
    suspicions, notes = [], []
    for joint in plant.joints:
        if joint.name not in machine.turning:
            continue
        quaternion = mapping.quaternions[joint.name]
        other = "xyzw" if quaternion.order == "wxyz" else "wxyz"
        where = f"{machine.log.name}: quaternion {joint.name} ({', '.join(quaternion.columns)})"
        said = _agrees_better(recordings, machine, joint, quaternion.order, plant.control_period)
        if said or (said is None and other == "wxyz" and _still(recordings, joint, "xyzw")):
            suspicions.append(
                f'{where}: reads as if its order were "{other}", not "{quaternion.order}"'
            )
        elif said is None and other == "xyzw" and _still(recordings, joint, "wxyz"):
            notes.append(f'{where}: faces backwards all the time, or its order is "{other}"')
    return suspicions, notes


def _orders(recording: Recording, joint: Any, order: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the quaternions of a recording as read, and as read in the other order."""
    first = joint.qpos_index + (3 if joint.kind == "free" else 0)
    q = recording.arrays["qpos"][:, first : first + 4]
    return q, q[:, [1, 2, 3, 0] if order == "xyzw" else [3, 0, 1, 2]]


def _agrees_better(
    recordings: Sequence[Recording], machine: Machine, joint: Any, order: str, period: float
) -> bool | None:
    """Tell whether the other order moves as the angular velocities say, None without them."""
    if any(name not in machine.signals["velocity"] for name in _turning_rates(joint)):
        return None
    rates = joint.qvel_index + (3 if joint.kind == "free" else 0)
    said, errors = 0.0, [0.0, 0.0]
    for recording in recordings:
        w = recording.arrays["qvel"][:, rates : rates + 3]
        expected = 0.5 * (w[1:] + w[:-1]) * period
        said += float(np.sum(expected**2))
        for i, read in enumerate(_orders(recording, joint, order)):
            turns = Rotation.from_quat(read, scalar_first=True)
            moved = (turns[:-1].inv() * turns[1:]).as_rotvec()
            errors[i] += float(np.sum((moved - expected) ** 2))
    return errors[1] < 0.1 * errors[0] and errors[0] > 0.1 * said if said > 0.0 else None


def _still(recordings: Sequence[Recording], joint: Any, order: str) -> bool:
    """Tell whether the other order is turned by little, and this one by about half a turn."""
    read = [_orders(recording, joint, order) for recording in recordings]
    mine, others = (np.median(np.abs(np.concatenate([r[i] for r in read])[:, 0])) for i in (0, 1))
    return bool(mine < 0.3 and others > 0.9)


def _turning_rates(joint: Any) -> list[str]:
    return [f"{joint.name}.r{axis}" for axis in "xyz"]


def _source(mapping: ColumnMap, group: str, name: str) -> str:
    entry = mapping.channels[group].get(name)
    if entry is not None:
        return f"column {entry.column!r}, declared {entry.unit}"
    joint = name.rpartition(".")[0]
    quaternion = mapping.quaternions.get(joint)
    return f"columns {', '.join(quaternion.columns)}" if quaternion else "derived"
