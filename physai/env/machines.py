"""The machines of a vector environment, in true MuJoCo or in a surrogate."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from physai.env.judge import Judge
from physai.env.model import Model
from physai.env.outside import Guarded, Moved
from physai.env.vector_tools import placed
from physai.errors import InputError
from physai.plant import Plant
from physai.rollout.engine import TruePlant
from physai.state import Array, State


class Machines:
    """n machines of one plant, which a learned model moves, or else the true simulator.

    Attributes:
        designs: their design vectors `[n, nd]`.
        valid: False for those whose simulation diverged `[n]`, until they are started anew; never
            written in place: it may be a model's own memory, or what a caller was given.

    Args:
        plant: the plant.
        surrogate: a learned model, or None for true MuJoCo.
        n: how many.
        judge: watches the true simulator.
        outside: what to do where an input is outside the surrogate's domain, as of `Guarded`.
    """

    def __init__(
        self, plant: Plant, surrogate: Model | None, n: int, judge: Judge, outside: str
    ) -> None:
        self._plant, self._surrogate, self._judge = plant, surrogate, judge
        self._guarded = None if surrogate is None else Guarded(plant, surrogate, outside)
        self._true: TruePlant | None = None
        self.designs = np.tile(plant.nominal, (n, 1))
        self.valid = np.ones(n, bool)

    def build(self, designs: np.ndarray, mask: np.ndarray) -> bool:
        """Give the machines in `mask` [n] these designs `[n, nd]`; tell whether one is new.

        Raises:
            InputError: a new one in true MuJoCo for some of the machines only.
        """
        wanted = np.where(mask[:, None], designs, self.designs)
        new = not np.array_equal(wanted, self.designs)
        if self._surrogate is None and (new or self._true is None):
            if not mask.all():
                raise InputError(
                    "reset options: with reset_mask the machines keep their designs in true "
                    "MuJoCo; a new design, or a state of another one, needs a reset of all"
                )
            derived = self._judge.derived
            self._true = TruePlant(self._plant, len(wanted), wanted, derived=derived)
            self._judge.watch(self._true)
        self.designs = wanted
        return new

    def start(self, start: State) -> State:
        """Return the states `[n, ...]` of machines that all start from `start`, float64."""
        self.valid = np.ones_like(self.valid)
        return start if self._surrogate is None else jax.tree.map(jnp.float32, start)

    def restart(self, state: State, rows: np.ndarray, start: State) -> State:
        """Return the states `[n, ...]` with `start` [k, ...] in `rows` [k], which become valid."""
        valid = self.valid.copy()
        valid[rows] = True
        self.valid = valid
        if self._true is not None:
            return self._true.restart(state, rows, start)
        return placed(state, rows, start)

    def step(self, state: State, actions: Array, gusts: np.ndarray) -> Moved:
        """Advance by a control period; of the true simulator the scores are NaN.

        Args:
            state: `[n, ...]`.
            actions: `[n, nu]`, within their ranges.
            gusts: disturbances `[n, nw]`.
        """
        if self._true is not None:
            after = self._true.step(state, actions, gusts)
            self.valid = self._true.valid.copy()
            return Moved(after, self.valid, np.full(len(self.valid), np.nan), None)
        assert self._guarded is not None
        moved = self._guarded.step(state, actions, gusts, self.designs)
        self.valid = np.asarray(moved.valid)
        return moved
