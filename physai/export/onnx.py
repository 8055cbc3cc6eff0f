"""ONNX of a policy: the same arithmetic as policy.c, from basic operators only.

    observation [batch, no] float32  ->  action [batch, nu] float32, status [batch] int32

The graph is built operator by operator (Sub, Div, Clip, MatMul, Add, Mul, and IsNaN, IsInf, Where
for the guard) in an operator set that every runtime of the last years has, so that it neither
depends on a converter nor on its version.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np

from physai.control.policy import (
    OBSERVATION_CLIP,
    TANH_CLAMP,
    TANH_DENOMINATOR,
    TANH_NUMERATOR,
    Policy,
)
from physai.errors import InputError
from physai.export.contract import NOT_FINITE, OK, OUT_OF_RANGE, Contract, contract_json

OPSET = 17
IR_VERSION = 8


def policy_onnx(policy: Policy, contract: Contract) -> bytes:
    """Return the serialised ONNX model of policy and guard; its metadata hold the contract.

    Raises:
        InputError: the extra `export` is not installed.
    """
    onnx = _import("onnx")
    graph = _Graph(onnx)
    _guarded_policy(graph, policy, contract)
    helper, types = onnx.helper, onnx.TensorProto
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "policy",
            [helper.make_tensor_value_info("observation", types.FLOAT, ["batch", policy.no])],
            [
                helper.make_tensor_value_info("action", types.FLOAT, ["batch", policy.nu]),
                helper.make_tensor_value_info("status", types.INT32, ["batch"]),
            ],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="physai",
    )
    helper.set_model_props(
        model, {"contract": json.dumps(contract_json(contract, policy), sort_keys=True)}
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def onnx_action(model: bytes, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run the model in onnxruntime on one thread.

    Args:
        model: from `policy_onnx`.
        observation: `[n, no]`.

    Returns:
        Actions `[n, nu]` float32 and status bits `[n]` int32.

    Raises:
        InputError: the extra `export` is not installed.
    """
    runtime = _import("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    action, status = session.run(
        ["action", "status"], {"observation": np.asarray(observation, dtype=np.float32)}
    )
    return np.asarray(action), np.asarray(status)


class _Graph:
    """Nodes and constants in order; every operation returns the name of its result."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        """Add a named constant."""
        array = np.ascontiguousarray(np.asarray(value, dtype=dtype))
        self.constants.append(
            self._onnx.numpy_helper.from_array(array.reshape(np.shape(value)), name)
        )
        return name

    def op(self, kind: str, *inputs: str, result: str = "", **attributes: Any) -> str:
        """Add one operation; `result` names its result."""
        result = result or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, inputs, [result], **attributes))
        return result


def _guarded_policy(graph: _Graph, policy: Policy, contract: Contract) -> None:
    low = graph.constant("action_low", policy.action_low)
    high = graph.constant("action_high", policy.action_high)
    span = graph.constant("action_range", np.asarray(policy.action_high - policy.action_low))
    one, half = graph.constant("one", 1.0), graph.constant("half", 0.5)

    undefined = graph.op("Or", graph.op("IsNaN", "observation"), graph.op("IsInf", "observation"))
    outside = graph.op(
        "Or",
        graph.op("Less", "observation", graph.constant("low", contract.observation_low)),
        graph.op("Greater", "observation", graph.constant("high", contract.observation_high)),
    )
    mean = graph.constant("observation_mean", policy.observation_mean)
    x = _network(graph, policy, graph.op("Where", undefined, mean, "observation"), mean)
    scaled = graph.op("Mul", span, graph.op("Mul", half, graph.op("Add", one, x)))
    action = graph.op("Max", graph.op("Min", graph.op("Add", low, scaled), high), low)

    any_undefined, any_outside = _any_channel(graph, policy.no, undefined, outside)
    safe = graph.constant("safe_action", contract.safe_action)
    graph.op("Where", any_undefined, safe, action, result="action")
    bits = {
        name: graph.constant(name, [value], np.int32)
        for name, value in (("ok", OK), ("not_finite", NOT_FINITE), ("out_of_range", OUT_OF_RANGE))
    }
    status = graph.op("Where", any_outside, bits["out_of_range"], bits["ok"])
    status = graph.op("Where", any_undefined, bits["not_finite"], status)
    graph.op("Squeeze", status, graph.constant("axis", [1], np.int64), result="status")


def _network(graph: _Graph, policy: Policy, observation: str, mean: str) -> str:
    std = graph.constant("observation_std", policy.observation_std)
    clip = [graph.constant(f"clip_{s}", s * OBSERVATION_CLIP) for s in (-1, 1)]
    tanh = {
        "clamp": [graph.constant(f"tanh_clamp_{s}", s * TANH_CLAMP) for s in (-1, 1)],
        "p": [graph.constant(f"tanh_p{i}", k) for i, k in enumerate(TANH_NUMERATOR)],
        "q": [graph.constant(f"tanh_q{i}", k) for i, k in enumerate(TANH_DENOMINATOR)],
    }
    x = graph.op("Clip", graph.op("Div", graph.op("Sub", observation, mean), std), *clip)
    for i, (weight, bias) in enumerate(zip(policy.weights, policy.biases, strict=True)):
        x = graph.op("MatMul", x, graph.constant(f"weight_{i}", weight))
        x = _rational_tanh(graph, graph.op("Add", x, graph.constant(f"bias_{i}", bias)), tanh)
    return x


def _rational_tanh(graph: _Graph, x: str, tanh: dict[str, list[str]]) -> str:
    x = graph.op("Clip", x, *tanh["clamp"])
    t = graph.op("Mul", x, x)

    def horner(coefficients: list[str]) -> str:
        value = coefficients[-1]
        for k in coefficients[-2::-1]:
            value = graph.op("Add", graph.op("Mul", value, t), k)
        return value

    return graph.op("Div", graph.op("Mul", x, horner(tanh["p"])), horner(tanh["q"]))


def _any_channel(graph: _Graph, channels: int, *masks: str) -> list[str]:
    # Counted by MatMul, because the reductions changed their signature between operator sets.
    ones, zero = graph.constant("ones", np.ones((channels, 1))), graph.constant("zero", 0.0)
    float32 = 1  # TensorProto.FLOAT
    counts = [graph.op("MatMul", graph.op("Cast", mask, to=float32), ones) for mask in masks]
    return [graph.op("Greater", count, zero) for count in counts]


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"this needs {name}, which is not installed: pip install 'physai[export]'"
        ) from error
