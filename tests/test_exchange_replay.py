"""Units that a log is suspected to be in because the model explains it only there."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from logs import fly

from physai.exchange.convert import mapping_text
from physai.exchange.mapping import load_mapping
from physai.exchange.replay import suspect_units
from physai.exchange.resample import Recording, difference_rates
from physai.exchange.suspect import shaken
from physai.plant import Plant, load_plant
from physai.rollout.engine import TruePlant
from physai.state import State
from physai.task import Task, load_task

PLANTS = ("cartpole", "arm", "quadrotor", "wafer_stage", "hopper", "satellite")
HOME = np.array([0.0, -1.2, 1.6, -1.97, -1.57, 0.0])  # rad, of the arm


@cache
def machine(name: str) -> tuple[Plant, Task, np.ndarray]:
    plant = load_plant(name)
    task = load_task(plant)
    return plant, task, shaken(plant, task, 0)


def recording(plant: Plant, task: Task, flown: dict[str, np.ndarray]) -> Recording:
    periods = len(flown["action"])
    constant = {"command": np.zeros(len(task.commands)), "design": plant.nominal}
    return Recording("log", {**flown, "disturbance": np.zeros((periods, plant.nw)), **constant})


@pytest.fixture
def suspected(tmp_path: Path) -> Callable[..., list[str]]:
    """What is suspected of a log, of which some joints are in other units than is said."""

    def call(
        name: str,
        flown: dict[str, np.ndarray],
        scaled: dict[str, float],
        units: dict[str, str] | None = None,
    ) -> list[str]:
        plant, task, moving = machine(name)
        text = mapping_text(plant, task)
        for old, new in (units or {}).items():
            text = text.replace(old, new)
        (tmp_path / "mapping.toml").write_text(text)
        mapping = load_mapping(tmp_path / "mapping.toml", plant, task)
        qpos, qvel = flown["qpos"].copy(), flown["qvel"].copy()
        for joint in plant.joints:
            width = 3 if joint.kind == "free" else 1
            qpos[:, joint.qpos_index : joint.qpos_index + width] *= scaled.get(joint.name, 1.0)
            qvel[:, joint.qvel_index : joint.qvel_index + width] *= scaled.get(joint.name, 1.0)
        log = recording(plant, task, {**flown, "qpos": qpos, "qvel": qvel})
        return suspect_units("log", [log], mapping, plant, task, moving)

    return call


def measured(
    plant: Plant, flown: dict[str, np.ndarray], noise: float, rates: bool
) -> dict[str, np.ndarray]:
    """What sensors with white noise, in m and rad, and 10 times that in velocity, say of it."""
    rng = np.random.default_rng(5)
    qpos = flown["qpos"].copy()
    for joint in plant.joints:
        width = {"free": 3, "ball": 0}.get(joint.kind, 1)
        at = slice(joint.qpos_index, joint.qpos_index + width)
        qpos[:, at] += noise * rng.standard_normal(qpos[:, at].shape)
    noisy = flown["qvel"] + 10.0 * noise * rng.standard_normal(flown["qvel"].shape)
    return {**flown, "qpos": qpos, "qvel": noisy if rates else difference_rates(plant, qpos)}


@pytest.mark.parametrize("name", PLANTS)
def test_a_sound_log_is_not_suspected(suspected, name: str) -> None:
    plant = machine(name)[0]
    flown = fly(plant, 400)
    for noise, rates in ((0.0, True), (1e-4, False), (1e-3, True), (1e-3, False), (1e-2, False)):
        assert suspected(name, measured(plant, flown, noise, rates), {}) == []


def test_a_sound_log_in_deg_and_mm_is_not_suspected(suspected) -> None:
    plant = machine("cartpole")[0]
    units = {'position.slider", unit = "m"': 'position.slider", unit = "mm"'}
    units |= {'position.hinge", unit = "rad"': 'position.hinge", unit = "deg"'}
    log = measured(plant, fly(plant, 400), 1e-3, rates=False)
    assert suspected("cartpole", log, {}, units) == []


@pytest.mark.parametrize("rates", [True, False])
@pytest.mark.parametrize(
    ("name", "joints", "factor", "unit"),
    [
        ("cartpole", ["hinge"], 180.0 / np.pi, "deg"),
        ("cartpole", ["slider"], 1000.0, "mm"),
        ("quadrotor", ["root"], 1000.0, "mm"),
        ("quadrotor", ["root"], 100.0, "cm"),
        ("arm", [f"joint_{i}" for i in range(1, 7)], 180.0 / np.pi, "deg"),
        ("arm", ["joint_3"], 180.0 / np.pi, "deg"),
    ],
)
def test_another_unit_is_suspected(
    suspected, name: str, joints: list[str], factor: float, unit: str, rates: bool
) -> None:
    plant = machine(name)[0]
    log = measured(plant, fly(plant, 400), 1e-4, rates)
    (said,) = suspected(name, log, dict.fromkeys(joints, factor))
    assert all(f"{joint}" in said for joint in joints) and said.endswith(f"in {unit}?")
    assert sum(j.name in said for j in plant.joints) == len(joints)


def test_rad_declared_as_deg_are_suspected(suspected) -> None:
    plant = machine("cartpole")[0]
    units = {'position.hinge", unit = "rad"': 'position.hinge", unit = "deg"'}
    log = measured(plant, fly(plant, 400), 1e-4, rates=False)
    (said,) = suspected("cartpole", log, {"hinge": np.pi / 180.0}, units)
    assert "declared deg" in said and said.endswith("is the column in rad?")


def test_two_wrong_units_are_both_suspected(suspected) -> None:
    plant = machine("cartpole")[0]
    log = measured(plant, fly(plant, 400), 1e-4, rates=True)
    said = suspected("cartpole", log, {"hinge": 180.0 / np.pi, "slider": 1000.0})
    assert sorted(s.rpartition(" ")[2] for s in said) == ["deg?", "mm?"]


def reached(plant: Plant, amplitude: float, rate: float) -> dict[str, np.ndarray]:
    """The arm led along slow sines about its home by a stiff controller."""
    simulator, h, empty = TruePlant(plant, 1), plant.control_period, np.zeros((1, 0))
    rates = rate * np.linspace(1.0, 2.3, 6)
    gains = np.array([20.0, 20.0, 20.0, 10.0, 10.0, 10.0])
    state = State(
        HOME[None].copy(),
        np.zeros((1, 6)),
        empty,
        time=np.zeros(1),
        command=empty,
        design=plant.nominal[None],
    )
    states, actions = [state], []
    for k in range(600):
        wanted = HOME + amplitude * np.sin(rates * k * h)
        action = plant.trim + gains * (wanted - state.qpos[0]) - 0.1 * gains * state.qvel[0]
        actions.append(np.clip(action, -1.0, 1.0))
        state = simulator.step(state, actions[-1][None])
        states.append(state)
    found = {name: np.stack([getattr(s, name)[0] for s in states]) for name in ("qpos", "qvel")}
    return {**found, "act": np.zeros((601, 0)), "action": np.stack(actions)}


@pytest.mark.parametrize(("amplitude", "rate"), [(0.2, 0.3), (0.5, 0.6)])
@pytest.mark.parametrize("rates", [True, False])
def test_gentle_motion_in_deg_is_suspected(
    suspected, amplitude: float, rate: float, rates: bool
) -> None:
    plant = machine("arm")[0]
    log = measured(plant, reached(plant, amplitude, rate), 1e-4, rates)
    assert suspected("arm", log, {}) == []
    joints = [joint.name for joint in plant.joints]
    (said,) = suspected("arm", log, dict.fromkeys(joints, 180.0 / np.pi))
    assert said.endswith("are the columns in deg?")


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_a_hanging_pole_in_deg_is_suspected(suspected, noise: float) -> None:
    """Swings of 17 degrees about hanging, read as 163 to 197 rad."""
    plant = machine("cartpole")[0]
    simulator, empty = TruePlant(plant, 1), np.zeros((1, 0))
    state = State(
        np.array([[0.0, np.pi + 0.3]]),
        np.zeros((1, 2)),
        empty,
        time=np.zeros(1),
        command=empty,
        design=plant.nominal[None],
    )
    states = [state]
    for _ in range(600):
        state = simulator.step(state, np.zeros((1, 1)))
        states.append(state)
    found = {name: np.stack([getattr(s, name)[0] for s in states]) for name in ("qpos", "qvel")}
    found |= {"act": np.zeros((601, 0)), "action": np.zeros((600, 1))}
    log = measured(plant, found, noise, rates=False)
    assert suspected("cartpole", log, {}) == []
    (said,) = suspected("cartpole", log, {"hinge": 180.0 / np.pi})
    assert said.endswith("is the column in deg?")


def test_motion_that_no_model_explains_is_judged_by_its_strength(suspected) -> None:
    """A pole led along a sine by hand, which no push of the cart tells."""
    plant = machine("cartpole")[0]
    time = plant.control_period * np.arange(601)
    angle = np.pi + 0.3 * np.sin(2.0 * np.pi * 0.6 * time)
    flown = {**fly(plant, 600), "qpos": np.stack([fly(plant, 600)["qpos"][:, 0], angle], -1)}
    log = measured(plant, flown, 1e-5, rates=False)
    assert suspected("cartpole", log, {}) == []
    (said,) = suspected("cartpole", log, {"hinge": 180.0 / np.pi})
    assert "times the largest of the shaken model as declared" in said


def test_what_the_task_gives_up_tells_where_motion_does_not(suspected) -> None:
    """An arm at rest, whose torques were not logged."""
    plant = machine("arm")[0]
    flown = reached(plant, 0.0, 0.0)
    flown["action"] = np.zeros_like(flown["action"])
    log = measured(plant, flown, 1e-4, rates=False)
    assert suspected("arm", log, {}) == []
    joints = [joint.name for joint in plant.joints]
    (said,) = suspected("arm", log, dict.fromkeys(joints, 180.0 / np.pi))
    assert "the task gives up 100% of the log's states as declared, 0% in deg" in said


def test_a_short_log_is_not_judged(suspected) -> None:
    plant = machine("cartpole")[0]
    assert suspected("cartpole", fly(plant, 60), {"hinge": 180.0 / np.pi}) == []
