"""The verbs of the command line: each reads artefacts, calls one function of the library, shows it.

Every verb returns an exit status. With `--json` stdout carries one JSON document and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

from physai.verbs.data import convert_verb, import_verb, rollout_verb
from physai.verbs.machine import bench_verb, check_verb, new_verb
from physai.verbs.policy import export_verb, learn_verb, verify_verb
from physai.verbs.surrogate import (
    distil_verb,
    fit_verb,
    forecast_verb,
    recalibrate_verb,
    score_verb,
)
from physai.verbs.whole import design_verb, report_verb, run_verb

VERBS: dict[str, Callable[..., int]] = {
    "new": new_verb,
    "run": run_verb,
    "check": check_verb,
    "rollout": rollout_verb,
    "import": import_verb,
    "convert": convert_verb,
    "fit": fit_verb,
    "score": score_verb,
    "distil": distil_verb,
    "recalibrate": recalibrate_verb,
    "forecast": forecast_verb,
    "learn": learn_verb,
    "verify": verify_verb,
    "export": export_verb,
    "design": design_verb,
    "report": report_verb,
    "bench": bench_verb,
}
