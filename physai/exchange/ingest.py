"""Importing logs and foreign datasets: read, check, resample, cut, and write a dataset.

Nothing is written before everything was checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from physai.errors import InputError
from physai.exchange.channels import machine_signals
from physai.exchange.logs import Log, read_table
from physai.exchange.mapping import ColumnMap, load_mapping
from physai.exchange.mcap import read_mcap
from physai.exchange.minari import minari_folder, minari_logs, read_minari
from physai.exchange.replay import suspect_units
from physai.exchange.resample import Recording, Resampling, recordings
from physai.exchange.suspect import (
    note_still,
    shaken,
    suspect_actions,
    suspect_order,
    suspect_positions,
    suspect_rates,
    suspect_speeds,
    suspect_time,
)
from physai.exchange.windows import SHORTEST, ImportSettings, draw_splits, stack, window_periods
from physai.plant import Plant
from physai.progress import Progress, silent
from physai.provenance import Source, read_json, sha256_file, sha256_folder
from physai.rollout.dataset import Dataset, open_dataset
from physai.rollout.recorded import REPORT, is_recorded, write_recorded
from physai.rollout.store import SPLITS, columns, describe, shapes
from physai.rollout.symmetry import Symmetry, find_symmetries
from physai.task import Task

TABLES = (".csv", ".parquet")
_SHOWN = 12  # suspicions in an error


class Imported(NamedTuple):
    """A dataset, and what was found in its logs."""

    dataset: Dataset
    report: dict[str, Any]


class _Read(NamedTuple):
    recordings: list[Recording]
    logs: list[dict[str, Any]]
    derived: dict[str, str]
    notes: list[str]
    suspicions: list[str]


def import_logs(
    plant: Plant,
    task: Task,
    logs: Sequence[str | Path],
    folder: str | Path,
    mapping: str | Path | None = None,
    settings: ImportSettings | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Imported:
    """Make a dataset of logs of a real machine, or of a Minari dataset.

    Args:
        plant: the model of the machine.
        task: of the plant; names the commands and gives the usual duration.
        logs: .csv, .parquet and .mcap files; or Minari datasets, by folder or local id.
        folder: of the dataset.
        mapping: the mapping file; only a Minari dataset that physai wrote needs none.
        settings: how the logs become episodes.
        seed: of the draw of the splits.
        progress: called as reading goes on.

    Returns:
        The dataset, and the report that lies in it as `import.json`.

    Raises:
        InputError: a log, the mapping or their fit to the plant is not as it should be, or looks
            so; the message says what was expected, what came and what to do.
    """
    settings = settings or ImportSettings()
    folder, sources = Path(folder), [_located(log) for log in logs]
    if not sources:
        raise InputError("import: expected at least one log, got none")
    inputs: dict[str, Source] = dict(zip(_roles("log", len(sources)), sources, strict=True))
    if mapping is not None:
        inputs["mapping"] = Path(mapping)
    fitting = None if mapping is None else load_mapping(mapping, plant, task)
    if is_recorded(folder, {"plant": plant, **inputs}, settings, seed):
        dataset = open_dataset(folder, plant)
        return Imported(dataset, read_json(folder / REPORT))
    _refuse_repeated(sources)
    strict = settings.suspicious == "refuse"
    read = _read(plant, task, sources, fitting, seed, strict, progress)
    if strict:
        _refuse(read.suspicions)
    periods = window_periods(read.recordings, plant, task.duration, settings)
    splits, drawn = draw_splits(read.recordings, periods, plant.control_period, settings, seed)
    described = describe(plant, task, periods, dict.fromkeys(SPLITS, 0), 1, {}, seed, None)
    report = {
        "control_period": plant.control_period,
        "episode_periods": periods,
        "episodes": {split: len(windows) for split, windows in splits.items()},
        "drawn_by": drawn,
        "logs": read.logs,
        "channels": _channels(plant, task, read, fitting),
        "suspicions": read.suspicions,
        "notes": [*read.notes, *_advice(splits)],
    }
    symmetry = find_symmetries(plant, task, seed) if settings.symmetry else Symmetry()
    dataset = write_recorded(
        folder,
        plant,
        task,
        {split: stack(windows, periods, shapes(described)) for split, windows in splits.items()},
        inputs,
        settings,
        seed,
        symmetry,
        report,
    )
    return Imported(dataset, report)


def _refuse_repeated(sources: Sequence[Path]) -> None:
    """Refuse what is given twice: episodes of training would be those of the test."""
    seen: dict[str, Path] = {}
    for source in sources:
        sha256 = sha256_folder(source) if source.is_dir() else sha256_file(source)
        if sha256 in seen:
            raise InputError(
                f"{seen[sha256]} and {source}: expected different logs, got the same content "
                "twice; give it once, or a test would be on episodes that were trained on"
            )
        seen[sha256] = source


def _refuse(suspicions: Sequence[str]) -> None:
    if suspicions:
        listed = "\n".join(f"- {s}" for s in suspicions[:_SHOWN])
        if len(suspicions) > _SHOWN:
            listed += f"\n- and {len(suspicions) - _SHOWN} more"
        raise InputError(
            f"the logs look as if the mapping were wrong:\n{listed}\n"
            "Correct the mapping, or, if all this is right, import with --suspicious warn"
        )


def _located(log: str | Path) -> Path:
    path = Path(log)
    if path.suffix in (*TABLES, ".mcap"):
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        return path
    return minari_folder(path)


def _roles(role: str, count: int) -> list[str]:
    return [role, *(f"{role}-{i}" for i in range(1, count))]


def _read(
    plant: Plant,
    task: Task,
    sources: Sequence[Path],
    mapping: ColumnMap | None,
    seed: int,
    strict: bool,
    progress: Progress,
) -> _Read:
    fastest = np.zeros(0)
    read, moving = _Read([], [], {}, [], []), np.zeros(0)
    for i, source in enumerate(sources):
        progress("import", i, len(sources))
        if mapping is None:
            if source.suffix in (*TABLES, ".mcap"):
                raise InputError(f"{source}: expected --mapping, a file that names its columns")
            found, notes = read_minari(source, plant, task)
            read.recordings.extend(found)
            read.logs.append({"log": source.name, "recordings": len(found)})
            read.notes.extend(notes)
            continue
        if not moving.size:
            moving = shaken(plant, task, seed)
            fastest = np.abs(moving).max((0, 1), initial=0.0)
        first, cheap = len(read.recordings), len(read.suspicions)
        for log in _logs(source, mapping):
            _add(read, log, mapping, plant, task, fastest, strict)
        found = read.recordings[first:]
        read.notes.extend(note_still(source.name, found, mapping, plant, task))
        if not strict or len(read.suspicions) == cheap:  # otherwise these are told first
            read.suspicions.extend(suspect_units(source.name, found, mapping, plant, task, moving))
    progress("import", len(sources), len(sources))
    return read


def _logs(source: Path, mapping: ColumnMap) -> list[Log]:
    if source.suffix in TABLES:
        return read_table(source, mapping)
    if source.suffix == ".mcap":
        return read_mcap(source, mapping)
    return minari_logs(source, mapping)


def _add(
    read: _Read,
    log: Log,
    mapping: ColumnMap,
    plant: Plant,
    task: Task,
    fastest: np.ndarray,
    strict: bool,
) -> None:
    """Resample a log and note what is suspicious in it."""
    machine = machine_signals(log, mapping, plant)
    times = suspect_time(machine, mapping, plant.control_period)
    if strict:
        _refuse(times)  # nothing else can be judged with such times
    read.suspicions.extend(times)
    read.suspicions.extend(suspect_positions(machine, mapping, plant))
    read.suspicions.extend(suspect_actions(machine, mapping, plant))
    found, done = recordings(machine, plant, task, mapping.time.longest_gap)
    rates = suspect_rates(found, machine, mapping, plant, task, fastest)
    read.suspicions.extend(rates)
    suspicions, notes = suspect_order(found, machine, mapping, plant)
    read.suspicions.extend(suspicions)
    read.notes.extend(notes)
    if not rates:
        read.suspicions.extend(suspect_speeds(found, machine, mapping, plant, task, fastest))
    read.recordings.extend(found)
    read.logs.append(_log_record(log, found, done, machine.unwrapped))
    read.derived.update(done.derived)
    read.notes.extend(done.notes)
    read.notes.extend(_slow(log, machine, plant.control_period))


def _slow(log: Log, machine: Any, period: float) -> list[str]:
    slowest = max(float(np.median(np.diff(s.time))) for s in machine.moving if len(s.time) > 1)
    if slowest < 1.5 * period:
        return []
    return [
        f"{log.name}: a sample every {slowest:g} s, but the control period is {period:g} s; what "
        "lies between is interpolated, and a surrogate learns that too"
    ]


def _log_record(
    log: Log, found: Sequence[Recording], done: Resampling, unwrapped: list[str]
) -> dict[str, Any]:
    times = [signal.time for signal in log.signals.values()]
    seconds = float(max(t[-1] for t in times))
    step = float(min(np.median(np.diff(t)) if len(t) > 1 else np.inf for t in times))
    return {
        "log": log.name,
        "rows": log.rows,
        "seconds": seconds,
        "rate_hz": 1.0 / step if np.isfinite(step) else 0.0,
        "recordings": len(found),
        "periods": sum(r.periods for r in found),
        "gaps": [list(gap) for gap in done.gaps],
        "dropped_seconds": done.dropped,
        "resampled": done.interpolated,
        "empty_cells": log.empty,
        "unwrapped": unwrapped,
    }


def _channels(
    plant: Plant, task: Task, read: _Read, mapping: ColumnMap | None
) -> list[dict[str, Any]]:
    """Return the range of every column of the dataset's arrays, and where it comes from."""
    rows = []
    for name, named in columns(plant, task).items():
        if name == "start_time":
            continue
        joined = np.concatenate([np.atleast_2d(r.arrays[name]) for r in read.recordings])
        for i, (channel, unit) in enumerate(named):
            rows.append(
                {
                    "array": name,
                    "channel": channel,
                    "unit": unit,
                    "low": float(joined[:, i].min()),
                    "high": float(joined[:, i].max()),
                    "source": _origin(name, channel, read.derived, mapping),
                }
            )
    return rows


