"""How a dataset lies on disk, and the one writer that may change it.

    dataset/zarr.json            attributes: plant, design space, MuJoCo version, settings, counts
    dataset/train/qpos           [episode, moment, qpos]   float32, likewise qvel, act
    dataset/train/action         [episode, period, action] float32, likewise disturbance
    dataset/train/sensor         [episode, period, sensor] float32, at its end; may be absent
    dataset/train/command        [episode, command]        float32, likewise design, start_time
    dataset/train/length         [episode]                 int32, periods before the episode ended
    dataset/calibration, test    the same
    dataset/diverged             the same, for the episodes that the splits are without
    dataset/manifest.json        the hash of every file; a dataset without it is unfinished

Every array names its columns and their units. An episode keeps its row, so a shard of the store is
written once, by one writer, whatever happens in it. A row without data is NaN: in a split where the
episode diverged, in `diverged` where it did not.

Only what `committed` counts is data. It is raised by an atomic change of zarr.json after a shard's
files are on the disk; what a killed run wrote beyond it is removed when the next run begins.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import mujoco
import numpy as np
import zarr
from zarr.codecs import BloscCodec

from physai.errors import InputError
from physai.plant import Plant
from physai.provenance import atomic_folder, read_json, write_json, writing
from physai.provenance.storage import plain
from physai.task import Task

Split = Literal["train", "calibration", "test"]
SPLITS: tuple[Split, ...] = ("train", "calibration", "test")
FORMAT = "physai.dataset/2"
MOMENTS = ("qpos", "qvel", "act")
PERIODS = ("action", "disturbance")
ALONG = (*PERIODS, "sensor")  # sensors are read at the end of a period
CONSTANTS = ("command", "design", "start_time")
_CHUNK = 128  # episodes; zarr spends 0.5 ms on each chunk, whatever its size


def read_meta(folder: Path) -> dict[str, Any]:
    """Return the attributes of a dataset, finished or not."""
    if not (folder / "zarr.json").is_file():
        raise InputError(
            f"{folder}: expected a dataset with a zarr.json, found none; choose another folder"
        )
    document = read_json(folder / "zarr.json")
    meta = document.get("attributes", {}) if isinstance(document, dict) else {}
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise InputError(f"{folder}: expected a dataset of format {FORMAT}, got another zarr store")
    return meta


def design_space(plant: Plant) -> list[dict[str, Any]]:
    """Return names, units and bounds of the design variables, as the dataset records them."""
    return [
        {"name": v.name, "unit": v.unit, "low": v.low, "high": v.high, "nominal": v.nominal}
        for v in plant.design
    ]


def columns(plant: Plant, task: Task) -> dict[str, list[tuple[str, str]]]:
    """Return name and unit of every column of every array."""
    nv = plant.model.nv
    quaternion = [(f"q{a}", "1") for a in "wxyz"]
    widths = {
        "free": [(a, "m") for a in "xyz"] + quaternion,
        "ball": quaternion,
        "slide": [("", "m")],
        "hinge": [("", "rad")],
    }
    channels = [(c.name, c.unit) for c in plant.state_channels]
    return {
        "qpos": [
            (f"{joint.name}.{axis}" if axis else joint.name, unit)
            for joint in plant.joints
            for axis, unit in widths[joint.kind]
        ],
        "qvel": channels[nv : 2 * nv],
        "act": channels[2 * nv :],
        "action": [(c.name, c.unit) for c in plant.actions],
        "disturbance": [(c.name, c.unit) for c in plant.disturbances],
        "command": [(c.name, c.unit) for c in task.commands],
        "design": [(v.name, v.unit) for v in plant.design],
        "start_time": [("time", "s")],
    }


def describe(
    plant: Plant,
    task: Task,
    steps: int,
    splits: Mapping[str, int],
    shard_episodes: int,
    settings: Any,
    seed: int,
    controller: str | None,
    sensed: bool = False,
) -> dict[str, Any]:
    """Return the attributes that a dataset has from the start.

    Args:
        plant: the machine.
        task: gives the commands' names.
        steps: control periods of an episode.
        splits: episodes of each split.
        shard_episodes: episodes that are written together.
        settings: what the episodes are made with.
        seed: of every draw.
        controller: hash of what flew, if anything did.
        sensed: the plant's sensors are recorded too, if it has any.
    """
    named = columns(plant, task)
    if sensed and plant.sensors:
        named["sensor"] = [(c.name, c.unit) for c in plant.sensor_channels]
    description = {
        "format": FORMAT,
        "plant": {"name": plant.name, "sha256": plant.sha256},
        "mujoco": mujoco.__version__,
        "control_period": plant.control_period,
        "steps": steps,
        "design": design_space(plant),
        "columns": named,
        "settings": settings,
        "seed": seed,
        "controller": controller,
        "splits": splits,
        "shard_episodes": shard_episodes,
        "shards": sum(-(-n // shard_episodes) for n in splits.values()),
    }
    return plain(description, "dataset")


def nothing_yet(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that say how far collection has come, of an empty dataset."""
    zero = {"episodes": 0, "diverged": 0, "terminated": 0, "valid_steps": 0}
    return {
        "committed": 0,
        "counts": {split: dict(zero) for split in meta["splits"]},
        "diverged_rows": [],
    }


