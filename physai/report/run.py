"""The report of a finished run, from the artefacts that its stages left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from physai.errors import InputError
from physai.learn.learn import Comparison
from physai.plant import Plant, load_plant
from physai.provenance import check_chain, read_json
from physai.report.assemble import ReportParts, write_report
from physai.surrogate.score import FORMAT
from physai.task import load_task


def report_run(out: str | Path, plant: Plant | None = None) -> Path:
    """Write `out/report/report.html` from the artefacts and the summary of a finished run.

    Args:
        out: folder of the run.
        plant: the machine (None: load the one that the summary names).

    Raises:
        InputError: the run is not finished.
    """
    out = Path(out)
    if not (out / "summary.json").is_file():
        raise InputError(f"{out}: no finished run here; give `physai run` first")
    summary = read_json(out / "summary.json")
    plant = plant or load_plant(summary["source"])
    rounds = len(summary["returns"])
    folders = {what: out / last(what, rounds) for what in ("surrogate", "policy")}
    inputs = {
        **folders,
        "score": out / "score",
        "certificate": out / "certificate",
        "bundle": out / "bundle",
        "certificate-c99": out / "certificate-c99",
    }
    own = summary["own_episodes"]
    if "missing" not in own:
        inputs["surrogate-own"] = out / "surrogate-own"
    chain = [link for folder in inputs.values() for link in check_chain(folder)]
    parts = ReportParts(
        plant=plant,
        task=load_task(plant),
        score=_card(out / "score" / "score.json"),
        recalibration=own,
        fit_curve=folders["surrogate"] / "fit.csv",
        learning=[out / last("policy", n + 1) / "learning.csv" for n in range(rounds)],
        comparisons=[Comparison(**c) for c in summary["returns"]],
        certificates={"policy": out / "certificate", "c99": out / "certificate-c99"},
        parity=summary["parity"],
        bench=summary["speed"],
        checks=list(plant.checks(plant)) if plant.checks else [],
        stages=[(s["stage"], s["seconds"], s["result"]) for s in summary["stages"]],
        chain=list({link.path: link for link in chain}.values()),
    )
    return write_report(out / "report", parts, inputs, summary["seed"])


def _card(path: Path) -> dict[str, Any]:
    card = read_json(path)
    if card.get("format") != FORMAT:
        raise InputError(
            f"{path}: expected a report card of format {FORMAT}, got {card.get('format', 'none')}: "
            "score the surrogate again with `physai score`"
        )
    return card


def last(what: str, rounds: int) -> str:
    """Return the name of an artefact of the last of `rounds` rounds."""
    return what if rounds == 1 else f"{what}-{rounds - 1}"