def _origin(array: str, channel: str, derived: dict[str, str], mapping: ColumnMap | None) -> str:
    if mapping is None:
        return "Minari"
    group = {"qpos": "position", "qvel": "velocity", "act": "activation"}.get(array, array)
    name = channel.removesuffix(".rate").removesuffix(".activation")
    if f"{group} {name}" in derived:
        return derived[f"{group} {name}"]
    if entry := mapping.channels[group].get(name):
        return f"{entry.column} in {entry.unit}" if entry.column else "constant"
    joint, _, axis = name.rpartition(".q")
    quaternion = mapping.quaternions[joint]
    return quaternion.columns[quaternion.order.index(axis)]


def _advice(splits: dict[str, list[Recording]]) -> list[str]:
    """Say what `fit` and `score` will lack."""
    calibration, test = (
        sum(w.periods >= SHORTEST for w in splits[split]) for split in ("calibration", "test")
    )
    advice = []
    if calibration < 20:
        advice.append(
            f"calibration has {calibration} episodes of at least {SHORTEST} control periods, and "
            "fit needs 20 of its calibrated horizon: import more data, or fit with a lower "
            "--calibrated-horizon"
        )
    if test < 1:
        advice.append(
            f"test has no episode of {SHORTEST} control periods, and score needs one: import "
            "more data, or longer episodes"
        )
    return advice
