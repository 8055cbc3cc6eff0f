"""The report: one page that needs nothing else, says what its parts say, and survives bad ones."""

from __future__ import annotations

import csv
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from controllers import geometric_controller

from physai.control.controller import BatchController, batch_controller
from physai.errors import InputError
from physai.learn.learn import Comparison
from physai.plant import Plant, load_plant
from physai.provenance import check_chain
from physai.report import film, series, summary, tables, text
from physai.report.assemble import ReportParts, write_report
from physai.report.html import script_json
from physai.task import Requirement, load_task
from physai.verify import VerifySettings, certify, load_certificate
from physai.verify.replay import Trajectory, read_arrays

PLANT = load_plant("quadrotor")
TASK = replace(load_task(PLANT), duration=4.0)
FEW = VerifySettings(block=12)
HOSTILE = "<script>alert('x')</script>"
STEPS = 50
VOID = {"meta", "img", "br", "link", "input", "hr"}


def score() -> dict:
    """Return a card as `physai.surrogate.score.score` makes it, with numbers easy to find again."""
    curve = [0.001 * (i + 1) for i in range(STEPS)]
    channel = {"rmse": [0.1, 0.2, 0.3], "nrmse": [0.01, 0.02, 0.05], "coverage": [0.9, 0.91, 0.89]}
    return {
        "windows": 400,
        "blown_up": 0,
        "members": 2,
        "too_long": [{"steps": 100, "windows": 7}],
        "baselines": {"persistence": [0.5, 0.8, 1.0], "ridge": [0.02, 0.3, 0.777]},
        "members_nrmse": {
            "min": [0.001, 0.011, 0.0522],
            "median": [0.001, 0.011, 0.0533],
            "max": [0.002, 0.012, 0.0544],
        },
        "contact": {
            "windows_free": [400, 390, 311],
            "nrmse_free": [None, 0.009, 0.041],
            "windows_contact": [0, 10, 89],
            "nrmse_contact": [None, 0.03, 0.073],
        },
        "worst": [
            {"episode": 17, "start": 5, "nrmse": 0.31, "channel": "root.z", "error": -0.123,
             "unit": "m"},
            {"episode": 4, "start": 0, "nrmse": None, "channel": None, "error": None,
             "unit": None},
        ],
        "energy": None,
        "domain": {
            "false_alarms": 0.0123, "misses": 0.0345, "auc": 0.9876, "inputs": 9000, "beyond": 8000,
        },
        "horizon_certificate": {
            "statement": "With 95% confidence, at least 95% of flights do as they are told.",
            "recorded": 60,
            "by_share": [
                {"share": 0.5, "steps": 60},
                {"share": 0.95, "steps": 31},
                {"share": 0.99, "steps": None},
            ],
        },
        "horizons": [1, 10, 50],
        "seconds": [0.02, 0.2, 1.0],
        "nrmse": [0.001, 0.01, 0.05],
        "coverage": [0.9, 0.91, 0.894],
        "sharpness": [0.002, 0.02, 0.1234],
        "error_spread_correlation": [0.5, None, 0.4321],
        "position_error": [0.001, None, 0.0123],
        "channels": {
            c.name: {"unit": c.unit, "half_width": [0.1, 0.2, 0.3], **channel}
            for c in PLANT.state_channels
        },
        "curve": {
            "nrmse": curve,
            "coverage": [0.9 + 0.0001 * i for i in range(STEPS)],
            "half_width": [2.0 * x for x in curve],
            "windows": [400] * STEPS,
            "persistence": [1.0] * STEPS,
            "ridge": [3.0 * x for x in curve],
        },
    }  # fmt: skip


RECALIBRATION = {
    "episodes": {"calibration": 123, "test": 124},
    "horizons": [1, 10, 50],
    "windows": [1451, 1201, 345],
    "error_spread_correlation": [0.5, 0.4, None],
    "before": {"coverage": [0.88, 0.87, 0.8432], "sharpness": [0.001, 0.01, 0.0611]},
    "after": {"coverage": [0.9, 0.901, 0.9089], "sharpness": [0.0012, 0.012, None]},
    "outside": 0.3217,
}
PARITY = {
    "samples": 10_000,
    "c99_max_error": 3.6e-7,
    "onnx_max_error": 2.4e-7,
    "c99_max_error_of_range": 3.6e-7,
    "onnx_max_error_of_range": 2.4e-7,
    "tolerance": 1e-5,
    "status_mismatches": 0,
    "c99_nanoseconds_per_call": 412.3,
    "compiler": "cc: -std=c99 -O3",
}


