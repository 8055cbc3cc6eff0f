"""The tutorial of one's own robot, from the user's seat: its commands as written, no Python.

A two-joint arm, written from scratch by the page, gets a controller that is verified in MuJoCo.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "tutorial-own-robot.md"


def fenced(language: str) -> list[str]:
    parts = PAGE.read_text(encoding="utf-8").split(f"```{language}\n")[1:]
    return [part.partition("```")[0] for part in parts]


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "arm.xml").write_text(fenced("xml")[0])
    return folder


def physai(command: str, folder: Path) -> str:
    words = shlex.split(command)
    assert words[0] == "physai"
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_lead_to_a_verified_controller_without_a_line_of_python(arm: Path) -> None:
    check, run, rollout, notes, new = (block.strip() for block in fenced("sh"))
    assert "control steps/s" in physai(check, arm)
    physai(run, arm)
    certificate = json.loads((arm / "runs/arm/certificate/certificate.json").read_text())
    for condition in certificate["conditions"]:
        assert condition["flights"] == 500
        assert condition["passed"] >= 495, condition["name"]
    assert (arm / "runs/arm/report/report.html").is_file()
    assert (arm / "runs/arm/bundle/policy.c").is_file()
    assert "physai check my_arm_notes" in physai(notes, arm)
    assert "shoulder.error" in (arm / "my_arm_notes" / "task.py").read_text()
    assert "physai run my_robot --out runs/my_robot" in physai(new, arm)
    (arm / "my_arm").mkdir()
    (arm / "arm.xml").rename(arm / "my_arm" / "plant.xml")
    (arm / "my_arm" / "task.py").write_text("DURATION = 3.0\n")
    physai(rollout, arm)
    assert (arm / "runs/data/manifest.json").is_file()
