"""A collection that was stopped goes on where it stopped, and nothing is lost."""

from __future__ import annotations

import dataclasses
import random
import signal
import subprocess
import sys
import time

import pytest
from rails import (
    SMALL,
    Counting,
    cart,
)

from physai.errors import InputError
from physai.provenance import sha256_folder
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.dataset import open_dataset
from physai.rollout.store import only_writer


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 3, 4])
def test_an_interrupted_collection_ends_as_if_it_was_not(small, tmp_path, after):
    machine, folder = small
    reports = []

    def stop(stage: str, done: int, total: int) -> None:
        reports.append((stage, done, total))
        if len(reports) > after:
            raise Stop

    out = tmp_path / "dataset"
    with pytest.raises(Stop):
        collect(*machine, out, SMALL, 3, progress=stop)
    assert reports[-1] == ("collect", [0, 16, 32, 40, 56][after], 64)
    with pytest.raises(InputError, match=r"unfinished, \d of 5 shards are there"):
        open_dataset(out)
    # What a kill leaves: a half-written shard under zarr's temporary name and under its own.
    shard = out / "test" / "qpos" / "c" / "0" / "0"
    shard.mkdir(parents=True, exist_ok=True)
    (shard / "0.0123456789abcdef.partial").write_bytes(b"half")
    (shard / "0").write_bytes(b"half")
    (out / ".zarr.json.tmp-999999999-0").write_bytes(b"{")
    collect(*machine, out, SMALL, 3)
    assert sha256_folder(out) == sha256_folder(folder)
    assert {p.name for p in out.iterdir()} == {p.name for p in folder.iterdir()}


WORK = """
import sys
from physai.plant import load_plant
from physai.task import load_task
from physai.rollout.collect import RolloutSettings, collect
plant = load_plant(sys.argv[1])
settings = RolloutSettings(
    train=160, calibration=16, test=16, shard_episodes=8, designs_per_shard=4, duration=0.2
)
print("loaded", flush=True)
collect(plant, load_task(plant), sys.argv[2], settings, 5, progress=lambda *a: print(a, flush=True))
print("done", flush=True)
"""


def test_kill_9_at_random_moments_leaves_the_same_bytes(tmp_path):
    machine = cart(tmp_path / "cart", spring=-400.0, sizes=(-3.0, 6.5), limit=1e5)
    arguments = [sys.executable, "-c", WORK, str(tmp_path / "cart")]

    def start(out: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*arguments, str(tmp_path / out)], stdout=subprocess.PIPE, text=True
        )

    # Moments by the lines it has printed and a delay, since seconds mean little on a busy machine.
    chance, kills = random.Random(), []
    for lines in (1, chance.randint(2, 8), chance.randint(2, 8)):
        delay = chance.uniform(0.0, 0.05 if lines > 1 else 1.0)
        process = start("killed")
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills.append((lines, delay, process.returncode))
    assert any(code == -signal.SIGKILL for *_, code in kills)
    last = start("killed")
    assert "done" in last.communicate()[0]
    whole = start("whole")
    assert "done" in whole.communicate()[0]
    assert sha256_folder(tmp_path / "killed") == sha256_folder(tmp_path / "whole"), kills
    dataset = open_dataset(tmp_path / "killed", machine.plant)
    assert dataset.counts["train"]["diverged"] > 10
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (12000, 12000))\n"


def test_a_full_disk_is_said_and_can_be_continued(tmp_path):
    """A limit on the size of files is refused by the kernel in the same place as a full disk."""
    cart(tmp_path / "cart")
    work = WORK.replace("shard_episodes=8", "shard_episodes=80").replace("0.2", "1.0")
    command = [sys.executable, "-c", FULL + work, str(tmp_path / "cart"), str(tmp_path / "full")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode and "InputError: cannot write" in done.stderr, done.stderr[-2000:]
    command[2] = work
    assert "done" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    command[-1] = str(tmp_path / "whole")
    subprocess.run(command, capture_output=True, check=True)
    assert sha256_folder(tmp_path / "full") == sha256_folder(tmp_path / "whole")


def test_a_finished_dataset_is_returned_as_it_is(small):
    machine, folder = small
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    dataset = collect(*machine, folder, SMALL, 3)
    assert dataset.counts["test"]["episodes"] == 8
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_other_settings_are_refused(small, tmp_path):
    machine, folder = small
    other = dataclasses.replace(SMALL, train=80)
    with pytest.raises(InputError, match=r"settings train 40, expected 80.*choose|Choose"):
        collect(*machine, folder, other, 3)
    with pytest.raises(InputError, match="seed 3, expected 4"):
        collect(*machine, folder, SMALL, 4)
    with pytest.raises(InputError, match="plant sha256"):
        collect(*cart(tmp_path / "cart", spring=6.0), folder, SMALL, 3)
    with pytest.raises(InputError, match="controller None, expected unnamed"):
        collect(*machine, folder, SMALL, 3, controller=Counting([]))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(InputError, match=r"expected a dataset with a zarr.json"):
        collect(*machine, tmp_path / "photos", SMALL, 3)
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_two_collections_into_one_folder_are_refused(small):
    machine, folder = small
    with only_writer(folder), pytest.raises(InputError, match="another process is collecting"):
        collect(*machine, folder, SMALL, 3)


@pytest.mark.parametrize(
    "bad",
    [
        {"train": 0},
        {"test": -1},
        {"designs_per_shard": 3},
        {"duration": 0.0},
        {"shard_episodes": 0},
    ],
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(InputError, match=f"{next(iter(bad))}: expected"):
        RolloutSettings(**bad)


def test_a_duration_below_the_control_period_is_refused(small, tmp_path):
    machine, _ = small
    settings = dataclasses.replace(SMALL, duration=0.005)
    with pytest.raises(InputError, match=r"at least one control period, 0.02 s, got 0.005 s"):
        collect(*machine, tmp_path / "dataset", settings, 0)
