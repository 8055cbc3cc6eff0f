"""Mass centres in place of root translations, against MuJoCo's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from physai.plant import load_plant
from physai.rollout.collect import RolloutSettings, collect
from physai.state import State
from physai.surrogate.bounds import unbounded
from physai.surrogate.centre import (
    from_centres,
    to_centres,
    translations,
)
from physai.surrogate.features import layout_of
from physai.surrogate.fit import FitSettings
from physai.surrogate.numbers import constants_of, tree_of
from physai.surrogate.prior import centred, prior
from physai.surrogate.release import fit
from physai.surrogate.store import load_surrogate
from physai.task import load_task

MIXED = """
<mujoco>
  <worldbody>
    <body pos="0.3 0 1" euler="0 0 40">
      <geom type="sphere" size="0.01" mass="0.1"/>
      <body pos="0.1 0.2 0" euler="30 0 0">
        <joint name="x" type="slide" axis="1 0 0" ref="0.2"/>
        <joint name="z" type="slide" axis="0 0 1"/>
        <joint name="swing" axis="0 1 0" pos="0.1 0 0.05"/>
        <geom type="box" size="0.1 0.05 0.02" pos="0.03 0 0.01" mass="1"/>
        <body pos="0.2 0 0" euler="0 20 0">
          <joint name="ball" type="ball" pos="0 0.02 0"/>
          <geom type="capsule" size="0.02" fromto="0 0 0 0.2 0.1 0" mass="0.5"/>
          <body pos="0.1 0 0.1">
            <joint name="reach" type="slide" axis="0 1 1"/>
            <joint name="twist" axis="1 0 0" ref="0.4"/>
            <geom type="box" size="0.05 0.02 0.02" pos="0 0.04 0" mass="0.7"/>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="swing" ctrlrange="-1 1"/></actuator>
</mujoco>
"""


@pytest.mark.parametrize("name", ["mixed", "satellite", "hopper", "humanoid", "wafer_stage"])
def test_centres_are_those_of_mujoco_and_lead_back(name: str, tmp_path: Path) -> None:
    if name == "mixed":
        (tmp_path / "mixed.xml").write_text(MIXED)
        plant = load_plant(tmp_path / "mixed.xml")
    else:
        plant = load_plant(name)
    model, data = plant.model, mujoco.MjData(plant.model)
    rng = np.random.default_rng(0)
    mujoco.mj_integratePos(model, data.qpos, rng.normal(size=model.nv), 0.5)
    data.qvel[:] = rng.normal(size=model.nv)
    mujoco.mj_forward(model, data)
    mujoco.mj_subtreeVel(model, data)
    centre, tree, constants = translations(plant), tree_of(plant), constants_of(plant, model)
    empty = jnp.zeros(0)
    state = State(
        jnp.float32(data.qpos), jnp.float32(data.qvel), empty, jnp.float32(0.0), empty, empty
    )
    found = to_centres(tree, constants, centre, state)
    assert centre
    for t in centre:
        place = np.array(t.axis) @ data.subtree_com[t.body]
        assert float(found.qpos[t.qpos_index]) == pytest.approx(place, abs=1e-5)
        speed = np.array(t.axis) @ data.subtree_linvel[t.body]
        assert float(found.qvel[t.qvel_index]) == pytest.approx(speed, abs=1e-5)
    back = from_centres(tree, constants, centre, found)
    np.testing.assert_allclose(back.qpos, state.qpos, atol=1e-6)
    np.testing.assert_allclose(back.qvel, state.qvel, atol=1e-6)


def test_what_has_no_centre_of_its_own_is_left(tmp_path: Path) -> None:
    """A fixed arm has no root that translates; a slide alone carries its centre along."""
    assert translations(load_plant("arm")) == ()
    (tmp_path / "cart.xml").write_text(
        "<mujoco><worldbody><body><joint name='x' type='slide' axis='1 0 0'/>"
        "<geom size='0.1' pos='0.2 0 0'/></body></worldbody>"
        "<actuator><motor joint='x' ctrlrange='-1 1'/></actuator></mujoco>"
    )
    assert translations(load_plant(tmp_path / "cart.xml")) == ()


def test_without_outer_forces_the_centre_keeps_its_speed() -> None:
    """What MuJoCo flies in space changes its root's speed a thousand times as much."""
    plant = load_plant("satellite")
    model, data = plant.model, mujoco.MjData(plant.model)
    data.qvel[3:] = np.random.default_rng(1).normal(size=model.nv - 3) * 0.05
    centre, tree, constants = translations(plant), tree_of(plant), constants_of(plant, model)
    rows = []
    for _ in range(100):
        mujoco.mj_step(model, data)
        rows.append((data.qpos.copy(), data.qvel.copy()))
    qpos, qvel = (jnp.float32(np.array(x)) for x in zip(*rows, strict=True))
    state = State(qpos, qvel, jnp.zeros((100, 0)), jnp.zeros(100), *[jnp.zeros((100, 0))] * 2)
    speed = jax.jit(lambda s: to_centres(tree, constants, centre, s).qvel[:, :3])(state)
    assert np.ptp(speed, axis=0).max() < 1e-3 * np.ptp(qvel[:, :3], axis=0).max()


