"""Closed-loop flight inside a surrogate: many machines at once, as one differentiable scan.

Every imagined machine has a design, gusts, sensor noise and perhaps a period of delay of its own,
drawn from what verification will draw from, so that the policy meets them before the judge does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physai.control.policy import Policy, policy_action
from physai.plant import Plant
from physai.state import State
from physai.surrogate.model import Surrogate
from physai.task import Task


@dataclass(frozen=True)
class Conditions:
    """What imagined machines meet.

    Attributes:
        design_spread: half width of the uniform design distribution around the nominal one, as a
            share of each variable's range; 1 draws from the whole design space.
        gusts: scale of the plant's disturbance processes; each machine draws up to twice that.
        sensor_noise: scale of the task's sensor noise.
        delayed: share of machines whose actions come one control period late.
    """

    design_spread: float = 0.2
    gusts: float = 1.0
    sensor_noise: float = 1.0
    delayed: float = 0.5


class Machines(NamedTuple):
    """A batch of imagined machines `[n, ...]`."""

    state: State
    held: jax.Array  # the action of the last period [n, nu]
    gust: jax.Array  # unit-variance disturbance processes [n, nw]
    gust_scale: jax.Array  # [n]
    delayed: jax.Array  # [n] bool
    observation: jax.Array  # [n, no]
    deadline: jax.Array  # seconds after which the machine starts anew [n]


class Flight(NamedTuple):
    """One period of all machines, stacked over time by a scan."""

    observation: jax.Array  # what the policy saw [n, no]
    after: jax.Array  # what it would see next, before any restart [n, no]
    reward: jax.Array  # [n]
    disagreement: jax.Array  # [n]
    terminated: jax.Array  # [n] bool
    restarted: jax.Array  # [n] bool, terminated or at its deadline


class Imagination:
    """The pure functions of closed-loop flight for one surrogate, task and set of conditions."""

    def __init__(self, plant: Plant, task: Task, conditions: Conditions) -> None:
        self.task, self.conditions = task, conditions
        self.period = plant.control_period
        self.trim = jnp.asarray(plant.trim, jnp.float32)
        self.low = jnp.array([v.low for v in plant.design], jnp.float32)
        self.high = jnp.array([v.high for v in plant.design], jnp.float32)
        self.nominal = jnp.asarray(plant.nominal, jnp.float32)
        self.noise = jnp.asarray(task.observation_noise, jnp.float32)
        d = plant.disturbances
        self.gust_std = jnp.array([c.std for c in d], jnp.float32)
        self.gust_low = jnp.array([c.low for c in d], jnp.float32)
        self.gust_high = jnp.array([c.high for c in d], jnp.float32)
        memory = np.exp([-plant.control_period / c.correlation_time for c in d])
        self.memory = jnp.asarray(memory, jnp.float32)

    def start(self, key: jax.Array, n: int) -> Machines:
        """Draw `n` machines at the start of their episodes."""
        return jax.vmap(self._start)(jax.random.split(key, n))

    def _start(self, key: jax.Array) -> Machines:
        keys = jax.random.split(key, 7)
        spread = self.conditions.design_spread * (self.high - self.low)
        offset = jax.random.uniform(keys[0], self.nominal.shape, minval=-1.0)
        design = jnp.clip(self.nominal + spread * offset, self.low, self.high)
        if self.conditions.design_spread >= 1.0:
            design = self.low + (self.high - self.low) * 0.5 * (1.0 + offset)
        state = self.task.reset(keys[1], design)
        return Machines(
            state=state,
            held=self.trim,
            gust=jax.random.normal(keys[2], self.gust_std.shape),
            gust_scale=self.conditions.gusts * 2.0 * jax.random.uniform(keys[3]),
            delayed=jax.random.uniform(keys[4]) < self.conditions.delayed,
            observation=self._sense(keys[5], state),
            deadline=self.task.duration * jax.random.uniform(keys[6], minval=0.4),
        )

    def _sense(self, key: jax.Array, state: State) -> jax.Array:
        noise = self.conditions.sensor_noise * self.noise
        return self.task.observe(state) + noise * jax.random.normal(key, noise.shape)

    def fly(self, surrogate: Surrogate, policy: Policy, m: Machines, key: jax.Array):
        """Advance every machine by one control period; differentiable in the policy.

        Returns:
            The machines and the period's `Flight`. A machine that ended starts anew, and gradients
            do not pass through that.
        """
        n = m.held.shape[0]
        gust_key, sense_key, start_key = jax.random.split(key, 3)
        action = policy_action(policy, m.observation)
        applied = jnp.where(m.delayed[:, None], m.held, action)
        gust = jnp.clip(m.gust_scale[:, None] * self.gust_std * m.gust, self.gust_low, self.gust_high)
        after, disagreement = surrogate.step_with_spread(m.state, applied, gust)
        reward = jax.vmap(self.task.reward)(m.state, applied, after)
        terminated = jax.vmap(self.task.terminated)(after)
        restarted = terminated | (after.time >= m.deadline)
        seen = jax.vmap(self._sense)(jax.random.split(sense_key, n), after)
        shock = jax.random.normal(gust_key, m.gust.shape)
        gust_next = self.memory * m.gust + jnp.sqrt(1.0 - self.memory**2) * shock
        going_on = m._replace(state=after, held=action, gust=gust_next, observation=seen)
        anew = self.start(start_key, n)

        def choose(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(restarted.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)

        flight = Flight(m.observation, seen, reward, disagreement, terminated, restarted)
        return jax.tree.map(choose, anew, going_on), flight
