"""What a plant.py declares: its names, held to what each of them has to be."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import mujoco

from physai.errors import InputError
from physai.plant.author import short, told
from physai.plant.names import check_unique
from physai.plant.record import Check, DesignVariable, Plant

_PROCESS = {"std": float, "correlation_time": float, "vector": str}


class Declared(NamedTuple):
    """The names of a plant.py that make a plant; empty or None where one is missing."""

    design: tuple[DesignVariable, ...]
    apply: Callable[[mujoco.MjSpec, Mapping[str, float]], None] | None
    units: Mapping[str, str]
    disturbances: Mapping[str, Mapping[str, Any]]
    sensors: Sequence[str] | None
    checks: Callable[[Plant], Sequence[Check]] | None
    forces: Callable[[Any], None] | None


def declared(module: ModuleType | None, file: Path) -> Declared:
    """Return what a plant.py (None: there is none) declares.

    Raises:
        InputError: a name of another type than it has to be, a design variable without low <
            nominal < high or with another's name, variables without `apply`.
    """
    for name in ("apply", "checks", "forces"):
        if (value := getattr(module, name, None)) is not None and not callable(value):
            raise InputError(f"{file}: {name}: expected a function, got {short(value)}")
    apply = getattr(module, "apply", None)
    return Declared(
        design=_design(getattr(module, "DESIGN", ()), apply is not None, file),
        apply=apply,
        units=_units(getattr(module, "UNITS", {}), file),
        disturbances=_disturbances(getattr(module, "DISTURBANCES", {}), file),
        sensors=_sensors(getattr(module, "SENSORS", None), file),
        checks=_checks(getattr(module, "checks", None), file),
        forces=_forces(getattr(module, "forces", None), file),
    )


def _design(design: object, applied: bool, file: Path) -> tuple[DesignVariable, ...]:
    listed = isinstance(design, Sequence) and all(isinstance(v, DesignVariable) for v in design)
    if not listed:
        raise InputError(
            f"{file}: DESIGN: expected a tuple of physai.plant.DesignVariable, got {short(design)}"
        )
    assert isinstance(design, Sequence)
    if design and not applied:
        raise InputError(
            f"{file}: DESIGN names {len(design)} variables, but there is no "
            "apply(spec, design) to write them into the model"
        )
    for v in design:
        if not (isinstance(v.name, str) and v.name and isinstance(v.unit, str)):
            raise InputError(f"{file}: DESIGN: expected a name and a unit, got {short(v)}")
        if not all(_finite(x) for x in (v.low, v.high, v.nominal)):
            raise InputError(
                f"{file}: design variable {v.name}: expected finite numbers low, high and "
                f"nominal, got {v.low!r}, {v.high!r} and {v.nominal!r}"
            )
        if not (v.low < v.high and v.low <= v.nominal <= v.high):
            raise InputError(
                f"{file}: design variable {v.name}: expected low < high and a nominal "
                f"value between them, got {v.low:g}, {v.high:g} and {v.nominal:g}"
            )
    check_unique((v.name for v in design), "design variables", file)
    return tuple(design)


def _finite(value: object) -> bool:
    try:
        return math.isfinite(value)  # type: ignore[arg-type]
    except TypeError:
        return False


def _units(units: object, file: Path) -> Mapping[str, str]:
    named = isinstance(units, Mapping) and all(
        isinstance(name, str) and isinstance(unit, str) for name, unit in units.items()
    )
    if not named:
        raise InputError(
            f'{file}: UNITS: expected a dict such as {{"motor": "N m"}}, an actuator\'s name and '
            f"its unit, got {short(units)}"
        )
    assert isinstance(units, Mapping)
    return units


def _disturbances(processes: object, file: Path) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(processes, Mapping):
        raise InputError(f"{file}: DISTURBANCES: expected a dict, got {short(processes)}")
    for name, process in processes.items():
        if not isinstance(process, Mapping) or not set(process) <= set(_PROCESS):
            raise InputError(
                f"{file}: DISTURBANCES: {name!r}: expected a dict with some of "
                f"{', '.join(_PROCESS)}, got {short(process)}"
            )
        for key, value in process.items():
            sound = isinstance(value, str) if _PROCESS[key] is str else _finite(value)
            # No process has a negative deviation, and none forgets its past at once.
            if sound and _PROCESS[key] is float:
                sound = value >= 0 if key == "std" else value > 0
            if not sound:
                kind = {"std": "a number from 0", "correlation_time": "seconds above 0"}
                raise InputError(
                    f"{file}: DISTURBANCES: {name!r}: {key}: expected "
                    f"{kind.get(key, 'a name')}, got {short(value)}"
                )
    return processes


def _sensors(sensors: object, file: Path) -> Sequence[str] | None:
    if sensors is None:
        return None
    if isinstance(sensors, Sequence) and not isinstance(sensors, str):
        names = [name for name in sensors if isinstance(name, str)]
        if len(names) == len(sensors):
            return names
    raise InputError(f"{file}: SENSORS: expected a tuple of names of sensors, got {short(sensors)}")


def _checks(
    checks: Callable[[Plant], Iterable[Check]] | None, file: Path
) -> Callable[[Plant], tuple[Check, ...]] | None:
    """Return an author's `checks`, whose errors name their line and whose result is checked."""
    if checks is None:
        return None

    @functools.wraps(checks)
    def watched(plant: Plant) -> tuple[Check, ...]:
        with told(file, "checks() failed"):
            found: object = checks(plant)
            listed = tuple(found) if isinstance(found, Iterable) else (found,)
        for check in listed:
            if not isinstance(check, Check):
                raise InputError(
                    f"{file}: checks(): expected a list of physai.plant.Check, got {short(found)}"
                )
            numbers = (check.expected, check.simulated, check.tolerance)
            with told(file, f"checks(): {check.quantity}: expected numbers, got {short(numbers)}"):
                [float(x) for x in numbers]
        return listed  # type: ignore[return-value]

    return watched


def _forces(forces: Callable[[Any], None] | None, file: Path) -> Callable[[Any], None] | None:
    """Return an author's `forces`, whose errors name their line."""
    if forces is None:
        return None

    @functools.wraps(forces)
    def watched(live: Any) -> None:
        with told(file, "forces() failed"):
            forces(live)

    return watched
