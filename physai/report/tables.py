"""The report's tables, filled from what the stages left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from physai.learn.learn import Comparison
from physai.plant import Check, Plant
from physai.provenance import Link
from physai.report.text import THIN, Table, bound, interval, number, percent, whole
from physai.task import Task
from physai.verify import Certificate


def channel_table(plant: Plant, task: Task) -> Table:
    """Return the channels of plant and task with unit and range."""
    rows = [
        (kind, c.name, c.unit, bound(c.low), bound(c.high), noise)
        for kind, channels in (
            ("action", plant.actions),
            ("disturbance", plant.disturbances),
            ("command", task.commands),
            ("observation", task.observations),
            ("sensor", plant.sensor_channels),
        )
        for c in channels
        for noise in [number(getattr(c, "noise", getattr(c, "std", None)))]
    ]
    return Table(("kind", "channel", "unit", "low", "high", "standard deviation"), rows, 3)


def design_table(plant: Plant) -> Table:
    """Return the design variables."""
    rows = [
        (v.name, v.unit, number(v.low), number(v.nominal), number(v.high)) for v in plant.design
    ]
    return Table(("design variable", "unit", "low", "nominal", "high"), rows, 2)


def check_table(checks: Sequence[Check]) -> Table:
    """Return the closed-form checks."""
    rows = [
        (
            c.quantity,
            c.unit,
            "passed" if c.passed else "FAILED",
            number(c.expected, 5),
            number(c.simulated, 5),
            number(c.error, 2),
            number(c.tolerance, 2),
        )
        for c in checks
    ]
    head = ("quantity", "unit", "outcome", "closed form", "simulated", "difference", "tolerance")
    return Table(head, rows, 3)


def dataset_table(datasets: Mapping[str, Mapping[str, Any]], period: float) -> Table:
    """Return what each dataset holds, by split."""
    rows = []
    for name, meta in datasets.items():
        for split, counts in meta["counts"].items():
            numbers = [counts[key] for key in ("episodes", "valid_steps", "terminated", "diverged")]
            episodes, periods, terminated, diverged = numbers
            minutes = number(periods * period / 60.0)
            counted = (whole(episodes), whole(periods), minutes, whole(terminated), whole(diverged))
            rows.append((name, split, *counted))
    head = ("dataset", "split", "episodes", "control periods", "simulated time, min", "ended early")
    return Table((*head, "diverged"), rows, 2)


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """Return imagined and true return, round by round."""
    rows = [
        (f"{i}", number(c.imagined, 4), number(c.true, 4), f"{100 * c.shortfall:.1f}{THIN}%")
        for i, c in enumerate(comparisons)
    ]
    return Table(("round", "imagined return", "true return", "true short of imagined"), rows)


def requirement_table(certificates: Mapping[str, Certificate]) -> Table:
    """Return each requirement of each certificate and condition with its pass rate."""
    rows = []
    for name, certificate in certificates.items():
        for c in certificate.conditions:
            for r in c.requirements:
                limit = f"{number(r.limit)} {r.unit}"
                measured = (number(r.median), number(r.p95), number(r.worst))
                rate = (f"{percent(r.rate)}", interval(r.low, r.high))
                rows.append((name, c.name, r.name, limit, f"{r.passed}", *rate, *measured))
            rate = (percent(c.rate), interval(c.low, c.high))
            rows.append((name, c.name, "all together", "", f"{c.passed}", *rate, "", "", ""))
    head = ("controller", "condition", "requirement", "limit", "flights passed", "pass rate")
    return Table((*head, "interval", "median", "95th percentile", "worst"), rows, 3)


def condition_table(certificate: Certificate) -> Table:
    """Return what the flights of each condition met, and what else happened in them."""
    kinds: list[tuple[str, Any]] = [
        ("flights", lambda c: whole(c.flights)),
        ("gusts, factor on the plant's standard deviation", lambda c: number(c.settings.gusts)),
        ("sensor noise, factor on the task's", lambda c: number(c.settings.sensor_noise)),
        ("delay of the action, control periods", lambda c: number(c.settings.delay_steps)),
        ("masses and inertias wrong by up to", lambda c: percent(c.settings.mass_spread)),
        ("simulation diverged, flights", lambda c: whole(c.diverged)),
        ("lost for good by the task's own rule, flights", lambda c: whole(c.lost)),
        ("controller's action was not finite, flights", lambda c: whole(c.controller_faults)),
        ("mean return", lambda c: number(c.mean_return, 4)),
        ("settling time, median, s", lambda c: number(c.settling_median)),
        ("settling time, 95th percentile, s", lambda c: number(c.settling_p95)),
        ("never settled, flights", lambda c: number(c.never_settled, 6)),
    ]
    rows = [(title, *[show(c) for c in certificate.conditions]) for title, show in kinds]
    return Table(("", *[c.name for c in certificate.conditions]), rows)


def parity_table(parity: Mapping[str, Any]) -> Table:
    """Return how far the exported code is from JAX."""
    samples = whole(parity["samples"])
    return Table(
        ("exported as", "observations compared", "largest difference, share of the range",
         "expected at most", "largest difference, the action's unit"),
        [
            ("C99", samples, f"{parity['c99_max_error_of_range']:.2g}",
             f"{parity['tolerance']:.2g}", f"{parity['c99_max_error']:.2g}"),
            ("ONNX", samples, f"{parity['onnx_max_error_of_range']:.2g}",
             f"{parity['tolerance']:.2g}", f"{parity['onnx_max_error']:.2g}"),
        ],
    )  # fmt: skip


def speed_table(rows: Sequence[Mapping[str, Any]], score: Mapping[str, Any] | None) -> Table:
    """Return control steps a second, and beside each speed of a surrogate its error."""
    shown = []
    for row in rows:
        error = "not scored"
        if row["model"] in ("mujoco", "true plant"):
            error = "reference"
        elif row["model"] == "surrogate" and score is not None:
            error = f"{number(score['nrmse'][-1])} after {score['horizons'][-1]} periods"
        elif row["model"] == "member":
            error = "not scored alone"
        spread = f"{whole(row['slowest'], 3)} to {whole(row['fastest'], 3)}"
        steps = whole(row["steps_per_second"], 3)
        place = f"{row['float_type']}, {row['device']}"
        shown.append((row["description"], place, steps, spread, f"{number(row['ratio'])} ×", error))
    head = ("model", "arithmetic", "control steps a second, median", "slowest to fastest repeat")
    return Table((*head, "in terms of MuJoCo alone", "nRMSE"), shown, 2)


def stage_table(stages: Sequence[tuple[str, float, str]], top: Path) -> Table:
    """Return what each stage took and made; places are told relative to the folder of the run."""
    rows = [(name, made.replace(f"{top}/", ""), number(seconds)) for name, seconds, made in stages]
    total = sum(seconds for _, seconds, _ in stages)
    return Table(("stage", "what came out", "time, s"), [*rows, ("all", "", number(total))], 2)


def chain_table(chain: Sequence[Link], top: Path) -> Table:
    """Return the provenance chain; places are told relative to the folder of the run."""
    rows = []
    for link in chain:
        inside = link.path.is_relative_to(top)
        place = link.path.relative_to(top).as_posix() if inside else link.path.name
        detail = link.detail.replace(f"{top}/", "")
        rows.append((link.name, place, "yes" if link.ok else "NO", detail))
    return Table(("used as", "folder", "holds", "what was found"), rows, 4)
