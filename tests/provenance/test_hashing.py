"""Hashes: what counts as content, what does not, and what may not be followed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from physai.errors import InputError
from physai.provenance import (
    atomic_write,
    sha256_file,
    sha256_folder,
    sha256_source,
)


def test_folder_hash_agrees_with_coreutils(tmp_path: Path) -> None:
    for name in ("b", "a/z", "a.x", "a/é", "B"):
        atomic_write(tmp_path / name, name * 1000)
    files = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    lines = subprocess.run(
        ["sha256sum", "-z", *files], cwd=tmp_path, capture_output=True, check=True
    ).stdout
    expected = subprocess.run(["sha256sum"], input=lines, capture_output=True, check=True).stdout
    assert sha256_folder(tmp_path) == expected.decode().split()[0]


def test_folder_hash_leaves_out_what_is_ignored_and_caches_only(tmp_path: Path) -> None:
    atomic_write(tmp_path / "plant.xml", "<mujoco/>")
    before = sha256_folder(tmp_path)
    atomic_write(tmp_path / "__pycache__/task.pyc", "cache")
    atomic_write(tmp_path / "manifest.json", "{}")
    (tmp_path / ".x.tmp-1-0").write_text("left over")
    assert sha256_folder(tmp_path) == before
    atomic_write(tmp_path / "certificate/manifest.json", "{}")  # of a nested artefact: its content
    assert sha256_folder(tmp_path) != before


def test_source_hash_leaves_out_runs_and_hidden_entries(tmp_path: Path) -> None:
    atomic_write(tmp_path / "plant.xml", "<mujoco/>")
    before = sha256_source(tmp_path)
    for name in ("runs/a/policy", ".git/HEAD", "MUJOCO_LOG.TXT"):
        atomic_write(tmp_path / name, "x")
    assert sha256_source(tmp_path) == before
    assert sha256_source(tmp_path / "plant.xml") == sha256_file(tmp_path / "plant.xml")
    atomic_write(tmp_path / "meshes/arm.stl", "x")
    assert sha256_source(tmp_path) != before


def test_links_count_as_their_file_and_never_lead_away(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mesh")
    plain, linked = tmp_path / "plain", tmp_path / "linked"
    plain.mkdir(), linked.mkdir()
    (plain / "mesh").write_text("mesh")
    (linked / "mesh").symlink_to(outside)
    assert sha256_folder(linked) == sha256_folder(plain)
    (linked / "round").symlink_to(tmp_path)
    with pytest.raises(InputError, match="link to a folder"):
        sha256_folder(linked)


@pytest.mark.parametrize("make", [os.mkfifo, lambda p: os.symlink("/dev/zero", p)])
def test_pipes_and_devices_are_refused_without_waiting(tmp_path: Path, make) -> None:
    make(tmp_path / "endless")
    with pytest.raises(InputError, match="regular file"):
        sha256_file(tmp_path / "endless")
    with pytest.raises(InputError, match="device"):
        sha256_folder(tmp_path)


def test_a_plant_folder_with_a_home_in_it_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("physai.provenance.hashing._SOURCE_LIMIT", 3)
    for i in range(4):
        (tmp_path / str(i)).touch()
    with pytest.raises(InputError, match="more than 3 files"):
        sha256_source(tmp_path)
