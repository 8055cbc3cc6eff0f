"""Packages of the extra `data`, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any

from physai.errors import InputError


def extra(name: str) -> Any:
    """Import a module of the extra.

    Raises:
        InputError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"this needs {name}, which is not installed: pip install 'physai[data]'"
        ) from error
