"""How well an operating domain tells inputs like its training data from those beyond their range.

What is beyond is said without the domain's own score, and of physical channels, not of inputs:
positions that matter, velocities in MuJoCo's frames, activations, actions, disturbances and design.
A control period is beyond the range of some episodes where one of these channels is; a design
variable's range is the one that it may have.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from scipy.stats import mannwhitneyu

from physai.rollout.dataset import Episodes
from physai.state import State
from physai.surrogate.domain import Domain
from physai.surrogate.features import Layout
from physai.surrogate.inputs import inputs
from physai.surrogate.known import Known
from physai.surrogate.model import Surrogate
from physai.surrogate.prior import periods

PUSHED = (0.1, 0.5)
"""By how much of its range's width a channel is pushed out of it, at least and at most."""


class Periods(NamedTuple):
    """Control periods: states `[N, ...]`, actions `[N, nu]`, disturbances `[N, nw]`."""

    states: State
    actions: np.ndarray
    disturbances: np.ndarray


class Ranges(NamedTuple):
    """Ranges `[nc]` of the physical channels, in the order of `channels`."""

    low: np.ndarray
    high: np.ndarray

    @property
    def width(self) -> np.ndarray:
        """Widths `[nc]`, infinite where a channel is constant: nothing is a share of no range."""
        largest = np.maximum(np.abs(self.low), np.abs(self.high))
        width = self.high - self.low
        return np.where(width > 1e-5 * largest + 1e-7, width, np.inf)


def domain_rates(
    surrogate: Surrogate, episodes: Episodes, beyond: Episodes | None = None, seed: int = 0
) -> dict[str, float]:
    """Measure false alarms and misses of a surrogate's domain.

    Args:
        surrogate: whose domain.
        episodes: that neither fitting nor calibration saw, drawn like the training data.
        beyond: others, of which the control periods beyond the range of `episodes` count. None: the
            control periods of `episodes`, each with one channel, drawn at random, pushed out of its
            range by 10% to 50% of the range's width.
        seed: of what is drawn.

    Returns:
        `false_alarms`: share of the episodes' control periods that the domain calls outside;
        `misses`: share of those beyond that it calls inside; `auc`: the area under the receiver
        operating characteristic between both; `inputs`, `beyond`: how many there were of both.
        Misses and area are NaN where no control period is beyond.
    """
    inside = periods_of(episodes)
    ranges = ranges_of(surrogate.layout, inside)
    if beyond is None:
        outer = pushed(surrogate.layout, inside, ranges, seed)
    else:
        outer = periods_of(beyond)
        outer = jax.tree.map(lambda x: x[excess(surrogate.layout, outer, ranges) > 0.0], outer)
    scores = (
        scores_of(surrogate.domain, surrogate.layout, surrogate.known, p) for p in (inside, outer)
    )
    return rates(*scores)


def rates(inside: np.ndarray, beyond: np.ndarray) -> dict[str, float]:
    """Return the rates of scores inside `[n]` and beyond `[m]`, as `domain_rates` does."""
    return {
        "false_alarms": float(np.mean(inside > 1.0)),
        "misses": float(np.mean(beyond <= 1.0)) if len(beyond) else np.nan,
        "auc": area(inside, beyond),
        "inputs": len(inside),
        "beyond": len(beyond),
    }


def area(inside: np.ndarray, beyond: np.ndarray) -> float:
    """Return the area under the receiver operating characteristic of scores.

    It is the chance that a score beyond exceeds one inside, ties counted half: Mann and Whitney's
    statistic over n m (Hanley, McNeil, "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve", 1982). NaN where there are none beyond.
    """
    if not len(beyond):
        return np.nan
    statistic = mannwhitneyu(beyond, inside, method="asymptotic").statistic
    return float(statistic) / (len(inside) * len(beyond))


def scores_of(domain: Domain, layout: Layout, known: Known | None, given: Periods) -> np.ndarray:
    """Return the domain's score `[N]` of control periods."""
    return np.asarray(_scores(domain, layout, known, given))


@partial(jax.jit, static_argnums=1)
def _scores(domain: Domain, layout: Layout, known: Known | None, given: Periods) -> jax.Array:
    return domain.score(inputs(layout, known, *given))


def periods_of(episodes: Episodes) -> Periods:
    """Return all valid control periods of episodes."""
    return Periods(*periods(episodes)[:3])


def channels(layout: Layout) -> tuple[tuple[str, int], ...]:
    """Return the physical channels, as field and index in it; of qpos those that have a range."""
    sizes = {"qvel": layout.nv, "act": layout.na, "design": layout.nd}
    sizes |= {"actions": layout.nu, "disturbances": layout.nw}
    positions = (("qpos", i) for i, _ in layout.positions)
    return (*positions, *((name, i) for name, size in sizes.items() for i in range(size)))


def ranges_of(layout: Layout, given: Periods) -> Ranges:
    """Return the ranges of the physical channels; of a design variable, its bounds."""
    values = _values(layout, given)
    low, high = values.min(0), values.max(0)
    for column, (name, i) in enumerate(channels(layout)):
        if name == "design":
            low[column], high[column] = layout.design_low[i], layout.design_high[i]
    return Ranges(low, high)


def excess(layout: Layout, given: Periods, ranges: Ranges) -> np.ndarray:
    """Return by how much the worst channel leaves its range, in widths `[N]`; inside at most 0."""
    values = _values(layout, given)
    return np.max(np.maximum(ranges.low - values, values - ranges.high) / ranges.width, axis=1)


def pushed(layout: Layout, given: Periods, ranges: Ranges, seed: int) -> Periods:
    """Return control periods, each with one channel pushed out of its range, at either end."""
    rng, count = np.random.default_rng(seed), len(given.actions)
    moving = np.flatnonzero(np.isfinite(ranges.width))
    if not len(moving):
        return jax.tree.map(lambda x: x[:0], given)
    chosen = rng.choice(moving, count)
    far = rng.uniform(*PUSHED, count) * ranges.width[chosen]
    up = rng.random(count) < 0.5
    values = np.where(up, ranges.high[chosen] + far, ranges.low[chosen] - far)
    fields = _fields(given)
    for column, (name, i) in enumerate(channels(layout)):
        rows = chosen == column
        fields[name][rows, i] = values[rows]
    driven = [fields.pop(name) for name in ("actions", "disturbances")]
    return Periods(replace(given.states, **fields), *driven)


def _values(layout: Layout, given: Periods) -> np.ndarray:
    fields = _fields(given)
    return np.stack([fields[name][:, i] for name, i in channels(layout)], axis=1)


def _fields(given: Periods) -> dict[str, np.ndarray]:
    """Return copies, so that they may be written."""
    state = {name: np.array(getattr(given.states, name)) for name in ("qpos", "qvel", "act")}
    rest = {"actions": np.array(given.actions), "disturbances": np.array(given.disturbances)}
    return {**state, "design": np.array(given.states.design), **rest}
