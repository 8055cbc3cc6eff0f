"""The ten-second summary of the report: a few numbers, and a sentence about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from physai.provenance import Link
from physai.report.text import THIN, Tile, interval, number, percent, whole
from physai.verify import Certificate, ConditionResult

UNSTEADY = 1.5  # fastest repeat over slowest, or load over cores: beyond this others were at work


def certificate_tiles(certificates: Mapping[str, Certificate]) -> list[Tile]:
    """Return a tile a condition: the first certificate's pass rate, and below it the others'."""
    if not certificates:
        return []
    first, *others = certificates.items()
    tiles = []
    for c in first[1].conditions:
        detail = f"{whole(c.passed)} of {whole(c.flights)}, interval {interval(c.low, c.high)}"
        for name, certificate in others:
            same = certificate.condition(c.name)
            detail += f"; {name}: {percent(same.rate)}"
        tiles.append(Tile(f"{c.name} flights that meet all requirements", percent(c.rate), detail))
    return tiles


def score_tiles(score: Mapping[str, Any]) -> list[Tile]:
    """Return the surrogate's error and coverage at the longest scored horizon."""
    steps, seconds = score["horizons"][-1], number(score["seconds"][-1])
    position = score["position_error"][-1]
    # The last horizon that has an interval; the first one always has.
    last = max(i for i, c in enumerate(score["coverage"]) if c is not None)
    flown = "" if position is None else f"; {percent(position, up=True)} of the distance flown"
    return [
        Tile(
            f"surrogate's error after {steps} periods ({seconds} s)",
            f"{number(score['nrmse'][-1])}",
            f"nRMSE{flown}",
        ),
        Tile(
            f"coverage of the 90% interval after {score['horizons'][last]} periods",
            percent(score["coverage"][last]),
            f"asked for: 90{THIN}%; {whole(score['windows'])} test windows",
        ),
    ]


def parity_tile(parity: Mapping[str, Any]) -> Tile:
    """Return how far the exported code is from JAX."""
    largest = max(parity["c99_max_error_of_range"], parity["onnx_max_error_of_range"])
    met = largest <= parity["tolerance"] and not parity["status_mismatches"]
    return Tile(
        "exported code against JAX",
        f"{largest:.2g}",
        f"of an action's range at most, over {whole(parity['samples'])} observations; "
        f"expected at most {parity['tolerance']:.1g}: {'met' if met else 'NOT MET'}",
    )


def speed_tile(rows: Sequence[Mapping[str, Any]]) -> Tile:
    """Return the speed of simulator and surrogate, both numbers."""
    by = {row["model"]: row for row in rows}
    true, learned = by["mujoco"], by["surrogate"]
    return Tile(
        "control steps a second, surrogate against MuJoCo",
        f"{number(learned['ratio'])}{THIN}×",
        f"{whole(learned['steps_per_second'], 3)} against {whole(true['steps_per_second'], 3)} "
        f"on {true['cores']} cores",
    )


def chain_tile(chain: Sequence[Link]) -> Tile:
    """Return how much of the provenance chain holds."""
    holding = sum(link.ok for link in chain)
    value = "holds" if holding == len(chain) else "BROKEN"
    return Tile("provenance chain", value, f"{holding} of {len(chain)} links hold")


def speed_note(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say plainly what the speeds mean."""
    first = rows[0]
    by = {row["model"]: row for row in rows}
    ratio = by["surrogate"]["ratio"]
    where = (
        f"Measured on {first['cores']} cores ({first['cpu']}), {whole(first['batch'])} simulations "
        f"side by side, median of {first['repeats']} repeats that were timed in turn within one "
        "process."
    )
    if ratio < 1.0:
        verdict = (
            f"Here the surrogate is slower than the simulator: {number(ratio)} times its speed. "
            "For a machine with so cheap a simulation, gradients and uncertainty are what the "
            "surrogate is for."
        )
    else:
        verdict = (
            f"Here the ensemble makes {number(ratio)} times as many control steps as MuJoCo alone, "
            "with the error that stands beside it. It also gives gradients and uncertainty, which "
            "the simulator does not."
        )
    unsteady = any(row["fastest"] > UNSTEADY * row["slowest"] for row in rows)
    if unsteady or (first.get("load") or 0.0) > UNSTEADY * first["cores"]:
        verdict += (
            " The machine was busy with something else as well: take the ratio as a rough one, and "
            "measure again on a quiet machine."
        )
    return f"{where} {verdict}"


def verdict(certificate: Certificate) -> str:
    """Say what came of verification in one sentence."""
    parts = [
        f"{whole(c.passed)} of {whole(c.flights)} {_flights(c)} ({percent(c.rate)})"
        for c in certificate.conditions
    ]
    return (
        f"In {certificate.simulator} every requirement was met in {' and in '.join(parts)}. "
        "All of them are fresh scenarios, flown in the true simulator, not in the surrogate."
    )


def _flights(c: ConditionResult) -> str:
    s = c.settings
    met = [
        name
        for name, there in (
            ("gusts", s.gusts),
            ("sensor noise", s.sensor_noise),
            ("delay", s.delay_steps),
            ("wrong masses", s.mass_spread),
        )
        if there
    ]
    return f"{c.name} flights" + (f" with {', '.join(met[:-1])} and {met[-1]}" if met[1:] else "")
