"""The exported C, compiled with the system's compiler and called from Python.

So that the C itself flies the verification scenarios in the loop, as a `BatchController` among
others, and is compared with JAX number by number. The loop over a batch is compiled with it; it is
no part of the bundle.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from physai.control.controller import BatchController
from physai.errors import InputError
from physai.export.contract import check_bundle

FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O3")
_COMPILERS = ("gcc", "cc", "clang")
_TIMEOUT = 600.0  # s
_LOOP = """\
#include "policy.h"

void physai_policy_batch(int n, const float *observation, float *action, int *status);

void physai_policy_batch(int n, const float *observation, float *action, int *status)
{
    int i;
    for (i = 0; i < n; i++) {
        status[i] = physai_policy_step(observation, action);
        observation += PHYSAI_POLICY_OBSERVATIONS;
        action += PHYSAI_POLICY_ACTIONS;
    }
}
"""


@dataclass(frozen=True)
class CompiledPolicy:
    """policy.c in this process.

    Attributes:
        library: the loaded shared library.
        no: number of observation channels.
        nu: number of action channels.
    """

    library: ctypes.PyDLL
    no: int
    nu: int

    def __call__(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Call the C once a row.

        Args:
            observation: `[n, no]`, rounded to float32.

        Returns:
            Actions `[n, nu]` float32 and status bits `[n]` int32.

        Raises:
            InputError: wrong shape.
        """
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which the guard is for
            observation = np.ascontiguousarray(observation, dtype=np.float32)
        if observation.ndim != 2 or observation.shape[1] != self.no:
            raise InputError(
                f"observation: expected shape [n, {self.no}], got {list(observation.shape)}"
            )
        action = np.empty((len(observation), self.nu), dtype=np.float32)
        status = np.empty(len(observation), dtype=np.intc)
        self.library.physai_policy_batch(
            len(observation), observation.ctypes, action.ctypes, status.ctypes
        )
        return action, status


def compile_policy(folder: Path, no: int, nu: int, flags: Sequence[str] = FLAGS) -> CompiledPolicy:
    """Compile policy.c of a folder into a shared library and load it.

    Args:
        folder: with policy.c and policy.h; nothing is written there.
        no: number of observation channels.
        nu: number of action channels.
        flags: of the compiler.

    Raises:
        InputError: no compiler, or it refuses the code.
    """
    with tempfile.TemporaryDirectory() as temporary:
        loop, library = Path(temporary, "loop.c"), Path(temporary, "policy.so")
        loop.write_text(_LOOP)
        home = Path(folder).resolve()
        sources = [str(home / "policy.c"), str(loop), f"-I{home}"]
        run_compiler([*flags, "-shared", "-fPIC", *sources, "-o", str(library)])
        # Once loaded it stays in memory without its file. PyDLL keeps the interpreter's lock during
        # a call, so two threads cannot meet in the static buffers.
        loaded = ctypes.PyDLL(str(library))
    loaded.physai_policy_batch.restype = None
    loaded.physai_policy_batch.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 3]
    return CompiledPolicy(loaded, no, nu)


def compiled_controller(bundle_folder: Path) -> BatchController:
    """Return the compiled C of a bundle as a controller for the true simulator.

    Its cstate is the status `[n]` of the last step.

    Raises:
        InputError: a damaged bundle, no compiler; in `step`, an observation of the wrong shape.
    """
    contract = check_bundle(bundle_folder)
    policy = compile_policy(bundle_folder, len(contract.observations), len(contract.actions))

    def init(n: int) -> np.ndarray:
        return np.zeros(n, dtype=np.intc)

    def step(cstate: np.ndarray, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        action, status = policy(observation)
        return status, action.astype(np.float64)

    return BatchController(init, step)


def compiler() -> str:
    """Return the path of the system's C compiler.

    Raises:
        InputError: there is none.
    """
    for name in _COMPILERS:
        path = shutil.which(name)
        if path is not None:
            return path
    raise InputError(
        f"expected a C compiler ({', '.join(_COMPILERS)}), found none; install gcc or clang"
    )


def compiler_version() -> str:
    """Return the first line of the compiler's own description."""
    return _run([compiler(), "--version"]).splitlines()[0]


def run_compiler(arguments: Sequence[str]) -> None:
    """Run the C compiler.

    Raises:
        InputError: no compiler, or it fails; with the first lines of what it says.
    """
    _run([compiler(), *arguments])


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{command[0]}: cannot be run: {error}") from error
    if done.returncode:
        said = "\n".join(done.stderr.splitlines()[:5])
        raise InputError(f"{Path(command[0]).name}: expected to compile, got:\n{said}")
    return done.stdout
