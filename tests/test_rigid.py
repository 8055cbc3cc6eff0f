"""The smooth rigid-body equations against MuJoCo's own, and what they make of recorded data."""

from __future__ import annotations

from pathlib import Path

import jax
import mujoco
import numpy as np
import pytest

from physai.plant import Plant, load_plant
from physai.rollout.engine import TruePlant
from physai.rollout.excitation import draw_starts
from physai.surrogate.known import blank_known, known_dynamics
from physai.surrogate.rigid import acceleration, equations, ready
from physai.task import load_task

# Every kind of joint, two on one body, a free child of the world beside a fixed base, springs, a
# fixed tendon, filtered and servo actuators, a force limit, sites with and without a fixed frame.
ZOO = """
<mujoco>
  <compiler angle="radian"/>
  <option timestep="0.002" gravity="0.3 -0.2 -9.7"/>
  <worldbody>
    <site name="world"/>
    <body pos="0.1 0.2 0.3" euler="0.3 0.2 0.1">
      <joint name="rail" type="slide" axis="1 2 0" pos="0.1 0 0.2" armature="0.3" damping="0.4"/>
      <joint name="swing" type="hinge" axis="0 1 1" pos="0.05 0.1 -0.1" stiffness="3"
        springref="0.4" damping="0.2"/>
      <geom type="box" size="0.1 0.2 0.3" pos="0.1 0.05 0.02" euler="0.5 0.1 0.7" mass="1.3"/>
      <body pos="0.3 0 0.1">
        <joint name="ball" type="ball" pos="0.02 0.03 0.01" damping="0.1"/>
        <geom type="capsule" size="0.05 0.2" pos="0 0.1 0.2" mass="0.7"/>
        <body pos="0 0.1 0.4" euler="0 0.7 0.2">
          <joint name="last" type="hinge" axis="0.2 0.3 1" ref="0.3" armature="0.01"/>
          <geom type="box" size="0.05 0.07 0.2" mass="0.4"/>
          <site name="tip" pos="0.1 0.2 0.3" euler="0.2 0.5 0.1"/>
        </body>
      </body>
    </body>
    <body pos="2 0 1">
      <freejoint name="flyer"/>
      <geom type="box" size="0.3 0.1 0.05" pos="0.02 0.1 0" euler="0.2 0.3 0.4" mass="2.1"/>
      <site name="motor" pos="0.3 0.1 0" euler="0.3 0.2 0.1"/>
    </body>
  </worldbody>
  <tendon>
    <fixed name="belt" stiffness="5" damping="0.3" springlength="0.1 0.2">
      <joint joint="rail" coef="0.7"/><joint joint="last" coef="-1.2"/></fixed>
  </tendon>
  <actuator>
    <motor joint="rail" gear="3" ctrlrange="-1 1"/>
    <position joint="swing" kp="4" kv="0.5" ctrlrange="-1 1" forcerange="-1.5 1.5"/>
    <motor tendon="belt" gear="2" ctrlrange="-1 1"/>
    <general joint="last" dyntype="filterexact" dynprm="0.05" gainprm="2" ctrlrange="-1 1"/>
    <motor site="tip" gear="1 2 3 0.1 0.2 0.3" ctrlrange="-1 1"/>
    <motor site="motor" gear="0 0 2 0 0 0.1" ctrlrange="-1 1"/>
    <motor site="motor" refsite="world" gear="0 1 0 0.2 0 0" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""
NAMES = ("arm", "halfcar", "humanoid", "quadrotor", "satellite")


def zoo(folder: Path) -> Plant:
    path = folder / "zoo.xml"
    path.write_text(ZOO)
    return load_plant(path)


def smooth(plant: Plant, design: np.ndarray) -> mujoco.MjModel:
    """Return the model without what the equations leave out: constraints and fluids."""
    model = plant.compile(design)
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONSTRAINT
    model.opt.density = model.opt.viscosity = 0.0
    return model


def shaken(model: mujoco.MjModel, rng: np.random.Generator) -> mujoco.MjData:
    data = mujoco.MjData(model)
    data.qpos = model.qpos0 + 0.5 * rng.normal(size=model.nq)
    mujoco.mj_normalizeQuat(model, data.qpos)
    data.qvel, data.act = rng.normal(size=model.nv), rng.uniform(size=model.na)
    low, high = model.actuator_ctrlrange.T
    data.ctrl = low + (high - low) * rng.random(model.nu)
    mujoco.mj_forward(model, data)
    return data


def compare(plant: Plant, tolerance: float) -> None:
    rng, known = np.random.default_rng(0), known_dynamics(plant)
    low, high = (np.array([getattr(v, end) for v in plant.design]) for end in ("low", "high"))
    channels = [*plant.action_ids, *plant.disturbance_ids]

    @jax.jit
    def ours(design, qpos, qvel, act, control):
        numbers = ready(known.tree, known.at(design))
        found = acceleration(known.tree, numbers, qpos, qvel, act, control)
        return *equations(known.tree, numbers, qpos, qvel), found

    for _ in range(4):
        design = low + (high - low) * rng.random(len(low))
        model = smooth(plant, design)
        data = shaken(model, rng)
        full = np.zeros((model.nv, model.nv))
        mujoco.mj_fullM(model, data, full)
        found = ours(design, data.qpos, data.qvel, data.act, data.ctrl[channels])
        for mine, theirs in zip(found, (full, data.qfrc_bias, data.qacc_smooth), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=tolerance * np.abs(theirs).max())


def test_the_equations_are_mujocos_for_every_kind_of_joint_and_actuator(tmp_path: Path) -> None:
    # float32 against float64
    compare(zoo(tmp_path), 2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_equations_are_mujocos_at_any_design_of_a_shipped_plant(name: str) -> None:
    # Constants of the design are cubic polynomials: not exact where a ratio of masses is meant.
    compare(load_plant(name), 1e-2 if name == "arm" else 5e-4)


def test_a_control_period_of_a_smooth_machine_is_nearly_known() -> None:
    """The midpoint rule leaves little of what the arm does in 10 ms, whatever its design."""
    plant = load_plant("arm")
    rng, known = np.random.default_rng(1), known_dynamics(plant)
    low, high = (np.array([getattr(v, end) for v in plant.design]) for end in ("low", "high"))
    designs = low + (high - low) * rng.random((64, len(low)))
    start = draw_starts(load_task(plant), jax.random.key(0), designs)
    action = np.array([rng.uniform(a.low, a.high, 64) for a in plant.actions]).T
    wind = np.zeros((64, plant.nw))
    after = TruePlant(plant, 64, designs).step(start, action, wind)
    explained = known.explains(start, action, wind, after)
    assert explained is not None and explained > 0.995


def test_equations_of_a_machine_in_contact_explain_little() -> None:
    """A robot that lies on the floor is held by forces that the equations leave out."""
    plant = load_plant("halfcheetah")
    rng, known = np.random.default_rng(1), known_dynamics(plant)
    start = draw_starts(load_task(plant), jax.random.key(0), np.tile(plant.nominal, (64, 1)))
    simulator, state = TruePlant(plant, 64), start
    for _ in range(10):
        action = rng.uniform(-1.0, 1.0, (64, plant.nu))
        state, before = simulator.step(state, action), state
    explained = known.explains(before, action, np.zeros((64, 0)), state)
    assert explained is not None and explained < 0.9


def test_equations_described_and_filled_again_are_the_same() -> None:
    known = known_dynamics(load_plant("cartpole"))
    blank = blank_known(known.description())
    assert jax.tree.structure(blank) == jax.tree.structure(known)
    assert jax.tree.map(np.shape, blank) == jax.tree.map(np.shape, known)


def test_any_leading_dimensions_give_the_same_and_so_do_gradients(tmp_path: Path) -> None:
    """One, two and a mapped one (none: above); the gradient against central differences."""
    plant = zoo(tmp_path)
    rng, known = np.random.default_rng(2), known_dynamics(plant)
    datas = [shaken(smooth(plant, plant.nominal), rng) for _ in range(6)]
    channels = [*plant.action_ids, *plant.disturbance_ids]
    given = [
        np.stack(rows)
        for rows in zip(*((d.qpos, d.qvel, d.act, d.ctrl[channels]) for d in datas), strict=True)
    ]

    def found(qpos, qvel, act, control):
        numbers = ready(known.tree, known.at(np.array(plant.nominal)))
        return acceleration(known.tree, numbers, qpos, qvel, act, control)

    compiled = jax.jit(found)
    together = compiled(*given)
    scale = np.abs(together).max()
    pairs = compiled(*(x.reshape(2, 3, -1) for x in given))
    np.testing.assert_allclose(pairs.reshape(6, -1), together, atol=1e-5 * scale)
    mapped = jax.jit(jax.vmap(found))(*(x.reshape(2, 3, -1) for x in given))
    np.testing.assert_allclose(mapped, pairs, atol=1e-5 * scale)

    weights = rng.normal(size=together.shape)
    value = jax.jit(lambda *x: (weights * found(*x)).sum())
    gradients = jax.jit(jax.grad(value, argnums=(0, 1, 2, 3)))(*given)
    for number, gradient in enumerate(gradients):
        # Along itself the slope is steep, and rounding of float32 small beside it.
        step = 1e-2 * np.asarray(gradient) / np.linalg.norm(gradient)
        ahead, behind = (
            value(*(x + sign * step if i == number else x for i, x in enumerate(given)))
            for sign in (1.0, -1.0)
        )
        np.testing.assert_allclose((ahead - behind) / 2e-2, np.linalg.norm(gradient), rtol=5e-3)
