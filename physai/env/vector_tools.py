"""How the vector environment takes actions, and chooses between environments row by row."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from physai.env.options import numbers_of
from physai.errors import InputError
from physai.state import Array, State


def shaped(actions: Any, shape: tuple[int, int]) -> Array:
    """Return actions `[n, nu]`, JAX if they were, else float64, or raise InputError."""
    if not isinstance(actions, jax.Array):
        actions = numbers_of(actions, f"action: expected shape {shape}")
    if actions.shape != shape:
        raise InputError(f"action: expected shape {shape}, got {actions.shape}")
    return actions


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
