"""Files and folders that are written whole or not at all, and JSON kept in them."""

from __future__ import annotations

import dataclasses
import enum
import errno
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any

from physai.errors import InputError
from physai.provenance.hashing import LEFTOVER, open_regular

_serial = itertools.count()

_DISK = {
    errno.ENOSPC: "the disk is full; free some space and run it again",
    errno.EDQUOT: "your disk quota is used up; free some space and run it again",
    errno.EFBIG: "the file is larger than this disk or your limit allows; choose another place",
    errno.EROFS: "the file system is read-only; choose a place you can write to",
}
_PLACE = {
    errno.EACCES: "permission denied; choose a place you can write to",
    errno.EPERM: "not permitted; choose a place you can write to",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another place",
    errno.EEXIST: "a part of this path is a file, not a folder; choose another place",
    errno.EISDIR: "a folder has this name; choose another name",
    errno.ENOENT: "no folder can be made there; choose another place",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn a full disk, or a place that cannot be written to, into an InputError with advice.

    Raises:
        InputError: the block raised such an OSError; any other passes through.
    """
    try:
        yield
    except OSError as error:
        advice = {**_DISK, **_PLACE}.get(error.errno or 0)
        if advice is None:
            raise
        raise InputError(f"cannot write {path}: {advice}") from error


def atomic_write(path: str | Path, data: bytes | str) -> None:
    """Write a file whole or not at all: under a temporary name, synced, then renamed.

    Args:
        path: the file; missing parent folders are made, an existing file is replaced.
        data: bytes, or text to be written as UTF-8.

    Raises:
        InputError: the disk is full, or the place cannot be written to.
    """
    path = Path(os.path.realpath(path))
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"cannot write {path}: expected a file, got a folder or a device")
    remaining = memoryview(data.encode() if isinstance(data, str) else data)
    temporary = _sibling(path, "tmp")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                while remaining:
                    remaining = remaining[os.write(descriptor, remaining) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, path)
    finally:
        _remove(temporary)
    _sync_folder(path.parent)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Make a folder whole or not at all: fill the one that is yielded, it is renamed at the end.

    The yielded folder is a sibling of `path`, so relative paths from inside it stay right. An
    existing folder is replaced when the block succeeds and kept when it raises.

    Raises:
        InputError: the disk is full, or the place cannot be written to.
    """
    path = Path(os.path.realpath(path))
    if os.path.exists(path) and not os.path.isdir(path):
        raise InputError(f"cannot write {path}: expected a folder, got a file")
    temporary, old = _sibling(path, "tmp"), _sibling(path, "old")
    try:
        with writing(path):
            temporary.mkdir(parents=True)
        try:
            yield temporary
        except OSError as error:
            if error.errno in _DISK:
                raise InputError(f"cannot write {path}: {_DISK[error.errno]}") from error
            raise
        with writing(path):
            _sync_tree(temporary)
            if path.is_dir():
                os.rename(path, old)
            os.rename(temporary, path)
    finally:
        if old.is_dir() and not path.exists():
            os.rename(old, path)
        _remove(temporary)
        _remove(old)
    _sync_folder(path.parent)


def remove_stale(folder: str | Path) -> list[Path]:
    """Remove what writes of dead processes left in a folder, and return the removed paths.

    A folder that was being replaced at the moment of the kill gets its old content back. Other
    machines' processes are not known here: share no run folder with one that is at work.
    """
    removed = []
    for path in sorted(Path(folder).glob(".*")):
        match = LEFTOVER.fullmatch(path.name)
        if match is None or _is_alive(int(match["pid"])):
            continue
        if match["kind"] == "old" and not os.path.lexists(path.with_name(match["name"])):
            with writing(path):
                os.rename(path, path.with_name(match["name"]))
        else:
            _remove(path)
            removed.append(path)
    return removed


def _sibling(path: Path, kind: str) -> Path:
    sibling = path.with_name(f".{path.name}.{kind}-{os.getpid()}-{next(_serial)}")
    _remove(sibling)
    return sibling


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # signal 0 would end the process there
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _sync_tree(folder: Path) -> None:
    for directory, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                _sync(path)
        _sync_folder(directory)


def _sync_folder(folder: str | Path) -> None:
    with suppress(OSError):  # not every file system can sync a folder
        _sync(folder)


def _sync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | Path, obj: Any) -> None:
    """Write JSON atomically, with sorted keys; dataclasses, arrays, enums and paths are converted.

    Raises:
        InputError: a number is not finite, or the file cannot be written.
        TypeError: something JSON has no word for; the message says where.
    """
    text = json.dumps(plain(obj, Path(path).name), indent=2, sort_keys=True, ensure_ascii=False)
    atomic_write(path, text + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it cannot be read, is not JSON, or holds NaN or an infinity.
    """
    with open_regular(path) as file:
        data = file.read()
    try:
        return json.loads(data.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON, got {error}") from error


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant}, which is not a number")


def plain(value: Any, where: str) -> Any:
    """Return `value` in JSON's own types; `where` names it in errors."""
    if isinstance(value, enum.Enum):
        value = value.value
    if hasattr(value, "tolist"):  # NumPy scalars and arrays, JAX arrays
        value = value.tolist()
    if isinstance(value, PurePath):
        return value.as_posix()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where}: expected a finite number, got {value}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
    raise TypeError(f"{where}: expected what JSON can say, got {type(value).__name__}")
