"""What the command line shows: progress bars with the time left, tables, and JSON for machines."""

from __future__ import annotations

import json as json_library
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table

from physai.progress import Progress

stderr = Console(stderr=True, highlight=False)
stdout = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Yield a `Progress` that draws one bar a stage on stderr (plain lines if no terminal)."""
    if not stderr.is_terminal:
        yield _lines()
        return
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=stderr, transient=False) as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            finished = stage in tasks and bars.tasks[tasks[stage]].finished
            if stage not in tasks or (finished and done < total):
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield show


def _lines() -> Progress:
    """Report the start and the end of each stage, one line each: what a log file can bear."""

    def show(stage: str, done: int, total: int) -> None:
        if done in (0, total):
            print(f"{stage}: {done}/{total}", file=sys.stderr, flush=True)

    return show


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1
) -> None:
    """Print a table to stdout; the first `left` columns are text, the others align right."""
    drawn = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    cells = [[number(cell) for cell in row] for row in rows]
    for index, column in enumerate(columns):
        words = " ".join([column, *(row[index] for row in cells)]).split()
        justify = "left" if index < left else "right"
        widest = 0 if index < left else max(map(len, words), default=0)
        drawn.add_column(column, justify=justify, overflow="fold", min_width=widest)
    for row in cells:
        drawn.add_row(*row)
    stdout.print(drawn)


def number(value: object) -> str:
    """Write a table cell: floats with four significant digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def print_json(result: Mapping[str, Any]) -> None:
    """Print one JSON document to stdout: keys sorted, infinities as null."""
    print(json_library.dumps(_finite(result), indent=2, sort_keys=True, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
