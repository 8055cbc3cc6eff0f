"""Loading a plant's task.

task.py is code of the plant's author and runs as such. It defines `TASK = Task(...)`, or, on top of
the default task of `physai.task.hold`, only what differs from it: any of the names in `OVERRIDES`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

from physai.errors import InputError
from physai.plant import Plant, load_module
from physai.task.check import check_numbers, check_task
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
        InputError: a task.py that defines no task, or one that `check_task` or
            `check_numbers` refuses.
    """
    where = plant.folder / "task.py"
    module = load_module(where)
    if module is None:
        task = hold_task(plant)
    else:
        task = getattr(module, "TASK", None) or _overridden(plant, module, where)
        if not isinstance(task, Task):
            raise InputError(f"{where}: expected TASK = physai.task.Task(...), got {task!r}")
    check_task(plant, task, where)
    if module is not None:
        check_numbers(plant, task, where)
    return _hashable(task)


def _hashable(task: Task) -> Task:
    """Make tuples of lists: compiled functions are kept by task."""
    names = ("commands", "observations", "requirements", "objectives")
    return replace(task, **{name: tuple(getattr(task, name)) for name in names})


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
