"""What the equations need of a plant: how it hangs together, and the numbers of a compiled model.

An actuator's force is known where it follows from state and control by a formula that
`physai.surrogate.rigid` has: a fixed or affine gain on a joint, a fixed tendon or a site.
"""

from __future__ import annotations

import mujoco
import numpy as np

from physai.plant import Plant
from physai.surrogate.balls import balls
from physai.surrogate.tree import Actuator, Tree

_FILTERS = (mujoco.mjtDyn.mjDYN_FILTER.value, mujoco.mjtDyn.mjDYN_FILTEREXACT.value)
_GAINS = (mujoco.mjtGain.mjGAIN_FIXED.value, mujoco.mjtGain.mjGAIN_AFFINE.value)
_BIASES = (mujoco.mjtBias.mjBIAS_NONE.value, mujoco.mjtBias.mjBIAS_AFFINE.value)
_NO_GRAVITY = mujoco.mjtDisableBit.mjDSBL_GRAVITY
_SLIDE = mujoco.mjtJoint.mjJNT_SLIDE.value  # hinges come after it
_UNLIMITED = 1e30


def tree_of(plant: Plant) -> Tree:
    """Return the structure of a plant, which all its designs share."""
    model = plant.model
    channels = [*plant.action_ids, *plant.disturbance_ids]
    return Tree(
        parents=tuple(int(p) for p in model.body_parentid),
        joints=tuple((int(model.jnt_bodyid[i]), j) for i, j in enumerate(plant.joints)),
        actuators=tuple(
            Actuator(
                channels.index(i),
                int(model.actuator_actadr[i]),
                _pushed_body(model, i),
                bool(model.actuator_trnid[i, 1] >= 0),
            )
            for i in _known_actuators(model)
        ),
    )


def constants_of(plant: Plant, model: mujoco.MjModel) -> dict[str, np.ndarray]:
    """Return the numbers of a design's compiled model, by name."""
    turns = np.array([_matrix(q) for q in model.body_iquat])
    known = _known_actuators(model)
    sites = [_site(model, i) for i in known]
    gain, bias = model.actuator_gainprm[known, :3].copy(), model.actuator_biasprm[known, :3].copy()
    gain[model.actuator_gaintype[known] == mujoco.mjtGain.mjGAIN_FIXED, 1:] = 0.0
    bias[model.actuator_biastype[known] == mujoco.mjtBias.mjBIAS_NONE] = 0.0
    limited = model.actuator_forcelimited[known].astype(bool)
    force = model.actuator_forcerange[known]
    filtered = np.isin(model.actuator_dyntype[known], _FILTERS)
    tendons = [t for t in range(model.ntendon) if _fixed(model, t)]
    of_dof, weighs = model.dof_jntid, not model.opt.disableflags & _NO_GRAVITY
    single = model.jnt_type[of_dof] >= _SLIDE
    places, radii = balls(model)
    return {
        "gravity": model.opt.gravity * weighs,
        "body_pos": model.body_pos.copy(),
        "body_quat": model.body_quat.copy(),
        "mass": model.body_mass.copy(),
        "centre": model.body_ipos.copy(),
        "inertia": np.einsum("bij,bj,bkj->bik", turns, model.body_inertia, turns),
        "joint_pos": model.jnt_pos.copy(),
        "joint_axis": model.jnt_axis.copy(),
        "qpos0": model.qpos0.copy(),
        "spring": model.qpos_spring.copy(),
        "stiffness": np.where(single, model.jnt_stiffness[of_dof], 0.0),
        "damping": model.dof_damping.copy(),
        "armature": model.dof_armature.copy(),
        "tendon_moment": _stacked([_tendon_moment(model, t) for t in tendons], model.nv),
        "tendon_stiffness": model.tendon_stiffness[tendons],
        "tendon_damping": model.tendon_damping[tendons],
        "tendon_low": model.tendon_lengthspring[tendons, 0],
        "tendon_high": model.tendon_lengthspring[tendons, 1],
        "moment": _stacked([_moment(model, i) for i in known], model.nv),
        "gear": model.actuator_gear[known].copy(),
        "site_pos": _stacked([place for place, _ in sites], 3),
        "site_quat": _stacked([turn for _, turn in sites], 4),
        "gain": gain,
        "bias": bias,
        "lag": np.where(filtered, model.actuator_dynprm[known, 0], 0.0),
        "force_low": np.where(limited, force[:, 0], -_UNLIMITED),
        "force_high": np.where(limited, force[:, 1], _UNLIMITED),
        "ball_place": places,
        "ball_radius": radii,
    }


