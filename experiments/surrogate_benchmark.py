"""How far off are learned models of a machine after 1 to 50 control periods?

Every competitor gets the same 100,000 control steps to train on, the same 20,000 to validate or
calibrate on, the same cores, and the same training time on the wall, compilation included: 60 s and
600 s. Then it flies the same windows of held-out episodes open loop, and of a second set that was
shaken twice as hard as the training data. The error is physai's normalised error (`physai score`).

    physai           `fit` with its defaults; only the number of optimiser steps follows the budget
    mbrl             mbrl-lib's probabilistic ensemble (experiments/peers/mbrl_ensemble.py)
    recurrent        a GRU trained on its own forecasts (experiments/peers/recurrent.py)
    ridge            linear regression on physai's inputs (no budget)
    persistence      nothing changes (no budget)

    python experiments/surrogate_benchmark.py --budgets 60 --seeds 0 --mbrl ../mbrl/bin/python
    python experiments/surrogate_benchmark.py --smoke            # a minute, and no file

A row a competitor, plant, budget and seed; what has a row is not done again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np
import table
import tyro

from physai.plant import Plant, load_plant
from physai.progress import silent
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.dataset import Dataset, Episodes, open_dataset
from physai.rollout.excitation import Excitation
from physai.state import State, difference
from physai.surrogate.baseline import linear_surrogate
from physai.surrogate.calibration import windows
from physai.surrogate.features import layout_of
from physai.surrogate.fit import FitSettings, fit_ensemble
from physai.surrogate.model import Surrogate
from physai.surrogate.pace import STRAYED
from physai.surrogate.prior import prior
from physai.surrogate.score import score
from physai.surrogate.spread import channel_spread, persistence, rms
from physai.surrogate.train import CHUNK
from physai.task import load_task

SMOOTH = ("quadrotor", "rocket", "satellite", "arm", "flexwing", "halfcar", "wafer_stage")
CONTACT = ("hopper", "walker2d", "halfcheetah", "ant", "humanoid")
PLANTS = (*SMOOTH, "cartpole", *CONTACT)
TIMED = ("physai", "mbrl", "recurrent")
HORIZONS = (1, 2, 5, 10, 20, 50)
COVERED = (1, 10, 50)
STEPS = {"train": 100_000, "calibration": 20_000}
PEERS = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Settings:
    """What to compare."""

    plants: tuple[str, ...] = PLANTS
    """Names of shipped plants."""
    competitors: tuple[str, ...] = ("persistence", "ridge", *TIMED)
    """Who takes part."""
    budgets: tuple[float, ...] = (60.0, 600.0)
    """Seconds of training on the wall."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of data, weights and batches."""
    mbrl: Path = Path("../mbrl/bin/python")
    """The Python of the venv with mbrl."""
    data: Path = Path("runs/surrogate_benchmark")
    """Where the datasets are kept."""
    out: Path = Path(__file__).parent / "results" / "surrogate_benchmark.csv"
    """The table."""
    smoke: bool = False
    """One plant, 5 s, no file."""
    job: Path | None = None
    """Train physai's surrogate on this job, and nothing else."""


def main(settings: Settings) -> None:
    """Compare, and write a row a competitor."""
    if settings.job is not None:
        return train(settings.job)
    if settings.smoke:
        data = settings.data / "smoke"
        settings = replace(settings, plants=("quadrotor",), seeds=(0,), budgets=(5.0,), data=data)
    rows = [] if settings.smoke else table.read(settings.out)
    done = {(r["plant"], r["competitor"], float(r["budget"] or 0), int(r["seed"])) for r in rows}
    for budget, seed, name in product(settings.budgets, settings.seeds, settings.plants):
        wanted = [
            (c, budget if c in TIMED else 0.0)
            for c in settings.competitors
            if (name, c, budget if c in TIMED else 0.0, seed) not in done
        ]
        if not wanted:
            continue
        sets = Sets(settings, load_plant(name), seed)
        for competitor, given in wanted:
            done.add((name, competitor, given, seed))
            rows.append(compete(settings, sets, competitor, given))
            print({k: v for k, v in rows[-1].items() if k in SHOWN}, flush=True)
            if not settings.smoke:
                table.write(settings.out, rows)


