"""Predictions that stray stay near the training data, and may come back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physai.plant import load_plant
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.dataset import Episodes, open_dataset
from physai.state import Joint, State
from physai.surrogate.baseline import linear_surrogate
from physai.surrogate.bounds import (
    MARGIN,
    Bounds,
    Pace,
    fit_bounds,
    recorded,
    slowed,
    stopped,
    unbounded,
)
from physai.surrogate.calibration import open_loop
from physai.surrogate.features import Layout, advance, layout_of
from physai.surrogate.pace import LEVELS, paced, paces
from physai.task import load_task

SPRINGS = """
<mujoco><option timestep="0.01"/><worldbody>
  <body><joint name="a" type="slide" stiffness="9" damping="0.2"/><geom size="0.1"/></body>
  <body pos="9 0 0"><joint name="b" type="slide" stiffness="20"/><geom size="0.1"/></body>
</worldbody><actuator>
  <motor joint="a" ctrlrange="-5 5"/><motor joint="b" ctrlrange="-5 5"/>
</actuator></mujoco>
"""
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
    layout = layout_of_one(SLIDE)
    found = fit_bounds(layout, *recorded(layout, None, episodes(qpos, qvel, [1])))
    assert found.position_low == pytest.approx(-1.0 - 4.0 * MARGIN)
    assert found.position_high == pytest.approx(3.0 + 4.0 * MARGIN)
    assert found.velocity_low == pytest.approx(-2.0 - 10.0 * MARGIN)
    assert found.velocity_high == pytest.approx(8.0 + 10.0 * MARGIN)


def test_positions_that_the_dynamics_do_not_depend_on_are_free() -> None:
    still, moving = np.zeros((1, 2, 1)), np.ones((1, 2, 1))
    idle = fit_bounds(layout_of_one(SLIDE, idle=(0,)), still[0], moving[0])
    assert np.isinf(idle.position_low).all() and np.isinf(idle.position_high).all()
    rest = np.tile([0.0, 0.0, 2.0, 1.0, 0.0, 0.0, 0.0], (2, 1))
    flying = fit_bounds(layout_of_one(FREE, "z"), rest, np.zeros((2, 6)))
    np.testing.assert_array_equal(np.isfinite(flying.position_high), [0, 0, 1, 0, 0, 0])


def test_a_velocity_stays_at_its_bound_and_may_come_back() -> None:
    layout = layout_of_one(SLIDE)
    bounds = replace(unbounded(1), velocity_low=jnp.array([-1.0]), velocity_high=jnp.array([1.0]))
    assert step(layout, bounds, state([0.0], [0.5]), 0.3).qvel == pytest.approx(0.8)
    assert step(layout, bounds, state([0.0], [0.5]), 7.0).qvel == pytest.approx(1.0)
    # One that is farther out already gets no faster, but may get slower.
    assert step(layout, bounds, state([0.0], [3.0]), 0.5).qvel == pytest.approx(3.0)
    assert step(layout, bounds, state([0.0], [3.0]), -0.5).qvel == pytest.approx(2.5)


def test_a_position_stops_at_its_bound_and_may_come_back() -> None:
    layout = layout_of_one(SLIDE)
    bounds = replace(unbounded(1), position_low=jnp.array([-1.0]), position_high=jnp.array([1.0]))
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
    limit = jnp.array([1.0, 5.0, 5.0, 9.0, 9.0, 9.0])
    bounds = replace(unbounded(6), velocity_low=-limit, velocity_high=limit)
    half = np.sqrt(0.5)
    before = state([0.0, 0.0, 0.0, half, 0.0, 0.0, half], np.zeros(6))  # its x is the world's y
    targets = jnp.zeros(12).at[6:8].set(jnp.array([3.0, 3.0]))
    after = advance(layout, before, slowed(layout, bounds, before, targets))
    np.testing.assert_allclose(after.qvel[:3], [-3.0, 1.0, 0.0], atol=1e-6)


SLIDES = Layout(
    joints=tuple(Joint(name, "slide", i, i) for i, name in enumerate("abc")),
    nq=3, nv=3, na=0, nu=0, nw=0, nd=0, control_period=0.1, position_axes="",
    heading_invariant=True, vectors=(), design_low=(), design_high=(),
)  # fmt: skip


def test_the_pace_is_mahalanobis_distance() -> None:
    """Two slides that move together, one that stands still; against another implementation."""
    rng = np.random.default_rng(0)
    together = rng.multivariate_normal([1.0, -2.0], [[4.0, 3.0], [3.0, 9.0]], 4001)
    velocities = np.concatenate([together, np.full((4001, 1), 0.5)], -1).astype(np.float32)
    bounds = paces(velocities)
    inverse = np.linalg.inv(np.cov(velocities[:, :2].T))
    for velocity in ([1.0, -2.0, 0.5], [5.0, 3.0, 0.5], [5.0, -7.0, 8.0]):
        away = np.array(velocity[:2]) - velocities[:, :2].mean(0)
        expected = np.sqrt(away @ inverse @ away / 2.0)
        found = bounds[0].of(np.float32(velocity))
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)
    whole = np.asarray(bounds[0].of(velocities))
    assert np.sqrt(np.mean(whole**2)) == pytest.approx(1.0, rel=1e-3)
    for level, bound in zip(LEVELS, bounds, strict=True):
        assert np.mean(whole <= float(bound.most)) == pytest.approx(level, abs=1e-3)


def test_all_velocities_together_stay_at_their_pace_and_may_come_back() -> None:

    def go(velocity, change, pace):
        targets = jnp.concatenate([jnp.zeros(3), jnp.asarray(change, jnp.float32)])
        bound = Pace(jnp.ones(3), 0.5 * jnp.eye(3), jnp.float32(pace))
        bounds = replace(unbounded(3), pace=bound)
        before = state(np.zeros(3), velocity)
        return advance(SLIDES, before, slowed(SLIDES, bounds, before, targets)).qvel

    rest, away = np.ones(3), np.array([4.0, -4.0, 2.0])  # a pace of 3
    np.testing.assert_allclose(go(rest, away, np.inf), rest + away, rtol=1e-6)
    np.testing.assert_allclose(go(rest, away, 3.1), rest + away, rtol=1e-6)
    np.testing.assert_allclose(go(rest, away, 1.0), rest + away / 3.0, rtol=1e-5)
    # What moves faster already gets no faster, and may slow down.
    fast = rest + 2.0 * away
    np.testing.assert_allclose(go(fast, away, 1.0), fast, rtol=1e-5)
    np.testing.assert_allclose(go(fast, -0.5 * away, 1.0), fast - 0.5 * away, rtol=1e-5)


def test_a_bound_on_the_pace_has_a_gradient_everywhere() -> None:
    layout = layout_of_one(SLIDE)

    def reached(change, pace):
        bound = Pace(jnp.zeros(1), jnp.ones((1, 1)), jnp.float32(pace))
        bounds = replace(unbounded(1), pace=bound)
        targets = jnp.stack([jnp.zeros(()), change])
        return slowed(layout, bounds, state([0.0], [0.0]), targets)[1]

    for change, pace, slope in (
        (0.0, np.inf, 1.0),
        (3.0, np.inf, 1.0),
        (0.5, 1.0, 1.0),
        (3.0, 1.0, 0.0),
    ):
        assert jax.grad(reached)(jnp.float32(change), pace) == pytest.approx(slope, abs=1e-5)


def test_flights_that_stray_are_held_and_others_are_left_alone(tmp_path: Path) -> None:
    """A linear model of a walker, which blows up, and of springs, which are linear."""
    few = RolloutSettings(train=64, calibration=64, test=1, designs_per_shard=0)
    springs = tmp_path / "springs.xml"
    springs.write_text(SPRINGS)
    errors = {}
    for name in ("walker2d", springs):
        plant = load_plant(name)
        collect(plant, load_task(plant), tmp_path / plant.name, few, 0)
        data = open_dataset(tmp_path / plant.name, plant)
        training, calibration = data.episodes("train"), data.episodes("calibration")
        linear = linear_surrogate(layout_of(plant, data.symmetry), None, training)
        velocity = recorded(linear.layout, None, training)[1]
        held = paced(linear, velocity, calibration, 20, 5)
        errors[plant.name] = [
            np.abs(np.asarray(open_loop(s, calibration, 20, 5, least=20).error[-1])).mean()
            for s in (linear, held)
        ]
        assert (held.bounds.pace is not None) == (plant.name == "walker2d")
    assert errors["walker2d"][1] < 0.8 * errors["walker2d"][0]
    assert errors["springs"][1] == errors["springs"][0]
