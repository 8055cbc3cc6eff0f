"""What is known of a plant before anything is learned, and how much of it a surrogate uses.

Two parts, each used where it helps: mass centres in place of root translations
(`physai.surrogate.centre`), and the smooth equations of motion (`physai.surrogate.known`).
"""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np

from physai.plant import Plant
from physai.rollout.dataset import Episodes
from physai.state import Array, State
from physai.surrogate.centre import change_of_centres, from_centres, to_centres
from physai.surrogate.features import Layout, velocity_target
from physai.surrogate.known import Known, known_dynamics

PROBE = 2048  # control periods on which the equations are tried
EXPLAINED = 0.9  # share of the variance above which the equations are used


def prior(
    plant: Plant, layout: Layout, training: Episodes, equations: bool
) -> tuple[Layout, Known | None, float | None]:
    """Return the layout, what is known, and the share of the variance that the equations explain.

    Args:
        plant: the plant.
        layout: from `layout_of`.
        training: episodes on which the equations are tried.
        equations: use them if they explain at least `EXPLAINED` of the variance of velocity
            changes. The share is None where they are not tried or not finite.
    """
    if not (layout.centred or equations):
        return layout, None, None
    known, explained = known_dynamics(plant), None
    if equations:
        before, actions, disturbances, after = periods(training)
        count = len(actions)
        few = np.random.default_rng(0).choice(count, min(count, PROBE), replace=False)
        explained = known.explains(before[few], actions[few], disturbances[few], after[few])
    layout = replace(layout, equations=explained is not None and explained >= EXPLAINED)
    return layout, known if layout.centred or layout.equations else None, explained


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
    change = known.change(state, action, disturbance)
    if layout.centred:
        constants = known.at(state.design)
        change = change_of_centres(known.tree, constants, layout.centred, state.qpos, change)
    return velocity_target(layout, state.qpos, change)