def speeds(ratio: float) -> list[dict]:
    """Return rows as `bench` makes them, the ensemble `ratio` times as fast as MuJoCo."""
    machine = {
        "batch": 64,
        "cores": 2,
        "cpu": "a CPU",
        "periods": 10,
        "repeats": 5,
        "device": "CPU",
    }
    return [
        {
            "model": model,
            "description": model,
            "steps_per_second": 1e5 * factor,
            "slowest": 0.9e5 * factor,
            "fastest": 1.1e5 * factor,
            "ratio": factor,
            "float_type": "float32",
            **machine,
        }
        for model, factor in (
            ("mujoco", 1.0),
            ("true plant", 0.8),
            ("surrogate", ratio),
            ("member", 4.0 * ratio),
        )
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two certificates and the training curves."""
    folder = tmp_path_factory.mktemp("run")
    controller = batch_controller(geometric_controller(PLANT))
    certify(PLANT, TASK, controller, folder / "certificate", 12, 1, settings=FEW)
    (folder / "fit.csv").write_text("stage,step,loss\none step,250,0.5\none step,500,0.25\n")
    for i in range(2):
        (folder / f"learning-{i}.csv").write_text(
            "update,reward_per_period,imagined_return,true_return\n"
            f"10,-1.5,,\n20,-1.25,-{50 - i},-{60 - i}\n"
        )
    return folder


@pytest.fixture(scope="module")
def parts(run: Path) -> ReportParts:
    """All the parts of a report."""
    return ReportParts(
        plant=PLANT,
        task=TASK,
        score=score(),
        recalibration=RECALIBRATION,
        fit_curve=run / "fit.csv",
        learning=[run / "learning-0.csv", run / "learning-1.csv"],
        comparisons=[Comparison(-50.0, -60.0), Comparison(-49.0, -59.0)],
        certificates={"policy": run / "certificate", "c99": run / "certificate"},
        parity=PARITY,
        bench=speeds(0.5),
        checks=PLANT.checks(PLANT) if PLANT.checks else (),
        stages=[
            ("dataset", 6.25, f"12 episodes & more in {run}/dataset"),
            ("policy", 70.5, "imagined -50"),
        ],
        chain=check_chain(run / "certificate"),
    )


@pytest.fixture(scope="module")
def page(run: Path, parts: ReportParts) -> str:
    """The page that these parts make."""
    path = write_report(run / "report", parts, {"certificate": run / "certificate"}, 3)
    return path.read_text(encoding="utf-8")


class Balanced(HTMLParser):
    """Check that every element is closed, in order, and collect the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


def plain(words: str) -> str:
    """Return words with a single plain space between them."""
    return " ".join(words.split())


def numbers(page: str) -> dict:
    """Return the numbers that the page carries."""
    found = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1])


def test_page_is_well_formed_and_has_every_section(page: str) -> None:
    parsed = Balanced(page)
    assert page.startswith("<!doctype html>")
    order = "plant rollout surrogate learning verification export speed provenance limits".split()
    assert re.findall(r'<h2 id="(\w+)"', page) == order
    assert parsed.seen.count("svg") == 6
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    # Every reference within the page leads somewhere.
    assert {*re.findall(r"url\(#([^)]+)\)", page), *re.findall(r'href="#([^"]+)"', page)} <= set(
        ids
    )


def test_page_needs_no_network_and_no_other_file(page: str) -> None:
    assert not re.search(r"https?:|//[a-z]+\.|@import|@font-face|<link|<iframe|\bsrcset=", page)
    assert set(re.findall(r'\bsrc="([a-z:/]+)', page)) <= {"data:image/jpeg"}
    assert "default-src 'none'" in page
    assert len(page) < 1_500_000


def test_nothing_undefined_is_printed(page: str) -> None:
    words = " ".join(Balanced(page).text)
    assert not re.search(r"\b(nan|NaN|inf|Infinity|None|null|undefined)\b", words)


