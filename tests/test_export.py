"""Exported code against JAX and against float64, and its guard against what sensors can send."""

import importlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from physai.control import Policy, policy_action
from physai.errors import InputError
from physai.export.bundle import check_bundle, read_contract, write_bundle
from physai.export.c99 import policy_header, policy_source
from physai.export.compiled import FLAGS, compile_policy, compiled_controller
from physai.export.contract import NOT_FINITE, OK, OUT_OF_RANGE, Contract, content_hash
from physai.export.guard import guarded_action
from physai.export.onnx import onnx_action, policy_onnx
from physai.export.parity import Parity, call_nanoseconds, observation_samples
from physai.plant import Channel
from physai.task import ObservationChannel

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnx.reference")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("gcc", "cc", "clang"))), reason="needs a C compiler"
)

NO, NU = 19, 4
SAFE = np.array([3.25, 3.25, 3.25, 3.25])
Answer = tuple[np.ndarray, np.ndarray]


def make_policy(hidden: tuple[int, ...] = (64, 64), seed: int = 0) -> Policy:
    """A policy of a quadrotor's size whose actions span 0 to 13 N."""
    rng = np.random.default_rng(seed)
    pairs = list(pairwise((NO, *hidden, NU)))
    return Policy(
        weights=tuple(jnp.asarray(rng.normal(size=s) / s[0] ** 0.5, jnp.float32) for s in pairs),
        biases=tuple(jnp.asarray(0.1 * rng.normal(size=s[1]), jnp.float32) for s in pairs),
        observation_mean=jnp.asarray(rng.normal(size=NO), jnp.float32),
        observation_std=jnp.asarray(rng.uniform(0.5, 2.0, NO), jnp.float32),
        action_low=jnp.zeros(NU),
        action_high=jnp.full(NU, 13.0),
    )


def make_contract(name: str = "quadrotor") -> Contract:
    inf = float("inf")
    return Contract(
        name=name,
        rate_hz=50.0,
        observations=(
            ObservationChannel("unbounded", "rad", -inf, inf, 0.01),
            *(ObservationChannel(f"position.{i}", "m", -5.0, 5.0, 0.01) for i in range(NO - 1)),
        ),
        actions=tuple(Channel(f"rotor {i}", "N", 0.0, 13.0) for i in range(NU)),
        safe_action=SAFE,
    )


def export(folder: Path, policy: Policy, contract: Contract, seed: int = 0) -> Parity:
    return write_bundle(
        folder,
        policy,
        contract.observations,
        contract.actions,
        contract.rate_hz,
        contract.safe_action,
        inputs={},
        name=contract.name,
        seed=seed,
    )


@pytest.fixture(scope="module")
def policy() -> Policy:
    return make_policy()


@pytest.fixture(scope="module")
def contract() -> Contract:
    return make_contract()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, policy: Policy, contract: Contract) -> Path:
    folder = tmp_path_factory.mktemp("export") / "bundle"
    export(folder, policy, contract)
    return folder


@pytest.fixture(scope="module", params=["numpy", "C99", "C99 -ffast-math", "ONNX"])
def answer(
    request: pytest.FixtureRequest, bundle: Path, policy: Policy, contract: Contract
) -> Callable[[np.ndarray], Answer]:
    """Every implementation of the policy with its guard, as one function."""
    if request.param == "numpy":
        return lambda observation: guarded_action(policy, contract, observation)
    if request.param == "ONNX":
        model = (bundle / "policy.onnx").read_bytes()
        return lambda observation: onnx_action(model, observation)
    flags = (*FLAGS, "-ffast-math") if "fast" in request.param else FLAGS
    return compile_policy(bundle, NO, NU, flags)


def float64_action(policy: Policy, observation: np.ndarray) -> np.ndarray:
    mean, std = np.float64(policy.observation_mean), np.float64(policy.observation_std)
    x = np.clip((observation - mean) / std, -10.0, 10.0)
    for weight, bias in zip(policy.weights, policy.biases, strict=True):
        x = np.tanh(x @ np.float64(weight) + np.float64(bias))
    return 13.0 * 0.5 * (1.0 + x)


def inside(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-5.0, 5.0, (n, NO)).astype(np.float32)


