"""mbrl-lib's probabilistic ensemble on a job of `surrogate_benchmark.py`, in a venv of its own.

    python -m venv mbrl && mbrl/bin/pip install torch mbrl==0.2.0
    mbrl/bin/pip install hydra-core==1.3.2     # over the one that mbrl pins, for Python 3.11
    mbrl/bin/python experiments/peers/mbrl_ensemble.py JOB_FOLDER

5 members of 4 layers of 200 (SiLU), bounded log-variances, trained by mbrl's own trainer: Adam,
batches of 256, bootstrapped, the best weights by validation score kept. Rate 1e-3 and weight decay
1e-5 are those of its half-cheetah. It sees what its own environments show it (`preprocess_fn`):
angles that turn all around as sine and cosine, no coordinate that the dynamics do not depend on.
A flight follows the mean of the members; quaternions are made unit after every step.

Reference: Pineda et al., "MBRL-Lib: a modular library for model-based reinforcement learning",
2021, arXiv:2104.10159.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import mbrl.models
import numpy as np
import torch
from mbrl.types import TransitionBatch
from mbrl.util.replay_buffer import BootstrapIterator, TransitionIterator

MEMBERS, LAYERS, WIDTH, BATCH = 5, 4, 200, 256
RATE, DECAY = 1e-3, 1e-5


def main(folder: Path) -> None:
    """Train within the budget, fly the test windows, and write what came out."""
    job, data = json.loads((folder / "job.json").read_text()), np.load(folder / "data.npz")
    torch.manual_seed(job["seed"])
    begun = time.monotonic()
    training, validation = batches(data, "train"), batches(data, "validation")
    epoch = seconds_an_epoch(job, training, validation)
    spare = job["budget"] - (time.monotonic() - begun) - epoch
    begun = time.monotonic()
    model, trainer = build(job, training)
    epochs = max(1, int((spare + epoch) / epoch))
    trainer.train(*iterators(job["seed"], training, validation), num_epochs=epochs, silent=True)
    seconds = time.monotonic() - begun
    flights = {}
    for name in ("test", "beyond"):
        states, speed = fly(job, model, data[f"{name}_start"], data[f"{name}_inputs"])
        flights[name] = states
    np.savez(folder / "flight.npz", **flights)
    record = {"seconds": seconds, "steps": epochs * -(-len(training.obs) // BATCH), "speed": speed}
    (folder / "record.json").write_text(
        json.dumps({**record, "versions": f"mbrl 0.2.0, torch {torch.__version__}"})
    )


def batches(data, split: str) -> TransitionBatch:
    """Return all transitions of a split."""
    before, inputs, after = (data[f"{split}_{name}"] for name in ("before", "inputs", "after"))
    nothing = np.zeros(len(before), np.float32)
    return TransitionBatch(before, inputs, after, nothing, nothing, nothing)


def build(job, training: TransitionBatch):
    """Return the model and its trainer."""

    def view(states):
        whole = torch.as_tensor(states)
        angles = whole[..., job["angles"]]
        return torch.cat([whole[..., job["kept"]], torch.sin(angles), torch.cos(angles)], -1)

    def seen(states):  # numpy in, numpy out: the normaliser works in numpy
        found = view(states)
        return found.numpy() if isinstance(states, np.ndarray) else found

    inputs = seen(training.obs).shape[-1] + training.act.shape[-1]
    ensemble = mbrl.models.GaussianMLP(
        inputs,
        training.obs.shape[-1],
        torch.device("cpu"),
        num_layers=LAYERS,
        ensemble_size=MEMBERS,
        hid_size=WIDTH,
        propagation_method="expectation",
        activation_fn_cfg={"_target_": "torch.nn.SiLU"},
    )
    model = mbrl.models.OneDTransitionRewardModel(
        ensemble,
        target_is_delta=True,
        normalize=True,
        normalize_double_precision=True,
        learned_rewards=False,
        obs_process_fn=seen,
    )
    model.update_normalizer(training)
    return model, mbrl.models.ModelTrainer(model, optim_lr=RATE, weight_decay=DECAY)


def iterators(seed: int, training: TransitionBatch, validation: TransitionBatch):
    """Return mbrl's iterators: every member sees a bootstrap of its own."""
    rng = np.random.default_rng(seed)
    train = BootstrapIterator(training, BATCH, MEMBERS, shuffle_each_epoch=True, rng=rng)
    return train, TransitionIterator(validation, 2048)


def seconds_an_epoch(job, training: TransitionBatch, validation: TransitionBatch) -> float:
    """Time a part of an epoch, and one validation, of a model that is thrown away."""
    _, trainer = build(job, training)
    part = training[: 40 * BATCH]
    trainer.train(*iterators(job["seed"], part, validation[:2048]), num_epochs=1, silent=True)
    begun = time.monotonic()
    trainer.train(*iterators(job["seed"], part, validation[:2048]), num_epochs=1, silent=True)
    training_seconds = (time.monotonic() - begun) * len(training.obs) / (40 * BATCH)
    begun = time.monotonic()
    trainer.evaluate(TransitionIterator(validation, 2048))
    return training_seconds + time.monotonic() - begun


def fly(job, model, start: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, float]:
    """Return states `[H, n, nx]` and control steps a second."""
    found, count = [], len(start)
    rest = -count % MEMBERS  # mbrl flies whole multiples of its members
    start, inputs = (
        np.concatenate([x, np.repeat(x[..., -1:, :], rest, -2)], -2) for x in (start, inputs)
    )
    begun = time.monotonic()
    with torch.no_grad():
        state = model.reset(torch.from_numpy(start), rng=torch.Generator())
        for now in torch.from_numpy(inputs):
            after, _, _, state = model.sample(now, state, deterministic=True)
            for i in job["quaternions"]:
                norm = torch.linalg.norm(after[:, i : i + 4], dim=-1, keepdim=True)
                after[:, i : i + 4] /= norm.clamp_min(1e-9)
            state = {**state, "obs": after}
            found.append(after[:count].numpy().copy())
    return np.stack(found), inputs.shape[0] * count / (time.monotonic() - begun)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
