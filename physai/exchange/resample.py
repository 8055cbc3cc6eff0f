"""From signals at the log's own times to recordings at the control period.

A recording is what lies between two gaps. Its moments are t_k = t_0 + k h with the control period
h. Positions are interpolated linearly, orientations on the great arc (slerp); an input of period k
is the mean over [t_k, t_k+1) of what was held, so that a command that changed within the period, or
a microsecond after t_k, counts for as long as it acted. Samples that already lie on the moments are
taken as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from physai.errors import InputError
from physai.exchange.channels import Machine, Turning
from physai.exchange.logs import Signal
from physai.plant import Plant
from physai.rollout.store import columns
from physai.task import Task

ON_TIME = 1e-3  # control periods that a sample may be off a moment to be taken as it is
FEWEST = 2  # control periods in a recording


@dataclass(frozen=True)
class Recording:
    """A piece of a log without gaps, at the control period.

    Attributes:
        source: the log's name.
        arrays: qpos, qvel, act `[n+1, ...]`, action, disturbance `[n, ...]`, command, design
            `[...]`, in the units of the dataset.
        start: time of the first moment, s.
        terminated: whether the task ended it.
    """

    source: str
    arrays: dict[str, np.ndarray]
    start: float = 0.0
    terminated: bool = False

    @property
    def periods(self) -> int:
        """Number of control periods n."""
        return len(self.arrays["action"])


@dataclass
class Resampling:
    """What was done to a log.

    Attributes:
        gaps: start and end of each, s.
        dropped: seconds in pieces that are too short.
        interpolated: whether a sample was not on its moment.
        derived: channels that the log does not have, and how they were found.
        notes: what else the user may want to know.
    """

    gaps: list[tuple[float, float]] = field(default_factory=list)
    dropped: float = 0.0
    interpolated: bool = False
    derived: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def recordings(
    machine: Machine, plant: Plant, task: Task, longest_gap: float
) -> tuple[list[Recording], Resampling]:
    """Cut a log at its gaps and resample the pieces.

    Args:
        machine: the log's signals.
        plant: the machine.
        task: gives the commands' names.
        longest_gap: control periods.

    Raises:
        InputError: nothing is left, or a design variable changes within a piece.
    """
    done, h = Resampling(), plant.control_period
    found = []
    for start, end in _spans(machine, longest_gap * h, done):
        periods = int(np.floor((end - start) / h + ON_TIME))
        if periods < FEWEST:
            done.dropped += end - start
            continue
        moments = start + h * np.arange(periods + 1)
        arrays = _resampled(machine, plant, task, moments, done)
        found.append(Recording(machine.log.name, arrays))
    if not found:
        slowest = max(float(np.median(np.diff(s.time))) for s in _all(machine) if len(s.time) > 1)
        raise InputError(
            f"{machine.log.name}: no {FEWEST} control periods ({h:g} s) without a gap of "
            f"more than {longest_gap * h:g} s; the slowest signal has one every {slowest:g} s. "
            "Log faster, or raise longest_gap in [time] if values in between may be made up"
        )
    return found, done


def _all(machine: Machine) -> list[Any]:
    return [*machine.moving, *machine.inputs]


def _spans(machine: Machine, limit: float, done: Resampling) -> list[tuple[float, float]]:
    """Return start and end of what lies between the gaps of all signals."""
    everything = _all(machine)
    start = max(s.time[0] for s in everything)
    # A held input lasts beyond its last sample.
    ends = [s.time[-1] for s in machine.moving]
    ends += [s.time[-1] + limit for s in machine.inputs]
    end, spans = min(ends), []
    gaps: set[tuple[float, float]] = set()
    for signal in everything:
        for i in np.flatnonzero(np.diff(signal.time) > limit * (1.0 + 1e-9)):
            gaps.add((float(signal.time[i]), float(signal.time[i + 1])))
    for gap_start, gap_end in sorted(gaps):
        if gap_end <= start or gap_start >= end:
            continue
        done.gaps.append((gap_start, gap_end))
        if gap_start > start:
            spans.append((start, gap_start))
        start = max(start, gap_end)
    return [*spans, (start, end)] if end > start else spans


def _resampled(
    machine: Machine, plant: Plant, task: Task, moments: np.ndarray, done: Resampling
) -> dict[str, np.ndarray]:
    named, n = columns(plant, task), len(moments)
    design = _constants(machine, "design", plant.nominal, moments, plant, task, done)
    qpos = np.zeros((n, plant.model.nq))
    for i, (name, _) in enumerate(named["qpos"]):
        if name in machine.signals["position"]:
            qpos[:, i] = _moving(machine.signals["position"][name], moments, done)
        elif name in machine.constants["position"]:
            qpos[:, i] = machine.constants["position"][name]
    for joint in plant.joints:
        if joint.name in machine.turning:
            first = joint.qpos_index + (3 if joint.kind == "free" else 0)
            qpos[:, first : first + 4] = _turned(machine.turning[joint.name], moments, done)
    action = _held_channels(machine, "action", [c.name for c in plant.actions], moments, done)
    low, high = [c.low for c in plant.actions], [c.high for c in plant.actions]
    action = np.clip(action, low, high)
    return {
        "qpos": qpos,
        "qvel": _velocities(machine, plant, named["qvel"], qpos, moments, done),
        "act": _activations(machine, plant, named["act"], action, design, moments, done),
        "action": action,
        "disturbance": _held_channels(
            machine, "disturbance", [c.name for c in plant.disturbances], moments, done
        ),
        "command": _constants(
            machine, "command", np.zeros(len(task.commands)), moments, plant, task, done
        ),
        "design": design,
    }


def _on_time(signal: Any, moments: np.ndarray) -> np.ndarray | None:
    """Return the samples on the moments, None where one has none."""
    slack = ON_TIME * (moments[1] - moments[0])
    index = np.searchsorted(signal.time, moments - slack)
    if index[-1] >= len(signal.time):
        return None
    return index if (np.abs(signal.time[index] - moments) <= slack).all() else None


def _moving(signal: Signal, moments: np.ndarray, done: Resampling) -> np.ndarray:
    index = _on_time(signal, moments)
    if index is not None:
        return signal.values[index]
    done.interpolated = True
    return np.interp(moments, signal.time, signal.values)


def _turned(turning: Turning, moments: np.ndarray, done: Resampling) -> np.ndarray:
    index = _on_time(turning, moments)
    if index is not None:
        return turning.values[index]
    done.interpolated = True
    rotations = Rotation.from_quat(turning.values, scalar_first=True)
    between = np.clip(moments, turning.time[0], turning.time[-1])
    found = Slerp(turning.time, rotations)(between).as_quat(scalar_first=True)
    # The sign of the nearest sample: scipy's is its own choice.
    nearest = turning.values[np.searchsorted(turning.time, between)]
    return found * np.where(np.sum(found * nearest, axis=-1, keepdims=True) < 0.0, -1.0, 1.0)


def _held_channels(
    machine: Machine, group: str, names: Sequence[str], moments: np.ndarray, done: Resampling
) -> np.ndarray:
    values = np.zeros((len(moments) - 1, len(names)))
    for i, name in enumerate(names):
        if name in machine.signals[group]:
            values[:, i] = _held(machine.signals[group][name], moments, done)
        elif name in machine.constants[group]:
            values[:, i] = machine.constants[group][name]
        else:
            done.derived[f"{group} {name}"] = "0, as the mapping does not name it"
    return values


def _held(signal: Signal, moments: np.ndarray, done: Resampling) -> np.ndarray:
    """Return the mean over each period of a signal that is held from sample to sample."""
    index = _on_time(signal, moments[:-1]) if len(moments) > 2 else None
    if index is not None and (np.diff(index) == 1).all():
        inside = np.searchsorted(signal.time, moments[-1] - ON_TIME * (moments[1] - moments[0]))
        if inside == index[-1] + 1:
            return signal.values[index]
    done.interpolated = True
    area = np.concatenate([[0.0], np.cumsum(signal.values[:-1] * np.diff(signal.time))])
    last = np.clip(np.searchsorted(signal.time, moments, side="right") - 1, 0, None)
    total = area[last] + signal.values[last] * (moments - signal.time[last])
    return np.diff(total) / np.diff(moments)


def _velocities(
    machine: Machine,
    plant: Plant,
    named: Sequence[tuple[str, str]],
    qpos: np.ndarray,
    moments: np.ndarray,
    done: Resampling,
) -> np.ndarray:
    given = machine.signals["velocity"]
    rates, derived = np.zeros((len(moments), plant.model.nv)), None
    for i, (channel, _) in enumerate(named):
        name = channel.removesuffix(".rate")
        if name in given:
            rates[:, i] = _moving(given[name], moments, done)
        elif name in machine.constants["velocity"]:
            rates[:, i] = machine.constants["velocity"][name]
        else:
            derived = difference_rates(plant, qpos) if derived is None else derived
            rates[:, i] = derived[:, i]
            done.derived[f"velocity {name}"] = "central differences of the position"
    return rates


def difference_rates(plant: Plant, qpos: np.ndarray) -> np.ndarray:
    """Return velocities `[n, nv]` of configurations `[n, nq]`: central differences.

    v_k = (q_k+1 (-) q_k-1) / 2h, one-sided at the ends; an angular velocity is in the body frame.
    """
    last = len(qpos) - 1
    after = np.minimum(np.arange(len(qpos)) + 1, last)
    before = np.maximum(np.arange(len(qpos)) - 1, 0)
    span = (after - before) * plant.control_period
    return tangents(plant, qpos[after], qpos[before]) / span[:, None]


def tangents(plant: Plant, to: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return what leads from `start` to `to`, both `[n, nq]`, as `[n, nv]` in m and rad.

    As `physai.state.minus`, in float64: a derivative has no digits to lose.
    """
    found = np.zeros((len(to), plant.model.nv))
    for tangent, b, a in zip(found, to, start, strict=True):
        mujoco.mj_differentiatePos(plant.model, tangent, 1.0, a, b)
    return found


