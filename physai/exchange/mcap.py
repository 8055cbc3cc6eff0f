"""Reading MCAP files: messages in JSON, ROS 2 (CDR) and Protobuf, a column named `TOPIC.FIELD`.

A field may be nested and indexed: `/joint_states.position[0]`, `imu.orientation.w`.

Reference: the MCAP file format specification, mcap.dev/spec.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from physai.errors import InputError
from physai.exchange.extra import extra
from physai.exchange.logs import Log, Signal, check_signal
from physai.exchange.mapping import ColumnMap

_MEND = "copy it again, or recover what is whole with `mcap recover`"
_STAMPS = {"log": "log_time", "publish": "publish_time"}


def read_mcap(path: Path, mapping: ColumnMap) -> list[Log]:
    """Read the messages of the mapped topics, as one log.

    Raises:
        InputError: it cannot be read, lacks a topic or field, has text in one, a message is in an
            encoding without a decoder, or the time of a topic does not increase.
    """
    if not mapping.time.source:
        raise InputError(f'{mapping.path}: [time]: {path.name} needs source = "log"')
    if mapping.episode:
        raise InputError(f"{mapping.path}: [episode] is for tables, not for {path.name}")
    topics = _topics(path)
    fields = _fields(mapping.columns, topics, path)
    times: dict[str, list[int]] = {topic: [] for topic in fields}
    values: dict[str, list[float]] = {column: [] for column in mapping.columns}
    for topic, message, decoded in _messages(path, sorted(fields)):
        times[topic].append(_stamp(message, decoded, mapping.time.source, topic, path))
        for column, steps in fields[topic].items():
            values[column].append(_value(decoded, steps, f"{path}: {column}"))
    for topic in fields:
        if not times[topic]:
            raise InputError(f"{path}: topic {topic!r}: expected messages, got none")
    first, signals = min(t[0] for t in times.values()), {}
    for topic, columns in fields.items():
        seconds = _increasing(times[topic], first, f"{path.name}: topic {topic!r}")
        for column in columns:
            signal = Signal(seconds, np.array(values[column], float))
            missing = np.isnan(signal.values)
            signals[column] = Signal(seconds[~missing], signal.values[~missing])
            check_signal(path.name, column, signals[column])
    return [Log(path.name, sum(map(len, times.values())), signals, {})]


def _increasing(nanoseconds: Sequence[int], first: int, where: str) -> np.ndarray:
    seconds = (np.array(nanoseconds, np.int64) - first) * 1e-9
    back = np.flatnonzero(np.diff(seconds) <= 0.0)
    if len(back):
        raise InputError(
            f"{where}: expected times that increase, got {seconds[back[0] + 1]:.9g} s after "
            f"{seconds[back[0]]:.9g} s (message {back[0] + 2}); another [time] source may do"
        )
    return seconds


def _topics(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            reader = extra("mcap.reader").make_reader(file)
            summary = reader.get_summary()
            if summary is not None and summary.channels:
                return sorted({channel.topic for channel in summary.channels.values()})
            return sorted({channel.topic for _, channel, _ in reader.iter_messages()})
    except Exception as error:  # a damaged file raises errors of mcap, its codecs and of Python
        raise InputError(f"{path}: expected MCAP: {_told(error)}; {_MEND}") from error


def _fields(
    columns: Sequence[str], topics: Sequence[str], path: Path
) -> dict[str, dict[str, list[str | int]]]:
    """Return the steps to each column's field, by topic and column."""
    found: dict[str, dict[str, list[str | int]]] = {}
    for column in columns:
        # The longest topic that fits: one may be the beginning of another.
        fitting = [t for t in topics if column.startswith(f"{t}.")]
        if not fitting:
            raise InputError(
                f"{path}: no topic for column {column!r}; expected TOPIC.FIELD, and the topics are "
                f"{', '.join(topics) or 'none'}"
            )
        topic = max(fitting, key=len)
        parts = re.findall(r"[^.\[\]]+", column[len(topic) + 1 :])
        steps: list[str | int] = [int(part) if part.isdigit() else part for part in parts]
        found.setdefault(topic, {})[column] = steps
    return found


def _messages(path: Path, topics: Sequence[str]) -> Iterator[tuple[str, Any, Any]]:
    """Yield topic, message and decoded content, in the order of the file's time."""
    decoders: dict[int, Callable[[bytes], Any]] = {}
    factories = [extra(f"mcap_{kind}.decoder").DecoderFactory() for kind in ("ros2", "protobuf")]
    try:
        with path.open("rb") as file:
            reader = extra("mcap.reader").make_reader(file)
            for schema, channel, message in reader.iter_messages(topics=topics):
                if channel.id not in decoders:
                    decoders[channel.id] = _decoder(channel, schema, factories, path)
                yield channel.topic, message, decoders[channel.id](message.data)
    except InputError:
        raise
    except Exception as error:  # as above, and those of the decoders
        raise InputError(f"{path}: cannot be read to its end: {_told(error)}; {_MEND}") from error


def _told(error: Exception) -> str:
    """Return what an error says, with its name: some say nothing."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _decoder(
    channel: Any, schema: Any, factories: Sequence[Any], path: Path
) -> Callable[[bytes], Any]:
    if channel.message_encoding == "json":
        return json.loads
    for factory in factories:
        if decoder := factory.decoder_for(channel.message_encoding, schema):
            return decoder
    raise InputError(
        f"{path}: topic {channel.topic!r}: expected json, cdr (ros2msg) or protobuf, got "
        f"{channel.message_encoding!r}"
    )


def _stamp(message: Any, decoded: Any, source: str, topic: str, path: Path) -> int:
    """Return the time of a message in nanoseconds."""
    if source in _STAMPS:
        return getattr(message, _STAMPS[source])
    stamp = _step(_step(decoded, "header"), "stamp")
    seconds = _step(stamp, "sec")
    rest = _step(stamp, "nanosec")
    if seconds is None or rest is None:
        raise InputError(
            f"{path}: topic {topic!r}: expected header.stamp.sec and .nanosec in every message; "
            'use [time] source = "log"'
        )
    return int(seconds) * 1_000_000_000 + int(rest)


def _value(decoded: Any, steps: Sequence[str | int], where: str) -> float:
    value = decoded
    for step in steps:
        value = _step(value, step)
    if isinstance(value, bool | int | float):
        return float(value)
    raise InputError(f"{where}: expected a number in every message, got {_shown(value)}")


def _step(value: Any, step: str | int) -> Any:
    """Return a field or an item, None where there is none."""
    try:
        if isinstance(step, int):
            return value[step]
        return value.get(step) if isinstance(value, Mapping) else getattr(value, step, None)
    except (IndexError, KeyError, TypeError):
        return None


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__}"
