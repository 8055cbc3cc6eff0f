"""The speed table: what is timed, from where, and what its ratios are."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from surrogates import untrained_surrogate

from physai.errors import InputError
from physai.plant import load_plant
from physai.report import bench as bench_module
from physai.report.bench import bench
from physai.state import State
from physai.surrogate.model import Surrogate

PLANT = load_plant("quadrotor")


@pytest.fixture(scope="module")
def untrained() -> Surrogate:
    """As fast as a fitted one."""
    return untrained_surrogate(PLANT)


def test_bench_measures_all_four_and_the_ratios_are_theirs(untrained: Surrogate) -> None:
    seen: list[tuple[int, int]] = []
    rows = bench(PLANT, untrained, batch=8, repeats=2, progress=lambda _, k, n: seen.append((k, n)))
    assert [row["model"] for row in rows] == ["mujoco", "true plant", "surrogate", "member"]
    assert [row["float_type"] for row in rows] == ["float64", "float64", "float32", "float32"]
    for row in rows:
        assert 0 < row["slowest"] <= row["steps_per_second"] <= row["fastest"]
        assert row["ratio"] == pytest.approx(row["steps_per_second"] / rows[0]["steps_per_second"])
        assert row["repeats"] == 2
        assert row["batch"] == 8
        assert row["cores"] >= 1
        assert row["cpu"]
    assert (seen[0], seen[-1]) == ((0, 2), (2, 2))
    json.dumps(rows, allow_nan=False)


@pytest.mark.parametrize(("name", "value"), [("batch", 0), ("repeats", -1)])
def test_bench_refuses_what_it_cannot_time(name: str, value: int, untrained: Surrogate) -> None:
    with pytest.raises(InputError, match=f"{name}: expected at least 1, got {value}"):
        bench(PLANT, untrained, **{name: value})


def test_bench_starts_every_repeat_from_the_same_states() -> None:
    start: State = bench_module._start(PLANT, 4)
    before = jax.tree.map(np.copy, start)
    action = np.broadcast_to(PLANT.trim, (4, PLANT.nu))
    bench_module._true(PLANT, start, action, np.zeros((4, PLANT.nw)))(3)
    bench_module._bare(PLANT, start, action)(3)
    jax.tree.map(np.testing.assert_array_equal, start, before)
