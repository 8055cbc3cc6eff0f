"""Searching a design space in a model, and every evaluation of that search as a table on disk."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from physai.design.optimise import pareto_set, search
from physai.design.sampling import Trials
from physai.design.variables import DesignSpace, sobol
from physai.progress import Progress, silent
from physai.task import Objective

_REST = ("generation", "settled", "feasible", "pareto")


@dataclass(frozen=True)
class Evaluations:
    """Every design that a search evaluated, in order.

    Attributes:
        designs: design vectors `[m, nd]`.
        values: objectives `[m, no]`; NaN where no flight settled.
        settled: share of the flights that settled `[m]`.
        generation: `[m]`, from 0.
        pareto: which form the Pareto set `[m]`.
    """

    designs: np.ndarray
    values: np.ndarray
    settled: np.ndarray
    generation: np.ndarray
    pareto: np.ndarray

    @property
    def feasible(self) -> np.ndarray:
        """Which designs are feasible: every flight settled `[m]`."""
        return self.settled == 1.0


def explore(
    trials: Trials,
    space: DesignSpace,
    population: int,
    generations: int,
    progress: Progress = silent,
) -> Evaluations:
    """Search the space in the model for the Pareto set of designs whose flights all settle."""

    def evaluate(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tried = trials.search(space.designs(points))
        return tried.values, 1.0 - tried.settled

    start = sobol(len(space.columns), population, trials.seed)
    maximise = [o.maximise for o in trials.task.objectives]
    found = search(evaluate, start, maximise, generations, trials.seed, progress)
    alive = np.flatnonzero(found.feasible)
    pareto = np.zeros(len(found.points), bool)
    pareto[alive[pareto_set(found.values[alive], maximise, population)]] = True
    return Evaluations(
        designs=space.designs(found.points),
        values=found.values,
        settled=1.0 - found.violation,
        generation=found.generation,
        pareto=pareto,
    )


def evaluations_csv(space: DesignSpace, objectives: Sequence[Objective], found: Evaluations) -> str:
    """Return every evaluation of a search as CSV, to the last bit."""
    rest = (found.generation, found.settled, found.feasible, found.pareto)
    table = [
        [*map(number, design), *map(number, values), *(x.item() for x in others)]
        for design, values, *others in zip(
            space.chosen(found.designs), found.values, *rest, strict=True
        )
    ]
    return csv_text([*_columns(space, objectives), *_REST], table)


def read_evaluations(
    path: Path, space: DesignSpace, objectives: Sequence[Objective]
) -> Evaluations:
    """Read what `evaluations_csv` wrote."""
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))

    def column(name: str) -> np.ndarray:
        return np.array([float(row[name] or "nan") for row in table])

    numbers = [column(name) for name in _columns(space, objectives)]
    k = len(space.columns)
    return Evaluations(
        designs=space.completed(np.stack(numbers[:k], axis=1)),
        values=np.stack(numbers[k:], axis=1),
        settled=column("settled"),
        generation=column("generation").astype(int),
        pareto=column("pareto") == 1.0,
    )


def design_columns(space: DesignSpace) -> list[str]:
    """Return how the chosen variables are called in a table."""
    return [f"design.{v.name}" for v in space.variables]


def number(value: Any) -> float | None:
    """Return a JSON number, None for what is not finite."""
    return float(value) if np.isfinite(value) else None


def csv_text(columns: Sequence[str], table: Sequence[Sequence[Any]]) -> str:
    """Return a table as CSV: None is empty, truth is 1 or 0."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in table:
        cells = [int(x) if isinstance(x, bool) else x for x in row]
        # repr is the shortest text that reads back as the same number.
        writer.writerow(
            ["" if x is None else repr(x) if isinstance(x, float) else x for x in cells]
        )
    return text.getvalue()


def _columns(space: DesignSpace, objectives: Sequence[Objective]) -> list[str]:
    # A variable and an objective may have one name: payload is both.
    return design_columns(space) + [o.name for o in objectives]
