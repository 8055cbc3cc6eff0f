"""The certificate: of so many flights in true MuJoCo, how many met each requirement.

It holds no times and no names of machines: equal inputs give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from physai.control.controller import BatchController
from physai.errors import InputError
from physai.plant import Plant
from physai.progress import Progress, silent
from physai.provenance import (
    Source,
    atomic_folder,
    read_json,
    remove_stale,
    sha256_folder,
    sha256_source,
    write_json,
    write_manifest,
)
from physai.task import Task
from physai.verify.fly import BLOCK, Flights, Judgement, fly, judge
from physai.verify.replay import save_flight, write_arrays
from physai.verify.results import ConditionResult, RequirementResult, condition_result
from physai.verify.scenarios import (
    DISTURBED,
    NOMINAL,
    Scenarios,
    ScenarioSettings,
    draw_scenarios,
)

COLUMNS = (
    "condition",
    "requirement",
    "limit",
    "passed",
    "rate",
    "low",
    "high",
    "median",
    "p95",
    "worst",
)
_SUMMARY = (
    *("flights", "passed", "rate", "low", "high", "diverged", "lost", "controller_faults"),
    *("mean_return", "settling_median", "never_settled"),
)


@dataclass(frozen=True)
class VerifySettings:
    """What a verification flies."""

    nominal: ScenarioSettings = NOMINAL
    """Flights without disturbances."""
    disturbed: ScenarioSettings = DISTURBED
    """Flights with all of them."""
    confidence: float = 0.95
    """Of the two-sided intervals."""
    block: int = BLOCK
    """Flights side by side; fewer for a costly controller."""
    design: tuple[float, ...] | None = None
    """Design vector to fly (None: the nominal one)."""

    def with_flights(self, flights: int) -> VerifySettings:
        """Return these settings with another number of flights in both conditions."""
        return replace(
            self,
            nominal=replace(self.nominal, flights=flights),
            disturbed=replace(self.disturbed, flights=flights),
        )


@dataclass(frozen=True)
class Certificate:
    """What was verified, how, and what came of it.

    Attributes:
        plant: name of the plant.
        simulator: name and version.
        seed: of all scenarios.
        confidence: of the two-sided intervals.
        block: flights side by side.
        design: design vector that was flown (None: the nominal one).
        inputs: SHA-256 of the plant, the controller and what else was given, by role.
        conditions: the results, nominal first.
    """

    plant: str
    simulator: str
    seed: int
    confidence: float
    block: int
    design: tuple[float, ...] | None
    inputs: dict[str, str]
    conditions: tuple[ConditionResult, ...] = field(repr=False)

    def condition(self, name: str) -> ConditionResult:
        """Return the results of one condition, "nominal" or "disturbed"."""
        for condition in self.conditions:
            if condition.name == name:
                return condition
        names = " or ".join(c.name for c in self.conditions)
        raise InputError(f"condition: expected {names}, got {name}")

    def summary(self) -> dict[str, Any]:
        """Return the outcome as plain data: pass rates with intervals, condition by condition."""
        return {
            "plant": self.plant,
            "simulator": self.simulator,
            "seed": self.seed,
            "confidence": self.confidence,
            "columns": list(COLUMNS),
            "rows": [list(row) for row in self.rows()],
            "conditions": {
                c.name: {key: getattr(c, key) for key in _SUMMARY} for c in self.conditions
            },
        }

    def rows(self) -> list[tuple[str | int | float | None, ...]]:
        """Return a table of `COLUMNS`; the last row of a condition is all requirements together."""
        rows: list[tuple[str | int | float | None, ...]] = []
        for c in self.conditions:
            for r in c.requirements:
                limit = f"{r.limit:g} {r.unit}"
                numbers = (r.passed, r.rate, r.low, r.high, r.median, r.p95, r.worst)
                rows.append((c.name, r.name, limit, *numbers))
            total = (c.passed, c.rate, c.low, c.high, c.typical_margin, None, c.worst_margin)
            rows.append((c.name, "all together", "1", *total))
        return rows


def certify(
    plant: Plant,
    task: Task,
    controller: BatchController,
    folder: str | Path,
    flights: int | None = None,
    seed: int = 0,
    inputs: Mapping[str, Source] | None = None,
    progress: Progress = silent,
    settings: VerifySettings = VerifySettings(),
) -> Certificate:
    """Fly fresh scenarios in true MuJoCo, and write the certificate of what came of it.

    The folder gets certificate.json, flights.npz with every flight's measures, and a worst and a
    typical flight of each condition to be replayed: nominal_worst.npz, nominal_typical.npz, ...

    Args:
        plant: the machine.
        task: its requirements are judged.
        controller: flies.
        folder: is made, whole or not at all; an older certificate there is replaced.
        flights: in each condition (None: what `settings` say).
        seed: of all scenarios.
        inputs: what else is vouched for, by role, such as {"policy": folder}; the plant is added.
        progress: called with the number of flights done.
        settings: what is flown.

    Raises:
        InputError: bad settings, actions of the wrong shape, or a folder that cannot be written.
    """
    settings = settings if flights is None else settings.with_flights(flights)
    sources: dict[str, Source] = {"plant": plant, **(inputs or {})}
    if Path(folder).parent.is_dir():
        remove_stale(Path(folder).parent)
    with atomic_folder(folder) as temporary:
        measured: dict[str, np.ndarray] = {}
        results = []
        for name in ("nominal", "disturbed"):
            chosen: ScenarioSettings = getattr(settings, name)
            design = None if settings.design is None else np.array(settings.design)
            scenarios = draw_scenarios(plant, task, chosen, seed, design)
            flown = fly(plant, task, controller, scenarios, progress, settings.block, f"fly {name}")
            judged = judge(task, flown)
            result = condition_result(name, chosen, task, flown, judged, settings.confidence)
            results.append(result)
            for kind, flight in (
                ("worst", result.worst_flight),
                ("typical", result.typical_flight),
            ):
                path = temporary / f"{name}_{kind}.npz"
                save_flight(
                    path, plant, task, name, flight, scenarios, flown, judged, settings.block
                )
            measured |= _arrays(name, task, scenarios, flown, judged)
        certificate = Certificate(
            plant=plant.name,
            simulator=f"MuJoCo {mujoco.__version__}",
            seed=seed,
            confidence=settings.confidence,
            block=settings.block,
            design=settings.design,
            inputs={role: _hash(source) for role, source in sources.items()},
            conditions=tuple(results),
        )
        write_arrays(temporary / "flights.npz", measured)
        write_json(temporary / "certificate.json", asdict(certificate))
        write_manifest(temporary, "certificate", sources, settings, seed)
    return certificate


def load_certificate(folder: str | Path) -> Certificate:
    """Read the certificate of a folder that `verify` wrote.

    Raises:
        InputError: there is none, or it is not one.
    """
    path = Path(folder) / "certificate.json"
    entry = read_json(path)
    try:
        conditions = [
            ConditionResult(
                **c
                | {
                    "settings": ScenarioSettings(**c["settings"]),
                    "requirements": tuple(RequirementResult(**r) for r in c["requirements"]),
                }
            )
            for c in entry["conditions"]
        ]
        design = None if entry["design"] is None else tuple(map(float, entry["design"]))
        return Certificate(**entry | {"conditions": tuple(conditions), "design": design})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected a certificate of physai: {error}") from error


def _arrays(
    name: str, task: Task, scenarios: Scenarios, flown: Flights, judged: Judgement
) -> dict[str, np.ndarray]:
    """Return what flights.npz says of one condition, arrays `[n]`."""
    arrays = {
        "mass_scale": scenarios.mass_scale,
        "diverged": flown.diverged,
        "faults": flown.faults,
        "lost": judged.lost,
        "passed": judged.passed,
        "margin": judged.margin,
        "return": judged.returns,
    }
    if judged.settling is not None:
        arrays["settling"] = judged.settling
    for i, requirement in enumerate(task.requirements):
        arrays[f"measure.{requirement.name}"] = judged.measures[:, i]
    return {f"{name}.{key}": values for key, values in arrays.items()}


def _hash(source: Source) -> str:
    path = Path(source if isinstance(source, str | Path) else source.folder)
    return sha256_folder(path) if (path / "manifest.json").is_file() else sha256_source(path)
