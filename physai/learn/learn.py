"""Learn a policy inside a surrogate and compare what it promises with what MuJoCo returns."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physai.control.policy import Policy, init_policy, load_policy, policy_action, save_policy
from physai.errors import InputError
from physai.learn.imagination import Conditions, Imagination
from physai.learn.value_gradient import LearnSettings, LearnState, init_learning, update_policy
from physai.plant import Plant, check_driven
from physai.progress import Progress, silent
from physai.provenance import (
    Source,
    atomic_folder,
    atomic_write,
    locate,
    read_json,
    sha256_source,
    write_json,
    write_manifest,
)
from physai.rollout.engine import TruePlant
from physai.state import State
from physai.surrogate.checkpoint import Checkpoints
from physai.surrogate.model import Surrogate
from physai.surrogate.store import load_surrogate
from physai.task import Task

CHUNK = 10  # updates in one compiled call
CHECK_EVERY = 10  # chunks between two looks at the true simulator
CHECK_FLIGHTS = 64
POLICY, CARD, CURVE = "policy.safetensors", "policy.json", "learning.csv"


@dataclass(frozen=True)
class Comparison:
    """Mean return of the same starts, in the surrogate and in the true simulator.

    None where a flight blew up, so that there is no number.
    """

    imagined: float | None
    true: float | None

    @property
    def shortfall(self) -> float:
        """How far the true return falls short, as a share of the imagined one's magnitude.

        Infinite where either is missing.
        """
        if self.imagined is None or self.true is None:
            return math.inf
        return (self.imagined - self.true) / max(abs(self.imagined), 1e-9)


class _Progressing(NamedTuple):
    """What a checkpoint holds: the learner, and the curve `[chunks, 4]` drawn so far."""

    learner: LearnState
    curve: jax.Array


def learn_policy(
    plant: Plant,
    task: Task,
    surrogate: str | Path,
    folder: str | Path,
    settings: LearnSettings | None = None,
    conditions: Conditions | None = None,
    seed: int = 0,
    start: str | Path | None = None,
    progress: Progress = silent,
) -> tuple[Policy, Comparison]:
    """Learn a policy, resumably, and write it as an artefact.

    Args:
        plant: the true machine, for the comparison.
        task: what to do; `physai.task.design_aware` makes the policy see the design.
        surrogate: folder of the surrogate to learn in.
        folder: of the policy; its training state is kept in `<folder>.training` until it is done.
        settings: how to learn.
        conditions: what the imagined machines meet.
        seed: of everything random.
        start: folder of a policy to go on from (None: a fresh one).
        progress: called as learning goes on.

    Returns:
        The policy and its last comparison with the true simulator, without disturbances.
    """
    check_driven(plant)
    settings, conditions = settings or LearnSettings(), conditions or Conditions()
    folder, inputs = Path(folder), learn_inputs(plant, surrogate, start)
    model = load_surrogate(surrogate, plant)
    imagination = Imagination(plant, task, conditions)
    key = jax.random.key(seed)
    if start is None:
        policy = _fresh_policy(plant, imagination, settings, jax.random.fold_in(key, 0))
    else:
        policy = load_policy_folder(start)[0]
    learner = init_learning(policy, imagination, settings, jax.random.fold_in(key, 1))
    chunks = -(-settings.updates // CHUNK)
    update = update_policy(imagination, settings, CHUNK)
    judge = Judge(plant, task, CHECK_FLIGHTS, seed)

    def advance(index: int, state: _Progressing) -> _Progressing:
        chunk_key = jax.random.fold_in(jax.random.fold_in(key, 2), index)
        learner, reward = update(state.learner, model, chunk_key)
        row = [float((index + 1) * CHUNK), float(reward[-1]), np.nan, np.nan]
        if (index + 1) % CHECK_EVERY == 0 or index + 1 == chunks:
            seen = judge.compare(model, learner.policy)
            row[2:] = [np.nan if x is None else x for x in (seen.imagined, seen.true)]
        return _Progressing(learner, state.curve.at[index].set(jnp.array(row)))

    own = {"settings": asdict(settings), "conditions": asdict(conditions), "seed": seed}
    sources = {role: sha256_source(locate(source)) for role, source in inputs.items()}
    checkpoints = Checkpoints(
        folder.with_name(f"{folder.name}.training"), _as_json({**own, "inputs": sources})
    )
    state = checkpoints.run(
        "learn", _Progressing(learner, jnp.zeros((chunks, 4))), chunks, advance, progress
    )
    policy, curve = state.learner.policy, np.asarray(state.curve)
    with atomic_folder(folder) as temporary:
        _write(temporary, policy, task, curve, own)
        write_manifest(temporary, "policy", inputs, own, seed)
    checkpoints.remove()
    return policy, Comparison(_finite(curve[-1, 2]), _finite(curve[-1, 3]))


def learn_inputs(
    plant: Plant, surrogate: str | Path, start: str | Path | None
) -> dict[str, Source]:
    """Return what a policy is made from, by role."""
    inputs: dict[str, Source] = {"surrogate": Path(surrogate), "plant": plant}
    return inputs if start is None else {**inputs, "start": Path(start)}


def load_policy_folder(folder: str | Path) -> tuple[Policy, dict[str, Any]]:
    """Load a policy artefact: the policy and its card."""
    folder = Path(folder)
    if not (folder / CARD).is_file():
        raise InputError(f"{folder}: expected a policy folder with {CARD} and {POLICY}")
    return load_policy(folder / POLICY), read_json(folder / CARD)


class Judge:
    """Flies fixed, undisturbed, nominal starts in the surrogate and in the true simulator."""

    def __init__(self, plant: Plant, task: Task, flights: int, seed: int) -> None:
        self.plant, self.task, self.flights = plant, task, flights
        self.steps = round(task.duration / plant.control_period)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 3), flights)
        designs = jnp.tile(jnp.asarray(plant.nominal, jnp.float32), (flights, 1))
        self.starts = jax.jit(jax.vmap(task.reset))(keys, designs)
        self._imagine = jax.jit(self._imagined)
        self._observe = jax.jit(jax.vmap(task.observe))
        self._act = jax.jit(policy_action)
        self._reward = jax.jit(lambda s, a, n: jnp.mean(jax.vmap(task.reward)(s, a, n)))

    def compare(self, surrogate: Surrogate, policy: Policy) -> Comparison:
        """Return the mean return of both worlds."""
        imagined = _finite(self._imagine(surrogate, policy))
        return Comparison(imagined, _finite(self._true(policy)))

    def _imagined(self, surrogate: Surrogate, policy: Policy) -> jax.Array:
        def period(state: State, _: None):
            action = policy_action(policy, jax.vmap(self.task.observe)(state))
            after = surrogate.step(state, action)
            return after, jnp.mean(jax.vmap(self.task.reward)(state, action, after))

        _, rewards = jax.lax.scan(period, self.starts, None, length=self.steps)
        return jnp.sum(rewards)

    def _true(self, policy: Policy) -> float:
        simulator = TruePlant(self.plant, self.flights)
        state = jax.tree.map(lambda x: np.asarray(x, float), self.starts)
        total = 0.0
        for _ in range(self.steps):
            action = np.asarray(self._act(policy, self._observe(state)), float)
            after = simulator.step(state, action)
            total += float(self._reward(state, action, after))
            state = after
        return total


def _fresh_policy(
    plant: Plant, imagination: Imagination, settings: LearnSettings, key: jax.Array
) -> Policy:
    start_key, policy_key = jax.random.split(key)
    seen = jax.jit(imagination.start, static_argnums=1)(start_key, 4096).observation
    return init_policy(
        policy_key,
        settings.hidden,
        jnp.mean(seen, axis=0),
        jnp.maximum(jnp.std(seen, axis=0), 1e-3),
        np.array([a.low for a in plant.actions]),
        np.array([a.high for a in plant.actions]),
        plant.trim,
    )


def _write(
    folder: Path, policy: Policy, task: Task, curve: np.ndarray, own: Mapping[str, Any]
) -> None:
    save_policy(folder / POLICY, policy)
    write_json(
        folder / CARD,
        {
            **own,
            "observations": [asdict(c) for c in task.observations],
            "imagined_return": _finite(curve[-1, 2]),
            "true_return": _finite(curve[-1, 3]),
        },
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["update", "reward_per_period", "imagined_return", "true_return"])
    for row in curve:
        writer.writerow(["" if np.isnan(x) else f"{x:.9g}" for x in row])
    atomic_write(folder / CURVE, text.getvalue())


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _as_json(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_as_json(v) for v in value]
    return value
