"""What a study found: verified, as plain data, as a table to print and as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from physai.design.calibration import ROUNDING
from physai.design.evaluations import Evaluations, csv_text, number
from physai.design.optimise import nondominated
from physai.design.sampling import Outcome, Trials
from physai.design.variables import DesignSpace
from physai.progress import Progress, silent
from physai.task import Objective, Task
from physai.verify.results import clopper_pearson

CONFIDENCE = 0.95


def rows(study: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the table of a study: columns, and one row a point of the Pareto set.

    Objectives show the predicted value, with the half width of its interval in the heading, then
    the verified value, marked `!` where it lies outside; one that repeats a design variable is left
    out. The last column marks the points that pass and that no other passing one dominates.
    """
    names = [v["name"] for v in study["variables"]]
    columns = [f"{v['name']} {v['unit']}" for v in study["variables"]]
    shown = [o for o in study["objectives"] if not (o["exact"] and o["name"] in names)]
    for o in shown:
        half = "?" if o["half_width"] is None else f"{o['half_width']:.2g}"
        columns += [f"{o['name']} {o['unit']}" + ("" if o["exact"] else f" ±{half}"), "true"]
    columns += ["passed", f"{100 * study['confidence']:g}% interval", "front"]
    table = []
    for p in study["pareto"]:
        row = [_text(p["design"][name]) for name in names]
        for o in shown:
            outside = p["inside"][o["name"]] is False
            row += [_text(p["predicted"][o["name"]])]
            row += [_text(p["verified"][o["name"]]) + ("!" if outside else "")]
        row += [f"{100 * p['rate']:.4g}%"]
        row += [f"{100 * p['low']:.3g}–{100 * p['high']:.3g}%"]
        table.append([*row, "yes" if p["verified_pareto"] else ""])
    return columns, table


