"""Verbs that make datasets, and turn them into other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from physai import show
from physai.console import progress_bars
from physai.exchange.convert import Format, convert_dataset
from physai.exchange.ingest import import_logs
from physai.exchange.windows import ImportSettings
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.dataset import open_dataset
from physai.verbs.common import Flat, Name, Names, done, flown_controller, load


def rollout_verb(
    plant: Name,
    out: Path,
    policy: Path | None = None,
    settings: Annotated[RolloutSettings, Flat] = RolloutSettings(),
    seed: int = 0,
    json: bool = False,
) -> int:
    """Collect episodes in the true simulator.

    Args:
        plant: a shipped plant's name, a folder or an MJCF file.
        out: folder of the dataset.
        policy: folder of a policy to fly with, noise on top (default: noise alone).
        settings: how much, and how excited.
        seed: of every draw.
        json: print JSON to stdout.
    """
    machine, task = load(plant)
    controller = None if policy is None else flown_controller(policy, task, machine)[0]
    with progress_bars() as progress:
        collect(
            machine, task, out, settings, seed, controller, policy_folder=policy, progress=progress
        )
    dataset = open_dataset(out, machine)
    result = {"out": str(out), "steps": dataset.steps, "diverged": dataset.diverged}
    return done(result, json, show.record)


def import_verb(
    plant: Name,
    logs: Names,
    out: Path,
    mapping: Path | None = None,
    settings: Annotated[ImportSettings, Flat] = ImportSettings(),
    seed: int = 0,
    json: bool = False,
) -> int:
    """Make a dataset of logs of a real machine, or of a Minari dataset.

    Args:
        plant: the model of the machine.
        logs: CSV, Parquet and MCAP files, or Minari datasets by folder or local id.
        out: folder of the dataset.
        mapping: TOML file that says which column is which channel, in what unit.
        settings: how the logs become episodes.
        seed: of the draw of the splits.
        json: print JSON to stdout.
    """
    machine, task = load(plant)
    with progress_bars() as progress:
        dataset, report = import_logs(machine, task, logs, out, mapping, settings, seed, progress)
    return done({"out": str(out), "steps": dataset.steps, **report}, json, show.imported)


def convert_verb(
    plant: Name,
    dataset: Annotated[Path, tyro.conf.Positional],
    to: Format,
    out: Path,
    json: bool = False,
) -> int:
    """Write a dataset as a Minari dataset, or as a table with its mapping file.

    Args:
        plant: the machine of the dataset.
        dataset: folder of the dataset.
        to: the format.
        out: folder of what is written.
        json: print JSON to stdout.
    """
    machine, task = load(plant)
    with progress_bars() as progress:
        recorded = open_dataset(dataset, machine)
        result = convert_dataset(machine, task, recorded, to, out, progress)
    return done({"out": str(out), "to": to, **result}, json, show.record)
