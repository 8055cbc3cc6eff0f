"""The contract of an exported policy: what goes in, what comes out, how often, what status means.

Most of what goes wrong between a trained policy and a robot is here: the order of the channels, the
units, whether the normaliser and the action scale are already applied, the rate, what happens on a
NaN. So it is a record of its own, written as contract.json, as the comments and index enums of
policy.h and as the metadata of policy.onnx.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from physai.control.policy import Policy, check_policy, load_policy, policy_tensors
from physai.errors import InputError
from physai.plant import Channel
from physai.provenance import read_json, read_manifest, sha256_file
from physai.task import ObservationChannel

VERSION = 1
"""Version of the interface: function signature, status bits, layout of contract.json."""
OK = 0
NOT_FINITE = 1
OUT_OF_RANGE = 2
STATUS_BITS = {
    NOT_FINITE: "an observation is NaN or infinite: the safe action was returned",
    OUT_OF_RANGE: "an observation is out of range by more than noise: computed all the same",
}


@dataclass(frozen=True, eq=False)
class Contract:
    """What the caller of an exported policy has to know.

    Attributes:
        name: of the controller, e.g. the plant's name.
        rate_hz: calls a second at which the policy was trained and verified.
        observations: input channels, in order; a value outside [low, high] by more than six
            standard deviations of the sensor's noise sets the status bit OUT_OF_RANGE. An infinite
            bound is no bound.
        actions: output channels, in order; the output is in their units and never outside [low,
            high].
        safe_action: `[nu]`, returned when an observation is not finite.
    """

    name: str
    rate_hz: float
    observations: tuple[ObservationChannel, ...]
    actions: tuple[Channel, ...]
    safe_action: np.ndarray

    @property
    def observation_low(self) -> np.ndarray:
        """Values below this set OUT_OF_RANGE `[no]`, float32: low, less a margin for noise."""
        return np.array([c.low - _margin(c) for c in self.observations], dtype=np.float32)

    @property
    def observation_high(self) -> np.ndarray:
        """Values above this set OUT_OF_RANGE `[no]`, float32: high, plus a margin for noise."""
        return np.array([c.high + _margin(c) for c in self.observations], dtype=np.float32)


def check_contract(contract: Contract, policy: Policy) -> None:
    """Raise InputError unless the contract describes the policy."""
    check_policy(policy, "policy")
    for role, channels, size in (
        ("observation", contract.observations, policy.no),
        ("action", contract.actions, policy.nu),
    ):
        if len(channels) != size:
            raise InputError(
                f"contract: expected {size} {role} channels as in the policy, got {len(channels)}"
            )
        names = [c.name for c in channels]
        if len(set(names)) != len(names):
            raise InputError(f"contract: expected different names of the {role} channels: {names}")
        for channel in channels:
            if not channel.low < channel.high:
                raise InputError(
                    f"contract: {role} {channel.name}: expected low < high, "
                    f"got {channel.low:g} and {channel.high:g}"
                )
    if not (math.isfinite(contract.rate_hz) and contract.rate_hz > 0.0):
        raise InputError(f"contract: expected a positive rate in Hz, got {contract.rate_hz}")
    safe = np.asarray(contract.safe_action)
    if safe.shape != (policy.nu,):
        raise InputError(
            f"contract: safe action: expected shape [{policy.nu}], got {list(safe.shape)}"
        )
    for i, channel in enumerate(contract.actions):
        if not channel.low <= safe[i] <= channel.high:
            raise InputError(
                f"contract: safe action of {channel.name}: expected {channel.low:g} to "
                f"{channel.high:g} {channel.unit}, got {safe[i]}"
            )
        ends = float(policy.action_low[i]), float(policy.action_high[i])
        if not np.allclose(ends, (channel.low, channel.high), rtol=1e-6, atol=0.0):
            raise InputError(
                f"contract: action {channel.name}: expected the policy's range {ends[0]:g} to "
                f"{ends[1]:g}, got {channel.low:g} to {channel.high:g} {channel.unit}"
            )


def content_hash(contract: Contract, policy: Policy) -> str:
    """Return "sha256:..." of contract and tensors: the identity of an exported policy."""
    digest = hashlib.sha256(json.dumps(_interface(contract), sort_keys=True).encode())
    for name, tensor in sorted(policy_tensors(policy).items()):
        digest.update(f"{name} {tensor.shape}".encode())
        digest.update(tensor.astype("<f4").tobytes())
    return f"sha256:{digest.hexdigest()}"


def contract_json(contract: Contract, policy: Policy) -> dict[str, Any]:
    """Return the contents of contract.json.

    Keys: `version`, `name`, `rate_hz`, `observations` (index, name, unit, low, high, noise; null is
        no bound),
    `actions` (index, name, unit, low, high, safe), `normalisation`, `action_scaling`, `status_bits`
    and `content` (hash of all this and the weights, the string PHYSAI_POLICY_CONTENT of policy.h).
    """
    return {**_interface(contract), "content": content_hash(contract, policy)}


def read_contract(path: Path) -> Contract:
    """Read contract.json.

    Raises:
        InputError: not a contract, or one of another version.
    """
    data = read_json(path)
    try:
        if data["version"] != VERSION:
            raise InputError(f"{path}: expected contract version {VERSION}, got {data['version']}")
        return Contract(
            name=data["name"],
            rate_hz=data["rate_hz"],
            observations=tuple(
                ObservationChannel(
                    c["name"], c["unit"], _bound(c["low"], -1), _bound(c["high"], 1), c["noise"]
                )
                for c in data["observations"]
            ),
            actions=tuple(
                Channel(c["name"], c["unit"], c["low"], c["high"]) for c in data["actions"]
            ),
            safe_action=np.array([c["safe"] for c in data["actions"]]),
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: expected a contract, {error!r} is missing or wrong") from error


def check_bundle(folder: Path) -> Contract:
    """Check every file of a bundle against its manifest, and the contract against the weights.

    Files that the manifest does not name, e.g. a compiled self-test, are ignored.

    Raises:
        InputError: naming the file that is missing or altered.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest.get("kind") != "bundle":
        raise InputError(
            f"{folder}: expected the manifest of a bundle, got {manifest.get('kind')!r}"
        )
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: missing from the bundle; export it again")
        got = sha256_file(path)
        if got != expected:
            raise InputError(
                f"{path}: expected sha256 {expected[:12]}..., got {got[:12]}...: "
                "the file was altered after the export; export it again"
            )
    contract = read_contract(folder / "contract.json")
    policy = load_policy(folder / "policy.safetensors")
    check_contract(contract, policy)
    expected = read_json(folder / "contract.json")["content"]
    if content_hash(contract, policy) != expected:
        raise InputError(
            f"{folder / 'contract.json'}: its content hash is not that of the contract and "
            "policy.safetensors; export it again"
        )
    return contract


