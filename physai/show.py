"""Results as tables on a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from physai.console import stdout, table
from physai.plant import Channel, Check, Plant, left_out
from physai.provenance import Link
from physai.report.inspection import Inspection, table_rows
from physai.report.score import recalibration_sentence, sentences


def record(result: Mapping[str, Any]) -> None:
    """Print a flat record, a line a field."""
    table("", ("", ""), [(k, v) for k, v in result.items() if not isinstance(v, dict | list)])


def fitted(result: Mapping[str, Any]) -> None:
    """Print what was fitted, and what it is worth beside what it went on from."""
    record(result)
    if (beside := result.get("adapted")) is None:
        return
    columns = {"start": "start as it was", "adapted": "fine-tuned", "scratch": "from scratch"}
    _side_by_side(beside, columns)


def distilled(result: Mapping[str, Any]) -> None:
    """Print the student's error beside its teacher's."""
    record({"out": result["out"]})
    _side_by_side(result, {"teacher": "teacher", "student": "student"})


def _side_by_side(beside: Mapping[str, Any], columns: Mapping[str, str]) -> None:
    names = [name for name in columns if name in beside["nrmse"]]
    rows = [
        (str(h), *(_percent(beside["nrmse"][name][i]) for name in names))
        for i, h in enumerate(beside["horizons"])
    ]
    title = f"nRMSE % on {beside['windows']:,} windows of {beside['split']} episodes"
    table(title, ("steps ahead", *(columns[name] for name in names)), rows)
    for name, count in beside["blown_up"].items():
        if count:
            stdout.print(f"{columns[name]}: {count:,} windows blew up and are left out")


def new(result: Mapping[str, Any]) -> None:
    """Print what a new plant folder holds, and what to do next."""
    lines = [f"{result['out']}: {', '.join(result['files'])}", "next:"]
    lines += [f"  {command}" for command in result["next"]]
    stdout.print("\n".join(lines), markup=False, soft_wrap=True)


def imported(result: Mapping[str, Any]) -> None:
    """Print what was found in logs, and what became of it."""
    logs = [row for row in result["logs"] if "rows" in row]
    rows = [
        (r["log"], r["rows"], r["seconds"], r["rate_hz"], len(r["gaps"]), r["periods"])
        for r in logs[:20]
    ]
    title = "Logs" if len(logs) <= 20 else f"Logs, the first 20 of {len(logs)}"
    if rows:
        table(title, ("log", "rows", "s", "Hz", "gaps", "periods"), rows)
    channels = [
        (f"{c['array']} {c['channel']}", c["source"], c["low"], c["high"], c["unit"])
        for c in result["channels"]
    ]
    table("Channels", ("channel", "source", "low", "high", "unit"), channels, left=2)
    for kind in ("suspicions", "notes"):
        for text in result[kind]:
            stdout.print(f"{kind[:-1]}: {text}", markup=False, soft_wrap=True)
    episodes = ", ".join(f"{count} {split}" for split, count in result["episodes"].items())
    stdout.print(
        f"{result['out']}: {result['steps']} control periods in episodes of at most "
        f"{result['episode_periods']}: {episodes}",
        markup=False,
        soft_wrap=True,
    )


def check(c: Check) -> dict[str, Any]:
    """Return a check as plain data."""
    return {
        "quantity": c.quantity,
        "unit": c.unit,
        "expected": float(c.expected),
        "simulated": float(c.simulated),
        "error": float(c.error),
        "tolerance": float(c.tolerance),
        "passed": bool(c.passed),
    }


def sensor(c: Channel) -> dict[str, Any]:
    """Return a channel of a sensor as plain data."""
    return {"name": c.name, "unit": c.unit, "low": _bound(c.low), "high": _bound(c.high)}


def checks(plant: Plant, results: Sequence[Check]) -> None:
    """Print a plant's closed-form checks."""
    m = plant.model
    stdout.print(
        f"{plant.name}: {m.nq} positions, {m.nv} velocities, {plant.nu} actions, "
        f"{plant.nw} disturbances, {len(plant.design)} design variables, "
        f"{plant.control_period:g} s control period of {plant.substeps} steps"
    )
    rows = [tuple(sensor(c).values()) for c in plant.sensor_channels]
    if rows:
        table(f"{plant.name}: sensors", ("channel", "unit", "low", "high"), rows, left=2)
    for name, reason in left_out(m):
        stdout.print(f"sensor {name} is not predicted: {reason}", markup=False)
    if not results:
        return
    columns = ("quantity", "unit", "closed form", "simulated", "error", "tolerance", "")
    rows = [
        (
            c.quantity,
            c.unit,
            float(c.expected),
            float(c.simulated),
            float(c.error),
            float(c.tolerance),
            "ok" if c.passed else "FAILS",
        )
        for c in results
    ]
    table(f"{plant.name}: closed-form checks", columns, rows, left=2)


