"""The whole flow of one machine: rollout, fit, learn, verify, export, report; resumable.

Every stage writes one artefact folder, whole or not at all, with a manifest that names its inputs
by hash. A second call with the same settings finds what is finished and goes on with the rest.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from physai.control.controller import batch_controller, policy_controller
from physai.errors import InputError
from physai.export.compiled import compiled_controller
from physai.export.export import export_policy
from physai.export.parity import call_nanoseconds
from physai.learn.imagination import Conditions
from physai.learn.learn import Comparison, learn_inputs, learn_policy, load_policy_folder
from physai.learn.value_gradient import LearnSettings
from physai.plant import Plant, check_driven, load_plant
from physai.progress import Progress, silent
from physai.provenance import Source, read_json, write_json
from physai.report.assemble import require_extra
from physai.report.bench import bench
from physai.report.run import last, report_run
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.dataset import Dataset
from physai.settings import check_number, check_whole
from physai.stages import Stages
from physai.surrogate.fit import FitSettings
from physai.surrogate.recalibrate import (
    RECORD,
    RecalibrateSettings,
    recalibrate,
    recalibrate_inputs,
)
from physai.surrogate.release import fit, fit_inputs, score_inputs, write_score
from physai.surrogate.score import ScoreSettings
from physai.surrogate.store import load_surrogate
from physai.task import load_task
from physai.verify.certificate import (
    Certificate,
    VerifySettings,
    certify,
    load_certificate,
)

SHOWN = (
    *("horizons", "nrmse", "position_error", "coverage", "baselines", "members_nrmse", "contact"),
    *("sharpness", "error_spread_correlation", "horizon_certificate"),
)
"""What the summary tells of the report card."""
OWN, ENOUGH = "own", 20
"""Name of what is made of the last policy's own episodes, and how many a split has at least."""


@dataclass(frozen=True)
class RunSettings:
    """Settings of the whole flow.

    Attributes:
        rollout: the first data collection.
        fit: the first fit.
        learn: the first learning.
        conditions: what imagined machines meet.
        flights: fresh scenarios a verification flies, without and with disturbances.
        rounds: most times that on-policy data are collected and surrogate and policy refitted.
        shortfall: share by which the true return may fall short of the imagined one before a round.
    """

    rollout: RolloutSettings = RolloutSettings()
    fit: FitSettings = FitSettings()
    learn: LearnSettings = LearnSettings()
    conditions: Conditions = Conditions()
    flights: int = 2000
    rounds: int = 2
    shortfall: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what no run can do."""
        check_whole(self, "flights", least=1)
        check_whole(self, "rounds", least=0)
        check_number(self, "shortfall", least=0.0)


def run(
    plant: str | Path | Plant,
    out: str | Path,
    settings: RunSettings | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Go from a MuJoCo model to a verified, exported controller and a report.

    Args:
        plant: a shipped plant's name, a folder, an MJCF file or a loaded plant.
        out: folder of the run; made if missing.
        settings: of every stage.
        seed: of everything random.
        progress: called as the work goes on.

    Returns:
        The summary that is also written to `out/summary.json`.

    Raises:
        InputError: bad input, or artefacts in `out` that were made otherwise.
    """
    started = time.monotonic()
    plant = check_driven(plant if isinstance(plant, Plant) else load_plant(plant))
    settings = settings or RunSettings()
    require_extra()
    r = Stages(plant, load_task(plant), Path(out), seed, progress)
    data, surrogate, policy, returns = _improve(r, settings)
    card = _score(r, surrogate, data)
    own = _recalibrate(r, settings, surrogate, policy, len(returns))
    certificate = _verify(r, settings, r.out / "certificate", "policy", policy)
    bundle = _export(r, policy, r.out / "certificate")
    compiled = _verify(r, settings, r.out / "certificate-c99", "bundle", bundle)
    parity = {
        **read_json(bundle / "parity.json"),
        "c99_nanoseconds_per_call": call_nanoseconds(bundle),
    }
    with r.timed("bench") as entry:
        speed = bench(plant, load_surrogate(surrogate, plant), seed=seed, progress=progress)
        entry["result"] = f"{speed[0]['steps_per_second']:.3g} true control steps/s"
    summary = {
        "plant": plant.name,
        "source": str(plant.folder),
        "out": str(r.out),
        "seed": seed,
        "score": {k: card[k] for k in SHOWN},
        "own_episodes": own,
        "returns": [asdict(c) for c in returns],
        "certificate": certificate.summary(),
        "certificate_c99": compiled.summary(),
        "parity": parity,
        "speed": speed,
        "stages": r.log,
    }
    write_json(r.out / "summary.json", summary)
    with r.timed("report") as entry:
        entry["result"] = str(report_run(r.out, plant))
    summary["seconds"] = round(time.monotonic() - started, 1)
    write_json(r.out / "summary.json", summary)
    return summary


