"""Comparison of a plant's environment with Gymnasium's own environment of the same machine."""

from __future__ import annotations

from typing import Any, Protocol, cast

import gymnasium
import numpy as np

from physai.env.single import PlantEnv
from physai.errors import InputError
from physai.plant import Check, Plant
from physai.state import State


class _Peer(Protocol):
    """What is used of Gymnasium's `MujocoEnv`, which is not imported: it needs imageio."""

    def reset(self, *, seed: int) -> Any: ...
    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, Any]: ...
    def set_state(self, qpos: np.ndarray, qvel: np.ndarray) -> None: ...
    def close(self) -> None: ...
    def _get_obs(self) -> np.ndarray: ...


TOLERANCE = 1e-6
"""Of a number up to 1; of a larger one, relative. Observations are float32: 6e-8 of themselves."""


def peer_checks(env_id: str, plant: Plant, steps: int = 1000, seed: int = 0) -> list[Check]:
    """Step a plant's environment and its peer side by side, with random actions.

    Both start from the state that the plant's environment draws; where an episode ends, in either
    of them, both start anew.

    Args:
        env_id: of one of Gymnasium's MuJoCo environments, such as "Hopper-v5".
        plant: the plant, at its nominal design.
        steps: control periods.
        seed: of starts and actions.

    Returns:
        Checks that the largest differences are 0: of observations and rewards, |a - b| / max(1,
        |b|), and the number of steps whose termination differs.

    Raises:
        InputError: imageio is missing, without which Gymnasium's MuJoCo environments do not load.
    """
    peer = _peer(env_id)
    ours = PlantEnv(plant, disturbances=False, duration=np.inf)
    rng = np.random.default_rng(seed)
    low, high = (np.array([getattr(a, end) for a in plant.actions]) for end in ("low", "high"))
    differences, ends = np.zeros(2), 0
    observation = _start(ours, peer, seed)
    differences[0] = _difference(*observation)
    for _ in range(steps):
        action = rng.uniform(low, high).astype(np.float32)
        seen, reward, over, _, _ = ours.step(action)
        expected, paid, lost, _, _ = peer.step(action)
        found = _difference(seen, expected), _difference(reward, paid)
        differences = np.maximum(differences, found)
        ends += over != lost
        if over or lost:
            differences[0] = max(differences[0], _difference(*_start(ours, peer, None)))
    ours.close()
    peer.close()
    names = (f"{what} against Gymnasium's, {steps} steps" for what in ("observation", "reward"))
    return [
        *(Check(n, "1", 0.0, float(d), TOLERANCE) for n, d in zip(names, differences, strict=True)),
        Check(f"ends unlike Gymnasium's, {steps} steps", "1", 0.0, float(ends), 0.0),
    ]


def _peer(env_id: str) -> _Peer:
    try:
        import imageio  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"the comparison with Gymnasium's {env_id} needs imageio: "
            "pip install 'physai[gymnasium]'"
        ) from error
    made = gymnasium.make(env_id, max_episode_steps=-1, disable_env_checker=True).unwrapped
    return cast("_Peer", made)


def _start(ours: PlantEnv, peer: _Peer, seed: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Start both anew from one state; return both observations."""
    observation, info = ours.reset(seed=seed)
    state = State(**info["state"])
    peer.reset(seed=0)
    # Gymnasium's own reset sets a random state like this, from a simulation without memory.
    peer.set_state(np.asarray(state.qpos), np.asarray(state.qvel))
    return observation, peer._get_obs()


def _difference(ours: np.ndarray | float, theirs: np.ndarray | float) -> float:
    scale = np.maximum(1.0, np.abs(theirs))
    return float(np.max(np.abs(np.asarray(ours, float) - theirs) / scale))
