"""A plant folder to start from: a small machine that explains itself, or one's own MJCF with notes.

The files lie in `physai/template`, as they are written but for words such as `__NAME__`.
"""

from __future__ import annotations

import json
import keyword
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import mujoco

from physai.errors import InputError
from physai.plant import Plant, load_plant, plant_names
from physai.provenance.hashing import is_portable, open_regular
from physai.provenance.storage import atomic_folder, atomic_write
from physai.state import POSITION_WIDTH
from physai.task import Task, hold_task, load_task

TEMPLATES = Path(__file__).parent / "template"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_OWN = ("plant.xml", "plant.py", "task.py")


def new_plant(
    name: str, out: str | Path | None = None, model: str | Path | None = None
) -> tuple[Path, Plant]:
    """Write a plant folder, whole or not at all, and return it and the plant in it.

    Args:
        name: of the machine: letters, digits and underscores, a letter first.
        out: the folder (None: one of that name here).
        model: an MJCF file to start from, which is copied with its includes, meshes and textures
            (None: a flexible arm that is no shipped plant).

    Raises:
        InputError: a name that is none or is that of a shipped plant, a folder that exists, a model
            that physai cannot take or that needs files outside its own folder.
    """
    _check_name(name)
    folder = Path(name if out is None else out)
    if os.path.lexists(folder):
        raise InputError(
            f"{folder}: exists already, and nothing was written. Choose another name or --out"
        )
    files = _machine(name) if model is None else _from_model(name, Path(model))
    with atomic_folder(folder) as temporary:
        for relative, data in files.items():
            atomic_write(temporary / relative, data)
        _load(temporary, folder if model is None else Path(model))
    return folder, load_plant(folder.resolve())


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise InputError(
            f"{name!r}: expected letters, digits and underscores, a letter first, and no word of "
            "Python, such as my_robot"
        )
    if name in plant_names():
        raise InputError(
            f"{name}: a shipped plant has this name, and would be found in place of yours. Choose "
            "another"
        )


def _load(temporary: Path, origin: Path) -> None:
    """Load what was written before it gets its name; it must need nothing outside its folder."""
    for needed in mujoco.mju_getXMLDependencies(str(temporary / "plant.xml")):
        if temporary not in Path(needed).parents:
            raise _outside(origin, needed)
    try:
        load_task(load_plant(temporary))
    except InputError as error:
        raise InputError(f"{origin}: its copy cannot be loaded: {error}") from error


def _outside(model: Path, needed: str) -> InputError:
    return InputError(
        f"{model}: needs {needed}, by an absolute path or outside the model's folder. Put it into "
        "that folder or below it, and let the model name it by a relative path"
    )


def _machine(name: str) -> dict[str, bytes]:
    folder = TEMPLATES / "machine"
    names = (*_OWN, "README.md")
    return {n: _filled(folder / n, {"__NAME__": name}) for n in names}


def _from_model(name: str, path: Path) -> dict[str, bytes]:
    if path.suffix != ".xml" or not path.is_file():
        raise InputError(f"{path}: expected an MJCF file, its name ending in .xml")
    # A path, and never the name of a shipped plant.
    plant = load_plant(path.resolve())
    task = hold_task(plant)
    files = _model_files(path)
    words = {
        "__NAME__": name,
        "__PERIOD__": f"{plant.control_period:g}",
        "__MASS__": f"{plant.model.body_mass.sum():.10g}",
        "# __UNITS__": _comment(_units(plant)),
        "# __DESIGN__": _comment(_design(plant)),
        "# __SENSORS__": _comment([f"SENSORS = {tuple(s.name for s in plant.sensors)}"]),
        "# __STATE__": _comment(_state(plant)),
        "# __ACTIONS__": _comment(_actions(plant)),
        "# __OBSERVATIONS__": _comment(_observations(task)),
        "# __REQUIREMENTS__": _comment(_requirements(task)),
    }
    for own in ("plant.py", "task.py"):
        files[own] = _filled(TEMPLATES / "model" / own, words)
    return files


