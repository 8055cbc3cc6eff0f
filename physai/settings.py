"""Checks that a record of settings makes of its own fields, before anything expensive starts."""

from __future__ import annotations

import math

from physai.errors import InputError


def check_whole(settings: object, *names: str, least: int) -> None:
    """Raise InputError unless these fields are whole numbers of at least `least`.

    A field may be a tuple: then each of its items has to be one.
    """
    for name in names:
        field = getattr(settings, name)
        for value in field if isinstance(field, tuple) else (field,):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(
                    f"{name}: expected a whole number of at least {least}, got {value!r}"
                )


def check_number(
    settings: object,
    *names: str,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> None:
    """Raise InputError unless these fields are finite numbers within the bounds given."""
    bounds = {"at least": least, "above": above, "at most": most, "below": below}
    stated = " and ".join(f"{word} {x:g}" for word, x in bounds.items() if math.isfinite(x))
    for name in names:
        value = getattr(settings, name)
        inside = least <= value <= most and above < value < below
        if not (math.isfinite(value) and inside):
            raise InputError(f"{name}: expected a number {stated}, got {value:g}")