def _bound(value: float) -> float | None:
    return value if math.isfinite(value) else None


def inspection(name: str, found: Inspection) -> None:
    """Print what a plant is like, and what follows for a surrogate of it."""
    table(f"{name}: looked over on this machine", ("", ""), table_rows(found.record()))
    for sentence in found.advice():
        stdout.print(sentence, markup=False)


def link(found: Link) -> dict[str, Any]:
    """Return a link of the provenance chain as plain data."""
    return {
        "name": found.name,
        "path": str(found.path),
        "ok": found.ok,
        "detail": found.detail,
    }


def chain(links: Sequence[Link]) -> None:
    """Print a provenance chain and the first link that does not hold."""
    rows = [(x.name, str(x.path), "holds" if x.ok else "BROKEN", x.detail) for x in links]
    table("provenance, from the artefact to its sources", ("link", "path", "", "detail"), rows, 4)
    broken = next((x for x in links if not x.ok), None)
    if broken is not None:
        stdout.print(f"First link that does not hold: {broken.name} ({broken.path})", markup=False)


def score(card: Mapping[str, Any]) -> None:
    """Print the report card of a surrogate."""
    _horizons(card)
    _channels(card)
    _sensors(card)
    columns = ("test episode", "from step", "nRMSE %", "worst channel", "its error", "unit")
    rows = [
        (str(w["episode"]), w["start"], _percent(w["nrmse"]), w["channel"], w["error"], w["unit"])
        for w in card["worst"]
    ]
    table(f"worst episodes, {card['horizons'][-1]} steps ahead", columns, rows)
    for sentence in sentences(card):
        stdout.print(sentence, markup=False, soft_wrap=True)


def _sensors(card: Mapping[str, Any]) -> None:
    if (sensors := card.get("sensors")) is None:
        return
    last = sensors["horizons"][-1]
    columns = ("sensor", "unit", "nRMSE % now", f"at {last}", "coverage % now", f"at {last}")
    rows = [
        (
            name,
            c["unit"],
            *(_percent(c["nrmse"][i]) for i in (0, -1)),
            *(_percent(c["coverage"][i]) for i in (0, -1)),
        )
        for name, c in sensors["channels"].items()
    ]
    table(f"sensors, of known states and {last} steps ahead", columns, rows, left=2)


def _channels(card: Mapping[str, Any]) -> None:
    last = card["horizons"][-1]
    columns = ("channel", "unit", f"rmse at {last}", "nRMSE %", "coverage %", "half width")
    rows = [
        (
            name,
            c["unit"],
            c["rmse"][-1],
            _percent(c["nrmse"][-1]),
            _percent(c["coverage"][-1]),
            c["half_width"][-1],
        )
        for name, c in card["channels"].items()
    ]
    table(f"by channel, {last} steps ahead", columns, rows, left=2)


def _horizons(card: Mapping[str, Any]) -> None:
    members, contact = card["members_nrmse"], card["contact"]
    shown: dict[str, Sequence[float | None]] = {
        "nRMSE %": card["nrmse"],
        "free %": contact["nrmse_free"],
        "in contact %": contact["nrmse_contact"],
        "best member %": members["min"],
        "worst member %": members["max"],
        **{f"{name} %": errors for name, errors in card["baselines"].items()},
        "position error, % of distance": card["position_error"],
        "90% interval covers %": card["coverage"],
        "its half width %": card["sharpness"],
    }
    shown = {name: values for name, values in shown.items() if any(v is not None for v in values)}
    rows = [
        (str(h), *(_percent(values[i]) for values in shown.values()), correlation)
        for i, (h, correlation) in enumerate(
            zip(card["horizons"], card["error_spread_correlation"], strict=True)
        )
    ]
    title = "surrogate against true MuJoCo, episodes not seen before"
    table(title, ("steps ahead", *shown, "rank correlation of error with spread"), rows)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def recalibration(
    record: Mapping[str, Any], title: str = "90% intervals on the test episodes"
) -> None:
    """Print what a surrogate's intervals are worth, before and after they were made anew."""
    columns = ("steps ahead", "test windows", "covers % before", "after", "half width % before")
    rows = [
        (
            str(h),
            record["windows"][i],
            *(_percent(record[x]["coverage"][i]) for x in ("before", "after")),
            *(_percent(record[x]["sharpness"][i]) for x in ("before", "after")),
            record["error_spread_correlation"][i],
        )
        for i, h in enumerate(record["horizons"])
    ]
    more = ("after", "rank correlation of error with spread")
    table(title, (*columns, *more), rows)
    stdout.print(recalibration_sentence(record), markup=False, soft_wrap=True)


