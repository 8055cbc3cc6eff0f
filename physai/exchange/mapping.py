"""The mapping file: which column of a log is which channel of the plant, and in what unit.

TOML, one table a group of channels:

    [time]
    column = "t"
    unit = "ms"

    [position]
    slider = { column = "x", unit = "mm" }
    hinge = { column = "theta", unit = "deg", scale = -1, offset = 90 }

    [quaternion]
    root = { columns = ["q0", "q1", "q2", "q3"], order = "wxyz" }

    [action]
    push = { column = "u", unit = "%" }

A channel's value is (scale * column + offset), in the column's unit, converted to the channel's; or
a constant, `{ value = 0.5, unit = "m" }`.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from physai.errors import InputError
from physai.exchange.units import convert
from physai.plant import Plant
from physai.rollout.store import columns
from physai.task import Task

GROUPS = ("position", "velocity", "activation", "action", "disturbance", "command", "design")
ORDERS = ("wxyz", "xyzw")
_SOURCES = ("log", "publish", "header")
_ARRAY = {"position": "qpos", "velocity": "qvel", "activation": "act"}
_SUFFIX = {"velocity": ".rate", "activation": ".activation"}


@dataclass(frozen=True)
class Entry:
    """Where one channel comes from.

    Attributes:
        column: of the log; "" for a constant.
        unit: of the column or constant.
        scale, offset: applied to the column before its unit is converted.
        value: the constant.
        channel_unit: of the plant's channel.
    """

    column: str
    unit: str
    scale: float
    offset: float
    value: float
    channel_unit: str


@dataclass(frozen=True)
class Quaternion:
    """The columns of a free or ball joint's orientation, body to world, and their order."""

    columns: tuple[str, str, str, str]
    order: str

    @property
    def wxyz(self) -> tuple[str, ...]:
        """The columns in MuJoCo's order."""
        return tuple(self.columns[self.order.index(axis)] for axis in "wxyz")


@dataclass(frozen=True)
class Time:
    """How a log tells time.

    Attributes:
        column: of the time; "" where `period` or, in an MCAP file, `source` tells it.
        unit: of the column; "" where the file says that it is a point in time.
        period: seconds between rows, 0 where a column tells the time.
        source: of an MCAP file's time: "log", "publish" or "header" (of a ROS message).
        longest_gap: control periods without a sample after which a new episode begins.
    """

    column: str
    unit: str
    period: float
    source: str
    longest_gap: float


@dataclass(frozen=True)
class ColumnMap:
    """A mapping file that fits a plant.

    Attributes:
        path: of the file.
        time: how a log tells time.
        episode: column that numbers the episodes, "" where there is none.
        channels: by group and name, as `names` lists them.
        quaternions: by joint.
    """

    path: Path
    time: Time
    episode: str
    channels: dict[str, dict[str, Entry]]
    quaternions: dict[str, Quaternion]

    @property
    def columns(self) -> list[str]:
        """The columns of channels, each once, without those of time and episode."""
        found = [e.column for group in self.channels.values() for e in group.values() if e.column]
        found += [column for q in self.quaternions.values() for column in q.columns]
        return list(dict.fromkeys(found))


def names(plant: Plant, task: Task) -> dict[str, dict[str, str]]:
    """Return the unit of every channel that a mapping may name, by group and name."""
    known = columns(plant, task)
    rotations = {f"{joint}.q{axis}" for joint in turning(plant) for axis in "wxyz"}
    found = {}
    for group in GROUPS:
        suffix = _SUFFIX.get(group, "")
        pairs = known[_ARRAY.get(group, group)]
        found[group] = {n.replace(suffix, ""): unit for n, unit in pairs if n not in rotations}
    return found


def turning(plant: Plant) -> list[str]:
    """Return the names of the joints with a quaternion."""
    return [joint.name for joint in plant.joints if joint.kind in ("free", "ball")]


