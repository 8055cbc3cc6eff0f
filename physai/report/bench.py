"""Control steps a second of the true simulator and of a surrogate, on one machine, in one process.

    steps a second = batch * periods / elapsed wall time
    ratio = steps a second / those of MuJoCo alone

All rows start from the same states and hold the same actions. They are timed in turn, over and
over, so that whatever else the machine does meets all of them; the median over the repeats is
reported.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mujoco.batch
import numpy as np

from physai.errors import InputError
from physai.plant import Plant
from physai.progress import Progress, silent
from physai.report.energy import EnergyMeter
from physai.rollout.engine import TruePlant, quiet_warnings
from physai.state import State
from physai.surrogate.model import Surrogate

PERIODS = 50  # most control periods in one timed run
SLICE = 0.1  # s that one timed run should take
BUDGET = 4.0  # s after which no further repeat is begun, if there are enough
ENOUGH = 3  # repeats


@dataclass(frozen=True)
class _Case:
    """One row: `run(periods)` advances the whole batch and returns when it is done."""

    model: str
    description: str
    float_type: str
    device: str
    run: Callable[[int], None]


def bench(
    plant: Plant,
    surrogate: Surrogate,
    batch: int = 1024,
    repeats: int = 5,
    seed: int = 0,
    progress: Progress = silent,
    meter: EnergyMeter | None = None,
) -> list[dict[str, Any]]:
    """Time MuJoCo alone, `TruePlant.step`, the ensemble and one of its members.

    Args:
        plant: the machine, at its nominal design.
        surrogate: of that plant.
        batch: simulations side by side.
        repeats: timed runs a row; where they take long, no more than three.
        seed: of the actions.
        progress: called with the number of repeats done.
        meter: of energy (None: all counters of this machine that this user may read).

    Returns:
        A row each: `model`, `description`, `steps_per_second` (median), `slowest` and `fastest`
        repeat (1/s), `ratio` to the first row, `joules_per_step` (mean; None where the machine does
        not tell) and `energy_source`, `batch`, `periods` and `repeats` timed,
        `float_type`, `device`, and the machine's `cores`, `cpu` and `load`, the mean number of
        threads that wanted a core in the minute before (None: unknown).

    Raises:
        InputError: a batch or number of repeats below 1.
    """
    for name, value in (("batch", batch), ("repeats", repeats)):
        if value < 1:
            raise InputError(f"{name}: expected at least 1, got {value}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    cases = _cases(plant, surrogate, batch, seed)
    started = time.perf_counter()
    progress("bench", 0, repeats)
    periods = [_periods(case) for case in cases]
    rates: list[list[float]] = [[] for _ in cases]
    spent: list[list[float]] = [[] for _ in cases]
    meter = meter or EnergyMeter()
    for repeat in range(repeats):
        for case, count, found, used in zip(cases, periods, rates, spent, strict=True):
            meter.joules()
            found.append(batch * count / _seconds(case, count))
            if (joules := meter.joules()) is not None:
                used.append(joules / (batch * count))
        progress("bench", repeat + 1, repeats)
        if time.perf_counter() - started > BUDGET and repeat + 1 >= ENOUGH:
            progress("bench", repeats, repeats)
            break
    machine = {"batch": batch, "cores": cores(), "cpu": cpu_name(), "load": load}
    reference = float(np.median(rates[0]))
    return [
        {
            "model": case.model,
            "description": case.description,
            "steps_per_second": float(np.median(found)),
            "slowest": min(found),
            "fastest": max(found),
            "ratio": float(np.median(found)) / reference,
            "joules_per_step": float(np.mean(used)) if used else None,
            "energy_source": meter.source,
            "periods": count,
            "repeats": len(found),
            "float_type": case.float_type,
            "device": case.device,
            **machine,
        }
        for case, count, found, used in zip(cases, periods, rates, spent, strict=True)
    ]


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name() -> str:
    """Return the processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine()


def _seconds(case: _Case, periods: int) -> float:
    started = time.perf_counter()
    case.run(periods)
    return max(time.perf_counter() - started, 1e-9)


