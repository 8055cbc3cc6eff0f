"""Orientations in logs: their order, sign and unit length, and rates that follow from them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from logs import fly, write_csv

from physai.errors import InputError
from physai.exchange.ingest import Imported, import_logs
from physai.exchange.resample import difference_rates
from physai.exchange.windows import ImportSettings
from physai.plant import load_plant
from physai.task import load_task


def tumbling(seconds: float = 6.0) -> dict[str, np.ndarray]:
    """A log of a quadrotor thrown by hand: orientation, rates, position and constant throttles."""
    quadrotor = load_plant("quadrotor")
    flown = fly(quadrotor, round(seconds / quadrotor.control_period))
    names = ["x", "y", "z", "q0", "q1", "q2", "q3"]
    cells = {"t": quadrotor.control_period * np.arange(len(flown["qpos"]))}
    cells |= dict(zip(names, flown["qpos"].T, strict=True))
    cells |= dict(zip(["vx", "vy", "vz", "wx", "wy", "wz"], flown["qvel"].T, strict=True))
    padded = np.concatenate([flown["action"], flown["action"][-1:]])
    cells |= dict(zip(["u1", "u2", "u3", "u4"], padded.T.astype(float), strict=True))
    return cells


def quadrotor_mapping(order: str = "wxyz", rates: bool = True) -> str:
    lines = ["[time]", 'column = "t"', 'unit = "s"', "[position]"]
    lines += [f'root.{a} = {{ column = "{a}", unit = "m" }}' for a in "xyz"]
    lines += ["[quaternion]", f'root = {{ columns = ["q0", "q1", "q2", "q3"], order = "{order}" }}']
    lines += ["[velocity]"] if rates else []
    lines += [f'root.r{a} = {{ column = "w{a}", unit = "rad/s" }}' for a in "xyz" if rates]
    lines += ["[action]"] + [f'rotor_{i} = {{ column = "u{i}", unit = "1" }}' for i in range(1, 5)]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def tumbled() -> dict[str, np.ndarray]:
    return tumbling()


def import_quadrotor(folder: Path, cells: dict[str, np.ndarray], mapping: str) -> Imported:
    plant = load_plant("quadrotor")
    (folder / "mapping.toml").write_text(mapping)
    log = write_csv(folder / "log.csv", cells)
    settings = ImportSettings(duration=20.0, calibration=0.0, test=0.0, symmetry=False)
    return import_logs(
        plant, load_task(plant), [log], folder / "data", folder / "mapping.toml", settings
    )


def test_quaternions_are_read_in_both_orders_and_signs(tmp_path: Path, tumbled) -> None:
    flipped = dict(tumbled)
    sign = np.where(np.arange(len(tumbled["t"])) % 2, -1.0, 1.0)
    for name in ("q0", "q1", "q2", "q3"):
        flipped[name] = tumbled[name] * sign
    moved = {"q0": "q3", "q1": "q0", "q2": "q1", "q3": "q2"}
    shifted = {moved.get(name, name): values for name, values in flipped.items()}
    for name, cells, order in (("a", flipped, "wxyz"), ("b", shifted, "xyzw")):
        (tmp_path / name).mkdir()
        dataset, _ = import_quadrotor(tmp_path / name, cells, quadrotor_mapping(order))
        got = dataset.episodes("train").states.qpos[0, : len(tumbled["t"]), 3:]
        expected = np.stack([tumbled[f"q{i}"] for i in range(4)], -1)
        np.testing.assert_allclose(np.abs(np.sum(got * expected, -1)), 1.0, atol=1e-6)


def test_lagged_rotors_follow_from_their_actions(tmp_path: Path, tumbled) -> None:
    plant = load_plant("quadrotor")
    flown = fly(plant, len(tumbled["t"]) - 1)
    dataset, report = import_quadrotor(tmp_path, tumbled, quadrotor_mapping())
    act = dataset.episodes("train").states.act[0, : len(tumbled["t"])]
    # The start is not known: what is left of it decays by e in a time constant of 0.05 s.
    late = 50
    np.testing.assert_allclose(act[late:], flown["act"][late:], atol=1e-5)
    origin = {c["channel"]: c["source"] for c in report["channels"]}
    assert origin["rotor_1.activation"] == "its action through a lag of 0.05 s"


def test_half_a_turn_of_heading_is_noted(tmp_path: Path, tumbled) -> None:
    cells = dict(tumbled)
    ones, zeros = np.ones_like(cells["t"]), np.zeros_like(cells["t"])
    cells |= {"q0": zeros, "q1": zeros, "q2": zeros, "q3": ones}
    _, report = import_quadrotor(tmp_path, cells, quadrotor_mapping(rates=False))
    assert any("faces backwards all the time" in note for note in report["notes"])


@pytest.mark.parametrize("rates", [True, False], ids=["rates", "no rates"])
def test_the_other_order_is_suspected(tmp_path: Path, tumbled, rates: bool) -> None:
    cells = dict(tumbled)
    if not rates:
        cells |= {"q0": np.full_like(cells["t"], 0.9998), "q1": np.full_like(cells["t"], 0.02)}
        cells |= {"q2": np.zeros_like(cells["t"]), "q3": np.zeros_like(cells["t"])}
    with pytest.raises(InputError, match='reads as if its order were "wxyz", not "xyzw"'):
        import_quadrotor(tmp_path, cells, quadrotor_mapping("xyzw", rates))


def test_a_quaternion_that_is_not_unit_is_refused(tmp_path: Path, tumbled) -> None:
    cells = {**tumbled, "q1": 1.5 * tumbled["q1"]}
    said = "quaternion root (q0, q1, q2, q3): expected a norm of 1 within 0.001, got"
    with pytest.raises(InputError, match=re.escape(said)):
        import_quadrotor(tmp_path, cells, quadrotor_mapping())


def test_orientations_are_resampled_on_the_great_arc(tmp_path: Path, tumbled) -> None:
    """A turn at constant speed, logged at another rate, is a turn at that speed."""
    time, rate = np.arange(0.0, 3.0, 0.013), 1.5
    cells = {name: np.zeros_like(time) for name in tumbled}
    cells |= {"t": time, "q0": np.cos(0.5 * rate * time), "q3": np.sin(0.5 * rate * time)}
    dataset, _ = import_quadrotor(tmp_path, cells, quadrotor_mapping(rates=False))
    episodes = dataset.episodes("train")
    n = int(episodes.length[0])
    angle = 0.5 * rate * 0.02 * np.arange(n + 1)
    np.testing.assert_allclose(episodes.states.qpos[0, : n + 1, 6], np.sin(angle), atol=1e-6)
    np.testing.assert_allclose(episodes.states.qvel[0, : n + 1, 5], rate, atol=1e-5)


def test_difference_rates_are_those_of_the_simulator() -> None:
    plant = load_plant("quadrotor")
    flown = fly(plant, 100)
    rates = difference_rates(plant, flown["qpos"])
    second = np.abs(np.diff(flown["qvel"], n=2, axis=0)).max()
    assert np.abs(rates[1:-1] - flown["qvel"][1:-1]).max() < second + 0.05
