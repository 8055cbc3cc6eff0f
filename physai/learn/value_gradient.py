"""Short-horizon actor-critic: gradients go through the surrogate, a critic sees the rest.

For machines s_0 drawn by `Imagination`, horizon H and discount g, the policy ascends

    J = mean[ sum_{t<H} g^t (r_t - p d_t) + g^H V(s_H) ]

through the differentiable surrogate; d_t is the ensemble's disagreement and p its price. The critic
V is fitted to TD(lambda) targets of the same flights.

Reference: Xu et al., "Accelerated policy learning with parallel differentiable simulation", 2022,
equations 5 to 7, arXiv:2204.07137. Disagreement as a price: Yu et al., "MOPO: model-based offline
policy optimization", 2020, equation 6, arXiv:2005.13239.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from physai.control.policy import Policy
from physai.learn.imagination import Flight, Imagination, Machines
from physai.settings import check_number, check_whole
from physai.surrogate.model import Surrogate


@dataclass(frozen=True)
class LearnSettings:
    """How to learn.

    Attributes:
        hidden: widths of the policy's hidden layers.
        critic_hidden: widths of the critic's hidden layers.
        machines: imagined machines side by side.
        horizon: control periods that a policy gradient looks ahead.
        updates: policy updates, rounded up to a multiple of 10.
        policy_rate: initial learning rate of the policy, falling to a hundredth.
        critic_rate: learning rate of the critic.
        critic_passes: critic updates a policy update.
        discount: g, a control period.
        trace: lambda of the critic's targets.
        members: members of the ensemble, drawn anew each update, that the machines fly on.
        disagreement_price: p, reward a unit of disagreement.
    """

    hidden: tuple[int, ...] = (64, 64)
    critic_hidden: tuple[int, ...] = (64, 64)
    machines: int = 192
    horizon: int = 32
    updates: int = 600
    policy_rate: float = 8e-3
    critic_rate: float = 3e-3
    critic_passes: int = 4
    discount: float = 0.98
    trace: float = 0.95
    members: int = 2
    disagreement_price: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be learned with."""
        check_whole(self, "hidden", "critic_hidden", "machines", "horizon", "updates", least=1)
        check_whole(self, "critic_passes", "members", least=1)
        check_number(self, "policy_rate", "critic_rate", above=0.0)
        check_number(self, "discount", above=0.0, below=1.0)
        check_number(self, "trace", least=0.0, most=1.0)
        check_number(self, "disagreement_price", least=0.0)


class Critic(NamedTuple):
    """Weights and biases of the value network, on the policy's normalised observation."""

    weights: tuple[jax.Array, ...]
    biases: tuple[jax.Array, ...]


class LearnState(NamedTuple):
    """Everything learning needs to go on."""

    policy: Policy
    critic: Critic
    target: Critic
    policy_optimiser: Any
    critic_optimiser: Any
    machines: Machines


def init_critic(key: jax.Array, inputs: int, hidden: tuple[int, ...]) -> Critic:
    """Draw a critic whose first values are near zero."""
    widths = (inputs, *hidden, 1)
    keys = jax.random.split(key, len(widths) - 1)
    weights = [
        jax.random.normal(k, (n, m)) / jnp.sqrt(n)
        for k, n, m in zip(keys, widths[:-1], widths[1:], strict=True)
    ]
    weights[-1] = 0.01 * weights[-1]
    return Critic(tuple(weights), tuple(jnp.zeros(m) for m in widths[1:]))


def value(critic: Critic, policy: Policy, observation: jax.Array) -> jax.Array:
    """Return the expected discounted return `[...]` of observations `[..., no]`."""
    x = (observation - policy.observation_mean) / policy.observation_std
    x = jnp.clip(x, -10.0, 10.0)
    for weight, bias in zip(critic.weights[:-1], critic.biases[:-1], strict=True):
        x = jax.nn.silu(x @ weight + bias)
    return (x @ critic.weights[-1] + critic.biases[-1])[..., 0]


def optimisers(settings: LearnSettings) -> tuple[optax.GradientTransformation, ...]:
    """Return the optimisers of policy and critic."""
    schedule = optax.cosine_decay_schedule(settings.policy_rate, settings.updates, alpha=0.01)
    policy = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b1=0.7, b2=0.95))
    critic = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(settings.critic_rate))
    # One vector instead of a dozen leaves: less to compile, and less to run on a CPU.
    return optax.flatten(policy), optax.flatten(critic)


def init_learning(
    policy: Policy, imagination: Imagination, settings: LearnSettings, key: jax.Array
) -> LearnState:
    """Return the state before the first update."""
    policy_optimiser, critic_optimiser = optimisers(settings)

    @jax.jit
    def first(policy: Policy, key: jax.Array) -> LearnState:
        critic_key, machines_key = jax.random.split(key)
        critic = init_critic(critic_key, policy.no, settings.critic_hidden)
        return LearnState(
            policy,
            critic,
            critic,
            policy_optimiser.init(_trained(policy)),
            critic_optimiser.init(critic),
            imagination.start(machines_key, settings.machines),
        )

    return first(policy, key)


