"""When a surrogate has paid back what it cost: seconds from manifests, joules from counters."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from machines_by_hand import PLANT
from surrogates import untrained_surrogate

from physai.provenance import write_manifest
from physai.report.bench import bench
from physai.report.break_even import break_even
from physai.report.energy import Counter, EnergyMeter, found_counters

FAST = [
    {"model": "mujoco", "steps_per_second": 1e4},
    {"model": "surrogate", "steps_per_second": 1e6},
]


def artefact(folder: Path, kind: str, inputs: dict[str, Any], seconds: float | None) -> Path:
    folder.mkdir(parents=True)
    write_manifest(folder, kind, inputs, {}, 0, seconds)
    return folder


def test_what_was_spent_is_paid_back_after_as_many_steps(tmp_path: Path) -> None:
    data = artefact(tmp_path / "data", "dataset", {"plant": PLANT}, 9.0)
    teacher = artefact(tmp_path / "teacher", "surrogate", {"dataset": data}, 70.0)
    student = artefact(
        tmp_path / "student", "surrogate", {"surrogate": teacher, "dataset": data}, 20.0
    )
    found = break_even(student, FAST)
    assert found["seconds"] == 99.0  # the dataset of both counts once
    # 99 s buy n steps: n / 1e4 = 99 + n / 1e6 at n = 1e6
    assert found["steps"] == pytest.approx(1e6)
    assert "99 s" in found["statement"]
    assert "1,000,000 control steps, 100 s of MuJoCo" in found["statement"]
    kinds = sorted(part["kind"] for part in found["parts"])
    assert kinds == ["dataset", "surrogate", "surrogate"]


def test_a_slower_surrogate_never_pays_back(tmp_path: Path) -> None:
    made = artefact(tmp_path / "made", "surrogate", {}, 50.0)
    found = break_even(made, [FAST[1] | {"model": "mujoco"}, FAST[0] | {"model": "surrogate"}])
    assert found["steps"] is None
    assert "never in time" in found["statement"]


def test_what_is_not_known_is_said_to_be_not_known(tmp_path: Path) -> None:
    data = artefact(tmp_path / "data", "dataset", {}, None)
    made = artefact(tmp_path / "made", "surrogate", {"dataset": data}, 50.0)
    found = break_even(made, FAST)
    assert found["seconds"] is found["steps"] is None
    assert f"not known, since {data} does not tell" in found["statement"]
    data.rename(tmp_path / "elsewhere")
    assert break_even(made, FAST)["parts"][1] == {
        "path": str(data),
        "kind": "dataset",
        "seconds": None,
    }


def package(folder: Path, name: str, joules: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text("1000000000\n")
    (folder / "energy_uj").write_text(f"{round(1e6 * joules)}\n")
    return folder


def test_packages_are_added_up_and_may_start_again_from_0(tmp_path: Path) -> None:
    first = package(tmp_path / "intel-rapl:0", "package-0", 990.0)
    second = package(tmp_path / "intel-rapl:1", "package-1", 5.0)
    package(tmp_path / "intel-rapl:0:0", "core", 400.0)  # counted by its package already
    meter = EnergyMeter([c for c in found_counters(tmp_path) if c.name.startswith("RAPL")])
    assert meter.source == "RAPL package-0, RAPL package-1"
    package(first, "package-0", 7.0)
    package(second, "package-1", 8.0)
    assert meter.joules() == pytest.approx(1000.0 - 990.0 + 7.0 + 3.0)
    assert meter.joules() == 0.0


def test_a_device_tells_its_own_joules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class NVMLError(Exception):
        pass

    spent = {0: iter([2e6, 2e6, 3.5e6]), 1: iter(())}

    def energy(device: int) -> float:
        for value in spent[device]:
            return value
        raise NVMLError("Not Supported")

    fake = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    meter = EnergyMeter(found_counters(tmp_path))
    assert meter.source == "NVML device 0"
    assert meter.joules() == pytest.approx(1500.0)


def test_where_the_machine_tells_nothing_nothing_is_told() -> None:
    assert EnergyMeter([]).joules() is None


def test_bench_tells_joules_a_step_of_every_row() -> None:
    total = [0.0]

    def read() -> float:  # 3 J between any two readings
        total[0] += 3.0
        return total[0]

    surrogate = untrained_surrogate(PLANT)
    rows = bench(
        PLANT, surrogate, batch=4, repeats=2, meter=EnergyMeter([Counter("a watch", read)])
    )
    for row in rows:
        assert row["joules_per_step"] == pytest.approx(3.0 / (4 * row["periods"]))
        assert row["energy_source"] == "a watch"