def _model_files(path: Path) -> dict[str, bytes]:
    """Return the bytes of a model, as plant.xml, and of all files that it needs, by their name.

    Names are relative to the model's folder, and stay so in the copy.
    """
    model = os.path.abspath(path)
    files = {"plant.xml": _read(path)}
    for needed in mujoco.mju_getXMLDependencies(model):
        place = os.path.normpath(os.path.join(os.path.dirname(model), needed))
        name = os.path.relpath(place, os.path.dirname(model)).replace(os.sep, "/")
        if place == model:
            continue
        if not is_portable(name):
            raise _outside(path, needed)
        if name in _OWN:
            raise InputError(f"{path}: needs a file {name}, a name that a plant folder keeps")
        files[name] = _read(Path(place))
    return files


def _read(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.readall()


def _filled(path: Path, words: Mapping[str, str]) -> bytes:
    text = path.read_text(encoding="utf-8")
    for word, value in words.items():
        text = text.replace(word, value)
    return text.encode()


def _comment(lines: Iterable[str]) -> str:
    return "\n".join(f"# {line}".rstrip() for line in lines) or "# (none)"


def _units(plant: Plant) -> list[str]:
    channels = (*plant.actions, *plant.disturbances)
    return [
        "UNITS = {",
        *(f"    {json.dumps(c.name)}: {json.dumps(c.unit)}," for c in channels),
        "}",
    ]


def _design(plant: Plant) -> list[str]:
    """Write an example that works: the damping of the first joint with a name, else gravity."""
    model = plant.model
    kinds = {"slide": "N s/m", "hinge": "N m s/rad"}
    found = [j for j in range(model.njnt) if model.joint(j).name and plant.joints[j].kind in kinds]
    if found:
        joint = plant.joints[found[0]]
        value = float(model.dof_damping[joint.qvel_index]) or 0.1
        variable = f'DesignVariable("damping", "{kinds[joint.kind]}"'
        line = f'spec.joint({json.dumps(joint.name)}).damping[0] = design["damping"]'
    else:
        value = float(abs(model.opt.gravity[2])) or 9.81
        variable = 'DesignVariable("gravity", "m/s^2"'
        line = 'spec.option.gravity[2] = -design["gravity"]'
    low, high, nominal = (f"{x:.6g}" for x in (0.5 * value, 2.0 * value, value))
    return [
        "from collections.abc import Mapping",
        "",
        "import mujoco",
        "",
        "from physai.plant import DesignVariable",
        "",
        f"DESIGN = ({variable}, {low}, {high}, {nominal}),)",
        "",
        "def apply(spec: mujoco.MjSpec, design: Mapping[str, float]) -> None:",
        f"    {line}",
    ]


def _state(plant: Plant) -> list[str]:
    lines = []
    for joint in plant.joints:
        width, unit = POSITION_WIDTH[joint.kind], "m" if joint.kind == "slide" else "rad"
        unit = {"free": "m, and a unit quaternion", "ball": "unit quaternion"}.get(joint.kind, unit)
        lines.append(f"qpos[{_places(joint.qpos_index, width)}]: {joint.name}, {unit}")
    velocities = plant.state_channels[plant.model.nv :]
    for i, channel in enumerate(velocities[: plant.model.nv]):
        lines.append(f"qvel[{i}]: {channel.name}, {channel.unit}")
    for i, channel in enumerate(velocities[plant.model.nv :]):
        lines.append(f"act[{i}]: {channel.name}")
    return lines


def _places(first: int, width: int) -> str:
    return str(first) if width == 1 else f"{first}:{first + width}"


def _actions(plant: Plant) -> list[str]:
    return [
        f"action[{i}]: {a.name}, {a.low:g} to {a.high:g} {a.unit}"
        for i, a in enumerate(plant.actions)
    ]


def _observations(task: Task) -> list[str]:
    return [f"{c.name}, {c.unit}" for c in task.observations]


def _requirements(task: Task) -> list[str]:
    return [f"{r.name}: {r.description}, at most {r.limit:g} {r.unit}" for r in task.requirements]
