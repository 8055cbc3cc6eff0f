"""A certificate counts what was flown, and vouches for what it was made from."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pushed_cart import (
    SMALL,
    TASK,
    damper,
    holder,
    stateless,
)

from physai.errors import InputError
from physai.plant import Plant
from physai.provenance import check_chain, is_complete, read_manifest, sha256_source
from physai.task import Task
from physai.verify import (
    VerifySettings,
    certify,
    clopper_pearson,
    load_certificate,
    load_flight,
)


def test_a_controller_that_always_passes(cart: Plant, tmp_path: Any) -> None:
    easy = replace(TASK, requirements=(replace(TASK.requirements[1], limit=40.0),))
    certificate = certify(cart, easy, damper, tmp_path / "c", settings=SMALL)
    for condition in certificate.conditions:
        assert condition.passed == condition.flights == 10
        assert (condition.low, condition.high) == (pytest.approx(0.025**0.1), 1.0)
        assert condition.worst_margin is not None and condition.worst_margin <= 1.0


def test_a_controller_that_never_passes(cart: Plant, tmp_path: Any) -> None:
    hard = replace(TASK, requirements=(replace(TASK.requirements[0], limit=1e-9),))
    certificate = certify(cart, hard, holder, tmp_path / "c", settings=SMALL)
    for condition in certificate.conditions:
        (requirement,) = condition.requirements
        assert condition.passed == requirement.passed == 0
        assert (condition.low, condition.high) == (0.0, pytest.approx(1.0 - 0.025**0.1))
        assert requirement.worst is not None and requirement.worst > 1e-9


def test_a_controller_that_returns_nan(cart: Plant, tmp_path: Any) -> None:
    broken = stateless(lambda observation: np.full((len(observation), 1), np.nan))
    certificate = certify(cart, TASK, broken, tmp_path / "c", settings=SMALL)
    for condition in certificate.conditions:
        assert condition.controller_faults == 10 and condition.passed == 0
        assert condition.worst_margin is None and condition.never_settled == 10
        assert all(r.worst is None and r.median is None for r in condition.requirements)
    assert load_certificate(tmp_path / "c") == certificate


def test_certificate_counts_what_flights_npz_says(cart: Plant, tmp_path: Any) -> None:
    certificate = certify(cart, TASK, damper, tmp_path / "c", flights=40, settings=SMALL, seed=5)
    with np.load(tmp_path / "c" / "flights.npz", allow_pickle=False) as flights:
        for c in certificate.conditions:
            assert c.settings == replace(getattr(SMALL, c.name), flights=40)
            assert c.passed == flights[f"{c.name}.passed"].sum()
            assert c.mean_return == pytest.approx(flights[f"{c.name}.return"].mean(dtype=float))
            margins = flights[f"{c.name}.margin"]
            assert c.worst_flight == np.argmax(margins) and c.worst_margin == margins.max()
            assert np.sum(margins < c.typical_margin) <= 20 <= np.sum(margins <= c.typical_margin)
            for r, limit in zip(c.requirements, (0.5, 3.0), strict=True):
                measures = np.sort(flights[f"{c.name}.measure.{r.name}"])
                assert r.limit == limit and r.passed == np.sum(measures <= limit)
                assert (r.median, r.p95, r.worst) == tuple(measures[[19, 37, 39]].tolist())
                assert (r.low, r.high) == clopper_pearson(r.passed, 40)


def test_equal_inputs_give_equal_bytes(cart: Plant, tmp_path: Any) -> None:
    """A run that was killed and started again ends with the same certificate."""
    source = tmp_path / "controller.txt"
    source.write_text("damper")
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        certify(cart, TASK, damper, folder, inputs={"controller": source}, settings=SMALL, seed=7)
    names = sorted(path.name for path in a.iterdir())
    assert names == sorted(
        ["certificate.json", "flights.npz", "manifest.json"]
        + [f"{c}_{k}.npz" for c in ("nominal", "disturbed") for k in ("worst", "typical")]
    )
    for name in set(names) - {"manifest.json"}:  # which says when it was made
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    assert read_manifest(a)["record"] == read_manifest(b)["record"]
    other = certify(cart, TASK, damper, b, inputs={"controller": source}, settings=SMALL, seed=8)
    assert other != load_certificate(a)


KILLED = """
import os, signal, sys
import pushed_cart as t
from physai.control.controller import BatchController
from physai.verify import certify

