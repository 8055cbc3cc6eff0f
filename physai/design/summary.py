"""What a study found, as plain data, as a table to print and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from physai.design.optimise import Search, nondominated
from physai.design.sampling import Outcome
from physai.design.variables import DesignSpace
from physai.task import Objective, Task
from physai.verify.results import clopper_pearson

CONFIDENCE = 0.95
ROUNDING = 1e-6  # relative; an objective that is exact may differ by the order of a float32 sum


def rows(study: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the table of a study: columns, and one row a point of the Pareto set.

    Objectives show predicted value and half width, then the verified value, marked `!` where it
    lies outside; one that repeats a design variable is left out. The last column marks the points
    that pass and that no other passing one dominates.
    """
    names = [v["name"] for v in study["variables"]]
    columns = [f"{v['name']} {v['unit']}" for v in study["variables"]]
    shown = [o for o in study["objectives"] if not (o["exact"] and o["name"] in names)]
    for o in shown:
        columns += [f"{o['name']} {o['unit']}", "true"]
    columns += ["settled", "passed", f"{100 * study['confidence']:g}% interval", "verified front"]
    table = []
    for p in study["pareto"]:
        row = [_text(p["design"][name]) for name in names]
        for o in shown:
            predicted, width = p["predicted"][o["name"]], o["half_width"]
            interval = "" if o["exact"] else " ± ?" if width is None else f" ± {width:.2g}"
            outside = p["inside"][o["name"]] is False
            row += [_text(predicted) + interval]
            row += [_text(p["verified"][o["name"]]) + ("!" if outside else "")]
        row += [f"{100 * p['settled']:.4g}%", f"{100 * p['rate']:.4g}%"]
        row += [f"{100 * p['low']:.3g} to {100 * p['high']:.3g}%"]
        table.append([*row, "yes" if p["verified_pareto"] else ""])
    return columns, table


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
        "inside": share([p["inside"][name] for p in points]),
        "optimism": float(np.mean(worse)) if worse else None,
    }


def _inside(predicted: float, verified: float, width: float | None) -> bool | None:
    if width is None:
        return None
    slack = ROUNDING * max(abs(predicted), abs(verified))
    return bool(abs(verified - predicted) <= width + slack)


def share(found: Sequence[bool | None]) -> float | None:
    """Return the share that is True of those that are not None."""
    known = [x for x in found if x is not None]
    return float(np.mean(known)) if known else None


def _named(names: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    return {name: number(x) for name, x in zip(names, values, strict=True)}


def number(value: Any) -> float | None:
    """Return a JSON number, None for what is not finite."""
    return float(value) if np.isfinite(value) else None


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def evaluations_csv(space: DesignSpace, objectives: Sequence[Objective], found: Search) -> str:
    """Return every evaluation of a search as CSV."""
    columns = ["generation", *(v.name for v in space.variables), *(o.name for o in objectives)]
    designs = space.chosen(space.designs(found.points))
    table = [
        [int(g), *map(number, d), *map(number, f), number(1.0 - v), int(ok), int(best)]
        for g, d, f, v, ok, best in zip(
            found.generation,
            designs,
            found.values,
            found.violation,
            found.feasible,
            found.pareto,
            strict=True,
        )
    ]
    return csv_text([*columns, "settled", "feasible", "pareto"], table)


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
    return csv_text([*variables, *each, *rest], table)


def csv_text(columns: Sequence[str], table: Sequence[Sequence[Any]]) -> str:
    """Return a table as CSV: None is empty, truth is 1 or 0."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in table:
        cells = [int(x) if isinstance(x, bool) else x for x in row]
        writer.writerow(
            ["" if x is None else f"{x:.9g}" if isinstance(x, float) else x for x in cells]
        )
    return text.getvalue()
