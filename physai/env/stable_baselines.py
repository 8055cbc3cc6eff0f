"""Plants as a vector environment of Stable-Baselines3, which needs no wrapper around it.

    envs = stable_baselines_env("quadrotor", num_envs=64)                  # true MuJoCo
    envs = stable_baselines_env("quadrotor", num_envs=64, surrogate=PATH)  # a surrogate of it
    model = stable_baselines3.PPO("MlpPolicy", envs).learn(100_000)

It needs the extra `physai[sb3]`, and PyTorch with it.

Reference: Raffin et al., "Stable-Baselines3: Reliable Reinforcement Learning Implementations",
Journal of Machine Learning Research 22, 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode

from physai.env.model import Model
from physai.env.vector import PlantVectorEnv
from physai.errors import InputError
from physai.plant import Plant

try:
    from stable_baselines3.common.vec_env import VecEnv  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise InputError(
        f"physai.env.stable_baselines needs {error.name}: pip install 'physai[sb3]'"
    ) from error


def stable_baselines_env(
    plant: str | Path | Plant,
    num_envs: int = 1,
    surrogate: str | Path | Model | None = None,
    **options: Any,
) -> StableVecEnv:
    """Return a vector environment for Stable-Baselines3.

    Args:
        plant, num_envs, surrogate, options: as of `physai.env.vector.PlantVectorEnv`, which resets
            itself in the step that ends an episode.

    Raises:
        InputError: as there; autoreset_mode is no option.
    """
    if "autoreset_mode" in options:
        raise InputError("autoreset_mode: Stable-Baselines3 knows one alone, SAME_STEP")
    mode = AutoresetMode.SAME_STEP
    return StableVecEnv(PlantVectorEnv(plant, num_envs, surrogate, autoreset_mode=mode, **options))


class StableVecEnv(VecEnv):
    """A `PlantVectorEnv` with SAME_STEP as Stable-Baselines3 expects it.

    Actions are -1 to 1, for the low and the high end of each channel. The `info` of an environment
    whose episode ended holds "terminal_observation" and "TimeLimit.truncated".
    """

    def __init__(self, envs: PlantVectorEnv) -> None:
        if envs.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise InputError(f"autoreset_mode: expected SAME_STEP, got {envs.autoreset_mode}")
        self.envs = envs
        actions = envs.single_action_space
        assert isinstance(actions, Box)
        self._middle = 0.5 * (actions.low + actions.high)
        self._half = 0.5 * (actions.high - actions.low)
        self._actions = np.zeros(envs.action_space.shape or ())
        space = Box(-1.0, 1.0, actions.shape, np.float32)
        super().__init__(envs.num_envs, envs.single_observation_space, space)

    def reset(self) -> np.ndarray:
        """Start all episodes, with the seeds and options that were set before."""
        seeds = None if all(s is None for s in self._seeds) else self._seeds
        if any(o != self._options[0] for o in self._options):
            raise InputError("set_options: expected the same options for all environments")
        observation, _ = self.envs.reset(seed=seeds, options=self._options[0])
        self._reset_seeds()
        self._reset_options()
        return np.asarray(observation)

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions `[n, nu]`, -1 to 1, of the step that `step_wait` does."""
        self._actions = self._middle + self._half * np.asarray(actions)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Do the step; return observations, rewards, ends and one info an environment."""
        seen, reward, terminated, truncated, info = self.envs.step(self._actions)
        terminated, truncated = np.asarray(terminated), np.asarray(truncated)
        over = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in over]
        for i in np.flatnonzero(over):
            infos[i]["terminal_observation"] = np.asarray(info["final_obs"][i])
            infos[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        return np.asarray(seen), np.asarray(reward, np.float32), over, infos

    def close(self) -> None:
        """Free the renderers."""
        self.envs.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return an image of each environment."""
        return self.envs.render() or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute, which the environments have in common."""
        return [getattr(self.envs, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse: the environments are one object, made once.

        Raises:
            InputError: always.
        """
        raise InputError(f"{attr_name}: cannot be set here; make a new stable_baselines_env")

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of all environments at once, and return its result for each of `indices`.

        Raises:
            InputError: no such method.
        """
        method = getattr(self.envs, method_name, None)
        if method is None:
            raise InputError(f"{method_name}: PlantVectorEnv has no such method")
        found = method(*method_args, **method_kwargs)
        each = found if isinstance(found, tuple) else [found] * self.num_envs
        return [each[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Return False for each: there are no wrappers."""
        return [False for _ in self._get_indices(indices)]
