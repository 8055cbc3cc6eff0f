"""Starts of the default task where a model has equality constraints."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from physai.plant import Plant, load_plant
from physai.state import State
from physai.task import Task, load_task

GRIPPER = """
<mujoco>
  <option timestep="0.005" integrator="implicitfast" jacobian="{jacobian}"/>
  <worldbody>
    <body pos="0 0 1"><joint name="shoulder" axis="0 1 0" damping="0.2" range="-150 150"/>
      <geom type="capsule" fromto="0 0 0 0 0 0.4" size="0.03" mass="1.5"/>
      <body pos="0 0.05 0.4"><joint name="left" type="slide" axis="0 1 0" range="-0.02 0.02"/>
        <geom size="0.01" mass="0.05"/></body>
      <body pos="0 -0.05 0.4"><joint name="right" type="slide" axis="0 -1 0" range="-0.02 0.02"/>
        <geom size="0.01" mass="0.05"/></body>
    </body>
  </worldbody>
  <equality>{equality}</equality>
  <actuator><motor name="shoulder" joint="shoulder" gear="25" ctrlrange="-1 1"/></actuator>
  {key}
</mujoco>
"""
COUPLED = '<joint joint1="left" joint2="right"/>'
PARALLELOGRAM = """
<mujoco>
  <option timestep="0.002"/>
  <worldbody>
    <body><joint name="a" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 0 0 0.3" size="0.02"/>
      <body pos="0 0 0.3"><joint name="b" axis="0 1 0"/>
        <geom type="capsule" fromto="0 0 0 0.5 0 0" size="0.02"/>
        <body pos="0.5 0 0"><joint name="c" axis="0 1 0"/>
          <geom type="capsule" fromto="0 0 0 0 0 -0.3" size="0.02"/>
          <site name="foot" pos="0 0 -0.3"/></body></body></body>
    <site name="ground" pos="0.5 0 0"/>
  </worldbody>
  <equality><connect site1="foot" site2="ground"/></equality>
  <actuator><motor joint="a" ctrlrange="-3 3"/></actuator>
