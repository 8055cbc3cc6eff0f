"""States of the quadrotor and another machine, written by hand for the environments' tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from physai.plant import Plant, load_plant
from physai.state import State

PLANT = load_plant("quadrotor")


def at_rest(height: float = 0.0, **changes) -> State:
    state = State(
        qpos=np.array([0.0, 0.0, height, 1.0, 0.0, 0.0, 0.0]),
        qvel=np.zeros(6),
        act=np.array(PLANT.trim),
        time=np.array(0.0),
        command=np.zeros(4),
        design=PLANT.nominal,
    )
    return state.replace(**changes)


def turned(quaternion) -> State:
    return at_rest(qpos=np.array([0.0, 0.0, 0.0, *quaternion]))


def pendulum(folder: Path) -> list[Plant]:
    """Another machine: one hinge, one motor, no design variables."""
    folder = folder / "pendulum"
    folder.mkdir()
    (folder / "plant.xml").write_text(
        """<mujoco><option timestep="0.01"/><worldbody><body><joint name="pivot" type="hinge"
        axis="0 1 0"/><geom type="capsule" fromto="0 0 0 0 0 -1" size="0.02" mass="1"/></body>
        </worldbody><actuator><motor name="motor" joint="pivot" ctrlrange="-1 1"/>
        </actuator></mujoco>"""
    )
    (folder / "task.py").write_text(
        """
import jax.numpy as jnp
from physai.state import State
from physai.task import ObservationChannel, Task

TASK = Task(
    commands=(),
    observations=(ObservationChannel("angle", "rad", -0.5, 0.5, 0.0),),
    duration=0.1,
    reset=lambda key, design: State(
        jnp.ones(1), jnp.zeros(1), jnp.zeros(0), jnp.zeros(()), jnp.zeros(0), design
    ),
    observe=lambda state: state.qpos,
    reward=lambda state, action, after: -after.qpos[0] ** 2,
    terminated=lambda state: jnp.zeros((), bool),
    requirements=(),
)
"""
    )
    return [load_plant(folder)]
