"""Does `physai fit`, killed at a random moment, end with the same weights to the bit?

Fits straight through, then again and again: killed with SIGKILL, then given once more. Compares
the SHA-256 of the weights with that of the straight fit. A kill waits for a number of saved
states, none to all of them over the kills, then for a random time of up to two such intervals: a
busy machine does not move it out of the fit. The state is saved after every 250 steps, not every
10 s, so that many a kill falls into the writing.

    python experiments/kill_fit.py             # ten kills, some minutes
    python experiments/kill_fit.py --smoke     # three kills, and no file
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import table
import tyro

from physai.plant import load_plant
from physai.rollout.collect import RolloutSettings, collect
from physai.surrogate.store import WEIGHTS
from physai.surrogate.train import CHUNK
from physai.task import load_task

PLANT = "quadrotor"
DATA = RolloutSettings(train=96, calibration=32, test=1, duration=0.6, shard_episodes=96)
SAVES = 20  # one a chunk
FIT = (
    f"--members 2 --width 32 --steps {SAVES * CHUNK} --batch 256 "
    "--calibrated-horizon 20 --no-equations"
).split()
PROGRAM = """
import sys
from physai.surrogate import checkpoint
checkpoint.SECONDS_BETWEEN_SAVES = 0.0
from physai.cli import main
sys.exit(main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Settings:
    """What to try."""

    kills: int = 10
    """Fits that are killed."""
    seed: int = 0
    """Of the moments."""
    work: Path = Path("runs/kill-fit")
    """Where to fit; emptied first."""
    out: Path = Path(__file__).parent / "results" / "kill_fit.csv"
    """The table."""
    smoke: bool = False
    """Three kills, and no file."""


def main(settings: Settings) -> int:
    """Fit, kill, fit again, compare; return the number of fits that differ."""
    kills = 3 if settings.smoke else settings.kills
    shutil.rmtree(settings.work, ignore_errors=True)
    plant = load_plant(PLANT)
    collect(plant, load_task(plant), settings.work / "dataset", DATA, 0)
    first, again = settings.work / "first", settings.work / "again"
    finish(begin(first))  # compiles: the moments must lie within a fit that finds it compiled
    expected = sha256(first)
    process = begin(again)
    wait_for_saves(process, again, 1)
    started = time.monotonic()
    wait_for_saves(process, again, SAVES)
    interval = (time.monotonic() - started) / (SAVES - 1)
    finish(process)
    assert sha256(again) == expected
    print(f"a state is saved every {interval:.2f} s")
    rng, rows = random.Random(settings.seed), []
    for number in range(kills):
        out = settings.work / f"killed-{number}"
        least, delay = round(number / max(kills - 1, 1) * SAVES), rng.uniform(0.0, 2.0 * interval)
        row = {"plant": PLANT, "kill": number, "after_saves": least, "and_s": f"{delay:.2f}"}
        row |= kill(out, least, delay)
        row["then_s"] = f"{finish(begin(out)):.1f}"
        row["same"] = int(sha256(out) == expected)
        print(row, flush=True)
        rows.append({**table.here(), "jax": jax.__version__, **row})
    if not settings.smoke:
        table.write(settings.out, rows)
    return sum(not row["same"] for row in rows)


def begin(out: Path) -> subprocess.Popen[bytes]:
    """Start a fit, in a process group of its own."""
    data = ["--dataset", str(out.with_name("dataset")), "--out", str(out)]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "fit", PLANT, *data, *FIT],
        stdout=quiet,
        stderr=quiet,
        start_new_session=True,
    )


def training_of(out: Path) -> Path:
    """Return the folder of a fit's training state."""
    return out.with_name(f"{out.name}.training")


def saved(out: Path) -> int:
    """Return the number of the last saved state."""
    states = (training_of(out) / "fit").glob("*")
    return max((int(state.name) for state in states if state.name.isdigit()), default=0)


def wait_for_saves(process: subprocess.Popen[bytes], out: Path, least: int) -> None:
    """Wait until a fit trains and has saved its state so many times, or has ended."""
    while process.poll() is None:
        if training_of(out).exists() and saved(out) >= least:
            return
        time.sleep(0.01)


def finish(process: subprocess.Popen[bytes]) -> float:
    """Wait for the end of a fit; return the seconds it took from here."""
    started = time.monotonic()
    if process.wait():
        raise SystemExit(f"the fit ended with exit status {process.returncode}")
    return time.monotonic() - started


def kill(out: Path, least: int, delay: float) -> dict[str, Any]:
    """Start a fit, kill it `delay` seconds after so many saves; return what it left."""
    process = begin(out)
    wait_for_saves(process, out, least)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    unfinished = [p for p in training_of(out).glob("*/*") if not p.name.isdigit()]
    return {
        "finished": int(out.exists()),
        "saved": saved(out),
        "while_saving": int(bool(unfinished)),
    }


def sha256(out: Path) -> str:
    """Return the hash of a fit's weights."""
    return hashlib.sha256((out / WEIGHTS).read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
