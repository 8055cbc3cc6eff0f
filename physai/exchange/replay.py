"""In which unit does the model explain a log? The log is replayed on it, period by period.

From each moment of the log the true simulator goes one control period on, with the log's own state
and action. How it changes the velocity is compared with how the log does; once as the mapping
declares the positions, once as if they were in another unit. A unit is suspected where

- the model explains the log in it, and not as declared; or
- it explains neither, but as declared the log changes its velocity several times as much as the
  model does when it is shaken; or
- it explains neither, but the task gives up all states as declared, and none in that unit.

The changes are summed over windows with triangular weights,

    D_k = sum_j w_j (v_k+j+1 - v_k+j),   w = 1/m, 2/m, ... 1 ... 2/m, 1/m

which is the mean velocity of m periods less that of the m before: noise of the sensors shrinks with
m, motion grows with it. The error is relative, median |D of log - D of model| / median |D of log|:
in absolute terms a unit that makes everything small would explain any noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from physai.exchange.mapping import ColumnMap
from physai.exchange.resample import Recording
from physai.exchange.units import convert
from physai.plant import Plant
from physai.rollout.engine import TruePlant
from physai.state import State
from physai.task import Task

_CHAINS, _LENGTH = 16, 32  # pieces of a log that are replayed, and their control periods
_FEWEST = 100  # control periods that tell anything
_SPANS = (1, 4, 16)  # m of the windows, control periods
_BETTER = 5.0  # times as small the error in a suspected unit is
_EXPLAINED = 0.3  # error below which the model explains a log
_STRONG = 4.0  # times what the shaken model shows at most, 5% of the time aside
_UNITS = {"rad": ("deg", "rad"), "m": ("mm", "cm", "m")}


@dataclass(frozen=True)
class _Chains:
    """Pieces of a log, n of L control periods.

    Attributes:
        states: `[n, L+1, ...]`.
        actions, disturbances: `[n, L, ...]`.
    """

    states: State
    actions: np.ndarray
    disturbances: np.ndarray


class _Part(NamedTuple):
    """Logged positions of a kind that are declared in one unit.

    Attributes:
        channels: of the positions.
        kind: "rad" or "m".
        declared: the unit.
        qpos, qvel: where they are in the state.
    """

    channels: tuple[str, ...]
    kind: str
    declared: str
    qpos: tuple[int, ...]
    qvel: tuple[int, ...]


class _Reading(NamedTuple):
    """Chains as read in some unit; medians over the windows, by m and dof `[len(_SPANS), nv]`.

    Attributes:
        chains: the states in that unit.
        missed: what the model misses of the log's changes, m/s or rad/s.
        shown: the log's changes, likewise.
        strength: the log's changes over the shaken model's largest `[nv]`; 0 for noise.
        lost: share of the moments that the task gives up.
    """

    chains: _Chains
    missed: np.ndarray
    shown: np.ndarray
    strength: np.ndarray
    lost: float


class _Suspect(NamedTuple):
    """A part that may be in another unit.

    Attributes:
        part: the positions.
        unit: that they may be in.
        reading: of the log in it.
        evidence: the figures, for the user.
        gain: error in that unit over that as declared.
    """

    part: _Part
    unit: str
    reading: _Reading
    evidence: str
    gain: float


def suspect_units(
    name: str,
    recordings: Sequence[Recording],
    mapping: ColumnMap,
    plant: Plant,
    task: Task,
    shaken: np.ndarray,
) -> list[str]:
    """Suspect positions that make sense to the model only in another unit.

    Velocities are taken to be in that unit too; whether they fit the positions, `suspect_rates`
    tells. All positions declared in a unit are tried together, and each alone.

    Args:
        name: of the log.
        recordings: of the log; too few are not judged.
        mapping: names the columns.
        plant: the machine.
        task: as the recordings were made with.
        shaken: velocities of the model when shaken `[n, T+1, nv]`.
    """
    chains = _draw(recordings, plant.control_period)
    if chains is None:
        return []
    simulator = TruePlant(plant, len(chains.actions), chains.states.design[:, 0])
    windows = _windows(np.diff(shaken, axis=1))
    most = np.array([np.quantile(np.abs(w), 0.95, axis=(0, 1)) for w in windows])
    replay = partial(_read, simulator, task, most)
    parts, found, reading = _parts(plant, mapping), [], replay(chains)
    while suspect := _most_suspect(replay, reading, parts):
        found.append(_said(name, suspect, mapping))
        # What was found is corrected before the next is sought: they move each other.
        reading = suspect.reading
        parts = [p for p in parts if not set(p.channels) & set(suspect.part.channels)]
    return found


def _draw(recordings: Sequence[Recording], period: float) -> _Chains | None:
    """Cut pieces of one length out of recordings, evenly; None where there is too little."""
    length = min(_LENGTH, max(r.periods for r in recordings))
    starts = [(r, k) for r in recordings for k in range(0, r.periods - length + 1, length)]
    if len(starts) * length < _FEWEST:
        return None
    chosen = np.linspace(0, len(starts) - 1, min(_CHAINS, len(starts))).round().astype(int)
    pieces = [starts[i] for i in chosen]

    def moments(array: str) -> np.ndarray:
        return np.stack([r.arrays[array][k : k + length + 1] for r, k in pieces])

    def periods(array: str) -> np.ndarray:
        return np.stack([r.arrays[array][k : k + length] for r, k in pieces])

    def constant(array: str) -> np.ndarray:
        values = np.stack([r.arrays[array] for r, _ in pieces])[:, None]
        return np.broadcast_to(values, (len(pieces), length + 1, values.shape[-1]))

    return _Chains(
        State(
            **{array: moments(array) for array in ("qpos", "qvel", "act")},
            time=np.stack([r.start + period * (k + np.arange(length + 1)) for r, k in pieces]),
            **{array: constant(array) for array in ("command", "design")},
        ),
        periods("action"),
        periods("disturbance"),
    )


def _parts(plant: Plant, mapping: ColumnMap) -> list[_Part]:
    """Return what may be in another unit: all that is declared in a unit, and each one alone."""
    alone = []
    for joint in plant.joints:
        axes = {"free": (".x", ".y", ".z"), "ball": ()}.get(joint.kind, ("",))
        kind = "rad" if joint.kind == "hinge" else "m"
        for i, axis in enumerate(axes):
            entry = mapping.channels["position"][joint.name + axis]
            if entry.column:
                at = (joint.qpos_index + i,), (joint.qvel_index + i,)
                alone.append(_Part((joint.name + axis,), kind, entry.unit, *at))
    together = []
    for kind, unit in dict.fromkeys((part.kind, part.declared) for part in alone):
        same = [part for part in alone if (part.kind, part.declared) == (kind, unit)]
        if len(same) > 1:
            channels = tuple(part.channels[0] for part in same)
            at = tuple(p.qpos[0] for p in same), tuple(p.qvel[0] for p in same)
            together.append(_Part(channels, kind, unit, *at))
    return [*together, *alone]


def _most_suspect(
    replay: Callable[[_Chains], _Reading], declared: _Reading, parts: Sequence[_Part]
) -> _Suspect | None:
    """Return the part and unit that explain the log best, if any does."""
    found = []
    for part in parts:
        before = _unexplained(declared, part)
        # What is explained well as declared need not be tried.
        for unit in _UNITS[part.kind] if before > 0.5 / _BETTER else ():
            factor = float(convert(1.0, unit, part.declared, unit))
            if np.isclose(factor, 1.0):
                continue
            other = replay(_scaled(declared.chains, part, factor))
            if evidence := _evidence(declared, other, part, unit):
                gain = _unexplained(other, part) / before
                found.append(_Suspect(part, unit, other, evidence, gain))
    return min(found, key=lambda suspect: suspect.gain, default=None)


def _evidence(declared: _Reading, other: _Reading, part: _Part, unit: str) -> str:
    """Say what speaks for `other`, the log with a part in another unit; nothing if nothing does."""
    before, after = _unexplained(declared, part), _unexplained(other, part)
    if after < min(before / _BETTER, _EXPLAINED):
        return (
            "put into the log's states, the model misses the log's changes of velocity by "
            f"{before:.2g} times their size as declared, by {after:.2g} times in {unit}"
        )
    if before < _EXPLAINED:
        return ""
    strong, weaker = declared.strength[list(part.qvel)], other.strength[list(part.qvel)]
    if strong.max() > _STRONG and weaker.max() < 1.0:
        return (
            f"the log's usual changes of velocity are {strong.max():.3g} times the largest of the "
            f"shaken model as declared, {weaker.max():.2g} times in {unit}"
        )
    if declared.lost > 0.9 and other.lost < 0.1 and _far(declared.chains, part):
        return (
            f"the task gives up {declared.lost:.0%} of the log's states as declared, "
            f"{other.lost:.0%} in {unit}"
        )
    return ""


def _far(chains: _Chains, part: _Part) -> bool:
    """Tell whether positions are usually beyond a full turn, or beyond 100 m."""
    usual = np.median(np.abs(chains.states.qpos[..., list(part.qpos)]), axis=(0, 1))
    return bool(usual.max() > {"rad": 2.0 * np.pi, "m": 100.0}[part.kind])


def _scaled(chains: _Chains, part: _Part, factor: float) -> _Chains:
    qpos, qvel = np.array(chains.states.qpos), np.array(chains.states.qvel)
    qpos[..., list(part.qpos)] *= factor
    qvel[..., list(part.qvel)] *= factor
    return replace(chains, states=chains.states.replace(qpos=qpos, qvel=qvel))


def _read(simulator: TruePlant, task: Task, most: np.ndarray, chains: _Chains) -> _Reading:
    """Replay chains as they are; `most` is what the shaken model's windows show."""
    states, changes = chains.states, []
    for k in range(chains.actions.shape[1]):
        now = states[:, k]
        after = simulator.step(now, chains.actions[:, k], chains.disturbances[:, k])
        diverged = ~simulator.valid[:, None]
        changes.append(np.where(diverged, np.inf, after.qvel - now.qvel))
    log, model = np.diff(states.qvel, axis=1), np.stack(changes, 1)
    missed, shown = (
        np.array([np.median(np.abs(w), axis=(0, 1)) for w in _windows(x)])
        for x in (log - model, log)
    )
    # What does not grow with the windows may be noise.
    at = min(len(shown), len(most)) - 1
    moves = (len(shown) > 1) & (shown[-1] > 0.3 * _SPANS[len(shown) - 1] * shown[0])
    strength = np.where(moves, shown[at] / np.maximum(most[at], 1e-9), 0.0)
    lost = jax.tree.map(lambda x: np.asarray(x, np.float32), states)
    return _Reading(chains, missed, shown, strength, float(np.mean(_gives_up(task)(lost))))


