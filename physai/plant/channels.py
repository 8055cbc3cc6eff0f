"""Channels of a model's actuators: names, units and ranges, derived where the model is silent.

Which unit a control has follows from how MuJoCo makes a force of it,

    force = gain * control + b_0 + b_1 * length + b_2 * velocity

A servo on position (gain = -b_1) takes a length, one on velocity (gain = -b_2) a speed, a motor
with a gain and a gear of 1 a force or torque; what else there is has no unit, "1".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mujoco
import numpy as np

from physai.errors import InputError
from physai.plant.names import actuator_names, check_unique
from physai.plant.record import Channel, Disturbance

DISTURBANCE_PREFIX = "disturbance/"
_FIXED, _AFFINE = int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtBias.mjBIAS_AFFINE)
_INTEGRATOR = int(mujoco.mjtDyn.mjDYN_INTEGRATOR)
_MUSCLE = int(mujoco.mjtGain.mjGAIN_MUSCLE)
_JOINT = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))
_SLIDE, _HINGE = int(mujoco.mjtJoint.mjJNT_SLIDE), int(mujoco.mjtJoint.mjJNT_HINGE)


class Actuators(NamedTuple):
    """Actuators of a model, told apart: those of the controller and those of the scenario."""

    actions: tuple[Channel, ...]
    action_ids: tuple[int, ...]
    disturbances: tuple[Disturbance, ...]
    disturbance_ids: tuple[int, ...]


def actuator_channels(
    model: mujoco.MjModel,
    units: Mapping[str, str],
    processes: Mapping[str, Mapping[str, Any]],
    path: Path,
) -> Actuators:
    """Return the channels of a model's actuators.

    Args:
        model: the compiled model.
        units: UNITS of plant.py, which come first.
        processes: its DISTURBANCES.
        path: of the plant, for errors.

    Raises:
        InputError: an actuator without range and none to derive, two of one name, or an actuator
            that plant.py names and the model does not have.
    """
    actions, action_ids, disturbances, disturbance_ids = [], [], [], []
    for i, name in enumerate(actuator_names(model)):
        low, high = _range(model, i, name, path)
        if name.startswith(DISTURBANCE_PREFIX):
            name = name.removeprefix(DISTURBANCE_PREFIX)
            process = {"std": high / 3.0, "correlation_time": 1.0, **processes.get(name, {})}
            channel = Disturbance(name, units.get(name, "N"), low, high, **process)
            disturbances.append(channel)
            disturbance_ids.append(i)
        else:
            actions.append(Channel(name, units.get(name) or _unit(model, i), low, high))
            action_ids.append(i)
    names = [c.name for c in (*actions, *disturbances)]
    check_unique(names, f"actuators (without {DISTURBANCE_PREFIX})", path)
    if unknown := sorted(set(units) - set(names)):
        raise InputError(
            f"{path / 'plant.py'}: UNITS names {unknown[0]!r}, but the model has no actuator of "
            f"that name; it has {', '.join(names) or 'none'}"
        )
    _check_disturbances(disturbances, processes, path)
    return Actuators(tuple(actions), tuple(action_ids), tuple(disturbances), tuple(disturbance_ids))


def _check_disturbances(
    disturbances: list[Disturbance], processes: Mapping[str, object], path: Path
) -> None:
    names = {d.name for d in disturbances}
    if unknown := sorted(set(processes) - names):
        raise InputError(
            f"{path / 'plant.py'}: DISTURBANCES names {unknown[0]!r}, "
            f"but the model has no actuator {DISTURBANCE_PREFIX}{unknown[0]}"
        )
    for vector in sorted({d.vector for d in disturbances if d.vector}):
        if (count := sum(d.vector == vector for d in disturbances)) != 3:
            raise InputError(
                f"{path / 'plant.py'}: disturbance vector {vector!r}: "
                f"expected 3 components, got {count}"
            )


def _joint(model: mujoco.MjModel, i: int) -> int | None:
    """Return the slide or hinge that an actuator drives, or None."""
    joint = int(model.actuator_trnid[i, 0])
    if model.actuator_trntype[i] not in _JOINT or model.jnt_type[joint] not in (_SLIDE, _HINGE):
        return None
    return joint


def _servo(model: mujoco.MjModel, i: int) -> str:
    """Return what a control sets: "position", "velocity" or "force"."""
    gain, bias = model.actuator_gainprm[i, 0], model.actuator_biasprm[i]
    if model.actuator_gaintype[i] != _FIXED or model.actuator_biastype[i] != _AFFINE:
        return "force"
    if gain > 0.0 and np.isclose(bias[1], -gain):
        return "position"
    return "velocity" if gain > 0.0 and np.isclose(bias[2], -gain) else "force"


def _unit(model: mujoco.MjModel, i: int) -> str:
    joint, servo = _joint(model, i), _servo(model, i)
    gear = model.actuator_gear[i, 0]
    if joint is None or gear != 1.0 or model.actuator_gaintype[i] != _FIXED:
        return "1"
    length, force = ("m", "N") if model.jnt_type[joint] == _SLIDE else ("rad", "N m")
    if servo == "force":
        plain = model.actuator_gainprm[i, 0] == 1.0
        return force if plain and model.actuator_dyntype[i] != _INTEGRATOR else "1"
    rates = (servo == "velocity") + (model.actuator_dyntype[i] == _INTEGRATOR)
    return {0: length, 1: f"{length}/s", 2: f"{length}/s^2"}[rates]


def _range(model: mujoco.MjModel, i: int, name: str, path: Path) -> tuple[float, float]:
    """Return the range of a control: the model's, else that of what it drives."""
    if model.actuator_ctrllimited[i]:
        low, high = map(float, model.actuator_ctrlrange[i])
        if low < high:
            return low, high
        raise InputError(
            f"{path}: actuator {name}: expected a ctrlrange low < high, got {low} {high}"
        )
    found = _derived_range(model, i)
    if found is None:
        raise InputError(
            f"{path}: actuator {name} has no ctrlrange, and no range of its force or joint tells "
            'one; give it one, for example ctrlrange="-1 1"'
        )
    return found


def _derived_range(model: mujoco.MjModel, i: int) -> tuple[float, float] | None:
    gear, gain = float(model.actuator_gear[i, 0]), float(model.actuator_gainprm[i, 0])
    joint, servo = _joint(model, i), _servo(model, i)
    if model.actuator_gaintype[i] == _MUSCLE:
        return 0.0, 1.0
    if model.actuator_dyntype[i] == _INTEGRATOR:
        return None
    if servo == "position" and joint is not None and model.jnt_limited[joint] and gear > 0.0:
        low, high = model.jnt_range[joint]
        return float(low) * gear, float(high) * gear
    if servo != "force" or gain == 0.0:
        return None
    if model.actuator_forcelimited[i]:
        ends = sorted(model.actuator_forcerange[i] / gain)
    elif joint is not None and model.jnt_actfrclimited[joint] and gear != 0.0:
        ends = sorted(model.jnt_actfrcrange[joint] / (gain * gear))
    else:
        return None
    return float(ends[0]), float(ends[1])
