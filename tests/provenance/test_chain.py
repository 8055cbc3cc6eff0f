"""Manifests and their chain: no change of a file, setting or source goes unnoticed."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from physai.errors import InputError
from physai.provenance import (
    atomic_folder,
    atomic_write,
    check_chain,
    is_complete,
    read_manifest,
    sha256_file,
    write_json,
    write_manifest,
)
from physai.provenance import manifest as manifest_module


class _Plant(NamedTuple):
    folder: Path


def _run(root: Path) -> Path:
    """Make a small run: plant -> dataset -> policy, and dataset, policy -> certificate."""
    plant = root / "plant"
    plant.mkdir(parents=True)
    (plant / "plant.xml").write_text("<mujoco/>")
    dataset, policy, certificate = root / "dataset", root / "policy", root / "certificate"
    (dataset / "qpos/c/0").mkdir(parents=True)
    (dataset / "zarr.json").write_text("{}")
    (dataset / "qpos/c/0/0").write_bytes(bytes(range(256)))
    write_manifest(dataset, "dataset", {"plant": _Plant(plant)}, {"episodes": 8}, 0)
    atomic_write(policy / "weights.safetensors", b"weights")
    write_manifest(policy, "policy", {"dataset": dataset, "plant": plant}, {"rate": 3e-4}, 1)
    write_json(certificate / "certificate.json", {"passed": True})
    inputs = {"policy": policy, "dataset": dataset}
    write_manifest(certificate, "certificate", inputs, {"scenarios": 200}, 2)
    return certificate


def _broken(path: Path) -> list[tuple[str, str]]:
    return [(link.name, link.detail) for link in check_chain(path) if not link.ok]


@dataclasses.dataclass(frozen=True)
class _Settings:
    rate: float = 0.1


def test_two_equal_runs_have_equal_hashes_and_another_seed_another_record(tmp_path: Path) -> None:
    one, two = (read_manifest(_run(tmp_path / name)) for name in ("one", "two/deeper"))
    assert one["content"] == two["content"]
    assert one["record"] == two["record"]
    write_manifest(tmp_path / "one/dataset", "dataset", {}, {"episodes": 8}, 7)
    again = read_manifest(tmp_path / "one/dataset")
    before = read_manifest(tmp_path / "two/deeper/dataset")
    assert again["content"] == before["content"]
    assert again["record"] != before["record"]


def test_manifest_says_what_was_made_from_what(tmp_path: Path) -> None:
    certificate = _run(tmp_path)
    manifest = read_manifest(certificate)
    assert manifest["kind"] == "certificate"
    assert manifest["seed"] == 2
    assert manifest["settings"] == {"scenarios": 200}
    assert manifest["files"] == {"certificate.json": sha256_file(certificate / "certificate.json")}
    assert manifest["inputs"]["policy"]["path"] == "../policy"
    assert manifest["versions"]["numpy"] == np.__version__
    assert manifest["git"] is None or len(manifest["git"]["commit"]) == 40
    assert str(tmp_path) not in json.dumps(manifest)


def test_manifest_refuses_a_missing_input_and_settings_that_are_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent: No such file"):
        write_manifest(tmp_path, "policy", {"dataset": tmp_path / "absent"}, {}, 0)
    with pytest.raises(InputError, match=r"settings\.rate: expected a finite number"):
        write_manifest(tmp_path, "policy", {}, _Settings(rate=math.nan), 0)
    assert os.listdir(tmp_path) == []


def test_an_untouched_chain_holds_depth_first_also_after_a_move(tmp_path: Path) -> None:
    _run(tmp_path / "run")
    for root in (tmp_path / "run", tmp_path / "elsewhere/deeper"):
        if not root.exists():
            root.parent.mkdir()
            shutil.move(tmp_path / "run", root)
        links = check_chain(root / "certificate")
        assert [link.name for link in links] == ["certificate", "dataset", "plant", "policy"]
        assert all(link.ok for link in links), links
        assert links[2].path == root / "plant"
    assert check_chain(root / "certificate/manifest.json") == links


@pytest.mark.parametrize(
    ("change", "link", "detail"),
    [
        (lambda r: (r / "dataset/qpos/c/0/0").write_bytes(bytes(256)), "dataset", "qpos/c/0/0 ch"),
        (lambda r: (r / "dataset/zarr.json").unlink(), "dataset", "zarr.json missing"),
        (lambda r: (r / "dataset/qpos/c/0/1").touch(), "dataset", "qpos/c/0/1 not listed"),
        (lambda r: (r / "plant/plant.xml").write_text("<!-->"), "plant", "changed since it was"),
        (lambda r: shutil.rmtree(r / "plant"), "plant", "missing: expected at /"),
        (lambda r: (r / "dataset/manifest.json").unlink(), "dataset", "changed since it was used"),
        (lambda r: os.mkfifo(r / "dataset/pipe"), "dataset", "dataset/pipe: expected a file"),
    ],
)
def test_a_chain_names_the_one_link_that_was_changed(
    tmp_path: Path, change, link: str, detail: str
) -> None:
    certificate = _run(tmp_path)
    change(tmp_path)
    broken = _broken(certificate)
    assert [name for name, _ in broken] == [link]
    assert detail in broken[0][1]


def test_a_source_made_again_with_other_settings_is_named(tmp_path: Path) -> None:
    certificate = _run(tmp_path)
    write_manifest(tmp_path / "dataset", "dataset", {}, {"episodes": 9}, 0)
    assert _broken(certificate)[0][0] == "dataset"
    assert "changed since it was used: record was" in _broken(certificate)[0][1]


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m["settings"].update(scenarios=2000),
        lambda m: m.update(seed=3),
        lambda m: m["inputs"].pop("policy"),
        lambda m: m["files"].update({"certificate.json": "0" * 64}),
    ],
)
def test_an_edited_manifest_is_noticed(tmp_path: Path, edit) -> None:
    certificate = _run(tmp_path)
    manifest = read_manifest(certificate)
    edit(manifest)
    write_json(certificate / "manifest.json", manifest)
    assert "was edited" in _broken(certificate)[0][1]


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m["files"].update({"../dataset/zarr.json": "0" * 64}),
        lambda m: m["files"].update({"/etc/passwd": "0" * 64}),
        lambda m: m["files"].update({"a/../../b": "0" * 64}),
        lambda m: m["files"].update({"..\\b": "0" * 64}),
        lambda m: m["files"].update({"C:b": "0" * 64}),
        lambda m: m["files"].update({"a": None}),
        lambda m: m["inputs"].update(x={"path": "a\0b", "content": "0" * 64}),
        lambda m: m["inputs"].update(x={"path": "a", "content": "0" * 64, "shipped": ".."}),
        lambda m: m["inputs"].update(x={"path": "a", "content": "0" * 64, "record": 1}),
        lambda m: m.update(files=[]),
        lambda m: m.pop("seed"),
        lambda m: m.pop("content"),
        lambda m: m.clear(),
    ],
)
def test_a_manifest_cannot_name_files_outside_its_folder(tmp_path: Path, edit) -> None:
    certificate = _run(tmp_path)
    manifest = read_manifest(certificate)
    edit(manifest)
    write_json(certificate / "manifest.json", manifest)
    with pytest.raises(InputError, match=r"manifest\.json.*expected"):
        read_manifest(certificate)
    assert [link.ok for link in check_chain(certificate)] == [False]
    assert not is_complete(certificate)


def test_a_chain_that_bites_its_tail_ends(tmp_path: Path) -> None:
    for name in ("a", "b"):
        atomic_write(tmp_path / name / "x", name)
        write_manifest(tmp_path / name, name, {}, {}, None)
    write_manifest(tmp_path / "a", "a", {"b": tmp_path / "b"}, {}, None)
    write_manifest(tmp_path / "b", "b", {"a": tmp_path / "a"}, {}, None)
    details = [detail for _, detail in _broken(tmp_path / "a")]
    assert any("made from itself" in detail for detail in details)


def test_a_chain_follows_a_run_on_another_disk_and_survives_a_loop_of_links(tmp_path: Path) -> None:
    certificate = _run(tmp_path / "run")
    shutil.move(tmp_path / "run/dataset", tmp_path / "disk")
    (tmp_path / "run/dataset").symlink_to(tmp_path / "disk")
    assert _broken(certificate) == []
    with atomic_folder(tmp_path / "run/dataset") as folder:
        write_manifest(folder, "dataset", {"plant": tmp_path / "run/plant"}, {}, 0)
    assert (tmp_path / "run/dataset").is_symlink()
    assert _broken(tmp_path / "run/dataset") == []
    (tmp_path / "run/dataset").unlink()
    (tmp_path / "run/dataset").symlink_to("dataset")
    assert "missing" in dict(_broken(certificate))["dataset"]


def test_a_shipped_plant_is_found_wherever_the_run_was_moved(tmp_path: Path, monkeypatch) -> None:
    envs = tmp_path / "install/envs"
    atomic_write(envs / "rotor/plant.xml", "<mujoco/>")
    monkeypatch.setattr("physai.provenance.manifest.shipped_folder", lambda: envs)
    monkeypatch.setattr("physai.provenance.chain.shipped_folder", lambda: envs)
    atomic_write(tmp_path / "runs/policy/w", "w")
    write_manifest(tmp_path / "runs/policy", "policy", {"plant": envs / "rotor"}, {}, 0)
    (tmp_path / "far/away").mkdir(parents=True)
    moved = shutil.move(tmp_path / "runs/policy", tmp_path / "far/away/policy")
    assert _broken(moved) == []
    atomic_write(envs / "rotor/plant.xml", "<other/>")
    assert [name for name, _ in _broken(moved)] == ["plant"]


def test_what_is_no_artefact_does_not_hold(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        (link,) = check_chain(path)
        assert not link.ok
        assert "expected an artefact folder" in link.detail


def test_is_complete_asks_for_these_settings_inputs_and_files(tmp_path: Path) -> None:
    certificate = _run(tmp_path)
    inputs = {"policy": tmp_path / "policy", "dataset": tmp_path / "dataset"}
    assert is_complete(certificate)
    assert is_complete(certificate, {"scenarios": 200}, inputs, kind="certificate", seed=2)
    assert not is_complete(certificate, {"scenarios": 201}, inputs)
    assert not is_complete(certificate, inputs={"policy": tmp_path / "policy"})
    assert not is_complete(certificate, inputs={**inputs, "dataset": tmp_path / "absent"})
    assert not is_complete(certificate, seed=3)
    assert not is_complete(certificate, kind="policy")
    assert not is_complete(tmp_path)
    write_manifest(tmp_path / "policy", "policy", {}, {"rate": 1e-3}, 1)
    assert not is_complete(certificate, {"scenarios": 200}, inputs)
    assert is_complete(certificate, {"scenarios": 200})
    atomic_write(certificate / "certificate.json", "{}")
    assert not is_complete(certificate)


def test_a_folder_can_be_made_whole_with_its_manifest(tmp_path: Path) -> None:
    _run(tmp_path)
    with atomic_folder(tmp_path / "bundle") as folder:
        atomic_write(folder / "policy.c", "int main;")
        write_manifest(folder, "bundle", {"certificate": tmp_path / "certificate"}, {}, None)
    assert _broken(tmp_path / "bundle") == []
    assert is_complete(tmp_path / "bundle", {}, {"certificate": tmp_path / "certificate"})


def test_git_commit_is_that_of_the_checkout_and_of_no_other(tmp_path: Path, monkeypatch) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def state(module: str, path: str | None = None) -> dict | None:
        monkeypatch.setattr(manifest_module, "__file__", str(tmp_path / module))
        if path is not None:
            monkeypatch.setenv("PATH", path)
        return manifest_module._git_state.__wrapped__()

    module = "physai/provenance/manifest.py"
    installed = ".venv/site-packages/physai/provenance/manifest.py"
    for name in (module, installed):
        atomic_write(tmp_path / name, "")
    assert state(module) is None
    git("init", "-q")
    assert state(module) is None  # no commit yet
    git("add", module)
    git("commit", "-q", "-m", "first")
    assert state(module) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    assert state(installed) is None  # installed in somebody else's repository
    atomic_write(tmp_path / module, "edited")
    assert state(module) == {"commit": git("rev-parse", "HEAD"), "dirty": True}
    assert state(module, path="") is None  # no git on this machine