def test_page_carries_the_numbers_of_its_figures(run: Path, page: str) -> None:
    carried, card = numbers(page), score()
    assert carried["error"]["error_nrmse"] == card["curve"]["nrmse"]
    assert carried["error"]["ridge_nrmse"] == card["curve"]["ridge"]
    assert carried["error"]["interval_half_width_nrmse"] == card["curve"]["half_width"]
    assert carried["error"]["horizon_s"] == pytest.approx(0.02 * np.arange(1, STEPS + 1))
    assert carried["coverage"]["coverage_percent"] == pytest.approx(
        100.0 * np.array(card["curve"]["coverage"])
    )
    assert carried["fit"] == {"stage": ["one step"] * 2, "step": [250, 500], "loss": [0.5, 0.25]}
    assert carried["learning"]["update"] == [10, 20, 30, 40]
    assert carried["learning"]["imagined_return"] == [None, -50, None, -49]
    assert carried["learning"]["true_return"] == [None, -60, None, -59]
    flights = read_arrays(run / "certificate" / "flights.npz")
    for requirement in TASK.requirements:
        stored = flights[f"disturbed.measure.{requirement.name}"]
        shown = carried["measures"][f"disturbed_{requirement.name}_{requirement.unit}"]
        known = [np.inf if x is None else x for x in shown]
        np.testing.assert_allclose(known, stored, rtol=1e-6)
    for table in carried.values():
        assert len({len(column) for column in table.values()}) == 1


def test_trajectories_are_the_measures_moment_by_moment(run: Path) -> None:
    certificate = load_certificate(run / "certificate")
    flights = series.load_flights(run / "certificate", certificate, TASK)
    assert [(f.condition, f.kind) for f in flights] == [
        ("nominal", "typical"),
        ("nominal", "worst"),
        ("disturbed", "typical"),
        ("disturbed", "worst"),
    ]
    for flown in flights:
        states = flown.saved.trajectory.states
        distance = np.linalg.norm(states.qpos[:, :3] - states.command[:, :3], axis=-1)
        np.testing.assert_allclose(flown.values["position"], distance, rtol=1e-5, atol=1e-6)
        # The requirement is the largest of the last second, 50 control periods.
        largest = [flown.values[r.name][-51:].max() for r in TASK.requirements]
        np.testing.assert_allclose(largest, flown.saved.measures, rtol=1e-5)


def test_measure_that_needs_a_whole_flight_is_not_drawn_over_time(run: Path) -> None:
    late = Requirement("late", "", "m", 1.0, lambda states: states.qpos[10, 0])
    broken = Requirement("broken", "", "m", 1.0, lambda states: states.time.reshape(7)[0])
    states = series.load_flights(run / "certificate", load_certificate(run / "certificate"), TASK)[
        0
    ].saved.trajectory.states
    values = series.moments(replace(TASK, requirements=(broken, late)), states)
    assert np.isnan(values["broken"]).all()
    assert values["late"].shape == states.time.shape


def test_summary_and_tables_say_what_the_parts_say(run: Path, page: str) -> None:
    words = plain(" ".join(Balanced(page).text))
    certificate = load_certificate(run / "certificate")
    for condition in certificate.conditions:
        assert f"{condition.passed} of {condition.flights}" in words
        assert plain(text.interval(condition.low, condition.high)) in words
    for needed in (
        "0.05",
        "89.4",
        "3.6e-07",
        "100 000",
        "50 000",
        "12 episodes & more in dataset",
        "Here the surrogate is slower than the simulator: 0.5 times its speed.",
        "0.05 after 50 periods",
        "0.0522 to 0.0544",
        "0.777",
        "0.041 (311)",
        "0.073 (89)",
        "-0.123 m",
        "0.123 0.432",
        "345 84.32 % 90.89 % 0.0611 – –",
        "made from 123 episodes and hold for episodes drawn like these",
        "32.17 % lie outside the operating domain",
        "60 or more",
        "at least 95% of flights do as they are told",
        "calls 1.23 % of the test inputs outside (false alarms)",
        "(area under the ROC curve 0.988)",
        "100 steps ahead: left out, 7 test windows are that long.",
        "left blank for the responsible engineer",
    ):
        assert needed in words, needed


