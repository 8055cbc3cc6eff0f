"""Images of machines in themselves: found where they are, and nowhere else; and what they teach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import mujoco
import numpy as np
import pytest

from physai.plant import Plant, load_plant
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.dataset import Episodes, open_dataset
from physai.rollout.engine import TruePlant
from physai.rollout.excitation import draw_starts
from physai.rollout.images import Image, find_images, mapped
from physai.rollout.symmetry import find_symmetries
from physai.rollout.trial import Trial
from physai.state import difference
from physai.surrogate.augment import with_images
from physai.surrogate.features import IMAGES, layout_of
from physai.surrogate.fit import FitSettings, fit_ensemble
from physai.surrogate.prior import periods
from physai.task import load_task

# A body in free fall, or on a floor, with a thruster at either side and one that pushes it along.
SLED = """
<mujoco>
  <option timestep="0.005" {option}><flag contact="disable"/></option>
  <custom><numeric name="control_period" data="0.02"/></custom>
  <worldbody><body name="hull" pos="0 0 1"><freejoint name="hull"/>
    <geom type="box" size="0.3 0.2 0.1" mass="2"/>{ballast}
    <site name="left" pos="0 0.2 0"/><site name="right" pos="0 {right} 0"/>
  </body></worldbody>
  <actuator>
    <general name="left" site="left" gear="0 0 1 0 0 0" ctrlrange="0 4"/>
    <general name="right" site="right" gear="0 0 {gain} 0 0 0" ctrlrange="0 {most}"/>
  </actuator>
