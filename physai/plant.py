"""A plant: a folder with a MuJoCo model, and what a controller engineer needs to know about it.

    envs/quadrotor/plant.xml    the machine (MJCF)
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import mujoco
import numpy as np

from physai.errors import InputError
from physai.provenance import sha256_source
from physai.state import Joint, JointKind

DISTURBANCE_PREFIX = "disturbance/"
DEFAULT_CONTROL_PERIOD = 0.02
_KINDS: dict[int, JointKind] = {
    int(mujoco.mjtJoint.mjJNT_FREE): "free",
    int(mujoco.mjtJoint.mjJNT_BALL): "ball",
    int(mujoco.mjtJoint.mjJNT_SLIDE): "slide",
    int(mujoco.mjtJoint.mjJNT_HINGE): "hinge",
}


@dataclass(frozen=True)
class Channel:
    """One named scalar with its SI unit and range."""

    name: str
    unit: str
    low: float
    high: float


@dataclass(frozen=True)
class Disturbance(Channel):
    """A channel that the scenario drives with an Ornstein-Uhlenbeck process.

    Attributes:
        std: stationary standard deviation, in `unit`.
        correlation_time: seconds.
        vector: the name of the world-frame vector of which this is a component, "" for a scalar.
    """

    std: float
    correlation_time: float
    vector: str = ""


@dataclass(frozen=True)
class DesignVariable(Channel):
    """A constant of the machine that a design study may move between `low` and `high`."""

    nominal: float


@dataclass(frozen=True)
class Check:
    """One closed-form check: `simulated` must lie within `tolerance` of `expected`, in `unit`."""

    quantity: str
    unit: str
    expected: float
    simulated: float
    tolerance: float

    @property
    def error(self) -> float:
        """Absolute error, in `unit`."""
        return abs(self.simulated - self.expected)

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance (False for NaN)."""
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Plant:
    """A compiled machine with named channels.

    Attributes:
        name: the folder's name.
        folder: where it was loaded from.
        model: the MuJoCo model at the nominal design.
        control_period: seconds between two actions.
        substeps: physics steps in a control period.
        joints: layout of the configuration.
        actions: channels that the controller drives, in order.
        disturbances: channels that the scenario drives, in order.
        design: design variables, in order.
        trim: a safe action to hold `[nu]`: that of the first key frame, else the nearest to zero.
        sha256: hash of the folder's files, or of the MJCF file, as a manifest records it.
        source: the MJCF as it was read: `spec` copies it, so that a later edit cannot mix in.
    """

    name: str
    folder: Path
    model: mujoco.MjModel = field(repr=False)
    control_period: float
    substeps: int
    joints: tuple[Joint, ...] = field(repr=False)
    actions: tuple[Channel, ...] = field(repr=False)
    disturbances: tuple[Disturbance, ...] = field(repr=False)
    design: tuple[DesignVariable, ...] = field(repr=False)
    action_ids: tuple[int, ...] = field(repr=False)
    disturbance_ids: tuple[int, ...] = field(repr=False)
    trim: np.ndarray = field(repr=False)
    sha256: str
    source: mujoco.MjSpec = field(repr=False, compare=False)
    apply: Callable[[mujoco.MjSpec, Mapping[str, float]], None] | None = field(repr=False)
    checks: Callable[[Plant], Sequence[Check]] | None = field(repr=False)

    @property
    def nu(self) -> int:
        """Number of action channels."""
        return len(self.actions)

    @property
    def nw(self) -> int:
        """Number of disturbance channels."""
        return len(self.disturbances)

    @property
    def nominal(self) -> np.ndarray:
        """The nominal design vector `[nd]`."""
        return np.array([v.nominal for v in self.design])

    @property
    def state_channels(self) -> tuple[Channel, ...]:
        """Channels of what `physai.state.difference` returns: position, velocity, activation."""
        return _state_channels(self.joints, self.actions, self.model)

    def spec(self, design: Sequence[float] | np.ndarray | None = None) -> mujoco.MjSpec:
        """Return the editable MjSpec of a design vector `[nd]` (None: the nominal design)."""
        values = self.check_design(self.nominal if design is None else np.asarray(design))
        return _applied(self.source, self.apply, self.design, values, self.folder)

    def compile(
        self, design: Sequence[float] | np.ndarray | None = None, textures: bool = True
    ) -> mujoco.MjModel:
        """Compile the model of a design vector, so that every derived constant follows.

        Args:
            design: `[nd]` (None: the nominal design).
            textures: False leaves them blank: the same dynamics, compiled up to 50 times faster.

        Raises:
            InputError: wrong length, not finite, outside the bounds, or MuJoCo refuses the model.
        """
        spec = self.spec(design)
        return _compile(spec if textures else _blank(spec), self.folder)

    def check_design(self, design: np.ndarray) -> np.ndarray:
        """Return `design [..., nd]`, clipped where rounding to float32 left the bounds.

        Raises:
            InputError: wrong length, not finite, or outside the bounds by more than rounding.
        """
        design = np.asarray(design, dtype=float)
        names = ", ".join(v.name for v in self.design)
        if design.shape[-1:] != (len(self.design),):
            raise InputError(
                f"design vector: expected {len(self.design)} values ({names}), "
                f"got shape {design.shape}"
            )
        for i, v in enumerate(self.design):
            slack = max(1e-6 * (v.high - v.low), 2**-23 * max(abs(v.low), abs(v.high)))
            inside = (design[..., i] >= v.low - slack) & (design[..., i] <= v.high + slack)
            if not inside.all():
                raise InputError(
                    f"design variable {v.name}: expected {v.low:g} to {v.high:g} {v.unit}, "
                    f"got {design[..., i][~inside].flat[0]:g}"
                )
        return np.clip(design, [v.low for v in self.design], [v.high for v in self.design])


