"""Does `physai fit`, killed at a random moment, end with the same weights to the bit?

Fits straight through, then again and again: killed with SIGKILL at a moment after its training
state has appeared, then given once more. Compares the SHA-256 of the weights with that of the
straight fit. The moments are drawn one in each of equal parts of the time that training takes, so
that all of it is tried. The state is saved after every 250 steps, not every 10 s, so that many a
kill falls into the writing.

    python experiments/kill_fit.py             # ten kills, some minutes
    python experiments/kill_fit.py --smoke     # two kills, and no file
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
from physai.task import load_task

PLANT = "quadrotor"
DATA = RolloutSettings(train=96, calibration=32, test=1, duration=0.6, shard_episodes=96)
FIT = (
    "--members 2 --width 32 --steps 3000 --fine-steps 1000 --fine-batch 32 --fine-horizon 4 "
    "--calibrated-horizon 20"
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
    """Two kills, and no file."""


def main(settings: Settings) -> int:
    """Fit, kill, fit again, compare; return the number of fits that differ."""
    kills = 2 if settings.smoke else settings.kills
    shutil.rmtree(settings.work, ignore_errors=True)
    plant = load_plant(PLANT)
    collect(plant, load_task(plant), settings.work / "dataset", DATA, 0)
    first, again = settings.work / "first", settings.work / "again"
    finish(begin(first))  # compiles: the moments must lie within a fit that finds it compiled
    expected = sha256(first)
    process = begin(again)
    wait_for_training(again)
    seconds = finish(process)
    assert sha256(again) == expected
    print(f"training takes {seconds:.1f} s")
    rng, rows = random.Random(settings.seed), []
    for number in range(kills):
        out = settings.work / f"killed-{number}"
        moment = (number + rng.random()) / kills * seconds
        row = {"plant": PLANT, "kill": number, "after_s": f"{moment:.2f}", **kill(out, moment)}
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


def wait_for_training(out: Path) -> None:
    """Wait until a fit trains."""
    while not training_of(out).exists():
        time.sleep(0.01)


def finish(process: subprocess.Popen[bytes]) -> float:
    """Wait for the end of a fit; return the seconds it took from here."""
    started = time.monotonic()
    if process.wait():
        raise SystemExit(f"the fit ended with exit status {process.returncode}")
    return time.monotonic() - started


def kill(out: Path, moment: float) -> dict[str, Any]:
    """Start a fit and kill it `moment` seconds after its training began; return what it left."""
    process = begin(out)
    wait_for_training(out)
    time.sleep(moment)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = training_of(out)
    saved = {
        stage: max((int(p.name) for p in (left / stage).glob("*") if p.name.isdigit()), default=0)
        for stage in ("fit", "fine-tune")
    }
    unfinished = [p for p in left.glob("*/*") if not p.name.isdigit()]
    return {
        "finished": int(out.exists()),
        "fit_saved": saved["fit"],
        "fine_tune_saved": saved["fine-tune"],
        "while_saving": int(bool(unfinished)),
    }


def sha256(out: Path) -> str:
    """Return the hash of a fit's weights."""
    return hashlib.sha256((out / WEIGHTS).read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
