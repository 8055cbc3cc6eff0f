"""Machines whose motion is known in closed form, and their episodes."""

from __future__ import annotations

from pathlib import Path

from physai.plant import Plant, load_plant
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.dataset import Dataset
from physai.task import load_task

SPRING = """
<mujoco><option timestep="0.01"/><worldbody><body>
<joint name="x" type="slide" axis="1 0 0" stiffness="40" damping="0.5"/>
<geom size="0.1" mass="1"/></body></worldbody>
<actuator><motor name="push" joint="x" ctrlrange="-5 5"/></actuator></mujoco>
"""


def machine(folder: Path, xml: str) -> Plant:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "machine.xml").write_text(xml)
    return load_plant(folder / "machine.xml")


def episodes_of(plant: Plant, folder: Path, periods: int = 120, **counts: int) -> Dataset:
    counts = {"train": 64, "calibration": 32, "test": 64, **counts}
    settings = RolloutSettings(**counts, duration=periods * plant.control_period)
    return collect(plant, load_task(plant), folder, settings, 0)
