"""The part of a plant's design space that a study moves, and designs drawn from it.

A search works in the unit cube, one coordinate a chosen variable; the other variables of the plant
stay nominal. Designs are rounded to float32, in which the surrogate computes, so that prediction
and verification are of the same machine to the last bit.

Reference: Sobol, "On the distribution of points in a cube and the approximate evaluation of
integrals", 1967, doi:10.1016/0041-5553(67)90144-9; Owen, "Scrambling Sobol' and
Niederreiter-Xing points", 1998, doi:10.1006/jcom.1998.0487.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from physai.errors import InputError
from physai.plant import DesignVariable, Plant


@dataclass(frozen=True)
class DesignSpace:
    """The variables that a study moves.

    Attributes:
        plant: the machine; its other design variables stay nominal.
        columns: indices of the chosen variables in the plant's design vector `[k]`.
    """

    plant: Plant = field(repr=False)
    columns: tuple[int, ...]

    @property
    def variables(self) -> tuple[DesignVariable, ...]:
        """The chosen variables, in the order in which they were asked for."""
        return tuple(self.plant.design[i] for i in self.columns)

    def designs(self, unit: np.ndarray) -> np.ndarray:
        """Return the design vectors `[n, nd]` of points `[n, k]` in the unit cube.

        Raises:
            InputError: points of another width, not finite, or outside the cube.
        """
        unit = np.asarray(unit, float)
        if unit.ndim != 2 or unit.shape[1] != len(self.columns):
            raise InputError(f"points: expected shape [n, {len(self.columns)}], got {unit.shape}")
        if not ((unit >= 0.0) & (unit <= 1.0)).all():
            raise InputError("points: expected coordinates from 0 to 1")
        low = np.array([v.low for v in self.variables])
        high = np.array([v.high for v in self.variables])
        return self.completed(low + (high - low) * unit)

    def completed(self, chosen: np.ndarray) -> np.ndarray:
        """Return the design vectors `[n, nd]` of chosen variables `[n, k]`, the others nominal."""
        designs = np.tile(self.plant.nominal, (len(chosen), 1))
        designs[:, list(self.columns)] = chosen
        return designs.astype(np.float32).astype(float)

    def chosen(self, designs: np.ndarray) -> np.ndarray:
        """Return the chosen variables `[n, k]` of design vectors `[n, nd]`, in their own units."""
        return designs[:, list(self.columns)]


def design_space(plant: Plant, names: Sequence[str]) -> DesignSpace:
    """Choose variables of a plant by name.

    Raises:
        InputError: a plant without design variables, no name, an unknown one, or one named twice.
    """
    known = [v.name for v in plant.design]
    if not known:
        raise InputError(
            f"plant {plant.name}: it has no design variables; name them as DESIGN in its plant.py, "
            "with an apply(spec, design) that writes them into the model"
        )
    listed = ", ".join(f"{v.name} ({v.low:g} to {v.high:g} {v.unit})" for v in plant.design)
    if not names:
        raise InputError(f"variables: expected at least one of: {listed}")
    for name in names:
        if name not in known:
            raise InputError(f"variables: {plant.name} has no {name!r}; expected some of: {listed}")
    if len(set(names)) < len(names):
        raise InputError(f"variables: expected each one once, got {', '.join(names)}")
    return DesignSpace(plant, tuple(known.index(name) for name in names))


def sobol(dimensions: int, n: int, seed: int) -> np.ndarray:
    """Draw `n` points `[n, dimensions]` of a scrambled Sobol sequence in the unit cube."""
    from scipy.stats import qmc

    # Balance is a property of whole powers of two: draw one, keep what is asked for.
    power = max(n - 1, 0).bit_length()
    return qmc.Sobol(dimensions, rng=np.random.default_rng(seed)).random_base2(power)[:n]