def test_names_from_data_are_escaped(run: Path, parts: ReportParts, tmp_path: Path) -> None:
    task = replace(
        TASK, requirements=(replace(TASK.requirements[0], name=HOSTILE, unit="$m_{<b>"),)
    )
    controller = batch_controller(geometric_controller(PLANT))
    certify(PLANT, task, controller, tmp_path / "certificate", 2, settings=FEW)
    hostile = replace(
        parts,
        plant=replace(PLANT, name=HOSTILE),
        task=task,
        certificates={HOSTILE: tmp_path / "certificate"},
        stages=[(HOSTILE, 1.0, HOSTILE)],
    )
    page = write_report(tmp_path / "report", hostile, {}, None).read_text(encoding="utf-8")
    parsed = Balanced(page)
    assert parsed.seen.count("script") == 2
    assert "<b>" not in page.replace("<b>", "", page.count("<figcaption><b>") + page.count("<b>"))
    assert f"nominal_{HOSTILE}_$m_{{<b>" in numbers(page)["measures"]
    assert HOSTILE in "".join(parsed.text)


def test_json_in_a_script_cannot_end_it() -> None:
    value = {"</script><!--": ["<b>&", float("nan"), 1.5, None, float("inf")]}
    written = script_json(value)
    assert not set("<>&") & set(written)
    assert json.loads(written) == {"</script><!--": ["<b>&", None, 1.5, None, None]}


def test_manifest_of_the_report_holds_and_notices_an_edit(run: Path, page: str) -> None:
    links = check_chain(run / "report")
    assert [link.name for link in links] == ["report", "certificate", "plant"]
    assert all(link.ok for link in links)
    path = run / "report" / "report.html"
    original = path.read_bytes()
    path.write_bytes(original.replace(b"Limits", b"limits", 1))
    assert not check_chain(run / "report")[0].ok
    path.write_bytes(original)


def test_report_without_any_part_says_what_is_missing(tmp_path: Path) -> None:
    page = write_report(tmp_path / "report", ReportParts(PLANT, TASK), {}, None).read_text()
    parsed = Balanced(page)
    words = " ".join(parsed.text)
    assert "nothing was verified" in words
    assert "Speed was not measured" in words
    assert "svg" not in parsed.seen
    assert "Not made in this run." in words
    missing = ReportParts(PLANT, TASK, recalibration={"missing": "No intervals: lost at once"})
    page = write_report(tmp_path / "other", missing, {}, None).read_text()
    assert "No intervals: lost at once" in page
    assert numbers(page) == {}


def test_flights_that_all_fail_are_reported_not_hidden(parts: ReportParts, tmp_path: Path) -> None:
    def crash(cstate: object, observation: np.ndarray) -> tuple[object, np.ndarray]:
        return cstate, np.full((len(observation), PLANT.nu), np.nan)

    certify(
        PLANT,
        TASK,
        BatchController(lambda n: None, crash),
        tmp_path / "certificate",
        2,
        settings=FEW,
    )
    failing = replace(parts, certificates={"policy": tmp_path / "certificate"})
    page = write_report(tmp_path / "report", failing, {}, 0).read_text(encoding="utf-8")
    assert f"<b>0{text.THIN}%</b>" in page
    assert set(numbers(page)["measures"]["nominal_position_m"]) == {None}
    words = " ".join(Balanced(page).text)
    assert not re.search(r"\b(nan|inf)\b", words, re.I)


@pytest.mark.parametrize("package", ["matplotlib", "jinja2", "PIL"])
def test_missing_extra_is_named(
    package: str, parts: ReportParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=re.escape("pip install 'physai[report]'")):
        write_report(tmp_path / "report", parts, {}, 0)
    assert not (tmp_path / "report").exists()


