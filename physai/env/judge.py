"""What an environment makes of states: observations, rewards, ends; with the simulator's readout.

Of the true simulator's states, which are float64, it computes in float64: a speed that is told from
two positions would otherwise lose digits far from the origin.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physai.env.model import batch_task
from physai.rollout.engine import TruePlant
from physai.state import Array, State
from physai.task import ObservationChannel, Readout, Task


class Judgement(NamedTuple):
    """What a step came to: observation `[n, no]` of the next state, reward and end `[n]`."""

    observation: Array
    reward: Array
    terminated: Array


class Judge:
    """Observes and judges n simulations, learned ones or, after `watch`, those of a `TruePlant`.

    Attributes:
        channels: what `observe` returns, in order.

    Args:
        task: what there is to do.
        exact: the states are those of the true simulator.
        readout: show what `Task.readout` says, if the states are of the true simulator.
    """

    def __init__(self, task: Task, exact: bool, readout: bool) -> None:
        self._functions, self._exact = batch_task(task), exact
        self._readout = task.readout if exact and readout else None
        self._shown = () if self._readout is None else self._readout.observations
        self.channels: tuple[ObservationChannel, ...] = (*task.observations, *self._shown)
        self._true: TruePlant | None = None
        self._readings = np.zeros((0, 0))

    @property
    def derived(self) -> bool:
        """Whether the `TruePlant` to watch has to be made with `derived`."""
        return self._readout is not None

    def watch(self, true: TruePlant) -> None:
        """Read from these simulations from now on."""
        self._true, self._readings = true, np.zeros((0, 0))

    def observe(self, state: State, started: np.ndarray) -> Array:
        """Return observations `[n, no]`, not clipped, of which rows `started` [k] were reset."""
        values = self._call(self._functions.observe, state)
        if self._readout is None:
            return values
        assert self._true is not None
        self._true.place(state)
        found = self._true.readings(self._readout.read, started, np.zeros(len(started), bool))
        if len(self._readings) != self._true.nsim:
            self._readings = np.zeros((self._true.nsim, found.shape[1]))
        self._readings[started] = found
        return self._joined(values)

    def judge(self, state: State, action: Array, after: State) -> Judgement:
        """Judge a step that was just taken; actions `[n, nu]`."""
        found = Judgement(*self._call(self._functions.judge, state, action, after))
        if self._readout is None:
            return found
        assert self._true is not None
        everyone, before = np.arange(self._true.nsim), self._readings
        self._readings = self._true.readings(self._readout.read, everyone, everyone >= 0)
        reward = _rewards(self._readout)
        paid = self._call(reward, state, action, after, before, self._readings)
        return found._replace(observation=self._joined(found.observation), reward=paid)

    def _joined(self, values: Array) -> np.ndarray:
        return np.concatenate([np.asarray(values), self._readings[:, : len(self._shown)]], axis=1)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if not self._exact:
            return function(*arguments)
        with jax.enable_x64(True):
            return jax.tree.map(np.asarray, function(*arguments))


@lru_cache(maxsize=32)
def _rewards(readout: Readout) -> Callable[..., jax.Array]:
    return jax.jit(jax.vmap(lambda *a: jnp.asarray(readout.reward(*a))))
