"""What a user may give an environment and its `reset`, checked before anything is built."""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from gymnasium.vector import AutoresetMode

from physai.env.model import state_shapes
from physai.errors import InputError
from physai.plant import Plant, load_plant
from physai.state import State
from physai.task import Task, load_task

FIELDS = tuple(field.name for field in dataclasses.fields(State))


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
    design, nd = plant.check_design(np.asarray(design, float)), len(plant.design)
    if n is None:
        return design
    if design.shape not in ((nd,), (n, nd)):
        raise InputError(f"design: expected shape ({nd},) or ({n}, {nd}), got {design.shape}")
    return np.broadcast_to(design, (n, nd)).copy()


def given_state(plant: Plant, task: Task, state: Any, n: int | None) -> State:
    """Return a user's start as float64 arrays `[...]`, or `[n, ...]`, checked.

    Raises:
        InputError: no State, of the wrong shape, or with NaN or infinity in it.
    """
    if not isinstance(state, State):
        raise InputError(f"reset options: state: expected a State, got {type(state).__name__}")
    each = n is not None and np.ndim(state.time) > 0
    shapes = state_shapes(plant, task, *([n] if each else []))
    fields = {}
    for name in FIELDS:
        value, shape = np.array(getattr(state, name), float), getattr(shapes, name).shape
        if value.shape != shape:
            raise InputError(f"state: expected {name} of shape {shape}, got {value.shape}")
        if not np.isfinite(value).all():
            raise InputError(f"state: expected finite numbers, got {name} = {value}")
        fields[name] = value
    found = State(**fields)
    if n is None or each:
        return found
    return jax.tree.map(lambda x: np.repeat(x[None], n, axis=0), found)


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
    if not duration > 0.0:
        raise InputError(f"duration: expected a positive number of seconds, got {duration}")
    return duration if math.isinf(duration) else max(1, round(duration / plant.control_period))


@lru_cache(maxsize=32)
def task_of(folder: Path, sha256: str) -> Task:
    """Load a plant's task once, so that all its environments share compiled functions.

    The hash is part of the key: an edited folder is read again.
    """
    return load_task(load_plant(folder))
