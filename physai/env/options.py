"""What a user may give an environment and its `reset`, checked before anything is built."""

from __future__ import annotations

import dataclasses
import math
import numbers
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from gymnasium.vector import AutoresetMode

from physai.env.model import state_shapes
from physai.errors import InputError
from physai.plant import Plant, check_driven, load_plant
from physai.state import State
from physai.task import Task, load_task

FIELDS = tuple(field.name for field in dataclasses.fields(State))
UNIT_SLACK = 1e-3  # by which the length of a given quaternion may differ from 1: typed by hand
_ROUNDING = 1e-6  # of a unit quaternion in float32


def given_plant(plant: str | Path | Plant) -> Plant:
    """Return a plant to control, given itself, its name or its path.

    Raises:
        InputError: no such plant, or one without actuators.
    """
    if not isinstance(plant, (str, Path, Plant)):
        raise InputError(f"plant: expected a name, a path or a Plant, got {plant!r}")
    return check_driven(plant if isinstance(plant, Plant) else load_plant(plant))


def given_task(plant: Plant, task: Task | None) -> Task:
    """Return the task given, for None the plant's own; its start is tried on shapes alone.

    Raises:
        InputError: no task, or one that does not start this plant.
    """
    if task is None:
        return task_of(plant.folder, plant.sha256)
    if not isinstance(task, Task):
        raise InputError(f"task: expected a Task, as load_task returns it, got {task!r}")
    design = jax.ShapeDtypeStruct((len(plant.design),), np.float32)
    try:
        start = jax.eval_shape(lambda d: task.reset(jax.random.key(0), d), design)
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(f"task: not one of plant {plant.name}: reset fails: {error}") from error
    expected = state_shapes(plant, task)
    for name in FIELDS:
        found, wanted = getattr(start, name).shape, getattr(expected, name).shape
        if found != wanted:
            raise InputError(
                f"task: not one of plant {plant.name}: expected reset to give {name} of shape "
                f"{wanted}, got {found}"
            )
    return task


def own_options(options: dict[str, Any] | None) -> dict[str, Any]:
    """Return a copy of the options of a reset, {} for None, or raise InputError."""
    if options is not None and not isinstance(options, dict):
        raise InputError(f"reset options: expected a dict, got {options!r}")
    return dict(options or {})


def start_options(
    plant: Plant, task: Task, options: dict[str, Any], n: int | None = None
) -> tuple[State | None, np.ndarray | None]:
    """Return the start and the design that reset options give, each None where they do not.

    Args:
        plant, task: what is started.
        options: "state", a State, or "design", a design vector `[nd]`.
        n: None for one machine: a state `[...]` and a design `[nd]` come back. Else for n of them,
            `[n, ...]` and `[n, nd]`; each option may then be one for all or one for each.

    Raises:
        InputError: another option, a state of the wrong shape, a design outside its bounds.
    """
    given, design = options.pop("state", None), options.pop("design", None)
    if options:
        names = "'design' or 'state'" if n is None else "'design', 'state' or 'reset_mask'"
        raise InputError(f"reset options: expected {names}, got {', '.join(map(repr, options))}")
    if given is not None and design is not None:
        raise InputError(
            "reset options: a state brings its own design; give 'state' or 'design', not both"
        )
    if given is not None:
        state = given_state(plant, task, given, n)
        return state, plant.check_design(state.design)
    return None, None if design is None else given_design(plant, design, n)


def given_design(plant: Plant, design: Any, n: int | None) -> np.ndarray:
    """Return a user's design vector `[nd]`, or n of them `[n, nd]`, within their bounds.

    Raises:
        InputError: of the wrong shape, or outside the bounds.
    """
    nd, names = len(plant.design), ", ".join(v.name for v in plant.design)
    design = plant.check_design(
        numbers_of(design, f"design vector: expected {nd} values ({names})")
    )
    if n is None and design.shape != (nd,):
        raise InputError(f"design: expected shape ({nd},), got {design.shape}")
    if n is not None and design.shape not in ((nd,), (n, nd)):
        raise InputError(f"design: expected shape ({nd},) or ({n}, {nd}), got {design.shape}")
    return design if n is None else np.broadcast_to(design, (n, nd)).copy()


