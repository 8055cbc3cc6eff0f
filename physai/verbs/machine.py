"""Verbs about a machine: write its folder, check it, measure its speed."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from physai import show
from physai.console import print_json, progress_bars
from physai.errors import InputError
from physai.plant import load_plant, plant_names
from physai.provenance import check_chain
from physai.report.bench import bench
from physai.report.break_even import break_even
from physai.report.inspection import inspect
from physai.scaffold import new_plant
from physai.surrogate.store import load_surrogate
from physai.task import load_task
from physai.verbs.common import Name, done


def check_verb(target: Name = "", all: bool = False, seed: int = 0, json: bool = False) -> int:
    """Check a plant against closed forms and look it over, or check an artefact's provenance.

    Args:
        target: a plant (name, folder, MJCF), or any artefact folder.
        all: run the closed-form checks of every shipped plant.
        seed: of the starts and actions with which a plant is looked over.
        json: print JSON to stdout.
    """
    if all == bool(target):
        raise InputError("check: expected a plant, an artefact folder or --all, and only one of it")
    if target and (Path(target) / "manifest.json").is_file():
        links = check_chain(Path(target))
        if json:
            print_json({"links": [show.link(link) for link in links]})
        else:
            show.chain(links)
        return 1 if any(not link.ok for link in links) else 0
    plants = [load_plant(name) for name in ([target] if target else plant_names())]
    results = {p.name: list(p.checks(p)) if p.checks else [] for p in plants}
    found = {}
    if target:
        with progress_bars() as progress:
            found[plants[0].name] = inspect(plants[0], load_task(plants[0]), seed, progress)
    if json:
        checked = {name: [show.check(c) for c in checks] for name, checks in results.items()}
        sensors = {p.name: [show.sensor(c) for c in p.sensor_channels] for p in plants}
        inspections = {n: i.record() for n, i in found.items()}
        print_json({"checks": checked, "sensors": sensors, "inspections": inspections})
    else:
        for plant in plants:
            show.checks(plant, results[plant.name])
        for name, inspection in found.items():
            show.inspection(name, inspection)
    return 1 if any(not c.passed for checks in results.values() for c in checks) else 0


def new_verb(
    target: Name,
    out: Path | None = None,
    model: Path | None = None,
    json: bool = False,
) -> int:
    """Write a plant folder to start from: a small machine that explains itself, or your own MJCF.

    Args:
        target: the name of the machine: letters, digits and underscores.
        out: the folder to write (default: one of that name, here).
        model: an MJCF file to start from (default: a flexible arm).
        json: print JSON to stdout.
    """
    folder, plant = new_plant(target, out, model)
    quoted = quote(str(folder))
    commands = [f"physai check {quoted}", f"physai run {quoted} --out runs/{target}"]
    if not plant.actions:  # it can be predicted, not controlled
        commands[1] = f"physai rollout {quoted} --out runs/{target}"
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return done({"out": str(folder), "files": files, "next": commands}, json, show.new)


def bench_verb(plant: Name, surrogate: Path, seed: int = 0, json: bool = False) -> int:
    """Measure control steps a second of the true simulator and of the surrogate on the same cores.

    Tells too after how many steps the surrogate has paid back its rollouts and training.

    Args:
        plant: the machine.
        surrogate: folder of the surrogate.
        seed: of states and actions.
        json: print JSON to stdout.
    """
    machine = load_plant(plant)
    with progress_bars() as progress:
        rows = bench(machine, load_surrogate(surrogate, machine), seed=seed, progress=progress)
    return done({"rows": rows, "break_even": break_even(surrogate, rows)}, json, show.bench)
