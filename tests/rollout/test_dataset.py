"""Datasets are read with suspicion."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import mujoco
import numpy as np
import pytest
import zarr
from rails import (
    SMALL,
    Machine,
    cart,
)

from physai.errors import InputError
from physai.provenance import write_manifest
from physai.rollout.collect import collect
from physai.rollout.dataset import open_dataset


@pytest.fixture
def copy(small, tmp_path) -> tuple[Machine, Path]:
    machine, _ = small
    collect(*machine, tmp_path / "dataset", SMALL, 3)
    return machine, tmp_path / "dataset"


def reseal(machine: Machine, folder: Path) -> None:
    """Write a new manifest, as a tool would that made such a dataset."""
    (folder / "manifest.json").unlink()
    write_manifest(folder, "dataset", {"plant": machine.plant}, SMALL, 3)


def edit(folder: Path, **changes: object) -> None:
    document = json.loads((folder / "zarr.json").read_text())
    document["attributes"].update(changes)
    (folder / "zarr.json").write_text(json.dumps(document))


def test_a_truncated_chunk_is_found(copy):
    (plant, _), folder = copy
    chunk = folder / "train" / "qpos" / "c" / "1" / "0" / "0"
    os.truncate(chunk, chunk.stat().st_size // 2)
    with pytest.raises(InputError, match="train/qpos/c/1/0/0 changed"):
        open_dataset(folder, plant)


def test_a_missing_chunk_is_found(copy):
    """zarr itself would read it as fill values, without a word."""
    (plant, _), folder = copy
    (folder / "calibration" / "action" / "c" / "0" / "0" / "0").unlink()
    with pytest.raises(InputError, match="calibration/action/c/0/0/0 missing"):
        open_dataset(folder, plant)


def test_edited_attributes_are_found(copy):
    (plant, _), folder = copy
    edit(folder, seed=99)
    with pytest.raises(InputError, match=r"zarr.json changed"):
        open_dataset(folder, plant)


def test_nan_in_a_dataset_is_found(copy):
    machine, folder = copy
    array = zarr.open_group(folder, mode="r+")["train/qvel"]
    array[7, 2, 0] = np.nan
    reseal(machine, folder)
    dataset = open_dataset(folder, machine.plant)
    with pytest.raises(InputError, match=r"train/qvel: expected finite numbers.*episode 7"):
        dataset.episodes("train")
    assert len(dataset.episodes("test").length) == 8


def test_a_wrong_shape_in_a_dataset_is_found(copy):
    machine, folder = copy
    zarr.open_group(folder, mode="r+")["train/qpos"].resize((40, 5, 1))
    reseal(machine, folder)
    expected = r"train/qpos: expected shape \(40, 11, 1\), got \(40, 5, 1\)"
    with pytest.raises(InputError, match=expected):
        open_dataset(folder, machine.plant)


def test_a_missing_array_is_found(copy):
    machine, folder = copy
    (folder / "test" / "length" / "zarr.json").unlink()
    reseal(machine, folder)
    with pytest.raises(InputError, match=r"test/length: expected shape \(8,\), got None"):
        open_dataset(folder, machine.plant)


def test_a_dataset_of_another_plant_is_refused(small, tmp_path):
    (plant, _), folder = small
    other = cart(tmp_path / "cart", spring=6.0).plant
    expected = f"plant files: the dataset has {plant.sha256[:12]}, expected {other.sha256[:12]}"
    with pytest.raises(InputError, match=expected):
        open_dataset(folder, other)


def test_a_dataset_of_another_design_space_is_refused(small):
    (plant, _), folder = small
    wider = dataclasses.replace(plant, design=(dataclasses.replace(plant.design[0], high=3.0),))
    with pytest.raises(InputError, match=r"design space: the dataset has .*2.0.*expected .*3.0"):
        open_dataset(folder, wider)


def test_a_dataset_of_another_mujoco_is_refused(copy):
    machine, folder = copy
    edit(folder, mujoco="3.9.0")
    reseal(machine, folder)
    expected = f"MuJoCo: the dataset has 3.9.0, expected {mujoco.__version__}"
    with pytest.raises(InputError, match=expected):
        open_dataset(folder)


def test_what_is_no_dataset_is_refused(small, tmp_path):
    (plant, _), folder = small
    with pytest.raises(InputError, match=r"expected a dataset with a zarr.json"):
        open_dataset(tmp_path)
    zarr.create_group(tmp_path / "other")
    with pytest.raises(InputError, match="another zarr store"):
        open_dataset(tmp_path / "other")
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(InputError, match="expected JSON"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match="expected one of train, calibration, test, got 'dev'"):
        open_dataset(folder, plant).episodes("dev")  # type: ignore[arg-type]