def _activations(
    machine: Machine,
    plant: Plant,
    named: Sequence[tuple[str, str]],
    action: np.ndarray,
    design: np.ndarray,
    moments: np.ndarray,
    done: Resampling,
) -> np.ndarray:
    """Return activations; a first-order lag that was not logged follows from its action.

    With the action u held, a_k+1 = u + (a_k - u) exp(-h / tau); it starts at the first action.
    """
    activations = np.zeros((len(moments), plant.model.na))
    lags = (int(mujoco.mjtDyn.mjDYN_FILTER), int(mujoco.mjtDyn.mjDYN_FILTEREXACT))
    model = plant.compile(design, textures=False) if plant.model.na else plant.model
    for i, (channel, _) in enumerate(named):
        name = channel.removesuffix(".activation")
        if name in machine.signals["activation"]:
            activations[:, i] = _moving(machine.signals["activation"][name], moments, done)
            continue
        if name in machine.constants["activation"]:
            activations[:, i] = machine.constants["activation"][name]
            continue
        actuator = int(np.flatnonzero(model.actuator_actadr == i)[0]) if _single(model, i) else -1
        if actuator not in plant.action_ids or model.actuator_dyntype[actuator] not in lags:
            raise InputError(
                f"{machine.log.name}: [activation] {name}: expected a column or a value; only that "
                "of a first-order lag follows from its action"
            )
        driven = action[:, plant.action_ids.index(actuator)]
        tau = max(float(model.actuator_dynprm[actuator, 0]), mujoco.mjMINVAL)
        kept, value = np.exp(-plant.control_period / tau), driven[0]
        for k, u in enumerate(driven):
            activations[k, i] = value
            value = u + (value - u) * kept
        activations[-1, i] = value
        done.derived[f"activation {name}"] = f"its action through a lag of {tau:g} s"
    return activations


