"""Predictions that stray stay near the training data, and may come back."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from physai.rollout.dataset import Episodes
from physai.state import Joint, State
from physai.surrogate.bounds import MARGIN, Bounds, fit_bounds, slowed, stopped
from physai.surrogate.features import Layout, advance

SLIDE, FREE = Joint("slide", "slide", 0, 0), Joint("root", "free", 0, 0)


def layout_of_one(joint: Joint, position_axes: str = "xyz", idle: tuple[int, ...] = ()) -> Layout:
    nq, nv = (7, 6) if joint.kind == "free" else (1, 1)
    return Layout(
        joints=(joint,), nq=nq, nv=nv, na=0, nu=0, nw=0, nd=0, control_period=0.1,
        position_axes=position_axes, heading_invariant=True, vectors=(), design_low=(),
        design_high=(), idle=idle,
    )  # fmt: skip


def state(qpos, qvel) -> State:
    qpos, qvel = jnp.asarray(qpos, jnp.float32), jnp.asarray(qvel, jnp.float32)
    none = jnp.zeros((*qpos.shape[:-1], 0))
    time = jnp.zeros(qpos.shape[:-1])
    return State(qpos=qpos, qvel=qvel, act=none, time=time, command=none, design=none)


def episodes(qpos, qvel, length: list[int]) -> Episodes:
    recorded = state(qpos, qvel)
    n, steps = len(length), np.shape(qpos)[1] - 1
    none = np.zeros((n, steps, 0), np.float32)
    return Episodes(recorded, none, none, np.array(length))


def step(layout: Layout, bounds: Bounds, before: State, change: float) -> State:
    """Go on for a period in which the velocity of a slide is predicted to change."""
    targets = jnp.array([0.0, change])
    after = advance(layout, before, slowed(layout, bounds, before, targets))
    return stopped(layout, bounds, before, after)


def test_bounds_are_ranges_of_the_valid_states_a_margin_wider() -> None:
    qpos = np.array([[[-1.0], [3.0], [50.0]]])
    qvel = np.array([[[-2.0], [8.0], [90.0]]])
    found = fit_bounds(layout_of_one(SLIDE), None, episodes(qpos, qvel, [1]))
    assert found.position_low == pytest.approx(-1.0 - 4.0 * MARGIN)
    assert found.position_high == pytest.approx(3.0 + 4.0 * MARGIN)
    assert found.velocity_low == pytest.approx(-2.0 - 10.0 * MARGIN)
    assert found.velocity_high == pytest.approx(8.0 + 10.0 * MARGIN)


def test_positions_that_the_dynamics_do_not_depend_on_are_free() -> None:
    still, moving = np.zeros((1, 2, 1)), np.ones((1, 2, 1))
    idle = fit_bounds(layout_of_one(SLIDE, idle=(0,)), None, episodes(still, moving, [1]))
    assert np.isinf(idle.position_low).all() and np.isinf(idle.position_high).all()
    rest = np.tile([0.0, 0.0, 2.0, 1.0, 0.0, 0.0, 0.0], (1, 2, 1))
    flying = fit_bounds(layout_of_one(FREE, "z"), None, episodes(rest, np.zeros((1, 2, 6)), [1]))
    np.testing.assert_array_equal(np.isfinite(flying.position_high), [0, 0, 1, 0, 0, 0])


def test_a_velocity_stays_at_its_bound_and_may_come_back() -> None:
    layout = layout_of_one(SLIDE)
    wide = jnp.full(1, jnp.inf)
    bounds = Bounds(-wide, wide, jnp.array([-1.0]), jnp.array([1.0]))
    assert step(layout, bounds, state([0.0], [0.5]), 0.3).qvel == pytest.approx(0.8)
    assert step(layout, bounds, state([0.0], [0.5]), 7.0).qvel == pytest.approx(1.0)
    # One that is farther out already gets no faster, but may get slower.
    assert step(layout, bounds, state([0.0], [3.0]), 0.5).qvel == pytest.approx(3.0)
    assert step(layout, bounds, state([0.0], [3.0]), -0.5).qvel == pytest.approx(2.5)


def test_a_position_stops_at_its_bound_and_may_come_back() -> None:
    layout = layout_of_one(SLIDE)
    wide = jnp.full(1, jnp.inf)
    bounds = Bounds(jnp.array([-1.0]), jnp.array([1.0]), -wide, wide)
    beyond = step(layout, bounds, state([0.95], [2.0]), 0.0)
    assert beyond.qpos == pytest.approx(1.0) and beyond.qvel == 0.0
    below = step(layout, bounds, state([-0.95], [-2.0]), 0.0)
    assert below.qpos == pytest.approx(-1.0) and below.qvel == 0.0
    inside = step(layout, bounds, state([0.5], [2.0]), 0.0)
    assert inside.qpos == pytest.approx(0.7) and inside.qvel == pytest.approx(2.0)
    # One that is farther out already stays there, or comes back at the speed it has.
    stays = step(layout, bounds, state([1.5], [2.0]), 0.0)
    assert stays.qpos == pytest.approx(1.5) and stays.qvel == 0.0
    returns = step(layout, bounds, state([1.5], [-2.0]), 0.0)
    assert returns.qpos == pytest.approx(1.3) and returns.qvel == pytest.approx(-2.0)


def test_a_turning_body_is_bound_in_its_own_frame() -> None:
    layout = layout_of_one(FREE, "")
    wide = jnp.full(6, jnp.inf)
    limit = jnp.array([1.0, 5.0, 5.0, 9.0, 9.0, 9.0])
    bounds = Bounds(-wide, wide, -limit, limit)
    half = np.sqrt(0.5)
    before = state([0.0, 0.0, 0.0, half, 0.0, 0.0, half], np.zeros(6))  # its x is the world's y
    targets = jnp.zeros(12).at[6:8].set(jnp.array([3.0, 3.0]))
    after = advance(layout, before, slowed(layout, bounds, before, targets))
    np.testing.assert_allclose(after.qvel[:3], [-3.0, 1.0, 0.0], atol=1e-6)