def _interface(contract: Contract) -> dict[str, Any]:
    return {
        "version": VERSION,
        "name": contract.name,
        "rate_hz": float(contract.rate_hz),
        "observations": [
            {
                "index": i,
                "name": c.name,
                "unit": c.unit,
                "low": _number(c.low),
                "high": _number(c.high),
                "noise": float(c.noise),
            }
            for i, c in enumerate(contract.observations)
        ],
        "actions": [
            {
                "index": i,
                "name": c.name,
                "unit": c.unit,
                "low": float(c.low),
                "high": float(c.high),
                "safe": float(contract.safe_action[i]),
            }
            for i, c in enumerate(contract.actions)
        ],
        "normalisation": "included",
        "action_scaling": "included, output in physical units",
        "status_bits": {str(bit): meaning for bit, meaning in STATUS_BITS.items()},
    }


def _margin(channel: ObservationChannel) -> float:
    # A direction cosine of 1 reads 1.003 every few samples: without a margin the bit would mean
    # noise. The millionth of the range is float32 rounding where the contract states no noise.
    span = channel.high - channel.low
    return 6.0 * channel.noise + (1e-6 * span if math.isfinite(span) else 0.0)


def _number(bound: float) -> float | None:
    return float(bound) if math.isfinite(bound) else None


def _bound(number: float | None, sign: int) -> float:
    return sign * math.inf if number is None else number