def objective_rows(study: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return how predictions fared: one row an objective, and one for all of them at once."""
    share = f"inside {100 * study['coverage']:g}% interval"
    columns = ["objective", "unit", "half width", share, "optimism"]
    table = []
    for o in study["objectives"]:
        width = "exact" if o["exact"] else _text(o["half_width"])
        table.append([o["name"], o["unit"], width, _percent(o["inside"]), _text(o["optimism"])])
    return columns, [*table, ["all at once", "", "", _percent(study["inside_all"]), ""]]


def conclude(
    trials: Trials,
    space: DesignSpace,
    found: Evaluations,
    calibration: Mapping[str, Any],
    pass_rate: float,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Verify every point of the Pareto set in true MuJoCo, and return the study's summary.

    Args:
        trials: how designs are flown.
        space: names the variables.
        found: the search.
        calibration: from `physai.design.calibration.calibrate`.
        pass_rate: a design passes when its pass rate is shown to be at least this.
        progress: called design by design.
    """
    objectives, half_width = trials.task.objectives, calibration["half_width"]
    points: list[dict[str, Any]] = []
    if found.pareto.any():
        order = np.argsort(found.values[found.pareto, 0], kind="stable")
        designs = found.designs[found.pareto][order]
        predicted = trials.predict(designs)
        verified = trials.verify(designs, "verify designs", progress)
        points = describe_points(
            space, trials.task, half_width, pass_rate, designs, predicted, verified
        )
    return {
        "plant": trials.plant.name,
        "seed": trials.seed,
        "coverage": calibration["coverage"],
        "confidence": CONFIDENCE,
        "pass_rate": pass_rate,
        "variables": [asdict(v) for v in space.variables],
        "objectives": [describe_objective(o, half_width, points) for o in objectives],
        "calibration_designs": calibration["designs"],
        "evaluations": len(found.designs),
        "feasible": int(found.feasible.sum()),
        "flights": {"search": trials.starts, "verify": trials.flights},
        "pareto": points,
        "inside_all": _share([p["inside_all"] for p in points]),
        "passing": sum(p["passes"] for p in points),
        "verified_pareto": [i for i, p in enumerate(points) if p["verified_pareto"]],
    }


def describe_points(
    space: DesignSpace,
    task: Task,
    half_width: Mapping[str, float | None],
    pass_rate: float,
    designs: np.ndarray,
    predicted: Outcome,
    verified: Outcome,
) -> list[dict[str, Any]]:
    """Return what is said of each point of a Pareto set, in JSON's own types.

    Args:
        space: names the variables.
        task: names the objectives.
        half_width: of each objective's interval (None: there is none).
        pass_rate: a design passes when the lower end of its interval is at least this.
        designs: `[n, nd]`.
        predicted, verified: of these designs.
    """
    points = []
    chosen = space.chosen(designs)
    names = [o.name for o in task.objectives]
    for i, design in enumerate(chosen):
        low, high = clopper_pearson(int(verified.passed[i]), verified.flights, CONFIDENCE)
        pairs = zip(names, predicted.values[i], verified.values[i], strict=True)
        inside = {n: _inside(p, v, half_width[n]) for n, p, v in pairs}
        known = [x for x in inside.values() if x is not None]
        points.append(
            {
                "design": _named([v.name for v in space.variables], design),
                "predicted": _named(names, predicted.values[i]),
                "predicted_settled": float(predicted.settled[i]),
                "outside_domain": float(predicted.outside[i]),
                "verified": _named(names, verified.values[i]),
                "settled": float(verified.settled[i]),
                "inside": inside,
                "inside_all": all(known) if len(known) == len(names) else None,
                "passed": int(verified.passed[i]),
                "rate": float(verified.passed[i] / verified.flights),
                "low": low,
                "high": high,
                "passes": bool(low >= pass_rate),
                "verified_pareto": False,
            }
        )
    passing = [
        i for i, p in enumerate(points) if p["passes"] and np.isfinite(verified.values[i]).all()
    ]
    best = nondominated(verified.values[passing], [o.maximise for o in task.objectives])
    for i in np.asarray(passing, int)[best]:
        points[i]["verified_pareto"] = True
    return points


def describe_objective(
    objective: Objective,
    half_width: Mapping[str, float | None],
    points: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return what is said of an objective: its interval, the share inside, and the optimism.

    Optimism is by how much verified values are worse than predicted on average, in its unit.
    """
    name, sign = objective.name, -1.0 if objective.maximise else 1.0
    width = half_width[name]
    pairs = [(p["predicted"][name], p["verified"][name]) for p in points]
    worse = [sign * (v - p) for p, v in pairs if p is not None and v is not None]
    return {
        "name": name,
        "description": objective.description,
        "unit": objective.unit,
        "maximise": objective.maximise,
        "half_width": width,
        "exact": width == 0.0,
        "inside": _share([p["inside"][name] for p in points]),
        "optimism": float(np.mean(worse)) if worse else None,
    }


def _inside(predicted: float, verified: float, width: float | None) -> bool | None:
    if width is None:
        return None
    slack = ROUNDING * max(abs(predicted), abs(verified))
    return bool(abs(verified - predicted) <= width + slack)


def _share(found: Sequence[bool | None]) -> float | None:
    """Return the share that is True of those that are not None."""
    known = [x for x in found if x is not None]
    return float(np.mean(known)) if known else None


def _named(names: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    return {name: number(x) for name, x in zip(names, values, strict=True)}


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.3g}%"


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def pareto_csv(summary: Mapping[str, Any]) -> str:
    """Return the Pareto set of a study's summary as CSV."""
    variables = [v["name"] for v in summary["variables"]]
    objectives = [o["name"] for o in summary["objectives"]]
    ways = ("predicted", "half_width", "verified", "inside")
    each = [f"{way}.{name}" for name in objectives for way in ways]
    rest = ["settled", "passed", "rate", "low", "high"]
    rest += ["outside_domain", "passes", "verified_pareto"]
    table = []
    for p in summary["pareto"]:
        row = [p["design"][n] for n in variables]
        for o in summary["objectives"]:
            n = o["name"]
            row += [p["predicted"][n], o["half_width"], p["verified"][n], p["inside"][n]]
        table.append([*row, *(p[key] for key in rest)])
    return csv_text([*(f"design.{n}" for n in variables), *each, *rest], table)