def update_policy(
    imagination: Imagination, settings: LearnSettings, updates: int
) -> Callable[[LearnState, Surrogate, jax.Array], tuple[LearnState, jax.Array]]:
    """Compile `updates` updates as one scan; returns state and mean reward a period `[updates]`."""
    policy_optimiser, critic_optimiser = optimisers(settings)

    def objective(trained: Any, state: LearnState, surrogate: Surrogate, key: jax.Array):
        policy = _with_trained(state.policy, trained)
        machines, flight = imagination.fly(surrogate, policy, state.machines, key, settings.horizon)
        return -jnp.mean(machine_returns(state, flight, settings)), (machines, flight)

    def one(state: LearnState, surrogate: Surrogate, key: jax.Array):
        key, member_key = jax.random.split(key)
        surrogate = surrogate.subset(member_key, settings.members)
        trained = _trained(state.policy)
        gradient, (machines, flight) = jax.grad(objective, has_aux=True)(
            trained, state, surrogate, key
        )
        # One machine that left the surrogate's domain must not spoil the update of all.
        gradient = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), gradient)
        step, policy_state = policy_optimiser.update(gradient, state.policy_optimiser, trained)
        changed: Any = optax.apply_updates(trained, step)
        policy = _with_trained(state.policy, changed)
        machines = jax.lax.stop_gradient(machines)
        state = state._replace(policy=policy, policy_optimiser=policy_state, machines=machines)
        state = _fit_critic(state, jax.lax.stop_gradient(flight), settings, critic_optimiser)
        return state, jnp.mean(flight.reward)

    @jax.jit
    def run(state: LearnState, surrogate: Surrogate, key: jax.Array):
        keys = jax.random.split(key, updates)
        return jax.lax.scan(lambda s, k: one(s, surrogate, k), state, keys)

    return run


def machine_returns(state: LearnState, flight: Flight, settings: LearnSettings) -> jax.Array:
    """Discounted reward of each machine `[n]` with the critic's value wherever a stretch ends."""
    ends = flight.restarted.at[-1].set(True)
    values = value(state.target, state.policy, flight.after)
    bootstrap = jnp.where(ends & ~flight.terminated, settings.discount * values, 0.0)
    loss_of_machine = _failure_value(settings) * flight.terminated
    gain = flight.reward - settings.disagreement_price * flight.disagreement
    gain = gain + bootstrap + loss_of_machine

    def discounted(carry: jax.Array, now: tuple[jax.Array, jax.Array]):
        weight = carry
        reward, restarted = now
        return jnp.where(restarted, 1.0, settings.discount * weight), weight * reward

    ones = jnp.ones(gain.shape[1])
    _, terms = jax.lax.scan(discounted, ones, (gain, flight.restarted))
    return jnp.sum(terms, axis=0)


def _failure_value(settings: LearnSettings) -> float:
    """A lost machine is worth this much: a long stay at a cost of 5 a period."""
    return -5.0 / (1.0 - settings.discount)


def critic_goals(state: LearnState, flight: Flight, settings: LearnSettings) -> jax.Array:
    """Return the TD(lambda) targets `[horizon, n]` of a flight's observations.

    Reference: Sutton and Barto, "Reinforcement learning", 2018, equation 12.18.
    """
    after = value(state.target, state.policy, flight.after)
    reward = flight.reward - settings.disagreement_price * flight.disagreement
    last = jnp.where(flight.terminated, _failure_value(settings), settings.discount * after)

    def backward(following: jax.Array, now: tuple[jax.Array, ...]):
        reward, after, last, restarted = now
        blend = (1.0 - settings.trace) * after + settings.trace * following
        goal = reward + jnp.where(restarted, last, settings.discount * blend)
        return goal, goal

    series = (reward, after, last, flight.restarted)
    return jax.lax.scan(backward, after[-1], series, reverse=True)[1]


def _fit_critic(
    state: LearnState,
    flight: Flight,
    settings: LearnSettings,
    optimiser: optax.GradientTransformation,
) -> LearnState:
    # A machine that left the surrogate's domain may return anything; bound what the critic learns.
    goals = critic_goals(state, flight, settings)
    goals = jnp.clip(jnp.nan_to_num(goals), _failure_value(settings), -_failure_value(settings))

    def loss(critic: Critic) -> jax.Array:
        error = value(critic, state.policy, flight.observation) - goals
        return jnp.mean(optax.huber_loss(error, delta=10.0))

    def step(carry: tuple[Critic, Any], _: None):
        critic, optimiser_state = carry
        update, optimiser_state = optimiser.update(jax.grad(loss)(critic), optimiser_state, critic)
        changed: Any = optax.apply_updates(critic, update)
        return (changed, optimiser_state), None

    (critic, optimiser_state), _ = jax.lax.scan(
        step, (state.critic, state.critic_optimiser), None, length=settings.critic_passes
    )
    target = optax.incremental_update(critic, state.target, 0.5)
    return state._replace(critic=critic, target=target, critic_optimiser=optimiser_state)


def _trained(policy: Policy) -> tuple[Any, Any]:
    return policy.weights, policy.biases


def _with_trained(policy: Policy, trained: tuple[Any, Any]) -> Policy:
    return replace(policy, weights=trained[0], biases=trained[1])