def _single(model: mujoco.MjModel, address: int) -> bool:
    """Tell whether the activation at an address is the only one of its actuator."""
    at = np.flatnonzero(model.actuator_actadr == address)
    return len(at) == 1 and int(model.actuator_actnum[at[0]]) == 1


def _constants(
    machine: Machine,
    group: str,
    default: np.ndarray,
    moments: np.ndarray,
    plant: Plant,
    task: Task,
    done: Resampling,
) -> np.ndarray:
    """Return what is constant over a recording: its first value."""
    values = np.array(default, float)
    for i, (name, unit) in enumerate(columns(plant, task)[group]):
        if name in machine.constants[group]:
            values[i] = machine.constants[group][name]
        elif name in machine.signals[group]:
            values[i] = _first(machine, group, name, unit, moments, done)
        else:
            shown = "0" if group == "command" else f"nominal, {values[i]:g} {unit}"
            done.derived[f"{group} {name}"] = f"{shown}, as the mapping does not name it"
    return plant.check_design(values) if group == "design" else values


def _first(
    machine: Machine, group: str, name: str, unit: str, moments: np.ndarray, done: Resampling
) -> float:
    signal = machine.signals[group][name]
    first = max(int(np.searchsorted(signal.time, moments[0], side="right")) - 1, 0)
    inside = signal.values[first : np.searchsorted(signal.time, moments[-1])]
    low, high = (float(inside.min()), float(inside.max())) if len(inside) else (0.0, 0.0)
    if high - low > 1e-6 * max(abs(low), abs(high)):
        text = f"{machine.log.name}: {group} {name} changes from {low:g} to {high:g} {unit}"
        if group == "design":
            raise InputError(
                f"{text}, but a design is constant over a recording; give each design a file or "
                "an episode of its own"
            )
        note = f"{text} within a recording; its first value is kept"
        if note not in done.notes:
            done.notes.append(note)
    return float(signal.values[first])
