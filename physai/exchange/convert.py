"""Converting a dataset to what other tools read: Minari, Parquet or CSV with its mapping file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from physai.errors import InputError
from physai.exchange.extra import extra
from physai.exchange.mapping import turning
from physai.exchange.minari import write_minari
from physai.plant import Plant
from physai.progress import Progress, silent
from physai.provenance import atomic_folder, atomic_write, is_complete, write_manifest
from physai.rollout.dataset import Dataset, Episodes
from physai.rollout.store import SPLITS, columns
from physai.task import Task

Format = Literal["minari", "parquet", "csv"]
MAPPING = "mapping.toml"
_GROUPS = {"qpos": "position", "qvel": "velocity", "act": "activation"}


def convert_dataset(
    plant: Plant,
    task: Task,
    dataset: Dataset,
    to: Format,
    folder: str | Path,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write a dataset in another format, as a folder with a manifest.

    Args:
        plant: the machine of the dataset.
        task: of the plant: observations and rewards of a Minari dataset.
        dataset: episodes that diverged are left out.
        to: "minari", "parquet" or "csv".
        folder: absent, empty, or holding this very conversion.
        progress: called as episodes are written.

    Returns:
        `episodes` and `steps`, their numbers.

    Raises:
        InputError: the folder holds something else, the extra is missing, or the disk is full.
    """
    folder, settings = Path(folder), {"to": to}
    inputs: dict[str, Any] = {"dataset": dataset.folder, "plant": plant}
    result = {"episodes": sum(c["episodes"] for c in dataset.counts.values())}
    result["steps"] = dataset.steps
    if to not in ("minari", "parquet", "csv"):
        raise InputError(f"to: expected minari, parquet or csv, got {to!r}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if is_complete(folder, settings, inputs, kind="conversion"):
            return result
        raise InputError(
            f"{folder} holds something else than this conversion. Choose another --out, or "
            "remove it"
        )
    with atomic_folder(folder) as temporary:
        if to == "minari":
            write_minari(dataset, plant, task, temporary, progress)
        else:
            _write_table(dataset, plant, task, to, temporary, progress)
        write_manifest(temporary, "conversion", inputs, settings, None)
    return result


def _write_table(
    dataset: Dataset, plant: Plant, task: Task, to: str, folder: Path, progress: Progress
) -> None:
    """Write one table, a row a moment, and the mapping file with which it is imported again."""
    arrow, write = extra("pyarrow"), _csv if to == "csv" else _parquet
    tables, first = [], 0
    for done, split in enumerate(SPLITS):
        progress("convert", done, len(SPLITS))
        episodes = dataset.episodes(split)
        if len(episodes.length):
            cells = _rows(episodes, plant, task, first)
            size = len(cells["episode"])
            tables.append(arrow.table({"split": [split] * size, **cells}))
        first += len(episodes.length)
    write(arrow.concat_tables(tables), folder / f"episodes.{to}")
    atomic_write(folder / MAPPING, mapping_text(plant, task))
    progress("convert", len(SPLITS), len(SPLITS))


def _csv(table: Any, path: Path) -> None:
    extra("pyarrow.csv").write_csv(table, path)


def _parquet(table: Any, path: Path) -> None:
    extra("pyarrow.parquet").write_table(table, path)


def _rows(episodes: Episodes, plant: Plant, task: Task, first: int) -> dict[str, Any]:
    """Return the columns of a split: the moments of its episodes below each other."""
    n, moments = episodes.states.time.shape
    kept = np.arange(moments) <= episodes.length[:, None]
    acts = np.arange(moments) < episodes.length[:, None]
    states = episodes.states
    arrays = {"qpos": states.qpos, "qvel": states.qvel, "act": states.act}
    arrays |= {"command": states.command, "design": states.design}
    for name, values in (("action", episodes.actions), ("disturbance", episodes.disturbances)):
        # The last moment of an episode has no period: its cells are empty.
        padded = np.concatenate([values, np.zeros_like(values[:, :1])], axis=1)
        arrays[name] = np.where(acts[..., None], padded, np.nan).astype(np.float32)
    number = np.broadcast_to(first + np.arange(n)[:, None], kept.shape)
    # In float32 a late moment would be off by more than rounding of its period.
    time = states.time[:, :1].astype(float) + np.arange(moments) * plant.control_period
    cells: dict[str, Any] = {"episode": number[kept], "time": time[kept]}
    for name, _, column, at in _columns(plant, task):
        cells[column] = _nullable(arrays[name][..., at][kept])
    if episodes.sensors is not None:
        # Read at the end of a period, which is the next moment: the first one has none.
        later = np.pad(episodes.sensors, ((0, 0), (1, 0), (0, 0)), constant_values=np.nan)
        for i, channel in enumerate(plant.sensor_channels):
            cells[f"sensor.{channel.name}"] = _nullable(later[..., i][kept])
    return cells


def _nullable(values: np.ndarray) -> Any:
    return extra("pyarrow").array(values, mask=np.isnan(values))


def _columns(plant: Plant, task: Task) -> list[tuple[str, str, str, int]]:
    """Return array, channel, column and index of every column of the table."""
    found = []
    for name, named in columns(plant, task).items():
        if name == "start_time":
            continue
        for i, (channel, _) in enumerate(named):
            short = channel.removesuffix(".rate").removesuffix(".activation")
            found.append((name, short, f"{_GROUPS.get(name, name)}.{short}", i))
    return found


def mapping_text(plant: Plant, task: Task) -> str:
    """Return the mapping file of a table that physai writes; to start from for one's own."""
    rotations = {f"{joint}.q{axis}" for joint in turning(plant) for axis in "wxyz"}
    units = {name: [unit for _, unit in named] for name, named in columns(plant, task).items()}
    lines = ["[episode]", 'column = "episode"', "", "[time]", 'column = "time"', 'unit = "s"']
    group = ""
    for name, channel, column, i in _columns(plant, task):
        if name == "qpos" and channel in rotations:
            continue
        if _GROUPS.get(name, name) != group:
            group = _GROUPS.get(name, name)
            lines += ["", f"[{group}]"]
        said = f"column = {json.dumps(column)}, unit = {json.dumps(units[name][i])}"
        lines.append(f"{json.dumps(channel)} = {{ {said} }}")
    if turning(plant):
        lines += ["", "[quaternion]"]
    for joint in turning(plant):
        four = json.dumps([f"position.{joint}.q{axis}" for axis in "wxyz"])
        lines.append(f'{json.dumps(joint)} = {{ columns = {four}, order = "wxyz" }}')
    return "\n".join(lines) + "\n"
