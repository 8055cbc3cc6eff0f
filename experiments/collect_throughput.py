"""How much of bare mujoco.batch throughput is left when episodes are collected?

Bare is `Batch.step` on compiled models of the same designs, with controls drawn beforehand, from
the same starts, and nothing recorded. Collecting is `physai.rollout.collect`: drawing designs,
starts, noise and disturbances, compiling the designs, simulating, recording, finding where episodes
ended, compressing and writing the zarr store, syncing it to the disk, and hashing it.

Both run in one process and in turn, a shard each: after every shard that it has written, collecting
is paused while as many bare steps are timed. So whatever else the machine does hits both alike. CPU
time is given too; it says what remains of the ratio when other processes want the same cores.
Compiling jax functions, which happens once a process, is left to a first run and reported apart.

    python experiments/collect_throughput.py            # minutes
    python experiments/collect_throughput.py --smoke    # seconds, and no file
"""

from __future__ import annotations

import csv
import os
import platform
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import jax
import mujoco
import mujoco.batch
import numpy as np
import tyro
import zarr

from physai.plant import Plant, load_plant
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.excitation import Excitation, clip_actions, draw_starts, shake
from physai.task import Task, load_task


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    plant: str = "quadrotor"
    """Name or folder of the plant."""
    episodes: int = 8192
    """Episodes of a run, a multiple of the shard; both ways simulate all their control periods."""
    repeats: int = 7
    """Runs of which the median is taken."""
    results: Path = Path(__file__).parent / "results" / "collect_throughput.csv"
    """Where the rows go."""
    smoke: bool = False
    """Finish in seconds; write no results."""


@dataclass(frozen=True)
class Bare:
    """A shard of simulations with everything prepared, to be stepped and nothing else."""

    batch: mujoco.batch.Batch
    start: np.ndarray
    controls: np.ndarray
    substeps: int

    def run(self) -> None:
        """Simulate the shard."""
        ctrl = self.batch.bind("ctrl")
        self.batch.state[:] = self.start
        for control in self.controls:
            ctrl[:] = control
            self.batch.step(nstep=self.substeps)


class Stopwatch:
    """Adds up wall and CPU seconds of two activities that take turns."""

    def __init__(self) -> None:
        self.seconds = {"bare": np.zeros(2), "collect": np.zeros(2)}
        self._since = self._now()

    def lap(self, activity: str) -> np.ndarray:
        """Book the time since the last lap on an activity; return its sum, (wall, CPU)."""
        now = self._now()
        self.seconds[activity] += now - self._since
        self._since = self._now()
        return self.seconds[activity].copy()

    def _now(self) -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time()])


def prepare_bare(plant: Plant, task: Task, rollout: RolloutSettings, steps: int) -> Bare:
    """Compile models and draw starts and controls like those of one shard of a collection."""
    n, rng = rollout.shard_episodes, np.random.default_rng(0)
    low, high = (np.array([getattr(v, end) for v in plant.design]) for end in ("low", "high"))
    designs = low + (high - low) * rng.random((rollout.designs_per_shard, len(low)))
    models = [plant.compile(design) for design in designs]
    rows = np.arange(n) % len(models)
    batch = mujoco.batch.Batch(plant.model, n)
    batch.set_models([models[i] for i in rows])
    start = draw_starts(task, jax.random.key(0), designs[rows])
    for name in ("qpos", "qvel", "act"):
        batch.bind(name)[:] = getattr(start, name)
    shaking = shake(plant, task, Excitation(), rng, n, steps, controlled=False)
    controls = np.zeros((steps, n, plant.model.nu))
    actions = clip_actions(plant, shaking.mean + shaking.noise)
    controls[..., list(plant.action_ids)] = actions.swapaxes(0, 1)
    controls[..., list(plant.disturbance_ids)] = shaking.disturbances.swapaxes(0, 1)
    return Bare(batch, batch.state.copy(), controls, plant.substeps)


