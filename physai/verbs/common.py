"""What the verbs have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from physai.console import print_json, stdout
from physai.control.controller import BatchController, batch_controller, policy_controller
from physai.errors import InputError
from physai.export.bundle import read_contract
from physai.export.compiled import compiled_controller
from physai.learn.learn import load_policy_folder
from physai.plant import Plant, load_plant
from physai.task import Task, design_aware, load_task

Name = Annotated[str, tyro.conf.Positional]
Names = Annotated[list[str], tyro.conf.Positional]
Flat = tyro.conf.arg(name="")


def load(plant: str) -> tuple[Plant, Task]:
    """Load a machine and its task."""
    machine = load_plant(plant)
    return machine, load_task(machine)


def flown_controller(folder: Path, task: Task, plant: Plant) -> tuple[BatchController, Task, str]:
    """Load what flies: a policy, design-aware where its card says so, or a bundle's C code."""
    if (folder / "contract.json").is_file():
        seen, role = len(read_contract(folder / "contract.json").observations), "bundle"
        controller = compiled_controller(folder)
    else:
        policy, card = load_policy_folder(folder)
        seen, role = len(card["observations"]), "policy"
        controller = batch_controller(policy_controller(policy))
    for candidate in (task, design_aware(task, plant)):
        if candidate.no == seen:
            return controller, candidate, role
    raise InputError(
        f"{folder}: the {role} sees {seen} channels, the task gives {task.no}; "
        "was it learned for another plant?"
    )


def done(result: Any, json: bool, draw: Callable[[Any], None]) -> int:
    """Show a result, as JSON or drawn, and return the exit status of success."""
    if json:
        print_json(result)
    else:
        draw(result)
        stdout.file.flush()
    return 0
