"""The command line from the user's seat: a tiny run, and every kind of bad input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import physai
from physai.cli import main
from physai.errors import InputError
from physai.flow import RunSettings, run
from physai.learn.value_gradient import LearnSettings
from physai.rollout.collect import RolloutSettings
from physai.surrogate.fit import FitSettings

TINY = RunSettings(
    rollout=RolloutSettings(
        train=96, calibration=48, test=48, duration=1.2, designs_per_shard=4, shard_episodes=96
    ),
    fit=FitSettings(*(2, 24), steps=500, equations=False),
    learn=LearnSettings(machines=32, horizon=6, updates=20, hidden=(16, 16)),
    flights=30,
    rounds=0,
)
FLAGS = [
    "--rollout.train=96 --rollout.calibration=48 --rollout.test=48 --rollout.duration=1.2",
    "--rollout.designs-per-shard=4 --rollout.shard-episodes=96",
    "--fit.members=2 --fit.width=24 --fit.steps=500",
    "--fit.no-equations --learn.machines=32 --learn.horizon=6",
    "--learn.updates=20 --learn.hidden 16 16 --flights=30 --rounds=0",
]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny finished run: it flies badly, but every artefact is there."""
    out = tmp_path_factory.mktemp("run") / "quadrotor"
    run("quadrotor", out, TINY, seed=5)
    return out


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Iterator:
    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(a) for a in arguments])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


def test_a_run_leaves_every_artefact_and_an_unbroken_chain(cli, out: Path) -> None:
    for name in ("dataset", "surrogate", "policy", "score", "certificate", "bundle", "report"):
        assert (out / name / "manifest.json").is_file(), name
    assert (out / "report" / "report.html").stat().st_size > 50_000
    status, shown, _ = cli("check", out / "report", "--json")
    links = json.loads(shown)["links"]
    assert status == 0 and all(link["ok"] for link in links)
    assert {"plant", "dataset", "surrogate", "policy", "certificate", "bundle"} <= {
        Path(link["path"]).name.split("-")[0] for link in links
    } | {"plant"}
    assert not list(out.glob("*.training")) and not list(out.glob(".*tmp*"))


def test_a_second_start_finds_all_and_says_the_same(cli, out: Path) -> None:
    before = json.loads((out / "summary.json").read_text())
    stamps = {
        p: p.stat().st_mtime_ns for p in out.glob("*/manifest.json") if "report" not in str(p)
    }
    arguments = " ".join(FLAGS).split()
    status, shown, _ = cli("run", "quadrotor", "--out", out, "--seed=5", "--json", *arguments)
    after = json.loads(shown)
    assert status == 0
    for key in ("score", "returns", "certificate", "certificate_c99"):
        assert after[key] == before[key]
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}


def test_other_settings_do_not_overwrite(cli, out: Path) -> None:
    arguments = " ".join(FLAGS).replace("--fit.steps=500", "--fit.steps=750").split()
    status, _, err = cli("run", "quadrotor", "--out", out, "--seed=5", *arguments)
    assert status == 2 and "choose another --out" in err and "Traceback" not in err


def test_the_compiled_c_flies_like_the_policy(out: Path) -> None:
    jax_flights, c_flights = (
        json.loads((out / name / "certificate.json").read_text())["conditions"]
        for name in ("certificate", "certificate-c99")
    )
    for a, b in zip(jax_flights, c_flights, strict=True):
        assert a["passed"] == b["passed"]
        assert a["mean_return"] == pytest.approx(b["mean_return"], rel=1e-3)


def test_single_verbs_on_the_artefacts(cli, out: Path, tmp_path: Path) -> None:
    dataset, surrogate, policy = out / "dataset", out / "surrogate", out / "policy"
    status, shown, _ = cli(
        *("score", "quadrotor", "--surrogate", surrogate, "--dataset", dataset),
        *("--out", tmp_path / "score", "--json"),
    )
    assert status == 0 and json.loads(shown)["horizons"] == [1, 10, 50]
    status, shown, _ = cli(
        *("verify", "quadrotor", "--policy", out / "bundle", "--out", tmp_path / "certificate"),
        *("--flights", 10, "--json"),
    )
    assert status == 0 and set(json.loads(shown)["conditions"]) == {"nominal", "disturbed"}
    status, shown, _ = cli(
        "export", "quadrotor", "--policy", policy, "--out", tmp_path / "bundle", "--json"
    )
    assert status == 0 and json.loads(shown)["c99_max_error"] <= 1e-5
    status, shown, _ = cli("bench", "quadrotor", "--surrogate", surrogate)
    assert status == 0 and "control steps/s" in shown
    status, shown, _ = cli("report", "--out", out)
    assert status == 0


def test_check_prints_closed_forms_and_passes(cli) -> None:
    status, shown, _ = cli("check", "quadrotor", "--json")
    found = json.loads(shown)
    checks = found["checks"]["quadrotor"]
    assert status == 0 and len(checks) >= 5 and all(c["passed"] for c in checks)
    inspection = found["inspections"]["quadrotor"]
    assert inspection["symmetry"]["heading"] and inspection["diverged"] == 0.0
    assert inspection["sizes"]["positions"] == 7 and inspection["gain"] > 0.0


def test_check_wants_a_plant_or_all_and_not_both(cli) -> None:
    refused(cli("check"), "--all")
    refused(cli("check", "quadrotor", "--all"), "--all")


