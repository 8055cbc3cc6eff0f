"""What an environment does where a surrogate's input lies outside its training data."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from physai.env.model import Model, learned_step
from physai.env.vector_tools import placed, where
from physai.errors import InputError
from physai.plant import Plant
from physai.rollout.engine import TruePlant
from physai.state import Array, State
from physai.surrogate.model import Surrogate

OUTSIDE = {"accept": "", "abstain": "abstained", "simulate": "simulated"}
"""What there is to choose from, and what `info` calls a step to which it was done."""


class Moved(NamedTuple):
    """One control period of n simulations in a surrogate.

    Attributes:
        state: the next state `[n, ...]`.
        valid: False where the simulation diverged `[n]`.
        domain_score: of the surrogate's input `[n]`, NaN for a model that knows no domain.
        handled: where an input was outside, and not accepted `[n]`; None where all are accepted.
    """

    state: State
    valid: Array
    domain_score: Array
    handled: np.ndarray | None


class Guarded:
    """n simulations in a surrogate that are not left to it outside its domain.

    Args:
        plant: the plant.
        model: a learned model.
        outside: "accept" its predictions all the same; "abstain": leave the state as it is; or
            "simulate" the control period in true MuJoCo.
    """

    def __init__(self, plant: Plant, model: Model, outside: str) -> None:
        self._plant, self._model, self._outside = plant, model, outside
        self._true: TruePlant | None = None

    def step(self, state: State, actions: Array, gusts: np.ndarray, designs: np.ndarray) -> Moved:
        """Advance states `[n, ...]` by a control period, as `learned_step` does.

        Args:
            state: `[n, ...]`.
            actions: `[n, nu]`, within their ranges.
            gusts: disturbances `[n, nw]`.
            designs: design vectors `[n, nd]`, of the machines that are simulated.
        """
        step = learned_step(self._model, state, actions, gusts)
        if self._outside == "accept":
            return Moved(step.state, step.valid, step.domain_score, None)
        out = np.asarray(step.domain_score) > 1.0
        if not out.any():
            return Moved(step.state, step.valid, step.domain_score, out)
        if self._outside == "abstain":
            kept = where(out, state, step.state)
            return Moved(kept, np.asarray(step.valid) | out, step.domain_score, out)
        rows = np.flatnonzero(out)
        true = self._simulator(designs)
        # An action of a row that is left to the surrogate may be no number.
        given = np.where(out[:, None], np.asarray(actions, float), 0.0)
        host = jax.tree.map(lambda x: np.asarray(x, float), state)
        merged = placed(step.state, rows, true.step(host, given, gusts, rows)[rows])
        valid = np.where(out, true.valid, np.asarray(step.valid))
        return Moved(merged, valid, step.domain_score, out)

    def _simulator(self, designs: np.ndarray) -> TruePlant:
        """Return true machines of these designs, which take their time to compile."""
        if self._true is None or not np.array_equal(designs, self._true.designs):
            threads = 1 if len(designs) == 1 else 0
            self._true = TruePlant(self._plant, len(designs), designs, nthread=threads)
        return self._true


def check_outside(outside: str, model: Model | None) -> str:
    """Return the choice, checked against the model (None: the true simulator).

    Raises:
        InputError: not one of the choices, or one that this model cannot make.
    """
    if outside not in OUTSIDE:
        names = ", ".join(f'"{name}"' for name in OUTSIDE)
        raise InputError(f"outside: expected {names}, got {outside!r}")
    if outside == "accept" or isinstance(model, Surrogate):
        return outside
    what = "the true simulator has" if model is None else f"{type(model).__name__} has"
    raise InputError(
        f'outside: expected "accept", as {what} no operating domain, got {outside!r}; give a '
        "surrogate that `physai fit` made, or leave outside out"
    )
