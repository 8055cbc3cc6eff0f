"""Units of a log's columns, turned into those of the plant's channels."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from physai.errors import InputError
from physai.exchange.extra import extra


def convert(values: ArrayLike, unit: str, to: str, where: str) -> np.ndarray:
    """Return `values`, given in `unit`, in the unit `to`.

    Args:
        values: any shape.
        unit: as pint reads it: "deg/s", "mm", "N m", "degC", "%"; "1" has no unit.
        to: likewise.
        where: names the channel in errors.

    Raises:
        InputError: pint does not know the unit, or it measures something else.
    """
    source, target = _parse(unit, where), _parse(to, where)
    if "radian" in str(target) and any("hertz" in name for name in map(str, source._units)):
        # Hertz has the dimension of rad/s, but is 2 pi of them: only the user can know.
        raise InputError(f"{where}: {unit} is no angular speed; expected turn/s, rpm or rad/s")
    pint = extra("pint")
    try:
        return np.asarray(_registry().Quantity(np.asarray(values, float), source).to(target).m)
    except pint.DimensionalityError as error:
        raise InputError(f"{where}: expected a unit that measures {to}, got {unit}") from error


def _parse(unit: str, where: str) -> Any:
    try:
        return _registry().parse_units("" if unit == "1" else unit)
    except Exception as error:  # pint raises errors of its own, of the tokenizer and of Python
        raise InputError(
            f"{where}: expected a unit such as m, deg, rad/s, N m or 1 (none), got {unit!r}"
        ) from error


@functools.cache
def _registry() -> Any:
    return extra("pint").UnitRegistry(autoconvert_offset_to_baseunit=True)
