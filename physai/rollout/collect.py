"""Collecting episodes on the true plant: fast, kill-safe, and the same every time.

Work is done in shards. Everything random in a shard is a function of (seed, split, shard), so a run
that was killed at any moment and started again writes the very bytes of a run that was not. While
one shard is simulated, the one before it is written and the designs of the next are compiled.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from physai.errors import InputError
from physai.plant import Plant
from physai.progress import Progress, silent
from physai.provenance import read_manifest, remove_stale, sha256_source, write_manifest
from physai.provenance.storage import plain
from physai.rollout.dataset import Dataset, open_dataset
from physai.rollout.excitation import Excitation
from physai.rollout.flight import Flown, HostController, Job, Shard, fly, prepare
from physai.rollout.store import (
    SPLITS,
    Writer,
    create_store,
    describe,
    discard_uncommitted,
    first_slots,
    hold_ends,
    nothing_yet,
    only_writer,
    read_meta,
)
from physai.rollout.symmetry import find_symmetries
from physai.settings import check_number, check_whole
from physai.task import Task

_IDENTITY = (
    *("format", "plant", "mujoco", "settings", "seed", "controller"),
    *("control_period", "design", "columns", "steps"),
)


DEFAULT_PERIODS = 60
"""Control periods of an episode by default: more than a surrogate is scored over."""
TOO_SHORT, ALMOST_ALL = 2, 0.95
"""Collecting stops where this share of the first shard ends within so many control periods."""


@dataclass(frozen=True)
class RolloutSettings:
    """How much to collect and how."""

    train: int = 1792
    """Episodes to fit on."""
    calibration: int = 512
    """Episodes to calibrate uncertainty on."""
    test: int = 512
    """Episodes to score on. Each split has designs, starts and noise of its own."""
    duration: float | None = None
    """Seconds of an episode (None: 60 control periods, or the task's duration where that is less);
    a plant that nobody controls is soon far away."""
    designs_per_shard: int = 1024
    """Distinct designs among the episodes of a shard, a power of two; 0: the nominal one only."""
    shard_episodes: int = 1024
    """Episodes that are simulated side by side and written together."""
    excitation: Excitation = field(default_factory=Excitation)
    """How hard the plant is shaken."""

    def __post_init__(self) -> None:
        """Refuse what cannot be collected."""
        check_whole(self, "train", "shard_episodes", least=1)
        check_whole(self, "calibration", "test", least=0)
        designs = self.designs_per_shard
        if not isinstance(designs, int) or designs < 0 or designs & (designs - 1):
            raise InputError(f"designs_per_shard: expected 0 or a power of two, got {designs}")
        if self.duration is not None:
            check_number(self, "duration", above=0.0)


def collect(
    plant: Plant,
    task: Task,
    folder: str | Path,
    settings: RolloutSettings = RolloutSettings(),
    seed: int = 0,
    controller: HostController | None = None,
    progress: Progress = silent,
    policy_folder: str | Path | None = None,
) -> Dataset:
    """Collect a dataset, or finish one, or return the finished one that is already there.

    Args:
        plant: the true plant.
        task: gives starts, termination and, for a controller, observations.
        folder: the dataset.
        settings: how much and how.
        seed: 0 or more; of everything random.
        controller: flies the plant, with its actions disturbed (None: coloured noise around trim).
        progress: called as `progress("collect", episodes done, episodes in all)`.
        policy_folder: the artefact that `controller` was made from, for the manifest.

    Raises:
        InputError: the folder holds something else or a dataset with other settings, the disk is
            full, the task or controller gives numbers that are not finite or of a wrong shape, or
            almost all episodes end at once.
    """
    folder, started = Path(folder), time.monotonic()
    wanted = _describe(plant, task, settings, seed, controller, policy_folder)
    if folder.parent.is_dir():
        remove_stale(folder.parent)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        symmetry = plain(find_symmetries(plant, task, seed), "symmetry")
        create_store(folder, {**wanted, **nothing_yet(wanted), "symmetry": symmetry})
    _check_same(folder, read_meta(folder), wanted)
    with only_writer(folder):
        if not (folder / "manifest.json").exists():
            job = Job(
                plant=plant,
                task=task,
                excitation=settings.excitation,
                designs_per_shard=settings.designs_per_shard,
                steps=wanted["steps"],
                seed=seed,
                controller=controller,
            )
            begun = read_meta(folder)["committed"] > 0
            _fill(folder, job, progress)
            inputs: dict[str, Any] = {"plant": plant}
            if policy_folder is not None:
                inputs["policy"] = policy_folder
            seconds = None if begun else time.monotonic() - started
            write_manifest(folder, "dataset", inputs, settings, seed, seconds)
            return Dataset(folder, read_meta(folder))
    return open_dataset(folder, plant)


def _describe(
    plant: Plant,
    task: Task,
    settings: RolloutSettings,
    seed: int,
    controller: HostController | None,
    policy_folder: str | Path | None,
) -> dict[str, Any]:
    """Return the attributes that a dataset has from the start."""
    if not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed: expected a whole number from 0, got {seed!r}")
    duration = settings.duration or min(DEFAULT_PERIODS * plant.control_period, task.duration)
    steps = round(duration / plant.control_period)
    if steps < 1:
        raise InputError(
            f"duration: expected at least one control period, {plant.control_period:g} s, "
            f"got {duration:g} s"
        )
    flown_by = None if controller is None else "unnamed"
    if policy_folder is not None:
        sealed = (Path(policy_folder) / "manifest.json").is_file()
        flown_by = (
            read_manifest(policy_folder)["content"] if sealed else sha256_source(policy_folder)
        )
    splits = {split: getattr(settings, split) for split in SPLITS}
    size = settings.shard_episodes
    return describe(plant, task, steps, splits, size, settings, seed, flown_by, sensed=True)


def _check_same(folder: Path, meta: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name in _IDENTITY:
        if meta.get(name) != wanted[name]:
            there, here = _first_difference(name, meta.get(name), wanted[name])
            raise InputError(
                f"{folder} holds a dataset that was collected otherwise: {there}, expected {here}. "
                "Choose another --out, or remove it"
            )


def _first_difference(name: str, there: Any, here: Any) -> tuple[str, str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            if there.get(key) != here.get(key):
                return _first_difference(f"{name} {key}", there.get(key), here.get(key))
    return f"{name} {there}", f"{here}"


def _fill(folder: Path, job: Job, progress: Progress) -> None:
    """Simulate and write the shards that are not committed yet."""
    meta = read_meta(folder)
    discard_uncommitted(folder, meta)
    writer, total = Writer(folder, meta), sum(meta["splits"].values())
    done, pending = sum(c["episodes"] + c["diverged"] for c in meta["counts"].values()), None
    progress("collect", done, total)
    shards = list(_shards(meta))
    with ThreadPoolExecutor(2) as threads:
        coming = [threads.submit(prepare, job, shard) for shard in shards[:1]]
        for shard, after in zip_longest(shards, shards[1:]):
            ready = coming.pop().result()
            if after is not None:
                coming.append(threads.submit(prepare, job, after))
            flown = fly(job, ready)
            if shard.number == 0:
                _check_flying(folder, job, flown)
            done = _settle(pending, progress, done, total)
            pending = shard, threads.submit(_write, writer, shard, flown)
        _settle(pending, progress, done, total)


def _check_flying(folder: Path, job: Job, flown: Flown) -> None:
    """Stop where there is nothing to collect, and leave no folder: the next try is another machine.

    Raises:
        InputError: almost all episodes of the first shard end within `TOO_SHORT` control periods.
    """
    ends, episodes = np.minimum(flown.ended, flown.sound), len(flown.ended)
    short = int(np.sum(ends <= TOO_SHORT))
    if job.steps <= TOO_SHORT or short < ALMOST_ALL * episodes:
        return
    shutil.rmtree(folder)
    diverged = int(np.sum(flown.sound < job.steps))
    if diverged > 0.5 * short:
        reason = (
            f"{diverged} of {episodes} flights diverge, as `physai check {job.plant.folder}` will "
            "say: halve the time step, or give joints ranges and damping"
        )
    else:
        reason = "the task terminates them: look at `terminated` and at the starts" + (
            "" if job.controller is None else ", or at the controller"
        )
    raise InputError(
        f"{folder}: nothing collected: {short} of the first {episodes} episodes end within "
        f"{TOO_SHORT} control periods; {reason}"
    )


def _settle(
    pending: tuple[Shard, Future[None]] | None, progress: Progress, done: int, total: int
) -> int:
    if pending is not None:
        shard, future = pending
        future.result()
        done += shard.episodes
        progress("collect", done, total)
    return done


def _shards(meta: dict[str, Any]) -> Iterator[Shard]:
    """Yield what is left to do."""
    size, number = meta["shard_episodes"], 0
    for split in SPLITS:
        episodes = meta["splits"][split]
        for index, first in enumerate(range(0, episodes, size)):
            if number >= meta["committed"]:
                yield Shard(number, split, index, first, min(size, episodes - first))
            number += 1


def _write(writer: Writer, shard: Shard, flown: Flown) -> None:
    """Tell apart what went well, ended early and diverged; write it and make it count."""
    # An episode that terminated before it diverged has ended as the task says, with sound data.
    terminated = flown.ended <= flown.sound
    diverged = ~terminated & (flown.sound < writer.meta["steps"])
    length = np.where(terminated, flown.ended, flown.sound).astype(np.int32)

    arrays = hold_ends(flown.arrays, length)
    writer.write(shard.split, shard.first, _blanked(arrays, diverged))
    meta, slot = writer.meta, first_slots(writer.meta)[shard.split] + shard.first
    if diverged.any():
        writer.write("diverged", slot, _blanked(arrays, ~diverged))
    counts = {split: dict(count) for split, count in meta["counts"].items()}
    for name, count in {
        "episodes": (~diverged).sum(),
        "diverged": diverged.sum(),
        "terminated": terminated.sum(),
        "valid_steps": length[~diverged].sum(),
    }.items():
        counts[shard.split][name] += int(count)
    rows = [*meta["diverged_rows"], *(slot + np.flatnonzero(diverged)).tolist()]
    writer.commit({"committed": shard.number + 1, "counts": counts, "diverged_rows": rows})


def _blanked(arrays: dict[str, np.ndarray], blank: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays with rows blanked: NaN, and a length of 0."""
    if not blank.any():
        return arrays
    arrays = {name: values.copy() for name, values in arrays.items()}
    for values in arrays.values():
        values[blank] = 0 if values.dtype == np.int32 else np.nan
    return arrays
