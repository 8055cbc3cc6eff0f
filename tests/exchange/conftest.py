"""Logs are those of a simulated cart-pole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from logs import CARTPOLE, SWINGS, fly, write_csv

from physai.exchange.ingest import Imported, import_logs
from physai.exchange.windows import ImportSettings
from physai.plant import Plant, load_plant
from physai.task import Task, load_task


@pytest.fixture(scope="module")
def plant() -> Plant:
    return load_plant("cartpole")


@pytest.fixture(scope="module")
def task(plant: Plant) -> Task:
    return load_task(plant)


@pytest.fixture(scope="module")
def flown(plant: Plant) -> dict[str, np.ndarray]:
    return fly(plant, SWINGS)


@pytest.fixture
def importing(plant: Plant, task: Task, tmp_path: Path):
    def call(cells: dict[str, np.ndarray], mapping: str = CARTPOLE, **settings) -> Imported:
        (tmp_path / "mapping.toml").write_text(mapping)
        log = write_csv(tmp_path / "log.csv", cells)
        wanted = ImportSettings(**{"symmetry": False, **settings})
        return import_logs(plant, task, [log], tmp_path / "data", tmp_path / "mapping.toml", wanted)

    return call