def _windows(changes: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the weighted sums of consecutive changes `[n, L, nv]` for each m of `_SPANS`."""
    for span in _SPANS:
        weights = np.convolve(np.ones(span), np.ones(span)) / span
        count = changes.shape[1] - len(weights) + 1
        if count > 0:
            yield sum(w * changes[:, j : j + count] for j, w in enumerate(weights))  # type: ignore[misc]


def _unexplained(reading: _Reading, part: _Part) -> float:
    """Return what of the log's changes the model misses, in the windows that show most of it."""
    dofs = list(part.qvel)
    missed, shown = reading.missed[:, dofs].sum(1), reading.shown[:, dofs].sum(1)
    return float(np.min(missed[shown > 0.0] / shown[shown > 0.0], initial=np.inf))


@lru_cache(maxsize=8)
def _gives_up(task: Task) -> Any:
    return jax.jit(jax.vmap(jax.vmap(task.terminated)))


def _said(name: str, suspect: _Suspect, mapping: ColumnMap) -> str:
    part, entries = suspect.part, mapping.channels["position"]
    columns = [f"{channel} (column {entries[channel].column!r})" for channel in part.channels]
    asked = "is the column" if len(columns) == 1 else "are the columns"
    return (
        f"{name}: position {', '.join(columns)}, declared {part.declared}: {suspect.evidence}: "
        f"{asked} in {suspect.unit}?"
    )
