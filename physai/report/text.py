"""How the report writes numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

NONE = "–"
THIN = "\u202f"


class Table(NamedTuple):
    """A table of text; the first `left` columns are words, the others numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


class Tile(NamedTuple):
    """One number of the summary."""

    label: str
    value: str
    detail: str


def number(value: Any, digits: int = 3) -> str:
    """Write a number with so many significant digits, "–" where there is none."""
    if value is None or isinstance(value, str):
        return value or NONE
    value = float(value)
    if not math.isfinite(value):
        return NONE
    if abs(value) >= 10_000:
        return f"{value:.{digits - 1}e}" if abs(value) >= 1e9 else whole(value, digits)
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"


def whole(value: float, digits: int = 12) -> str:
    """Write a whole number in groups of three, rounded to so many digits."""
    size = max(len(str(abs(int(value)))) - digits, 0)
    return f"{round(value / 10**size) * 10**size:,}".replace(",", THIN)


def bound(value: float) -> str:
    """Write the bound of a range, "none" where it is infinite."""
    return number(value, 4) if math.isfinite(value) else "none"


def percent(share: float, up: bool = False) -> str:
    """Write a share in percent; rounded down (or up), so that no failure is rounded away."""
    scaled = 10_000.0 * share
    near = round(scaled)
    exact = near if abs(scaled - near) < 1e-6 else (math.ceil if up else math.floor)(scaled)
    return f"{exact / 100:.2f}".rstrip("0").rstrip(".") + f"{THIN}%"


def interval(low: float, high: float) -> str:
    """Write a confidence interval of a share, rounded outwards."""
    return f"{percent(low)} to {percent(high, up=True)}"