def test_mass_centres_are_chosen_where_they_calm_the_root(tmp_path: Path) -> None:
    """Panels shake a satellite's root, never its mass centre; a quadrotor has little inside."""
    found = {}
    for name in ("satellite", "quadrotor"):
        machine = load_plant(name)
        settings = RolloutSettings(train=64, calibration=32, test=32)
        data = collect(machine, load_task(machine), tmp_path / name, settings, 0)
        layout = layout_of(machine, data.symmetry)
        found[name] = prior(machine, layout, data.episodes("train"), False)
    layout, known, explained = found["satellite"]
    assert len(layout.centred) == 3 and known is not None and explained is None
    assert found["quadrotor"][0].centred == () and found["quadrotor"][1] is None


def test_equations_stand_back_where_momentum_is_kept(tmp_path: Path) -> None:
    """A satellite's equations explain nearly all of a period, and would move its mass centre."""
    machine = load_plant("satellite")
    settings = RolloutSettings(train=64, calibration=32, test=32)
    data = collect(machine, load_task(machine), tmp_path / "data", settings, 0)
    layout = layout_of(machine, data.symmetry)
    layout, known, explained = prior(machine, layout, data.episodes("train"), True)
    assert len(layout.centred) == 3 and not layout.equations and known is not None
    assert explained is not None and explained > 0.99


def test_a_surrogate_with_mass_centres_keeps_momentum_and_comes_back_from_disk(
    tmp_path: Path,
) -> None:
    satellite = load_plant("satellite")
    settings = RolloutSettings(train=64, calibration=32, test=32)
    data = collect(satellite, load_task(satellite), tmp_path / "data", settings, 0)
    rough = FitSettings(members=2, width=32, steps=250, equations=False)
    fitted = fit(satellite, [data], tmp_path / "s", rough)
    again = load_surrogate(tmp_path / "s", satellite)
    assert again.layout == fitted.layout and len(again.layout.centred) == 3
    test = data.episodes("test")
    states = jax.tree.map(lambda x: jnp.asarray(x[:, 0]), test.states)
    reached = again.step(states, jnp.asarray(test.actions[:, 0]))
    np.testing.assert_array_equal(
        reached.qpos, fitted.step(states, jnp.asarray(test.actions[:, 0])).qpos
    )
    # However rough the network, the mass centre's velocity stays what it was where no bound is met.
    free = replace(again, bounds=unbounded(again.layout.nv))
    reached = free.step(states, jnp.asarray(test.actions[:, 0]))
    before, after = (
        centred(again.layout, again.known, state).qvel[:, :3] for state in (states, reached)
    )
    np.testing.assert_allclose(after, before, atol=2e-7)
