"""A plant: a folder with a MuJoCo model, and what a controller engineer needs to know about it.

    envs/quadrotor/plant.xml    the machine (MJCF), or in plant.py MODEL, the path of a file outside
                                the folder, with MODEL_SHA256, what `sha256_source` gives for it
    envs/quadrotor/plant.py     optional: design variables, units, disturbances, closed-form checks
    envs/quadrotor/task.py      what the machine has to do (see physai.task)

plant.py and task.py are code of the plant's author and run as such when the plant is loaded.

Conventions in the MJCF: `<numeric name="control_period">` gives the control period in seconds; an
actuator whose name starts with `disturbance/` is driven by the scenario, all others by the
controller.
"""

from __future__ import annotations

import difflib
import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType

import mujoco
import numpy as np

from physai.errors import InputError
from physai.plant.author import short, told
from physai.plant.channels import Actuators, actuator_channels
from physai.plant.declared import declared
from physai.plant.names import check_unique, joint_names
from physai.plant.record import Plant, apply_design, compile_spec
from physai.plant.sensors import model_sensors
from physai.plant.supported import check_supported
from physai.provenance import sha256_source
from physai.state import Joint, JointKind

DEFAULT_CONTROL_PERIOD = 0.02
_KINDS: dict[int, JointKind] = {
    int(mujoco.mjtJoint.mjJNT_FREE): "free",
    int(mujoco.mjtJoint.mjJNT_BALL): "ball",
    int(mujoco.mjtJoint.mjJNT_SLIDE): "slide",
    int(mujoco.mjtJoint.mjJNT_HINGE): "hinge",
}


def plants_folder() -> Path:
    """Return the folder of the shipped plants, in a wheel or in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "envs"
    return inside if inside.is_dir() else package.parent / "envs"


def plant_names() -> list[str]:
    """Return the names of the shipped plants, sorted."""
    return sorted(p.name for p in plants_folder().glob("*") if _is_plant(p))


def load_plant(name_or_path: str | Path) -> Plant:
    """Load a shipped plant by name, or a user's folder or MJCF file by path.

    Raises:
        InputError: nothing of that name or path, an MJCF that does not compile, a control
            period that is no multiple of the time step, a MODEL of another hash, a plant.py that
            raises or declares what it cannot, two channels of one name.
    """
    path = _find(name_or_path)
    module = load_module(path / "plant.py")
    with warnings.catch_warnings():
        if hasattr(module, "MODEL"):  # of another's file, which its reader cannot mend
            warnings.simplefilter("ignore")
        file = _model_file(path, module) if path.is_dir() else path
        source = _read_spec(file)
    said = declared(module, path / "plant.py")
    nominal = np.array([v.nominal for v in said.design])
    model = compile_spec(apply_design(source, said.apply, said.design, nominal, path), path)
    _check_key(model, file)
    period, substeps = _control_period(model, path)
    check_supported(model, path)
    found = actuator_channels(model, said.units, said.disturbances, path)
    plant = Plant(
        name=path.name if path.is_dir() else path.stem,
        folder=path,
        model=model,
        control_period=period,
        substeps=substeps,
        joints=joint_layout(model),
        actions=found.actions,
        disturbances=found.disturbances,
        sensors=model_sensors(model, said.sensors, path),
        design=said.design,
        action_ids=found.action_ids,
        disturbance_ids=found.disturbance_ids,
        trim=_trim(model, found),
        sha256=sha256_source(path),
        source=source,
        apply=said.apply,
        checks=said.checks,
        forces=said.forces,
    )
    check_unique((c.name for c in plant.state_channels), "state channels", path)
    return plant


def load_module(path: Path) -> ModuleType | None:
    """Import a plant's Python file under a private name, or return None where there is none."""
    if not path.is_file():
        return None
    name = f"physai_plant_{path.parent.name}_{path.stem}_{abs(hash(str(path.resolve()))):x}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        with told(path, "cannot be imported"):
            module_spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writes_bytecode
    return module


