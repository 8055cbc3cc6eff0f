"""How many control steps a second do vector environments make, of bare mujoco.batch and of peers?

All on the same cores, in turn, with random actions drawn beforehand:

- bare: `mujoco.batch`, controls written and stepped, nothing read; every `PERIODS` control periods
  all simulations return to random starts of the task.
- ours: `PlantVectorEnv` with observations, rewards, ends, disturbances, autoreset and `info`.
- ours, no readout: for the plants whose true environments read out the simulator, without it.
- sync, async: Gymnasium's `SyncVectorEnv` and `AsyncVectorEnv` of as many of our `PlantEnv`.
- gymnasium sync, async: the same of Gymnasium's own environment, where the plant is one of its.
- learned: `PlantVectorEnv` on a surrogate of default size with random weights, arrays on the
  device; its actions are random, its predictions no machine's. For speed alone.

    python experiments/vector_env_throughput.py            # minutes
    python experiments/vector_env_throughput.py --smoke    # seconds, and no file
"""

from __future__ import annotations

import csv
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gymnasium
import jax
import mujoco
import mujoco.batch
import numpy as np
import tyro
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from physai.env.single import PlantEnv
from physai.env.vector import PlantVectorEnv
from physai.plant import Plant, load_plant
from physai.report.bench import cpu_name
from physai.report.inspection import untrained
from physai.rollout.excitation import draw_starts
from physai.rollout.symmetry import Symmetry
from physai.task import load_task

PERIODS = 50  # control periods of a timed run
PEERS = {
    "hopper": "Hopper-v5",
    "walker2d": "Walker2d-v5",
    "halfcheetah": "HalfCheetah-v5",
    "ant": "Ant-v5",
    "humanoid": "Humanoid-v5",
}
Run = Callable[[int], None]


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    plants: tuple[str, ...] = ("quadrotor", "hopper", "halfcheetah", "ant", "humanoid")
    """Plants, each in turn."""
    batch: int = 1024
    """Environments of what steps them in one call."""
    workers: int = 2
    """Environments of AsyncVectorEnv, a process each; SyncVectorEnv has 8."""
    repeats: int = 7
    """Timed runs of each, in turn, of which the median is reported."""
    results: Path = Path(__file__).parent / "results" / "vector_env_throughput.csv"
    """Where the rows go."""
    smoke: bool = False
    """Finish in seconds; write no results."""


def main(settings: Settings) -> None:
    """Measure each plant and write the rows."""
    plants = ("hopper",) if settings.smoke else settings.plants
    rows = [row for name in plants for row in measured(settings, name)]
    if not settings.smoke:
        with settings.results.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def measured(settings: Settings, name: str) -> list[dict[str, Any]]:
    """Time all ways of stepping a plant, in turn; return a row each."""
    plant = load_plant(name)
    batch, repeats = (64, 2) if settings.smoke else (settings.batch, settings.repeats)
    runs = {"bare": (batch, bare(plant, batch))}
    made: list[VectorEnv] = []
    for kind, env in environments(settings, plant, batch):
        made.append(env)
        runs[kind] = (env.num_envs, stepped(env, np.random.default_rng(0)))
    for _, run in runs.values():
        run(0)
        run(1)
    rates: dict[str, list[float]] = {kind: [] for kind in runs}
    loads = []
    for k in range(repeats):
        for kind, (count, run) in runs.items():
            begin = time.perf_counter()
            run(k + 2)
            rates[kind].append(count * PERIODS / (time.perf_counter() - begin))
        loads.append(os.getloadavg()[0])
    for env in made:
        env.close()
    reference = float(np.median(rates["bare"]))
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **{"cpu": cpu_name(), "cores": os.cpu_count(), "python": platform.python_version()},
        **{"mujoco": mujoco.__version__, "gymnasium": gymnasium.__version__},
        **{"jax": jax.__version__, "plant": name},
    }
    found = []
    for kind, values in rates.items():
        median = float(np.median(values))
        row = {"way": kind, "environments": runs[kind][0], "control_steps_per_s": round(median)}
        row |= {"slowest": round(min(values)), "fastest": round(max(values))}
        row |= {"ratio_to_bare": round(median / reference, 4), "repeats": repeats}
        found.append({**about, **row, "load_average": round(float(np.mean(loads)), 2)})
        print(name, *row.values(), flush=True)
    return found


def bare(plant: Plant, batch: int) -> Run:
    """Return a run of bare simulations, `PERIODS` from random starts of the task."""
    task, rng = load_task(plant), np.random.default_rng(0)
    simulations = mujoco.batch.Batch(plant.model, batch)
    start = draw_starts(task, jax.random.key(0), np.tile(plant.nominal, (batch, 1)))
    for name in ("qpos", "qvel", "act"):
        simulations.bind(name)[:] = getattr(start, name)
    state, control = simulations.state.copy(), simulations.bind("ctrl")
    controls = np.zeros((PERIODS, batch, plant.model.nu))
    low, high = (np.array([getattr(a, end) for a in plant.actions]) for end in ("low", "high"))
    controls[..., list(plant.action_ids)] = rng.uniform(low, high, (PERIODS, batch, plant.nu))

    def run(_: int) -> None:
        simulations.state[:] = state
        for value in controls:
            control[:] = value
            simulations.step(nstep=plant.substeps)

    return run


def environments(settings: Settings, plant: Plant, batch: int) -> list[tuple[str, VectorEnv]]:
    """Make the vector environments of a plant, each with a name."""
    name, peer, workers = plant.name, PEERS.get(plant.name), settings.workers
    found: list[tuple[str, VectorEnv]] = [("ours", PlantVectorEnv(plant, batch))]
    if load_task(plant).readout is not None:
        found.append(("ours, no readout", PlantVectorEnv(plant, batch, readout=False)))
    found += [
        ("sync", SyncVectorEnv([lambda: PlantEnv(name)] * 8)),
        ("async", AsyncVectorEnv([lambda: PlantEnv(name)] * workers, context="spawn")),
    ]
    if peer is not None:
        for mode, count in (("sync", 8), ("async", workers)):
            more = {"context": "spawn"} if mode == "async" else {}
            env = gymnasium.make_vec(peer, count, vectorization_mode=mode, vector_kwargs=more)
            found.append((f"gymnasium {mode}", env))
    random = untrained(plant, Symmetry())
    found.append(("learned", PlantVectorEnv(plant, batch, random, device_arrays=True)))
    return found


def stepped(env: VectorEnv, rng: np.random.Generator) -> Run:
    """Return a run of `PERIODS` steps of a vector environment with random actions."""
    space = env.single_action_space
    assert isinstance(space, gymnasium.spaces.Box)
    shape = (PERIODS, env.num_envs, *space.shape)
    actions = rng.uniform(space.low, space.high, shape).astype(np.float32)

    def run(number: int) -> None:
        if number == 0:
            env.reset(seed=0)
        for action in actions:
            observation, *_ = env.step(action)
        jax.block_until_ready(observation)

    return run


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
