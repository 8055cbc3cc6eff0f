"""The numbers behind the report's figures, as equally long columns whose names end in their unit.

A gap (a flight that failed, a moment without a value) is None, as JSON has no word for NaN.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.stats import binom

from physai.errors import InputError
from physai.state import State
from physai.surrogate.calibration import COVERAGE
from physai.task import Task
from physai.verify import Certificate, RequirementResult, SavedFlight, load_flight
from physai.verify.replay import read_arrays

Columns = dict[str, list[Any]]
GROUPS = {"m": "position", "rad": "angle", "m/s": "velocity", "rad/s": "angular velocity"}
"""Channel groups by unit; all others are activations."""
KINDS = ("typical", "worst")


@dataclass(frozen=True)
class Flown:
    """A stored flight of a certificate.

    Attributes:
        condition: "nominal" or "disturbed".
        kind: "typical" or "worst".
        saved: as verification stored it.
        values: by requirement, its measure moment by moment `[T+1]`; NaN where there is none.
        end: the moment at which the task called the flight lost, else T.
    """

    condition: str
    kind: str
    saved: SavedFlight
    values: Mapping[str, np.ndarray]
    end: int

    @property
    def time(self) -> np.ndarray:
        """Seconds since the start `[T+1]`."""
        time = np.asarray(self.saved.trajectory.states.time, float)
        return time - time[0]


def error_series(score: Mapping[str, Any], period: float) -> Columns:
    """Return error, interval and baselines by horizon, for a control period in s."""
    curve = score["curve"]
    steps = list(range(1, len(curve["nrmse"]) + 1))
    return {
        "horizon_periods": steps,
        "horizon_s": [round(n * period, 9) for n in steps],
        "error_nrmse": exact(curve["nrmse"]),
        "interval_half_width_nrmse": exact(curve["half_width"]),
        "persistence_nrmse": exact(curve["persistence"]),
        **({"ridge_nrmse": exact(curve["ridge"])} if "ridge" in curve else {}),
    }


def calibration_series(score: Mapping[str, Any], period: float) -> Columns:
    """Return coverage by horizon in percent, and the 95% band of as many independent windows."""
    coverage, count = score["curve"]["coverage"], np.asarray(score["curve"]["windows"])
    low, high = (100.0 * binom.ppf(q, count, COVERAGE) / count for q in (0.025, 0.975))
    return {
        "horizon_s": [round(n * period, 9) for n in range(1, len(coverage) + 1)],
        "coverage_percent": [None if x is None else 100.0 * x for x in coverage],
        "band_low_percent": low.tolist(),
        "band_high_percent": high.tolist(),
    }


def group_series(score: Mapping[str, Any]) -> Columns:
    """Return the mean coverage of each channel group at each scored horizon, in percent."""
    found: dict[tuple[str, float], list[float]] = {}
    for channel in score["channels"].values():
        group = GROUPS.get(channel["unit"], "activation")
        for horizon, coverage in zip(score["seconds"], channel["coverage"], strict=True):
            if coverage is not None:  # nothing is promised there
                found.setdefault((group, horizon), []).append(coverage)
    return {
        "group": [group for group, _ in found],
        "horizon_s": [horizon for _, horizon in found],
        "coverage_percent": [100.0 * sum(x) / len(x) for x in found.values()],
    }


def fit_series(path: Path) -> Columns:
    """Return the training curve: `stage`, `step` and `loss`."""
    rows = _rows(path, ("stage", "step", "loss"))
    return {
        "stage": [row["stage"] for row in rows],
        "step": [_number(row["step"]) for row in rows],
        "loss": [_number(row["loss"]) for row in rows],
    }


def learning_series(paths: Sequence[Path]) -> Columns:
    """Return the learning curves of all rounds, one behind the other."""
    names = ("update", "reward_per_period", "imagined_return", "true_return")
    columns: Columns = {"round": [], **{name: [] for name in names}}
    before = 0.0
    for number, path in enumerate(paths):
        rows = [{name: _number(row[name]) for name in names} for row in _rows(path, names)]
        updates = [before + (row["update"] or 0.0) for row in rows]
        columns["round"] += [number] * len(rows)
        columns["update"] += updates
        for name in names[1:]:
            columns[name] += [row[name] for row in rows]
        before = max(updates, default=before)
    return columns


def load_flights(folder: Path, certificate: Certificate, task: Task) -> list[Flown]:
    """Load the stored flights of a certificate, the typical and the worst of each condition."""
    flights = []
    for condition in certificate.conditions:
        for kind in KINDS:
            saved = load_flight(folder / f"{condition.name}_{kind}.npz")
            states = saved.trajectory.states
            lost = np.append(np.asarray(jax.vmap(task.terminated)(states)), True)
            end = min(int(np.argmax(lost)), len(lost) - 2)
            flights.append(Flown(condition.name, kind, saved, moments(task, states), end))
    return flights


def moments(task: Task, states: State) -> dict[str, np.ndarray]:
    """Return each requirement's measure of every single moment `[T+1]`, from states `[T+1, ...]`.

    A requirement on the largest value in a stretch of time is, on one moment, that value. Where a
    measure makes no sense on one moment there is NaN.
    """
    single = jax.tree.map(lambda x: np.asarray(x)[:, None], states)
    found = {}
    for requirement in task.requirements:
        try:
            values = np.asarray(_each(requirement.measure)(single), float)
        except (TypeError, ValueError, IndexError):
            values = np.full(len(states.time), np.nan)
        found[requirement.name] = np.where(np.isfinite(values), values, np.nan)
    return found


def trajectory_series(
    flights: Sequence[Flown], requirements: Sequence[RequirementResult]
) -> Columns:
    """Return time and, for each flight and requirement, the measure moment by moment."""
    columns: Columns = {}
    for flown in flights:
        columns.setdefault("time_s", rounded(flown.time))
        for requirement in requirements:
            name = f"{flown.condition}_{flown.kind}_{requirement.name}_{requirement.unit}"
            columns[name] = rounded(flown.values[requirement.name])
    return columns


def measure_series(folder: Path, certificate: Certificate) -> Columns:
    """Return the measure of each requirement over all flights; None where the flight failed."""
    arrays = read_arrays(folder / "flights.npz")
    try:
        return {
            f"{condition.name}_{requirement.name}_{requirement.unit}": rounded(
                arrays[f"{condition.name}.measure.{requirement.name}"]
            )
            for condition in certificate.conditions
            for requirement in condition.requirements
        }
    except KeyError as error:
        raise InputError(
            f"{folder / 'flights.npz'}: expected an array {error}, found none; verify again"
        ) from error


def rounded(values: Any) -> list[float | None]:
    """Return numbers with the seven digits that float32 has, None where not finite."""
    return [float(f"{v:.7g}") if math.isfinite(v) else None for v in np.asarray(values, float)]


def exact(values: Sequence[Any]) -> list[float | None]:
    """Return numbers as they are, None where not finite."""
    return [v if v is not None and math.isfinite(v) else None for v in values]


@lru_cache(maxsize=32)
def _each(measure: Callable[[State], jax.Array]) -> Callable[[State], jax.Array]:
    return jax.jit(jax.vmap(measure))


def _rows(path: Path, names: Sequence[str]) -> list[dict[str, str]]:
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    reader = csv.DictReader(io.StringIO(text))
    missing = [name for name in names if name not in (reader.fieldnames or ())]
    if missing:
        raise InputError(f"{path}: expected a column {missing[0]!r}, found none")
    return list(reader)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