def _improve(
    r: Stages, settings: RunSettings
) -> tuple[list[Dataset], Path, Path, list[Comparison]]:
    """Collect, fit and learn; then again on the policy's own flights while it falls short."""
    data: list[Dataset] = []
    comparisons: list[Comparison] = []
    surrogate = policy = None
    for number in range(settings.rounds + 1):
        folder = {w: r.out / last(w, number + 1) for w in ("dataset", "surrogate", "policy")}
        rollout = settings.rollout if policy is None else on_policy(settings.rollout)
        data.append(_collect(r, rollout, folder["dataset"], r.seed + number, policy))
        surrogate = _fit(r, settings, folder["surrogate"], data, surrogate)
        policy = _learn(r, settings, folder["policy"], surrogate, policy)
        _, card = load_policy_folder(policy)
        comparisons.append(Comparison(card["imagined_return"], card["true_return"]))
        if comparisons[-1].shortfall <= settings.shortfall:
            break
    assert surrogate is not None and policy is not None
    return data, surrogate, policy, comparisons


def _collect(
    r: Stages, rollout: RolloutSettings, folder: Path, seed: int, policy: Path | None
) -> Dataset:
    controller = None
    if policy is not None:
        controller = batch_controller(policy_controller(load_policy_folder(policy)[0]))
    with r.timed(folder.name) as entry:
        dataset = collect(
            r.plant, r.task, folder, rollout, seed, controller, r.progress, policy_folder=policy
        )
        entry["result"] = f"{dataset.steps:,} steps"
    return dataset


def on_policy(settings: RolloutSettings) -> RolloutSettings:
    """Return settings for collecting on a policy's own flights: a quarter of the episodes."""
    return replace(
        settings,
        train=-(-settings.train // 4),
        calibration=-(-settings.calibration // 4),
        test=-(-settings.test // 4),
    )


def _fit(
    r: Stages, settings: RunSettings, folder: Path, data: list[Dataset], start: Path | None
) -> Path:
    inputs = fit_inputs(data, start)
    make = lambda: fit(r.plant, data, folder, settings.fit, r.seed, start, r.progress)
    return r.stage(folder.name, folder, "surrogate", settings.fit, inputs, make)


def _learn(
    r: Stages, settings: RunSettings, folder: Path, surrogate: Path, start: Path | None
) -> Path:
    chosen = settings.learn
    if start is not None:
        chosen = replace(chosen, updates=chosen.updates // 2, policy_rate=chosen.policy_rate / 3)
    own = {"settings": asdict(chosen), "conditions": asdict(settings.conditions), "seed": r.seed}

    def make() -> None:
        learn_policy(
            r.plant,
            r.task,
            surrogate,
            folder,
            chosen,
            settings.conditions,
            r.seed,
            start,
            r.progress,
        )

    inputs = learn_inputs(r.plant, surrogate, start)
    return r.stage(folder.name, folder, "policy", own, inputs, make)


def _score(r: Stages, surrogate: Path, data: list[Dataset]) -> dict[str, Any]:
    folder = r.out / "score"
    inputs = score_inputs(surrogate, data)
    make = lambda: write_score(r.plant, surrogate, data, folder, r.seed, r.progress)
    r.stage("score", folder, "score", ScoreSettings(), inputs, make)
    return read_json(folder / "score.json")


def _recalibrate(
    r: Stages, settings: RunSettings, surrogate: Path, policy: Path, rounds: int
) -> dict[str, Any]:
    """Make intervals for the last policy's own episodes, and judge them beside the old ones.

    A policy whose episodes give none does not end the run: the reason takes the numbers' place.
    """
    data, folder = r.out / f"dataset-{OWN}", r.out / f"surrogate-{OWN}"
    counts = {s: max(getattr(settings.rollout, s), ENOUGH) for s in ("calibration", "test")}
    rollout = replace(settings.rollout, train=1, **counts)  # nothing is fitted on them
    chosen = RecalibrateSettings(stride=settings.fit.stride)
    sets: list[Dataset] = []
    try:
        sets.append(_collect(r, rollout, data, r.seed + rounds, policy))
        inputs = recalibrate_inputs(surrogate, sets)
        make = lambda: recalibrate(r.plant, surrogate, sets, folder, chosen, r.progress)
        r.stage(folder.name, folder, "surrogate", chosen, inputs, make)
    except InputError as error:
        if (folder if sets else data).exists():
            raise  # what is there was made otherwise
        return {"missing": f"No intervals for the policy's own episodes: {error}"}
    return read_json(folder / RECORD)


def _verify(r: Stages, settings: RunSettings, folder: Path, role: str, source: Path) -> Certificate:
    """Certify what lies in `source`: a policy, or a bundle, whose compiled C code flies."""
    chosen = VerifySettings().with_flights(settings.flights)
    inputs: dict[str, Source] = {"plant": r.plant, role: source}

    def make() -> None:
        if role == "bundle":
            controller = compiled_controller(source)
        else:
            controller = batch_controller(policy_controller(load_policy_folder(source)[0]))
        certify(
            r.plant,
            r.task,
            controller,
            folder,
            seed=r.seed,
            inputs={role: source},
            progress=r.progress,
            settings=chosen,
        )

    r.stage(folder.name, folder, "certificate", chosen, inputs, make)
    return load_certificate(folder)


def _export(r: Stages, policy: Path, certificate: Path) -> Path:
    folder = r.out / "bundle"
    inputs: dict[str, Source] = {"plant": r.plant, "policy": policy, "certificate": certificate}
    make = lambda: export_policy(r.plant, r.task, policy, folder, certificate, r.seed, r.progress)
    return r.stage("bundle", folder, "bundle", None, inputs, make)
