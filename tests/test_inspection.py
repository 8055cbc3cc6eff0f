"""Looking a model over: the error of its time step, what diverges, and what is advised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from physai.plant import Plant, load_plant
from physai.report.convergence import COARSE_FLIGHT, COARSE_STEP, step_error
from physai.report.inspection import Inspection, inspect
from physai.rollout.symmetry import Symmetry
from physai.task import load_task

OSCILLATOR = """
<mujoco>
  <option timestep="{step}" integrator="{integrator}"/>
  <custom><numeric name="control_period" data="0.02"/></custom>
  <worldbody><body><joint name="x" type="slide" axis="1 0 0" stiffness="{stiffness}"/>
    <geom size="0.1" mass="1"/></body></worldbody>
  <actuator><motor name="push" joint="x" ctrlrange="-1 1"/></actuator>
</mujoco>
"""


def oscillator(
    folder: Path, step: float, integrator: str = "Euler", stiffness: float = 100.0
) -> Plant:
    path = folder / f"o{step}{integrator}{stiffness}.xml"
    path.write_text(OSCILLATOR.format(step=step, integrator=integrator, stiffness=stiffness))
    return load_plant(path)


def look(plant: Plant) -> Inspection:
    return inspect(plant, load_task(plant))


def test_the_step_error_falls_as_the_order_of_the_integrator_says(tmp_path: Path) -> None:
    """Semi-implicit Euler is of order 1, Runge and Kutta's method of order 4."""
    errors = {}
    for integrator in ("Euler", "RK4"):
        for step in (0.01, 0.005):
            found = look(oscillator(tmp_path, step, integrator)).step_error
            assert found is not None
            errors[integrator, step] = found[1]
    assert 1.7 < errors["Euler", 0.01] / errors["Euler", 0.005] < 2.3
    assert errors["RK4", 0.01] / errors["RK4", 0.005] > 12.0


def test_a_step_beyond_the_limit_of_stability_is_told(tmp_path: Path) -> None:
    """Semi-implicit Euler is stable for step times frequency below 2; here it is 2.2."""
    found = look(oscillator(tmp_path, 0.02, stiffness=(2.2 / 0.02) ** 2))
    assert found.diverged > 0.5 or (found.step_error is not None and found.step_error[0] > 0.02)
    assert any("step" in sentence for sentence in found.advice()[1:])


PENDULUM = """
<mujoco>
  <option timestep="{step}"/>
  <worldbody><body><joint name="swing" axis="0 1 0" damping="0.05"/>
    <geom type="capsule" fromto="0 0 0 0 0 -0.5" size="0.02" mass="1"/></body></worldbody>
  <actuator><motor name="torque" joint="swing" ctrlrange="-1 1"/></actuator>
</mujoco>
"""


def test_a_pendulum_of_a_second_is_sound_at_5_ms_and_not_at_a_quarter_second(
    tmp_path: Path,
) -> None:
    """Its small oscillations take 1.15 s: 230 steps of 5 ms, and less than 5 of 0.25 s."""
    for step, told in ((0.005, False), (0.25, True)):
        path = tmp_path / f"p{step}.xml"
        path.write_text(PENDULUM.format(step=step))
        advice = look(load_plant(path)).advice()
        assert any("too long" in sentence for sentence in advice) is told, advice


@pytest.mark.parametrize("step", [0.005, 0.001])
@pytest.mark.parametrize(("resolution", "told"), [(0.05, False), (0.8, True), (1.6, True)])
def test_what_is_told_of_a_step_depends_on_what_moves(
    tmp_path: Path, step: float, resolution: float, told: bool
) -> None:
    """An oscillator of frequency `resolution / step`: 126, 8 and 4 steps a cycle."""
    plant = oscillator(tmp_path, step, stiffness=(resolution / step) ** 2)
    found, _ = step_error(plant, load_task(plant), 0)
    assert found is not None
    measured, flight = found
    assert (measured > COARSE_STEP and flight > COARSE_FLIGHT) is told
    assert measured < 0.3 * resolution**2


def test_notes_of_the_task_are_passed_on(tmp_path: Path) -> None:
    plant = oscillator(tmp_path, 0.005)
    task = replace(load_task(plant), notes=("Mind the step.",))
    assert inspect(plant, task).advice()[-1] == "Mind the step."


def test_advice_follows_from_the_numbers() -> None:
    speed = [{"model": "mujoco", "steps_per_second": 1e5, "ratio": 1.0}]
    slow = [*speed, {"model": "surrogate", "steps_per_second": 5e4, "ratio": 0.5}]
    found = Inspection({}, 0.02, 0.005, 0.0, (0.001, 0.1), Symmetry(), slow)
    (only,) = found.advice()
    assert "0.5 times" in only and "gradients, not for speed" in only
    fast = [*speed, {"model": "surrogate", "steps_per_second": 5e6, "ratio": 50.0}]
    found = replace(found, speed=fast, diverged=0.2, step_error=(0.3, 0.4))
    advice = found.advice()
    assert "pays in speed" in advice[0] and "20%" in advice[1] and "30%" in advice[2]
    assert np.isclose(found.gain, 50.0)
    for sound in ((0.3, 0.001), (0.001, 0.4)):  # flights agree; flights are chaotic
        assert len(replace(found, step_error=sound).advice()) == 2