def measure(
    plant: Plant, task: Task, rollout: RolloutSettings, bare: Bare
) -> tuple[dict[str, np.ndarray], float, int]:
    """Return (wall, CPU) seconds by activity, seconds before the first shard, and valid periods."""
    before = []

    def alternate(stage: str, done: int, total: int) -> None:
        collected = watch.lap("collect")
        if before:
            bare.run()
            watch.lap("bare")
        before.append(collected[0])

    with tempfile.TemporaryDirectory() as folder:
        watch = Stopwatch()
        dataset = collect(plant, task, Path(folder) / "dataset", rollout, 0, progress=alternate)
        watch.lap("collect")
    return watch.seconds, float(before[0]), dataset.counts["train"]["valid_steps"]


def time_compiling(plant: Plant, rollout: RolloutSettings) -> float:
    """Return the seconds that the designs of a shard take to compile."""
    begin = time.perf_counter()
    for _ in range(rollout.designs_per_shard):
        plant.compile(plant.nominal, textures=False)
    return time.perf_counter() - begin


def main(settings: Settings) -> None:
    """Measure, print medians, write one row a repeat."""
    if settings.smoke:
        settings = replace(settings, episodes=256, repeats=2)
    plant = load_plant(settings.plant)
    task = load_task(plant)
    rollout = RolloutSettings(train=settings.episodes, calibration=0, test=0)
    rollout = replace(rollout, shard_episodes=min(rollout.shard_episodes, settings.episodes))
    assert rollout.duration is not None
    steps = round(rollout.duration / plant.control_period)
    work = settings.episodes * steps
    bare = prepare_bare(plant, task, rollout, steps)
    _, first_start, valid = measure(plant, task, rollout, bare)
    rows = []
    for _ in range(settings.repeats):
        load = os.getloadavg()[0]
        seconds, start_s, _ = measure(plant, task, rollout, bare)
        (bare_s, bare_cpu), (collect_s, collect_cpu) = seconds["bare"], seconds["collect"]
        compile_s = time_compiling(plant, rollout) * settings.episodes / rollout.shard_episodes
        rows.append(
            {
                "bare_steps_per_s": round(work / bare_s),
                "collect_steps_per_s": round(work / collect_s),
                "ratio": round(float(bare_s / collect_s), 4),
                "ratio_after_start": round(float(bare_s / (collect_s - start_s)), 4),
                "cpu_ratio": round(float(bare_cpu / collect_cpu), 4),
                "start_s": round(start_s, 3),
                "compile_designs_share": round(float(compile_s / collect_s), 4),
                "load_average": round(load, 2),
            }
        )
        print(rows[-1], flush=True)
    medians = {name: float(np.median([row[name] for row in rows])) for name in rows[0]}
    print(f"{settings.episodes} episodes of {steps} control periods, {settings.repeats} repeats")
    print(f"bare mujoco.batch       {medians['bare_steps_per_s']:10,.0f} control periods/s")
    print(f"collecting              {medians['collect_steps_per_s']:10,.0f} control periods/s")
    print(f"ratio                   {medians['ratio']:10.3f} of wall time")
    print(f"                        {medians['cpu_ratio']:10.3f} of CPU time")
    print(
        f"                        {medians['ratio_after_start']:10.3f} of wall time after the start"
    )
    print(f"compiling designs       {medians['compile_designs_share']:10.3f} of the time")
    print(f"before the first shard  {medians['start_s']:10.2f} s ({first_start:.2f} s at first)")
    print(f"valid data              {valid / work:10.3f} of the periods, the rest is after an end")
    if not settings.smoke:
        write_rows(settings, rollout, steps, valid / work, first_start, rows)


def write_rows(
    settings: Settings,
    rollout: RolloutSettings,
    steps: int,
    valid: float,
    first_start: float,
    rows: list[dict[str, float]],
) -> None:
    """Write one row a repeat, with what it was measured on."""
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "mujoco": mujoco.__version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "zarr": zarr.__version__,
        "plant": settings.plant,
        "episodes": settings.episodes,
        "steps": steps,
        "shard_episodes": rollout.shard_episodes,
        "designs_per_shard": rollout.designs_per_shard,
        "valid_share": round(valid, 4),
        "start_in_new_process_s": round(first_start, 2),
    }
    settings.results.parent.mkdir(parents=True, exist_ok=True)
    with settings.results.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*about, "repeat", *rows[0]])
        writer.writeheader()
        writer.writerows({**about, "repeat": i, **row} for i, row in enumerate(rows))


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main(tyro.cli(Settings))
