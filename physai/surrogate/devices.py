"""Training on several devices: who holds which members, and which part of their batches.

The devices form a mesh with axes `members` and `batch`. Members share nothing, so that spreading
them costs no exchange; along `batch` the devices see parts of a member's batch and add up their
gradients. What is computed is the same for any mesh, up to the order of these sums.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

MEMBERS, BATCH = "members", "batch"


def divide(members: int, batch: int, devices: int) -> tuple[int, int]:
    """Return the shape of the mesh: devices along members, and along each member's batch.

    Each divides what it is laid along, and of such meshes this one has the most devices; of those
    with equally many, the one that spreads members the widest. Devices may be left over: 3 members
    with batches of 8 take 4 devices of 5.
    """
    shapes = (
        (along_members, along_batch)
        for along_members in _divisors(members, devices)
        for along_batch in _divisors(batch, devices // along_members)
    )
    return max(shapes, key=lambda shape: (shape[0] * shape[1], shape[0]))


def device_mesh(members: int, batch: int) -> Mesh:
    """Return the mesh of this process's devices for `members` that each see `batch` examples."""
    devices = jax.local_devices()
    shape = divide(members, batch, len(devices))
    return Mesh(np.array(devices[: shape[0] * shape[1]]).reshape(shape), (MEMBERS, BATCH))


def along(mesh: Mesh, *axes: str) -> NamedSharding:
    """Return the sharding whose leading dimensions lie along these axes of the mesh.

    Without axes every device holds a copy.
    """
    return NamedSharding(mesh, PartitionSpec(*axes))


def record_of(members: int, batch: int) -> dict[str, Any]:
    """Return what a surrogate's card tells of the devices it was fitted on.

    Args:
        members: of the ensemble.
        batch: examples that a member sees in a step.

    Returns:
        `platform` (cpu, gpu, tpu), `local` (how many there are), and the shape of the `mesh`.
    """
    devices = jax.local_devices()
    return {
        "platform": devices[0].platform,
        "local": len(devices),
        "mesh": dict(device_mesh(members, batch).shape),
    }


def _divisors(number: int, most: int) -> list[int]:
    return [d for d in range(1, min(number, most) + 1) if number % d == 0]