def test_machine_that_cannot_render_gets_the_reason(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def render(*_: object) -> list[np.ndarray]:
        raise InputError("cannot render: no OpenGL")

    monkeypatch.setattr(film, "render", render)
    flown = series.load_flights(run / "certificate", load_certificate(run / "certificate"), TASK)[0]
    assert film.strip(PLANT, flown, "typical") == ("typical", [], "cannot render: no OpenGL")


def test_film_strip_shows_the_moments_that_were_rendered(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [np.full((6, 8, 3), 30 * i, np.uint8) for i in range(film.FRAMES)]
    monkeypatch.setattr(film, "render", lambda *_: images)
    flown = series.load_flights(run / "certificate", load_certificate(run / "certificate"), TASK)[0]
    strip = film.strip(PLANT, flown, "typical")
    seconds = [float(frame.seconds) for frame in strip.frames]
    assert seconds[0] == 0.0
    assert seconds[-1] == pytest.approx(TASK.duration)
    assert seconds == sorted(seconds)
    assert all(frame.uri.startswith("data:image/jpeg;base64,/9j/") for frame in strip.frames)


def test_film_of_a_lost_flight_ends_where_it_was_lost(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def render(plant: Plant, trajectory: Trajectory, *_: object) -> list[np.ndarray]:
        drawn.append(trajectory)
        return [np.zeros((6, 8, 3), np.uint8)] * film.FRAMES

    monkeypatch.setattr(film, "render", render)
    gone = replace(TASK, terminated=lambda state: state.time > 1.001)
    flown = series.load_flights(run / "certificate", load_certificate(run / "certificate"), gone)[0]
    strip = film.strip(PLANT, flown, "worst")
    assert strip.title == "worst, until it was lost"
    assert float(strip.frames[-1].seconds) == pytest.approx(1.02)
    assert drawn[0].states.time[-1] == pytest.approx(1.02)


def test_bad_curve_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fit.csv"
    path.write_text("stage,step\n")
    with pytest.raises(InputError, match=r"fit\.csv: expected a column 'loss'"):
        series.fit_series(path)
    with pytest.raises(InputError, match=r"cannot read .*absent\.csv"):
        series.fit_series(tmp_path / "absent.csv")


def test_learning_curves_of_rounds_follow_each_other(tmp_path: Path) -> None:
    names = ["update", "reward_per_period", "imagined_return", "true_return"]
    paths = [tmp_path / "0.csv", tmp_path / "1.csv"]
    for path in paths:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([names, [10, -1, "", ""], [20, -1, -5, -6]])
    curve = series.learning_series(paths)
    assert curve["update"] == [10, 20, 30, 40]
    assert curve["round"] == [0, 0, 1, 1]


def test_percentages_are_never_rounded_to_all_or_nothing() -> None:
    assert text.percent(1.0) == f"100{text.THIN}%"
    assert text.percent(0.99999) == f"99.99{text.THIN}%"
    assert text.percent(0.00001, up=True) == f"0.01{text.THIN}%"
    assert text.percent(0.9973) == f"99.73{text.THIN}%"
    assert text.interval(0.97238, 0.99987) == f"97.23{text.THIN}% to 99.99{text.THIN}%"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (float("-inf"), "–"),
        (0.0, "0"),
        (0.012345, "0.0123"),
        (1234.4, "1234"),
        (123456.0, "123\u202f000"),
        (-50.04, "-50"),
    ],
)
def test_numbers_have_three_digits(value: float | None, written: str) -> None:
    assert text.number(value) == written


def test_speed_note_is_plain_about_a_slow_surrogate_and_a_busy_machine() -> None:
    assert "slower than the simulator: 0.5 times" in summary.speed_note(speeds(0.5))
    assert "12 times as many control steps" in summary.speed_note(speeds(12.0))
    rows = speeds(12.0)
    assert "busy" not in summary.speed_note(rows)
    rows[0]["load"] = 8.0
    assert "busy" in summary.speed_note(rows)
    rows[0] |= {"load": 0.0, "fastest": 3.0 * rows[0]["slowest"]}
    assert "busy" in summary.speed_note(rows)


def test_no_speed_of_a_surrogate_without_its_error() -> None:
    with_score = tables.speed_table(speeds(2.0), score()).rows
    assert [row[-1] for row in with_score] == [
        "reference",
        "reference",
        "0.05 after 50 periods",
        "not scored alone",
    ]
    assert tables.speed_table(speeds(2.0), None).rows[2][-1] == "not scored"


def test_chain_is_told_without_the_machine_s_paths(run: Path) -> None:
    table = tables.chain_table(check_chain(run / "certificate"), run)
    assert [row[1] for row in table.rows] == ["certificate", "quadrotor"]
    assert all(row[2] == "yes" for row in table.rows)
    assert not any(str(run) in cell for row in table.rows for cell in row)
