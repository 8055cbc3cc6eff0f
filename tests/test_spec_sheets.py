"""The README of every shipped machine says what its model, plant.py and task.py say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pages import table

from physai.plant import load_plant, plant_names
from physai.task import load_task

ENVS = Path(__file__).parents[1] / "envs"


@pytest.mark.parametrize("plant", plant_names())
def test_every_plant_has_a_spec_sheet_and_a_source_of_every_constant(plant: str) -> None:
    page = ENVS / plant / "README.md"
    rows = table(page, "source")
    assert rows, f"{page}: expected a table of constants with a column 'source'"
    for row in rows:
        for column in ("constant", "value", "unit", "source"):
            assert row[column], f"{page}: {row['constant']}: no {column}"


@pytest.mark.parametrize("plant", plant_names())
def test_the_spec_sheet_has_the_channels_of_the_plant(plant: str) -> None:
    page, machine = ENVS / plant / "README.md", load_plant(plant)
    task = load_task(machine)
    written = [_numbers(row, "channel") for row in table(page, "channel")]
    trim = [{"trim": t} for t in machine.trim]
    noise = [{"noise": c.noise} for c in task.observations]
    gusts = [
        {"standard deviation": d.std, "correlation time, s": d.correlation_time}
        for d in machine.disturbances
    ]
    channels = [*machine.actions, *machine.disturbances, *task.commands, *task.observations]
    more = [*trim, *gusts, *({} for _ in task.commands), *noise]
    expected = [
        {"channel": c.name, "unit": c.unit, "low": c.low, "high": c.high, **rest}
        for c, rest in zip(channels, more, strict=True)
    ]
    assert written == [pytest.approx(e) for e in expected]


@pytest.mark.parametrize("plant", plant_names())
def test_the_spec_sheet_has_the_sensors(plant: str) -> None:
    rows = table(ENVS / plant / "README.md", "sensor")
    written = [(row["sensor"].strip("`"), row["unit"]) for row in rows]
    assert written == [(c.name, c.unit) for c in load_plant(plant).sensor_channels]
    assert all(row["what"] for row in rows)


@pytest.mark.parametrize("plant", plant_names())
def test_the_spec_sheet_has_the_design_variables_requirements_and_objectives(plant: str) -> None:
    page, machine = ENVS / plant / "README.md", load_plant(plant)
    task = load_task(machine)
    variables = [_numbers(row, "variable") for row in table(page, "variable")]
    for row, v in zip(variables, machine.design, strict=True):
        assert (row["variable"], row["unit"]) == (v.name, v.unit) and row["what it moves"]
        bounds = [row["low"], row["nominal"], row["high"]]
        assert bounds == pytest.approx([v.low, v.nominal, v.high], rel=1e-5)
    requirements = [_numbers(row, "requirement") for row in table(page, "requirement")]
    assert [(r["requirement"], r["unit"], r["limit"]) for r in requirements] == [
        (r.name, r.unit, r.limit) for r in task.requirements
    ]
    objectives = [_numbers(row, "objective") for row in table(page, "objective")]
    assert [(o["objective"], o["unit"], o["better"] == "more") for o in objectives] == [
        (o.name, o.unit, o.maximise) for o in task.objectives
    ]


@pytest.mark.parametrize("plant", plant_names())
def test_the_spec_sheet_has_the_checks_and_the_reason_of_each_tolerance(plant: str) -> None:
    page, machine = ENVS / plant / "README.md", load_plant(plant)
    rows = table(page, "quantity")
    checks = list(machine.checks(machine)) if machine.checks else []
    assert [row["quantity"] for row in rows] == [check.quantity for check in checks]
    for row, check in zip(rows, checks, strict=True):
        assert row["unit"] == check.unit and row["reason of the tolerance"]
        assert float(row["closed form"]) == pytest.approx(check.expected, rel=1e-5)
        # Another processor's libm may round the last digit of a tolerance otherwise.
        assert float(row["tolerance"]) == pytest.approx(check.tolerance, rel=1e-9)


def _numbers(row: dict[str, str], first: str) -> dict[str, Any]:
    """Return a row with its numbers as such, and of the first column only the code in it."""
    found: dict[str, Any] = {}
    for column, cell in row.items():
        number = re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", cell)
        found[column] = float(cell) if number and column != "unit" else cell
    code = re.match("`([^`]+)`", row[first])
    assert code, row
    return {**found, first: code[1]}
