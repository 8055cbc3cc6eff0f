"""Random flights of a true plant, and what moving their states does to what comes next.

A motion g of states, and of what drives the plant, is a symmetry where flying and moving commute,

    f(g x, g u, g w) = g f(x, u, w)

Motions are tried at states that random flights come through, one control period at a time: over
longer times a machine in contact doubles rounding errors until nothing commutes.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import mujoco
import numpy as np

from physai.plant import Plant
from physai.rollout.engine import TruePlant
from physai.rollout.excitation import Excitation, clip_actions, draw_starts, shake
from physai.state import State
from physai.task import Task

TOLERANCE = 1e-6
"""Largest disagreement, relative to the motion, that counts as rounding."""
FLIGHTS = 64
DESIGNS = 8
FLIGHT_TIME = 1.0  # s
STATES = 6  # of each flight, from which the motions are tried

Move = Callable[[State, State], State]  # of a state, on a flight that began at another


def worst(errors: np.ndarray) -> float:
    """Return the largest of errors `[n]`, 1 where less than half of them are known."""
    known = errors[np.isfinite(errors)]
    return float(known.max()) if len(known) and 2 * len(known) >= len(errors) else 1.0


class Trial:
    """Random flights, and what moving their states does."""

    def __init__(self, plant: Plant, task: Task, seed: int) -> None:
        self.plant, self.rng = plant, np.random.default_rng([seed, 0])
        low, high = (np.array([getattr(v, end) for v in plant.design]) for end in ("low", "high"))
        designs = low + (high - low) * self.rng.random((DESIGNS, len(low)))
        designs = np.resize(designs, (FLIGHTS, len(low)))
        steps = max(1, round(FLIGHT_TIME / plant.control_period))
        shaking = shake(plant, task, Excitation(), self.rng, FLIGHTS, steps, controlled=False)
        self.actions = clip_actions(plant, shaking.mean + shaking.noise)
        self.disturbances = _disturbances(plant, self.rng, steps)
        self.instants = np.unique(np.linspace(0, steps - 1, STATES).astype(int))
        self._fly(TruePlant(plant, FLIGHTS, designs), _starts(plant, task, designs, seed))
        self._pairs = TruePlant(plant, 2 * FLIGHTS, np.concatenate([designs] * 2))

    def _fly(self, simulator: TruePlant, state: State) -> None:
        self.states, self.valid = [], []
        for k in range(self.instants[-1] + 1):
            if k in self.instants:
                self.states.append(state)
                self.valid.append(simulator.valid.copy())
            state = simulator.step(state, self.actions[:, k], self.disturbances[:, k])

    def worst(
        self,
        move: Move,
        disturbances: np.ndarray | None = None,
        actions: np.ndarray | None = None,
    ) -> float:
        """Return the largest disagreement of all flights, 1 where most diverge."""
        return worst(self.disagreement(move, disturbances, actions))

    def disagreement(
        self,
        move: Move,
        disturbances: np.ndarray | None = None,
        actions: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the largest error of each flight over its states, relative to the motion.

        It is NaN for a flight that diverges. Where no flight agrees the next states are not tried.

        Args:
            move: of states.
            disturbances, actions: moved likewise, `[FLIGHTS, steps, ...]` (None: as they were).
        """
        disturbances = self.disturbances if disturbances is None else disturbances
        actions = self.actions if actions is None else actions
        errors = np.zeros(FLIGHTS)
        for k, start, valid in zip(self.instants, self.states, self.valid, strict=True):
            end = self._pairs.step(
                both(start, move(start, start)),
                np.concatenate([self.actions[:, k], actions[:, k]]),
                np.concatenate([self.disturbances[:, k], disturbances[:, k]]),
            )
            kept = valid & self._pairs.valid[:FLIGHTS] & self._pairs.valid[FLIGHTS:]
            apart = _disagreement(self.plant, start, end[:FLIGHTS], end[FLIGHTS:], move, kept)
            errors = np.maximum(errors, np.where(kept, apart, np.nan))
            if np.all(np.isnan(errors) | (errors > TOLERANCE)):
                break
        return errors

    def pushed(self, state: State, channel: int) -> np.ndarray:
        """Return velocities after a push of one channel, up and down, `[2, FLIGHTS, nv]`.

        It goes a quarter of its range from trim, or from no disturbance. NaN where a flight
        diverges.

        Args:
            state: of all flights.
            channel: index into the concatenated actions and disturbances.
        """
        plant = self.plant
        drive = np.tile(np.concatenate([plant.trim, np.zeros(plant.nw)]), (2, FLIGHTS, 1))
        found = (*plant.actions, *plant.disturbances)[channel]
        drive[:, :, channel] += np.array([[0.25], [-0.25]]) * (found.high - found.low)
        drive = drive.reshape(2 * FLIGHTS, -1)
        end = self._pairs.step(both(state, state), drive[:, : plant.nu], drive[:, plant.nu :])
        velocity = np.where(self._pairs.valid[:, None], end.qvel, np.nan)
        return velocity.reshape(2, FLIGHTS, -1)


def both(first: State, second: State) -> State:
    """Return the states of two batches as one."""
    return jax.tree.map(lambda *x: np.concatenate(x), first, second)


def _starts(plant: Plant, task: Task, designs: np.ndarray, seed: int) -> State:
    state = draw_starts(task, jax.random.key(seed), designs)
    # float32 quaternions are not unit in float64, and g x would differ from x by that much.
    for qpos in state.qpos:
        mujoco.mj_normalizeQuat(plant.model, qpos)
    return state


def _disturbances(plant: Plant, rng: np.random.Generator, steps: int) -> np.ndarray:
    low, high = (np.array([getattr(d, end) for d in plant.disturbances]) for end in ("low", "high"))
    # Half the range: a turned vector must not be clipped.
    spread = 0.5 * rng.uniform(-0.5, 0.5, (FLIGHTS, steps, plant.nw))
    return 0.5 * (low + high) + (high - low) * spread


def _disagreement(
    plant: Plant, start: State, plain: State, moved: State, move: Move, valid: np.ndarray
) -> np.ndarray:
    """Return each flight's largest error relative to its motion `[FLIGHTS]`, 1 at most."""
    largest = np.zeros(len(valid))
    errors, motions = _blocks(plant, moved, move(plain, start)), _blocks(plant, plain, start)
    for error, motion in zip(errors, motions, strict=True):
        scale = np.abs(motion).max(1, initial=0.0)
        scale = np.maximum(scale, 1e-3 * scale[valid].max(initial=0.0) + 1e-12)
        largest = np.maximum(largest, np.abs(error).max(1, initial=0.0) / scale)
    return np.minimum(largest, 1.0)


def _blocks(plant: Plant, to: State, start: State) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the differences of position, velocity and activation, in float64."""
    position = np.zeros((len(to.qpos), plant.model.nv))
    for difference, b, a in zip(position, to.qpos, start.qpos, strict=True):
        mujoco.mj_differentiatePos(plant.model, difference, 1.0, a, b)
    return position, to.qvel - start.qvel, to.act - start.act
