"""A sledge that rubs on the floor: a plant whose solver has a warm start, and a model of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from physai.plant import Plant, load_plant
from physai.state import Array, State

XML = """
<mujoco>
  <option timestep="0.005"/>
  <custom><numeric name="control_period" data="0.02"/></custom>
  <worldbody>
    <geom type="plane" size="9 9 1" friction="0.3"/>
    <body pos="0 0 0.1">
      <joint name="x" type="slide" axis="1 0 0"/><joint name="z" type="slide" axis="0 0 1"/>
      <joint name="pitch" type="hinge" axis="0 1 0"/>
      <geom name="sledge" type="box" size="0.2 0.1 0.1" mass="1" friction="0.3"/>
    </body>
  </worldbody>
  <actuator>
    <general name="push" joint="x" ctrlrange="-9 9" dyntype="filterexact" dynprm="0.05"/>
    <motor name="disturbance/gust" joint="x" ctrlrange="-3 3"/>
  </actuator>
</mujoco>
"""
PYTHON = """
from physai.plant import DesignVariable
DESIGN = (DesignVariable("mass", "kg", 0.5, 2.0, 1.0),)
DISTURBANCES = {"gust": {"std": 2.0, "correlation_time": 0.1}}
UNITS = {"push": "N"}
def apply(spec, design):
    spec.geom("sledge").mass = design["mass"]
"""
TASK = """
import jax, jax.numpy as jnp
from physai.plant import Channel
from physai.state import State
from physai.task import ObservationChannel, Task

def reset(key, design):
    x, place = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
    qpos = jnp.stack([x, 0.05 * jnp.sin(x) ** 2, 0.1 * x])
    return State(qpos, jnp.zeros(3), jnp.zeros(1), jnp.zeros(()), place[None], design)

TASK = Task(
    commands=(Channel("place", "m", -1.0, 1.0),),
    observations=(
        ObservationChannel("error", "m", -3, 3, 0.01), ObservationChannel("v", "m/s", -5, 5, 0.02)
    ),
    duration=0.6,
    reset=reset,
    observe=lambda s: jnp.stack([s.qpos[0] - s.command[0], s.qvel[0]]),
    reward=lambda s, a, t: -jnp.square(t.qpos[0] - t.command[0]) - 1e-3 * jnp.sum(a**2),
    terminated=lambda s: jnp.abs(s.qpos[0]) > 1.05,
    requirements=(),
)
"""


def sledge(folder: Path) -> Plant:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("plant.xml", XML), ("plant.py", PYTHON), ("task.py", TASK)):
        (folder / name).write_text(text)
    return load_plant(folder)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Slider:
    """The sledge without floor: a mass that a lagging force and a gust push along x."""

    lag: jax.Array

    def step(self, state: State, action: Array, disturbance: Array) -> State:
        h = 0.02
        act = action + (state.act - action) * jnp.exp(-h / self.lag)
        speed = state.qvel[..., :1] + h * (act + disturbance) / state.design
        qvel = jnp.concatenate([speed, state.qvel[..., 1:]], -1)
        return state.replace(qpos=state.qpos + h * qvel, qvel=qvel, act=act, time=state.time + h)


def slider() -> Slider:
    return Slider(jnp.float32(0.05))