</mujoco>
"""
WHOLE = {"option": "", "ballast": "", "right": -0.2, "gain": 1, "most": 4}


def images_of(plant: Plant) -> tuple[Image, ...]:
    return find_images(Trial(plant, load_task(plant), 0))


def matrix(entries: Any, size: int) -> np.ndarray:
    return mapped(entries, np.eye(size)).T


@pytest.mark.parametrize(
    ("broken", "count"),
    [
        ({}, 3),  # mirrored left to right, front to back, and both
        ({"ballast": '<geom pos="0 0.1 0" size="0.05" mass="0.1"/>'}, 1),
        ({"ballast": '<geom pos="0.1 0 0" size="0.05" mass="0.1"/>'}, 1),
        ({"ballast": '<geom pos="0.1 0.1 0" size="0.05" mass="0.1"/>'}, 0),
        ({"gain": 1.01}, 1),
        ({"most": 5}, 1),
        ({"right": -0.21}, 1),
        ({"option": 'wind="0 3 0" density="1.2" viscosity="0.1"'}, 1),
        ({"option": 'gravity="0 1 -9.81"'}, 1),
    ],
    ids=["whole", "left", "front", "corner", "gain", "range", "arm", "wind", "slope"],
)
def test_what_breaks_an_image_is_seen(tmp_path: Path, broken: dict[str, Any], count: int) -> None:
    model = tmp_path / "sled.xml"
    model.write_text(SLED.format(**{**WHOLE, **broken}))
    assert len(images_of(load_plant(model))) == count


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("quadrotor", 3),
        ("rocket", 7),
        ("satellite", 3),
        ("flexwing", 1),  # whose forces are Python code
        ("wafer_stage", 1),
        ("arm", 0),
        ("walker2d", 1),
        ("halfcheetah", 0),
        ("humanoid", 0),  # one of its knees has a spring, the other has none
        ("ant", 7),
    ],
)
def test_the_images_of_shipped_plants_form_a_group(name: str, count: int) -> None:
    plant = load_plant(name)
    model, found = plant.model, images_of(plant)
    assert len(found) == count
    whole = [
        (matrix(image.qvel, model.nv), matrix(image.actions, plant.nu), matrix(image.act, model.na))
        for image in found
    ]
    group = [(np.eye(model.nv), np.eye(plant.nu), np.eye(model.na)), *whole]
    for first in group:
        for second in group:
            both = [a @ b for a, b in zip(first, second, strict=True)]
            same = [all(map(np.allclose, both, other)) for other in group]
            assert sum(same) == 1
    for image in found:
        drives = {*image.actions, *image.disturbances}
        assert {abs(factor) for _, _, factor in drives} <= {1.0}


def test_a_flight_and_its_image_agree_in_bare_mujoco() -> None:
    """A second of a satellite, stepped by MuJoCo alone; positions, rates and attitude."""
    plant = load_plant("satellite")
    model, rng = plant.model, np.random.default_rng(3)
    images = images_of(plant)
    assert len(images) == 3
    ids = [*plant.action_ids, *plant.disturbance_ids]
    low, high = model.actuator_ctrlrange.T
    for image in images:
        one, other = mujoco.MjData(model), mujoco.MjData(model)
        one.qvel[:] = 0.1 * rng.standard_normal(model.nv)
        mujoco.mj_integratePos(model, one.qpos, rng.standard_normal(model.nv), 0.3)
        other.qpos[:] = mapped(image.qpos, one.qpos)
        other.qvel[:] = mapped(image.qvel, one.qvel)
        for _ in range(round(1.0 / model.opt.timestep)):
            drive = rng.uniform(low, high)
            one.ctrl[:] = drive
            driven = drive[ids]
            moved = mapped(image.actions, driven[: plant.nu])
            pushed = mapped(image.disturbances, driven[plant.nu :])
            other.ctrl[ids] = np.concatenate([moved, pushed])
            mujoco.mj_step(model, one)
            mujoco.mj_step(model, other)
        np.testing.assert_allclose(other.qvel, mapped(image.qvel, one.qvel), atol=1e-9)
        apart = np.zeros(model.nv)
        mujoco.mj_differentiatePos(model, apart, 1.0, mapped(image.qpos, one.qpos), other.qpos)
        np.testing.assert_allclose(apart, 0.0, atol=1e-9)


def test_a_ball_joint_is_left_alone(tmp_path: Path) -> None:
    model = tmp_path / "ball.xml"
    model.write_text(
        "<mujoco><worldbody><body><joint type='ball'/><geom size='0.1' pos='0 0 -1'/></body>"
        "</worldbody></mujoco>"
    )
    assert images_of(load_plant(model)) == ()


def test_a_dataset_keeps_the_images(tmp_path: Path) -> None:
    plant = load_plant("rocket")
    task = load_task(plant)
    few = RolloutSettings(train=8, calibration=1, test=1, duration=0.2)
    collect(plant, task, tmp_path / "data", few, 0)
    data = open_dataset(tmp_path / "data", plant)
    assert data.symmetry == find_symmetries(plant, task, 0) and len(data.symmetry.images) == 7
    episodes = data.episodes("train")
    layout = layout_of(plant, data.symmetry)
    assert layout.images == data.symmetry.images[:IMAGES]
    more = with_images(episodes, layout.images)
    assert len(more.length) == (1 + IMAGES) * len(episodes.length)
    assert more.states.qpos.dtype == np.float32
    np.testing.assert_array_equal(more.actions[: len(episodes.length)], episodes.actions)
    assert with_images(episodes, ()).states.qpos.shape == episodes.states.qpos.shape


@pytest.fixture(scope="module")
def one_sided() -> Callable[[int, float, float], Episodes]:
    """Cart-poles that fall, and are pushed, to one side alone."""
    plant = load_plant("cartpole")

    def fly(seed: int, low: float, high: float) -> Episodes:
        rng, count, steps = np.random.default_rng(seed), 64, 12
        simulator = TruePlant(plant, count)
        designs = np.tile(plant.nominal, (count, 1))
        state = draw_starts(load_task(plant), jax.random.key(seed), designs)
        tilt = rng.uniform(0.5, 1.0, count) * np.where(high > 0.0, 1.0, -1.0)
        state = state.replace(qpos=np.stack([np.zeros(count), tilt], 1), qvel=0.0 * state.qvel)
        actions = rng.uniform(low, high, (count, steps, 1))
        states = [state]
        for k in range(steps):
            states.append(simulator.step(states[-1], actions[:, k]))
        flown = jax.tree.map(lambda *x: np.stack(x, 1).astype(np.float32), *states)
        length = np.full(count, steps, np.int32)
        return Episodes(flown, actions.astype(np.float32), np.zeros((count, steps, 0)), length)

    return fly


def test_an_image_teaches_the_side_that_was_not_flown(one_sided) -> None:
    plant = load_plant("cartpole")
    symmetry = find_symmetries(plant, load_task(plant))
    assert len(symmetry.images) == 1
    right, other = one_sided(0, 0.0, 1.0), one_sided(1, 0.0, 1.0)
    left = one_sided(2, -1.0, 0.0)
    settings = FitSettings(2, 16, 1, 1500, 64, equations=False, calibrated_horizon=1)
    layout, errors = layout_of(plant, symmetry), []
    before, actions, disturbances, after = periods(left)
    for images in ((), layout.images):
        surrogate, _ = fit_ensemble(replace(layout, images=images), right, other, settings, 0)
        reached = surrogate.step(before, actions, disturbances)
        errors.append(float(np.abs(difference(layout.joints, reached, after)).mean()))
    assert errors[1] < 0.2 * errors[0]


def test_sensors_are_left_out(one_sided) -> None:
    episodes = replace(one_sided(0, 0.0, 1.0), sensors=np.ones((64, 12, 2)))
    assert with_images(episodes, ()).sensors is None
