"""A recurrent baseline on a job of `surrogate_benchmark.py`: a GRU trained on its own forecasts.

    python experiments/peers/recurrent.py JOB_FOLDER

A GRU of 256 units reads state and action and gives, through a hidden layer, the change of the
state; its next input is its own forecast. Trained over windows of 16 control periods by Adam with
a cosine schedule: the deterministic path of a recurrent state-space model, whose stochastic part
has nothing to explain in a noise-free, fully observed plant. It sees the same view of the state as
`mbrl_ensemble.py`.

References: Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014,
arXiv:1406.1078; Hafner et al., "Learning latent dynamics for planning from pixels", 2019,
arXiv:1811.04551; Li et al., "Robotic world model", 2025, arXiv:2501.10100.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

UNITS, BATCH, HORIZON, RATE, CHUNK = 256, 128, 16, 1e-3, 50


class Network(nnx.Module):
    """GRU, hidden layer, readout."""

    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs) -> None:
        self.cell = nnx.GRUCell(inputs, UNITS, rngs=rngs)
        self.hidden = nnx.Linear(UNITS, UNITS, rngs=rngs)
        last = nnx.initializers.variance_scaling(0.01, "fan_in", "normal")
        self.readout = nnx.Linear(UNITS, outputs, kernel_init=last, rngs=rngs)

    def __call__(self, memory: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the next memory and normalised changes of the state."""
        memory, out = self.cell(memory, x)
        return memory, self.readout(nnx.silu(self.hidden(out)))


def main(folder: Path) -> None:
    """Train within the budget, fly the test windows, and write what came out."""
    job, data = json.loads((folder / "job.json").read_text()), np.load(folder / "data.npz")
    begun = time.monotonic()
    probe = partial(train, job, data, steps=3 * CHUNK)
    *_, (compiling, chunk, after) = probe()
    spare = job["budget"] - compiling - after
    begun = time.monotonic()
    step, parameters, scales, _ = train(job, data, max(1, int(spare / chunk)) * CHUNK)
    seconds = time.monotonic() - begun
    fly = jax.jit(partial(unroll, job, step))
    flights, speed = {}, 0.0
    for name in ("test", "beyond"):
        arguments = (parameters, scales, data[f"{name}_start"], data[f"{name}_inputs"])
        flights[name] = np.asarray(fly(*arguments))
        begun = time.monotonic()
        jax.block_until_ready(fly(*arguments))
        inputs = data[f"{name}_inputs"]
        speed = inputs.shape[0] * inputs.shape[1] / (time.monotonic() - begun)
    np.savez(folder / "flight.npz", **flights)
    steps = max(1, int(spare / chunk)) * CHUNK
    record = {"seconds": seconds, "steps": steps, "speed": speed}
    versions = f"jax {jax.__version__}, flax {flax.__version__}"
    (folder / "record.json").write_text(json.dumps({**record, "versions": versions}))


def view(job, states: jax.Array) -> jax.Array:
    """Return what the network sees of states `[..., nx]`."""
    angles = states[..., np.array(job["angles"], int)]
    kept = states[..., np.array(job["kept"], int)]
    return jnp.concatenate([kept, jnp.sin(angles), jnp.cos(angles)], -1)


def scales_of(job, data) -> dict[str, jax.Array]:
    """Return mean and deviation of what is seen and of the changes."""
    seen = np.concatenate([view(job, data["train_before"]), data["train_inputs"]], -1)
    change = data["train_after"] - data["train_before"]
    found = {}
    for name, values in (("seen", seen), ("change", change)):
        deviation = values.std(0)
        found[f"{name}_mean"] = jnp.asarray(values.mean(0))
        found[f"{name}_std"] = jnp.asarray(np.where(deviation > 1e-9, deviation, 1.0))
    return found


def unroll(job, step, parameters, scales, start: jax.Array, inputs: jax.Array) -> jax.Array:
    """Return forecasts `[H, n, nx]` from `start [n, nx]` and `inputs [H, n, ni]`."""

    def period(carry, now):
        memory, state = carry
        seen = jnp.concatenate([view(job, state), now], -1)
        seen = jnp.clip((seen - scales["seen_mean"]) / scales["seen_std"], -12.0, 12.0)
        memory, change = step(parameters, memory, seen)
        state = state + change * scales["change_std"] + scales["change_mean"]
        for i in job["quaternions"]:
            four = state[:, i : i + 4]
            four /= jnp.linalg.norm(four, axis=-1, keepdims=True) + 1e-9
            state = state.at[:, i : i + 4].set(four)
        return (memory, state), state

    memory = jnp.zeros((start.shape[0], UNITS))
    return jax.lax.scan(period, (memory, jnp.asarray(start)), jnp.asarray(inputs))[1]


def train(job, data, steps: int):
    """Train; return the network's step, parameters, scales, and seconds of the parts.

    The seconds are those of compiling and preparing, of a chunk of steps, and of the end.
    """
    begun = time.monotonic()
    scales = scales_of(job, data)
    inputs = data["train_inputs"].shape[-1] + view(job, data["train_before"][:1]).shape[-1]
    network = Network(inputs, data["train_before"].shape[-1], nnx.Rngs(job["seed"]))
    graph, parameters = nnx.split(network)

    def step(parameters, memory, x):
        return nnx.merge(graph, parameters)(memory, x)

    states, given, length = (
        jnp.asarray(data[f"episodes_{name}"]) for name in ("states", "inputs", "length")
    )
    optimiser = optax.adam(optax.cosine_decay_schedule(RATE, steps))

    def loss(parameters, key):
        which, where = jax.random.split(key)
        episode = jax.random.randint(which, (BATCH,), 0, len(length))
        room = jnp.maximum(length[episode] - HORIZON, 0)
        begin = jnp.floor(jax.random.uniform(where, (BATCH,)) * (room + 1)).astype(int)
        moments = begin + jnp.arange(HORIZON)[:, None]
        forecast = unroll(
            job, step, parameters, scales, states[episode, begin], given[episode, moments]
        )
        error = (forecast - states[episode, moments + 1]) / scales["change_std"]
        inside = (moments < length[episode])[..., None]
        return jnp.sum(jnp.square(error) * inside) / (jnp.sum(inside) * error.shape[-1])

    @jax.jit
    def chunk(parameters, moments, key):
        def one(carry, k):
            parameters, moments = carry
            gradient = jax.grad(loss)(parameters, k)
            update, moments = optimiser.update(gradient, moments)
            return (optax.apply_updates(parameters, update), moments), None

        return jax.lax.scan(one, (parameters, moments), jax.random.split(key, CHUNK))[0]

    moments, key, ends = optimiser.init(parameters), jax.random.key(job["seed"]), []
    for k in range(steps // CHUNK):
        parameters, moments = chunk(parameters, moments, jax.random.fold_in(key, k))
        jax.block_until_ready(parameters)
        ends.append(time.monotonic())
    each = min(np.diff(ends), default=0.0)
    return step, parameters, scales, (ends[0] - begun - each, each, time.monotonic() - ends[-1])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
