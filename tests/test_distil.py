"""A small, fast network distilled from an ensemble."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from masses import SPRING, episodes_of, machine

from physai.cli import main
from physai.errors import InputError
from physai.plant import Plant
from physai.provenance import check_chain, read_json
from physai.rollout.dataset import Dataset
from physai.state import State
from physai.surrogate.calibration import open_loop
from physai.surrogate.coverage import coverage_of
from physai.surrogate.distil import DistilSettings, distil, lessons, mixed
from physai.surrogate.fit import FitSettings
from physai.surrogate.model import Surrogate
from physai.surrogate.prior import periods
from physai.surrogate.release import fit
from physai.surrogate.store import load_surrogate

SMALL = DistilSettings(width=8, depth=1, steps=2500)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distil")


@pytest.fixture(scope="module")
def plant(home: Path) -> Plant:
    return machine(home, SPRING)


@pytest.fixture(scope="module")
def dataset(plant: Plant, home: Path) -> Dataset:
    return episodes_of(plant, home / "data", 60, calibration=512, test=512)


@pytest.fixture(scope="module")
def teacher(plant: Plant, dataset: Dataset, home: Path) -> Surrogate:
    settings = FitSettings(members=3, width=16, steps=1000, equations=False)
    return fit(plant, [dataset], home / "teacher", settings)


@pytest.fixture(scope="module")
def student(plant: Plant, dataset: Dataset, teacher: Surrogate, home: Path) -> Surrogate:
    distil(plant, home / "teacher", [dataset], home / "student", SMALL)
    return load_surrogate(home / "student", plant)


def test_the_student_is_one_small_network_about_as_good_as_its_teacher(
    student: Surrogate, home: Path
) -> None:
    assert student.members == 1
    assert (student.architecture.width, student.architecture.depth) == (8, 1)
    record = read_json(home / "student" / "distilled.json")
    told, own = record["nrmse"]["teacher"], record["nrmse"]["student"]
    assert record["horizons"] == [1, 10, 50]
    assert max(told) < 0.02
    assert all(theirs < 3.0 * its for theirs, its in zip(own, told, strict=True))


def test_its_intervals_cover_fresh_flights(student: Surrogate, dataset: Dataset) -> None:
    judged = coverage_of(student, open_loop(student, dataset.episodes("test"), 50, 5))
    for step in (0, 9, 49):
        assert judged.share(step) == pytest.approx(0.9, abs=0.06)


def test_the_chain_from_student_to_data_holds(student: Surrogate, home: Path) -> None:
    assert student is not None
    check_chain(home / "student")


def test_lessons_are_the_teachers_mean_at_recorded_and_mixed_inputs(
    teacher: Surrogate, dataset: Dataset
) -> None:
    training = dataset.episodes("train")
    x, y = lessons(teacher, training, replace(SMALL, mixed=2), 0)
    state, action, disturbance, _ = periods(training)
    count = len(action)
    assert len(x) == len(y) == 3 * count
    assert np.allclose(x[:count], teacher.normalised_inputs(state, action, disturbance), atol=1e-5)
    low, high = x[:count].min(axis=0), x[:count].max(axis=0)
    assert np.all(x[count:] >= low - 1e-5) and np.all(x[count:] <= high + 1e-5)
    after = teacher.step(state, jnp.asarray(action), jnp.asarray(disturbance))
    change = np.asarray(after.qvel - state.qvel)[:, 0]
    scales, nv = teacher.normaliser, teacher.layout.nv
    told = y[:count, nv] * scales.target_std[nv] + scales.target_mean[nv]
    assert np.corrcoef(change, told)[0, 1] > 0.999


def test_mixed_states_lie_on_the_way_to_others_and_meet_other_actions(teacher: Surrogate) -> None:
    rng = np.random.default_rng(0)
    n = 50
    values = rng.normal(size=(n, 1)).astype(np.float32)
    zero = np.zeros((n, 0), np.float32)
    blank = State(values, 2.0 * values, zero, np.zeros(n, np.float32), zero, zero)
    actions, disturbances = rng.normal(size=(n, 1)), zero
    moved, driven, _ = mixed(teacher, (blank, actions, disturbances), rng)
    assert not np.allclose(driven, actions, atol=1e-6)
    assert np.allclose(np.sort(driven, axis=0), np.sort(actions, axis=0), atol=1e-6)
    gone = np.abs(np.asarray(moved.qpos) - values)
    assert np.median(gone) < 0.3 < np.max(gone)  # most near a recorded one, some far
    assert values.min() <= moved.qpos.min() and moved.qpos.max() <= values.max()
    assert np.allclose(moved.qvel, 2.0 * moved.qpos, atol=1e-5)  # on a line, as all of them are


def test_the_same_seed_gives_the_same_student(
    plant: Plant, dataset: Dataset, student: Surrogate, home: Path
) -> None:
    distil(plant, home / "teacher", [dataset], home / "again", SMALL)
    again = load_surrogate(home / "again", plant)
    assert jax.tree.all(jax.tree.map(np.array_equal, student.parameters, again.parameters))


def test_what_cannot_be_distilled_is_refused(plant: Plant, dataset: Dataset, home: Path) -> None:
    with pytest.raises(InputError, match="expected another folder than that of the surrogate"):
        distil(plant, home / "teacher", [dataset], home / "teacher")
    with pytest.raises(InputError, match="expected at least one dataset, got none"):
        distil(plant, home / "teacher", [], home / "nothing")


def test_the_verb_prints_the_errors_side_by_side(
    student: Surrogate, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert student is not None
    arguments = (
        f"distil {home / 'machine.xml'} --surrogate {home / 'teacher'} --dataset {home / 'data'}"
    )
    small = "--width 4 --depth 1 --steps 250"
    assert main([*f"{arguments} --out {home / 'verb'} {small}".split()]) == 0
    shown = capsys.readouterr().out
    assert "teacher" in shown and "student" in shown
