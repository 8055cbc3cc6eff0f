"""Does the exported code say what JAX says? Observations to ask, and a table of the differences."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from physai.control.policy import Policy
from physai.errors import InputError
from physai.export.compiled import FLAGS, compile_policy, compiler_version, run_compiler
from physai.export.contract import Contract
from physai.export.guard import guarded_action
from physai.export.onnx import onnx_action
from physai.export.selftest import LIMIT

SAMPLES = 10_000
TOLERANCE = 1e-5
"""What a network of usual weights stays within: difference from JAX as a part of the range."""


@dataclass(frozen=True)
class Parity:
    """Exported code against JAX over many observations.

    Attributes:
        samples: number of observations.
        c99_max_error: largest difference of an action, in the action's unit.
        onnx_max_error: the same of ONNX.
        c99_max_error_of_range: largest difference as a part of the action's range.
        onnx_max_error_of_range: the same of ONNX.
        tolerance: what the last two are expected to be at most.
        status_mismatches: observations to which C99 or ONNX gives another status.
        compiler: its own description, with the flags.
    """

    samples: int
    c99_max_error: float
    onnx_max_error: float
    c99_max_error_of_range: float
    onnx_max_error_of_range: float
    tolerance: float
    status_mismatches: int
    compiler: str

    @property
    def met(self) -> bool:
        """Whether C99 and ONNX stay within the tolerance and agree on every status."""
        largest = max(self.c99_max_error_of_range, self.onnx_max_error_of_range)
        return largest <= self.tolerance and self.status_mismatches == 0


def observation_samples(contract: Contract, policy: Policy, n: int, seed: int) -> np.ndarray:
    """Draw observations where exported code may differ `[n, no]` float32, all finite.

    A quarter each: uniform within the range; as the normaliser's mean and std have them; at the
    edges of the range, one float inside or outside of them, and at zero; and far outside, up to
    1e30.
    """
    rng = np.random.default_rng(seed)
    mean, std = np.asarray(policy.observation_mean), np.asarray(policy.observation_std)
    low = np.maximum(contract.observation_low, mean - 10.0 * std)
    high = np.minimum(contract.observation_high, mean + 10.0 * std)
    # A range that lies beyond ten standard deviations leaves nothing between the two.
    low, high = np.minimum(low, high), np.maximum(low, high)
    shape = (-(-n // 4), policy.no)
    inside = rng.uniform(low, high, shape)
    typical = mean + std * rng.standard_normal(shape)
    ends = [contract.observation_low, contract.observation_high]
    ends = [np.nan_to_num(end.astype(np.float32), posinf=1e30, neginf=-1e30) for end in ends]
    choices = [np.nextafter(end, np.float32(way)) for end in ends for way in (-np.inf, np.inf)]
    choices = np.stack([*ends, *choices, np.zeros_like(mean), mean])
    edges = choices[rng.integers(len(choices), size=shape), np.arange(policy.no)]
    far = rng.standard_normal(shape) * 10.0 ** rng.uniform(0, 30, shape)
    far = np.where(rng.random(shape) < 0.3, far, inside)
    samples = np.stack([inside, typical, edges, far], axis=1).reshape(-1, policy.no)
    return samples[:n].astype(np.float32)


def with_undefined(observation: np.ndarray, seed: int) -> np.ndarray:
    """Return a copy in which every row has a NaN or an infinity somewhere."""
    rng = np.random.default_rng(seed)
    observation = np.array(observation, dtype=np.float32)
    rows = np.arange(len(observation))
    kinds = np.array([np.nan, np.inf, -np.inf], dtype=np.float32)
    column = rng.integers(observation.shape[1], size=len(rows))
    observation[rows, column] = kinds[rng.integers(3, size=len(rows))]
    return observation


def measure_parity(
    folder: Path, policy: Policy, contract: Contract, observation: np.ndarray, seed: int
) -> Parity:
    """Compare policy.c, policy.onnx and JAX, and run the C's self-test.

    Args:
        folder: with policy.c, policy.h, selftest.c and policy.onnx.
        policy: the policy.
        contract: its contract.
        observation: `[n, no]`; a tenth of them is asked again with NaN and infinities.
        seed: of the places where those go.

    Raises:
        InputError: a difference beyond rounding, another status, or no compiler.
    """
    asked = np.concatenate(
        [observation, with_undefined(observation[: len(observation) // 10 + 1], seed)]
    )
    expected, expected_status = guarded_action(policy, contract, asked)
    c99, c99_status = compile_policy(folder, policy.no, policy.nu)(asked)
    onnx, onnx_status = onnx_action((folder / "policy.onnx").read_bytes(), asked)
    wrong = int(((c99_status != expected_status) | (onnx_status != expected_status)).sum())
    if wrong:
        raise InputError(f"expected JAX, C99 and ONNX to give the same status, {wrong} differ")
    span = np.asarray(policy.action_high - policy.action_low)
    error = {"C99": np.abs(c99 - expected), "ONNX": np.abs(onnx - expected)}
    of_range = {name: float((e / span).max()) for name, e in error.items()}
    for name, largest in of_range.items():
        if not largest <= LIMIT:
            raise InputError(
                f"{name}: expected actions within {LIMIT:g} of their range from JAX's, got "
                f"{largest:.3g}; weights so large lose float32's digits: train with weight decay"
            )
    call_nanoseconds(folder)
    return Parity(
        samples=len(observation),
        c99_max_error=float(error["C99"].max()),
        onnx_max_error=float(error["ONNX"].max()),
        c99_max_error_of_range=of_range["C99"],
        onnx_max_error_of_range=of_range["ONNX"],
        tolerance=TOLERANCE,
        status_mismatches=wrong,
        compiler=f"{compiler_version()}: {' '.join(FLAGS)}",
    )


def call_nanoseconds(folder: Path) -> float:
    """Run a bundle's self-test; return the processor time of one call of its C code here, in ns.

    Raises:
        InputError: the self-test fails, or there is no compiler.
    """
    with tempfile.TemporaryDirectory() as temporary:
        program = str(Path(temporary, "selftest"))
        sources = [str(folder / "selftest.c"), str(folder / "policy.c")]
        run_compiler([*FLAGS, *sources, "-o", program])
        done = subprocess.run(
            [program, "--time"], capture_output=True, text=True, timeout=600, check=False
        )
    found = re.search(r"nanoseconds per call: ([0-9.]+)", done.stdout)
    if done.returncode or found is None:
        raise InputError(f"the self-test of the generated C fails:\n{done.stdout[:500]}")
    return float(found[1])
