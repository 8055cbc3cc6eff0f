"""The record of a machine: its compiled model, and its channels by name, unit and range."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from physai.errors import InputError
from physai.plant.author import told
from physai.plant.names import actuator_names
from physai.state import Joint


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
class Sensor:
    """A sensor of the model, whose numbers are channels.

    Attributes:
        name: the sensor's.
        address: of its first number in `sensordata`; the others follow.
        channels: one a number.
        frames: of what is told in the world's frame by a sensor of a free-floating tree: `point`,
            `vector` or `quaternion`, the address of its first number, and where in qpos the free
            joint is.
        quaternions: addresses of the first numbers of quaternions; they are read with w >= 0.
    """

    name: str
    address: int
    channels: tuple[Channel, ...]
    frames: tuple[tuple[str, int, int], ...] = ()
    quaternions: tuple[int, ...] = ()


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
        sensors: sensors of the model that are recorded and predicted, in order.
        design: design variables, in order.
        trim: a safe action to hold `[nu]`: that of the first key frame, else the nearest to zero.
        sha256: hash of the folder's files, or of the MJCF file, as a manifest records it.
        source: the MJCF as it was read: `spec` copies it, so that a later edit cannot mix in.
        apply: writes a design into a spec (None: the design has no variables).
        checks: closed-form checks (None: there are none).
        forces: forces that MJCF cannot say, see `physai.rollout.live` (None: there are none).
    """

    name: str
    folder: Path
    model: mujoco.MjModel = field(repr=False)
    control_period: float
    substeps: int
    joints: tuple[Joint, ...] = field(repr=False)
    actions: tuple[Channel, ...] = field(repr=False)
    disturbances: tuple[Disturbance, ...] = field(repr=False)
    sensors: tuple[Sensor, ...] = field(repr=False)
    design: tuple[DesignVariable, ...] = field(repr=False)
    action_ids: tuple[int, ...] = field(repr=False)
    disturbance_ids: tuple[int, ...] = field(repr=False)
    trim: np.ndarray = field(repr=False)
    sha256: str
    source: mujoco.MjSpec = field(repr=False, compare=False)
    apply: Callable[[mujoco.MjSpec, Mapping[str, float]], None] | None = field(repr=False)
    checks: Callable[[Plant], Sequence[Check]] | None = field(repr=False)
    forces: Callable[[Any], None] | None = field(repr=False)

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
    def sensor_channels(self) -> tuple[Channel, ...]:
        """Channels of the sensors `[ns]`, in the order in which they are recorded."""
        return tuple(channel for sensor in self.sensors for channel in sensor.channels)

    @property
    def state_channels(self) -> tuple[Channel, ...]:
        """Channels of what `physai.state.difference` returns: position, velocity, activation."""
        return _state_channels(self.joints, self.actions, self.model)

    def spec(self, design: Sequence[float] | np.ndarray | None = None) -> mujoco.MjSpec:
        """Return the editable MjSpec of a design vector `[nd]` (None: the nominal design)."""
        values = self.check_design(self.nominal if design is None else np.asarray(design))
        return apply_design(self.source, self.apply, self.design, values, self.folder)

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
        return compile_spec(spec if textures else _blank(spec), self.folder)

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


def compile_spec(spec: mujoco.MjSpec, path: Path) -> mujoco.MjModel:
    try:
        with warnings.catch_warnings():
            # Reading the file has told it once; a study compiles a thousand designs.
            warnings.filterwarnings("ignore", message=".*is deprecated and will be removed")
            return spec.compile()
    except (ValueError, mujoco.FatalError) as error:
        raise InputError(f"{path}: MuJoCo cannot compile this model: {error}") from error


def apply_design(
    source: mujoco.MjSpec,
    apply: Callable[[mujoco.MjSpec, Mapping[str, float]], None] | None,
    design: tuple[DesignVariable, ...],
    values: np.ndarray,
    path: Path,
) -> mujoco.MjSpec:
    spec = source.copy()
    if apply is not None:
        named = {v.name: float(x) for v, x in zip(design, values, strict=True)}
        with told(path / "plant.py", f"apply() failed for {named}"):
            apply(spec, named)
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
    for i, name in enumerate(actuator_names(model)):
        count = int(model.actuator_actnum[i])
        suffixes = [""] if count == 1 else [f"_{k}" for k in range(1, count + 1)]
        activation += [Channel(f"{name}.activation{s}", "1", -inf, inf) for s in suffixes]
    return (*position, *velocity, *activation)
