"""What the vector environment checks and how it chooses between environments, row by row."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode

from physai.env.single import given_state
from physai.errors import InputError
from physai.plant import Plant
from physai.state import Array, State
from physai.task import Task


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


def start_options(
    plant: Plant, task: Task, options: dict[str, Any], n: int
) -> tuple[State | None, np.ndarray | None]:
    """Return the start `[n, ...]` and the design vectors `[n, nd]` that reset options give.

    Raises:
        InputError: another option, a state of the wrong shape, a design outside its bounds.
    """
    given, design = options.pop("state", None), options.pop("design", None)
    nd = len(plant.design)
    if options:
        raise InputError(
            "reset options: expected 'design', 'state' or 'reset_mask', got "
            + ", ".join(map(repr, options))
        )
    if given is not None and design is not None:
        raise InputError(
            "reset options: a state brings its own design; give 'state' or 'design', not both"
        )
    if given is not None:
        leading = (n,) if np.ndim(getattr(given, "time", 0.0)) else ()
        given = given_state(plant, task, given, *leading)
        if not leading:
            given = jax.tree.map(lambda x: np.repeat(x[None], n, axis=0), given)
        return given, plant.check_design(given.design)
    if design is None:
        return None, None
    design = plant.check_design(np.asarray(design, float))
    if design.shape not in ((nd,), (n, nd)):
        raise InputError(f"design: expected shape ({nd},) or ({n}, {nd}), got {design.shape}")
    return None, np.broadcast_to(design, (n, nd)).copy()


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


def masked(values: dict[str, Array], mask: np.ndarray, device: bool) -> dict[str, Any]:
    """Return copies with zeros where `mask` [n] is False, and masks, as Gymnasium names them.

    Args:
        values: arrays `[n, ...]` by name.
        mask: the environments that have them.
        device: whether they stay JAX arrays; else they become numpy, float64 or bool.
    """
    everyone, found = bool(mask.all()), {}
    for name, value in values.items():
        if device:
            value = jnp.asarray(value)
        else:
            value = np.array(value, bool if value.dtype == bool else float)
        if not everyone:
            value = chosen(mask, value, (jnp if device else np).zeros_like(value))
        found |= {name: value, f"_{name}": mask.copy()}
    return found


def chosen(mask: np.ndarray, new: Array, old: Array) -> Array:
    """Return rows of `new` where `mask` [n], else of `old`; JAX if one of them is."""
    if isinstance(new, jax.Array) and isinstance(old, jax.Array):
        return where(mask, new, old)
    new, old = np.asarray(new), np.asarray(old)
    return np.where(mask.reshape(mask.shape + (1,) * (new.ndim - 1)), new, old)


@jax.jit
def where(mask: Array, new: Any, old: Any) -> Any:
    """Choose between two pytrees row by row."""
    return jax.tree.map(
        lambda a, b: jnp.where(mask.reshape(mask.shape + (1,) * (jnp.ndim(b) - 1)), a, b), new, old
    )


@jax.jit
def clipped(values: jax.Array, low: Array, high: Array) -> jax.Array:
    """Return values within their ranges, float32."""
    return jnp.clip(values, jnp.float32(low), jnp.float32(high))


def placed(state: State, rows: np.ndarray, start: State) -> State:
    """Return JAX states `[n, ...]` with `start` `[k, ...]` in rows `[k]`; compiled for n alone."""
    mask = np.zeros(len(state.time), bool)
    mask[rows] = True

    def spread(new: np.ndarray, old: jax.Array) -> np.ndarray:
        full = np.zeros(old.shape, np.float32)
        full[rows] = new
        return full

    return where(mask, jax.tree.map(spread, start, state), state)
