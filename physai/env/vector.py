"""One plant as a Gymnasium vector environment: all simulations in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from physai.env.judge import Judge
from physai.env.machines import Machines
from physai.env.model import Model, learned_model
from physai.env.options import (
    FIELDS,
    check_mask,
    control_steps,
    count,
    given_plant,
    given_task,
    mode,
    own_options,
    start_options,
)
from physai.env.outside import OUTSIDE, Moved, check_outside
from physai.env.single import box, limited
from physai.env.streams import Seeds, disturbance_streams, draw_episode_starts, noise_streams
from physai.env.vector_tools import chosen, clipped, masked, shaped
from physai.env.view import Display, render_modes
from physai.errors import InputError
from physai.plant import Plant
from physai.rollout.batch import checked
from physai.state import Array, State
from physai.task import Task


class PlantVectorEnv(VectorEnv[Array, Array, Array]):
    """Many episodes of a plant and its task, in true MuJoCo on all cores or in a surrogate.

    Environment i with seed s is `PlantEnv` with seed s + i: the same starts, disturbances and
    sensor noise, and in true MuJoCo the same states to the bit. Observations, rewards and a
    surrogate's states are computed for the whole batch and may round differently.

    Observations are float32 `[n, no]`, actions float32 `[n, nu]`, both in the channels' units and
    clipped to their ranges; rewards are float64 `[n]`. An episode is terminated when the task calls
    it lost or when the simulation diverges, and truncated after the task's duration.

    What follows the end of an episode is Gymnasium's autoreset mode, in `metadata`: with NEXT_STEP
    the next `step` starts it anew, whatever the action, with reward 0; with SAME_STEP the step that
    ends it does, and returns the end in `info["final_obs"]` and `info["final_info"]`; with DISABLED
    the caller does, by `reset(options={"reset_mask": mask})`. A reset of all without options gives
    every machine the nominal design; an autoreset, or a mask, leaves it the one it has.

    `info` holds, each with a mask `_name` `[n]` of the environments that have it:
        state: the full States, a dict of arrays `[n, ...]` with masks of their own.
        valid: False once a simulation has diverged `[n]`. `terminated` with `valid` means lost.
        domain_score: after a step of a surrogate, the distance of its inputs to the training data
            `[n]`; above 1 it extrapolates.
        abstained, simulated: with `outside`, whether that was done in this step `[n]`.

    Args:
        plant: name of a shipped plant, path of a folder, or a Plant.
        num_envs: number of environments n.
        surrogate: None for the true simulator; else a surrogate's folder, or a learned `Model`,
            which must be a pytree with a pure JAX `step`.
        outside: "accept", "abstain" or "simulate" where an input lies outside the surrogate's
            training data, as of `PlantEnv`, environment by environment.
        task: None for the plant's own task.
        autoreset_mode: an AutoresetMode or its value: "NextStep", "SameStep" or "Disabled".
        disturbances: whether the plant's disturbances act, drawn anew every episode.
        sensor_noise: whether the task's sensor noise is added to observations.
        duration: seconds after which an episode is truncated (None: the task's, inf: never).
        max_episode_steps: the same in control periods; the shorter one holds.
        device_arrays: with a surrogate, return observations, rewards and `info` as JAX arrays,
            float32, where they were computed. Actions are then clipped but not checked.
        readout: on the true simulator, observe and reward what the task's `Readout` adds.
        render_mode: None, "rgb_array", or "human" for a window that shows environment 0.
        width, height: of rendered images, pixels.

    Raises:
        InputError: no such plant or surrogate, a surrogate of another plant, a bad option.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 50}  # noqa: RUF012 (Gymnasium's type)

    def __init__(
        self,
        plant: str | Path | Plant,
        num_envs: int = 1,
        surrogate: str | Path | Model | None = None,
        *,
        outside: str = "accept",
        task: Task | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        disturbances: bool = True,
        sensor_noise: bool = False,
        duration: float | None = None,
        max_episode_steps: int | None = None,
        device_arrays: bool = False,
        readout: bool = True,
        render_mode: str | None = None,
        width: int = 640,
        height: int = 480,
    ) -> None:
        self.plant = given_plant(plant)
        self.task = given_task(self.plant, task)
        self.surrogate = learned_model(surrogate, self.plant, self.task)
        self._outside = check_outside(outside, self.surrogate)
        self.num_envs = n = count(num_envs, "num_envs")
        self.autoreset_mode = mode(autoreset_mode)
        if device_arrays and self.surrogate is None:
            raise InputError("device_arrays: the true simulator stays on the host; needs surrogate")
        self.render_mode = render_mode
        self._display = Display(self.plant, render_mode, width, height)
        self.metadata = {
            "render_modes": render_modes(),
            "render_fps": round(1.0 / self.plant.control_period),
            "autoreset_mode": self.autoreset_mode,
        }
        self._judge = Judge(self.task, self.surrogate is None, readout)
        self.single_observation_space = box(self._judge.channels)
        self.single_action_space = box(self.plant.actions)
        self.observation_space = batch_space(self.single_observation_space, n)
        self.action_space = batch_space(self.single_action_space, n)
        limit = self.task.duration if duration is None else duration
        self._max_steps = control_steps(self.plant, limit)
        if max_episode_steps is not None:
            self._max_steps = min(self._max_steps, count(max_episode_steps, "max_episode_steps"))
        self._device = device_arrays
        self._low = np.array([a.low for a in self.plant.actions])
        self._high = np.array([a.high for a in self.plant.actions])
        self._seeds = Seeds(n)
        block = int(control_steps(self.plant, self.task.duration))
        self._gusts = (
            disturbance_streams(self.plant, n, block) if disturbances and self.plant.nw else None
        )
        noise = np.array([c.noise for c in self._judge.channels])
        self._noise = noise_streams(noise, n) if sensor_noise else None
        self._spec: EnvSpec | None = None
        self._machines = Machines(self.plant, self.surrogate, n, self._judge, outside)
        self._all = np.ones(n, bool)
        self._over = ~self._all
        self._steps = np.zeros(n, int)
        self._state: State | None = None
        self._observed: Array = None

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]
        """How `gymnasium.make_vec` made it, with the number of steps after which it truncates."""
        return self._spec

    @spec.setter
    def spec(self, value: EnvSpec | None) -> None:
        self._spec = limited(value, self._max_steps)

    @property
    def state(self) -> State:
        """The States of all environments `[n, ...]`; with a surrogate, JAX arrays."""
        if self._state is None:
            raise gymnasium.error.ResetNeeded("call reset() first")
        return self._state

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seed of each environment, -1 before the first reset."""
        return tuple(self._seeds.values)

    @property
    def np_random(self) -> tuple[np.random.Generator | None, ...]:  # type: ignore[override]
        """The generator of each environment's episodes, None before the first reset."""
        return tuple(self._seeds.generators)

    def reset(  # type: ignore[override]
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """Start episodes, of all environments or of those in a mask.

        Args:
            seed: s, of which environment i gets s + i, or one an environment, of everything random
                in this and the following episodes.
            options: {"design": design vectors `[nd]` or `[n, nd]`} (else the nominal one), or
                {"state": State}, `[...]` or `[n, ...]`, to start from, which brings its design;
                {"reset_mask": bool `[n]`} to start only these. In true MuJoCo a new design needs
                a reset of all.

        Raises:
            InputError: another option, a state of the wrong shape or with a quaternion that is not
                unit, a design outside its bounds, a seed that is no whole number.
        """
        options = own_options(options)
        mask = check_mask(options.pop("reset_mask", None), self.num_envs)
        if self._state is None and not mask.all():
            raise gymnasium.error.ResetNeeded("the first reset() has to start all environments")
        rows = np.flatnonzero(mask)
        given, designs = start_options(self.plant, self.task, options, self.num_envs)
        if designs is None:
            nominal = np.tile(self.plant.nominal, (self.num_envs, 1))
            designs = nominal if mask.all() else self._machines.designs
        self._seeds.seed(rows, seed)
        if self._machines.build(designs, mask):
            self.close_extras()
        start = self._begin(rows, given)
        if self._state is None or mask.all():
            self._state = self._machines.start(start)
        else:
            self._state = self._machines.restart(self._state, rows, start)
        self._over = self._over & ~mask
        self._display.show(self.state.qpos, self._machines.designs)
        observation = self._observation(self._judge.observe(self.state, rows), rows)
        if not mask.all():
            observation = chosen(mask, observation, self._observed)
        return self._seen(observation), self._info(mask)

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Hold actions `[n, nu]` for one control period.

        Returns:
            Observations, rewards, terminated, truncated, info; see the class. After a divergence
            the state is the last sound one.

        Raises:
            InputError: actions of the wrong shape or with NaN or infinity in them.
        """
        before, over, everyone = self.state, self._over, self._all
        if self.autoreset_mode is AutoresetMode.DISABLED and over.any():
            raise gymnasium.error.ResetNeeded(
                "episodes are over and autoreset is disabled: call "
                "reset(options={'reset_mask': terminated | truncated}) before step()"
            )
        actions = self._checked(actions, over)
        moved = self._machines.step(before, actions, self._gust(~over))
        observed, reward, lost = self._judge.judge(before, actions, moved.state)
        self._steps += 1
        terminated = ~self._machines.valid | np.asarray(lost)
        truncated = self._steps >= self._max_steps
        if self._outside == "abstain" and moved.handled is not None:
            terminated, truncated = terminated & ~moved.handled, truncated | moved.handled
            reward = chosen(moved.handled, jnp.zeros_like(reward), reward)
        self._state = moved.state
        if over.any():  # NEXT_STEP: this step only starts these
            self._again(over)
            started = self._judge.observe(self.state, np.flatnonzero(over))
            observed = chosen(over, started, observed)
            terminated, truncated = terminated & ~over, truncated & ~over
            reward = chosen(over, jnp.zeros_like(reward), reward)
        observation = self._observation(observed, np.flatnonzero(everyone))
        info = self._info(everyone, moved, ~over)
        self._over = terminated | truncated
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._over.any():
            observation, info = self._ended(self._over, observation, moved)
            self._over = ~everyone
        self._display.show(self.state.qpos, self._machines.designs)
        if not self._device:
            reward = np.array(reward, float)
        return self._seen(observation), reward, terminated, truncated, info

    def render(self) -> tuple[np.ndarray, ...] | None:  # type: ignore[override]
        """Return images uint8 `[height, width, 3]`, one an environment; meant for a few.

        With render_mode "human" it returns None: the window is up to date already.

        Raises:
            InputError: OpenGL is not available, or there is no screen.
        """
        return self._display.images(np.asarray(self.state.qpos), self._machines.designs)

    def close_extras(self, **kwargs: Any) -> None:
        """Free the renderers; a later `render` makes new ones."""
        self._display.close()

    def _gust(self, on: np.ndarray) -> np.ndarray:
        """Return disturbances `[n, nw]`, read for the episodes that go on, `on` [n]."""
        gusts = np.zeros((self.num_envs, self.plant.nw))
        if self._gusts is not None:
            gusts[on] = self._gusts.next(np.flatnonzero(on))
        return gusts

    def _again(self, mask: np.ndarray) -> None:
        """Autoreset the environments in `mask` [n]."""
        rows = np.flatnonzero(mask)
        self._state = self._machines.restart(self.state, rows, self._begin(rows, None))

    def _ended(
        self, over: np.ndarray, observation: Array, moved: Moved
    ) -> tuple[Array, dict[str, Any]]:
        """Autoreset in the step that ended episodes; return the new observations and the info."""
        ends = np.full(self.num_envs, None, object)
        for i in np.flatnonzero(over):
            ends[i] = observation[i]
        final = self._info(over, moved, over)
        self._again(over)
        rows = np.flatnonzero(over)
        observed = self._observation(self._judge.observe(self.state, rows), rows)
        info = self._info(self._all, moved, ~over)
        named = {"final_obs": ends, "_final_obs": over, "final_info": final, "_final_info": over}
        return chosen(over, observed, observation), named | info

    def _begin(self, rows: np.ndarray, given: State | None) -> State:
        """Begin episodes of `rows` [k]; return their states, float64 `[k, ...]`."""
        seeds, designs = self._seeds.episode(rows), self._machines.designs[rows]
        if self._gusts is not None:
            self._gusts.start(rows, seeds[:, 1])
        if self._noise is not None:
            self._noise.start(rows, seeds[:, 2])
        self._steps[rows] = 0
        if given is not None:
            return given[rows].replace(design=designs)
        return draw_episode_starts(self.task, seeds[:, 0], designs)

    def _checked(self, actions: Array, over: np.ndarray) -> Array:
        """Return actions within their ranges; those of episodes that are over do not matter."""
        shape = (self.num_envs, self.plant.nu)
        actions = shaped(actions, shape)
        if self._device:
            return clipped(jnp.asarray(actions), self._low, self._high)
        values = checked(np.where(over[:, None], self.plant.trim, actions), shape, "action")
        return np.minimum(np.maximum(values, self._low), self._high)

    def _observation(self, observed: Array, rows: np.ndarray) -> Array:
        """Return observations as a sensor gives them; noise is drawn for `rows` [k] only."""
        noise = 0.0
        if self._noise is not None:
            noise = np.zeros(self.observation_space.shape or ())
            noise[rows] = self._noise.next(rows)
        space = self.single_observation_space
        assert isinstance(space, Box)
        if self._device:
            return clipped(observed + jnp.float32(noise), space.low, space.high)
        values = (np.asarray(observed) + noise).astype(np.float32)
        return np.clip(values, space.low, space.high)

    def _seen(self, observation: Array) -> Array:
        """Keep observations for resets of some environments; return them for the caller."""
        self._observed = observation if self._device else observation.copy()
        return observation

    def _info(
        self, mask: np.ndarray, moved: Moved | None = None, flown: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Return the info of the environments in `mask` [n], and of a step of those `flown` [n]."""
        fields = {name: getattr(self.state, name) for name in FIELDS}
        info = masked({"valid": self._machines.valid}, mask, self._device)
        info |= {"state": masked(fields, mask, self._device), "_state": mask.copy()}
        if moved is not None and flown is not None:
            scored = flown & ~np.isnan(np.asarray(moved.domain_score))
            if scored.any():
                info |= masked({"domain_score": moved.domain_score}, scored, self._device)
            if moved.handled is not None and flown.any():
                done = {OUTSIDE[self._outside]: moved.handled}
                info |= masked(done, flown, self._device)
        return info
