"""How much half the time step changes: whether MuJoCo has converged on a machine.

Two numbers, from the same flights with the same actions at the model's step h and at h/2. Both have
to be large before a step is called too long, since either alone is large on sound machines:

- after a flight of 1 s: the distance of the two, relative to the motion, in the median flight.
  Where this is small the step is sound, whatever else. Where it is large the machine may be chaotic
  (one that strikes the ground, say): then flights drift apart at any step;
- over one time step, from states on the way: the difference of the velocities, relative to the
  velocity that each degree of freedom has in the flights, in the median step. Positions are left
  out: from rest, semi-implicit Euler misses a fixed share of a step's way, of any machine at all. A
  difference of velocities is h^2/4 times their second derivative, so that for an oscillation of
  frequency w it is some (w h)^2/4, and says how well the step resolves that.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import mujoco
import numpy as np

from physai.plant import Plant
from physai.rollout.engine import TruePlant
from physai.rollout.excitation import Excitation, clip_actions, draw_starts, shake
from physai.state import State
from physai.task import Task

FLIGHTS = 64
FLIGHT_TIME = 1.0  # s
MOMENTS = 8
"""On the way of a flight, from which a step is made at h and at h/2."""
COARSE_STEP, COARSE_FLIGHT = 0.02, 0.05
"""Where both numbers are above these, the step is too long: for an oscillation, fewer than some 20
steps a cycle, seen in the flights."""


def step_error(plant: Plant, task: Task, seed: int) -> tuple[tuple[float, float] | None, float]:
    """Fly at the model's time step and at half of it.

    Args:
        plant: the plant, at its nominal design.
        task: gives the starts.
        seed: of starts and actions.

    Returns:
        The change of one step's velocities and of flights of 1 s (None: most flights diverged),
        and the share of the flights that diverged.
    """
    start, actions = _conditions(plant, task, seed)
    finer = plant.compile()
    finer.opt.timestep /= 2
    halved = replace(plant, model=finer, substeps=2 * plant.substeps)
    (way, valid), (way_fine, valid_fine) = (_fly(p, start, actions) for p in (plant, halved))
    both = valid & valid_fine
    diverged = float(1 - valid.mean())
    if both.mean() < 0.5:
        return None, diverged
    flight = _apart(plant, start, way[-1], way_fine[-1])[both]
    step = _velocities_apart(plant, halved, way, actions, both)
    return (step, float(np.median(flight))), diverged


def _conditions(plant: Plant, task: Task, seed: int) -> tuple[State, np.ndarray]:
    """Return starts `[n]` and actions `[n, T, nu]`."""
    designs = np.tile(plant.nominal, (FLIGHTS, 1))
    start = draw_starts(task, jax.random.key(seed), designs)
    for qpos in start.qpos:
        mujoco.mj_normalizeQuat(plant.model, qpos)
    steps = max(1, round(FLIGHT_TIME / plant.control_period))
    rng = np.random.default_rng([seed, 1])
    shaking = shake(plant, task, Excitation(), rng, FLIGHTS, steps, controlled=False)
    return start, clip_actions(plant, shaking.mean + shaking.noise)


def _fly(plant: Plant, start: State, actions: np.ndarray) -> tuple[list[State], np.ndarray]:
    """Return the states from the start on `[T + 1]`, and which flights did not diverge."""
    simulator = TruePlant(plant, len(actions))
    way = [start]
    for k in range(actions.shape[1]):
        way.append(simulator.step(way[-1], actions[:, k]))
    return way, simulator.valid


def _velocities_apart(
    plant: Plant, halved: Plant, way: list[State], actions: np.ndarray, both: np.ndarray
) -> float:
    """Return the change of one step's velocities, relative to those of the flights, median."""
    speeds = np.stack([state.qvel[both] for state in way])
    scale = np.sqrt(np.mean(np.square(speeds), axis=(0, 1)))
    moving = scale > 1e-9 * scale.max(initial=0.0)
    found = []
    for k in np.unique(np.linspace(0, actions.shape[1] - 1, MOMENTS + 1).astype(int)[1:]):
        ends = []
        for p in (replace(plant, substeps=1), replace(halved, substeps=2)):
            simulator = TruePlant(p, len(actions))
            ends.append((simulator.step(way[k], actions[:, k]), simulator.valid))
        (coarse, valid), (fine, valid_fine) = ends
        change = (coarse.qvel - fine.qvel)[both & valid & valid_fine][:, moving] / scale[moving]
        found.append(np.sqrt(np.mean(np.square(change), axis=1)) if moving.any() else change[:, :0])
    errors = np.concatenate([np.ravel(x) for x in found])
    return float(np.median(errors)) if errors.size else 0.0


def _apart(plant: Plant, start: State, a: State, b: State) -> np.ndarray:
    """Return the distance of two flights over the motion since the start `[n]`."""
    moved, apart = np.zeros((2, len(a.qpos), plant.model.nv))
    for i in range(len(a.qpos)):
        mujoco.mj_differentiatePos(plant.model, moved[i], 1.0, start.qpos[i], a.qpos[i])
        mujoco.mj_differentiatePos(plant.model, apart[i], 1.0, a.qpos[i], b.qpos[i])
    error = np.hstack([apart, plant.control_period * (b.qvel - a.qvel)])
    motion = np.hstack([moved, plant.control_period * (a.qvel - start.qvel)])
    return np.linalg.norm(error, axis=1) / (np.linalg.norm(motion, axis=1) + 1e-12)