</mujoco>
"""


def gripper(folder: Path, equality: str = COUPLED, key: str = "", jacobian: str = "auto") -> Plant:
    path = folder / "gripper.xml"
    path.write_text(GRIPPER.format(equality=equality, key=key, jacobian=jacobian))
    return load_plant(path)


def parallelogram(folder: Path) -> Plant:
    path = folder / "parallelogram.xml"
    path.write_text(PARALLELOGRAM)
    return load_plant(path)


def starts(task: Task, wide: bool, n: int = 128) -> State:
    draw = task.excitation if wide else task.reset
    assert draw is not None
    keys = jax.random.split(jax.random.key(5), n)
    return jax.vmap(lambda key: draw(key, jnp.zeros(0)))(keys)


def residuals(plant: Plant, states: State) -> tuple[float, float]:
    """Return the largest residual of the constraints, and of their rates."""
    data, worst = mujoco.MjData(plant.model), np.zeros(2)
    for qpos, qvel in zip(states.qpos, states.qvel, strict=True):
        data.qpos[:], data.qvel[:] = qpos, qvel
        mujoco.mj_forward(plant.model, data)
        found = [np.abs(data.efc_pos[: data.ne]).max(), np.abs(data.efc_vel[: data.ne]).max()]
        worst = np.maximum(worst, found)
    return float(worst[0]), float(worst[1])


@pytest.mark.parametrize("jacobian", ["dense", "sparse"])
def test_coupled_joints_start_together_and_the_rest_as_without_them(tmp_path, jacobian):
    coupled = load_task(gripper(tmp_path, jacobian=jacobian))
    free = load_task(gripper(tmp_path, equality=""))
    for wide in (False, True):
        states, without = starts(coupled, wide), starts(free, wide)
        np.testing.assert_allclose(states.qpos[:, 1], states.qpos[:, 2], atol=1e-6)
        np.testing.assert_allclose(states.qvel[:, 1], states.qvel[:, 2], atol=1e-6)
        assert np.abs(states.qpos[:, 1:]).max() <= 0.02 + 1e-6
        assert np.ptp(states.qpos[:, 1]) > 0.005
        reach = np.abs(without.qpos[:, 0]).max()
        assert 0.9 * reach < np.abs(states.qpos[:, 0]).max() < 1.1 * reach
    assert coupled.notes == ()


def test_starts_do_not_meet_the_requirements_by_themselves(tmp_path):
    """A controller that does nothing is not to be certified for where its flights began."""
    task = load_task(gripper(tmp_path))
    angles = np.degrees(np.abs(starts(task, wide=False).qpos[:, 0]))
    assert np.mean(angles > 3.0) > 0.8


def test_a_closed_loop_starts_closed_and_on_the_branch_of_its_goal(tmp_path):
    """A parallelogram has a = c = -b; crossed over, it closes too, and has not."""
    plant = parallelogram(tmp_path)
    task = load_task(plant)
    for wide in (False, True):
        states = starts(task, wide)
        residual, rate = residuals(plant, states)
        assert residual < 2e-6 and rate < 1e-4
        a, b, c = np.asarray(states.qpos).T
        np.testing.assert_allclose(a, -b, atol=1e-4)
        np.testing.assert_allclose(a, c, atol=1e-4)
        assert np.ptp(a) > 0.4
    assert np.ptp(starts(task, wide=True).qvel) > 0.5
    assert not starts(task, wide=False).qvel.any()


def test_the_bank_is_the_same_every_time(tmp_path):
    first, second = (starts(load_task(parallelogram(tmp_path)), wide=True) for _ in range(2))
    np.testing.assert_array_equal(first.qpos, second.qpos)
    np.testing.assert_array_equal(first.qvel, second.qvel)


def test_constraints_that_are_off_bind_no_start(tmp_path):
    off = COUPLED.replace("/>", ' active="false"/>')
    states = starts(load_task(gripper(tmp_path, equality=off)), wide=False)
    assert np.abs(states.qpos[:, 1] - states.qpos[:, 2]).max() > 0.005


def test_a_goal_that_breaks_the_constraints_is_told(tmp_path):
    key = '<keyframe><key qpos="0 0.01 -0.01"/></keyframe>'
    task = load_task(gripper(tmp_path, key=key))
    assert "cannot be held" in task.notes[0]
    states = starts(task, wide=False)
    np.testing.assert_allclose(states.qpos[:, 1], states.qpos[:, 2], atol=1e-6)


def test_a_machine_whose_constraints_cannot_hold_starts_at_its_goal_and_says_so(tmp_path):
    impossible = '<joint joint1="left" polycoef="0.1 0 0 0 0"/>'  # its range ends at 0.02 m
    task = load_task(gripper(tmp_path, equality=impossible))
    assert "cannot be held" in task.notes[0] and "Every start is the goal itself" in task.notes[1]
    assert not starts(task, wide=True).qpos.any()


def test_a_machine_that_its_constraints_hold_fast_is_told(tmp_path):
    fast = "".join(f'<joint joint1="{n}"/>' for n in ("shoulder", "left", "right"))
    (note,) = load_task(gripper(tmp_path, equality=fast)).notes
    assert "meets the requirements already" in note


def test_what_is_said_of_the_starts_is_not_said_of_others(tmp_path):
    fast = "".join(f'<joint joint1="{n}"/>' for n in ("shoulder", "left", "right"))
    gripper(tmp_path, equality=fast).folder.rename(tmp_path / "plant.xml")
    python = "DURATION = 2.0\n"
    (tmp_path / "task.py").write_text(python)
    assert load_task(load_plant(tmp_path)).notes
    own = (
        "import jax.numpy as jnp\nfrom physai.state import State\ndef reset(key, design):\n"
        "    z = jnp.zeros\n    return State(z(3) + 0.1, z(3), z(0), z(()), z(0), design)\n"
    )
    (tmp_path / "task.py").write_text(own)
    assert not load_task(load_plant(tmp_path)).notes
