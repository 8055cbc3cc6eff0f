"""Names of joints and actuators: the model's, and made ones where it is silent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import mujoco

from physai.errors import InputError


def joint_names(model: mujoco.MjModel) -> list[str]:
    """Return a name of its own for every joint: its own, else `joint_3` for that of index 3."""
    return _completed([model.joint(j).name for j in range(model.njnt)], "joint")


def actuator_names(model: mujoco.MjModel) -> list[str]:
    """Return a name of its own for every actuator: its own, else `actuator_3`."""
    return _completed([model.actuator(i).name for i in range(model.nu)], "actuator")


def sensor_names(model: mujoco.MjModel) -> list[str]:
    """Return a name of its own for every sensor: its own, else `sensor_3`."""
    return _completed([model.sensor(i).name for i in range(model.nsensor)], "sensor")


def _completed(names: Sequence[str], word: str) -> list[str]:
    found, taken = list(names), set(names)
    for i, name in enumerate(names):
        if not name:
            made = f"{word}_{i}"
            while made in taken:  # somebody's own name
                made += "_"
            found[i] = made
            taken.add(made)
    return found


def check_unique(names: Iterable[str], what: str, path: Path) -> None:
    """Refuse two channels of one name, which no log, table or contract could tell apart.

    Raises:
        InputError: names the first of them.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"{path}: two {what} would be called {twice[0]!r}: expected names that differ"
        )
