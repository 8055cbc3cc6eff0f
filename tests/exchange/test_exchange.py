"""Data in and out: logs of simulated machines in other units and formats, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from logs import BARE, CARTPOLE, ONE, SWINGS, cartpole_cells, whole, write_csv

from physai.errors import InputError
from physai.exchange import extra as extras
from physai.exchange.ingest import import_logs
from physai.exchange.units import convert
from physai.rollout.store import SPLITS


@pytest.fixture
def cells(flown: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return cartpole_cells(flown)


# Units and channels


@pytest.mark.parametrize(
    ("unit", "to", "expected"),
    [
        ("deg", "rad", np.pi / 180.0),
        ("rpm", "rad/s", np.pi / 30.0),
        ("mm", "m", 1e-3),
        ("%", "1", 0.01),
        ("mV", "V", 1e-3),
        ("degC", "K", 274.15),
        ("N m", "N*m", 1.0),
    ],
)
def test_units_are_converted(unit: str, to: str, expected: float) -> None:
    assert float(convert(1.0, unit, to, "x")) == pytest.approx(expected, rel=1e-12)


def test_a_log_in_other_units_becomes_the_very_states(importing, cells, flown, plant) -> None:
    dataset, report = importing(cells, **ONE)
    episodes = whole(dataset)
    # float32 of positions up to 31 rad, and what decimal units lose.
    np.testing.assert_allclose(episodes.states.qpos[0], flown["qpos"], atol=4e-6)
    np.testing.assert_allclose(episodes.states.qvel[0], flown["qvel"], atol=2e-6)
    np.testing.assert_allclose(episodes.actions[0], flown["action"], atol=1e-7)
    assert report["logs"][0]["resampled"] is False and not report["suspicions"]
    np.testing.assert_allclose(episodes.states.design[0, 0], plant.nominal, rtol=1e-6)
    origin = {c["channel"]: c["source"] for c in report["channels"]}
    assert origin["hinge"] == "theta in deg" and origin["hinge.rate"] == "omega in rpm"


def test_the_import_is_recorded_and_not_done_twice(importing, cells, tmp_path: Path) -> None:
    first = importing(cells)
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert set(manifest["inputs"]) == {"plant", "log", "mapping"} and manifest["seed"] == 0
    stamp = (tmp_path / "data" / "manifest.json").stat().st_mtime_ns
    assert importing(cells).report == json.loads(json.dumps(first.report))
    assert (tmp_path / "data" / "manifest.json").stat().st_mtime_ns == stamp
    cells["x"] = cells["x"] + 1.0
    with pytest.raises(InputError, match="holds something else than the dataset of these logs"):
        importing(cells)


def test_splits_are_disjoint_windows_of_the_log(importing, cells, flown) -> None:
    dataset, report = importing(cells, duration=0.5)
    assert report["episodes"] == {"train": 14, "calibration": 10, "test": 6}
    assert report["drawn_by"] == "window"
    times = np.concatenate([dataset.episodes(s).states.time[:, 0] for s in SPLITS])
    np.testing.assert_allclose(np.sort(times), 0.5 * np.arange(30), atol=1e-5)
    assert dataset.steps == SWINGS


# Resampling


def test_a_faster_log_is_averaged_and_interpolated(importing, flown) -> None:
    fine = {k: v.repeat(4, axis=0)[: len(v) * 4 - 3] for k, v in flown.items()}
    time = 0.0025 * np.arange(len(fine["qpos"]))
    for name in ("qpos", "qvel"):
        fine[name] = np.stack(
            [np.interp(time, 0.01 * np.arange(SWINGS + 1), c) for c in flown[name].T], -1
        )
    fine["action"] = flown["action"].repeat(4, axis=0)
    cells = cartpole_cells(fine)
    cells["t"] = 1000.0 * time
    episodes = whole(importing(cells, **ONE).dataset)
    np.testing.assert_allclose(episodes.states.qpos[0], flown["qpos"], atol=4e-6)
    np.testing.assert_allclose(episodes.actions[0], flown["action"], atol=1e-6)


def test_times_off_by_rounding_do_not_delay_the_action(importing, cells, flown) -> None:
    late = np.random.default_rng(0).uniform(-0.04, 0.04, len(cells["t"]))
    late[0] = 0.0
    cells["t"] = cells["t"] + late  # ms: 0.4% of the period
    dataset, report = importing(cells, **{**ONE, "duration": 14.9})
    assert report["logs"][0]["resampled"] is True
    applied = whole(dataset).actions[0, :1000]
    # A sample that is 0.4% of a period late acts 0.4% of a period late, and no more.
    jump = np.abs(np.diff(flown["action"][:, 0])).max()
    np.testing.assert_allclose(applied, flown["action"][:1000], atol=0.02 * jump)


def test_a_gap_ends_an_episode(importing, cells) -> None:
    kept = {name: np.delete(values, slice(500, 600)) for name, values in cells.items()}
    dataset, report = importing(kept, duration=20.0, calibration=0.0, test=0.0)
    assert report["logs"][0]["gaps"] == [[pytest.approx(4.99), pytest.approx(6.0)]]
    lengths = sorted(dataset.episodes("train").length.tolist())
    assert lengths == [499, SWINGS - 600]


def test_empty_cells_are_no_samples(importing, cells, flown) -> None:
    cells["x"][700:702] = np.nan  # interpolated
    cells["x"][900:930] = np.nan  # a gap
    dataset, report = importing(cells, duration=20.0, calibration=0.0, test=0.0)
    assert report["logs"][0]["empty_cells"] == {"x": 32, "u": 1}
    assert sorted(dataset.episodes("train").length.tolist()) == [SWINGS - 930, 899]


def test_what_a_log_lacks_is_derived_and_said(importing, cells, flown) -> None:
    short = re.sub(r"\[velocity\].*?\n\n", "", CARTPOLE, flags=re.S)
    dataset, report = importing(cells, short, **ONE)
    rates = whole(dataset).states.qvel[0]
    # Central differences are off by h² / 6 times the third derivative.
    third = np.abs(np.diff(flown["qvel"], n=2, axis=0)).max(0)
    assert (np.abs(rates[1:-1] - flown["qvel"][1:-1]).max(0) < third + 1e-3).all()
    origin = {c["channel"]: c["source"] for c in report["channels"]}
    assert origin["slider.rate"] == "central differences of the position"
    assert origin["pole_length"].startswith("nominal, 1 m")


def test_angles_that_wrap_are_made_continuous(importing, cells, flown) -> None:
    cells["theta"] = (cells["theta"] + 180.0) % 360.0 - 180.0
    dataset, report = importing(cells, **ONE)
    angle = whole(dataset).states.qpos[0, :, 1]
    turns = np.round((angle[0] - flown["qpos"][0, 1]) / (2.0 * np.pi))
    np.testing.assert_allclose(angle - 2.0 * np.pi * turns, flown["qpos"][:, 1], atol=1e-5)
    assert report["logs"][0]["unwrapped"] == ["hinge"]


# Bad input, each with what it says


def edited(old: str, new: str) -> str:
    assert old in CARTPOLE
    return CARTPOLE.replace(old, new)


SUSPICIONS = {
    "a pole's angle in degrees": (
        edited('unit = "deg", scale = -1, offset = 90', 'unit = "rad"'),
        "velocity hinge (column 'omega', declared rpm): the position moves 57.3 times as fast and "
        "the other way: deg against rad; is the position in degrees?",
    ),
    "the same without velocities": (
        BARE.replace('unit = "deg"', 'unit = "rad"'),
        r"position hinge (column 'theta', declared rad): moves at",
    ),
    "rates in rpm": (
        edited('"rpm"', '"rad/s"'),
        "velocity hinge (column 'omega', declared rad/s): it is 9.549 times the derivative of the "
        "position: rpm against rad/s?",
    ),
    "a sign": (
        edited('unit = "rpm", scale = -1', 'unit = "rpm"'),
        "velocity hinge (column 'omega', declared rpm): the position moves the other way: is its "
        "sign, or the position's, reversed?",
    ),
    "mm": (edited('"mm"', '"m"'), "but the joint's limits are -1.8 to 1.8 m; it would fit as mm"),
    "ms": (
        edited('"ms"', '"s"'),
        "time (column 't', declared s): a sample every 10 s, the control period is 0.01 s; in ms "
        "it would be every 0.01 s: is the column in ms?",
    ),
    "percent": (
        edited('"%"', '"1"'),
        "but the channel's range is -1 to 1; it would fit as percent",
    ),
}


@pytest.mark.parametrize("case", SUSPICIONS)
def test_wrong_units_are_suspected_and_said(importing, cells, tmp_path: Path, case: str) -> None:
    mapping, said = SUSPICIONS[case]
    with pytest.raises(InputError, match=re.escape(said)) as raised:
        importing(cells, mapping)
    assert "Correct the mapping, or, if all this is right, import with --suspicious warn" in str(
        raised.value
    )
    assert not (tmp_path / "data").exists()


def test_a_suspicion_may_be_accepted(importing, cells) -> None:
    mapping, said = SUSPICIONS["rates in rpm"]
    _, report = importing(cells, mapping, suspicious="warn")
    assert [said in s for s in report["suspicions"]] == [True]


REFUSED = {
    "missing column": (
        edited('"theta"', '"teta"'),
        "no column 'teta'; the columns are 't', 'x', 'theta', 'v', 'omega', 'u'; "
        "did you mean 'theta'?",
    ),
    "no action": (
        CARTPOLE.split("[action]")[0],
        "expected every position and action of cartpole; missing: [action] push",
    ),
    "unknown channel": (
        edited("push =", "pusch ="),
        "[action]: unknown 'pusch'; the channels are push; did you mean 'push'?",
    ),
    "unknown key": (edited("scale = -1, offset", "ofset"), "unknown 'ofset'; the keys are column"),
    "no unit": (
        edited(', unit = "mm"', ""),
        '[position] slider: expected a unit, such as unit = "m"',
    ),
    "unknown unit": (edited('"mm"', '"mmm"'), "expected a unit such as m, deg, rad/s, N m or 1"),
    "another dimension": (edited('"mm"', '"kg"'), "expected a unit that measures m, got kg"),
    "hertz": (edited('"rpm"', '"Hz"'), "Hz is no angular speed; expected turn/s, rpm or rad/s"),
    "no time": (edited('column = "t"', ""), "[time]: expected one of column (with unit), period"),
    "time without unit": (edited('unit = "ms"', ""), '[time]: expected a unit, such as unit = "s"'),
    "not TOML": ("[time", "mapping.toml: expected TOML"),
    "a number for a column": (edited('column = "x"', "column = 3"), "column: expected text, got 3"),
    "episodes": (f'{CARTPOLE}\n[episode]\ncolumn = "run"', "no column 'run'"),
    "a scale of 0": (
        edited("scale = -1, offset", "scale = 0, offset"),
        "[position] hinge: scale: expected a number other than 0, got 0; for a constant, give a",
    ),
    "constants for all positions": (
        re.sub(r"(slider|hinge) = {.*(mm|deg).*}", r'\1 = { value = 1, unit = "\2" }', BARE),
        "[position]: expected a column for at least one position, got constants alone",
    ),
    "a source": (edited('column = "t"\nunit = "ms"', 'source = "log"'), "source is for MCAP"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mapping_that_does_not_fit_is_refused(
    importing, cells, tmp_path: Path, case: str
) -> None:
    mapping, said = REFUSED[case]
    with pytest.raises(InputError, match=re.escape(said)):
        importing(cells, mapping)
    assert not (tmp_path / "data").exists()


def test_time_that_goes_back_is_refused(importing, cells) -> None:
    cells["t"][100] = cells["t"][98]
    said = "log.csv: expected times that increase, got 5.98 s after 5.99 s in row 101; sort the"
    with pytest.raises(InputError, match=re.escape(said)):
        importing(cells)


def test_infinity_text_and_emptiness_are_refused(importing, cells, plant, task, tmp_path) -> None:
    broken = {**cells, "x": cells["x"].copy()}
    broken["x"][700] = np.inf
    with pytest.raises(InputError, match="column 'x': expected finite numbers, got inf at 7 s"):
        importing(broken)
    log = tmp_path / "text.csv"
    log.write_text("t,x,theta,v,omega,u\n0,a,1,1,1,1\n10,b,1,1,1,1\n")
    with pytest.raises(InputError, match=r"column 'x': expected numbers, got 'a'"):
        import_logs(plant, task, [log], tmp_path / "d", tmp_path / "mapping.toml")
    log.write_text("t,x,theta,v,omega,u\n")
    with pytest.raises(InputError, match="expected at least 2 rows, got 0"):
        import_logs(plant, task, [log], tmp_path / "d", tmp_path / "mapping.toml")
    with pytest.raises(InputError, match=r"nothing\.csv: no such file"):
        import_logs(plant, task, [tmp_path / "nothing.csv"], tmp_path / "d")


def test_a_column_that_is_there_twice_is_refused(plant, task, tmp_path: Path, cells) -> None:
    log = write_csv(tmp_path / "log.csv", {name: v[:50] for name, v in cells.items()})
    log.write_text(log.read_text().replace("omega", "theta", 1))
    (tmp_path / "mapping.toml").write_text(BARE)
    with pytest.raises(InputError, match=r"log.csv: expected one column 'theta', got 2"):
        import_logs(plant, task, [log], tmp_path / "data", tmp_path / "mapping.toml")


@pytest.mark.parametrize("encoding", ["latin1", "utf-16"])
def test_a_header_that_is_not_utf8_is_refused(
    plant, task, tmp_path: Path, cells, encoding: str
) -> None:
    log = write_csv(tmp_path / "log.csv", {name: v[:50] for name, v in cells.items()})
    log.write_bytes(log.read_text().replace("omega", "omega °/s", 1).encode(encoding))
    (tmp_path / "mapping.toml").write_text(BARE)
    with pytest.raises(InputError, match=f"(?i)log.csv: expected .* UTF-8.*`iconv -f {encoding} "):
        import_logs(plant, task, [log], tmp_path / "data", tmp_path / "mapping.toml")


def test_an_episode_of_one_row_or_without_a_label_is_refused(importing, cells) -> None:
    mapping = f'{CARTPOLE}\n[episode]\ncolumn = "run"'
    run = np.repeat(np.arange(15.0), 100)
    cells = {name: values[:1500] for name, values in cells.items()}
    flicker = run.copy()
    flicker[50] = 99.0
    with pytest.raises(
        InputError, match=r"log.csv, run 99.*: expected at least 2 rows, got 1 \(ro"
    ):
        importing({**cells, "run": flicker}, mapping)
    blank = run.copy()
    blank[700:710] = np.nan
    with pytest.raises(InputError, match=r"'run': expected an episode in every row, .* row 701"):
        importing({**cells, "run": blank}, mapping)


def test_a_position_with_one_sample_is_refused(importing, cells) -> None:
    ones = np.where(np.arange(len(cells["t"])) == 0, 1.0, np.nan)
    cells |= dict.fromkeys(("x", "theta", "v", "omega"), ones)
    with pytest.raises(InputError, match=r"log\.csv: expected at least 2 samples of a position"):
        importing(cells)


def test_a_log_given_twice_is_refused(plant, task, tmp_path: Path, cells) -> None:
    logs = [write_csv(tmp_path / f"{name}.csv", cells) for name in "ab"]
    (tmp_path / "mapping.toml").write_text(CARTPOLE)
    with pytest.raises(InputError, match=r"a\.csv and .*b\.csv: expected different logs"):
        import_logs(plant, task, logs, tmp_path / "data", tmp_path / "mapping.toml")
    assert not (tmp_path / "data").exists()


def test_a_position_that_never_changes_is_noted(importing, cells) -> None:
    _, report = importing({**cells, "x": np.full_like(cells["x"], 250.0)}, BARE)
    said = "position slider (column 'x', declared mm): is 0.25 m through the whole log"
    assert sum(said in note for note in report["notes"]) == 1


def test_a_log_that_is_too_slow_is_refused(importing, cells) -> None:
    slow = {name: values[::7] for name, values in cells.items()}
    with pytest.raises(InputError, match=r"the slowest signal has one every 0\.07 s"):
        importing(slow)
    patient = CARTPOLE.replace('unit = "ms"', 'unit = "ms"\nlongest_gap = 8')
    _, report = importing(slow, patient)
    assert "what lies between is interpolated" in report["notes"][0]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    with pytest.raises(InputError, match=r"pip install 'physai\[data\]'"):
        extras.extra("pyarrow")
