"""Whether the design variables of a plant do anything."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from physai.errors import InputError
from physai.plant.record import Plant


def check_variables(plant: Plant) -> None:
    """Refuse a design variable whose two ends give the same model, all others nominal.

    A plant with forces of its own may read its design there, so that nothing can be said of it.

    Raises:
        InputError: names the first variable that changes nothing.
    """
    for i, variable in enumerate(plant.design if plant.forces is None else ()):
        ends = []
        for value in (variable.low, variable.high):
            design = plant.nominal
            design[i] = value
            ends.append(plant.compile(design, textures=False))
        if _same(*ends):
            raise InputError(
                f"{plant.folder / 'plant.py'}: design variable {variable.name}: apply() changes "
                f"nothing in the model between {variable.low:g} and {variable.high:g} "
                f"{variable.unit}. Write it into the spec in apply(), or take it out of DESIGN"
            )


def _same(a: mujoco.MjModel, b: mujoco.MjModel) -> bool:
    """Compare all numbers of two models."""
    pairs = zip(_numbers(a), _numbers(b), strict=True)
    return all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)


def _numbers(record: object) -> Iterator[np.ndarray]:
    for name in sorted(dir(record)):
        if name.startswith("_") or callable(value := getattr(record, name)):
            continue
        if isinstance(value, int | float | np.ndarray):
            yield np.asarray(value)
        elif name in ("opt", "stat"):
            yield from _numbers(value)