def _known_actuators(model: mujoco.MjModel) -> list[int]:
    """Return the actuators whose force follows from state and control by a formula used here."""
    return [i for i in range(model.nu) if _knows(model, i)]


def _knows(model: mujoco.MjModel, i: int) -> bool:
    target = int(model.actuator_trnid[i, 0])
    transmission = model.actuator_trntype[i]
    if transmission == mujoco.mjtTrn.mjTRN_JOINT:
        linear = model.jnt_type[target] >= _SLIDE
    elif transmission == mujoco.mjtTrn.mjTRN_TENDON:
        linear = _fixed(model, target)
    else:
        frame = int(model.actuator_trnid[i, 1])  # a reference site counts where it cannot move
        steady = frame < 0 or model.body_weldid[model.site_bodyid[frame]] == 0
        linear = transmission == mujoco.mjtTrn.mjTRN_SITE and steady
    return bool(
        linear
        and model.actuator_dyntype[i] in (mujoco.mjtDyn.mjDYN_NONE.value, *_FILTERS)
        and model.actuator_gaintype[i] in _GAINS
        and model.actuator_biastype[i] in _BIASES
    )


def _fixed(model: mujoco.MjModel, tendon: int) -> bool:
    wraps = slice(model.tendon_adr[tendon], model.tendon_adr[tendon] + model.tendon_num[tendon])
    return bool((model.wrap_type[wraps] == mujoco.mjtWrap.mjWRAP_JOINT).all())


def _pushed_body(model: mujoco.MjModel, i: int) -> int:
    if model.actuator_trntype[i] != mujoco.mjtTrn.mjTRN_SITE:
        return -1
    return int(model.site_bodyid[model.actuator_trnid[i, 0]])


def _site(model: mujoco.MjModel, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the place of an actuator's site in its body, and the attitude of its reference."""
    if _pushed_body(model, i) < 0:
        return np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])
    site, frame = (int(s) for s in model.actuator_trnid[i])
    if frame < 0:
        return model.site_pos[site], model.site_quat[site]
    data, turn = mujoco.MjData(model), np.zeros(4)
    mujoco.mj_kinematics(model, data)
    mujoco.mju_mat2Quat(turn, data.site_xmat[frame])
    return model.site_pos[site], turn


def _moment(model: mujoco.MjModel, i: int) -> np.ndarray:
    """Return d length / d q `[nv]` of a joint's or fixed tendon's actuator, 0 for a site's."""
    moment, target = np.zeros(model.nv), int(model.actuator_trnid[i, 0])
    if model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_JOINT:
        moment[model.jnt_dofadr[target]] = model.actuator_gear[i, 0]
    elif model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_TENDON:
        moment = model.actuator_gear[i, 0] * _tendon_moment(model, target)
    return moment


def _tendon_moment(model: mujoco.MjModel, tendon: int) -> np.ndarray:
    """Return d length / d q `[nv]` of a fixed tendon."""
    moment, first = np.zeros(model.nv), model.tendon_adr[tendon]
    for wrap in range(first, first + model.tendon_num[tendon]):
        moment[model.jnt_dofadr[model.wrap_objid[wrap]]] += model.wrap_prm[wrap]
    return moment


def _stacked(rows: list[np.ndarray], width: int) -> np.ndarray:
    return np.array(rows).reshape(-1, width)


def _matrix(quaternion: np.ndarray) -> np.ndarray:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)
