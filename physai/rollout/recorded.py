"""Writing episodes that are already there, from a log or another format, as a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from physai.errors import InputError
from physai.plant import Plant
from physai.provenance import (
    Source,
    atomic_folder,
    is_complete,
    remove_stale,
    write_json,
    write_manifest,
)
from physai.provenance.storage import plain
from physai.rollout.dataset import Dataset, open_dataset
from physai.rollout.store import SPLITS, Writer, create_store, describe, hold_ends, nothing_yet
from physai.rollout.symmetry import Symmetry
from physai.task import Task

SHARD = 1024  # episodes that are written together
REPORT = "import.json"


def write_recorded(
    folder: str | Path,
    plant: Plant,
    task: Task,
    splits: Mapping[str, Mapping[str, np.ndarray]],
    inputs: Mapping[str, Source],
    settings: Any,
    seed: int,
    symmetry: Symmetry,
    report: Mapping[str, Any],
) -> Dataset:
    """Write a dataset whole or not at all.

    Args:
        folder: of the dataset; absent, empty, or holding this very dataset.
        plant: the machine.
        task: gives the commands' names.
        splits: of each split the arrays of `physai.rollout.store`, and `length`, `terminated` [n].
        inputs: what the episodes come from, by role, besides the plant.
        settings: what they were made with.
        seed: of the draw of the splits.
        symmetry: what a surrogate of them may rely on.
        report: what was found in the source, written beside the arrays as `import.json`.

    Raises:
        InputError: the folder holds something else, or the disk is full.
    """
    folder = Path(folder)
    inputs = {"plant": plant, **inputs}
    if is_recorded(folder, inputs, settings, seed):
        return open_dataset(folder, plant)
    if folder.parent.is_dir():
        remove_stale(folder.parent)
    steps = splits["train"]["action"].shape[1]
    counts = {split: len(splits[split]["action"]) for split in SPLITS}
    described = describe(plant, task, steps, counts, SHARD, settings, seed, None)
    meta = {**described, **nothing_yet(described), "symmetry": plain(symmetry, "symmetry")}
    with atomic_folder(folder) as temporary:
        create_store(temporary, meta)
        _fill(Writer(temporary, meta), splits)
        write_json(temporary / REPORT, report)
        write_manifest(temporary, "dataset", inputs, settings, seed)
    return open_dataset(folder, plant)


def is_recorded(folder: Path, inputs: Mapping[str, Source], settings: Any, seed: int) -> bool:
    """Tell whether the dataset is already there; False where there is nothing.

    Raises:
        InputError: there is something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if is_complete(folder, settings, inputs, kind="dataset", seed=seed):
        return True
    raise InputError(
        f"{folder} holds something else than the dataset of these logs, mapping and settings. "
        "Choose another --out, or remove it"
    )


def _fill(writer: Writer, splits: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    committed, counts = 0, {}
    for split in SPLITS:
        arrays = dict(splits[split])
        terminated, length = arrays.pop("terminated"), arrays.pop("length").astype(np.int32)
        held = hold_ends(arrays, length)
        for first in range(0, len(length), SHARD):
            rows = slice(first, first + SHARD)
            writer.write(split, first, {name: values[rows] for name, values in held.items()})
            committed += 1
        counts[split] = {
            "episodes": len(length),
            "diverged": 0,
            "terminated": int(terminated.sum()),
            "valid_steps": int(length.sum()),
        }
    writer.commit({"committed": committed, "counts": counts})
