"""Flights are judged by what the task requires."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from pushed_cart import PERIOD, STEPS, TASK

from physai.state import State
from physai.task import Requirement, Task
from physai.verify import (
    Flights,
    judge,
)


def _drifting(distances: list[float]) -> Flights:
    """Return flights of a cart that stands at a distance."""
    n = len(distances)
    qpos = np.tile(np.array(distances, np.float32)[:, None, None], (1, STEPS + 1, 1))
    nothing = np.zeros((n, STEPS + 1, 0), np.float32)
    time = np.tile(PERIOD * np.arange(STEPS + 1, dtype=np.float32), (n, 1))
    states = State(qpos, np.zeros_like(qpos), nothing, time, nothing, nothing)
    return Flights(states, np.zeros((n, STEPS, 1), np.float32), np.zeros(n, bool), np.zeros(n, int))


def test_a_requirement_is_met_at_its_limit_and_not_beyond() -> None:
    # 0.1 rounds up in float32: compared in float64, a flight at the limit would fail.
    limit = np.float32(0.1)
    task = replace(TASK, requirements=(replace(TASK.requirements[0], limit=0.1),))
    below, above = np.nextafter(limit, np.float32([0, 1]))
    judgement = judge(task, _drifting([below, limit, above]), block=3)
    assert judgement.met[:, 0].tolist() == [True, True, False]
    assert (judgement.margin <= 1.0).tolist() == [True, True, False]


def test_margin_is_the_largest_measure_in_terms_of_its_limit() -> None:
    judgement = judge(TASK, _drifting([0.25, 1.0]), block=2)
    np.testing.assert_allclose(judgement.margin, [0.5, 2.0])
    signed = Requirement("sign", "", "m", -1.0, lambda s: s.qpos[-1, 0])
    judgement = judge(replace(TASK, requirements=(signed,)), _drifting([-1.5, -1.0, -0.5]), block=3)
    np.testing.assert_allclose(judgement.margin, [0.5, 1.0, 1.5])
    assert judgement.met[:, 0].tolist() == [True, True, False]


def test_return_and_settling_are_the_tasks() -> None:
    flights = _drifting([0.25, 2.0])
    flights.states.qpos[0, :10] = 0.75
    judgement = judge(TASK, flights, block=2)
    # Rewards are of the 50 states after the first, 9 of which are at 0.75.
    assert judgement.returns[0] == pytest.approx(-(9 * 0.75 + 41 * 0.25), rel=1e-6)
    assert judgement.settling is not None
    assert judgement.settling[0] == pytest.approx(10 * PERIOD)
    assert np.isinf(judgement.settling[1])


def test_a_flight_that_was_lost_fails_though_it_came_back() -> None:
    flights = _drifting([0.0, 0.0])
    flights.states.qpos[1, 20] = 60.0
    task = replace(TASK, requirements=TASK.requirements[:1])
    judgement = judge(task, flights, block=2)
    assert judgement.lost.tolist() == [False, True]
    assert judgement.passed.tolist() == [True, False]


def test_a_measure_that_is_not_a_number_is_not_met() -> None:
    broken = Requirement("broken", "", "m", 1.0, lambda s: jnp.sqrt(s.qpos[-1, 0]))
    judgement = judge(replace(TASK, requirements=(broken,)), _drifting([-1.0, 0.5]), block=2)
    assert judgement.passed.tolist() == [False, True]


def _hovering(task: Task, offset: float = 0.0, tilt: float = 0.0) -> State:
    """Return 5 s of a quadrotor that hovers beside its target, offset in m, tilted by degrees."""
    steps = 251
    qpos = np.zeros((1, steps, 7), np.float32)
    qpos[..., 0] = offset
    qpos[..., 3] = np.cos(np.radians(tilt) / 2)
    qpos[..., 4] = np.sin(np.radians(tilt) / 2)
    zeros = lambda n: np.zeros((1, steps, n), np.float32)
    time = 0.02 * np.arange(steps, dtype=np.float32)[None]
    return State(qpos, zeros(6), zeros(4), time, zeros(4), zeros(4))


def _met(task: Task, states: State) -> list[bool]:
    flights = Flights(
        states, np.zeros((1, 250, 4), np.float32), np.zeros(1, bool), np.zeros(1, int)
    )
    return judge(task, flights, block=1).met[0].tolist()


@pytest.mark.parametrize(
    ("offset", "tilt", "met"),
    [
        (0.04999, 4.999, [True, True]),
        (0.05001, 4.999, [False, True]),
        (0.04999, 5.001, [True, False]),
    ],
)
def test_quadrotor_holds_5_cm_and_5_degrees(
    quadrotor_task: Task, offset: float, tilt: float, met: list[bool]
) -> None:
    assert _met(quadrotor_task, _hovering(quadrotor_task, offset, tilt)) == met


def test_quadrotor_is_judged_in_the_last_second_of_five(quadrotor_task: Task) -> None:
    for moment, met in ((199, True), (200, False), (250, False)):
        states = _hovering(quadrotor_task)
        states.qpos[0, moment, 2] = 0.06
        assert _met(quadrotor_task, states) == [met, True]
