"""The tables that experiments keep: what is there already, and one more row."""

from __future__ import annotations

import csv
import io
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mujoco

from physai.provenance import atomic_write
from physai.report.bench import cpu_name


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table, none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a table anew, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue())


def here() -> dict[str, Any]:
    """Return when and on what a row is made."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **{"cpu": cpu_name(), "cores": os.cpu_count(), "python": platform.python_version()},
        "mujoco": mujoco.__version__,
    }
