"""The report card of a surrogate on episodes that neither fitting nor calibration saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from physai.errors import InputError
from physai.plant import Plant
from physai.rollout.dataset import Episodes
from physai.state import Joint, State, minus
from physai.surrogate.calibration import open_loop
from physai.surrogate.model import Surrogate

HORIZONS = (1, 10, 50)


@dataclass(frozen=True)
class ScoreSettings:
    """What to score.

    Attributes:
        horizons: control periods at which errors are reported.
        stride: control periods between the windows cut from an episode.
    """

    horizons: tuple[int, ...] = HORIZONS
    stride: int = 5


def score(
    surrogate: Surrogate, plant: Plant, episodes: Episodes, settings: ScoreSettings | None = None
) -> dict[str, Any]:
    """Compare open-loop predictions with the true simulator's record.

    The error of a channel is divided by its spread. For a velocity or activation that is its
    standard deviation over all windows; for a position it is the root mean square distance it
    moved from the start of the window, which is what the forecast "nothing moves" would be wrong
    by, and is smaller than the standard deviation of the position itself.

    Returns:
        JSON-ready numbers: `nrmse` (root mean square over channels) and `coverage` by horizon,
        `position_error` (mean error over mean distance flown, free joints only), `channels` (by
        channel and horizon: rmse, nrmse, coverage, mean interval half width; an infinite width is
        None, and so is the nrmse of a channel that never changes), `curve` by step,
        `windows`, `blown_up` (windows in which the open-loop prediction ceased to be finite: left
        out of the errors, counted as not covered) and `members`.
    """
    settings = settings or ScoreSettings()
    horizon = max(settings.horizons)
    true, error, spread = open_loop(surrogate, episodes, horizon, settings.stride)
    width = np.asarray(surrogate.half_width(jnp.asarray(spread)))
    inside = np.abs(error) <= width
    lost = ~np.isfinite(error).all(axis=(0, 2))
    if lost.all():
        raise InputError("score: every open-loop prediction blew up; fit longer or on more data")
    true, error, width = jax.tree.map(lambda x: x[:, ~lost], (true, error, width))
    rmse = np.sqrt(np.mean(np.square(error), axis=1))
    joints = surrogate.layout.joints
    scale = channel_spread(joints, true)
    nrmse = rmse / scale
    flown = _distance_flown(surrogate, true)
    at = [h - 1 for h in settings.horizons]
    return {
        "windows": int(inside.shape[1]),
        "blown_up": int(lost.sum()),
        "members": surrogate.members,
        "horizons": list(settings.horizons),
        "seconds": [round(h * plant.control_period, 6) for h in settings.horizons],
        "nrmse": [rms(nrmse[i]) for i in at],
        "coverage": [float(inside[i].mean()) for i in at],
        "position_error": [_position_error(surrogate, error, flown, i) for i in at],
        "channels": {
            channel.name: {
                "unit": channel.unit,
                "rmse": [float(rmse[i, c]) for i in at],
                "nrmse": [_finite(nrmse[i, c]) for i in at],
                "coverage": [float(inside[i, :, c].mean()) for i in at],
                "half_width": [_finite(width[i, :, c].mean()) for i in at],
            }
            for c, channel in enumerate(plant.state_channels)
        },
        "curve": {
            "nrmse": [rms(row) for row in nrmse],
            "coverage": [float(row.mean()) for row in inside],
            "half_width": [_finite(rms(row)) for row in np.sqrt(np.mean(width**2, axis=1)) / scale],
            "persistence": [rms(row) for row in persistence(joints, true) / scale],
        },
    }


def channel_spread(joints: tuple[Joint, ...], true: State) -> np.ndarray:
    """Return the spread `[H, nc]` by which errors at horizons 1 to H are divided, NaN for none."""
    moved = np.asarray(minus(joints, true.qpos[1:], true.qpos[:1]))
    position = np.sqrt(np.mean(np.square(moved), axis=1))
    rest = np.concatenate([true.qvel, true.act], axis=-1)
    rest = np.std(rest.reshape(-1, rest.shape[-1]), axis=0)
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


def _distance_flown(surrogate: Surrogate, true: State) -> np.ndarray | None:
    """Path length of the first free joint up to each horizon `[H, n]`, None without one."""
    free = [joint for joint in surrogate.layout.joints if joint.kind == "free"]
    if not free:
        return None
    i = free[0].qpos_index
    steps = np.diff(np.asarray(true.qpos)[..., i : i + 3], axis=0)
    return np.cumsum(np.linalg.norm(steps, axis=-1), axis=0)


def _position_error(
    surrogate: Surrogate, error: np.ndarray, flown: np.ndarray | None, step: int
) -> float | None:
    if flown is None:
        return None
    i = next(joint.qvel_index for joint in surrogate.layout.joints if joint.kind == "free")
    return float(np.linalg.norm(error[step, :, i : i + 3], axis=-1).mean() / flown[step].mean())


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def rms(values: np.ndarray) -> float:
    """Return the root mean square of what is not NaN."""
    return float(np.sqrt(np.nanmean(np.square(values))))
