"""A cart whose designs have closed forms, its exact model, and a controller for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from physai.control.controller import Controller, batch_controller
from physai.design.sampling import Trials, imagined_flights
from physai.plant import Plant, load_plant
from physai.task import Task, load_task

# A cart on a rail: m x'' = F u with |u| <= 1. Its design is the mass m and the force F.
CART_XML = """
<mujoco model="cart">
  <option timestep="0.01" gravity="0 0 0"/>
  <custom><numeric name="control_period" data="0.05"/></custom>
  <worldbody>
    <body name="cart">
      <joint name="rail" type="slide" axis="1 0 0"/>
      <geom name="box" type="box" size="0.1 0.1 0.1" mass="1"/>
    </body>
  </worldbody>
  <actuator><motor name="push" joint="rail" ctrlrange="-1 1" gear="2"/></actuator>
</mujoco>
"""
CART_PLANT = """
from physai.plant import DesignVariable
DESIGN = (DesignVariable("mass", "kg", 0.5, 2.0, 1.0), DesignVariable("force", "N", 0.2, 4.0, 2.0))
def apply(spec, design):
    spec.geom("box").mass = design["mass"]
    spec.actuator("push").gear[0] = design["force"]
"""
CART_TASK = """
import jax, jax.numpy as jnp
from physai.state import State
from physai.task import Objective, ObservationChannel, Requirement, Task
LIMIT = 0.05

def reset(key, design):
    x = jax.random.uniform(key, (1,), minval=0.5, maxval=1.0)
    z = jnp.zeros
    return State(qpos=x, qvel=z(1), act=z(0), time=z(()), command=z(0), design=design)

def settling(states):
    outside = jnp.abs(states.qpos[:, 0]) > LIMIT
    last = jnp.max(jnp.where(outside, jnp.arange(outside.shape[0]), -1))
    return jnp.append(states.time, jnp.inf)[last + 1] - states.time[0]

TASK = Task(
    commands=(),
    observations=(
        ObservationChannel("x", "m", -5, 5, 0.0),
        ObservationChannel("v", "m/s", -5, 5, 0.0),
    ),
    duration=4.0,
    reset=reset,
    observe=lambda s: jnp.concatenate([s.qpos, s.qvel]),
    reward=lambda s, a, n: -jnp.abs(n.qpos[0]),
    terminated=lambda s: jnp.abs(s.qpos[0]) > 4.0,
    settling=settling,
    objectives=(
        Objective("settling_time", "time to stay", "s", False, settling),
        Objective("mass", "mass moved", "kg", True, lambda s: s.design[0, 0]),
        Objective("force", "size of the motor", "N", False, lambda s: s.design[0, 1]),
    ),
    requirements=(
        Requirement("position", "at the end", "m", LIMIT, lambda s: jnp.abs(s.qpos[-1, 0])),
    ),
)
"""


def cart_at(folder: Path) -> tuple[Plant, Task]:
    """Write the cart to a new folder and load it."""
    folder.mkdir()
    for name, text in {"plant.xml": CART_XML, "plant.py": CART_PLANT, "task.py": CART_TASK}.items():
        (folder / name).write_text(text)
    plant = load_plant(folder)
    return plant, load_task(plant)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ExactCart:
    """The cart as MuJoCo integrates it: semi-implicit Euler, 5 steps of 0.01 s."""

    step_size: float = 0.01

    def step(self, state, action, disturbance):
        mass, force = state.design[..., :1], state.design[..., 1:]
        x, v = state.qpos, state.qvel
        for _ in range(5):
            v = v + self.step_size * force / mass * action
            x = x + self.step_size * v
        return state.replace(qpos=x, qvel=v, time=state.time + 5 * self.step_size)


def pd_controller(position: float = 2.0, velocity: float = 2.5) -> Controller:
    def step(cstate, observation):
        return (
            cstate,
            jnp.clip(-position * observation[:1] - velocity * observation[1:2], -1, 1),
            {},
        )

    return Controller(lambda key: (), step)


def cart_trials(cart: tuple[Plant, Task], seed: int = 0, flights: int = 6) -> Trials:
    plant, task = cart
    imagine = imagined_flights(plant, task, pd_controller(), ExactCart(), designs=8, flights=4)
    return Trials(imagine, batch_controller(pd_controller()), plant, task, 4, flights, seed)
