"""The bundle: everything that goes to the robot, in one folder that can be checked without Python.

policy.c policy.h    the policy for a microcontroller
policy.onnx          the policy for a runtime
policy.safetensors   the weights
contract.json        channels, units, ranges, rate, status bits
selftest.c           a program that checks policy.c on the machine where it will run
selftest.json        the same observations and answers for any other language
parity.json          C99 and ONNX against JAX
certificate.json     what was verified, if given
README.txt           how to build and call it
manifest.json        hashes of all of it
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from physai.control.policy import Policy, save_policy
from physai.errors import InputError
from physai.export.c99 import policy_header, policy_source
from physai.export.contract import (
    STATUS_BITS,
    Contract,
    check_bundle,
    check_contract,
    content_hash,
    contract_json,
    read_contract,
)
from physai.export.guard import guarded_action
from physai.export.onnx import policy_onnx
from physai.export.parity import SAMPLES, Parity, measure_parity, observation_samples
from physai.export.selftest import LIMIT, selftest_source
from physai.plant import Channel
from physai.provenance import Source, atomic_folder, write_json, write_manifest
from physai.task import ObservationChannel

__all__ = ["Contract", "Parity", "check_bundle", "read_contract", "write_bundle"]

SELFTEST_VECTORS = 64


def write_bundle(
    folder: Path,
    policy: Policy,
    observations: Sequence[ObservationChannel],
    actions: Sequence[Channel],
    rate_hz: float,
    safe_action: np.ndarray,
    inputs: Mapping[str, Source],
    certificate: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    observation_samples: np.ndarray | None = None,
    name: str = "policy",
) -> Parity:
    """Write a bundle, compile it and compare it with JAX; the folder appears whole or not at all.

    contract.json has the layout of `physai.export.contract.contract_json`; selftest.json has
    `content`, `tolerance` (part of an action's range), `observations` `[64, no]`, `actions` `[64,
    nu]` and `status` `[64]`; parity.json has the fields of `Parity`.

    Args:
        folder: of the bundle; an older one is replaced.
        policy: what to export.
        observations: channels of the policy's input, in order.
        actions: channels of its output, in order, with the policy's own ranges.
        rate_hz: calls a second.
        safe_action: `[nu]`, returned when an observation is not finite, e.g. the plant's trim.
        inputs: what the bundle was made from, for the manifest: {"policy": folder, "plant": plant}.
        certificate: file, or folder with certificate.json, to be shipped along.
        settings: for the manifest.
        seed: of the observations that are compared.
        observation_samples: `[n, no]`, observations of real flights to be compared as well.
        name: of the controller.

    Returns:
        The measured parity.

    Raises:
        InputError: channels that do not fit the policy, a missing compiler or extra, code that
            differs from JAX.
    """
    contract = Contract(
        name, float(rate_hz), tuple(observations), tuple(actions), np.asarray(safe_action, float)
    )
    check_contract(contract, policy)
    samples = _samples(contract, policy, seed, observation_samples)
    with atomic_folder(Path(folder)) as temporary:
        _write_code(temporary, policy, contract, samples)
        save_policy(temporary / "policy.safetensors", policy)
        write_json(temporary / "contract.json", contract_json(contract, policy))
        (temporary / "README.txt").write_text(_readme(policy, contract), encoding="utf-8")
        if certificate is not None:
            shutil.copyfile(_certificate(Path(certificate)), temporary / "certificate.json")
            inputs = {"certificate": certificate, **inputs}
        parity = measure_parity(temporary, policy, contract, samples, seed)
        write_json(temporary / "parity.json", asdict(parity))
        write_manifest(temporary, "bundle", inputs, dict(settings or {}), seed)
    return parity


def _samples(contract: Contract, policy: Policy, seed: int, given: np.ndarray | None) -> np.ndarray:
    drawn = observation_samples(contract, policy, SAMPLES, seed)
    if given is None:
        return drawn
    given = np.asarray(given, dtype=np.float32)
    if given.ndim != 2 or given.shape[1] != policy.no or not np.isfinite(given).all():
        raise InputError(
            f"observation_samples: expected finite numbers of shape [n, {policy.no}], "
            f"got shape {list(given.shape)}"
        )
    return np.concatenate([given, drawn])


def _write_code(folder: Path, policy: Policy, contract: Contract, samples: np.ndarray) -> None:
    # Evenly over the samples, which takes some of every kind that was drawn.
    chosen = np.linspace(0, len(samples) - 1, SELFTEST_VECTORS).astype(int)
    observation = samples[chosen]
    action, status = guarded_action(policy, contract, observation)
    (folder / "policy.h").write_text(policy_header(policy, contract), encoding="utf-8")
    (folder / "policy.c").write_text(policy_source(policy, contract), encoding="utf-8")
    (folder / "selftest.c").write_text(
        selftest_source(policy, contract, observation, action, status), encoding="utf-8"
    )
    (folder / "policy.onnx").write_bytes(policy_onnx(policy, contract))
    write_json(
        folder / "selftest.json",
        {
            "content": content_hash(contract, policy),
            "tolerance": LIMIT,
            "observations": observation,
            "actions": action,
            "status": status,
        },
    )


def _certificate(path: Path) -> Path:
    file = path / "certificate.json" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{file}: expected a certificate, found none; run verify first")
    return file


def _readme(policy: Policy, contract: Contract) -> str:
    bits = "\n".join(f"           {bit}: {meaning}" for bit, meaning in STATUS_BITS.items())
    return f"""\
{contract.name}: a controller as C99 (policy.c, policy.h) and ONNX (policy.onnx).
{content_hash(contract, policy)}

1. Check:  in a copy of this folder, on the machine where it will run; returns 0 if all is well:
           cc -std=c99 -O3 selftest.c policy.c -o selftest && ./selftest --time
2. Build:  add policy.c to your sources, with -std=c99 -O3. It needs no library and no heap.
3. Call:   status = physai_policy_step(observation, action);
           {contract.rate_hz:g} times a second, from one thread.
           {policy.no} observations in, {policy.nu} actions out.
           Order, units and ranges are in policy.h and contract.json. Do not normalise
           observations and do not scale actions: both are done inside.
4. Status: 0 if all is well, else the sum of
{bits}
"""