def step(k, observation):
    if k == 40:
        os.kill(os.getpid(), signal.SIGKILL)
    return k + 1, t.damper.step((), observation)[1]

plant = t.load_plant(sys.argv[1])
certify(plant, t.TASK, BatchController(lambda n: 0, step), sys.argv[2], settings=t.SMALL)
"""


def test_a_killed_verification_leaves_nothing_that_counts(cart: Plant, tmp_path: Any) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, cart.folder, tmp_path / "c"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "c").exists()
    assert [path.name for path in tmp_path.iterdir()] != []  # it was at work there
    certify(cart, TASK, damper, tmp_path / "c", settings=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    undisturbed = tmp_path / "undisturbed"
    certify(cart, TASK, damper, undisturbed, settings=SMALL)
    for path in undisturbed.glob("*.npz"):
        assert path.read_bytes() == (tmp_path / "c" / path.name).read_bytes()
    assert load_certificate(undisturbed) == load_certificate(tmp_path / "c")


def test_certificate_vouches_for_its_inputs(cart: Plant, tmp_path: Any) -> None:
    source = tmp_path / "controller.txt"
    source.write_text("damper")
    inputs = {"controller": source}
    certificate = certify(cart, TASK, damper, tmp_path / "c", inputs=inputs, settings=SMALL, seed=7)
    assert certificate.inputs["controller"] == sha256_source(source)
    assert certificate.inputs["plant"] == sha256_source(cart.folder)
    links = check_chain(tmp_path / "c")
    assert {link.name for link in links} == {"certificate", "controller", "plant"}
    assert all(link.ok for link in links)
    given = {"plant": cart, **inputs}
    assert is_complete(tmp_path / "c", SMALL, given, kind="certificate", seed=7)
    assert not is_complete(tmp_path / "c", SMALL.with_flights(11), given, seed=7)
    source.write_text("another")
    assert not all(link.ok for link in check_chain(tmp_path / "c"))


def test_a_failure_leaves_no_folder_behind(cart: Plant, tmp_path: Any) -> None:
    def fail(observation: np.ndarray) -> np.ndarray:
        raise RuntimeError("out of fuel")

    with pytest.raises(RuntimeError, match="out of fuel"):
        certify(cart, TASK, stateless(fail), tmp_path / "c", settings=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_certificate_flies_the_design_it_names(
    quadrotor: Plant, quadrotor_task: Task, tmp_path: Any
) -> None:
    design = tuple((quadrotor.nominal + np.array([0.0, 0.3, 0.0, 0.0])).tolist())
    settings = replace(VerifySettings(block=2).with_flights(2), design=design)
    trim = stateless(lambda observation: np.tile(quadrotor.trim, (len(observation), 1)))
    certificate = certify(quadrotor, quadrotor_task, trim, tmp_path / "c", settings=settings)
    assert certificate.design == design and load_certificate(tmp_path / "c") == certificate
    saved = load_flight(tmp_path / "c" / "nominal_worst.npz")
    np.testing.assert_array_equal(saved.scenario.designs[0], design)
    np.testing.assert_allclose(saved.trajectory.states.design[0], design, rtol=1e-6)


def test_rows_and_summary_are_plain(cart: Plant, tmp_path: Any) -> None:
    certificate = certify(cart, TASK, damper, tmp_path / "c", settings=SMALL)
    rows = certificate.rows()
    assert [row[:2] for row in rows] == [
        (c, r) for c in ("nominal", "disturbed") for r in ("end", "reach", "all together")
    ]
    assert rows[2][3] == certificate.condition("nominal").passed
    summary = certificate.summary()
    assert len(summary["columns"]) == len(summary["rows"][0]) == len(rows[0])
    assert summary["conditions"]["disturbed"]["low"] == certificate.condition("disturbed").low
    with pytest.raises(InputError, match="nominal or disturbed"):
        certificate.condition("stormy")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"conditions": [{}]}', '{"conditions": 3}'])
def test_what_is_no_certificate_is_refused(tmp_path: Any, text: str) -> None:
    (tmp_path / "certificate.json").write_text(text)
    with pytest.raises(InputError, match=r"certificate\.json"):
        load_certificate(tmp_path)
