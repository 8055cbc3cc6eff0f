"""Checking a task before anything is computed with it: its fields, shapes, and first numbers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from physai.errors import InputError
from physai.plant import Channel, Plant
from physai.plant.author import RAISED, place, short
from physai.state import State
from physai.task.record import Objective, ObservationChannel, Requirement, Task

_FUNCTIONS = ("reset", "observe", "reward", "terminated")
_OPTIONAL = ("excitation", "settling")
_STARTS = 8
_QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def check_task(plant: Plant, task: Task, where: Path) -> None:
    """Refuse a task that nothing could be computed with.

    Args:
        plant: the plant.
        task: its task.
        where: its task.py.

    Raises:
        InputError: a field of the wrong type or range, a function that JAX cannot trace or that
            returns another shape than its channels say, named with its file and line.
    """
    _check_fields(task, where)
    _check_functions(plant, task, where)


def _check_fields(task: Task, where: Path) -> None:
    if not _number(task.duration) or not 0.0 < task.duration < math.inf:
        raise InputError(
            f"{where}: DURATION: expected a finite number of seconds above 0, "
            f"got {short(task.duration)}"
        )
    for name, kind in (
        ("commands", Channel),
        ("observations", ObservationChannel),
        ("requirements", Requirement),
        ("objectives", Objective),
    ):
        items = getattr(task, name)
        if not (isinstance(items, Sequence) and all(isinstance(x, kind) for x in items)):
            raise InputError(
                f"{where}: {name.upper()}: expected a tuple of {kind.__name__}, got {short(items)}"
            )
    for name in (*_FUNCTIONS, *_OPTIONAL):
        value = getattr(task, name)
        if not callable(value) and not (value is None and name in _OPTIONAL):
            raise InputError(f"{where}: {name}: expected a function, got {short(value)}")
    readout = task.readout.observations if task.readout is not None else ()
    _check_channels("COMMANDS", task.commands, where)
    _check_channels("OBSERVATIONS", (*task.observations, *readout), where)
    for requirement in task.requirements:
        if not _number(requirement.limit) or math.isnan(requirement.limit):
            raise InputError(
                f"{where}: REQUIREMENTS: {requirement.name}: limit: expected a number, "
                f"got {short(requirement.limit)}"
            )
    for measured in (*task.requirements, *task.objectives):
        if not callable(measured.measure):
            raise InputError(
                f"{where}: {measured.name}: measure: expected a function, "
                f"got {short(measured.measure)}"
            )


def _check_channels(what: str, channels: Iterable[Channel], where: Path) -> None:
    for c in channels:
        numbers = _number(c.low) and _number(c.high)
        if not (numbers and c.low < c.high):
            raise InputError(
                f"{where}: {what}: {c.name}: expected bounds low < high, "
                f"got {short(c.low)} and {short(c.high)}"
            )
        noise = getattr(c, "noise", 0.0)
        if not (_number(noise) and 0.0 <= noise < math.inf):
            raise InputError(
                f"{where}: {what}: {c.name}: noise: expected a finite number from 0, "
                f"got {short(noise)}"
            )


def _number(value: object) -> bool:
    """Tell a real number, NaN and infinity among them."""
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return not isinstance(value, str | bool)


def check_numbers(plant: Plant, task: Task, where: Path) -> None:
    """Refuse functions of a task.py that are not finite at some starts of the nominal design.

    Raises:
        InputError: the first such of reset, excitation, observe and reward, with file and line.
    """
    keys = jax.random.split(jax.random.key(0), _STARTS)
    design = jnp.asarray(plant.nominal, jnp.float32)
    action = jnp.asarray(plant.trim, jnp.float32)

    def first(key: jax.Array) -> dict[str, Any]:
        state = task.reset(key, design)
        found: dict[str, Any] = {"reset": state, "observe": task.observe(state)}
        if task.excitation is not None:
            found["excitation"] = task.excitation(key, design)
        return {**found, "reward": task.reward(state, action, state)}

    # Compiled for this alone: quickly rather than well.
    compiled = jax.jit(jax.vmap(first)).lower(keys).compile(_QUICKLY)
    found = compiled(keys)
    for name in ("reset", "excitation", "observe", "reward"):
        values = found.get(name)
        for path, leaf in jax.tree_util.tree_leaves_with_path(values):
            numbers = np.asarray(leaf)
            if not np.isfinite(numbers).all():
                raise InputError(
                    f"{_place(getattr(task, name), where)}: {name}{jax.tree_util.keystr(path)}: "
                    "expected finite numbers at a start of the nominal design, with the trim "
                    f"action, got {numbers[~np.isfinite(numbers)][0]}"
                )


def _check_functions(plant: Plant, task: Task, where: Path) -> None:
    """Trace all functions on shapes alone."""
    key = jax.random.key(0)
    design = jax.ShapeDtypeStruct((len(plant.design),), jnp.float32)
    action = jax.ShapeDtypeStruct((plant.nu,), jnp.float32)
    state = _traced("reset", task.reset, where, key, design)
    if not isinstance(state, State):
        raise InputError(f"{where}: reset: expected a State, got {type(state).__name__}")
    sizes = {"qpos": plant.model.nq, "qvel": plant.model.nv, "act": plant.model.na}
    shapes = {**{name: (size,) for name, size in sizes.items()}, "time": ()}
    shapes |= {"command": (len(task.commands),), "design": (len(plant.design),)}
    for name, shape in shapes.items():
        _expect(where, f"reset: {name}", task.reset, shape, getattr(state, name).shape)
    if task.excitation is not None:
        wider = _traced("excitation", task.excitation, where, key, design)
        if jax.tree.map(jnp.shape, wider) != jax.tree.map(jnp.shape, state):
            raise InputError(f"{where}: excitation: expected a State shaped as that of reset")
    episode = jax.tree.map(lambda x: jax.ShapeDtypeStruct((3, *x.shape), x.dtype), state)
    calls: list[tuple[str, Callable[..., Any], tuple[Any, ...], tuple[int, ...]]] = [
        ("observe", task.observe, (state,), (task.no,)),
        ("reward", task.reward, (state, action, state), ()),
        ("terminated", task.terminated, (state,), ()),
    ]
    for measured in (*task.requirements, *task.objectives):
        calls.append((f"measure of {measured.name}", measured.measure, (episode,), ()))
    if task.settling is not None:
        calls.append(("settling", task.settling, (episode,), ()))
    if (readout := task.readout) is not None:
        data = mujoco.MjData(plant.model)
        mujoco.mj_forward(plant.model, data)
        reading = np.asarray(readout.read(plant.model, data))
        if reading.ndim != 1 or len(reading) < len(readout.observations):
            raise InputError(
                f"{_place(readout.read, where)}: read of the readout: expected at least "
                f"{len(readout.observations)} numbers, got shape {reading.shape}"
            )
        arguments = (state, action, state, reading, reading)
        calls.append(("reward of the readout", readout.reward, arguments, ()))
    for name, function, arguments, shape in calls:
        result = _traced(name, function, where, *arguments)
        _expect(where, name, function, shape, getattr(result, "shape", None))


def _expect(
    where: Path,
    name: str,
    function: Callable[..., Any],
    expected: tuple[int, ...],
    got: tuple[int, ...] | None,
) -> None:
    if got != expected:
        raise InputError(f"{_place(function, where)}: {name}: expected shape {expected}, got {got}")


def _traced(name: str, function: Callable[..., Any], where: Path, *arguments: Any) -> Any:
    """Evaluate a function on shapes alone."""
    try:
        return jax.eval_shape(function, *arguments)
    except InputError:
        raise
    except RAISED as error:
        found = place(error, where)
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"{_place(function, where) if found == str(where) else found}: {name} cannot be traced "
            f"by JAX: {type(error).__name__}: {reason}. Use jax.numpy, and jnp.where in place of if"
        ) from error


def _place(function: Callable[..., Any], where: Path) -> str:
    try:
        line = inspect.getsourcelines(function)[1]
        file = inspect.getsourcefile(function)
    except (OSError, TypeError):
        return str(where)
    return f"{file}:{line}"
