"""By what errors are divided, so that metres and radians a second can be told in one number."""

from __future__ import annotations

import numpy as np

from physai.state import Joint, State, minus


def channel_spread(
    joints: tuple[Joint, ...], true: State, lasting: np.ndarray | None = None
) -> np.ndarray:
    """Return the spread `[H, nc]` by which errors at horizons 1 to H are divided, NaN for none.

    Args:
        joints: of the machine.
        true: windows of recorded states `[H + 1, n, ...]`.
        lasting: steps of each window that are data `[n]` (None: all).
    """
    steps = np.arange(len(true.qpos))[:, None]
    data = np.broadcast_to(
        steps <= (steps[-1] if lasting is None else lasting), true.qpos.shape[:2]
    )
    moved = np.square(np.asarray(minus(joints, true.qpos[1:], true.qpos[:1])))
    counted = data[1:].sum(axis=1)[:, None]
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: no window lasts so long
        position = np.sqrt(np.where(data[1:, :, None], moved, 0.0).sum(axis=1) / counted)
    rest = np.std(np.concatenate([true.qvel, true.act], axis=-1)[data], axis=0)
    spread = np.concatenate([position, np.broadcast_to(rest, (len(position), len(rest)))], axis=1)
    # What moves by less than the rounding of the record has no scale: NaN, which is left out.
    rounding = 4.0 * np.finfo(np.float32).eps * _magnitude(joints, true)
    return np.where(spread > np.maximum(rounding, 1e-9), spread, np.nan)


def _magnitude(joints: tuple[Joint, ...], true: State) -> np.ndarray:
    """Return the largest number `[nc]` that each channel is recorded in, 1 for a rotation's."""
    position = np.ones(true.qvel.shape[-1])
    for joint in joints:
        i, j = joint.qpos_index, joint.qvel_index
        moved = {"free": 3, "ball": 0}.get(joint.kind, 1)
        position[j : j + moved] = np.abs(true.qpos[..., i : i + moved]).max(axis=(0, 1))
    rest = np.concatenate([true.qvel, true.act], axis=-1)
    return np.concatenate([position, np.abs(rest).max(axis=(0, 1))])


def persistence(joints: tuple[Joint, ...], true: State) -> np.ndarray:
    """Return the root mean square error `[H, nc]` of the forecast that nothing changes."""
    moved = np.asarray(minus(joints, true.qpos[1:], true.qpos[:1]))
    rest = np.concatenate([true.qvel, true.act], axis=-1)
    error = np.concatenate([moved, rest[1:] - rest[:1]], axis=-1)
    return np.sqrt(np.mean(np.square(error), axis=1))


def rms(values: np.ndarray) -> float:
    """Return the root mean square of what is not NaN."""
    return float(np.sqrt(np.nanmean(np.square(values))))