def test_check_names_the_first_broken_link(cli, out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(out, copy)
    card = copy / "surrogate" / "surrogate.json"
    card.write_text(card.read_text().replace("0", "1", 1))
    status, shown, _ = cli("check", copy / "report")
    assert status == 1 and "First link that does not hold" in shown and "surrogate" in shown


def refused(result: tuple[int, str, str], *words: str) -> None:
    status, shown, err = result
    assert status == 2, (status, shown, err)
    assert "Traceback" not in err and shown == ""
    for word in words:
        assert word in err, err


def test_version(cli) -> None:
    assert cli("--version") == (0, f"physai {physai.__version__}\n", "")


def test_unknown_plant_lists_those_there_are(cli, tmp_path: Path) -> None:
    refused(cli("run", "quadrotr", "--out", tmp_path / "x"), "quadrotr", "nearest name first: quad")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('timestep="0.004"', 'timestep="0.003"'), ("multiple of the time step", "0.003")),
        (("<freejoint", "<freejiont"), ("plant.xml", "freejiont")),
        (('ctrlrange="0 1"', 'ctrlrange="1 0"'), ("rotor_1", "ctrlrange")),
    ],
)
def test_a_broken_plant_is_named_with_its_file(cli, tmp_path: Path, change, words) -> None:
    folder = tmp_path / "mine"
    shutil.copytree("envs/quadrotor", folder)
    text = (folder / "plant.xml").read_text()
    assert change[0] in text
    (folder / "plant.xml").write_text(text.replace(*change))
    refused(cli("check", folder), *words)


def test_a_model_without_actuators_is_predicted_but_not_controlled(cli, tmp_path: Path) -> None:
    path, out = tmp_path / "pendulum.xml", tmp_path / "out"
    path.write_text(
        "<mujoco><worldbody><body><joint axis='0 1 0'/><geom size='0.1' pos='0 0 -1'/></body>"
        "</worldbody></mujoco>"
    )
    few = ("--train", "40", "--calibration", "24", "--test", "8", "--shard-episodes", "40")
    assert cli("check", path)[0] == 0
    assert cli("rollout", path, "--out", out / "data", *few)[0] == 0
    fit = ("fit", path, "--dataset", out / "data", "--out", out / "fit", "--steps", "100")
    assert cli(*fit)[0] == 0
    score = ("--surrogate", out / "fit", "--dataset", out / "data", "--out", out / "score")
    assert cli("score", path, *score)[0] == 0
    refused(cli("run", path, "--out", out / "run"), "no actuators")
    learn = ("learn", path, "--surrogate", out / "fit", "--out", out / "policy")
    refused(cli(*learn), "no actuators")
    assert not (out / "run").exists() and not (out / "policy").exists()


def test_a_task_that_returns_the_wrong_shape_is_refused(cli, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree("envs/quadrotor", folder)
    task = folder / "task.py"
    task.write_text(task.read_text().replace("            state.act,\n", ""))
    refused(cli("rollout", folder, "--out", tmp_path / "d"), "observe", "(19,)", "(15,)")


def test_artefacts_of_another_plant_are_refused(cli, out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "quadrotor"
    shutil.copytree("envs/quadrotor", folder)
    plant = folder / "plant.xml"
    plant.write_text(plant.read_text().replace('density="1.225"', 'density="1.0"'))
    arguments = ("--dataset", out / "dataset", "--out", tmp_path / "s")
    refused(cli("fit", folder, *arguments), str(out / "dataset"))
    refused(cli("bench", folder, "--surrogate", out / "surrogate"), "fitted to plant quadrotor")


def test_truncated_artefacts_are_refused(cli, out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(out, copy)
    chunk = max((copy / "dataset").rglob("c/*"), key=lambda p: p.stat().st_size * p.is_file())
    while chunk.is_dir():
        chunk = next(chunk.iterdir())
    chunk.write_bytes(chunk.read_bytes()[:-40])
    refused(
        cli("fit", "quadrotor", "--dataset", copy / "dataset", "--out", tmp_path / "s"), "dataset"
    )
    weights = copy / "policy" / "policy.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    arguments = ("--policy", copy / "policy", "--out", tmp_path / "c", "--flights", 4)
    refused(cli("verify", "quadrotor", *arguments), "policy.safetensors")


def test_a_bundle_with_a_wrong_hash_does_not_fly(cli, out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(out / "bundle", copy)
    source = copy / "policy.c"
    source.write_text(source.read_text() + "\n/* innocent */\n")
    arguments = ("--policy", copy, "--out", tmp_path / "c", "--flights", 4)
    refused(cli("verify", "quadrotor", *arguments), "policy.c")
    assert not (tmp_path / "c").exists()


def test_a_read_only_out_is_refused_before_anything_expensive(cli, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    refused(cli("run", "quadrotor", "--out", file / "run"), str(file))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_and_nothing_half_written_stays(
    cli, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    target = tmp_path / "score"
    arguments = ("--surrogate", out / "surrogate", "--dataset", out / "dataset", "--out", target)
    refused(cli("score", "quadrotor", *arguments), "space")
    monkeypatch.setattr(os, "fsync", real)
    assert not target.exists() and list(tmp_path.iterdir()) == []


def test_json_is_alone_on_stdout_and_errors_have_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "physai", "check", "quadrotor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0 and json.loads(done.stdout)
    command = [sys.executable, "-m", "physai", "check", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr and done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_library_errors_are_value_errors() -> None:
    with pytest.raises(ValueError, match="no plant named") as caught:
        run("nothing", "unused")
    assert isinstance(caught.value, InputError)
