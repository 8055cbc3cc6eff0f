"""Closed-loop flight inside a surrogate: many machines at once, as one differentiable scan.

Every imagined machine has a design, gusts, sensor noise and perhaps a period of delay of its own,
drawn from what verification will draw from, so that the policy meets them before the judge does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physai.control.policy import Policy, policy_action
from physai.plant import Plant
from physai.settings import check_number
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
        upset: share of machines that start as data collection does, wider than the task, so that
            the policy learns to recover from what a flight should not come to.
    """

    design_spread: float = 0.25
    gusts: float = 1.0
    sensor_noise: float = 1.0
    delayed: float = 0.5
    upset: float = 0.2

    def __post_init__(self) -> None:
        """Refuse what no machine can meet."""
        check_number(self, "design_spread", "delayed", "upset", least=0.0, most=1.0)
        check_number(self, "gusts", "sensor_noise", least=0.0)


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
        reset_key, uniform_key, normal_key = jax.random.split(key, 3)
        nd, nw = self.nominal.size, self.gust_std.size
        uniform = jax.random.uniform(uniform_key, (n, nd + 4))
        normal = jax.random.normal(normal_key, (n, nw + self.noise.size))
        share = self.conditions.design_spread
        if share >= 1.0:
            design = self.low + (self.high - self.low) * uniform[:, :nd]
        else:
            offset = share * (self.high - self.low) * (2.0 * uniform[:, :nd] - 1.0)
            design = jnp.clip(self.nominal + offset, self.low, self.high)
        keys = jax.random.split(reset_key, n)
        state = jax.vmap(self.task.reset)(keys, design)
        if self.task.excitation is not None and self.conditions.upset > 0.0:
            wider = jax.vmap(self.task.excitation)(keys, design)
            upset = uniform[:, nd + 3] < self.conditions.upset
            state = jax.tree.map(partial(_choose, upset), wider, state)
        return Machines(
            state=state,
            held=jnp.tile(self.trim, (n, 1)),
            gust=normal[:, :nw],
            gust_scale=2.0 * self.conditions.gusts * uniform[:, nd],
            delayed=uniform[:, nd + 1] < self.conditions.delayed,
            observation=jax.vmap(self._sense)(state, normal[:, nw:]),
            # Up to twice the task's duration: holding the goal needs practice as reaching it does.
            deadline=self.task.duration * (0.5 + 1.5 * uniform[:, nd + 2]),
        )

    def _sense(self, state: State, unit_noise: jax.Array) -> jax.Array:
        noise = self.conditions.sensor_noise * self.noise
        return self.task.observe(state) + noise * unit_noise

    def fly(
        self,
        surrogate: Surrogate,
        policy: Policy,
        machines: Machines,
        key: jax.Array,
        horizon: int,
    ) -> tuple[Machines, Flight]:
        """Fly every machine for `horizon` control periods; differentiable in the policy.

        Returns:
            The machines and the flight `[horizon, n, ...]`. A machine that ended starts anew, and
            gradients do not pass through that.
        """
        n = machines.held.shape[0]
        keys = jax.random.split(key, 3)
        # Everything random is drawn at once: random numbers inside the scan would cost more to
        # compile and to run than the surrogate.
        shocks = jax.random.normal(keys[0], (horizon, *machines.gust.shape))
        noise = jax.random.normal(keys[1], (horizon, *machines.observation.shape))
        fresh = self.start(keys[2], n)

        def period(m: Machines, drawn: tuple[jax.Array, jax.Array]) -> tuple[Machines, Flight]:
            return self._period(surrogate, policy, m, fresh, *drawn)

        # Recomputing a period in the backward pass is cheaper than storing its many small arrays.
        return jax.lax.scan(jax.checkpoint(period), machines, (shocks, noise))

    def _period(
        self,
        surrogate: Surrogate,
        policy: Policy,
        m: Machines,
        fresh: Machines,
        shock: jax.Array,
        noise: jax.Array,
    ) -> tuple[Machines, Flight]:
        action = policy_action(policy, m.observation)
        applied = jnp.where(m.delayed[:, None], m.held, action)
        gust = m.gust_scale[:, None] * self.gust_std * m.gust
        gust = jnp.clip(gust, self.gust_low, self.gust_high)
        after, disagreement = surrogate.step_with_spread(m.state, applied, gust)
        reward = jax.vmap(self.task.reward)(m.state, applied, after)
        terminated = jax.vmap(self.task.terminated)(after)
        restarted = terminated | (after.time >= m.deadline)
        seen = jax.vmap(self._sense)(after, noise)
        gust_next = self.memory * m.gust + jnp.sqrt(1.0 - self.memory**2) * shock
        going_on = m._replace(state=after, held=action, gust=gust_next, observation=seen)

        flight = Flight(m.observation, seen, reward, disagreement, terminated, restarted)
        return jax.tree.map(partial(_choose, restarted), fresh, going_on), flight


def _choose(which: jax.Array, one: jax.Array, other: jax.Array) -> jax.Array:
    """Take rows of `one` where `which [n]` is true, else rows of `other`."""
    return jnp.where(which.reshape((-1,) + (1,) * (one.ndim - 1)), one, other)