def _find(name_or_path: str | Path) -> Path:
    shipped = plants_folder() / str(name_or_path)
    if str(name_or_path) in plant_names():
        return shipped
    path = Path(name_or_path)
    if path.is_file() and path.suffix == ".xml":
        return path.resolve()
    if _is_plant(path):
        return path.resolve()
    if path.is_dir():
        raise InputError(f"{path}: expected a plant folder with a plant.xml, found none in it")
    names = plant_names()
    near = difflib.get_close_matches(str(name_or_path), names, n=len(names), cutoff=0.0)
    raise InputError(
        f"no plant named {str(name_or_path)!r} and no such folder or .xml file. "
        f"Shipped plants, nearest name first: {', '.join(near)}"
    )


def _is_plant(folder: Path) -> bool:
    return (folder / "plant.xml").is_file() or (folder / "plant.py").is_file()


def _model_file(folder: Path, module: ModuleType | None) -> Path:
    """Return the MJCF of a plant folder: its own, or that of MODEL, whose hash plant.py pins.

    So the hash of the folder says which model it is, wherever the file lies.
    """
    own, outside = folder / "plant.xml", getattr(module, "MODEL", None)
    if (outside is None) != own.is_file():
        raise InputError(
            f"{folder}: expected either a plant.xml or a MODEL in plant.py, got "
            + ("both" if own.is_file() else "neither")
        )
    if outside is None:
        return own
    if not isinstance(outside, str | Path):
        raise InputError(f"{folder / 'plant.py'}: MODEL: expected a path, got {short(outside)}")
    expected, found = getattr(module, "MODEL_SHA256", None), sha256_source(outside)
    if found != expected:
        raise InputError(
            f"{folder / 'plant.py'}: MODEL {outside}: expected the file of MODEL_SHA256 "
            f"{expected}, got {found}. Install the package version that the plant was made for, "
            "or check the plant against the new file and write its hash"
        )
    return Path(outside)


def _read_spec(path: Path) -> mujoco.MjSpec:
    try:
        return mujoco.MjSpec.from_file(str(path))
    except (ValueError, mujoco.FatalError) as error:
        raise InputError(f"{path}: MuJoCo cannot read this model: {error}") from error


def _control_period(model: mujoco.MjModel, path: Path) -> tuple[float, int]:
    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_NUMERIC, "control_period")
    if index >= 0:
        period = float(model.numeric_data[model.numeric_adr[index]])
    else:
        period = max(1, round(DEFAULT_CONTROL_PERIOD / model.opt.timestep)) * model.opt.timestep
    ratio = period / model.opt.timestep
    if not (np.isfinite(ratio) and ratio > 0.5 and abs(ratio - round(ratio)) < 1e-6):
        raise InputError(
            f"{path}: the control period must be a multiple of the time step, "
            f"got {period:g} s and {model.opt.timestep:g} s ({ratio:.4g} steps). "
            'Change <numeric name="control_period"> or <option timestep>.'
        )
    return period, round(ratio)


def joint_layout(model: mujoco.MjModel) -> tuple[Joint, ...]:
    """Return where each joint of a model sits in qpos and qvel."""
    return tuple(
        Joint(
            name,
            _KINDS[int(model.jnt_type[j])],
            int(model.jnt_qposadr[j]),
            int(model.jnt_dofadr[j]),
        )
        for j, name in enumerate(joint_names(model))
    )


def _check_key(model: mujoco.MjModel, file: Path) -> None:
    """Refuse a first key frame, which gives goal and trim, with numbers that are not finite."""
    for field in ("qpos", "qvel", "act", "ctrl") if model.nkey else ():
        values = getattr(model, f"key_{field}")[0]
        if not np.isfinite(values).all():
            raise InputError(
                f"{file}: key frame {model.key(0).name or 0!r}: {field}: expected finite numbers, "
                f"got {' '.join(f'{x:g}' for x in values)}"
            )


def _trim(model: mujoco.MjModel, found: Actuators) -> np.ndarray:
    wanted = np.zeros(len(found.actions))
    if model.nkey:
        wanted = model.key_ctrl[0][list(found.action_ids)]
    return np.clip(wanted, [a.low for a in found.actions], [a.high for a in found.actions])
