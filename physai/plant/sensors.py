"""Sensors of a model: which of their numbers are channels, with name, unit and range.

Units are SI, by MuJoCo's type of sensor. What a sensor says in the world's frame, such as where a
site of a free body is, is told apart from the rest: a surrogate that sees no position and no
heading can learn it in the frame of that body alone.

`noise` of a sensor is what MuJoCo lets a user note beside it; the simulator adds none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import mujoco
import numpy as np

from physai.errors import InputError
from physai.plant.names import check_unique, sensor_names
from physai.plant.record import Channel, Sensor

Kind = Literal["plain", "point", "vector", "quaternion"]
_T = mujoco.mjtSensor
_LEFT_OUT = {
    int(_T.mjSENS_CLOCK): "it tells the time, which is in the state",
    int(_T.mjSENS_TACTILE): "a tactile sensor has a number for every vertex of a mesh",
    int(_T.mjSENS_PLUGIN): "a plugin computes it",
    int(_T.mjSENS_USER): "a sensor of type `user` needs a callback",
}
_INFINITE = float("inf")


class _Part(NamedTuple):
    """Consecutive numbers of a sensor that belong together."""

    names: tuple[str, ...]
    unit: str
    kind: Kind = "plain"


def _three(unit: str, kind: Kind = "plain", name: str = "") -> _Part:
    return _Part(tuple(f"{name}{axis}" for axis in "xyz"), unit, kind)


_QUATERNION = _Part(("qw", "qx", "qy", "qz"), "1", "quaternion")
_FIXED: dict[int, tuple[_Part, ...]] = {
    int(kind): parts
    for kind, parts in {
        _T.mjSENS_TOUCH: (_Part(("",), "N"),),
        _T.mjSENS_ACCELEROMETER: (_three("m/s^2"),),
        _T.mjSENS_VELOCIMETER: (_three("m/s"),),
        _T.mjSENS_GYRO: (_three("rad/s"),),
        _T.mjSENS_FORCE: (_three("N"),),
        _T.mjSENS_TORQUE: (_three("N m"),),
        _T.mjSENS_MAGNETOMETER: (_three("T"),),
        _T.mjSENS_CAMPROJECTION: (_Part(("x", "y"), "1"),),
        _T.mjSENS_BALLQUAT: (_QUATERNION._replace(kind="plain"),),
        _T.mjSENS_BALLANGVEL: (_three("rad/s"),),
        _T.mjSENS_FRAMEPOS: (_three("m", "point"),),
        _T.mjSENS_FRAMEQUAT: (_QUATERNION,),
        _T.mjSENS_FRAMEXAXIS: (_three("1", "vector"),),
        _T.mjSENS_FRAMEYAXIS: (_three("1", "vector"),),
        _T.mjSENS_FRAMEZAXIS: (_three("1", "vector"),),
        _T.mjSENS_FRAMELINVEL: (_three("m/s", "vector"),),
        _T.mjSENS_FRAMEANGVEL: (_three("rad/s", "vector"),),
        _T.mjSENS_FRAMELINACC: (_three("m/s^2", "vector"),),
        _T.mjSENS_FRAMEANGACC: (_three("rad/s^2", "vector"),),
        _T.mjSENS_SUBTREECOM: (_three("m", "point"),),
        _T.mjSENS_SUBTREELINVEL: (_three("m/s", "vector"),),
        _T.mjSENS_SUBTREEANGMOM: (_three("kg m^2/s", "vector"),),
        _T.mjSENS_INSIDESITE: (_Part(("",), "1"),),
        _T.mjSENS_GEOMDIST: (_Part(("",), "m"),),
        _T.mjSENS_GEOMNORMAL: (_three("1", "vector"),),
        _T.mjSENS_GEOMFROMTO: (_three("m", "point", "from_"), _three("m", "point", "to_")),
        _T.mjSENS_E_POTENTIAL: (_Part(("",), "J"),),
        _T.mjSENS_E_KINETIC: (_Part(("",), "J"),),
    }.items()
}
# Fields of a rangefinder and of a contact sensor, by their bit in `intprm`.
_RAY = (
    _Part(("",), "m"),
    _three("1", "vector", "direction_"),
    _three("m", "point", "origin_"),
    _three("m", "point", "point_"),
    _three("1", "vector", "normal_"),
    _Part(("depth",), "m"),
)
_CONTACT = (
    _Part(("found",), "1"),
    _three("N", name="force_"),
    _three("N m", name="torque_"),
    _Part(("distance",), "m"),
    _three("m", "point", "position_"),
    _three("1", "vector", "normal_"),
    _three("1", "vector", "tangent_"),
    _three("m/s", "vector", "velocity_"),
    _three("rad/s", "vector", "rate_"),
)
# A scalar of a joint, tendon or actuator: a length derived so many times by time, or a force.
_SCALAR: dict[int, int | Literal["force"]] = {
    **dict.fromkeys((_T.mjSENS_JOINTPOS, _T.mjSENS_TENDONPOS, _T.mjSENS_ACTUATORPOS), 0),
    **dict.fromkeys((_T.mjSENS_JOINTVEL, _T.mjSENS_TENDONVEL, _T.mjSENS_ACTUATORVEL), 1),
    **dict.fromkeys((_T.mjSENS_JOINTLIMITPOS, _T.mjSENS_TENDONLIMITPOS), 0),
    **dict.fromkeys((_T.mjSENS_JOINTLIMITVEL, _T.mjSENS_TENDONLIMITVEL), 1),
    **dict.fromkeys((_T.mjSENS_JOINTLIMITFRC, _T.mjSENS_TENDONLIMITFRC), "force"),
    **dict.fromkeys((_T.mjSENS_JOINTACTFRC, _T.mjSENS_TENDONACTFRC), "force"),
    _T.mjSENS_ACTUATORFRC: "force",
}
_SCALAR = {int(kind): what for kind, what in _SCALAR.items()}
_POSITIVE = (int(_T.mjSENS_TOUCH), int(_T.mjSENS_INSIDESITE))


def model_sensors(
    model: mujoco.MjModel, wanted: Sequence[str] | None, path: Path
) -> tuple[Sensor, ...]:
    """Return the sensors of a model that are recorded and predicted.

    Args:
        model: the compiled model.
        wanted: SENSORS of plant.py, names in any order (None: all that can be predicted).
        path: of the plant, for errors.

    Raises:
        InputError: a name that no sensor has, or one of a sensor that cannot be predicted; two
            channels of one name.
    """
    names = sensor_names(model)
    refused = dict(left_out(model))
    for name in wanted or ():
        if name not in names:
            raise InputError(
                f"{path / 'plant.py'}: SENSORS names {name!r}, but the model has no sensor of that "
                f"name; it has {', '.join(names) or 'none'}"
            )
        if name in refused:
            raise InputError(
                f"{path / 'plant.py'}: SENSORS: {name!r} cannot be predicted: {refused[name]}. "
                "Take it out of SENSORS"
            )
    kept = [
        i
        for i, name in enumerate(names)
        if name not in refused and (wanted is None or name in wanted)
    ]
    found = tuple(_sensor(model, i, names[i]) for i in kept)
    check_unique((c.name for s in found for c in s.channels), "sensor channels", path)
    return found


def left_out(model: mujoco.MjModel) -> Iterator[tuple[str, str]]:
    """Yield names of the sensors that cannot be predicted, and why."""
    disabled = bool(model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_SENSOR)
    for i, name in enumerate(sensor_names(model)):
        if disabled:
            yield name, "the model disables its sensors"
        elif (reason := _LEFT_OUT.get(int(model.sensor_type[i]))) is not None:
            yield name, reason


def gather(sensors: Sequence[Sensor], sensordata: np.ndarray) -> np.ndarray:
    """Return the channels `[..., ns]` of sensors from MjData's `sensordata [..., n]`.

    A quaternion and its opposite are one rotation: the one with w >= 0 is returned.
    """
    values = np.array(sensordata)
    for at in (at for sensor in sensors for at in sensor.quaternions):
        values[..., at : at + 4] *= np.where(values[..., at : at + 1] < 0.0, -1.0, 1.0)
    index = [s.address + k for s in sensors for k in range(len(s.channels))]
    return values[..., index]


def _sensor(model: mujoco.MjModel, i: int, name: str) -> Sensor:
    parts = _parts(model, i)
    root = _root(model, i)
    channels, frames, at = [], [], int(model.sensor_adr[i])
    low, high = _range(model, i)
    for part in parts:
        channels += [
            Channel(f"{name}.{n}" if n else name, part.unit, low, high) for n in part.names
        ]
        if root is not None and part.kind != "plain":
            frames.append((part.kind, at, root))
        at += len(part.names)
    first = int(model.sensor_adr[i])
    return Sensor(name, first, tuple(channels), tuple(frames), _quaternions(parts, first))


def _quaternions(parts: Sequence[_Part], at: int) -> tuple[int, ...]:
    found = []
    for part in parts:
        if part.names == _QUATERNION.names:
            found.append(at)
        at += len(part.names)
    return tuple(found)


def _parts(model: mujoco.MjModel, i: int) -> tuple[_Part, ...]:
    kind, dim = int(model.sensor_type[i]), int(model.sensor_dim[i])
    if kind in _FIXED:
        return _FIXED[kind]
    if kind in _SCALAR:
        return (_Part(("",), _scalar_unit(model, i, _SCALAR[kind])),)
    fields = _CONTACT if kind == _T.mjSENS_CONTACT else _RAY
    bits = int(model.sensor_intprm[i, 0])
    once = [part for bit, part in enumerate(fields) if bits >> bit & 1]
    slots = dim // sum(len(part.names) for part in once)
    if slots == 1:
        return tuple(once)
    return tuple(
        part._replace(names=tuple(f"{k}.{n}" if n else f"{k}" for n in part.names))
        for k in range(slots)
        for part in once
    )


def _scalar_unit(model: mujoco.MjModel, i: int, what: int | Literal["force"]) -> str:
    """Return the unit of a length, of its rate, or of the force that does work along it."""
    length, force = _length(model, int(model.sensor_objtype[i]), int(model.sensor_objid[i]))
    return {"force": force, 0: length, 1: f"{length}/s"}[what]


def _length(model: mujoco.MjModel, objtype: int, index: int) -> tuple[str, str]:
    """Return the units of the length of a joint, tendon or actuator and of its force.

    A fixed tendon's coefficients, a gear other than 1 and a site's transmission have units that the
    model does not tell.
    """
    if objtype == mujoco.mjtObj.mjOBJ_JOINT:
        slide = model.jnt_type[index] == mujoco.mjtJoint.mjJNT_SLIDE
        return ("m", "N") if slide else ("rad", "N m")
    if objtype == mujoco.mjtObj.mjOBJ_TENDON:
        first = model.wrap_type[model.tendon_adr[index]]
        return ("1", "1") if first == mujoco.mjtWrap.mjWRAP_JOINT else ("m", "N")
    target = int(model.actuator_trnid[index, 0])
    kind, gear = int(model.actuator_trntype[index]), float(model.actuator_gear[index, 0])
    joints = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))
    if kind in joints and gear == 1.0:
        return _length(model, int(mujoco.mjtObj.mjOBJ_JOINT), target)
    if kind == mujoco.mjtTrn.mjTRN_TENDON and gear == 1.0:
        return _length(model, int(mujoco.mjtObj.mjOBJ_TENDON), target)
    return "1", "1"


def _range(model: mujoco.MjModel, i: int) -> tuple[float, float]:
    """Return the range: a cutoff's, where MuJoCo clips the sensor, and from 0 where it must be."""
    cutoff = float(model.sensor_cutoff[i])
    positive = int(model.sensor_type[i]) in _POSITIVE
    datatype = int(model.sensor_datatype[i])
    real = datatype in (mujoco.mjtDataType.mjDATATYPE_REAL, mujoco.mjtDataType.mjDATATYPE_POSITIVE)
    high = cutoff if cutoff > 0.0 and real else _INFINITE
    if int(model.sensor_type[i]) == _T.mjSENS_CONTACT:
        high = _INFINITE
    return (0.0 if positive else -high), high


