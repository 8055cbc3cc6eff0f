"""The verbs of the command line: each reads artefacts, calls one function of the library, shows it.

Every verb returns an exit status. With `--json` stdout carries one JSON document and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import tyro

from physai import show
from physai.console import print_json, progress_bars, stdout
from physai.control.controller import BatchController, batch_controller, policy_controller
from physai.design.study import StudySettings, run_study
from physai.errors import InputError
from physai.exchange.convert import Format, convert_dataset
from physai.exchange.ingest import import_logs
from physai.exchange.windows import ImportSettings
from physai.export.bundle import read_contract
from physai.export.compiled import compiled_controller
from physai.export.export import export_policy
from physai.flow import RunSettings, run
from physai.learn.imagination import Conditions
from physai.learn.learn import learn_policy, load_policy_folder
from physai.learn.value_gradient import LearnSettings
from physai.plant import Plant, load_plant, plant_names
from physai.provenance import check_chain
from physai.report.bench import bench
from physai.report.inspection import inspect
from physai.report.run import report_run
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.dataset import open_dataset
from physai.scaffold import new_plant
from physai.surrogate.fit import FitSettings
from physai.surrogate.release import fit, write_score
from physai.surrogate.store import load_surrogate
from physai.task import Task, design_aware, load_task
from physai.verify.certificate import certify

Name = Annotated[str, tyro.conf.Positional]
Names = Annotated[list[str], tyro.conf.Positional]
Flat = tyro.conf.arg(name="")


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
        print_json({"checks": checked, "inspections": {n: i.record() for n, i in found.items()}})
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
    return _done({"out": str(folder), "files": files, "next": commands}, json, show.new)


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
    machine, task = _load(plant)
    controller = None if policy is None else _controller(policy, task, machine)[0]
    with progress_bars() as progress:
        collect(
            machine, task, out, settings, seed, controller, policy_folder=policy, progress=progress
        )
    dataset = open_dataset(out, machine)
    result = {"out": str(out), "steps": dataset.steps, "diverged": dataset.diverged}
    return _done(result, json, show.record)


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
    machine, task = _load(plant)
    with progress_bars() as progress:
        dataset, report = import_logs(machine, task, logs, out, mapping, settings, seed, progress)
    return _done({"out": str(out), "steps": dataset.steps, **report}, json, show.imported)


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
    machine, task = _load(plant)
    with progress_bars() as progress:
        recorded = open_dataset(dataset, machine)
        result = convert_dataset(machine, task, recorded, to, out, progress)
    return _done({"out": str(out), "to": to, **result}, json, show.record)


def fit_verb(
    plant: Name,
    dataset: list[Path],
    out: Path,
    start: Path | None = None,
    settings: Annotated[FitSettings, Flat] = FitSettings(),
    seed: int = 0,
    json: bool = False,
) -> int:
    """Fit a surrogate to datasets.

    Args:
        plant: the machine of the datasets.
        dataset: one or more dataset folders.
        out: folder of the surrogate.
        start: a surrogate to go on from.
        settings: how to fit.
        seed: of weights and batches.
        json: print JSON to stdout.
    """
    machine = load_plant(plant)
    data = [open_dataset(folder, machine) for folder in dataset]
    with progress_bars() as progress:
        surrogate = fit(machine, data, out, settings, seed, start, progress)
    result = {"out": str(out), "members": surrogate.members}
    return _done(result, json, show.record)


def score_verb(
    plant: Name,
    surrogate: Path,
    dataset: list[Path],
    out: Path,
    seed: int = 0,
    json: bool = False,
) -> int:
    """Write the report card of a surrogate on the datasets' test episodes.

    Args:
        plant: the machine.
        surrogate: folder of the surrogate.
        dataset: one or more dataset folders.
        out: folder of the report card.
        seed: recorded in the manifest; scoring draws nothing.
        json: print JSON to stdout.
    """
    machine = load_plant(plant)
    data = [open_dataset(folder, machine) for folder in dataset]
    card = write_score(machine, surrogate, data, out, seed)
    return _done(card, json, show.score)


def learn_verb(
    plant: Name,
    surrogate: Path,
    out: Path,
    start: Path | None = None,
    aware: bool = False,
    settings: Annotated[LearnSettings, Flat] = LearnSettings(),
    conditions: Conditions = Conditions(),
    seed: int = 0,
    json: bool = False,
) -> int:
    """Learn a policy inside a surrogate.

    Args:
        plant: the machine.
        surrogate: folder of the surrogate.
        out: folder of the policy.
        start: a policy to go on from.
        aware: let the policy see the design vector.
        settings: how to learn.
        conditions: what the imagined machines meet.
        seed: of every draw.
        json: print JSON to stdout.
    """
    machine, task = _load(plant)
    task = design_aware(task, machine) if aware else task
    with progress_bars() as progress:
        _, comparison = learn_policy(
            machine,
            task,
            surrogate,
            out,
            settings,
            conditions,
            seed,
            start,
            progress,
        )
    result = {"out": str(out), "imagined": comparison.imagined, "true": comparison.true}
    return _done(result, json, show.record)


def verify_verb(
    plant: Name,
    policy: Path,
    out: Path,
    flights: int = 2000,
    seed: int = 0,
    json: bool = False,
) -> int:
    """Fly fresh scenarios in true MuJoCo and write the certificate.

    Args:
        plant: the machine.
        policy: folder of a policy, or of a bundle (then its compiled C code flies).
        out: folder of the certificate.
        flights: scenarios, without and with disturbances each.
        seed: of the scenarios.
        json: print JSON to stdout.
    """
    machine, task = _load(plant)
    controller, task, role = _controller(policy, task, machine)
    inputs = {role: policy, "plant": machine}
    with progress_bars() as progress:
        certificate = certify(
            machine,
            task,
            controller,
            out,
            flights=flights,
            seed=seed,
            inputs=inputs,
            progress=progress,
        )
    return _done(certificate.summary(), json, show.certificate)


def export_verb(
    plant: Name,
    policy: Path,
    out: Path,
    certificate: Path | None = None,
    seed: int = 0,
    json: bool = False,
) -> int:
    """Export a policy to C99 and ONNX, and compare both with JAX.

    Args:
        plant: the machine.
        policy: folder of the policy.
        out: folder of the bundle.
        certificate: folder of its certificate, to ship along.
        seed: of the observations compared.
        json: print JSON to stdout.
    """
    machine, task = _load(plant)
    with progress_bars() as progress:
        parity = export_policy(machine, task, policy, out, certificate, seed, progress)
    return _done(parity, json, show.record)


def design_verb(
    plant: Name,
    out: Path,
    surrogate: Path | None = None,
    settings: Annotated[StudySettings, Flat] = StudySettings(),
    seed: int = 0,
    json: bool = False,
) -> int:
    """Search the design space on the surrogate, and re-run every Pareto point in true MuJoCo.

    Args:
        plant: the machine.
        out: folder of the study.
        surrogate: folder of a surrogate (default: collect and fit one in `out`).
        settings: of the study.
        seed: of every draw.
        json: print JSON to stdout.
    """
    with progress_bars() as progress:
        study = run_study(load_plant(plant), out, surrogate, settings, seed, progress)
    return _done(study, json, show.study)


def run_verb(
    plant: Name,
    out: Path,
    settings: Annotated[RunSettings, Flat] = RunSettings(),
    seed: int = 0,
    json: bool = False,
) -> int:
    """Do the whole flow: rollout, fit, learn, verify, export, report.

    Args:
        plant: a shipped plant's name, a folder or an MJCF file.
        out: folder of the run.
        settings: of every stage.
        seed: of every draw.
        json: print JSON to stdout.
    """
    with progress_bars() as progress:
        summary = run(plant, out, settings, seed, progress)
    return _done(summary, json, show.summary)


def report_verb(out: Path, json: bool = False) -> int:
    """Write the HTML report of a finished run anew.

    Args:
        out: folder of the run.
        json: print JSON to stdout.
    """
    return _done({"report": str(report_run(out))}, json, show.record)


def bench_verb(plant: Name, surrogate: Path, seed: int = 0, json: bool = False) -> int:
    """Measure control steps a second of the true simulator and of the surrogate on the same cores.

    Args:
        plant: the machine.
        surrogate: folder of the surrogate.
        seed: of states and actions.
        json: print JSON to stdout.
    """
    machine = load_plant(plant)
    with progress_bars() as progress:
        rows = bench(machine, load_surrogate(surrogate, machine), seed=seed, progress=progress)
    return _done({"rows": rows}, json, lambda result: show.speed(result["rows"]))


VERBS: dict[str, Callable[..., int]] = {
    "new": new_verb,
    "run": run_verb,
    "check": check_verb,
    "rollout": rollout_verb,
    "import": import_verb,
    "convert": convert_verb,
    "fit": fit_verb,
    "score": score_verb,
    "learn": learn_verb,
    "verify": verify_verb,
    "export": export_verb,
    "design": design_verb,
    "report": report_verb,
    "bench": bench_verb,
}


def _load(plant: str) -> tuple[Plant, Task]:
    machine = load_plant(plant)
    return machine, load_task(machine)


def _controller(folder: Path, task: Task, plant: Plant) -> tuple[BatchController, Task, str]:
    """Load what flies: a policy, design-aware where its card says so, or a bundle's C code."""
    if (folder / "contract.json").is_file():
        seen, role = len(read_contract(folder / "contract.json").observations), "bundle"
        controller = compiled_controller(folder)
    else:
        policy, card = load_policy_folder(folder)
        seen, role = len(card["observations"]), "policy"
        controller = batch_controller(policy_controller(policy))
    for candidate in (task, design_aware(task, plant)):
        if candidate.no == seen:
            return controller, candidate, role
    raise InputError(
        f"{folder}: the {role} sees {seen} channels, the task gives {task.no}; "
        "was it learned for another plant?"
    )


def _done(result: Any, json: bool, draw: Callable[[Any], None]) -> int:
    if json:
        print_json(result)
    else:
        draw(result)
        stdout.file.flush()
    return 0