def plants_folder() -> Path:
    """Return the folder of the shipped plants, in a wheel or in a checkout."""
    inside = Path(__file__).parent / "envs"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "envs"


def plant_names() -> list[str]:
    """Return the names of the shipped plants, sorted."""
    return sorted(p.parent.name for p in plants_folder().glob("*/plant.xml"))


def load_plant(name_or_path: str | Path) -> Plant:
    """Load a shipped plant by name, or a user's folder or MJCF file by path.

    Raises:
        InputError: nothing of that name or path, an MJCF that does not compile, no actuators, a
            control period that is no multiple of the time step.
    """
    path = _find(name_or_path)
    source = _read_spec(path / "plant.xml" if path.is_dir() else path)
    module = _load_module(path / "plant.py") if path.is_dir() else None
    design, apply = tuple(getattr(module, "DESIGN", ())), getattr(module, "apply", None)
    _check_variables(design, apply, path)
    nominal = np.array([v.nominal for v in design])
    model = _compile(_applied(source, apply, design, nominal, path), path)
    period, substeps = _control_period(model, path)
    actions, action_ids, disturbances, disturbance_ids = _actuators(model, module, path)
    return Plant(
        name=path.name if path.is_dir() else path.stem,
        folder=path,
        model=model,
        control_period=period,
        substeps=substeps,
        joints=joint_layout(model),
        actions=actions,
        disturbances=disturbances,
        design=design,
        action_ids=action_ids,
        disturbance_ids=disturbance_ids,
        trim=_trim(model, action_ids, actions),
        sha256=sha256_source(path),
        source=source,
        apply=apply,
        checks=getattr(module, "checks", None),
    )


def load_module(folder: Path, name: str) -> ModuleType | None:
    """Import `folder/name.py` under a private name, or return None where there is none."""
    return _load_module(folder / f"{name}.py")


def _find(name_or_path: str | Path) -> Path:
    shipped = plants_folder() / str(name_or_path)
    if str(name_or_path) in plant_names():
        return shipped
    path = Path(name_or_path)
    if path.is_file() and path.suffix == ".xml":
        return path.resolve()
    if (path / "plant.xml").is_file():
        return path.resolve()
    if path.is_dir():
        raise InputError(f"{path}: expected a plant folder with a plant.xml, found none in it")
    names = plant_names()
    near = difflib.get_close_matches(str(name_or_path), names, n=len(names), cutoff=0.0)
    raise InputError(
        f"no plant named {str(name_or_path)!r} and no such folder or .xml file. "
        f"Shipped plants, nearest name first: {', '.join(near)}"
    )


def _read_spec(path: Path) -> mujoco.MjSpec:
    try:
        return mujoco.MjSpec.from_file(str(path))
    except (ValueError, mujoco.FatalError) as error:
        raise InputError(f"{path}: MuJoCo cannot read this model: {error}") from error


def _compile(spec: mujoco.MjSpec, path: Path) -> mujoco.MjModel:
    try:
        return spec.compile()
    except (ValueError, mujoco.FatalError) as error:
        raise InputError(f"{path}: MuJoCo cannot compile this model: {error}") from error


def _check_variables(
    design: tuple[DesignVariable, ...], apply: Callable[..., None] | None, path: Path
) -> None:
    if design and apply is None:
        raise InputError(
            f"{path / 'plant.py'}: DESIGN names {len(design)} variables, but there is no "
            "apply(spec, design) to write them into the model"
        )
    for v in design:
        if not (v.low < v.high and v.low <= v.nominal <= v.high):
            raise InputError(
                f"{path / 'plant.py'}: design variable {v.name}: expected low < high and a nominal "
                f"value between them, got {v.low:g}, {v.high:g} and {v.nominal:g}"
            )


def _applied(
    source: mujoco.MjSpec,
    apply: Callable[[mujoco.MjSpec, Mapping[str, float]], None] | None,
    design: tuple[DesignVariable, ...],
    values: np.ndarray,
    path: Path,
) -> mujoco.MjSpec:
    spec = source.copy()
    if apply is not None:
        named = {v.name: float(x) for v, x in zip(design, values, strict=True)}
        try:
            apply(spec, named)
        except Exception as error:
            raise InputError(
                f"{path / 'plant.py'}: apply() failed for {named}: {type(error).__name__}: {error}"
            ) from error
    return spec


