"""What a model is like before any time is spent on it: sizes, speed, convergence, symmetries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from physai.plant import Plant, check_variables
from physai.progress import Progress, silent
from physai.report.bench import bench
from physai.report.convergence import COARSE_FLIGHT, COARSE_STEP, step_error
from physai.rollout.symmetry import Symmetry, find_symmetries
from physai.surrogate.balls import contacts_of
from physai.surrogate.bounds import unbounded
from physai.surrogate.domain import fit_domain
from physai.surrogate.features import layout_of
from physai.surrogate.fit import FitSettings
from physai.surrogate.inputs import input_channels
from physai.surrogate.known import known_dynamics
from physai.surrogate.model import Surrogate
from physai.surrogate.network import Architecture, init_ensemble
from physai.surrogate.scaling import Calibration, Normaliser
from physai.task import Task


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        sizes: numbers of positions, velocities, activations, actions, disturbances, design
            variables, possible contacts and physics steps in a control period.
        control_period, time_step: s.
        diverged: share of the flights that diverged within a second of random actions.
        step_error: what half the time step changes, see `physai.report.convergence`: velocities
            over one step, and flights of 1 s (None: most flights diverged).
        symmetry: which symmetries of the dynamics hold.
        speed: rows of `physai.report.bench.bench`, a surrogate of default size.
        notes: what the task says of itself.
    """

    sizes: dict[str, int]
    control_period: float
    time_step: float
    diverged: float
    step_error: tuple[float, float] | None
    symmetry: Symmetry
    speed: list[dict[str, Any]]
    notes: tuple[str, ...] = ()

    @property
    def gain(self) -> float:
        """How many times as fast as MuJoCo an ensemble of default size is here."""
        return next(row["ratio"] for row in self.speed if row["model"] == "surrogate")

    def advice(self) -> list[str]:
        """Say in sentences what follows."""
        true, learned = (
            next(r["steps_per_second"] for r in self.speed if r["model"] == name)
            for name in ("mujoco", "surrogate")
        )
        found = [
            f"A surrogate of default size steps {self.gain:.3g} times as fast as MuJoCo here "
            f"({learned:,.0f} against {true:,.0f} control steps a second): "
            + ("it pays in speed." if self.gain > 2 else "use it for gradients, not for speed.")
        ]
        if self.diverged > 0.01:
            found.append(
                f"{100 * self.diverged:.0f}% of the flights with random actions diverge: halve the "
                "time step, or give joints ranges and damping."
            )
        step, flight = self.step_error or (0.0, 0.0)
        if step > COARSE_STEP and flight > COARSE_FLIGHT:
            found.append(
                f"Half the time step changes velocities after one step by {100 * step:.3g}% and "
                f"flights of 1 s by {100 * flight:.3g}%: the step is too long for these dynamics."
            )
        return [*found, *self.notes]

    def record(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "gain": self.gain, "advice": self.advice()}


def inspect(plant: Plant, task: Task, seed: int = 0, progress: Progress = silent) -> Inspection:
    """Look a plant over, in some seconds.

    Args:
        plant: the plant, at its nominal design.
        task: gives the random starts.
        seed: of starts and actions.
        progress: called as the timing goes on.

    Raises:
        InputError: a design variable that changes nothing.
    """
    check_variables(plant)
    model = plant.model
    sizes = {
        "positions": model.nq,
        "velocities": model.nv,
        "activations": model.na,
        "actions": plant.nu,
        "disturbances": plant.nw,
        "design variables": len(plant.design),
        **({"sensor channels": len(plant.sensor_channels)} if plant.sensors else {}),
        "constraints": model.neq,
        "geoms that can touch": int(np.sum((model.geom_contype | model.geom_conaffinity) != 0)),
        "physics steps a control period": plant.substeps,
    }
    if model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CONTACT:
        sizes["geoms that can touch"] = 0
    error, diverged = step_error(plant, task, seed)
    symmetry = find_symmetries(plant, task, seed)
    return Inspection(
        sizes=sizes,
        control_period=plant.control_period,
        time_step=float(model.opt.timestep),
        diverged=diverged,
        step_error=error,
        symmetry=symmetry,
        speed=bench(plant, untrained(plant, symmetry), seed=seed, progress=progress),
        notes=task.notes,
    )


def untrained(plant: Plant, symmetry: Symmetry) -> Surrogate:
    """Return a surrogate of default size with random weights: as fast as a fitted one.

    All that may touch the ground counts as touching it: which of it does is for data to tell.
    """
    settings = FitSettings()
    contacts = contacts_of(plant)
    layout = replace(layout_of(plant, symmetry), contacts=contacts)
    ni, nt = len(input_channels(layout, plant)), layout.nt
    architecture = Architecture(ni, nt, settings.width, settings.depth, len(plant.design))
    noise = np.random.default_rng(0).standard_normal((2, 4 * ni + 16, ni)).astype(np.float32)
    one = jnp.ones
    return Surrogate(
        parameters=init_ensemble(architecture, settings.members, jax.random.key(0)),
        normaliser=Normaliser(
            jnp.zeros(ni), one(ni), jnp.zeros(nt), 1e-3 * one(nt), 12.0 * one(nt)
        ),
        bounds=unbounded(layout.nv),
        calibration=Calibration(one((1, nt)), one((1, nt))),
        domain=fit_domain(noise[0], noise[1]),
        layout=layout,
        architecture=architecture,
        known=known_dynamics(plant) if contacts else None,
    )


def table_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return an inspection's record as lines of name and value."""
    rows = [(name, f"{count:,}") for name, count in found["sizes"].items()]
    rows.append(("control period", f"{found['control_period']:g} s"))
    rows.append(("time step", f"{found['time_step']:g} s"))
    rows.append(
        ("flights that diverge in 1 s of random actions", f"{100 * found['diverged']:.3g}%")
    )
    errors = found["step_error"] or (None, None)
    for error, what in zip(errors, ("velocities after a step", "flights of 1 s"), strict=True):
        value = "most flights diverge" if error is None else f"{100 * error:.2g}% of the motion"
        rows.append((f"change by half the time step, {what}", value))
    symmetry = found["symmetry"]
    if symmetry["errors"]:
        position = [axis for axis in "xyz" if axis not in symmetry["translation"]]
        heading = "does not matter" if symmetry["heading"] else "matters"
        rows.append(("free joints: position matters along", ", ".join(position) or "no axis"))
        rows.append(("free joints: heading", heading))
    if symmetry["joints"]:
        rows.append(("joints whose position does not matter", ", ".join(symmetry["joints"])))
    rows.append(("images of the machine in itself", str(len(symmetry["images"]))))
    for row in found["speed"]:
        rows.append((f"{row['description']}, control steps/s", f"{row['steps_per_second']:,.0f}"))
    return rows