def test_ten_thousand_observations_within_1e_5_of_jax(
    answer: Callable[[np.ndarray], Answer], policy: Policy, contract: Contract
) -> None:
    observation = observation_samples(contract, policy, 10_000, seed=5)
    action, status = answer(observation)
    assert (
        np.abs(action - np.asarray(policy_action(policy, jnp.asarray(observation)))).max() <= 1e-5
    )
    # Against numpy's tanh in float64: 1.2e-6 of the tanh, through three layers, times 6.5 N.
    assert np.abs(action - float64_action(policy, observation)).max() <= 1e-4
    assert set(np.unique(status)) == {OK, OUT_OF_RANGE}


@pytest.mark.parametrize("hidden", [(), (5,), (3, 1, 7), (64, 64, 64)])
def test_other_shapes_of_network(tmp_path: Path, hidden: tuple[int, ...]) -> None:
    policy, contract = make_policy(hidden), make_contract()
    (tmp_path / "policy.h").write_text(policy_header(policy, contract))
    (tmp_path / "policy.c").write_text(policy_source(policy, contract))
    observation = inside(500)
    expected, _ = guarded_action(policy, contract, observation)
    for action, _ in (
        compile_policy(tmp_path, NO, NU)(observation),
        onnx_action(policy_onnx(policy, contract), observation),
    ):
        np.testing.assert_allclose(action, expected, atol=1e-5)


def test_not_finite_gives_the_safe_action(answer: Callable[[np.ndarray], Answer]) -> None:
    signalling = np.array([0x7F800001], dtype=np.uint32).view(np.float32)[0]
    for value in (np.nan, -np.nan, signalling, np.inf, -np.inf):
        observation = inside(NO)
        observation[np.arange(NO), np.arange(NO)] = value
        action, status = answer(observation)
        np.testing.assert_array_equal(status, NOT_FINITE)
        np.testing.assert_array_equal(action, np.tile(np.float32(SAFE), (NO, 1)))


def test_bad_observation_leaves_no_trace_in_the_next(
    answer: Callable[[np.ndarray], Answer],
) -> None:
    observation = inside(3)
    clean, _ = answer(observation)
    observation[1] = np.nan
    action, status = answer(observation)
    np.testing.assert_array_equal(action[[0, 2]], clean[[0, 2]])
    assert status.tolist() == [OK, NOT_FINITE, OK]


def test_out_of_range_is_reported_and_computed_as_in_training(
    answer: Callable[[np.ndarray], Answer], policy: Policy
) -> None:
    observation = np.zeros((6, NO), dtype=np.float32)
    # Range 5, noise 0.01: six deviations beyond the range and a millionth of it are still noise.
    observation[:, 3] = [5.0, 5.05, -5.05, 5.07, -5.07, 1e30]
    action, status = answer(observation)
    assert status.tolist() == [OK, OK, OK, OUT_OF_RANGE, OUT_OF_RANGE, OUT_OF_RANGE]
    assert np.abs(action - float64_action(policy, observation)).max() <= 1e-4
    observation[:, 3], observation[:, 0] = 0.0, 3e38  # no range is stated for this channel
    assert answer(observation)[1].tolist() == [OK] * 6


def test_action_never_leaves_its_range(tmp_path: Path) -> None:
    policy, contract = make_policy(), make_contract()
    policy = replace(policy, weights=tuple(1000.0 * w for w in policy.weights))
    (tmp_path / "policy.h").write_text(policy_header(policy, contract))
    (tmp_path / "policy.c").write_text(policy_source(policy, contract))
    observation = np.concatenate([inside(500), 6e37 * inside(500, seed=1)])
    for action, _ in (
        compile_policy(tmp_path, NO, NU)(observation),
        onnx_action(policy_onnx(policy, contract), observation),
        guarded_action(policy, contract, observation),
    ):
        assert 0.0 <= action.min() < 1e-4
        assert 13.0 - 1e-4 < action.max() <= 13.0


@pytest.mark.parametrize("shape", [(NO,), (5, NO - 1), (5, NO + 1), (2, 5, NO), (0,)])
def test_wrong_shape_is_refused(
    bundle: Path, policy: Policy, contract: Contract, shape: tuple[int, ...]
) -> None:
    controller = compiled_controller(bundle)
    for call in (
        lambda o: guarded_action(policy, contract, o),
        lambda o: controller.step(controller.init(5), o),
    ):
        with pytest.raises(InputError, match=r"observation: expected shape \[n, 19\], got"):
            call(np.zeros(shape))


