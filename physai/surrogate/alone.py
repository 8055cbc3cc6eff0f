"""What a surrogate is compared with on the same windows: its own members, ridge, persistence."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from physai.state import State, difference
from physai.surrogate.model import Surrogate
from physai.surrogate.network import Parameters
from physai.surrogate.spread import persistence, rms

Row = list[float | None]


@dataclass(frozen=True)
class Alone:
    """Normalised errors step by step; None where no prediction stayed finite.

    Attributes:
        curve: of the baselines, `persistence` and, where there is one, `ridge`.
        ridge_blown_up: windows in which ridge ceased to be finite, left out of its error (None:
            there is no ridge).
        members: `min`, `median` and `max` over the members, each flown on its own.
    """

    curve: dict[str, Row]
    ridge_blown_up: int | None
    members: dict[str, Row]


def flown_alone(
    surrogate: Surrogate,
    ridge: Surrogate | None,
    states: State,
    actions: np.ndarray,
    disturbances: np.ndarray,
    scale: np.ndarray,
) -> Alone:
    """Fly the baselines, and each member of the ensemble as if it were the whole of it.

    Members differ by the seed of their initial weights and of their batches alone: what they differ
    by is the spread over these seeds, on one and the same data.

    Args:
        surrogate: the ensemble.
        ridge: the linear surrogate (None: there is none).
        states: true states `[H + 1, n, ...]`.
        actions, disturbances: `[H, n, ...]`.
        scale: spread of the channels `[H, nc]`, NaN for none.
    """
    joints = surrogate.layout.joints
    curve: dict[str, Row] = {"persistence": _row(persistence(joints, states) / scale)}
    blown = None
    if ridge is not None:
        rmse, finite = _member_rmse(ridge, states, actions, disturbances)
        curve["ridge"] = _row(np.asarray(rmse)[0] / scale)
        blown = int((~np.asarray(finite)).sum())
    rmse, _ = _member_rmse(surrogate, states, actions, disturbances)
    each = [[np.nan if x is None else x for x in _row(r / scale)] for r in np.asarray(rmse)]
    over = {"min": np.min, "median": np.median, "max": np.max}
    members = {name: _known(reduce(np.array(each), axis=0)) for name, reduce in over.items()}
    return Alone(curve, blown, members)


@jax.jit
def _member_rmse(
    surrogate: Surrogate, states: State, actions: jax.Array, disturbances: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return each member's root mean square error `[members, H, nc]`, and which windows `[m, n]`
    stayed finite, over which it is."""

    def fly(member: Parameters) -> tuple[jax.Array, jax.Array]:
        def period(state: State, now: tuple[jax.Array, jax.Array, State]):
            action, disturbance, true = now
            state = surrogate.step_member(member, state, action, disturbance)
            return state, jnp.square(difference(surrogate.layout.joints, state, true))

        _, square = jax.lax.scan(period, states[0], (actions, disturbances, states[1:]))
        finite = jnp.isfinite(square).all(axis=(0, 2))
        kept = jnp.where(finite[:, None], square, 0.0).sum(axis=1)
        return jnp.sqrt(kept / finite.sum()), finite  # 0 / 0 is NaN: no number

    return jax.lax.map(fly, surrogate.parameters)


def _row(nrmse: np.ndarray) -> Row:
    """Return the root mean square over channels `[H, nc]` of each step."""
    return [rms(row) if np.isfinite(row).any() else None for row in nrmse]


def _known(values: np.ndarray) -> Row:
    return [float(x) if np.isfinite(x) else None for x in values]
