"""Put the report together: read what the stages left, draw, fill the page, write the folder."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from physai.errors import InputError
from physai.learn.learn import Comparison
from physai.plant import Check, Plant
from physai.provenance import (
    Link,
    Source,
    atomic_folder,
    atomic_write,
    read_manifest,
    write_manifest,
)
from physai.provenance.manifest import locate
from physai.report import figures, score, series, summary, tables
from physai.report.film import Strip, strip
from physai.report.html import Drawing, page
from physai.report.text import Table, Tile
from physai.rollout.store import read_meta
from physai.surrogate.calibration import COVERAGE
from physai.task import Task
from physai.verify import Certificate, load_certificate

PAGE = "report.html"


@dataclass(frozen=True)
class ReportParts:
    """What the report tells of; what is empty or None is said to be missing.

    Attributes:
        plant: the machine.
        task: what it had to do, as it was verified.
        score: what `physai.surrogate.score.score` returned.
        recalibration: what `physai.surrogate.recalibrate.recalibrate` returned for the policy's own
            episodes, or {"missing": why there is none}.
        fit_curve: CSV file of the training loss.
        learning: CSV files of the learning curves, one a round.
        comparisons: imagined and true return, one a round.
        certificates: folders by the controller's name, such as {"policy": ..., "c99": ...}; the
            first one's flights are drawn.
        parity: the fields of `physai.export.parity.Parity`.
        bench: rows of `physai.report.bench.bench`.
        checks: the plant's closed-form checks.
        stages: name, seconds and what came out, of each stage.
        chain: what `physai.provenance.check_chain` found.
    """

    plant: Plant
    task: Task
    score: Mapping[str, Any] | None = None
    recalibration: Mapping[str, Any] | None = None
    fit_curve: Path | None = None
    learning: Sequence[Path] = ()
    comparisons: Sequence[Comparison] = ()
    certificates: Mapping[str, Path] = field(default_factory=dict)
    parity: Mapping[str, Any] | None = None
    bench: Sequence[Mapping[str, Any]] = ()
    checks: Sequence[Check] = ()
    stages: Sequence[tuple[str, float, str]] = ()
    chain: Sequence[Link] = ()


def require_extra() -> None:
    """Check that the packages are there that only the report needs; worth it before a long run.

    Raises:
        InputError: one is missing.
    """
    for name in ("matplotlib", "jinja2", "PIL"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise InputError(
                f"the report needs {name}, which is not installed: pip install 'physai[report]'"
            ) from error


def write_report(
    out: str | Path, parts: ReportParts, inputs: Mapping[str, Source], seed: int | None
) -> Path:
    """Write `report.html` and its manifest into the folder `out`, whole or not at all.

    The page needs no network and no other file: figures, pictures, and the numbers behind them are
    inside.

    Args:
        out: folder of the report; an older one is replaced.
        parts: what to tell.
        inputs: what it was made from, by role, for the manifest.
        seed: of the run.

    Returns:
        The path of the page.

    Raises:
        InputError: a part that cannot be read, a package of the extra `report` that is missing, or
            a folder that cannot be written.
    """
    require_extra()
    out = Path(out)
    certificates = {name: load_certificate(folder) for name, folder in parts.certificates.items()}
    flights = _flights(parts, certificates)
    drawings = [*_surrogate(parts), *_learning(parts), *_verification(parts, certificates, flights)]
    html = page(
        plant=parts.plant,
        task=parts.task,
        seed=seed,
        drawings={drawing.name: drawing for drawing in drawings},
        strips=_strips(parts, certificates, flights),
        tables=_tables(parts, certificates, locate(out).parent),
        tiles=_tiles(parts, certificates),
        verdict=summary.verdict(next(iter(certificates.values()))) if certificates else "",
        speed_note=summary.speed_note(parts.bench) if parts.bench else "",
        parity=parts.parity,
        confidence=max((c.confidence for c in certificates.values()), default=None),
        windows=parts.score["windows"] if parts.score else 0,
        said=score.sentences(parts.score) if parts.score else [],
        own=_own(parts.recalibration),
        versions=_versions(parts.chain),
        nominal=all(c.design is None for c in certificates.values()),
    )
    with atomic_folder(out) as temporary:
        atomic_write(temporary / PAGE, html)
        write_manifest(temporary, "report", inputs, {}, seed)
    return out / PAGE


def _surrogate(parts: ReportParts) -> list[Drawing]:
    drawings = []
    if parts.score is not None:
        period = parts.plant.control_period
        curve = series.error_series(parts.score, period)
        drawings.append(Drawing("error", figures.error_figure(curve), {"error": curve}))
        coverage = series.calibration_series(parts.score, period)
        groups = series.group_series(parts.score)
        drawn = figures.calibration_figure(coverage, groups, 100.0 * COVERAGE)
        drawings.append(
            Drawing("calibration", drawn, {"coverage": coverage, "coverage_by_kind": groups})
        )
    if parts.fit_curve is not None:
        curve = series.fit_series(parts.fit_curve)
        drawings.append(Drawing("fit", figures.fit_figure(curve), {"fit": curve}))
    return drawings


def _learning(parts: ReportParts) -> list[Drawing]:
    if not parts.learning:
        return []
    curve = series.learning_series(parts.learning)
    return [Drawing("learning", figures.learning_figure(curve), {"learning": curve})]


def _flights(parts: ReportParts, certificates: Mapping[str, Certificate]) -> list[series.Flown]:
    if not certificates:
        return []
    name, certificate = next(iter(certificates.items()))
    return series.load_flights(parts.certificates[name], certificate, parts.task)


def _verification(
    parts: ReportParts,
    certificates: Mapping[str, Certificate],
    flights: Sequence[series.Flown],
) -> list[Drawing]:
    if not certificates:
        return []
    name, certificate = next(iter(certificates.items()))
    conditions = [c.name for c in certificate.conditions]
    measures = series.measure_series(parts.certificates[name], certificate)
    requirements = certificate.conditions[0].requirements
    drawings = [
        Drawing(
            "measures",
            figures.measure_figure(measures, conditions, requirements),
            {"measures": measures},
        )
    ]
    # A measure that makes no sense moment by moment cannot be drawn over time.
    drawn = [r for r in requirements if not np.isnan([f.values[r.name] for f in flights]).all()]
    if drawn:
        flown = series.trajectory_series(flights, drawn)
        figure = figures.trajectory_figure(flown, conditions, drawn)
        drawings.append(Drawing("trajectories", figure, {"trajectories": flown}))
    return drawings


def _strips(
    parts: ReportParts,
    certificates: Mapping[str, Certificate],
    flights: Sequence[series.Flown],
) -> list[Strip]:
    """Render the typical flight of the first condition, and the worst flight of all."""
    if not flights:
        return []
    certificate = next(iter(certificates.values()))
    margins = {
        c.name: math.inf if c.worst_margin is None else c.worst_margin
        for c in certificate.conditions
    }
    typical = next(f for f in flights if f.kind == "typical")
    worst = max((f for f in flights if f.kind == "worst"), key=lambda f: margins[f.condition])
    return [
        strip(parts.plant, f, f"{f.kind} {f.condition} flight (number {f.saved.flight})")
        for f in (typical, worst)
    ]


def _tables(
    parts: ReportParts, certificates: Mapping[str, Certificate], top: Path
) -> dict[str, Table]:
    plant = parts.plant
    found = {
        "channels": tables.channel_table(plant, parts.task),
        "design": tables.design_table(plant),
        "checks": tables.check_table(parts.checks),
        "stages": tables.stage_table(parts.stages, top),
        "datasets": tables.dataset_table(_datasets(parts.chain), plant.control_period),
        "comparisons": tables.comparison_table(parts.comparisons),
        "requirements": tables.requirement_table(certificates),
        "chain": tables.chain_table(parts.chain, top),
    }
    if parts.score is not None:
        found["score"] = score.score_table(parts.score)
        found["errors"] = score.error_table(parts.score)
        found["sensors"] = score.sensor_table(parts.score)
        found["worst"] = score.worst_table(parts.score)
        found["horizon"] = score.horizon_table(parts.score)
    if parts.recalibration is not None and "missing" not in parts.recalibration:
        found["own"] = score.recalibration_table(parts.recalibration)
    if certificates:
        found["conditions"] = tables.condition_table(next(iter(certificates.values())))
    if parts.parity is not None:
        found["parity"] = tables.parity_table(parts.parity)
    if parts.bench:
        found["speed"] = tables.speed_table(parts.bench, parts.score)
    return found


def _tiles(parts: ReportParts, certificates: Mapping[str, Certificate]) -> list[Tile]:
    tiles = summary.certificate_tiles(certificates)
    if parts.score is not None:
        tiles += summary.score_tiles(parts.score)
    if parts.parity is not None:
        tiles.append(summary.parity_tile(parts.parity))
    if parts.bench:
        tiles.append(summary.speed_tile(parts.bench))
    if parts.chain:
        tiles.append(summary.chain_tile(parts.chain))
    return tiles


def _own(recalibration: Mapping[str, Any] | None) -> str:
    """Say what the intervals for the policy's own episodes hold for, or why there are none."""
    if recalibration is None:
        return "Not made in this run."
    return recalibration.get("missing") or score.recalibration_sentence(recalibration)


def _datasets(chain: Sequence[Link]) -> dict[str, dict[str, Any]]:
    found = {}
    for link in chain:
        if link.ok and (link.path / "zarr.json").is_file():
            found[link.path.name] = read_meta(link.path)
    return found


def _versions(chain: Sequence[Link]) -> dict[str, str]:
    """Return what the first artefact of the chain was made with and when."""
    for link in chain:
        try:
            manifest = read_manifest(link.path)
        except InputError:
            continue
        found = dict(manifest.get("versions", {}))
        if git := manifest.get("git"):
            found["commit"] = git["commit"][:12] + (" with edits" if git["dirty"] else "")
        return {**found, "made": manifest.get("created", "")[:16].replace("T", " ")}
    return {}
