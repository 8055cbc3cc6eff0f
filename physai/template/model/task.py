"""What __NAME__ has to do, as far as it differs from the default task.

The default task is to reach the first key frame, or the rest pose, and to hold it. Name here what
you want otherwise, any of: reset, excitation, observe and OBSERVATIONS (both or none), reward,
terminated, settling, COMMANDS, DURATION, REQUIREMENTS, OBJECTIVES. Or define all of it at once, as
TASK: `physai new NAME` without --model writes an example.

Functions are pure jax.numpy on one State: jnp.where in place of if, smooth where they can be.
"""

from __future__ import annotations

DURATION = 4.0  # s, of an episode

# What the state holds:
# __STATE__

# Actions, which reward gets in this order:
# __ACTIONS__

# What the controller sees by default:
# __OBSERVATIONS__

# What verification judges by default, in the last second:
# __REQUIREMENTS__

# A reward of your own, as an example: rest, with little effort. state.command and state.design are
# there too.
# import jax
# import jax.numpy as jnp
#
# from physai.state import State
#
# def reward(state: State, action: jax.Array, next_state: State) -> jax.Array:
#     return -jnp.sum(jnp.square(next_state.qvel)) - 0.01 * jnp.sum(jnp.square(action))
