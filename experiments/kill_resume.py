"""Does a run that is killed at a random moment finish, with the same dataset and certificate?

Runs `physai run` twice straight through, then again and again: killed with SIGKILL after a random
time, then given once more. Compares the content hashes of dataset, weights and certificate with
those of the straight run. `--smoke` uses a tiny run and three kills.
"""

from __future__ import annotations

import csv
import datetime
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import mujoco
import tyro

from physai.provenance import read_manifest

TINY = (
    "--rollout.train=192 --rollout.calibration=96 --rollout.test=96 --rollout.shard-episodes=96 "
    "--fit.members=2 --fit.width=32 --fit.steps=2000 "
    "--learn.machines=32 --learn.horizon=8 --learn.updates=60 --learn.hidden 16 16 "
    "--flights=200 --rounds=1"
).split()
COMPARED = ("dataset", "surrogate", "policy", "certificate", "bundle", "certificate-c99")


@dataclass(frozen=True)
class Settings:
    """What to try."""

    kills: int = 20
    """Runs that are killed."""
    tiny: bool = False
    """Use a small run (a minute) instead of the default one."""
    smoke: bool = False
    """A tiny run and three kills."""
    seed: int = 0
    """Of the moments."""
    work: Path = Path("runs/kill-resume")
    """Where to run; emptied first."""
    results: Path = Path("experiments/results/kill_resume.csv")
    """Where to write what came out."""


def main(settings: Settings) -> int:
    """Run, kill, run again, compare; return the number of runs that differ."""
    kills, tiny = (3, True) if settings.smoke else (settings.kills, settings.tiny)
    shutil.rmtree(settings.work, ignore_errors=True)
    straight = settings.work / "straight"
    run(straight, tiny)
    expected = hashes(straight)
    # The first run compiled everything; the moments must lie within a run that finds it compiled.
    seconds = run(settings.work / "again", tiny)
    assert hashes(settings.work / "again") == expected
    print(f"straight through: {seconds:.1f} s")
    rng = random.Random(settings.seed)
    rows = []
    for number in range(kills):
        out = settings.work / f"killed-{number}"
        moment = rng.uniform(0.0, seconds)
        killed_in = kill_after(out, tiny, moment)
        rest = run(out, tiny)
        found = hashes(out)
        same = {name: found[name] == expected[name] for name in COMPARED}
        rows.append([number, f"{moment:.2f}", killed_in, f"{rest:.1f}", *map(int, same.values())])
        print(f"killed after {moment:.1f} s in {killed_in}, then {rest:.1f} s: {same}", flush=True)
        shutil.rmtree(out)
    write(settings.results, rows, tiny)
    return sum(not all(row[4:]) for row in rows)


def command(out: Path, tiny: bool) -> list[str]:
    """Return the command line of a run."""
    extra = TINY if tiny else []
    return [sys.executable, "-m", "physai", "run", "quadrotor", "--out", str(out), "--json", *extra]


def run(out: Path, tiny: bool) -> float:
    """Run to the end; return the seconds it took."""
    started = time.monotonic()
    subprocess.run(
        command(out, tiny), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.monotonic() - started


def kill_after(out: Path, tiny: bool, moment: float) -> str:
    """Start a run, kill its process group after `moment` seconds; return the stage it was in."""
    process = subprocess.Popen(
        command(out, tiny),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(moment)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = [n for n in (*COMPARED, "report") if (out / n / "manifest.json").exists()]
    return f"after {done[-1]}" if done else "before dataset"


def hashes(out: Path) -> dict[str, str]:
    """Return the content hash of every artefact that is compared."""
    return {name: read_manifest(out / name)["content"] for name in COMPARED}


def write(path: Path, rows: list[list[object]], tiny: bool) -> None:
    """Write the rows with machine, versions and date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        about = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        versions = f"jax {jax.__version__}, MuJoCo {mujoco.mj_versionString()}"
        size = "tiny run" if tiny else "default run"
        file.write(f"# {size}; {about}; {versions}; {datetime.date.today()}\n")
        writer.writerow(["kill", "after_s", "killed", "then_s", *(f"{n}_same" for n in COMPARED)])
        writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
