"""What comes of the whole run, seed by seed, and how long does it take?

Gives `physai run PLANT --json` for each seed, each in a process of its own, as a user would, and
writes one row a run. `--smoke` does one tiny run.
"""

from __future__ import annotations

import csv
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from kill_resume import TINY

from physai.provenance import read_manifest


@dataclass(frozen=True)
class Settings:
    """What to run."""

    plant: str = "quadrotor"
    """Name or folder of the plant."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run each."""
    cold: bool = True
    """Compile everything anew in every run, as a first run does."""
    smoke: bool = False
    """One tiny run; its row is not worth keeping."""
    work: Path = Path("runs/seeds")
    """Where to run; a finished run is found again."""
    results: Path = Path("experiments/results/run_seeds.csv")
    """Where to write what came out."""


def main(settings: Settings) -> int:
    """Run every seed and write the table; return 0."""
    seeds, extra = (settings.seeds[:1], TINY) if settings.smoke else (settings.seeds, [])
    if settings.smoke:
        shutil.rmtree(settings.work, ignore_errors=True)
    rows = []
    for seed in seeds:
        out = settings.work / str(seed)
        rows.append(row(run(settings, out, seed, extra), out))
        print(json.dumps(rows[-1], indent=1), flush=True)
        write(settings.results, rows)
    return 0


def run(settings: Settings, out: Path, seed: int, extra: Sequence[str]) -> dict[str, Any]:
    """Give the command; return the JSON that it prints."""
    command = [sys.executable, "-m", "physai", "run", settings.plant, "--out", str(out)]
    command += ["--seed", str(seed), "--json", *extra]
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "XDG_CACHE_HOME": cache} if settings.cold else None
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    return json.loads(printed.stdout)


def row(summary: dict[str, Any], out: Path) -> dict[str, Any]:
    """Return one row: what was asked of the run, and its times."""
    score, parity = summary["score"], summary["parity"]
    made: dict[str, Any] = {"seed": summary["seed"], "seconds": summary["seconds"]}
    for name in ("certificate", "certificate_c99"):
        for condition in ("nominal", "disturbed"):
            found = summary[name]["conditions"][condition]
            for key in ("passed", "flights", "low", "high"):
                made[f"{name}.{condition}.{key}"] = found[key]
    for quantity in ("nrmse", "position_error", "coverage"):
        for horizon, value in zip(score["horizons"], score[quantity], strict=True):
            made[f"{quantity}.{horizon}"] = value
    made["c99_max_error"] = parity["c99_max_error"]
    made["c99_ns_per_call"] = parity["c99_nanoseconds_per_call"]
    for speed in summary["speed"]:
        made[f"steps_per_s.{speed['model']}"] = speed["steps_per_second"]
    for stage in summary["stages"]:
        made[f"seconds.{stage['stage']}"] = stage["seconds"]
    versions = read_manifest(out / "policy")["versions"]
    made |= {name: versions[name] for name in ("python", "jax", "mujoco")}
    made |= {"cpu": summary["speed"][0]["cpu"], "cores": os.cpu_count()}
    return {**made, "date": str(datetime.date.today())}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows; a column that one run lacks stays empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for made in rows for name in made))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
