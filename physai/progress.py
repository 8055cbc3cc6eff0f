"""How long work reports where it stands."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as `progress(stage, done, total)`; the command line draws a bar with the time left."""


def silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""
