"""Packaging: what a user gets from the wheel, the pinned versions and the public surface."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IGNORED = re.compile(r"__pycache__|\.tmp-\d|\.old-\d|MUJOCO_LOG\.TXT|\.DS_Store|\.py[co]$|\.swp$")


def _constraints() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sdist and the wheel that was built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def _wheel_files(built: Path) -> set[str]:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def _tree(folder: str) -> set[str]:
    files = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    names = {path.relative_to(ROOT).as_posix() for path in files}
    return {name for name in names if not IGNORED.search(name)}


def test_wheel_holds_the_package_and_the_plants_below_it_and_nothing_else(built: Path) -> None:
    expected = _tree("physai") | {f"physai/{name}" for name in _tree("envs")}
    assert any(name.endswith("/plant.xml") for name in expected)
    assert "physai/py.typed" in expected
    assert _wheel_files(built) == expected


def test_sdist_holds_what_is_needed_to_test_and_to_build_again(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert _tree("physai") | _tree("envs") | _tree("tests") <= names
    assert {"LICENSE", "README.md", "Makefile", "constraints.txt", "pyproject.toml"} <= names
    assert not {name for name in names if name.startswith(("runs/", ".venv/"))}


def test_an_editable_install_gets_a_path_and_no_copy_of_the_plants(tmp_path: Path) -> None:
    command = (
        f"import os; os.chdir({str(ROOT)!r}); import hatchling.build;"
        f"print(hatchling.build.build_editable({str(tmp_path)!r}))"
    )
    subprocess.run([sys.executable, "-c", command], check=True, capture_output=True)
    assert {name.rpartition("/")[2] for name in _wheel_files(tmp_path)} == {"_physai.pth"}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_constraints_pin_every_dependency_once_within_its_range(python: str) -> None:
    environment = {"python_version": python, "sys_platform": "linux", "extra": ""}
    pins: dict[str, Requirement] = {}
    for line in _constraints():
        if line.marker is None or line.marker.evaluate(environment):
            name = canonicalize_name(line.name)
            assert name not in pins, f"{name} is pinned twice for Python {python}"
            pins[name] = line
    extras = PROJECT["optional-dependencies"]
    wanted = [
        *PROJECT["dependencies"],
        *extras["dev"],
        *(r for e in extras if e != "gpu" for r in extras[e]),
    ]
    for requirement in map(Requirement, wanted):
        if requirement.name == PROJECT["name"]:
            continue
        assert canonicalize_name(requirement.name) in pins, requirement.name
        (pin,) = pins[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(pin.version, prereleases=True), requirement


def test_constraints_are_plain_exact_versions() -> None:
    for line in _constraints():
        assert [s.operator for s in line.specifier] == ["=="], line
        assert line.url is None and not line.extras, line
        assert line.marker is None or isinstance(line.marker, Marker)
    names = [canonicalize_name(line.name) for line in _constraints()]
    assert "physai" not in names and "pip" not in names


def test_import_changes_no_settings() -> None:
    code = (
        "import flax.nnx, gymnasium, jax, mujoco, optax, orbax.checkpoint, os, sys, zarr\n"
        "state = lambda: (dict(os.environ), os.getcwd(), list(sys.path), dict(jax.config.values))\n"
        "before = state()\n"
        "import physai\n"
        "assert state() == before\n"
        "print(physai.__version__)"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", result.stdout)
