"""What a report card says in words, and its tables in the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from physai.report.text import NONE, Table, number, percent, whole

WORTH = (
    "mean half width of the interval, as the nRMSE",
    "rank correlation of error with spread",
)
"""What else is told of intervals beside their coverage."""


def sentences(card: Mapping[str, Any]) -> list[str]:
    """Return what a card says beside its numbers: what is certified, what is missing and why."""
    said = []
    if card["horizon_certificate"] is not None:
        said.append(card["horizon_certificate"]["statement"])
    if card["domain"]["auc"] is not None:
        said.append(_domain(card["domain"]))
    if card["energy"] is not None:
        said.append(_energy(card))
    for left in card["too_long"]:
        said.append(
            f"{left['steps']} steps ahead: left out, {left['windows']} test windows are that long."
        )
    if card["blown_up"]:
        said.append(
            f"{card['blown_up']} of {card['windows']} predictions ceased to be finite: left out of "
            "the errors, counted as outside of the interval."
        )
    return said


def _domain(rates: Mapping[str, Any]) -> str:
    return (
        f"The operating domain calls {percent(rates['false_alarms'], up=True)} of the test inputs "
        f"outside (false alarms), and misses {percent(rates['misses'], up=True)} of those with a "
        "channel pushed out of its range by 10 to 50% of the range's width (area under the ROC "
        f"curve {number(rates['auc'])})."
    )


def _energy(card: Mapping[str, Any]) -> str:
    energy, steps = card["energy"], card["horizons"][-1]
    drift = energy["surrogate"][-1]
    kept = (
        "blows up"
        if drift is None
        else f"drifts by {number(drift)} J, {percent(energy['relative'][-1], up=True)} of the "
        "largest kinetic energy"
    )
    return (
        f"Without input the true simulator conserves energy in {energy['conserving']} of "
        f"{energy['flights']} flights (it drifts by {number(energy['true'][-1])} J in {steps} "
        f"steps); the surrogate {kept} (root mean squares). Of these control periods "
        f"{percent(energy['outside'])} lie outside the operating domain."
    )


def score_table(score: Mapping[str, Any]) -> Table:
    """Return error and coverage at the scored horizons, beside members, ridge and persistence."""
    members, contact, baselines = score["members_nrmse"], score["contact"], score["baselines"]
    ridge = baselines.get("ridge") or [None] * len(score["horizons"])
    split = any(value is not None for value in contact["nrmse_contact"])
    rows = []
    for i, (steps, seconds) in enumerate(zip(score["horizons"], score["seconds"], strict=True)):
        kinds = [
            f"{number(contact[f'nrmse_{kind}'][i])} ({whole(contact[f'windows_{kind}'][i])})"
            for kind in ("free", "contact")
        ]
        rows.append(
            (
                f"{steps}",
                number(seconds),
                number(score["nrmse"][i]),
                *(kinds if split else ()),
                f"{number(members['min'][i])} to {number(members['max'][i])}",
                number(ridge[i]),
                number(baselines["persistence"][i]),
                _share(score["position_error"][i], up=True),
                _share(score["coverage"][i]),
                number(score["sharpness"][i]),
                number(score["error_spread_correlation"][i]),
            )
        )
    head = ("horizon, control periods", "horizon, s", "nRMSE")
    kinds = ("free (windows)", "in contact (windows)") if split else ()
    compared = ("single members", "ridge regression", "nothing changes")
    rest = ("position error per distance flown", "coverage of the 90% interval", *WORTH)
    return Table((*head, *kinds, *compared, *rest), rows, 0)


def recalibration_table(record: Mapping[str, Any]) -> Table:
    """Return what intervals are worth on other episodes, before and after they were made anew."""
    rows = []
    for i, (steps, windows) in enumerate(zip(record["horizons"], record["windows"], strict=True)):
        old, new = record["before"], record["after"]
        rows.append(
            (
                f"{steps}",
                whole(windows),
                *(_share(x["coverage"][i]) for x in (old, new)),
                *(number(x["sharpness"][i]) for x in (old, new)),
                number(record["error_spread_correlation"][i]),
            )
        )
    head = ("horizon, control periods", "test windows", "coverage before", "coverage after")
    widths = (f"{WORTH[0]}, before", "after")
    return Table((*head, *widths, WORTH[1]), rows, 0)


def recalibration_sentence(record: Mapping[str, Any]) -> str:
    """Say for what the new intervals hold, and how much of it lies outside the domain."""
    episodes = record["episodes"]
    return (
        f"The new intervals are made from {whole(episodes['calibration'])} episodes and hold for "
        f"episodes drawn like these; both are judged on {whole(episodes['test'])} others. Of their "
        f"control periods {percent(record['outside'], up=True)} lie outside the operating domain, "
        "which says where the networks were trained and stays as it is."
    )


def error_table(score: Mapping[str, Any]) -> Table:
    """Return error, interval and coverage of every channel at the longest scored horizon."""
    rows = [
        (
            name,
            c["unit"],
            number(c["rmse"][-1]),
            number(c["nrmse"][-1]),
            number(c["half_width"][-1]),
            _share(c["coverage"][-1]),
        )
        for name, c in score["channels"].items()
    ]
    head = ("channel", "unit", "RMSE", "nRMSE", "mean half width of the 90% interval", "coverage")
    return Table(head, rows, 2)


def sensor_table(score: Mapping[str, Any]) -> Table:
    """Return error and coverage of every sensor, of known states and at the longest horizon."""
    sensors = score.get("sensors")
    head = ("sensor", "unit", "RMSE of known states", "nRMSE", "coverage")
    if sensors is None:
        return Table(head, [])
    last = sensors["horizons"][-1]
    rows = []
    for name, c in sensors["channels"].items():
        both = [
            (number(c["rmse"][i]), number(c["nrmse"][i]), _share(c["coverage"][i])) for i in (0, -1)
        ]
        rows.append((name, c["unit"], *both[0], *both[1]))
    return Table((*head, f"RMSE {last} periods ahead", "nRMSE", "coverage"), rows, 2)


def worst_table(score: Mapping[str, Any]) -> Table:
    """Return the test episodes that are predicted worst at the longest scored horizon."""
    rows = [
        (
            f"{w['episode']}",
            f"{w['start']}",
            number(w["nrmse"]),
            w["channel"] or NONE,
            f"{number(w['error'])} {w['unit'] or ''}",
        )
        for w in score["worst"]
    ]
    return Table(("test episode", "from step", "nRMSE", "worst channel", "its error"), rows, 0)


def horizon_table(score: Mapping[str, Any]) -> Table:
    """Return for how many steps which share of all flights keeps the tolerance."""
    certificate = score["horizon_certificate"]
    if certificate is None:
        return Table(("share of flights", "steps"), [])
    rows = []
    for r in certificate["by_share"]:
        # Where the record ends with the tolerance kept, the horizon may be longer.
        more = " or more" if r["steps"] == certificate["recorded"] else ""
        rows.append((percent(r["share"]), f"{number(r['steps'], 6)}{more}"))
    return Table(("at least this share of flights", "control periods"), rows, 0)


def _share(value: float | None, up: bool = False) -> str:
    return NONE if value is None else percent(value, up)
