"""A cart pushed along a line, m x'' = force + push, whose every period has a closed form."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from physai.control.controller import BatchController
from physai.plant import Plant, load_plant
from physai.state import State
from physai.task import ObservationChannel, Requirement, Task
from physai.verify import (
    VerifySettings,
)

MASS, PERIOD, STEPS, TRIM = 2.0, 0.02, 50, 0.5
PUSH_STD, PUSH_TIME = 0.5, 0.2
NOISE = (0.1, 0.3)
CART = f"""
<mujoco>
  <compiler autolimits="true"/>
  <option timestep="0.01" gravity="0 0 0"/>
  <custom><numeric name="control_period" data="{PERIOD}"/></custom>
  <worldbody>
    <body name="cart">
      <joint name="x" type="slide" axis="1 0 0"/>
      <geom type="box" size="0.2 0.1 0.1" mass="{MASS}"/>
    </body>
  </worldbody>
  <actuator>
    <motor name="force" joint="x" ctrlrange="-10 10"/>
    <motor name="disturbance/push" joint="x" ctrlrange="-3 3"/>
  </actuator>
  <keyframe><key name="hold" ctrl="{TRIM} 0"/></keyframe>
</mujoco>
"""
CART_PLANT = f"""
DISTURBANCES = {{"push": {{"std": {PUSH_STD}, "correlation_time": {PUSH_TIME}}}}}
"""


def _reset(key: jax.Array, design: jax.Array) -> State:
    x, v = jax.random.uniform(key, (2, 1), minval=-1.0)
    nothing = jnp.zeros(0)
    return State(x, v, nothing, jnp.zeros(()), nothing, design)


def _settling(states: State) -> jax.Array:
    outside = jnp.abs(states.qpos[:, 0]) > 0.5
    last = jnp.max(jnp.where(outside, jnp.arange(outside.shape[0]), -1))
    return jnp.append(states.time, jnp.inf)[last + 1]


TASK = Task(
    commands=(),
    observations=(
        ObservationChannel("x", "m", -10.0, 10.0, NOISE[0]),
        ObservationChannel("v", "m/s", -10.0, 10.0, NOISE[1]),
    ),
    duration=STEPS * PERIOD,
    reset=_reset,
    observe=lambda state: jnp.concatenate([state.qpos, state.qvel]),
    reward=lambda state, action, after: -jnp.abs(after.qpos[0]),
    terminated=lambda state: jnp.abs(state.qpos[0]) > 50.0,
    requirements=(
        Requirement("end", "distance at the end", "m", 0.5, lambda s: jnp.abs(s.qpos[-1, 0])),
        Requirement("reach", "largest distance", "m", 3.0, lambda s: jnp.max(jnp.abs(s.qpos))),
    ),
    settling=_settling,
)


def pushed_cart(folder: Path) -> Plant:
    (folder / "plant.xml").write_text(CART)
    (folder / "plant.py").write_text(CART_PLANT)
    return load_plant(folder)


def stateless(action: Any) -> BatchController:
    """Return the controller `action(observation)`."""
    return BatchController(lambda n: (), lambda cstate, observation: ((), action(observation)))


def ramp(n_actions: int = 1) -> BatchController:
    """Return the controller whose action in period k is k + 1, whatever it sees."""

    def step(k: int, observation: np.ndarray) -> tuple[int, np.ndarray]:
        return k + 1, np.full((len(observation), n_actions), 0.1 * (k + 1))

    return BatchController(lambda n: 0, step)


damper = stateless(lambda observation: -8.0 * observation[:, :1] - 6.0 * observation[:, 1:])
holder = stateless(lambda observation: np.zeros((len(observation), 1)))
SMALL = VerifySettings(block=4).with_flights(10)
