"""What is known of a plant before anything is learned, and how much of it a surrogate uses.

What touches the ground (`physai.surrogate.ground`), and the smooth equations of motion
(`physai.surrogate.known`) or mass centres in place of root translations
(`physai.surrogate.centre`), each where it helps. Not both of the latter: the equations' error over
a control period would be laid on a mass centre whose motion is simpler than they tell.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import numpy as np

from physai.plant import Plant
from physai.rollout.dataset import Episodes
from physai.state import Array, State
from physai.surrogate.balls import contacts_of
from physai.surrogate.centre import (
    Translation,
    from_centres,
    to_centres,
    translations,
)
from physai.surrogate.features import Layout, velocity_target
from physai.surrogate.ground import touched
from physai.surrogate.known import PART, Known, known_dynamics

PROBE = PART  # control periods on which the equations are tried
EXPLAINED = 0.9  # share of the variance above which the equations are used
CALMER = 0.5
"""Factor on the change of a root's velocities below which mass centres are used. Of a satellite
(1e-6) they more than halve the error after 50 periods, of a half-cheetah (0.8) they take a tenth
off, of a hopper (1.0) nothing before it (experiments/results/mass_centres.csv), at 1.2 to 1.5 times
the time of a fit."""

RESTING = 1e-2
"""The same factor, below which momentum is as good as kept: mass centres then go before equations,
whose error over a control period moves them."""


def prior(
    plant: Plant, layout: Layout, training: Episodes, equations: bool
) -> tuple[Layout, Known | None, float | None]:
    """Choose what of a plant is taken as known, by what it explains of recorded control periods.

    Mass centres take the place of a root's translations where each then changes its velocity at
    most `CALMER` times as much; beside equations that are good enough, `RESTING` times.

    Args:
        plant: the plant.
        layout: from `layout_of`.
        training: episodes on which all are tried.
        equations: use the equations if they explain at least `EXPLAINED` of the variance of
            velocity changes.

    Returns:
        The layout with what is used, what is known (None: nothing is used), and the share of the
        variance that the equations explain (None: not tried, or not finite).
    """
    centre, contacts = translations(plant), contacts_of(plant)
    if not (centre or equations or contacts):
        return layout, None, None
    known, explained = known_dynamics(plant), None
    before, actions, disturbances, after = periods(training)
    count = len(actions)
    few = np.random.default_rng(0).choice(count, min(count, PROBE), replace=False)
    layout = replace(layout, contacts=touched(known, contacts, before))
    before, after = before[few], after[few]
    if equations:
        explained = known.explains(before, actions[few], disturbances[few], after)
    useful = explained is not None and explained >= EXPLAINED
    most = RESTING if useful else CALMER
    calm = _calmer(replace(layout, centred=centre), known, before, after, most)
    layout = replace(layout, centred=calm, equations=useful and not calm)
    used = layout.equations or layout.centred or layout.contacts
    return layout, known if used else None, explained


def _calmer(
    layout: Layout, known: Known, before: State, after: State, most: float
) -> tuple[Translation, ...]:
    """Return the translations of those roots whose mass centres change velocity little enough."""
    if not layout.centred:
        return ()
    see = jax.jit(partial(centred, layout, known))
    outer = np.std(np.asarray(see(after).qvel) - np.asarray(see(before).qvel), axis=0)
    whole = np.std(after.qvel - before.qvel, axis=0)
    restless = {t.body for t in layout.centred if outer[t.qvel_index] > most * whole[t.qvel_index]}
    return tuple(t for t in layout.centred if t.body not in restless)


def periods(episodes: Episodes) -> tuple[State, np.ndarray, np.ndarray, State]:
    """Return all valid control periods: state, action, disturbance, next state."""
    valid = np.arange(episodes.actions.shape[1]) < episodes.length[:, None]
    before = jax.tree.map(lambda leaf: leaf[:, :-1][valid], episodes.states)
    after = jax.tree.map(lambda leaf: leaf[:, 1:][valid], episodes.states)
    return before, episodes.actions[valid], episodes.disturbances[valid], after


def centred(layout: Layout, known: Known | None, state: State) -> State:
    """Return a state `[...]` as features see it: with mass centres where the layout has them."""
    if known is None or not layout.centred:
        return state
    return to_centres(known.tree, known.at(state.design), layout.centred, state)


def uncentred(layout: Layout, known: Known | None, state: State) -> State:
    """Return the state `[...]` that `centred` made this one of."""
    if known is None or not layout.centred:
        return state
    return from_centres(known.tree, known.at(state.design), layout.centred, state)


def told(
    layout: Layout, known: Known, state: State, action: Array, disturbance: Array
) -> jax.Array:
    """Return what the equations predict, as targets `[..., nt]`."""
    return velocity_target(layout, state.qpos, known.change(state, action, disturbance))
