"""Logs of machines that tests simulate, as an engineer would have recorded them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from physai.plant import Plant
from physai.rollout.dataset import Dataset, Episodes
from physai.rollout.engine import TruePlant
from physai.rollout.excitation import clip_actions, coloured_noise
from physai.state import State

CARTPOLE = """
[time]
column = "t"
unit = "ms"

[position]
slider = { column = "x", unit = "mm" }
hinge = { column = "theta", unit = "deg", scale = -1, offset = 90 }

[velocity]
slider = { column = "v", unit = "m/s" }
hinge = { column = "omega", unit = "rpm", scale = -1 }

[action]
push = { column = "u", unit = "%" }
"""
BARE = re.sub(r"\[velocity\].*?\n\n", "", CARTPOLE, flags=re.S)
SWINGS = 1500  # control periods
ONE = {"duration": SWINGS * 0.01, "calibration": 0.0, "test": 0.0}


def fly(plant: Plant, periods: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return qpos, qvel, act `[n+1, ...]` and action `[n, nu]` of a machine that is shaken."""
    rng = np.random.default_rng(seed)
    span = np.array([a.high - a.low for a in plant.actions])
    noise = coloured_noise(rng, (periods, plant.nu), 10.0) * 0.2 * span
    actions = clip_actions(plant, plant.trim + noise)
    simulator, empty = TruePlant(plant, 1), np.zeros((1, 0))
    model = plant.model
    state = State(
        model.qpos0[None].copy(),
        np.zeros((1, model.nv)),
        np.zeros((1, model.na)),
        time=np.zeros(1),
        command=empty,
        design=plant.nominal[None],
    )
    states = [state]
    for action in actions:
        state = simulator.step(state, action[None])
        states.append(state)
    assert simulator.valid.all()
    found = {name: np.stack([getattr(s, name)[0] for s in states]) for name in ("qpos", "qvel")}
    return {**found, "act": np.stack([s.act[0] for s in states]), "action": actions}


def cartpole_cells(flown: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns of a cart-pole's log in the units that `CARTPOLE` declares."""
    last = np.full((1,), np.nan)
    return {
        "t": 10.0 * np.arange(len(flown["qpos"])) + 5000.0,
        "x": 1000.0 * flown["qpos"][:, 0],
        "theta": 90.0 - np.degrees(flown["qpos"][:, 1]),
        "v": flown["qvel"][:, 0],
        "omega": -flown["qvel"][:, 1] * 60.0 / (2.0 * np.pi),
        "u": 100.0 * np.concatenate([flown["action"][:, 0], last]),
    }


def write_csv(path: Path, cells: dict[str, np.ndarray]) -> Path:
    """Write columns; a NaN is an empty cell."""
    rows = zip(*cells.values(), strict=True)
    lines = [",".join(cells)]
    lines += [",".join("" if np.isnan(x) else repr(float(x)) for x in row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def whole(dataset: Dataset) -> Episodes:
    """The only episode of a dataset that a whole log went into."""
    return dataset.episodes("train")
