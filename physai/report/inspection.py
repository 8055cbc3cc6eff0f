"""What a model is like before any time is spent on it: sizes, speed, convergence, symmetries.

Convergence of the time step: the same flights, with the same actions, at the model's step h and at
h/2; what is reported is how far apart they are, relative to the motion, in the median flight. A
chaotic machine (one that strikes the ground, say) drifts apart at any step; then the error of one
control period is what counts.
"""

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
from physai.rollout.engine import TruePlant
from physai.rollout.excitation import Excitation, clip_actions, draw_starts, shake
from physai.rollout.symmetry import Symmetry, find_symmetries
from physai.state import State
from physai.surrogate.domain import fit_domain
from physai.surrogate.features import input_channels, layout_of
from physai.surrogate.fit import FitSettings
from physai.surrogate.model import Calibration, Normaliser, Surrogate
from physai.surrogate.network import Architecture, init_ensemble
from physai.task import Task

FLIGHTS = 64
FLIGHT_TIME = 1.0  # s
COARSE = 0.05
"""Error of one control period, relative to the motion, from which a time step is too long."""


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        sizes: numbers of positions, velocities, activations, actions, disturbances, design
            variables, possible contacts and physics steps in a control period.
        control_period, time_step: s.
        diverged: share of the flights that diverged within a second of random actions.
        step_error: distance between flights at h and h/2 after one control period and after 1 s,
            relative to the motion, median (None: most flights diverged).
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
        if self.step_error is not None and self.step_error[0] > COARSE:
            found.append(
                f"Half the time step changes one control period by {100 * self.step_error[0]:.1f}% "
                "of the motion: the step is too long for these dynamics."
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
        "constraints": model.neq,
        "geoms that can touch": int(np.sum((model.geom_contype | model.geom_conaffinity) != 0)),
        "physics steps a control period": plant.substeps,
    }
    if model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CONTACT:
        sizes["geoms that can touch"] = 0
    step_error, diverged = _step_error(plant, task, seed)
    symmetry = find_symmetries(plant, task, seed)
    return Inspection(
        sizes=sizes,
        control_period=plant.control_period,
        time_step=float(model.opt.timestep),
        diverged=diverged,
        step_error=step_error,
        symmetry=symmetry,
        speed=bench(plant, untrained(plant, symmetry), seed=seed, progress=progress),
        notes=task.notes,
    )


def _step_error(plant: Plant, task: Task, seed: int) -> tuple[tuple[float, float] | None, float]:
    rng = np.random.default_rng([seed, 1])
    designs = np.tile(plant.nominal, (FLIGHTS, 1))
    start = draw_starts(task, jax.random.key(seed), designs)
    for qpos in start.qpos:
        mujoco.mj_normalizeQuat(plant.model, qpos)
    steps = max(1, round(FLIGHT_TIME / plant.control_period))
    shaking = shake(plant, task, Excitation(), rng, FLIGHTS, steps, controlled=False)
    actions = clip_actions(plant, shaking.mean + shaking.noise)
    finer = plant.compile()
    finer.opt.timestep /= 2
    halved = replace(plant, model=finer, substeps=2 * plant.substeps)
    (first, last, valid), (first_fine, last_fine, valid_fine) = (
        _fly(p, start, actions) for p in (plant, halved)
    )
    both = valid & valid_fine
    if both.mean() < 0.5:
        return None, float(1 - valid.mean())
    pairs = ((first, first_fine), (last, last_fine))
    early, late = (_apart(plant, start, a, b)[both] for a, b in pairs)
    return (float(np.median(early)), float(np.median(late))), float(1 - valid.mean())


def _fly(plant: Plant, start: State, actions: np.ndarray) -> tuple[State, State, np.ndarray]:
    simulator = TruePlant(plant, len(actions))
    state = first = simulator.step(start, actions[:, 0])
    for k in range(1, actions.shape[1]):
        state = simulator.step(state, actions[:, k])
    return first, state, simulator.valid


def _apart(plant: Plant, start: State, a: State, b: State) -> np.ndarray:
    """Return the distance of two flights over the motion since the start `[n]`."""
    moved, apart = np.zeros((2, len(a.qpos), plant.model.nv))
    for i in range(len(a.qpos)):
        mujoco.mj_differentiatePos(plant.model, moved[i], 1.0, start.qpos[i], a.qpos[i])
        mujoco.mj_differentiatePos(plant.model, apart[i], 1.0, a.qpos[i], b.qpos[i])
    error = np.hstack([apart, plant.control_period * (b.qvel - a.qvel)])
    motion = np.hstack([moved, plant.control_period * (a.qvel - start.qvel)])
    return np.linalg.norm(error, axis=1) / (np.linalg.norm(motion, axis=1) + 1e-12)


def untrained(plant: Plant, symmetry: Symmetry) -> Surrogate:
    """Return a surrogate of default size with random weights: as fast as a fitted one."""
    settings = FitSettings()
    layout = layout_of(plant, symmetry)
    ni, nt = len(input_channels(layout, plant)), layout.nt
    architecture = Architecture(ni, nt, settings.width, settings.depth)
    noise = np.random.default_rng(0).standard_normal((2, 4 * ni + 16, ni)).astype(np.float32)
    one = jnp.ones
    return Surrogate(
        parameters=init_ensemble(architecture, settings.members, jax.random.key(0)),
        normaliser=Normaliser(jnp.zeros(ni), one(ni), jnp.zeros(nt), 1e-3 * one(nt)),
        calibration=Calibration(one((1, nt)), one((1, nt))),
        domain=fit_domain(noise[0], noise[1]),
        layout=layout,
        architecture=architecture,
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
    for error, when in zip(errors, ("one control period", "1 s"), strict=True):
        value = "most flights diverge" if error is None else f"{100 * error:.2g}% of the motion"
        rows.append((f"change by half the time step, after {when}", value))
    symmetry = found["symmetry"]
    if symmetry["errors"]:
        position = [axis for axis in "xyz" if axis not in symmetry["translation"]]
        heading = "does not matter" if symmetry["heading"] else "matters"
        rows.append(("free joints: position matters along", ", ".join(position) or "no axis"))
        rows.append(("free joints: heading", heading))
    if symmetry["joints"]:
        rows.append(("joints whose position does not matter", ", ".join(symmetry["joints"])))
    for row in found["speed"]:
        rows.append((f"{row['description']}, control steps/s", f"{row['steps_per_second']:,.0f}"))
    return rows
