"""Where a recorded machine touches something: told by MuJoCo's collision detection, on the host.

A dataset holds states, not contacts. These follow from the configuration and the design, once a
control period: a touch that begins and ends between two recorded moments is not seen. Limits of
joints, dry friction and equality constraints are no contacts.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from physai.plant import Plant
from physai.rollout.dataset import Episodes
from physai.surrogate.calibration import stretches
from physai.surrogate.spread import rms


def touching(plant: Plant, qpos: np.ndarray, design: np.ndarray) -> np.ndarray:
    """Tell at which moments a contact pushes.

    Args:
        plant: the machine.
        qpos: configurations `[n, T + 1, nq]`.
        design: design vectors `[n, nd]`.

    Returns:
        bool `[n, T + 1]`: MuJoCo finds a contact that its solver takes part in.
    """
    found = np.zeros(qpos.shape[:2], bool)
    if not _collides(plant.model):
        return found
    unique, inverse = np.unique(design, axis=0, return_inverse=True)
    for number, values in enumerate(unique):
        model = plant.compile(values, textures=False)
        data = mujoco.MjData(model)
        for episode in np.flatnonzero(inverse == number):
            for moment, configuration in enumerate(qpos[episode]):
                data.qpos[:] = configuration
                mujoco.mj_kinematics(model, data)
                mujoco.mj_collision(model, data)
                # A contact within its gap is detected and has no force.
                found[episode, moment] = data.ncon > 0 and not data.contact.exclude.all()
    return found


def _collides(model: mujoco.MjModel) -> bool:
    filtered = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    return bool(model.npair or np.count_nonzero(filtered) > 1)


def contact_split(
    plant: Plant,
    episodes: Episodes,
    episode: np.ndarray,
    start: np.ndarray,
    error: np.ndarray,
    scale: np.ndarray,
    horizons: tuple[int, ...],
) -> dict[str, Any]:
    """Split errors by whether the machine touched anything between the start and the horizon.

    Both parts are divided by the spread over all windows, so that they can be compared.

    Args:
        plant, episodes: what was flown.
        episode, start: of the windows `[n]`.
        error: of the windows `[H, n, nc]`.
        scale: spread of the channels `[H, nc]`, NaN for none.
        horizons: at which to report.

    Returns:
        By horizon: `windows_free` and `windows_contact`, and of each kind the nRMSE, `nrmse_free`
        and `nrmse_contact`; both are None where all windows are of one kind.
    """
    designs = np.asarray(episodes.states.design)[:, 0]
    touched = touching(plant, np.asarray(episodes.states.qpos), designs)
    touched = np.logical_or.accumulate(stretches(episode, start, max(horizons), touched))
    split: dict[str, Any] = {
        f"{what}_{kind}": [] for kind in ("free", "contact") for what in ("windows", "nrmse")
    }
    for h in horizons:
        mixed = touched[h].any() and not touched[h].all()
        for kind, chosen in (("free", ~touched[h]), ("contact", touched[h])):
            split[f"windows_{kind}"].append(int(chosen.sum()))
            scaled = error[h - 1, chosen] / scale[h - 1]
            split[f"nrmse_{kind}"].append(
                rms(np.sqrt(np.mean(scaled**2, axis=0))) if mixed else None
            )
    return split
