"""Joules that the machine itself tells: processors by RAPL, NVIDIA devices by NVML.

RAPL counts the energy of a processor package in microjoules, in files that often only root may
read, and starts again from 0 beyond a stated range. NVML counts the millijoules of a device since
its driver was loaded. Both count all that runs there, and neither counts fans and power supplies.

References: Linux kernel, "Power capping framework"; NVIDIA, "NVML API reference",
`nvmlDeviceGetTotalEnergyConsumption`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

RAPL = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Counter:
    """A counter of energy.

    Attributes:
        name: of what it counts.
        read: returns joules since some moment.
        range: joules after which it starts again from 0; None: never.
    """

    name: str
    read: Callable[[], float]
    range: float | None = None


class EnergyMeter:
    """Energy between two moments, of all counters together.

    Args:
        counters: what to add up (None: all that this machine lets this user read).
    """

    def __init__(self, counters: Sequence[Counter] | None = None) -> None:
        self.counters = tuple(found_counters() if counters is None else counters)
        self._before = [counter.read() for counter in self.counters]

    @property
    def source(self) -> str:
        """Names of what is counted; "" where the machine tells nothing."""
        return ", ".join(counter.name for counter in self.counters)

    def joules(self) -> float | None:
        """Return joules since the last call, or since the meter was made; None: nothing counts."""
        now = [counter.read() for counter in self.counters]
        spent = 0.0
        for counter, before, after in zip(self.counters, self._before, now, strict=True):
            again = counter.range if after < before and counter.range else 0.0
            spent += after - before + again
        self._before = now
        return spent if self.counters else None


def found_counters(folder: Path = RAPL) -> list[Counter]:
    """Return the counters of this machine: processor packages below `folder`, NVIDIA devices."""
    return [*_packages(folder), *_devices()]


def _packages(folder: Path) -> list[Counter]:
    found = []
    for place in sorted(folder.glob("intel-rapl:*")):
        try:
            name = (place / "name").read_text().strip()
            span = _microjoules(place / "max_energy_range_uj")
            _microjoules(place / "energy_uj")
        except (OSError, ValueError):
            continue
        # Cores and memory are zones below their package, which counts the cores already.
        if name.startswith("package"):
            read = lambda path=place / "energy_uj": _microjoules(path)
            found.append(Counter(f"RAPL {name}", read, span))
    return found


def _microjoules(path: Path) -> float:
    return 1e-6 * int(path.read_text())


def _devices() -> list[Counter]:
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # no package, no driver, no device: each has an error of its own
        return []
    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        read = lambda handle=handle: 1e-3 * nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        try:
            read()
        except nvml.NVMLError:
            continue
        found.append(Counter(f"NVML device {index}", read))
    return found
