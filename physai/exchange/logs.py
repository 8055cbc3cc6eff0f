"""Reading logs: tables with a column of time, and what every kind of log is turned into.

A log is a set of signals, each with times of its own, since an MCAP file has them so. Cells without
a number are no samples: a signal is interrupted there.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from physai.errors import InputError
from physai.exchange.extra import extra
from physai.exchange.mapping import ColumnMap
from physai.exchange.units import convert


@dataclass(frozen=True)
class Signal:
    """Samples of one column.

    Attributes:
        time: seconds since the log began `[n]`, increasing.
        values: in the column's unit `[n]`, finite.
    """

    time: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Log:
    """One recording: a file, or one of its episodes.

    Attributes:
        name: for reports and errors.
        rows: of the table, or messages.
        signals: by column.
        empty: cells without a number, by column, where there are any.
    """

    name: str
    rows: int
    signals: dict[str, Signal]
    empty: dict[str, int]


def read_table(path: Path, mapping: ColumnMap) -> list[Log]:
    """Read a CSV or Parquet file, as one log or one an episode.

    Raises:
        InputError: it cannot be read, lacks a column or has it twice, has text in one, its time
            does not increase, or an episode has no label or but one row.
    """
    table = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    time, episode = mapping.time.column, mapping.episode
    if mapping.time.source:
        raise InputError(f"{mapping.path}: [time] source is for MCAP; {path.name} needs a column")
    wanted = [c for c in (time, episode) if c] + mapping.columns
    check_columns(wanted, table.column_names, str(path))
    if table.num_rows < 2:
        raise InputError(f"{path}: expected at least 2 rows, got {table.num_rows}")
    cells = {name: _numbers(table[name], f"{path}: column {name!r}") for name in mapping.columns}
    seconds = _seconds(table, mapping, path)
    if not episode:
        return [table_log(path.name, seconds, cells, first_row=0)]
    labels = _labels(table[episode], f"{path}: column {episode!r}")
    starts = [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist(), len(labels)]
    return [
        table_log(
            f"{path.name}, {episode} {labels[a]}",
            seconds[a:b],
            {name: values[a:b] for name, values in cells.items()},
            first_row=a,
        )
        for a, b in pairwise(starts)
    ]


def _labels(column: Any, where: str) -> np.ndarray:
    """Return the episode of every row; a blank one would be an episode of its own."""
    blank = [row for row, label in enumerate(column.to_pylist()) if label in (None, "")]
    if blank:
        raise InputError(
            f"{where}: expected an episode in every row, got none in row {blank[0] + 1} "
            f"({len(blank)} rows in all); fill them in, or drop these rows"
        )
    return np.asarray(column.to_numpy(zero_copy_only=False))


def table_log(
    name: str, seconds: np.ndarray, cells: Mapping[str, np.ndarray], first_row: int
) -> Log:
    """Return the log of a table.

    Args:
        name: of the log.
        seconds: `[n]`.
        cells: by column `[n]`, NaN where there is no number.
        first_row: of the table in its file, for errors.

    Raises:
        InputError: there is but one row, time does not increase, or a column is infinite or empty.
    """
    if len(seconds) < 2:
        raise InputError(
            f"{name}: expected at least 2 rows, got 1 (row {first_row + 1}); drop it, or correct "
            "its episode if it belongs to another"
        )
    if not np.isfinite(seconds).all():
        row = int(np.flatnonzero(~np.isfinite(seconds))[0])
        raise InputError(f"{name}: time: expected a number in every row, row {first_row + row + 1}")
    back = np.flatnonzero(np.diff(seconds) <= 0.0)
    if len(back):
        more = f" (and {len(back) - 1} more rows)" if len(back) > 1 else ""
        raise InputError(
            f"{name}: expected times that increase, got {seconds[back[0] + 1]:.9g} s after "
            f"{seconds[back[0]]:.9g} s in row {first_row + back[0] + 2}{more}; sort the rows and "
            "drop repeated ones, or give several recordings as several files or with [episode]"
        )
    seconds = seconds - seconds[0]
    signals, empty = {}, {}
    for column, values in cells.items():
        missing = np.isnan(values)
        signals[column] = Signal(seconds[~missing], values[~missing])
        check_signal(name, column, signals[column])
        if missing.any():
            empty[column] = int(missing.sum())
    return Log(name, len(seconds), signals, empty)


def check_signal(log: str, column: str, signal: Signal) -> None:
    """Refuse a signal without data, or with an infinity."""
    if not len(signal.values):
        raise InputError(f"{log}: column {column!r}: expected numbers, got none")
    if not np.isfinite(signal.values).all():
        row = int(np.flatnonzero(~np.isfinite(signal.values))[0])
        raise InputError(
            f"{log}: column {column!r}: expected finite numbers, got {signal.values[row]} at "
            f"{signal.time[row]:g} s"
        )


def check_columns(wanted: Sequence[str], there: Sequence[str], where: str) -> None:
    """Refuse a file that lacks a column, naming the nearest one, or has it more than once."""
    doubled = [name for name in wanted if list(there).count(name) > 1]
    if doubled:
        raise InputError(
            f"{where}: expected one column {doubled[0]!r}, got {list(there).count(doubled[0])} of "
            "that name; rename all but one"
        )
    missing = [name for name in wanted if name not in there]
    if not missing:
        return
    near = difflib.get_close_matches(missing[0], there, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(map(repr, there[:20])) + (", ..." if len(there) > 20 else "")
    raise InputError(
        f"{where}: no column {', '.join(map(repr, missing))}; the columns are {listed}{hint}"
    )


def _csv(path: Path) -> Any:
    csv, arrow = extra("pyarrow.csv"), extra("pyarrow")
    try:
        with path.open("rb") as file:
            head = file.readline().decode("utf-8")
        delimiter = max(",;\t", key=head.count)
        return csv.read_csv(
            path,
            parse_options=csv.ParseOptions(delimiter=delimiter),
            convert_options=csv.ConvertOptions(
                decimal_point="," if delimiter == ";" and _has_comma(path) else "."
            ),
        )
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: expected a header line in UTF-8: {error}; save the file as UTF-8, for "
            f"example with `iconv -f {_encoding(path)} -t UTF-8`"
        ) from error
    except (OSError, arrow.ArrowInvalid) as error:
        raise InputError(f"{path}: expected CSV with a header line: {error}") from error


def _encoding(path: Path) -> str:
    """Guess what a file that is not UTF-8 is in: UTF-16 begins with a mark."""
    with path.open("rb") as file:
        return "UTF-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "LATIN1"


def _has_comma(path: Path) -> bool:
    """Tell whether the first line of numbers writes decimals with a comma, as some locales do."""
    with path.open(encoding="utf-8", errors="replace") as file:
        file.readline()
        return "," in file.readline()


def _parquet(path: Path) -> Any:
    parquet, arrow = extra("pyarrow.parquet"), extra("pyarrow")
    try:
        return parquet.read_table(path)
    except (OSError, arrow.ArrowInvalid) as error:
        raise InputError(f"{path}: expected Parquet: {error}") from error


def _numbers(column: Any, where: str) -> np.ndarray:
    types = extra("pyarrow.types")
    kind = column.type
    if types.is_boolean(kind):
        column = column.cast(extra("pyarrow").int8())
    elif types.is_null(kind):
        return np.full(len(column), np.nan)
    elif not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
        shown = next(
            (v for v in column.to_pylist() if isinstance(v, str) and not _is_number(v)), ""
        )
        raise InputError(f"{where}: expected numbers, got {shown or str(kind)!r}")
    return np.asarray(column.to_numpy(zero_copy_only=False), float)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _seconds(table: Any, mapping: ColumnMap, path: Path) -> np.ndarray:
    """Return the time of every row, from that of the first one where it is a date."""
    time, types = mapping.time, extra("pyarrow.types")
    if not time.column:
        return np.arange(table.num_rows) * time.period
    column, where = table[time.column], f"{path}: column {time.column!r}"
    if types.is_timestamp(column.type):
        nanoseconds = column.cast(extra("pyarrow").timestamp("ns", tz=column.type.tz))
        stamps = np.asarray(nanoseconds.to_numpy(zero_copy_only=False)).astype("datetime64[ns]")
        if np.isnat(stamps).any():
            raise InputError(f"{where}: expected a time in every row")
        return (stamps - stamps[0]).astype(np.int64) * 1e-9
    if not time.unit:
        raise InputError(f'{mapping.path}: [time]: expected a unit, such as unit = "s"; got none')
    if types.is_integer(column.type) and not column.null_count:
        # Nanoseconds since 1970 do not fit a float: subtract first.
        whole = np.asarray(column.to_numpy(zero_copy_only=False)).astype(np.int64)
        return convert(whole - whole[0], time.unit, "s", where)
    return convert(_numbers(column, where), time.unit, "s", where)
