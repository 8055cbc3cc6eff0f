"""Energy drift: does a surrogate keep the energy of a machine that keeps it?

Test starts are flown with no action, no disturbance and no activation, in the true simulator and in
the surrogate. MuJoCo computes the total energy E of the states: kinetic energy, and the potential
energy of gravity and of springs, in J. A flight counts where the true simulator conserves E, to
`CONSERVED` of the flight's largest kinetic energy; where too few do, nothing is reported. What is
conserved is thus found by flying and not read off the model.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from physai.plant import Plant
from physai.rollout.dataset import Episodes
from physai.rollout.engine import TruePlant
from physai.state import State
from physai.surrogate.model import Surrogate
from physai.surrogate.spread import rms

FLIGHTS = 64  # test starts that are flown
CONSERVED = 1e-3  # change of the energy, as a share of a flight's largest kinetic energy
LEAST_SHARE = 0.5  # of the flights that have to conserve it
PROBE = 10  # control periods after which most machines have shown that they do not


def energy_drift(
    surrogate: Surrogate, plant: Plant, episodes: Episodes, horizons: tuple[int, ...]
) -> dict[str, Any] | None:
    """Compare how the energy of predicted and of true states changes without any input.

    Returns:
        None where the true simulator conserves no energy. Else JSON-ready: `flights` flown,
        `conserving` of them, in which the true simulator does; `scale`, the root mean square over
        these of a flight's largest kinetic energy, J; by horizon, root mean squares over them of
        the change of energy since the start: `true` and `surrogate`, J, and `relative`, the
        surrogate's over `scale` (None: a prediction is not finite); `outside`, the share of
        true control periods that lie outside the operating domain.
    """
    start = _starts(plant, episodes)
    flights, steps = len(start.time), max(horizons)
    for periods in (min(PROBE, steps), steps):
        true, sound = _coast(plant, start, periods)
        kinetic, total = energies(plant, true)
        change, largest = total - total[0], kinetic.max(axis=0)
        conserving = sound & (np.abs(change).max(axis=0) <= CONSERVED * largest) & (largest > 0.0)
        if conserving.sum() < LEAST_SHARE * flights:
            return None
    kept = jax.tree.map(lambda x: jnp.asarray(x[:, conserving], jnp.float32), true)
    shape = (steps, int(conserving.sum()))
    calm = jnp.broadcast_to(no_action(plant), (*shape, plant.nu)), jnp.zeros((*shape, plant.nw))
    predicted = _predicted(surrogate, kept, *calm)
    _, ours = energies(plant, predicted)
    inputs = surrogate.raw_inputs(kept[:-1], *calm)
    scale = rms(largest[conserving])
    drift = [rms(ours[h - 1] - total[0, conserving]) for h in horizons]
    return {
        "flights": flights,
        "conserving": int(conserving.sum()),
        "scale": scale,
        "true": [rms(change[h, conserving]) for h in horizons],
        "surrogate": [d if np.isfinite(d) else None for d in drift],
        "relative": [d / scale if np.isfinite(d) else None for d in drift],
        "outside": float(np.mean(np.asarray(surrogate.domain.score(inputs)) > 1.0)),
    }


def energies(plant: Plant, states: State) -> tuple[np.ndarray, np.ndarray]:
    """Return kinetic and total energy, J, both `[T, n]`, of states `[T, n, ...]`.

    A state that is not finite has infinite energy.
    """
    qpos, qvel = np.asarray(states.qpos, float), np.asarray(states.qvel, float)
    energy = np.full((*qpos.shape[:2], 2), np.inf)
    designs = np.asarray(states.design)[0]
    unique, inverse = np.unique(designs, axis=0, return_inverse=True)
    models = [plant.compile(values, textures=False) for values in unique]
    finite = np.isfinite(qpos).all(axis=-1) & np.isfinite(qvel).all(axis=-1)
    data = [mujoco.MjData(model) for model in models]
    for moment, flight in np.argwhere(finite):
        model, scratch = models[inverse[flight]], data[inverse[flight]]
        scratch.qpos[:], scratch.qvel[:] = qpos[moment, flight], qvel[moment, flight]
        mujoco.mj_fwdPosition(model, scratch)
        mujoco.mj_fwdVelocity(model, scratch)
        mujoco.mj_energyPos(model, scratch)
        mujoco.mj_energyVel(model, scratch)
        energy[moment, flight] = scratch.energy
    return energy[..., 1], energy.sum(axis=-1)


def _starts(plant: Plant, episodes: Episodes) -> State:
    """Return the first test starts `[n, ...]`, float64, with the activations at zero."""
    flown = np.flatnonzero(episodes.length > 0)[:FLIGHTS]
    start = jax.tree.map(lambda x: np.asarray(x[flown, 0], float), episodes.states)
    return start.replace(act=np.zeros((len(flown), plant.model.na)))


def _coast(plant: Plant, start: State, steps: int) -> tuple[State, np.ndarray]:
    """Fly the true plant without input: states `[steps + 1, n, ...]`, and which did not diverge."""
    simulator = TruePlant(plant, len(start.time), start.design)
    calm = np.tile(no_action(plant), (simulator.nsim, 1))
    states = [start]
    for _ in range(steps):
        states.append(simulator.step(states[-1], calm))
    return jax.tree.map(lambda *x: np.stack(x), *states), simulator.valid


def no_action(plant: Plant) -> np.ndarray:
    """Return the action nearest to zero `[nu]` that the ranges allow."""
    return np.array([min(max(0.0, a.low), a.high) for a in plant.actions])


@jax.jit
def _predicted(
    surrogate: Surrogate, states: State, actions: jax.Array, disturbances: jax.Array
) -> State:
    def period(state: State, given: tuple[jax.Array, jax.Array]) -> tuple[State, State]:
        after = surrogate.step(state, *given)
        return after, after

    return jax.lax.scan(period, states[0], (actions, disturbances))[1]
