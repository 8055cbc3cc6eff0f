"""What a single environment refuses before anything is flown, and what it says."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from machines_by_hand import PLANT, at_rest, pendulum, turned
from sledges import sledge

from physai.env.single import PlantEnv
from physai.errors import InputError
from physai.plant import load_plant
from physai.task import load_task


def test_step_before_reset_is_refused() -> None:
    with pytest.raises(gymnasium.error.ResetNeeded):
        PlantEnv(PLANT).step(PLANT.trim)


def test_a_task_of_another_plant_is_refused(tmp_path) -> None:
    task = load_task(load_plant("cartpole"))
    with pytest.raises(InputError, match=r"^task: not one of plant quadrotor: .*qpos of shape"):
        PlantEnv(PLANT, task=task)
    with pytest.raises(InputError, match=r"^task: not one of plant pendulum: "):
        PlantEnv(pendulum(tmp_path)[0], task=load_task(PLANT))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"wind": 3}, r"expected 'design' or 'state', got 'wind'"),
        ({"design": [0.2, 0.0]}, r"expected 4 values"),
        ({"design": [9.0, 0.0, 13.0, 0.05]}, r"arm_length: expected 0.16 to 0.34 m"),
        ({"state": {}}, r"expected a State, got dict"),
        ({"state": at_rest(qpos=np.zeros(3))}, r"expected qpos of shape \(7,\), got \(3,\)"),
        ({"state": at_rest(qvel=np.full(6, np.nan))}, r"expected finite numbers, got qvel"),
        ({"state": at_rest(), "design": PLANT.nominal}, r"a state brings its own design"),
        ({"state": turned([0.0, 0.0, 0.0, 0.0])}, r"joint root: .*unit quaternion .*length 0;"),
        ({"state": turned([2.0, 0.0, 0.0, 0.0])}, r"qpos\[3:7\], got \[2.0, .*length 2;"),
        ({"state": turned([0.998, 0.0, 0.0, 0.0])}, r"unit quaternion"),
        ({"state": at_rest(act="full")}, r"expected numbers in act, got 'full'"),
        ({"design": "abc"}, r"expected 4 values \(arm_length, .*got 'abc'"),
        ({"design": {"mass": 1.0}}, r"expected 4 values \(arm_length, .*got {'mass': 1.0}"),
        ({"design": [PLANT.nominal]}, r"expected shape \(4,\), got \(1, 4\)"),
        ("nominal", r"expected a dict, got 'nominal'"),
    ],
)
def test_bad_reset_options_are_refused(options, text) -> None:
    with pytest.raises(InputError, match=text):
        PlantEnv(PLANT).reset(options=options)


@pytest.mark.parametrize(
    "option",
    [
        {"plant": 3},
        {"task": 3},
        {"task": 0},
        {"surrogate": 3},
        {"duration": 0.0},
        {"duration": np.nan},
        {"duration": "x"},
        {"duration": True},
        {"render_mode": "ansi"},
        {"width": -5},
        {"height": 0},
        {"width": 1.5},
    ],
)
def test_bad_constructor_options_are_refused(option) -> None:
    with pytest.raises(InputError, match=f"^{next(iter(option))}: "):
        PlantEnv(**{"plant": PLANT, **option})


def test_a_design_that_cannot_be_built_is_refused_again(tmp_path) -> None:
    """And not flown with the machine before."""
    folder = sledge(tmp_path / "sledge").folder
    code = (folder / "plant.py").read_text()
    check = '    assert design["mass"] < 1.5, "too heavy"\n'
    (folder / "plant.py").write_text(code.replace("    spec.geom", check + "    spec.geom"))
    env = PlantEnv(folder)
    env.reset(seed=0)
    for _ in range(2):
        with pytest.raises(InputError, match="too heavy"):
            env.reset(options={"design": [1.8]})