def hold_ends(arrays: Mapping[str, np.ndarray], length: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays with the last state held, and all else 0, behind `length`."""
    held = {**arrays, "length": length}
    steps = held["action"].shape[1]
    rows = np.flatnonzero(length < steps)
    for name in (name for name in (*ALONG, *MOMENTS) if name in held):
        values = held[name] = held[name].copy()
        for row, end in zip(rows, length[rows], strict=True):
            values[row, end:] = 0.0 if name in ALONG else values[row, end]
    return held


def first_slots(meta: Mapping[str, Any]) -> dict[str, int]:
    """Return the row in `diverged` of each split's first episode; splits start with a new shard."""
    size, first, rows = meta["shard_episodes"], 0, {}
    for split in SPLITS:
        rows[split] = first
        first += -(-meta["splits"][split] // size) * size
    return rows


def slots(meta: Mapping[str, Any]) -> int:
    """Return the number of rows of `diverged`."""
    return meta["shards"] * meta["shard_episodes"]


def shapes(meta: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of one episode in every array."""
    steps, width = meta["steps"], {name: len(c) for name, c in meta["columns"].items()}
    return {
        **{name: (steps + 1, width[name]) for name in MOMENTS},
        **{name: (steps, width[name]) for name in ALONG if name in width},
        "command": (width["command"],),
        "design": (width["design"],),
        "start_time": (),
        "length": (),
    }


def create_store(folder: Path, meta: dict[str, Any]) -> None:
    """Create the empty store whole or not at all; arrays without columns are left out."""
    compressor = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=4)
    shard = meta["shard_episodes"]
    # Small arrays are one chunk a shard.
    chunk = _CHUNK if shard % _CHUNK == 0 else shard
    with atomic_folder(folder) as temporary:
        root = zarr.create_group(temporary, zarr_format=3, attributes=meta)
        for name, rows in {**meta["splits"], "diverged": slots(meta)}.items():
            group = root.create_group(name)
            for array, shape in shapes(meta).items():
                if 0 in shape:
                    continue
                named = meta["columns"].get(array, [("length", "control periods")])
                large = len(shape) == 2
                group.create_array(
                    array,
                    shape=(rows, *shape),
                    chunks=(chunk if large else shard, *shape),
                    shards=(shard, *shape) if large else None,
                    dtype="int32" if array == "length" else "float32",
                    compressors=compressor,
                    fill_value=0 if array == "length" else float("nan"),
                    dimension_names=_dimensions(array, shape),
                    attributes={"columns": [n for n, _ in named], "units": [u for _, u in named]},
                )


def _dimensions(array: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    names = ("period" if array in ALONG else "moment", array)
    return ("episode", *names[2 - len(shape) :])


class Writer:
    """Writes shards into an unfinished store. Use only one at a time.

    Args:
        folder: the store.
        meta: its attributes; `commit` keeps them up to date.
    """

    def __init__(self, folder: Path, meta: dict[str, Any]) -> None:
        self.folder, self.meta = folder, meta
        self._arrays: dict[str, Any] = {}

    def write(self, group: str, first: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the rows from `first` of a group: a whole shard, or the last of a split."""
        with writing(self.folder):
            for name, values in arrays.items():
                if 0 in values.shape[1:]:
                    continue
                path = f"{group}/{name}"
                if path not in self._arrays:
                    self._arrays[path] = zarr.open_array(self.folder / path, mode="r+")
                self._arrays[path][first : first + len(values)] = values
                index = [first // self.meta["shard_episodes"], *[0] * (values.ndim - 1)]
                _sync(self.folder.joinpath(group, name, "c", *map(str, index)))

    def commit(self, changes: Mapping[str, Any]) -> None:
        """Make what was written count: one atomic change of the attributes."""
        self.meta.update(changes)
        document = read_json(self.folder / "zarr.json")
        write_json(self.folder / "zarr.json", {**document, "attributes": self.meta})


def _sync(path: Path) -> None:
    # zarr writes no file for a chunk that holds nothing but the fill value.
    if path.is_file():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def discard_uncommitted(folder: Path, meta: Mapping[str, Any]) -> None:
    """Remove what a killed run wrote and did not commit."""
    size = meta["shard_episodes"]
    first = {**first_slots(meta), "diverged": 0}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        parts = path.relative_to(folder).as_posix().split("/")
        if path.name == "zarr.json" and len(parts) <= 3:
            continue
        # group/array/c/<shard>/..., and zarr writes under a name with a suffix before it renames
        shard = parts[3] if len(parts) > 3 and not path.suffix else ""
        if shard.isdigit() and first[parts[0]] // size + int(shard) < meta["committed"]:
            continue
        path.unlink()


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder against a second process that collects into it; a killed one lets go.

    Raises:
        InputError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{folder}: another process is collecting into it; "
                "wait for it or choose another --out"
            ) from error
        yield
    finally:
        os.close(descriptor)
