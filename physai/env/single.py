"""One plant as a Gymnasium environment, on the true simulator or on a surrogate."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box

from physai.env.judge import Judge
from physai.env.model import Model, batch_task, learned_model
from physai.env.options import (
    FIELDS,
    control_steps,
    given_plant,
    given_task,
    own_options,
    start_options,
)
from physai.env.outside import OUTSIDE, Guarded, check_outside
from physai.env.view import Display, render_modes
from physai.errors import InputError
from physai.plant import Channel, Plant
from physai.rollout.engine import TruePlant
from physai.rollout.excitation import disturbance_process
from physai.state import Array, State
from physai.task import Task


class PlantEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """A plant and its task, flown in true MuJoCo or in a surrogate; the same code but for one call.

    Observations are float32 `[no]`, in the units of `Task.observations` and clipped to their
    ranges, as a sensor saturates, so that they always lie in the observation space. Actions are
    float32 `[nu]`, in the units of `Plant.actions`; an action outside its range is clipped before
    model and reward see it.

    An episode is terminated when the task calls it lost or when the simulation diverges, and
    truncated after the task's duration. The limit is here rather than in Gymnasium's registry: the
    duration is Python in the plant's task.py, which importing `physai.gym` must not run. So it
    also holds for a user's own folder and for `PlantEnv(...)` without `gymnasium.make`.

    `info` holds after `reset` and `step`:
        state: the full State as a dict of float64 arrays; `State(**info["state"])` is a start for
            `reset`.
        valid: False once the simulation has diverged. So `terminated` with `valid` means lost.
        domain_score: after a step of a surrogate, the distance of its input to the training data;
            above 1 it extrapolates.
        abstained, simulated: with `outside`, whether that was done in this step.

    Args:
        plant: name of a shipped plant, path of a folder, or a Plant.
        surrogate: None for the true simulator; else a surrogate's folder, or a learned `Model`,
            which must be a pytree with a pure JAX `step`.
        outside: what to do with a step whose input lies outside the surrogate's training data,
            `domain_score` above 1. "accept" what it predicts; "abstain": keep the state, reward 0,
            and truncate the episode; "simulate" this control period in true MuJoCo, from the same
            state, and try the surrogate again in the next one.
        task: None for the plant's own task.
        disturbances: whether the plant's disturbances act, drawn anew every episode.
        sensor_noise: whether the task's sensor noise is added to observations.
        duration: seconds after which an episode is truncated (None: the task's, inf: never).
        readout: on the true simulator, observe and reward what the task's `Readout` adds.
        render_mode: None, "rgb_array", or "human" for a window that each reset and step draws.
        width, height: of rendered images, pixels.

    Raises:
        InputError: no such plant or surrogate, a surrogate of another plant, a bad option.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 50}  # noqa: RUF012 (Gymnasium's type)

    def __init__(
        self,
        plant: str | Path | Plant,
        surrogate: str | Path | Model | None = None,
        *,
        outside: str = "accept",
        task: Task | None = None,
        disturbances: bool = True,
        sensor_noise: bool = False,
        duration: float | None = None,
        readout: bool = True,
        render_mode: str | None = None,
        width: int = 640,
        height: int = 480,
    ) -> None:
        self.plant = given_plant(plant)
        self.task = given_task(self.plant, task)
        self.surrogate = learned_model(surrogate, self.plant, self.task)
        self._outside = check_outside(outside, self.surrogate)
        self._guarded = None
        if self.surrogate is not None:
            self._guarded = Guarded(self.plant, self.surrogate, outside)
        self._display = Display(self.plant, render_mode, width, height)
        self.render_mode = render_mode
        fps = round(1.0 / self.plant.control_period)
        self.metadata = {"render_modes": render_modes(), "render_fps": fps}
        self._judge = Judge(self.task, self.surrogate is None, readout)
        self.observation_space = box(self._judge.channels)
        self.action_space = box(self.plant.actions)
        limit = self.task.duration if duration is None else duration
        self._max_steps = control_steps(self.plant, limit)
        self._begin = batch_task(self.task).start
        self._gusts = disturbances
        self._block = int(control_steps(self.plant, self.task.duration))
        noise = np.array([c.noise for c in self._judge.channels])
        self._noise = noise if sensor_noise else None
        self._low = np.array([a.low for a in self.plant.actions])
        self._high = np.array([a.high for a in self.plant.actions])
        self._spec: EnvSpec | None = None
        self._true: TruePlant | None = None
        self._design: np.ndarray | None = None
        self._state: State | None = None

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]
        """How `gymnasium.make` made it, with the number of steps after which it truncates."""
        return self._spec

    @spec.setter
    def spec(self, value: EnvSpec | None) -> None:
        self._spec = limited(value, self._max_steps)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode.

        One seed gives one start, one sequence of disturbances and one of sensor noise; switching
        one of the latter off leaves the rest as it was.

        Args:
            seed: of the start and of everything random in this and the following episodes.
            options: {"design": design vector [nd]} for this episode (else the nominal one), or
                {"state": State}, unbatched, to start from, which brings its own design. Its
                quaternions are normalised where they are off unit length by up to 1e-3.

        Raises:
            InputError: another option, a state of the wrong shape or with a quaternion that is not
                unit, a design outside its bounds.
        """
        super().reset(seed=seed)
        start_seed, gust_seed, noise_seed = self.np_random.integers(2**32, size=3, dtype=np.uint32)
        state, design = self._start(start_seed, own_options(options))
        if self._design is None or not np.array_equal(design, self._design):
            self.close()
            if self.surrogate is None:
                derived = self._judge.derived
                self._true = TruePlant(self.plant, 1, design[None], nthread=1, derived=derived)
                self._judge.watch(self._true)
            self._design = design  # last: MuJoCo may refuse the machine
        self._gust_source = np.random.default_rng(gust_seed)
        self._noise_source = np.random.default_rng(noise_seed)
        self._disturbances = np.zeros((0, self.plant.nw))
        self._steps = 0
        self._state = state
        self._display.show(state.qpos, design[None])
        return self._observation(self._judge.observe(state, np.zeros(1, int))), self._info(True)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold an action `[nu]` for one control period.

        Returns:
            Observation, reward, terminated, truncated, info; see the class. After a divergence the
            state is the last sound one.

        Raises:
            InputError: an action of the wrong shape or with NaN or infinity in it.
        """
        state = self._state
        if state is None:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        action = self._checked(action)[None]
        after, valid, extra = self._advance(state, action, self._disturbance()[None])
        observed, reward, lost = self._judge.judge(state, action, after)
        self._state = after
        self._steps += 1
        self._display.show(after.qpos, after.design)
        observation, info = self._observation(observed), {**self._info(valid), **extra}
        terminated = not valid or bool(np.asarray(lost)[0])
        truncated, paid = self._steps >= self._max_steps, float(np.asarray(reward)[0])
        if extra.get("abstained"):
            terminated, truncated, paid = False, True, 0.0
        return observation, paid, terminated, truncated, info

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Return an image uint8 `[height, width, 3]` of the current, or predicted, configuration.

        With render_mode "human" it returns None: the window is up to date already.

        Raises:
            InputError: OpenGL is not available, or there is no screen.
        """
        if self._state is None or self._design is None:
            raise gymnasium.error.ResetNeeded("call reset() before render()")
        images = self._display.images(self._state.qpos, self._design[None])
        return None if images is None else images[0]

    def close(self) -> None:
        """Free the renderer; a later `render` makes a new one."""
        self._display.close()

    def _advance(
        self, state: State, action: np.ndarray, disturbance: np.ndarray
    ) -> tuple[State, bool, dict[str, Any]]:
        """Return the next state, whether it is sound, and what else `info` tells of the step."""
        if self._true is not None:
            after = self._true.step(state, action, disturbance)
            return after, bool(self._true.valid[0]), {}
        assert self._guarded is not None and self._design is not None
        moved = self._guarded.step(state, action, disturbance, self._design[None])
        score = float(np.asarray(moved.domain_score)[0])
        extra: dict[str, Any] = {} if math.isnan(score) else {"domain_score": score}
        if moved.handled is not None:
            extra[OUTSIDE[self._outside]] = bool(moved.handled[0])
        return jax.tree.map(np.asarray, moved.state), bool(np.asarray(moved.valid)[0]), extra

    def _start(self, seed: np.uint32, options: dict[str, Any]) -> tuple[State, np.ndarray]:
        """Return the batched start, float64 `[1, ...]`, and its design vector `[nd]`."""
        state, design = start_options(self.plant, self.task, options)
        if design is None:
            design = self.plant.nominal
        if state is None:
            start = self._begin(seed, design)
            state = jax.tree.map(lambda x: np.array(x, float), start)
        state = state.replace(design=design)
        return jax.tree.map(lambda x: np.asarray(x)[None], state), design

    def _disturbance(self) -> np.ndarray:
        """Return this control period's disturbance `[nw]`, drawn a task's duration at a time."""
        if not self._gusts:
            return np.zeros(self.plant.nw)
        within = self._steps % self._block
        if within == 0:
            self._disturbances = disturbance_process(self.plant, self._gust_source, self._block)
        return self._disturbances[within]

    def _checked(self, action: np.ndarray) -> np.ndarray:
        try:
            values = np.asarray(action, float)
        except (TypeError, ValueError) as error:
            raise InputError(f"action: expected {self.plant.nu} numbers, got {action!r}") from error
        if values.shape != (self.plant.nu,):
            names = ", ".join(a.name for a in self.plant.actions)
            raise InputError(
                f"action: expected shape ({self.plant.nu},) ({names}), got {values.shape}"
            )
        if not np.isfinite(values).all():
            i = int(np.flatnonzero(~np.isfinite(values))[0])
            a = self.plant.actions[i]
            raise InputError(
                f"action {a.name}: expected {a.low:g} to {a.high:g} {a.unit}, got {values[i]}"
            )
        return np.minimum(np.maximum(values, self._low), self._high)

    def _observation(self, observed: Array) -> np.ndarray:
        values = np.asarray(observed)[0]
        if self._noise is not None:
            values = values + self._noise * self._noise_source.standard_normal(len(self._noise))
        space = self.observation_space
        assert isinstance(space, Box)
        return np.clip(values.astype(np.float32), space.low, space.high)

    def _info(self, valid: bool) -> dict[str, Any]:
        state = {name: np.array(getattr(self._state, name)[0], float) for name in FIELDS}
        return {"state": state, "valid": valid}


def box(channels: tuple[Channel, ...]) -> Box:
    low = np.array([c.low for c in channels], np.float32)
    return Box(low, np.array([c.high for c in channels], np.float32), dtype=np.float32)


def limited(spec: EnvSpec | None, steps: float) -> EnvSpec | None:
    """Return a spec that tells of a limit in control periods, unless its own is shorter."""
    if spec is None or math.isinf(steps):
        return spec
    own = spec.max_episode_steps
    return dataclasses.replace(spec, max_episode_steps=min(int(steps), own or int(steps)))
