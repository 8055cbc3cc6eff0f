"""Tasks: what a machine has to do, as pure functions of its state, and what is verified."""

from physai.task.hold import hold_task
from physai.task.load import load_task
from physai.task.record import (
    Objective,
    ObservationChannel,
    Readout,
    Requirement,
    Task,
    design_aware,
)

__all__ = [
    "Objective",
    "ObservationChannel",
    "Readout",
    "Requirement",
    "Task",
    "design_aware",
    "hold_task",
    "load_task",
]
