"""Starts that satisfy a model's equality constraints: closed loops, coupled joints, welds.

A configuration drawn at random would break them, and the first step would tear it back with any
force. So a bank is drawn once: random ways from the goal, in short steps, each step projected onto

    r(q) = 0,   MuJoCo's own residual,   by   dq = -S (J S)^T (J S S J^T + c I)^-1 r

(Gauss and Newton's method with a little damping, for rows that say the same twice; S scales metres
and radians alike). A way of short steps stays on the goal's branch of the mechanism: the other way
of assembling a four-bar linkage can be projected to as well, and not be reached from.

Reference: Shabana, "Dynamics of multibody systems", 4th edition, 2013, section 3.5.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import mujoco
import numpy as np

BANK = 256
LEAST = 16
"""Starts of a bank below which it is none."""
TOLERANCE = 1e-6
"""Of the residual, in m and rad, times the model's extent where that is below 1 m."""
_LEGS = 4  # of a way from the goal, for each of the two banks
_ITERATIONS = 12
_DAMPING = 1e-9
_SIZE = 32 * 32 * BANK  # ways times the square of the degrees of freedom: some seconds
_PATIENCE = 8  # ways that fail before the first that does not


class Bank(NamedTuple):
    """Starts about the goal that satisfy the constraints.

    Attributes:
        near: configurations of `reset` `[n, nq]`; the goal alone where too few were found.
        far: those of the wider excitation `[m, nq]`.
        speed: velocities there, along the constraints `[m, nv]`.
        found: how many ways from the goal satisfied them to both ends.
        broken: whether the goal itself breaks the constraints.
    """

    near: np.ndarray
    far: np.ndarray
    speed: np.ndarray
    found: int
    broken: bool


def constrained(model: mujoco.MjModel) -> bool:
    """Tell whether equality constraints act, from the start and on the whole."""
    off = model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_EQUALITY
    return bool(not off and model.neq and np.any(model.eq_active0))


def draw_bank(
    model: mujoco.MjModel,
    goal: np.ndarray,
    reach: np.ndarray,
    scale: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> Bank:
    """Draw starts that satisfy the equality constraints, the same ones every time.

    Args:
        model: the model, at its nominal design.
        goal: configuration about which they lie `[nq]`.
        reach: how far from it `near` starts lie before they are projected, m and rad `[nv]`; `far`
            ones lie, and move in a second, twice as far.
        scale: of each degree of freedom, m and rad `[nv]`.
        low, high: ranges of the coordinates, infinite where there are none `[nq]`.
    """
    loop = _Constraints(model, scale, low, high)
    rng = np.random.default_rng(0)
    ways = int(np.clip(_SIZE // model.nv**2, 2 * LEAST, BANK))
    origin = loop.project(goal)
    near, far, speed = [], [], []
    for tried, u in enumerate(rng.uniform(-1.0, 1.0, (ways, 2, model.nv))):
        if origin is None or (tried >= _PATIENCE and not near):
            break
        qpos = _walk(loop, origin, u[0] * reach)
        if qpos is not None:
            near.append(qpos)
            qpos = _walk(loop, qpos, u[0] * reach)
        if qpos is not None:
            far.append(qpos)
            speed.append(loop.along(qpos, 2.0 * u[1] * reach))
    found = min(len(near), len(far))
    if found < LEAST:
        near, far, speed = [goal], [goal], [np.zeros(model.nv)]
    return Bank(np.array(near), np.array(far), np.array(speed), found, loop.broken(goal) > 1.0)


def _walk(loop: _Constraints, qpos: np.ndarray | None, way: np.ndarray) -> np.ndarray | None:
    for _ in range(_LEGS):
        qpos = None if qpos is None else loop.project(loop.moved(qpos, way / _LEGS))
    return qpos


class _Constraints:
    """The equality constraints of a model, as equations of its configuration."""

    def __init__(
        self, model: mujoco.MjModel, scale: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> None:
        self._model = copy.copy(model)  # contacts are none of it, and cost most
        self._model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
        self._data = mujoco.MjData(self._model)
        self._scale, self._low, self._high = scale, low, high
        self._tolerance = TOLERANCE * min(1.0, float(model.stat.extent))

    def project(self, qpos: np.ndarray) -> np.ndarray | None:
        """Return the configuration nearby that satisfies constraints and ranges, or None."""
        for _ in range(_ITERATIONS):
            residual, jacobian = self._equations(qpos)
            if np.abs(residual).max(initial=0.0) <= self._tolerance:
                return qpos
            step = self._least(jacobian, residual)
            size = np.abs(step / self._scale).max()
            if not np.isfinite(size):
                return None
            qpos = self.moved(qpos, -step * min(1.0, 0.5 / size))
        return None

    def along(self, qpos: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """Return a velocity `[nv]` without what would break the constraints."""
        _, jacobian = self._equations(qpos)
        return velocity - self._least(jacobian, jacobian @ velocity)

    def moved(self, qpos: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Return `qpos (+) step`, within the ranges."""
        qpos = qpos.copy()
        mujoco.mj_integratePos(self._model, qpos, step, 1.0)
        return np.clip(qpos, self._low, self._high)

    def broken(self, qpos: np.ndarray) -> float:
        """Return the largest residual over what is tolerated."""
        return float(np.abs(self._equations(qpos)[0]).max(initial=0.0) / self._tolerance)

    def _equations(self, qpos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return residual `[ne]` and Jacobian `[ne, nv]`."""
        model, data = self._model, self._data
        data.qpos[:] = qpos
        mujoco.mj_fwdPosition(model, data)
        rows = data.efc_type[: data.nefc] == int(mujoco.mjtConstraint.mjCNSTR_EQUALITY)
        jacobian = np.array(data.efc_J)
        if mujoco.mj_isSparse(model):
            jacobian = np.zeros((data.nefc, model.nv))
            index = (data.efc_J_rownnz, data.efc_J_rowadr, data.efc_J_colind)
            mujoco.mju_sparse2dense(jacobian, data.efc_J, *index)
        return data.efc_pos[rows].copy(), jacobian.reshape(data.nefc, model.nv)[rows]

    def _least(self, jacobian: np.ndarray, residual: np.ndarray) -> np.ndarray:
        """Return the shortest step `[nv]`, in units of the scale, with `J step = residual`."""
        scaled = jacobian * self._scale
        wide = scaled.shape[0] <= scaled.shape[1]  # the smaller of two equal systems is solved
        square = scaled @ scaled.T if wide else scaled.T @ scaled
        square += (_DAMPING * np.trace(square) + np.finfo(float).tiny) * np.eye(len(square))
        if wide:
            return self._scale * (scaled.T @ np.linalg.solve(square, residual))
        return self._scale * np.linalg.solve(square, scaled.T @ residual)
