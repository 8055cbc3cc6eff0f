"""What a surrogate sees of the ground, against MuJoCo's own kinematics and collisions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from physai.plant import Plant, load_plant
from physai.rollout.symmetry import Symmetry
from physai.state import State, quaternion_from_axis_angle, quaternion_multiply
from physai.surrogate.balls import contacts_of
from physai.surrogate.features import layout_of
from physai.surrogate.ground import approach, touched
from physai.surrogate.inputs import input_channels, inputs
from physai.surrogate.known import known_dynamics

LEG = """
<mujoco>
  <option timestep="0.005"/>
  <custom><numeric name="control_period" data="0.02"/></custom>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 1" pos="0 0 0.3" euler="0 10 0"/>
    <geom name="wall" type="plane" size="5 5 1" pos="-2 0 0" euler="0 90 0" contype="0"
          conaffinity="0"/>
    <body name="foot" pos="0 0 0.4">
      <freejoint name="root"/>
      <geom type="box" size="0.2 0.1 0.05" pos="0.1 0 0" euler="0 0 30"/>
      <body name="toe" pos="0.3 0 0">
        <joint name="toe" type="hinge" axis="0 1 0"/>
        <geom name="tip" type="capsule" fromto="0 0 0 0.2 0 0" size="0.03" margin="0.002"/>
        <geom name="ghost" type="sphere" size="0.1" contype="0" conaffinity="0"/>
      </body>
      <geom name="nose" type="sphere" size="0.07" pos="-0.2 0 0.1" mass="0.1"/>
    </body>
  </worldbody>
  <actuator><motor name="toe" joint="toe" ctrlrange="-1 1"/></actuator>
</mujoco>
"""


@pytest.fixture
def leg(tmp_path: Path) -> Plant:
    (tmp_path / "plant.xml").write_text(LEG)
    return load_plant(tmp_path)


def posed(plant: Plant, seed: int, count: int = 16) -> tuple[State, list[Any]]:
    """Return random states near the ground, and MuJoCo's data of each."""
    rng, model, all_ = np.random.default_rng(seed), plant.model, []
    for _ in range(count):
        data = mujoco.MjData(model)
        mujoco.mj_integratePos(model, data.qpos, rng.normal(size=model.nv), 0.5)
        data.qvel[:] = rng.normal(size=model.nv)
        mujoco.mj_forward(model, data)
        all_.append(data)
    qpos, qvel = (np.array([getattr(d, name) for d in all_]) for name in ("qpos", "qvel"))
    design = np.tile(plant.nominal, (count, 1))
    empty = np.zeros((count, 0))
    state = State(qpos, qvel, empty, np.zeros(count), empty, design)
    return jax.tree.map(jnp.float32, state), all_


@pytest.mark.parametrize("name", ["hopper", "ant", "humanoid", "leg"])
def test_distances_are_those_of_mujocos_collisions(name: str, request: Any) -> None:
    plant = request.getfixturevalue("leg") if name == "leg" else load_plant(name)
    contacts, known = contacts_of(plant), known_dynamics(plant)
    state, all_ = posed(plant, 0)
    found = np.asarray(approach(known, contacts, state).distance).T
    model, compared = plant.model, 0
    plane = model.geom("floor").id
    for row, data in zip(found, all_, strict=True):
        mujoco.mj_collision(model, data)
        least: dict[int, float] = {}
        for contact in data.contact:
            if plane in contact.geom:
                other = int(contact.geom.sum()) - plane
                least[other] = min(least.get(other, np.inf), contact.dist)
        for geom, distance in least.items():
            margin = model.geom_margin[geom]
            owned = [
                d
                for d, c in zip(row, contacts, strict=True)
                if c.name.startswith(
                    model.geom(geom).name or f"{model.body(model.geom_bodyid[geom]).name}_geom"
                )
            ]
            assert np.min(np.abs(np.array(owned) + margin - distance)) < 2e-5
            compared += 1
    assert compared > 5


@pytest.mark.parametrize("name", ["hopper", "humanoid", "leg"])
def test_rates_and_slides_are_the_motion_of_material_points(name: str, request: Any) -> None:
    plant = request.getfixturevalue("leg") if name == "leg" else load_plant(name)
    contacts, known = contacts_of(plant), known_dynamics(plant)
    state, all_ = posed(plant, 1, 4)
    found = approach(known, contacts, state)
    for i, data in enumerate(all_):
        for k, contact in enumerate(contacts):
            body = contact.body
            point = data.xpos[body] + data.xmat[body].reshape(3, 3) @ np.asarray(
                known.constants["ball_place"][contact.ball]
            )
            jacobian = np.zeros((3, plant.model.nv))
            mujoco.mj_jac(plant.model, data, jacobian, None, point, body)
            velocity, normal = jacobian @ data.qvel, np.array(contact.normal)
            assert float(found.rate[k, i]) == pytest.approx(velocity @ normal, abs=1e-4)
            along = velocity - (velocity @ normal) * normal
            assert np.allclose(found.slide[k, :, i], along, atol=1e-4)


def test_contacts_are_those_that_may_touch(leg: Plant) -> None:
    names = {contact.name for contact in contacts_of(leg)}
    boxes = {f"foot_geom0_{i}_on_floor" for i in range(8)}
    assert names == {*boxes, "nose_0_on_floor", "tip_0_on_floor", "tip_1_on_floor"}
    assert contacts_of(load_plant("quadrotor")) == ()  # its contacts are disabled


def test_only_what_touches_becomes_an_input(leg: Plant) -> None:
    contacts, known = contacts_of(leg), known_dynamics(leg)
    state, _ = posed(leg, 2, 64)
    high = state.replace(qpos=state.qpos.at[:, 2].add(10.0))
    assert touched(known, contacts, high) == ()
    low = state.replace(qpos=state.qpos.at[:, 2].add(-10.0))
    assert touched(known, contacts, low) == contacts


def test_inputs_turn_with_the_heading_on_level_ground() -> None:
    plant = load_plant("ant")
    symmetry = Symmetry("xy", heading=True)
    layout = replace(layout_of(plant, symmetry), contacts=contacts_of(plant))
    known = known_dynamics(plant)
    state, _ = posed(plant, 3)
    angle, count = 1.1, len(state.qpos)
    turn = quaternion_from_axis_angle(jnp.array([0.0, 0.0, 1.0]), angle)
    c, s = np.cos(angle), np.sin(angle)
    matrix = jnp.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    attitude = quaternion_multiply(jnp.broadcast_to(turn, (count, 4)), state.qpos[:, 3:7])
    place = state.qpos[:, :3] @ matrix.T + jnp.array([3.0, -2.0, 0.0])
    turned = state.replace(
        qpos=jnp.concatenate([place, attitude, state.qpos[:, 7:]], 1),
        qvel=state.qvel.at[:, :3].set(state.qvel[:, :3] @ matrix.T),
    )
    calm = np.zeros((count, plant.nu)), np.zeros((count, plant.nw))
    x, y = (np.asarray(inputs(layout, known, each, *calm)) for each in (state, turned))
    assert np.abs(x - y).max() < 1e-4
    names = [channel.name for channel in input_channels(layout, plant)]
    assert len(names) == x.shape[1]
    depth = names.index(f"{layout.contacts[0].name}.depth")
    distance = np.asarray(approach(known, layout.contacts, state).distance).T
    assert np.allclose(x[:, depth], np.maximum(0.0, -distance[:, 0]), atol=1e-6)
    assert (x[:, depth : depth + len(layout.contacts)] > 0.0).any()
