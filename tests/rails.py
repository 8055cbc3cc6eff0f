"""Machines by hand to roll out: a cart on a rail with a design variable, and a puck that flies."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np

from physai.plant import Plant, load_plant
from physai.rollout.collect import RolloutSettings, collect
from physai.state import State
from physai.task import Task, load_task

# A cart on a rail, one design variable, one gust; `spring` below 0 lets it diverge.
CART = """
<mujoco>
  <option timestep="0.005"/>
  <custom><numeric name="control_period" data="0.02"/></custom>
  <worldbody><body><joint name="x" type="slide" axis="1 0 0" stiffness="{spring}" damping="0.5"/>
    <geom name="cart" size="0.1" mass="1"/></body></worldbody>
  <actuator>
    <general name="push" joint="x" ctrlrange="-2 3" dyntype="filterexact" dynprm="0.05"/>
    <motor name="disturbance/gust" joint="x" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""
CART_PY = """
from physai.plant import DesignVariable
DESIGN = (DesignVariable("mass", "kg", 0.5, 2.0, 1.0),)
DISTURBANCES = {"gust": {"std": 0.4, "correlation_time": 0.1}}
UNITS = {"push": "N"}
def apply(spec, design):
    spec.geom("cart").mass = design["mass"]
"""
CART_TASK = """
import jax, jax.numpy as jnp
from physai.plant import Channel
from physai.state import State
from physai.task import ObservationChannel, Task

def reset(key, design):
    a, b = jax.random.split(key)
    size = 10.0 ** jax.random.uniform(a, minval={smallest}, maxval={largest})
    start = size * jnp.array([1.0, 0.0])
    place = jax.random.uniform(b, (1,), minval=-1.0, maxval=1.0)
    return State(start[:1], start[1:], jnp.zeros(1), jnp.zeros(()), place, design)

TASK = Task(
    commands=(Channel("place", "m", -1.0, 1.0),),
    observations=(
        ObservationChannel("x", "m", -5, 5, 0.01), ObservationChannel("v", "m/s", -5, 5, 0.02)
    ),
    duration=0.6,
    reset=reset,
    observe=lambda s: {observe},
    reward=lambda s, a, t: -jnp.sum(t.qpos ** 2),
    terminated=lambda s: jnp.abs(s.qpos[0]) > {limit},
    requirements=(),
)
"""
# A body that flies, pushed along its own axes and by a gust in the world's.
PUCK = """
<mujoco>
  <option timestep="0.005" {option}><flag contact="{contact}"/></option>
  <worldbody>
    <geom type="plane" size="9 9 1"/><site name="world"/>
    <body><freejoint name="root"/><geom size="0.1 0.2 0.3" type="box" mass="1"/>
      <site name="hub"/></body>
  </worldbody>
  <tendon>{tendon}</tendon>
  <actuator>
    <motor name="push" site="hub" gear="1 0 0.5 0 0.01 0" ctrlrange="-20 20"/>
    {gusts}
  </actuator>
</mujoco>
"""
GUSTS = "".join(
    f'<general name="disturbance/gust_{a}" site="hub" refsite="world" ctrlrange="-5 5" gear="{g}"/>'
    for a, g in (("x", "1 0 0 0 0 0"), ("y", "0 1 0 0 0 0"), ("z", "0 0 1 0 0 0"))
)
PUCK_PY = "DISTURBANCES = {f'gust_{a}': {'std': 1.0, 'vector': 'gust'} for a in 'xyz'}\n"
PUCK_TASK = """
import jax, jax.numpy as jnp
from physai.state import State
from physai.task import ObservationChannel, Task

def reset(key, design):
    a, b, c = jax.random.split(key, 3)
    quaternion = jax.random.normal(b, (4,))
    qpos = jnp.concatenate([jax.random.normal(a, (3,)), quaternion / jnp.linalg.norm(quaternion)])
    empty = jnp.zeros(0)
    return State(qpos, jax.random.normal(c, (6,)), empty, jnp.zeros(()), empty, design)

TASK = Task(
    commands=(), observations=(ObservationChannel("x", "m", -9, 9, 0.0),), duration=1.0,
    reset=reset,
    observe=lambda s: s.qpos[:1], reward=lambda s, a, t: 0.0 * t.qpos[0],
    terminated=lambda s: jnp.zeros((), bool), requirements=(),
)
"""
SMALL = RolloutSettings(
    train=40, calibration=16, test=8, shard_episodes=16, designs_per_shard=4, duration=0.2
)


class Machine(NamedTuple):
    plant: Plant
    task: Task


def write(folder: Path, xml: str, python: str, task: str) -> Machine:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plant.xml").write_text(xml)
    (folder / "plant.py").write_text(python)
    (folder / "task.py").write_text(task)
    plant = load_plant(folder)
    return Machine(plant, load_task(plant))


def cart(
    folder: Path,
    spring: float = 5.0,
    sizes: tuple[float, float] = (-1.0, 0.0),
    limit: float = 1e9,
    observe: str = "jnp.stack([s.qpos[0], s.qvel[0]])",
) -> Machine:
    smallest, largest = sizes
    task = CART_TASK.format(smallest=smallest, largest=largest, limit=limit, observe=observe)
    return write(folder, CART.format(spring=spring), CART_PY, task)


def puck(folder: Path, option="", contact="disable", tendon="", python=PUCK_PY) -> Machine:
    xml = PUCK.format(option=option, contact=contact, tendon=tendon, gusts=GUSTS)
    return write(folder, xml, python, PUCK_TASK)


def quadrotor_machine() -> Machine:
    plant = load_plant("quadrotor")
    return Machine(plant, load_task(plant))


def collected(folder: Path) -> tuple[Machine, Path]:
    """Collect a small dataset, without an interruption."""
    machine = cart(folder / "cart")
    collect(*machine, folder / "dataset", SMALL, seed=3)
    return machine, folder / "dataset"


def step_alone(
    plant: Plant, model: mujoco.MjModel, state: State, actions: np.ndarray, gusts: np.ndarray
) -> list[np.ndarray]:
    """Fly one simulation with a plain loop over mj_step; return [qpos, qvel, act] by moment."""
    data = mujoco.MjData(model)
    data.qpos, data.qvel, data.act = state.qpos, state.qvel, state.act
    moments = [np.concatenate([data.qpos, data.qvel, data.act])]
    for action, gust in zip(actions, gusts, strict=True):
        data.ctrl[list(plant.action_ids)] = action
        data.ctrl[list(plant.disturbance_ids)] = gust
        for _ in range(plant.substeps):
            mujoco.mj_step(model, data)
        moments.append(np.concatenate([data.qpos, data.qvel, data.act]))
    return moments


class Counting(NamedTuple):
    """Commands 0.01 k in period k, whatever it sees; keeps what it saw."""

    seen: list[np.ndarray]

    def init(self, n: int) -> int:
        return 0

    def step(self, k: int, observation: np.ndarray) -> tuple[int, np.ndarray]:
        self.seen.append(observation)
        return k + 1, np.full((len(observation), 1), 0.01 * (k + 1))
