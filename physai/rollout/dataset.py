"""Reading a dataset of episodes; how it lies on disk is told in physai.rollout.store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import mujoco
import numpy as np
import zarr

from physai.errors import InputError
from physai.plant import Plant
from physai.provenance import read_manifest
from physai.provenance.manifest import differences
from physai.rollout.images import Image
from physai.rollout.store import (
    SPLITS,
    Split,
    design_space,
    first_slots,
    read_meta,
    shapes,
    slots,
)
from physai.rollout.symmetry import Symmetry
from physai.state import State


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Episodes:
    """Recorded episodes, numpy float32.

    Attributes:
        states: State `[n, T+1, ...]`.
        actions: `[n, T, nu]`, as applied, in the channels' units.
        disturbances: `[n, T, nw]`.
        length: control periods before the episode terminated or diverged `[n]` int32, at most T.
            What lies behind is no data: the last state is held, all else is 0.
        sensors: what the sensors read at the end of each control period, its action and disturbance
            still applied `[n, T, ns]`, in the channels' units (None: not recorded).
    """

    states: State
    actions: np.ndarray
    disturbances: np.ndarray
    length: np.ndarray
    sensors: np.ndarray | None = None


@dataclass(frozen=True)
class Dataset:
    """A finished dataset on disk.

    Attributes:
        folder: where it is.
        meta: what `zarr.json` says of it: plant, design space, settings, seed, counts and more.
    """

    folder: Path
    meta: dict[str, Any]

    @property
    def periods(self) -> int:
        """Control periods of an episode, T."""
        return self.meta["steps"]

    @property
    def steps(self) -> int:
        """Control periods of valid data in all splits together."""
        return sum(count["valid_steps"] for count in self.counts.values())

    @property
    def diverged(self) -> int:
        """Number of episodes that diverged; they are in no split."""
        return len(self.meta["diverged_rows"])

    @property
    def sensed(self) -> bool:
        """Whether the plant's sensors are recorded."""
        return "sensor" in self.meta["columns"]

    @property
    def symmetry(self) -> Symmetry:
        """Which symmetries the plant was found to have."""
        stored = self.meta["symmetry"]
        found = {key: tuple(stored[key]) for key in ("joints", "turns")}
        images = stored.get("images", ())  # there are none in data of before they were looked for
        return Symmetry(**{**stored, **found, "images": tuple(map(Image.of, images))})

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Of each split: episodes, terminated, diverged, and valid control periods."""
        return self.meta["counts"]

    def episodes(self, split: Split) -> Episodes:
        """Load the episodes of a split that did not diverge.

        Raises:
            InputError: no such split, or a number in it is not finite.
        """
        if split not in SPLITS:
            raise InputError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
        first = first_slots(self.meta)[split]
        rows = np.arange(self.meta["splits"][split])
        return self._load(split, rows[~np.isin(rows + first, self.meta["diverged_rows"])])

    def diverged_episodes(self) -> Episodes:
        """Load the episodes that diverged; `length` is the number of control periods before."""
        return self._load("diverged", np.array(self.meta["diverged_rows"], int))

    def _load(self, group: str, rows: np.ndarray) -> Episodes:
        arrays = {}
        stored = zarr.open_group(self.folder, mode="r")[group]
        assert isinstance(stored, zarr.Group)
        for name, shape in shapes(self.meta).items():
            values = np.empty((len(rows), *shape), np.float32)
            if name in stored and len(rows):
                values = np.asarray(stored[name][:])[rows]  # type: ignore[index]
            if not np.isfinite(values).all():
                row = int(rows[np.argwhere(~np.isfinite(values))[0][0]])
                raise InputError(
                    f"{self.folder}: {group}/{name}: expected finite numbers, got NaN or infinity "
                    f"in episode {row}; collect this dataset again"
                )
            arrays[name] = values
        moments = (len(rows), self.periods + 1)
        for name in ("command", "design"):
            constant = arrays[name][:, None]
            arrays[name] = np.broadcast_to(constant, (*moments, constant.shape[-1]))
        length = arrays["length"].astype(np.int32)
        passed = np.minimum(np.arange(self.periods + 1), length[:, None])
        time = arrays["start_time"][:, None] + passed * self.meta["control_period"]
        return Episodes(
            State(
                qpos=arrays["qpos"],
                qvel=arrays["qvel"],
                act=arrays["act"],
                time=time.astype(np.float32),
                command=arrays["command"],
                design=arrays["design"],
            ),
            arrays["action"],
            arrays["disturbance"],
            length,
            arrays.get("sensor"),
        )


def open_dataset(folder: str | Path, plant: Plant | None = None) -> Dataset:
    """Open a finished dataset after checking every file of it.

    Args:
        folder: the dataset.
        plant: the plant it must be of (None: any).

    Raises:
        InputError: unfinished, damaged, of another MuJoCo version, or not of this plant or design
            space; the message says what was expected and what was found.
    """
    folder = Path(folder)
    meta = read_meta(folder)
    if not (folder / "manifest.json").is_file():
        raise InputError(
            f"{folder}: unfinished, {meta['committed']} of {meta['shards']} shards are there; "
            "collect it with the same settings to finish it"
        )
    if damage := differences(folder, read_manifest(folder)):
        raise InputError(f"{folder}: {damage}; remove this dataset and collect it again")
    found = [_mismatch("MuJoCo", meta["mujoco"], mujoco.__version__)]
    if plant is not None:
        found.append(_mismatch("plant files", meta["plant"]["sha256"], plant.sha256))
        found.append(_mismatch("design space", meta["design"], design_space(plant)))
        found.append(_mismatch("control period", meta["control_period"], plant.control_period))
        model = plant.model
        sizes = {"qpos": model.nq, "qvel": model.nv, "act": model.na, "action": plant.nu}
        for name, size in {**sizes, "disturbance": plant.nw}.items():
            found.append(_mismatch(f"size of {name}", len(meta["columns"][name]), size))
        if (sensors := meta["columns"].get("sensor")) is not None:
            named = [[c.name, c.unit] for c in plant.sensor_channels]
            found.append(_mismatch("sensors", sensors, named))
    if problems := "; ".join(filter(None, found)):
        raise InputError(
            f"{folder}: collected on something else: {problems}. "
            "Collect a dataset of this plant, or use the plant and MuJoCo it was made with"
        )
    _check_arrays(folder, meta)
    return Dataset(folder, meta)


def _mismatch(what: str, recorded: Any, now: Any) -> str:
    if recorded == now:
        return ""
    short = [x[:12] if isinstance(x, str) and len(x) == 64 else x for x in (recorded, now)]
    return f"{what}: the dataset has {short[0]}, expected {short[1]}"


def _check_arrays(folder: Path, meta: dict[str, Any]) -> None:
    root = zarr.open_group(folder, mode="r")
    for group, rows in {**meta["splits"], "diverged": slots(meta)}.items():
        for name, shape in shapes(meta).items():
            expected = (rows, *shape)
            if 0 in shape:
                continue
            path = f"{group}/{name}"
            array = root.get(path)
            got = getattr(array, "shape", None)
            if got != expected:
                raise InputError(f"{folder}: {path}: expected shape {expected}, got {got}")
            dtype = np.dtype(np.int32 if name == "length" else np.float32)
            if (kind := getattr(array, "dtype", None)) != dtype:
                raise InputError(f"{folder}: {path}: expected {dtype}, got {kind}")
