"""What physai cannot represent, refused by name before any time is spent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mujoco

from physai.errors import InputError
from physai.plant.names import actuator_names
from physai.plant.record import Plant

MAX_DOFS = 400
"""Degrees of freedom that one network is asked to predict."""


def check_supported(model: mujoco.MjModel, path: Path) -> None:
    """Refuse a model whose next state does not follow from `State`, action and disturbance.

    Raises:
        InputError: names every such feature, with what to do about it.
    """
    if problems := list(_problems(model)):
        raise InputError(f"{path}: not supported: " + "; ".join(problems))


def check_driven(plant: Plant) -> Plant:
    """Return a plant that a controller can drive; one without actuators can only be predicted.

    Raises:
        InputError: no actuators.
    """
    if not plant.actions:
        raise InputError(
            f"{plant.folder}: the model has no actuators, so there is nothing to control. Add "
            "<actuator> elements; check, rollout, fit and score do without"
        )
    return plant


def _problems(model: mujoco.MjModel) -> Iterator[str]:
    if model.nv == 0:
        yield "the model has no joints, so that nothing in it can move"
    if model.nmocap:
        body = next(b for b in range(model.nbody) if model.body_mocapid[b] >= 0)
        yield (
            f"mocap body {model.body(body).name!r}, whose pose is set from outside: remove "
            'mocap="true", or drive the body by joints and actuators'
        )
    if model.nhistory:
        yield (
            "delayed actuators or sensors, whose history is no part of the state: remove "
            "nsample and delay; a controller is flown with a late action by `rollout` anyway"
        )
    if model.npluginstate:
        yield "a plugin with a state of its own: use MuJoCo's actuators with dyntype instead"
    if model.nflexvert and model.nv > MAX_DOFS:
        yield (
            f"a flex with {model.nflexvert} vertices, {model.nv} degrees of freedom, where "
            f"{MAX_DOFS} are the limit: use a coarser grid, or dof='trilinear'"
        )
    elif model.nv > MAX_DOFS:
        yield f"{model.nv} degrees of freedom, where {MAX_DOFS} are the limit: leave parts out"
    user = int(mujoco.mjtGain.mjGAIN_USER)
    for i in range(model.nu):
        kinds = (model.actuator_gaintype[i], model.actuator_biastype[i], model.actuator_dyntype[i])
        users = (user, int(mujoco.mjtBias.mjBIAS_USER), int(mujoco.mjtDyn.mjDYN_USER))
        if any(kind == own for kind, own in zip(kinds, users, strict=True)):
            name = actuator_names(model)[i]
            yield f"actuator {name}, whose type `user` needs a callback: choose another type"
            break