def forecast(result: Mapping[str, Any]) -> None:
    """Print error against number of episodes, and how many more a tolerance takes."""
    rows = [
        (f"{point['episodes']:,}", point["repeat"], 100 * point["nrmse"], 100 * fitted)
        for point, fitted in zip(result["points"], result["fitted"], strict=True)
    ]
    columns = ("training episodes", "repeat", "nRMSE %", "fitted law %")
    table(f"error after {result['horizon']} steps, test episodes", columns, rows)
    law = result["law"]
    stdout.print(
        f"nRMSE = {law['floor']:.3g} + {law['gain']:.3g} (n / {law['reference']:,.0f})^"
        f"-{law['exponent']:.3g} for n episodes, these fit settings",
        markup=False,
    )
    stdout.print(result["statement"], markup=False, soft_wrap=True)


def certificate(summary: Mapping[str, Any], title: str = "verified in true MuJoCo") -> None:
    """Print a certificate's summary."""
    table(title, summary["columns"], summary["rows"], left=3)


def speed(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the speed table: both absolute numbers beside every ratio."""
    columns = ("model", "control steps/s", "slowest", "fastest", "ratio to MuJoCo")
    metered = rows[0]["joules_per_step"] is not None
    body = [
        (
            r["model"],
            f"{r['steps_per_second']:,.0f}",
            f"{r['slowest']:,.0f}",
            f"{r['fastest']:,.0f}",
            float(r["ratio"]),
            *([float(r["joules_per_step"])] if metered else []),
        )
        for r in rows
    ]
    columns += ("J/step",) if metered else ()
    where = f"{rows[0]['cores']} cores, {rows[0]['cpu']}, {rows[0]['batch']} side by side"
    table(f"speed on {where}", columns, body)


def bench(result: Mapping[str, Any]) -> None:
    """Print the speed table, and when the surrogate has paid back what it cost."""
    speed(result["rows"])
    stdout.print(result["break_even"]["statement"], markup=False, soft_wrap=True)


def study(result: Mapping[str, Any]) -> None:
    """Print a design study: predicted beside verified."""
    from physai.design.summary import objective_rows, rows

    columns, body = rows(result)
    table("Pareto set: predicted in the surrogate, verified in true MuJoCo", columns, body)
    columns, body = objective_rows(result)
    table("true value inside the predicted 90% interval", columns, body)
    record({k: v for k, v in result.items() if isinstance(v, int | float | str)})


def summary(result: Mapping[str, Any]) -> None:
    """Print what a run did and how well."""
    _horizons(result["score"])
    if (found := result["score"]["horizon_certificate"]) is not None:
        stdout.print(found["statement"], markup=False, soft_wrap=True)
    if "missing" in (own := result["own_episodes"]):
        stdout.print(own["missing"], markup=False, soft_wrap=True)
    else:
        recalibration(own, "90% intervals on the policy's own episodes, test split")
    certificate(result["certificate"], "policy, verified in true MuJoCo")
    certificate(result["certificate_c99"], "the compiled C code, same flights")
    parity = result["parity"]
    table(
        "exported code",
        ("", "C99", "ONNX"),
        [
            ("largest difference from JAX", parity["c99_max_error"], parity["onnx_max_error"]),
            ("nanoseconds a call", parity["c99_nanoseconds_per_call"], None),
        ],
    )
    speed(result["speed"])
    columns = ("stage", "result", "seconds")
    rows = [(s["stage"], s["result"], s["seconds"]) for s in result["stages"]]
    table("stages", columns, rows, left=2)
    report = next(s["result"] for s in result["stages"] if s["stage"] == "report")
    stdout.print(f"{result['seconds']:.1f} s in all. Report: {report}", markup=False)