SHOWN = ("plant", "competitor", "budget", "seed", "seconds", "nrmse_1", "nrmse_50", "beyond_50")


class Sets:
    """The episodes of a plant and seed: to train and validate on, held out, and beyond the range.

    Attributes:
        plant: the plant.
        seed: of the episodes.
        training, validation: episodes, cut to exactly the control steps that are given.
        test, beyond: windows of episodes: states `[H+1, n]`, actions and disturbances `[H, n]`.
        folders: of the dataset of the first three, and of the last.
    """

    def __init__(self, settings: Settings, plant: Plant, seed: int, designs: int = 1024) -> None:
        self.plant, self.seed = plant, seed
        few = 50 if settings.smoke else 1
        data = self._collect(
            settings, f"data{designs}", RolloutSettings(designs_per_shard=designs), few
        )
        shaken = Excitation()
        harder = replace(
            shaken,
            offset=2.0 * shaken.offset,
            scale=(2.0 * shaken.scale[0], 2.0 * shaken.scale[1]),
            disturbance=2.0 * shaken.disturbance,
        )
        only = RolloutSettings(train=1, calibration=0, excitation=harder)
        beyond = self._collect(settings, "beyond", only, few)
        self.folders = {"dataset": str(data.folder), "beyond": str(beyond.folder)}
        self.layout = layout_of(plant, data.symmetry)
        self.training, self.validation = cut(data, few)
        self.test, self.beyond = (
            windows(d.episodes("test"), max(HORIZONS), 5) for d in (data, beyond)
        )

    def _collect(self, settings: Settings, name: str, wanted: RolloutSettings, few: int) -> Dataset:
        """Collect enough: episodes that end early give less."""
        task, times = load_task(self.plant), 1
        while True:
            more = replace(
                wanted,
                train=max(1, wanted.train * times // few),
                calibration=wanted.calibration * times // few,
                test=wanted.test * times // few,
            )
            folder = settings.data / f"{self.plant.name}_{name}_{self.seed}_{times}"
            found = collect(self.plant, task, folder, more, self.seed)
            enough = all(
                found.counts[split]["valid_steps"] >= STEPS[split] // few
                for split in STEPS
                if getattr(wanted, split) > 1
            )
            if (
                enough
                and len(windows(found.episodes("test"), max(HORIZONS), 5)[1][0]) >= 256 // few
            ):
                return found
            shutil.rmtree(folder)
            times *= 2


def cut(data: Dataset, few: int) -> tuple[Episodes, Episodes]:
    """Return episodes to train and to calibrate on, of exactly as many control steps as given."""
    found = []
    for split, steps in STEPS.items():
        episodes = data.episodes(split)  # type: ignore[arg-type]
        ends = np.cumsum(episodes.length)
        count = int(np.searchsorted(ends, steps // few)) + 1
        part = jax.tree.map(lambda x, n=count: x[:n], episodes)
        length = part.length.copy()
        length[-1] -= ends[count - 1] - steps // few
        found.append(replace(part, length=length))
    return found[0], found[1]


def compete(settings: Settings, sets: Sets, competitor: str, budget: float) -> dict[str, Any]:
    """Let a competitor train and fly; return its row."""
    joints = sets.plant.joints
    record: dict[str, Any] = {}
    if competitor in TIMED:
        flights, record = _timed(settings, sets, competitor, budget)
    elif competitor == "ridge":
        layout, known, _ = prior(sets.plant, sets.layout, sets.training, equations=False)
        linear = linear_surrogate(layout, known, sets.training)
        flights = {"test": fly(linear, sets.test), "beyond": fly(linear, sets.beyond)}
    errors: dict[str, float] = {}
    for name, prefix in (("test", "nrmse"), ("beyond", "beyond")):
        true = getattr(sets, name)[0]
        scale = channel_spread(joints, true)
        if competitor == "persistence":
            rmse = persistence(joints, true)
        else:
            error = np.asarray(difference(joints, flights[name], true[1:]))
            most = STRAYED * scale[:, None]
            error = np.clip(np.where(np.isfinite(error), error, most), -most, most)
            rmse = np.sqrt(np.mean(np.square(error), axis=1))
        errors |= {f"{prefix}_{h}": rms(rmse[h - 1] / scale[h - 1]) for h in HORIZONS}
    return {
        **table.here(),
        "versions": record.get("versions", ""),
        **{"plant": sets.plant.name, "competitor": competitor, "budget": budget or ""},
        **{"seed": sets.seed, "seconds": _rounded(record.get("seconds"))},
        **{"steps": record.get("steps", ""), **errors},
        **{f"coverage_{h}": record.get("coverage", {}).get(str(h), "") for h in COVERED},
        "steps_per_second": _rounded(record.get("speed"), 0),
    }


def _rounded(value: float | None, digits: int = 1) -> Any:
    return "" if value is None else round(value, digits or None)


def _timed(
    settings: Settings, sets: Sets, competitor: str, budget: float
) -> tuple[dict[str, State], dict[str, Any]]:
    """Run a competitor in a process of its own; return its flights and what it says of itself."""
    folder = settings.data / "job"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_job(folder, sets, budget, 50 if settings.smoke else 1)
    python, here = sys.executable, str(Path(__file__))
    command = {
        "physai": [python, here, "--job", str(folder)],
        "mbrl": [str(settings.mbrl), str(PEERS / "mbrl_ensemble.py"), str(folder)],
        "recurrent": [python, str(PEERS / "recurrent.py"), str(folder)],
    }[competitor]
    subprocess.run(command, check=True)
    flown, record = np.load(folder / "flight.npz"), json.loads((folder / "record.json").read_text())
    layout = sets.layout
    flights = {}
    for name in ("test", "beyond"):
        states = getattr(sets, name)[0][1:]
        parts = np.split(flown[name], [layout.nq, layout.nq + layout.nv], axis=-1)
        flights[name] = states.replace(**dict(zip(("qpos", "qvel", "act"), parts, strict=True)))
    return flights, record


def write_job(folder: Path, sets: Sets, budget: float, few: int) -> None:
    """Write what every competitor gets: state vectors, and what drives them."""
    arrays: dict[str, np.ndarray] = {}
    for name, episodes in (("train", sets.training), ("validation", sets.validation)):
        states, inputs = vectors(episodes.states), driven(episodes)
        valid = np.arange(inputs.shape[1]) < episodes.length[:, None]
        arrays |= {f"{name}_before": states[:, :-1][valid], f"{name}_after": states[:, 1:][valid]}
        arrays[f"{name}_inputs"] = inputs[valid]
        if name == "train":
            arrays |= {"episodes_states": states, "episodes_inputs": inputs}
            arrays["episodes_length"] = episodes.length
    for name in ("test", "beyond"):
        states, actions, disturbances = getattr(sets, name)
        arrays[f"{name}_start"] = vectors(states[0])
        arrays[f"{name}_inputs"] = np.concatenate([actions, disturbances, states.design[1:]], -1)
    np.savez(folder / "data.npz", allow_pickle=False, **arrays)
    job = {"plant": sets.plant.name, "budget": budget, "few": few, **sets.folders}
    (folder / "job.json").write_text(json.dumps({**job, "seed": sets.seed, **view(sets)}))


def vectors(states: State) -> np.ndarray:
    """Return states as vectors `[..., nq + nv + na]`."""
    return np.concatenate([states.qpos, states.qvel, states.act], -1).astype(np.float32)


def driven(episodes: Episodes) -> np.ndarray:
    """Return all that drives a machine: action, disturbance and design `[n, T, ni]`."""
    design = episodes.states.design[:, 1:]
    return np.concatenate([episodes.actions, episodes.disturbances, design], -1).astype(np.float32)


def view(sets: Sets) -> dict[str, list[int]]:
    """Return which entries of a state vector a competitor sees, and as what."""
    layout, model = sets.layout, sets.plant.model
    gone, angles, quaternions = set(layout.idle), [], []
    for number, joint in enumerate(layout.joints):
        i = joint.qpos_index
        if joint.kind == "free":
            gone |= {i + k for k, axis in enumerate("xyz") if axis not in layout.position_axes}
        if joint.kind in ("free", "ball"):
            quaternions.append(i + (3 if joint.kind == "free" else 0))
        if joint.kind == "hinge" and not model.jnt_limited[number] and i not in gone:
            angles.append(i)
    kept = [i for i in range(layout.nq + layout.nv + layout.na) if i not in {*gone, *angles}]
    return {"kept": kept, "angles": angles, "quaternions": quaternions}


@jax.jit
def fly(surrogate: Surrogate, set_: tuple[State, np.ndarray, np.ndarray]) -> State:
    """Return the flight `[H, n]` of the mean model over windows."""
    states, *driving = set_
    given: Any = tuple(driving)

    def period(state: State, now: tuple[jax.Array, jax.Array]) -> tuple[State, State]:
        state = surrogate.step(state, *now)
        return state, state

    return jax.lax.scan(period, states[0], given)[1]


def train(folder: Path) -> None:
    """Train physai's surrogate on a job within its budget, fly, and write what came out."""
    job = json.loads((folder / "job.json").read_text())
    plant = load_plant(job["plant"])
    data = open_dataset(job["dataset"], plant)
    layout = layout_of(plant, data.symmetry)
    training, calibration = cut(data, job["few"])
    settings = FitSettings(**job.get("settings", {}))
    fitting = partial(fit_all, plant, layout, training, calibration, seed=job["seed"])
    planned = plan(fitting, settings, job["budget"])
    begun = time.monotonic()
    surrogate = fitting(planned)
    seconds = time.monotonic() - begun
    card = score(surrogate, plant, data.episodes("test"))
    flights, speed = {}, 0.0
    for name, source in (("test", data), ("beyond", open_dataset(job["beyond"], plant))):
        set_ = windows(source.episodes("test"), max(HORIZONS), 5)
        jax.block_until_ready(fly(surrogate, set_))
        begun = time.monotonic()
        flight = jax.block_until_ready(fly(surrogate, set_))
        speed = set_[1].shape[0] * set_[1].shape[1] / (time.monotonic() - begun)
        flights[name] = vectors(jax.tree.map(np.asarray, flight))
    np.savez(folder / "flight.npz", **flights)
    record = {
        **{"seconds": seconds, "steps": planned.steps},
        "coverage": dict(zip(map(str, card["horizons"]), card["coverage"], strict=True)),
        **{"speed": speed, "versions": f"jax {jax.__version__}"},
    }
    (folder / "record.json").write_text(json.dumps(record))


def fit_all(plant, layout, training, calibration, settings: FitSettings, seed: int, progress=None):
    """Do what `physai fit` does, in memory."""
    layout, known, _ = prior(plant, layout, training, settings.equations)
    return fit_ensemble(
        layout, training, calibration, settings, seed, known=known, progress=progress or silent
    )[0]


def plan(fitting, settings: FitSettings, budget: float) -> FitSettings:
    """Return settings whose steps fill the budget.

    A short fit tells what a chunk of steps costs, and what all else costs.
    """
    times: list[float] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "fit":
            times.append(time.monotonic())

    begun = time.monotonic()
    fitting(replace(settings, steps=3 * CHUNK), progress=progress)
    whole = time.monotonic() - begun
    chunk = float(np.diff(times)[1:].min())
    left = max(budget - (whole - 3.0 * chunk), 0.0)
    return replace(settings, steps=max(1, round(left / chunk)) * CHUNK)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