def test_compiled_controller_flies_what_jax_flies(bundle: Path, policy: Policy) -> None:
    controller = compiled_controller(bundle)
    observation = inside(40).astype(np.float64)
    cstate, action = controller.step(controller.init(40), observation)
    assert action.dtype == np.float64
    assert cstate.tolist() == [OK] * 40
    np.testing.assert_allclose(action, policy_action(policy, jnp.asarray(observation)), atol=1e-5)
    cstate, action = controller.step(cstate, np.full((2, NO), 1e300))  # infinite in float32
    assert cstate.tolist() == [NOT_FINITE] * 2
    np.testing.assert_array_equal(action, np.tile(SAFE, (2, 1)))


@pytest.mark.parametrize(
    "extra", [(), ("-O0",), ("-Os",), ("-Wconversion", "-Wshadow", "-Wdouble-promotion", "-Wundef")]
)
def test_code_compiles_without_a_warning(bundle: Path, tmp_path: Path, extra: tuple) -> None:
    names = ("policy.c", "selftest.c")
    command = ["cc", *FLAGS, *extra, *(str(bundle / n) for n in names), "-o", str(tmp_path / "t")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert subprocess.run([tmp_path / "t"], check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3"])
def test_object_file_needs_no_library_and_exports_one_function(
    bundle: Path, tmp_path: Path, level: str
) -> None:
    target = str(tmp_path / "policy.o")
    command = ["cc", "-std=c99", level, "-c", str(bundle / "policy.c"), "-o", target]
    subprocess.run(command, check=True)
    lines = subprocess.run(["nm", target], capture_output=True, text=True, check=True).stdout
    kinds = [line.split()[-2:] for line in lines.splitlines()]
    undefined = {name for kind, name in kinds if kind == "U"}
    # A compiler may turn a loop that copies or clears into these two, which it brings itself.
    assert undefined <= {"memcpy", "memset"}
    assert [name for kind, name in kinds if kind.isupper() and kind != "U"] == [
        "physai_policy_step"
    ]


def test_source_has_no_heap_and_only_header_files_of_the_compiler(bundle: Path) -> None:
    text = (bundle / "policy.c").read_text() + (bundle / "policy.h").read_text()
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    assert not re.search(r"\b(malloc|calloc|realloc|free|alloca)\b", code)
    assert set(re.findall(r"#include (\S+)", code)) == {'"policy.h"', "<float.h>", "<stdint.h>"}


def test_header_names_every_channel_with_unit_and_range(bundle: Path) -> None:
    header = (bundle / "policy.h").read_text()
    assert "PHYSAI_OBSERVATION_UNBOUNDED = 0, /* unbounded [rad], unbounded to unbounded" in header
    assert (
        "PHYSAI_OBSERVATION_POSITION_17 = 18 /* position.17 [m], -5 to 5, noise 0.01 */" in header
    )
    assert "PHYSAI_ACTION_ROTOR_3 = 3 /* rotor 3 [N], 0 to 13, safe 3.25 */" in header


def test_names_cannot_break_out_of_comments_and_strings(tmp_path: Path) -> None:
    policy, contract = make_policy((8,)), make_contract(name='a */ "b" \\ ??/ /* µ\n#error')
    names = ["*/ int x;", "??/", "/* open", 'q"', "a\nb", "x.y", "x/y", "x-y", "", "µ", "1", "_"]
    names += [f"{i}" for i in range(100, 100 + NO - len(names))]
    contract = replace(
        contract,
        observations=tuple(ObservationChannel(n, "*/°\\", -1.0, 1.0, 0.0) for n in names),
    )
    parity = export(tmp_path / "bundle", policy, contract)
    assert parity.status_mismatches == 0
    assert [c.name for c in check_bundle(tmp_path / "bundle").observations] == names


def test_parity_table(bundle: Path) -> None:
    table = json.loads((bundle / "parity.json").read_text())
    assert table["samples"] == 10_000
    assert 0.0 < table["c99_max_error"] <= 1e-5
    assert 0.0 < table["onnx_max_error"] <= 1e-5
    assert table["status_mismatches"] == 0
    assert call_nanoseconds(bundle) > 0.0
    assert "-std=c99" in table["compiler"]


def test_contract_says_what_an_integrator_asks(
    bundle: Path, policy: Policy, contract: Contract
) -> None:
    data = json.loads((bundle / "contract.json").read_text())
    assert data["rate_hz"] == 50.0
    assert data["normalisation"] == "included"
    assert data["action_scaling"] == "included, output in physical units"
    assert data["observations"][0]["low"] is None
    assert data["observations"][2] == {
        "index": 2,
        "name": "position.1",
        "unit": "m",
        "low": -5.0,
        "high": 5.0,
        "noise": 0.01,
    }
    assert data["actions"][1]["safe"] == 3.25
    assert data["content"] == content_hash(contract, policy)
    for name in ("policy.h", "selftest.c", "README.txt", "selftest.json", "policy.onnx"):
        assert data["content"].encode() in (bundle / name).read_bytes(), name
    read = read_contract(bundle / "contract.json")
    assert (read.observations, read.actions) == (contract.observations, contract.actions)


def test_content_hash_knows_weights_and_contract(policy: Policy, contract: Contract) -> None:
    other = replace(policy, biases=(policy.biases[0] + 1e-7, *policy.biases[1:]))
    hashes = {
        content_hash(contract, policy),
        content_hash(contract, other),
        content_hash(replace(contract, rate_hz=51.0), policy),
        content_hash(replace(contract, safe_action=SAFE + 0.25), policy),
    }
    assert len(hashes) == 4


def test_selftest_vectors_are_what_jax_answers(bundle: Path, policy: Policy) -> None:
    data = json.loads((bundle / "selftest.json").read_text())
    observation = np.array(data["observations"], dtype=np.float32)
    expected = np.asarray(policy_action(policy, jnp.asarray(observation)))
    np.testing.assert_allclose(data["actions"], expected, atol=1e-5)
    assert {OK, OUT_OF_RANGE} == set(data["status"])


def build_selftest(folder: Path, edit: Callable[[dict[str, str]], None]) -> int:
    names = ("policy.h", "policy.c", "selftest.c")
    texts = {name: (folder / name).read_text() for name in names}
    edit(texts)
    for name, text in texts.items():
        (folder / name).write_text(text)
    sources = [str(folder / "selftest.c"), str(folder / "policy.c")]
    subprocess.run(["cc", *FLAGS, *sources, "-o", str(folder / "selftest")], check=True)
    return subprocess.run([folder / "selftest"], check=False, capture_output=True).returncode


def replaced(name: str, pattern: str, by: str) -> Callable[[dict[str, str]], None]:
    def edit(texts: dict[str, str]) -> None:
        texts[name], count = re.subn(pattern, by, texts[name], count=1)
        assert count == 1, pattern

    return edit


@pytest.mark.parametrize(
    ("edit", "returned"),
    [
        (lambda texts: None, 0),
        # The last vector's first action, off by 2e-3 N at the least.
        (
            replaced(
                "selftest.c",
                r"(     \{[0-9]+\.[0-9]{2})[0-9]+(?=[^\n]*\},\n     [02]\}\n\};)",
                r"\g<1>999",
            ),
            1,
        ),
        (replaced("selftest.c", r"\b0\}\n?,", "2},"), 1),
        (replaced("policy.h", "sha256:[0-9a-f]{4}", "sha256:0000"), 1),
        (replaced("policy.c", r"bits & UINT32_C\(0x7f800000\)", "bits & UINT32_C(0x7fc00000)"), 1),
        (replaced("policy.c", r"(BIAS_1\[64\] = \{\n +)-?[0-9]", r"\g<1>9"), 1),
        (replaced("policy.c", r"(ACTION_SAFE\[ACTIONS\] = \{\n +)3", r"\g<1>4"), 1),
    ],
    ids=["as exported", "vector", "status", "other header", "guard", "weight", "safe action"],
)
def test_selftest_tells_the_right_code_from_an_altered_one(
    bundle: Path, tmp_path: Path, edit: Callable[[dict[str, str]], None], returned: int
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(bundle, folder)
    assert build_selftest(folder, edit) == returned


@pytest.mark.parametrize(
    "name", ["policy.c", "policy.h", "policy.onnx", "policy.safetensors", "contract.json"]
)
def test_tampered_bundle_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(bundle, folder)
    check_bundle(folder)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(InputError, match=f"{re.escape(name)}: expected sha256 .* altered"):
        check_bundle(folder)
    with pytest.raises(InputError, match=re.escape(name)):
        compiled_controller(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{re.escape(name)}: missing from the bundle"):
        check_bundle(folder)


def test_bundle_of_swapped_weights_is_refused_even_with_a_new_manifest(
    bundle: Path, tmp_path: Path, contract: Contract
) -> None:
    export(tmp_path / "other", make_policy(seed=9), contract)
    folder = tmp_path / "copy"
    shutil.copytree(bundle, folder)
    shutil.copy(tmp_path / "other" / "policy.safetensors", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    other = json.loads((tmp_path / "other" / "manifest.json").read_text())
    manifest["files"]["policy.safetensors"] = other["files"]["policy.safetensors"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"contract\.json: its content hash is not that of"):
        check_bundle(folder)


def test_same_export_gives_the_same_files(
    bundle: Path, tmp_path: Path, policy: Policy, contract: Contract
) -> None:
    export(tmp_path / "again", policy, contract)
    first, second = (
        json.loads((folder / "manifest.json").read_text())["files"]
        for folder in (bundle, tmp_path / "again")
    )
    # parity.json holds the time of a call, which differs.
    assert {n: h for n, h in first.items() if n != "parity.json"} == {
        n: h for n, h in second.items() if n != "parity.json"
    }


def test_certificate_travels_along(tmp_path: Path) -> None:
    policy, contract = make_policy((8,)), make_contract()
    certificate = tmp_path / "certificate"
    certificate.mkdir()
    arguments = (policy, contract.observations, contract.actions, 50.0, SAFE, {}, certificate)
    with pytest.raises(InputError, match="expected a certificate, found none"):
        write_bundle(tmp_path / "bundle", *arguments)
    assert not (tmp_path / "bundle").exists()
    (certificate / "certificate.json").write_text('{"passed": true}\n')
    write_bundle(tmp_path / "bundle", *arguments)
    assert json.loads((tmp_path / "bundle" / "certificate.json").read_text()) == {"passed": True}
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["inputs"]["certificate"]["path"] == "../certificate"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {"observations": c.observations[1:]}, "expected 19 observation channels"),
        (
            lambda c: {"actions": c.actions[:2]},
            "expected 4 action channels as in the policy, got 2",
        ),
        (lambda c: {"rate_hz": 0.0}, "expected a positive rate in Hz, got 0"),
        (lambda c: {"safe_action": SAFE[:3]}, r"safe action: expected shape \[4\], got \[3\]"),
        (lambda c: {"safe_action": SAFE + 10}, "safe action of rotor 0: expected 0 to 13 N"),
        (lambda c: {"safe_action": SAFE * np.nan}, "safe action of rotor 0"),
        (
            lambda c: {"actions": (Channel("rotor 0", "N", 0.0, 12.0), *c.actions[1:])},
            "action rotor 0: expected the policy's range 0 to 13, got 0 to 12 N",
        ),
        (lambda c: {"actions": (c.actions[0],) * NU}, "different names of the action channels"),
    ],
)
def test_contract_that_does_not_fit_is_refused(
    tmp_path: Path,
    policy: Policy,
    contract: Contract,
    change: Callable[[Contract], dict],
    message: str,
) -> None:
    with pytest.raises(InputError, match=message):
        export(tmp_path / "bundle", policy, replace(contract, **change(contract)))
    assert list(tmp_path.iterdir()) == []


def test_code_that_differs_from_jax_is_not_released(
    tmp_path: Path, policy: Policy, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(policy, weights=(policy.weights[0][::-1], *policy.weights[1:]))
    bundle_module = importlib.import_module("physai.export.bundle")
    monkeypatch.setattr(bundle_module, "policy_source", lambda _, c: policy_source(wrong, c))
    with pytest.raises(InputError, match=r"C99: expected actions within 0\.0001"):
        export(tmp_path / "bundle", policy, contract)
    assert list(tmp_path.iterdir()) == []


def test_missing_compiler_or_extra_is_named(
    bundle: Path,
    policy: Policy,
    contract: Contract,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="expected a C compiler"):
        compiled_controller(bundle)

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(InputError, match=r"pip install 'physai\[export\]'"):
        policy_onnx(policy, contract)


def test_onnx_uses_basic_operators_and_carries_the_contract(bundle: Path) -> None:
    model = onnx.load(bundle / "policy.onnx")
    basic = "Sub Div Clip MatMul Add Mul Min Max IsNaN IsInf Where Or Less Greater Cast Squeeze"
    assert {node.op_type for node in model.graph.node} <= set(basic.split())
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    contract = json.loads({p.key: p.value for p in model.metadata_props}["contract"])
    assert contract == json.loads((bundle / "contract.json").read_text())
    # A second implementation of the operators, onnx's own in numpy.
    observation = inside(50)
    observation[3, 2] = np.nan
    action, status = reference.ReferenceEvaluator(model).run(None, {"observation": observation})
    ours, our_status = onnx_action((bundle / "policy.onnx").read_bytes(), observation)
    np.testing.assert_allclose(action, ours, atol=1e-5)
    np.testing.assert_array_equal(status, our_status)
