"""Running what a plant's author wrote: whatever it raises is told with its file and line."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from physai.errors import InputError

RAISED = (Exception, SystemExit)
"""What an author's code may raise: sys.exit in it would end the program without a word."""


def place(error: BaseException, file: Path) -> str:
    """Return `FILE:LINE`, the last line of an author's file that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if Path(f.filename) == file]
    if isinstance(error, SyntaxError) and error.filename == str(file):
        lines = [error.lineno]
    return f"{file}:{lines[-1]}" if lines and lines[-1] else str(file)


@contextmanager
def told(file: Path, what: str) -> Iterator[None]:
    """Turn what an author's code raises into an InputError: `FILE:LINE: WHAT: the error`.

    An InputError of physai's own that passes through the code is left as it is.
    """
    try:
        yield
    except InputError:
        raise
    except RAISED as error:
        kind = "sys.exit" if isinstance(error, SystemExit) else type(error).__name__
        raise InputError(f"{place(error, file)}: {what}: {kind}: {error}") from error


def short(value: object) -> str:
    """Return what a wrong value looks like, in a line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