def _periods(case: _Case) -> int:
    """Return how many control periods fill a time slice, from 1 to `PERIODS`; compiles the case."""
    case.run(1)
    # The shortest of three: a busy machine only ever makes it longer.
    single = min(_seconds(case, 1) for _ in range(3))
    return int(np.clip(round(SLICE / single), 1, PERIODS))


def _cases(plant: Plant, surrogate: Surrogate, batch: int, seed: int) -> list[_Case]:
    rng = np.random.default_rng(seed)
    low = np.array([a.low for a in plant.actions])
    high = np.array([a.high for a in plant.actions])
    # Close to trim: a tumbling machine gives the solver other work than control does.
    action = plant.trim + 0.05 * (high - low) * rng.standard_normal((batch, plant.nu))
    action = np.clip(action, low, high)
    disturbance = np.zeros((batch, plant.nw))
    start = _start(plant, batch)
    threads = f"{cores()} threads"
    device = jax.devices()[0]
    place = "CPU, XLA's threads" if device.platform == "cpu" else str(device.device_kind)
    known = [
        _Case("mujoco", "MuJoCo alone (mujoco.batch)", "float64", f"CPU, {threads}",
              _bare(plant, start, action)),
        _Case("true plant", "MuJoCo as physai steps it", "float64", f"CPU, {threads}",
              _true(plant, start, action, disturbance)),
    ]  # fmt: skip
    arrays = [jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), x)
              for x in (start, action, disturbance)]  # fmt: skip
    members = surrogate.members
    mean = f"surrogate, mean of {members} members"
    float_type = str(jax.tree.leaves(surrogate.parameters)[0].dtype)
    for name, title, step in (("surrogate", mean, _ensemble), ("member", "one member", _member)):
        run = _compiled(step, surrogate, *arrays)
        known.append(_Case(name, title, float_type, place, run))
    return known


def _start(plant: Plant, batch: int) -> State:
    """Return every simulation at the model's reference configuration, at rest, at trim."""
    model = plant.model
    qpos = model.key_qpos[0] if model.nkey else model.qpos0
    act = model.key_act[0] if model.nkey else np.zeros(model.na)
    one = State(qpos, np.zeros(model.nv), act, np.zeros(()), np.zeros(0), plant.nominal)
    return jax.tree.map(lambda x: np.broadcast_to(x, (batch, *np.shape(x))).astype(float), one)


def _bare(plant: Plant, start: State, action: np.ndarray) -> Callable[[int], None]:
    simulator = mujoco.batch.Batch(plant.model, len(action), 0)
    live = {name: simulator.bind(name) for name in ("qpos", "qvel", "ctrl", "time")}
    if plant.model.na:
        live["act"] = simulator.bind("act")
    ids = list(plant.action_ids)

    def run(periods: int) -> None:
        for name in live.keys() - {"ctrl"}:
            live[name][:] = getattr(start, name)
        with quiet_warnings():
            for _ in range(periods):
                live["ctrl"][:, ids] = action
                simulator.step(None, nstep=plant.substeps)

    return run


def _true(
    plant: Plant, start: State, action: np.ndarray, disturbance: np.ndarray
) -> Callable[[int], None]:
    simulator = TruePlant(plant, len(action))

    def run(periods: int) -> None:
        state = start
        for _ in range(periods):
            state = simulator.step(state, action, disturbance)

    return run


def _ensemble(surrogate: Surrogate, state: State, action: jax.Array, wind: jax.Array) -> State:
    return surrogate.step(state, action, wind)


def _member(surrogate: Surrogate, state: State, action: jax.Array, wind: jax.Array) -> State:
    first = jax.tree.map(lambda x: x[0], surrogate.parameters)
    return surrogate.step_member(first, state, action, wind)


def _compiled(
    step: Callable[..., State],
    surrogate: Surrogate,
    start: State,
    action: jax.Array,
    disturbance: jax.Array,
) -> Callable[[int], None]:
    # The number of periods is an argument, not a constant: one compilation serves every slice.
    @jax.jit
    def advance(surrogate: Surrogate, state: State, periods: jax.Array) -> State:
        return jax.lax.fori_loop(
            0, periods, lambda _, s: step(surrogate, s, action, disturbance), state
        )

    return lambda periods: jax.block_until_ready(advance(surrogate, start, jnp.int32(periods)))
