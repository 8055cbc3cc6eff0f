"""Keep a flight with all that it met, and fly it again alone, to the bit.

A saved flight is one .npz: the scenario (start, wrong mass, gusts, sensor noise, delay), the
trajectory, and its place in the block it was flown in, since a controller's batched arithmetic may
round by place and block size.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import jax
import numpy as np

from physai.control.controller import BatchController
from physai.errors import InputError
from physai.plant import Plant
from physai.provenance import atomic_write
from physai.state import State
from physai.task import Task
from physai.verify.fly import Flights, Judgement, fly, judge
from physai.verify.scenarios import Scenarios, take


@dataclass(frozen=True)
class Trajectory:
    """One flight of T control periods, and whether it is the one that was stored.

    Attributes:
        states: float32 `[T+1, ...]`.
        actions: what the actuators received, float32 `[T, nu]`.
        disturbances: float32 `[T, nw]`.
        diverged: the simulation blew up.
        faults: control periods in which the controller returned NaN or infinity.
        measures: what each requirement measured `[nr]`, in its unit; inf for a failed flight.
        identical: states and actions equal the stored ones, number by number.
        commands: names of the channels of `states.command`.
    """

    states: State
    actions: np.ndarray
    disturbances: np.ndarray
    diverged: bool
    faults: int
    measures: np.ndarray
    identical: bool
    commands: tuple[str, ...]


@dataclass(frozen=True)
class SavedFlight:
    """A flight as it was stored.

    Attributes:
        plant: name of the plant.
        plant_sha256: hash of its folder.
        condition: name of the condition it was drawn for.
        flight: its number among the flights of the condition.
        block: how many flew side by side.
        scenario: what it met, a batch of one.
        flown: what happened, a batch of one.
        measures: what each requirement measured `[nr]`, in its unit; inf for a failed flight.
        commands: names of the task's commands.
    """

    plant: str
    plant_sha256: str
    condition: str
    flight: int
    block: int
    scenario: Scenarios
    flown: Flights
    measures: np.ndarray
    commands: tuple[str, ...]

    @property
    def trajectory(self) -> Trajectory:
        """The flight as it was flown."""
        return _trajectory(self, self.flown, self.measures, True)


def save_flight(
    path: str | Path,
    plant: Plant,
    task: Task,
    condition: str,
    flight: int,
    scenarios: Scenarios,
    flights: Flights,
    judgement: Judgement,
    block: int,
) -> None:
    """Write flight number `flight` of a condition to an .npz file.

    Raises:
        InputError: the file cannot be written.
    """
    scenario, flown = take((scenarios, flights), slice(flight, flight + 1))
    states = {f"states.{f.name}": getattr(flown.states, f.name)[0] for f in fields(State)}
    arrays = {
        "plant": np.array(plant.name),
        "plant_sha256": np.array(plant.sha256),
        "condition": np.array(condition),
        "commands": np.array([c.name for c in task.commands], str),
        "flight": np.array(flight),
        "block": np.array(block),
        "design": scenario.designs[0],
        "mass_scale": scenario.mass_scale[0],
        "disturbances": scenario.disturbances[0],
        "noise": scenario.noise[0],
        "delay_steps": np.array(scenario.delay_steps),
        "actions": flown.actions[0],
        "diverged": flown.diverged[0],
        "faults": flown.faults[0],
        "measures": judgement.measures[flight],
        **states,
    }
    write_arrays(path, arrays)


def load_flight(path: str | Path) -> SavedFlight:
    """Read a flight that `save_flight` wrote.

    Raises:
        InputError: it cannot be read, or is not such a file.
    """
    arrays = read_arrays(path)
    try:
        states = State(**{f.name: arrays[f"states.{f.name}"][None] for f in fields(State)})
        return SavedFlight(
            plant=str(arrays["plant"]),
            plant_sha256=str(arrays["plant_sha256"]),
            condition=str(arrays["condition"]),
            flight=int(arrays["flight"]),
            block=int(arrays["block"]),
            scenario=Scenarios(
                starts=states[:, 0],
                designs=arrays["design"][None],
                mass_scale=arrays["mass_scale"][None],
                disturbances=arrays["disturbances"][None],
                noise=arrays["noise"][None],
                delay_steps=int(arrays["delay_steps"]),
            ),
            flown=Flights(
                states,
                arrays["actions"][None],
                arrays["diverged"][None],
                arrays["faults"][None],
            ),
            measures=arrays["measures"],
            commands=tuple(map(str, arrays["commands"])),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path}: expected a flight saved by verify, got {error}") from error


def replay(plant: Plant, task: Task, controller: BatchController, path: str | Path) -> Trajectory:
    """Fly a saved scenario again in true MuJoCo.

    With the controller it was flown with, every number comes out as stored (`identical`). With
    another controller, it shows how that one would have done.

    Raises:
        InputError: the file is no saved flight, or was flown on another plant or task.
    """
    saved = load_flight(path)
    if saved.plant_sha256 != plant.sha256:
        raise InputError(
            f"{path}: flown on plant {saved.plant} with hash {saved.plant_sha256:.12}, "
            f"got {plant.name} with hash {plant.sha256:.12}; verify again"
        )
    seen = saved.scenario.noise.shape[-1]
    if seen != task.no:
        raise InputError(f"{path}: flown with {seen} observation channels, the task has {task.no}")
    # Copies fill the block, so that the flight keeps its place in one of the same size.
    rows, row = np.zeros(saved.block, int), saved.flight % saved.block
    flights = fly(plant, task, controller, take(saved.scenario, rows), block=saved.block)
    flown = take(flights, slice(row, row + 1))
    identical = all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(flown), jax.tree.leaves(saved.flown), strict=True)
    )
    return _trajectory(saved, flown, judge(task, flown).measures[0], identical)


def _trajectory(
    saved: SavedFlight, flown: Flights, measures: np.ndarray, identical: bool
) -> Trajectory:
    return Trajectory(
        states=flown.states[0],
        actions=flown.actions[0],
        disturbances=saved.scenario.disturbances[0],
        diverged=bool(flown.diverged[0]),
        faults=int(flown.faults[0]),
        measures=measures,
        identical=identical,
        commands=saved.commands,
    )


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays to an .npz file whose bytes depend on nothing else.

    Raises:
        InputError: the file cannot be written.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            entry = zipfile.ZipInfo(f"{name}.npy")  # with the date of 1980, not today's
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(arrays[name]), allow_pickle=False)
    atomic_write(path, buffer.getvalue())


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file; pickled objects are refused.

    Raises:
        InputError: it cannot be read, or is not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as an .npz file: {error}") from error