def given_state(plant: Plant, task: Task, state: Any, n: int | None) -> State:
    """Return a user's start as float64 arrays `[...]`, or `[n, ...]`, its quaternions unit.

    Raises:
        InputError: no State, of the wrong shape, with NaN or infinity in it, or with a quaternion
            whose length is off 1 by more than `UNIT_SLACK`.
    """
    if not isinstance(state, State):
        raise InputError(f"reset options: state: expected a State, got {type(state).__name__}")
    fields = {
        name: numbers_of(getattr(state, name), f"state: expected numbers in {name}")
        for name in FIELDS
    }
    each = n is not None and fields["time"].ndim > 0
    shapes = state_shapes(plant, task, *([n] if n is not None and each else []))
    for name, value in fields.items():
        shape = getattr(shapes, name).shape
        if value.shape != shape:
            raise InputError(f"state: expected {name} of shape {shape}, got {value.shape}")
        if not np.isfinite(value).all():
            raise InputError(f"state: expected finite numbers, got {name} = {value}")
    found = State(**fields)
    found = found.replace(qpos=_unit(plant, found.qpos))
    if n is None or each:
        return found
    return jax.tree.map(lambda x: np.repeat(x[None], n, axis=0), found)


def numbers_of(value: Any, expected: str) -> np.ndarray:
    """Return a copy in float64, or raise InputError that says what was expected."""
    try:
        return np.array(value, float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{expected}, got {value!r}") from error


def _unit(plant: Plant, qpos: np.ndarray) -> np.ndarray:
    """Return configurations `[..., nq]` with unit quaternions, or raise InputError.

    What is unit to rounding stays as it is to the bit, so that a state that came out of an
    environment goes on as if there had been no reset.
    """
    for joint in plant.joints:
        if joint.kind not in ("free", "ball"):
            continue
        first = joint.qpos_index + (3 if joint.kind == "free" else 0)
        four = qpos[..., first : first + 4]  # a view: qpos is ours
        length = np.linalg.norm(four, axis=-1, keepdims=True)
        off = np.abs(length - 1.0)
        if (off > UNIT_SLACK).any():
            worst = np.unravel_index(np.argmax(off), off.shape)
            raise InputError(
                f"state: joint {joint.name}: expected a unit quaternion (w, x, y, z) in "
                f"qpos[{first}:{first + 4}], got {four[worst[:-1]].tolist()}, of length "
                f"{length[worst]:g}; [1, 0, 0, 0] is no turn"
            )
        four[...] = np.where(off > _ROUNDING, four / length, four)
    return qpos


def check_mask(mask: np.ndarray | None, n: int) -> np.ndarray:
    """Return a reset_mask `[n]`, all True for None, or raise InputError."""
    if mask is None:
        return np.ones(n, bool)
    if not isinstance(mask, np.ndarray) or mask.dtype != bool:
        raise InputError(f"reset_mask: expected a numpy array of bool, got {mask!r}")
    if mask.shape != (n,) or not mask.any():
        raise InputError(
            f"reset_mask: expected shape ({n},) with at least one True, got {mask.sum()} True in "
            f"shape {mask.shape}"
        )
    return mask.copy()


def count(value: int, name: str) -> int:
    """Return a whole number above 0, or raise InputError."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name}: expected a whole number above 0, got {value!r}")
    return int(value)


def mode(value: str | AutoresetMode) -> AutoresetMode:
    """Return an AutoresetMode, given itself or its value, or raise InputError."""
    try:
        return AutoresetMode(value)
    except ValueError as error:
        names = ", ".join(f'"{m.value}"' for m in AutoresetMode)
        raise InputError(f"autoreset_mode: expected {names}, got {value!r}") from error


def control_steps(plant: Plant, duration: float) -> float:
    """Return the control periods in `duration` seconds; inf for ever."""
    number = isinstance(duration, numbers.Real) and not isinstance(duration, bool)
    if not number or not duration > 0.0:
        raise InputError(f"duration: expected a positive number of seconds, got {duration!r}")
    return duration if math.isinf(duration) else max(1, round(duration / plant.control_period))


@lru_cache(maxsize=32)
def task_of(folder: Path, sha256: str) -> Task:
    """Load a plant's task once, so that all its environments share compiled functions.

    The hash is part of the key: an edited folder is read again.
    """
    return load_task(load_plant(folder))
