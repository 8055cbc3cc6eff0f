"""Verbs that do many things in a row: the whole flow, its report, a design study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from physai import show
from physai.console import progress_bars
from physai.design.study import StudySettings, run_study
from physai.flow import RunSettings, run
from physai.plant import load_plant
from physai.report.run import report_run
from physai.verbs.common import Flat, Name, done


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
    return done(summary, json, show.summary)


def report_verb(out: Path, json: bool = False) -> int:
    """Write the HTML report of a finished run anew.

    Args:
        out: folder of the run.
        json: print JSON to stdout.
    """
    return done({"report": str(report_run(out))}, json, show.record)


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
    return done(study, json, show.study)
