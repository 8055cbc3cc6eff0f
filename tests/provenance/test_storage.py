"""Writing: a file or folder is whole or not there, and a full disk is explained."""

from __future__ import annotations

import dataclasses
import enum
import errno
import math
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from physai.errors import InputError
from physai.provenance import (
    atomic_folder,
    atomic_write,
    read_json,
    remove_stale,
    write_json,
)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission"),
    ],
)
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_atomic_write_explains_the_disk_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch, call: str, number: int, advice: str
) -> None:
    path = tmp_path / "file"
    atomic_write(path, "old")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(InputError, match=advice) as caught:
            atomic_write(path, "new")
    assert str(path) in str(caught.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_atomic_write_survives_a_write_that_stops_half_way(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(InputError, match="larger than"):
            atomic_write(path, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_atomic_write_finishes_short_writes(tmp_path: Path, monkeypatch) -> None:
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
        atomic_write(tmp_path / "file", bytes(range(100)))
    assert (tmp_path / "file").read_bytes() == bytes(range(100))


def test_an_interrupt_or_unknown_error_passes_through_and_leaves_nothing(
    tmp_path: Path, monkeypatch
) -> None:
    for error in (KeyboardInterrupt(), OSError(errno.EIO, "I/O error")):

        def fail(*_, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            with pytest.raises(type(error)):
                atomic_write(tmp_path / "file", "new")
        assert os.listdir(tmp_path) == []


def test_atomic_write_replaces_files_only(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folder or a device"):
        atomic_write("/dev/full", "x")
    with pytest.raises(InputError, match="folder or a device"):
        atomic_write(tmp_path, "x")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a folder"):
        atomic_write(tmp_path / "file/below", "x")
    assert Path("/dev/full").is_char_device()


KILLED = """
import sys
from pathlib import Path
from physai.provenance import atomic_folder, atomic_write
root = Path(sys.argv[1])
for i in range(10**9):
    atomic_write(root / "file", str(i % 10) * 200_000)
    with atomic_folder(root / "folder") as folder:
        for name in "ab":
            (folder / name).write_text(str(i))
    if i == 3:
        print("ready", flush=True)
"""


def test_a_killed_writer_leaves_whole_files_and_its_leftovers_can_be_removed(
    tmp_path: Path,
) -> None:
    for delay in (0.0, 0.003, 0.007):
        command = [sys.executable, "-c", KILLED, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        remove_stale(tmp_path)
        assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
        text = (tmp_path / "file").read_text()
        assert len(text) == 200_000
        assert len(set(text)) == 1
        assert (tmp_path / "folder/a").read_text() == (tmp_path / "folder/b").read_text()


def test_atomic_folder_replaces_at_the_end_and_never_when_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "deep/dataset"
    with atomic_folder(path) as folder:
        assert folder.parent == path.parent
        (folder / "old").touch()
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as folder:
        (folder / "new").touch()
        raise KeyboardInterrupt
    assert os.listdir(path) == ["old"]
    with atomic_folder(path) as folder:
        (folder / "new").touch()
    assert os.listdir(path) == ["new"]
    assert os.listdir(path.parent) == ["dataset"]


def test_atomic_folder_explains_a_full_disk_in_its_block_and_at_the_end(
    tmp_path: Path, monkeypatch
) -> None:
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match="disk is full"), atomic_folder(tmp_path / "a"):
        fail()
    with monkeypatch.context() as patch, pytest.raises(InputError, match="disk is full"):
        patch.setattr(os, "fsync", fail)
        with atomic_folder(tmp_path / "a") as folder:
            (folder / "x").touch()
    # an error of reading something else is not the disk's and passes through
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "a"):
        (tmp_path / "absent").read_text()
    assert os.listdir(tmp_path) == []


def test_atomic_folder_puts_the_old_folder_back_when_the_last_rename_fails(
    tmp_path: Path, monkeypatch
) -> None:
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "old").touch()
    rename = os.rename

    def fail_on_new(source, target):
        if ".tmp-" in str(source):
            raise OSError(errno.EROFS, "Read-only file system")
        rename(source, target)

    with monkeypatch.context() as patch, pytest.raises(InputError, match="read-only"):
        patch.setattr(os, "rename", fail_on_new)
        with atomic_folder(tmp_path / "a") as folder:
            (folder / "new").touch()
    assert os.listdir(tmp_path) == ["a"]
    assert os.listdir(tmp_path / "a") == ["old"]


def test_remove_stale_spares_the_living_and_restores_what_was_being_replaced(
    tmp_path: Path,
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        dead = process.pid
    (tmp_path / f".a.tmp-{dead}-0").mkdir()
    (tmp_path / f".b.tmp-{os.getpid()}-0").touch()
    (tmp_path / f".c.old-{dead}-1").mkdir()
    (tmp_path / f".c.old-{dead}-1/kept").touch()
    (tmp_path / ".hidden").touch()
    assert remove_stale(tmp_path) == [tmp_path / f".a.tmp-{dead}-0"]
    assert sorted(os.listdir(tmp_path)) == [f".b.tmp-{os.getpid()}-0", ".hidden", "c"]
    assert os.listdir(tmp_path / "c") == ["kept"]


class _Kind(enum.Enum):
    PPO = "ppo"


@dataclasses.dataclass(frozen=True)
class _Settings:
    rate: float = 0.1
    sizes: tuple[int, ...] = (64, 64)
    kind: _Kind = _Kind.PPO


def test_json_says_settings_in_its_own_types(tmp_path: Path) -> None:
    value = {
        "settings": _Settings(),
        "scalar": np.float32(0.5),
        "flag": np.bool_(True),
        "array": np.arange(4).reshape(2, 2),
        "path": Path("a/b"),
        "none": None,
        "unit": "N·m",
    }
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == {
        "settings": {"rate": 0.1, "sizes": [64, 64], "kind": "ppo"},
        "scalar": 0.5,
        "flag": True,
        "array": [[0, 1], [2, 3]],
        "path": "a/b",
        "none": None,
        "unit": "N·m",
    }


@pytest.mark.parametrize("number", [math.nan, math.inf, np.float32("nan"), np.array([0, -np.inf])])
def test_json_refuses_numbers_that_are_none(tmp_path: Path, number) -> None:
    with pytest.raises(InputError, match=r"x\.json\.rates\[1\].*finite"):
        write_json(tmp_path / "x.json", {"rates": [0.1, number]})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("value", [{1: 2}, {"a": {1, 2}}, {"f": print}])
def test_json_refuses_what_it_cannot_say(tmp_path: Path, value) -> None:
    with pytest.raises(TypeError, match="expected what JSON can say"):
        write_json(tmp_path / "x.json", value)


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"a": NaN}', b'{"a": Infinity}', b"\xff\xfe", b"[" * 100_000]
)
def test_read_json_names_the_file_that_is_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(InputError, match=r"x\.json: expected JSON"):
        read_json(tmp_path / "x.json")
    with pytest.raises(InputError, match=r"absent\.json: No such file"):
        read_json(tmp_path / "absent.json")