def _root(model: mujoco.MjModel, i: int) -> int | None:
    """Return where in qpos the free joint of a sensor's tree is, None where there is none.

    A sensor that is measured against a reference of its own has no frame of the world.
    """
    if model.sensor_refid[i] >= 0 and model.sensor_type[i] not in (
        int(_T.mjSENS_GEOMNORMAL),
        int(_T.mjSENS_GEOMFROMTO),
        int(_T.mjSENS_CONTACT),
    ):
        return None
    body = _body(model, int(model.sensor_objtype[i]), int(model.sensor_objid[i]))
    if body is None:
        return None
    root = int(model.body_rootid[body])
    joint = int(model.body_jntadr[root])
    if joint < 0 or model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_FREE:
        return None
    return int(model.jnt_qposadr[joint])


def _body(model: mujoco.MjModel, objtype: int, index: int) -> int | None:
    objects = mujoco.mjtObj
    if index < 0:
        return None
    if objtype in (objects.mjOBJ_BODY, objects.mjOBJ_XBODY):
        return index
    fields = {
        int(objects.mjOBJ_SITE): "site_bodyid",
        int(objects.mjOBJ_GEOM): "geom_bodyid",
        int(objects.mjOBJ_CAMERA): "cam_bodyid",
    }
    name = fields.get(objtype)
    return None if name is None else int(getattr(model, name)[index])