def load_mapping(path: str | Path, plant: Plant, task: Task) -> ColumnMap:
    """Read a mapping file and check it against the plant.

    Raises:
        InputError: it cannot be read, is not such a file, names what the plant does not have,
            lacks a position or an action, has constants for all positions, a scale of 0, or a
            unit that measures something else.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: expected TOML: {error}") from error
    _only(document, {"time", "episode", "quaternion", *GROUPS}, str(path))
    known = names(plant, task)
    channels = {
        group: _entries(document.get(group, {}), known[group], f"{path}: [{group}]")
        for group in GROUPS
    }
    quaternions = _quaternions(document.get("quaternion", {}), turning(plant), path)
    missing = [f"[position] {n}" for n in known["position"] if n not in channels["position"]]
    missing += [f"[quaternion] {n}" for n in turning(plant) if n not in quaternions]
    missing += [f"[action] {n}" for n in known["action"] if n not in channels["action"]]
    if missing:
        raise InputError(
            f"{path}: expected every position and action of {plant.name}; "
            f"missing: {', '.join(missing)}"
        )
    if not quaternions and not any(entry.column for entry in channels["position"].values()):
        raise InputError(
            f"{path}: [position]: expected a column for at least one position, got constants "
            "alone; a log without motion shows nothing of the machine"
        )
    episode = _table(document.get("episode", {"column": ""}), f"{path}: [episode]")
    _only(episode, {"column"}, f"{path}: [episode]")
    return ColumnMap(
        path=path,
        time=_time(document.get("time", {}), f"{path}: [time]"),
        episode=_text(episode, "column", f"{path}: [episode]"),
        channels=channels,
        quaternions=quaternions,
    )


def _entries(tree: Any, known: Mapping[str, str], where: str) -> dict[str, Entry]:
    found = {}
    for name, entry in _leaves(_table(tree, where)).items():
        if name not in known:
            raise InputError(f"{where}: {_unknown(name, known, 'channels')}")
        found[name] = _entry(entry, known[name], f"{where} {name}")
    return found


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the entries of a table by their full names: `root.x = {...}` nests in TOML."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        is_entry = not isinstance(value, dict) or {"column", "columns", "value"} & value.keys()
        found |= {prefix + key: value} if is_entry else _leaves(value, f"{prefix}{key}.")
    return found


def _entry(entry: Any, channel_unit: str, where: str) -> Entry:
    entry = _table(entry, where)
    _only(entry, {"column", "value", "unit", "scale", "offset"}, where)
    if ("column" in entry) == ("value" in entry):
        raise InputError(f"{where}: expected either a column or a value")
    if "unit" not in entry:
        raise InputError(f'{where}: expected a unit, such as unit = "{channel_unit}"; got none')
    unit = _text(entry, "unit", where)
    convert(1.0, unit, channel_unit, where)
    scale = _number(entry, "scale", 1.0, where)
    if scale == 0.0:
        raise InputError(
            f"{where}: scale: expected a number other than 0, got 0; for a constant, give a value "
            "in place of the column"
        )
    return Entry(
        column=_text(entry, "column", where),
        unit=unit,
        scale=scale,
        offset=_number(entry, "offset", 0.0, where),
        value=_number(entry, "value", math.nan, where),
        channel_unit=channel_unit,
    )


def _quaternions(tree: Any, joints: list[str], path: Path) -> dict[str, Quaternion]:
    found, where = {}, f"{path}: [quaternion]"
    for name, entry in _leaves(_table(tree, where)).items():
        if name not in joints:
            raise InputError(f"{where}: {_unknown(name, joints, 'free and ball joints')}")
        entry = _table(entry, f"{where} {name}")
        _only(entry, {"columns", "order"}, f"{where} {name}")
        order, four = entry.get("order"), entry.get("columns")
        if order not in ORDERS:
            raise InputError(f'{where} {name}: expected order = "wxyz" or "xyzw", got {order!r}')
        if (
            not isinstance(four, list)
            or len(four) != 4
            or not all(isinstance(c, str) for c in four)
        ):
            raise InputError(f"{where} {name}: expected columns = [four names], got {four!r}")
        found[name] = Quaternion((four[0], four[1], four[2], four[3]), order)
    return found


def _time(entry: Any, where: str) -> Time:
    entry = _table(entry, where)
    _only(entry, {"column", "unit", "period", "source", "longest_gap"}, where)
    time = Time(
        column=_text(entry, "column", where),
        unit=_text(entry, "unit", where),
        period=_number(entry, "period", 0.0, where),
        source=_text(entry, "source", where),
        longest_gap=_number(entry, "longest_gap", 3.0, where),
    )
    if sum([bool(time.column), time.period > 0.0, bool(time.source)]) != 1:
        raise InputError(
            f"{where}: expected one of column (with unit), period (seconds between rows), or, for "
            f"MCAP, source = {' or '.join(repr(s) for s in _SOURCES)}"
        )
    if time.source and time.source not in _SOURCES:
        raise InputError(f"{where}: expected source {', '.join(_SOURCES)}, got {time.source!r}")
    if time.longest_gap < 1.0:
        raise InputError(f"{where}: longest_gap: expected at least 1, got {time.longest_gap:g}")
    if time.unit:
        convert(1.0, time.unit, "s", where)
    return time


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f'{where}: expected a table such as {{ column = "x" }}, got {value!r}')
    return value


def _only(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    for name in table:
        if name not in known:
            raise InputError(f"{where}: {_unknown(name, known, 'keys')}")


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise InputError(f"{where}: {key}: expected text, got {value!r}")
    return value


def _number(table: Mapping[str, Any], key: str, default: float, where: str) -> float:
    value = table.get(key, default)
    sound = isinstance(value, int | float) and not isinstance(value, bool)
    if not sound or (key in table and not math.isfinite(value)):
        raise InputError(f"{where}: {key}: expected a finite number, got {value!r}")
    return float(value)


def _unknown(name: str, known: Iterable[str], what: str) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {name!r}; the {what} are {', '.join(sorted(known)) or 'none'}{hint}"
