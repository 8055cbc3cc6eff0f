"""Export a policy folder: its bundle, with the certificate, and the parity of its code."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from physai.export.bundle import write_bundle
from physai.learn.learn import load_policy_folder
from physai.plant import Plant
from physai.progress import Progress, silent
from physai.task import Task, design_aware


def export_policy(
    plant: Plant,
    task: Task,
    policy: str | Path,
    folder: str | Path,
    certificate: str | Path | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Export a policy folder as a bundle; returns the parity of C99 and ONNX with JAX."""
    progress("export", 0, 1)
    weights, card = load_policy_folder(policy)
    if len(card["observations"]) != task.no:
        task = design_aware(task, plant)
    parity = write_bundle(
        Path(folder),
        weights,
        task.observations,
        plant.actions,
        1.0 / plant.control_period,
        plant.trim,
        {"plant": plant, "policy": Path(policy)},
        None if certificate is None else Path(certificate),
        seed=seed,
        name=plant.name,
    )
    progress("export", 1, 1)
    return asdict(parity)
