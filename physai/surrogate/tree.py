"""How the bodies, joints and actuators of a machine hang together; static under jit.

Everything here is plain numpy and depends on a machine's structure alone: 0-1 arrays and indices
with which `physai.surrogate.frames` and `physai.surrogate.rigid` treat all bodies at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from physai.state import VELOCITY_WIDTH, Joint

Constants = dict[str, Any]
"""Numbers of a model by name, `physai.surrogate.known` reads them from MuJoCo."""


class Actuator(NamedTuple):
    """One actuator whose force is known.

    Attributes:
        channel: index into the concatenated actions and disturbances.
        activation: index into act, -1 for none.
        body: of the site that it pushes, -1 where it drives joints.
        fixed: the direction in which it pushes a site is the world's, not the body's.
    """

    channel: int
    activation: int
    body: int
    fixed: bool


@dataclass(frozen=True)
class Tree:
    """How bodies, joints and actuators hang together; static under jit.

    Attributes:
        parents: of every body; body 0 is the world.
        joints: of every joint, in order of the degrees of freedom: its body and where it sits.
        actuators: those whose force is known.
    """

    parents: tuple[int, ...]
    joints: tuple[tuple[int, Joint], ...]
    actuators: tuple[Actuator, ...]

    @property
    def nv(self) -> int:
        """Number of degrees of freedom."""
        return sum(VELOCITY_WIDTH[joint.kind] for _, joint in self.joints)

    @property
    def nq(self) -> int:
        """Number of coordinates."""
        return self.nv + sum(joint.kind in ("free", "ball") for _, joint in self.joints)


class Links(NamedTuple):
    """Joints as a chain: those of a body one after the other, each a link that carries the next.

    A body without joints is a link too, and so is the world, the first. Links are in the order of
    bodies and joints.

    Attributes:
        before: of every link, the one that carries it; the world's is itself.
        levels: links as far from the world as each other, without the world.
        body: of every link.
        joint: of every link, 0 where it has none.
        first: 1 where a link is its body's first, and not a free joint's `[n, 1]`.
        kind: of every link's joint, "" where it has none.
        sums: adds up steps from body 1's frame to every link's `[n, n]`.
        of_body: the last link of every body.
    """

    before: np.ndarray
    levels: tuple[np.ndarray, ...]
    body: np.ndarray
    joint: np.ndarray
    first: np.ndarray
    kind: np.ndarray
    sums: np.ndarray
    of_body: np.ndarray

    def are(self, *kinds: str) -> np.ndarray:
        """Return 1 for the links whose joint is of these kinds, else 0 `[n, 1]`."""
        return np.isin(self.kind, kinds).astype(np.float32)[:, None]


@lru_cache(maxsize=32)
def links_of(tree: Tree) -> Links:
    """Return the links of a tree."""
    before, depth, body, joint, kind, first = [0], [0], [0], [0], [""], [0.0]
    last = [0]
    for b, parent in enumerate(tree.parents[1:], 1):
        own = [(i, j.kind) for i, (where, j) in enumerate(tree.joints) if where == b]
        carrier = last[parent]
        for k, (index, name) in enumerate(own or [(0, "")]):
            before.append(carrier)
            depth.append(depth[carrier] + 1)
            body.append(b)
            joint.append(index)
            kind.append(name)
            first.append(float(k == 0 and name != "free"))
            carrier = len(before) - 1
        last.append(carrier)
    sums = np.eye(len(before))
    for link, carrier in enumerate(before[1:], 1):
        sums[link] += sums[carrier]
    # From body 1, near the machine: its distance from the origin then costs no digits.
    sums -= sums[last[min(1, len(last) - 1)]]
    levels = tuple(np.flatnonzero(np.equal(depth, d)) for d in range(1, max(depth) + 1))
    return Links(
        np.array(before),
        levels,
        np.array(body),
        np.array(joint),
        np.array(first, np.float32)[:, None],
        np.array(kind),
        sums,
        np.array(last),
    )


class Dofs(NamedTuple):
    """Degrees of freedom, in order.

    Attributes:
        link: of the joint.
        frame: link with whose frame the axis turns, the world's for a free joint's translations.
        joint: index of the joint.
        single: 1 for hinges and slides, whose axis the model gives `[nv, 1]`.
        unit: axes of the others `[nv, 3, 1]`, 0 for hinges and slides.
        turning: 1 for what turns, 0 for what translates `[nv, 1]`.
        owner: the body.
        path: degrees of freedom that move a body `[nb, nv]`.
        before: those whose motion turns the axis of each `[nv, nv]`.
        below: bodies of each body's subtree `[nb, nb]`.
        ancestors: of each, the degrees of freedom before it on its path.
        descendants: of each, those that have it as an ancestor.
    """

    link: np.ndarray
    frame: np.ndarray
    joint: np.ndarray
    single: np.ndarray
    unit: np.ndarray
    turning: np.ndarray
    owner: np.ndarray
    path: np.ndarray
    before: np.ndarray
    below: np.ndarray
    ancestors: tuple[tuple[int, ...], ...]
    descendants: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=32)
def dofs_of(tree: Tree) -> Dofs:
    """Return the degrees of freedom of a tree."""
    nb, nv, links = len(tree.parents), tree.nv, links_of(tree)
    index, link, frame, owner = (np.zeros(nv, int) for _ in range(4))
    single, turning, unit = np.zeros((nv, 1)), np.zeros((nv, 1)), np.zeros((nv, 3, 1))
    path, before = np.zeros((nb, nv)), np.zeros((nv, nv))
    place = {int(links.joint[i]): i for i in range(len(links.joint)) if links.kind[i]}
    for body, parent in enumerate(tree.parents):
        path[body] = path[parent]
        for number, (where, joint) in enumerate(tree.joints):
            if where != body:
                continue
            first, last = joint.qvel_index, joint.qvel_index + VELOCITY_WIDTH[joint.kind]
            # A free translation is seen from the world; a rotation turns with all before it.
            turns = {"free": last - 3, "slide": last}.get(joint.kind, first)
            seen = last - 3 if joint.kind == "free" else first
            index[first:last], owner[first:last] = number, body
            link[first:last] = frame[seen:last] = place[number]
            turning[turns:last] = 1.0
            if joint.kind in ("hinge", "slide"):
                single[first] = 1.0
            else:
                unit[first:last, :, 0] = np.tile(np.eye(3), ((last - first) // 3, 1))
            path[body, first:seen] = 1.0
            before[seen:last] = path[body]
            path[body, first:last] = 1.0
    below = np.eye(nb)
    for body in range(nb - 1, 0, -1):
        below[tree.parents[body]] += below[body]
    above = np.tril(path[owner], -1) > 0.0
    return Dofs(
        link, frame, index, single, unit, turning, owner, path, before, below,
        tuple(tuple(np.flatnonzero(row).tolist()) for row in above),
        tuple(tuple(np.flatnonzero(row).tolist()) for row in above.T),
    )  # fmt: skip


@lru_cache(maxsize=32)
def picks(tree: Tree) -> dict[str, np.ndarray]:
    """Return 0-1 arrays that pick coordinates out of qpos.

    Returns:
        "link" `[n, nq]` and "dof" `[nv, nq]`: of hinges and slides, "place" `[3, n, nq]`: of free
        joints, "turn" `[4, n, nq]`: quaternions.
    """
    links = links_of(tree)
    n = len(links.body)
    link, dof = np.zeros((n, tree.nq)), np.zeros((tree.nv, tree.nq))
    place, turn = np.zeros((3, n, tree.nq)), np.zeros((4, n, tree.nq))
    for i in range(n):
        joint = tree.joints[links.joint[i]][1] if links.kind[i] else None
        if joint is None:
            continue
        q = joint.qpos_index
        if joint.kind in ("hinge", "slide"):
            link[i, q] = dof[joint.qvel_index, q] = 1.0
            continue
        if joint.kind == "free":
            place[np.arange(3), i, q + np.arange(3)] = 1.0
            q += 3
        turn[np.arange(4), i, q + np.arange(4)] = 1.0
    return {"link": link, "dof": dof, "place": place, "turn": turn}