def _blank(spec: mujoco.MjSpec) -> mujoco.MjSpec:
    """Shrink textures to a pixel a face: to draw a sky costs more than all else in a compile."""
    for texture in spec.textures:
        texture.builtin = mujoco.mjtBuiltin.mjBUILTIN_FLAT
        texture.mark = mujoco.mjtMark.mjMARK_NONE
        texture.file, texture.cubefiles = "", [""] * 6
        texture.width = 1
        texture.height = 1 if texture.type == mujoco.mjtTexture.mjTEXTURE_2D else 6
    return spec


def _load_module(path: Path) -> ModuleType | None:
    if not path.is_file():
        return None
    name = f"physai_plant_{path.parent.name}_{path.stem}_{abs(hash(str(path.resolve()))):x}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path}: cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.dont_write_bytecode = writes_bytecode
    return module


def _control_period(model: mujoco.MjModel, path: Path) -> tuple[float, int]:
    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_NUMERIC, "control_period")
    period = DEFAULT_CONTROL_PERIOD
    if index >= 0:
        period = float(model.numeric_data[model.numeric_adr[index]])
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
            model.joint(j).name or f"joint_{j}",
            _KINDS[int(model.jnt_type[j])],
            int(model.jnt_qposadr[j]),
            int(model.jnt_dofadr[j]),
        )
        for j in range(model.njnt)
    )


def _actuators(
    model: mujoco.MjModel, module: ModuleType | None, path: Path
) -> tuple[tuple[Channel, ...], tuple[int, ...], tuple[Disturbance, ...], tuple[int, ...]]:
    units: Mapping[str, str] = getattr(module, "UNITS", {})
    processes: Mapping[str, Mapping[str, object]] = getattr(module, "DISTURBANCES", {})
    actions, action_ids, disturbances, disturbance_ids = [], [], [], []
    for i in range(model.nu):
        name = model.actuator(i).name or f"actuator_{i}"
        low, high = map(float, model.actuator_ctrlrange[i])
        if not model.actuator_ctrllimited[i]:
            raise InputError(f"{path}: actuator {name} has no ctrlrange; give it one")
        if name.startswith(DISTURBANCE_PREFIX):
            name = name.removeprefix(DISTURBANCE_PREFIX)
            process = {"std": high / 3.0, "correlation_time": 1.0, **processes.get(name, {})}
            channel = Disturbance(name, units.get(name, "N"), low, high, **process)  # type: ignore[arg-type]
            disturbances.append(channel)
            disturbance_ids.append(i)
        else:
            actions.append(Channel(name, units.get(name, "1"), low, high))
            action_ids.append(i)
    names = {d.name for d in disturbances}
    if unknown := sorted(set(processes) - names):
        raise InputError(
            f"{path / 'plant.py'}: DISTURBANCES names {unknown[0]!r}, "
            f"but the model has no actuator {DISTURBANCE_PREFIX}{unknown[0]}"
        )
    for vector in sorted({d.vector for d in disturbances if d.vector}):
        if (count := sum(d.vector == vector for d in disturbances)) != 3:
            raise InputError(
                f"{path / 'plant.py'}: disturbance vector {vector!r}: "
                f"expected 3 components, got {count}"
            )
    if not actions:
        raise InputError(f"{path}: the model has no actuators, so there is nothing to control")
    return tuple(actions), tuple(action_ids), tuple(disturbances), tuple(disturbance_ids)


def _trim(
    model: mujoco.MjModel, action_ids: tuple[int, ...], actions: tuple[Channel, ...]
) -> np.ndarray:
    wanted = model.key_ctrl[0][list(action_ids)] if model.nkey else np.zeros(len(actions))
    return np.clip(wanted, [a.low for a in actions], [a.high for a in actions])


def _state_channels(
    joints: tuple[Joint, ...], actions: tuple[Channel, ...], model: mujoco.MjModel
) -> tuple[Channel, ...]:
    inf = float("inf")
    widths = {
        "free": (("x", "y", "z"), ("rx", "ry", "rz")),
        "ball": ((), ("rx", "ry", "rz")),
        "slide": (("",), ()),
        "hinge": ((), ("",)),
    }
    position, velocity = [], []
    for joint in joints:
        for axes, unit in zip(widths[joint.kind], ("m", "rad"), strict=True):
            for axis in axes:
                name = f"{joint.name}.{axis}" if axis else joint.name
                position.append(Channel(name, unit, -inf, inf))
                velocity.append(Channel(f"{name}.rate", f"{unit}/s", -inf, inf))
    activation = []
    for i in range(model.nu):
        count = int(model.actuator_actnum[i])
        suffixes = [""] if count == 1 else [f"_{k}" for k in range(1, count + 1)]
        name = model.actuator(i).name or f"actuator_{i}"
        activation += [Channel(f"{name}.activation{s}", "1", -inf, inf) for s in suffixes]
    return (*position, *velocity, *activation)
