"""What becomes of an MJCF file that physai has never seen?

Takes every MJCF file that ships in the installed packages `gymnasium`, `dm_control` and `robosuite`
(`pip install --no-deps dm_control robosuite`; none of them is imported), and gives each `check`,
`rollout`, `fit` and `score`, in a process of its own. A file ends with a report card, with a
refusal that names the reason, or with a crash. One row a file; a file that has a row is not done
again. `--smoke` does two small files.

Files that MuJoCo alone cannot compile, and those in which nothing can move (parts of other models,
scenes), are counted apart: there is no machine in them.
"""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import tyro

PACKAGES = ("gymnasium", "dm_control", "robosuite")
SMOKE = ("inverted_pendulum.xml", "reacher.xml")


@dataclass(frozen=True)
class Settings:
    """What to sweep."""

    packages: tuple[str, ...] = PACKAGES
    """Installed packages to search."""
    episodes: int = 500
    """Episodes to collect: 60% to fit on, 20% each to calibrate and to score."""
    collecting: float = 60.0
    """Seconds that collecting may take: a slow simulator gives fewer episodes, at least 125."""
    steps: int = 2000
    """Optimiser steps of the fit: about 30 s on two cores."""
    jobs: int = 1
    """Files at the same time; more than one is faster in all and slower for each."""
    limit: float = 1800.0
    """Seconds after which a file is given up."""
    smoke: bool = False
    """Two files, little data."""
    results: Path = Path("experiments/results/any_mjcf.csv")
    """Where to write what came out."""
    one: Path | None = None
    """Do this file alone and print its row as JSON."""


def main(settings: Settings) -> int:
    """Sweep; return 1 if a file crashed."""
    if settings.one is not None:
        print(json.dumps(outcome(settings, settings.one)))
        return 0
    rows = read(settings.results)
    done = {(row["package"], row["file"]) for row in rows}
    left = [
        (about, path)
        for about, path in files(settings)
        if (about["package"], about["file"]) not in done
    ]
    with ThreadPoolExecutor(settings.jobs) as pool:
        coming = {pool.submit(in_a_process, settings, path): about for about, path in left}
        for future in as_completed(coming):
            rows.append({**coming[future], **future.result()})
            print(*rows[-1].values(), flush=True)
            write(settings.results, rows)
    print(summary(rows))
    return int(any(row["outcome"] == "crash" for row in rows))


def files(settings: Settings) -> Iterator[tuple[dict[str, str], Path]]:
    """Yield package, version and name of every MJCF file to do, and its path."""
    for package in settings.packages:
        root, version = locate(package)
        for path in sorted(root.rglob("*.xml")):
            chosen = not settings.smoke or path.name in SMOKE
            if chosen and b"<mujoco" in path.read_bytes():
                name = path.relative_to(root).as_posix()
                yield {"package": package, "version": version, "file": name}, path


def locate(package: str) -> tuple[Path, str]:
    """Return a package's folder and version without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed: pip install --no-deps {package}")
    return Path(spec.submodule_search_locations[0]), importlib.metadata.version(package)


def in_a_process(settings: Settings, path: Path) -> dict[str, Any]:
    """Do one file where a crash harms nobody."""
    command = [sys.executable, __file__, "--one", str(path)]
    for name in ("episodes", "collecting", "steps"):
        command += [f"--{name}", str(getattr(settings, name))]
    today = {"mujoco": mujoco.__version__, "date": str(datetime.date.today())}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=settings.limit, check=False
        )
        found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    except subprocess.TimeoutExpired:
        return {**row("timeout", f"more than {settings.limit:g} s"), **today}
    if found is None:
        reason = f"exit {done.returncode}: {(done.stderr.splitlines() or ['silent'])[-1]}"
        found = row("crash", reason)
    return {**found, **today}


def row(outcome: str, reason: str = "", **numbers: Any) -> dict[str, Any]:
    """Return a row; a column without a number stays empty."""
    columns = ("nq", "nv", "nu", "diverged", "steps", "nrmse_1", "nrmse_10", "nrmse_50")
    times = ("seconds_check", "seconds_rollout", "seconds_fit", "seconds_score")
    numbers = {name: numbers.get(name, "") for name in (*columns, *times)}
    return {"outcome": outcome, "reason": " ".join(reason.split())[:300], **numbers}


def outcome(settings: Settings, path: Path) -> dict[str, Any]:
    """Check, collect, fit and score one file."""
    from physai.errors import InputError
    from physai.plant import load_plant
    from physai.task import load_task

    try:
        model = mujoco.MjModel.from_xml_path(str(path))
    except (ValueError, mujoco.FatalError) as error:
        return row("no model", f"MuJoCo alone cannot compile it: {error}")
    sizes = {"nq": model.nq, "nv": model.nv, "nu": model.nu}
    if model.nv == 0:
        return row("no machine", "nothing in it can move", **sizes)
    try:
        plant = load_plant(path)
        with tempfile.TemporaryDirectory() as folder:
            numbers = learned(settings, plant, load_task(plant), Path(folder))
    except InputError as error:
        return row("refused", str(error).replace(str(path), path.name), **sizes)
    return row("report card", **sizes, **numbers)


def learned(settings: Settings, plant: Any, task: Any, folder: Path) -> dict[str, Any]:
    """Return the numbers of the report card, and the seconds that each verb took."""
    from physai.report.inspection import inspect
    from physai.rollout.collect import DEFAULT_PERIODS, RolloutSettings, collect
    from physai.surrogate.fit import FitSettings
    from physai.surrogate.release import fit, write_score

    moments = [time.monotonic()]
    rows = inspect(plant, task).speed
    moments.append(time.monotonic())
    speed = next(r["steps_per_second"] for r in rows if r["model"] == "true plant")
    affordable = settings.collecting * speed / DEFAULT_PERIODS
    fifth = max(int(min(settings.episodes, affordable)) // 5, 25)
    rollout = RolloutSettings(
        train=3 * fifth, calibration=fifth, test=fifth, shard_episodes=3 * fifth
    )
    data = collect(plant, task, folder / "data", rollout)
    moments.append(time.monotonic())
    fit(plant, [data], folder / "surrogate", FitSettings(steps=settings.steps))
    moments.append(time.monotonic())
    card = write_score(plant, folder / "surrogate", [data], folder / "score")
    moments.append(time.monotonic())
    verbs = ("check", "rollout", "fit", "score")
    seconds = {f"seconds_{v}": round(s, 1) for v, s in zip(verbs, np.diff(moments), strict=True)}
    errors = {f"nrmse_{h}": e for h, e in zip(card["horizons"], card["nrmse"], strict=True)}
    return {"diverged": data.diverged, "steps": data.steps, **errors, **seconds}


def summary(rows: list[dict[str, Any]]) -> str:
    """Say how many files ended how, and which share of the machines is supported."""
    ends = [row["outcome"] for row in rows]
    counts = {end: ends.count(end) for end in dict.fromkeys(ends)}
    machines = sum(counts.values()) - counts.get("no model", 0) - counts.get("no machine", 0)
    share = counts.get("report card", 0) / max(machines, 1)
    return f"{counts}; {100 * share:.1f}% of {machines} machines end with a report card"


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows that are there."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write all rows, by package and file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: (row["package"], row["file"])))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
