"""Loading a plant's task, and checking its functions on shapes before anything is computed.

task.py is code of the plant's author and runs as such. It defines `TASK = Task(...)`, or, on top of
the default task of `physai.task.hold`, only what differs from it: any of the names in `OVERRIDES`.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from physai.errors import InputError
from physai.plant import Plant, load_module
from physai.state import State
from physai.task.hold import hold_task
from physai.task.record import Task

OVERRIDES = {
    **{name: name for name in ("reset", "reward", "terminated", "excitation", "settling")},
    "observe": "observe",
    "COMMANDS": "commands",
    "OBSERVATIONS": "observations",
    "DURATION": "duration",
    "REQUIREMENTS": "requirements",
    "OBJECTIVES": "objectives",
}
"""Names that a task.py without TASK may define, and the fields of `Task` that they replace."""


def load_task(plant: Plant) -> Task:
    """Load the task of a plant's folder; a model without task.py gets `hold_task`.

    Raises:
        InputError: a task.py that defines no task, or a function in it that JAX cannot trace or
            that returns another shape than its channels say, named with its file and line.
    """
    where = plant.folder / "task.py"
    module = load_module(where)
    if module is None:
        task = hold_task(plant)
    else:
        task = getattr(module, "TASK", None) or _overridden(plant, module, where)
        if not isinstance(task, Task):
            raise InputError(f"{where}: expected TASK = physai.task.Task(...), got {task!r}")
    _check_shapes(plant, task, where)
    return task


def _overridden(plant: Plant, module: ModuleType, where: Path) -> Task:
    changes = {field: getattr(module, n) for n, field in OVERRIDES.items() if hasattr(module, n)}
    if not changes:
        raise InputError(
            f"{where}: expected TASK = physai.task.Task(...), or some of {', '.join(OVERRIDES)} to "
            "change the default task; found none of them"
        )
    if ("observe" in changes) != ("observations" in changes):
        raise InputError(f"{where}: expected observe and OBSERVATIONS together, got one of them")
    task = replace(hold_task(plant), **changes)
    # What the default task says about its starts holds for them alone.
    return replace(task, notes=()) if "reset" in changes else task


def _check_shapes(plant: Plant, task: Task, where: Path) -> None:
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
    except Exception as error:  # whatever the author's code raises
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if Path(f.filename) == where]
        place = f"{where}:{lines[-1]}" if lines else _place(function, where)
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"{place}: {name} cannot be traced by JAX: {type(error).__name__}: {reason}. Use "
            "jax.numpy, and jnp.where in place of if"
        ) from error


def _place(function: Callable[..., Any], where: Path) -> str:
    try:
        line = inspect.getsourcelines(function)[1]
        file = inspect.getsourcefile(function)
    except (OSError, TypeError):
        return str(where)
    return f"{file}:{line}"
