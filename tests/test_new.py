"""`physai new`: the folder loads, its checks pass, its sheet is right; what is refused, and how."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from physai.cli import main
from physai.errors import InputError
from physai.plant import Plant, load_module, load_plant
from physai.rollout.engine import TruePlant
from physai.scaffold import new_plant
from physai.state import State
from physai.task import Task, load_task

ARM = """<mujoco model="arm"><compiler angle="radian"/>
  <worldbody><body name="link">
    <joint name="elbow" axis="0 1 0" damping="0.3" range="-2 2"/>
    <geom type="capsule" fromto="0 0 0 0.4 0 0" size="0.02" mass="1.25"/>
  </body></worldbody>
  <actuator>
    <motor name="servo" joint="elbow" ctrlrange="-4 4"/>
    <motor name="disturbance/gust" joint="elbow" ctrlrange="-1 1"/>
  </actuator>
</mujoco>"""
ROBOT = """<mujoco><compiler meshdir="assets"/>
  <asset><mesh name="wedge" file="wedge.obj"/></asset>
  <worldbody><include file="parts/body.xml"/></worldbody>
  <actuator><motor joint="slider" ctrlrange="-1 1" gear="20"/></actuator>
</mujoco>"""
BODY = """<mujocoinclude><body><joint name="slider" type="slide" axis="1 0 0"/>
  <geom type="mesh" mesh="wedge"/><body pos="1 0 0"><joint type="ball"/><geom size="0.1"/></body>
</body></mujocoinclude>"""
WEDGE = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: object) -> tuple[int, str, str]:
        status = main([str(a) for a in arguments])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    return new_plant("my_robot", tmp_path_factory.mktemp("new") / "my_robot")[1]


@pytest.fixture(scope="module")
def task(machine: Plant) -> Task:
    return load_task(machine)


@pytest.fixture
def robot(here: Path) -> Path:
    """A model with an include and a mesh in folders below its own."""
    folder = here / "source"
    for name, text in (("robot.xml", ROBOT), ("parts/body.xml", BODY), ("assets/wedge.obj", WEDGE)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / "robot.xml"


# The command


def test_it_writes_a_folder_that_check_passes_and_says_what_is_next(here: Path, cli) -> None:
    status, shown, err = cli("new", "my_robot")
    assert (status, err) == (0, "")
    files = {p.name for p in (here / "my_robot").iterdir()}
    assert files == {"plant.xml", "plant.py", "task.py", "README.md"}
    assert list(here.iterdir()) == [here / "my_robot"]
    for file in files:
        text = (here / "my_robot" / file).read_text()
        assert "my_robot" in text and "__NAME__" not in text
    commands = [shlex.split(line) for line in shown.splitlines() if line.startswith("  ")]
    assert commands == [
        ["physai", "check", "my_robot"],
        ["physai", "run", "my_robot", "--out", "runs/my_robot"],
    ]
    status, shown, _ = cli(*commands[0][1:], "--json")
    checks = json.loads(shown)["checks"]["my_robot"]
    assert status == 0 and len(checks) == 3 and all(c["passed"] for c in checks)


def test_out_is_the_folder_and_json_is_alone_on_stdout(here: Path, cli) -> None:
    status, shown, _ = cli("new", "my_robot", "--out", "robots/first one", "--json")
    found = json.loads(shown)
    assert status == 0 and found["out"] == "robots/first one"
    assert found["files"] == ["README.md", "plant.py", "plant.xml", "task.py"]
    assert shlex.split(found["next"][0]) == ["physai", "check", "robots/first one"]
    assert "# my_robot" in (here / "robots/first one/README.md").read_text()


@pytest.mark.parametrize("kind", ["folder", "empty", "file", "link"])
def test_what_exists_is_refused_and_left_alone(here: Path, cli, kind: str) -> None:
    place = here / "my_robot"
    if kind in ("folder", "empty"):
        place.mkdir()
    if kind == "folder":
        (place / "task.py").write_text("DURATION = 3.0\n")
    if kind == "file":
        place.write_text("mine")
    if kind == "link":
        place.symlink_to(here / "nowhere")
    before = sorted(here.rglob("*"))
    status, shown, err = cli("new", "my_robot")
    assert (status, shown) == (2, "") and "exists already" in err and "--out" in err
    assert sorted(here.rglob("*")) == before
    if kind == "folder":
        assert (place / "task.py").read_text() == "DURATION = 3.0\n"


@pytest.mark.parametrize("name", ["", "3d", "my robot", "my-robot", "../up", "a.b", "class", "é"])
def test_a_name_that_is_none_is_refused(here: Path, cli, name: str) -> None:
    status, _, err = cli("new", name)
    assert status == 2 and "expected letters, digits and underscores" in err
    assert list(here.iterdir()) == []


def test_the_name_of_a_shipped_plant_is_refused(here: Path, cli) -> None:
    status, _, err = cli("new", "quadrotor", "--out", "mine")
    assert status == 2 and "a shipped plant has this name" in err and list(here.iterdir()) == []


def test_a_write_that_fails_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="disk is full"):
        new_plant("my_robot")
    assert list(here.iterdir()) == []


# The machine of the template


@pytest.mark.parametrize("design", [(0.2, 5.0), (0.1, 10.0), (0.4, 3.0)])
def test_closed_forms_hold_at_other_designs(machine: Plant, design: tuple[float, float]) -> None:
    module = load_module(machine.folder / "plant.py")
    assert module is not None
    checks = module.design_checks(machine, np.array(design))
    assert len(checks) == 3 and [c.quantity for c in checks if not c.passed] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [('mass="0.3"', 'mass="0.31"'), ('gear="0 1 0', 'gear="0 0.9 0'), ('0.08 0.03"', '0.07 0.03"')],
)
def test_the_checks_notice_a_wrong_number(here: Path, cli, old: str, new: str) -> None:
    cli("new", "my_robot")
    file = here / "my_robot" / "plant.xml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    assert cli("check", "my_robot")[0] == 1


def test_the_spec_sheet_agrees_with_plant_and_task(machine: Plant, task: Task) -> None:
    page = (machine.folder / "README.md").read_text()
    trim = [(*_channel(a), t) for a, t in zip(machine.actions, machine.trim, strict=True)]
    gusts = [(*_channel(d), d.std, d.correlation_time) for d in machine.disturbances]
    noise = [(*_channel(c), c.noise) for c in task.observations]
    channels = [*trim, *gusts, *map(_channel, task.commands), *noise]
    assert rows(page, "channel") == channels
    assert [r[:5] for r in rows(page, "variable")] == [
        (v.name, v.unit, v.low, v.nominal, v.high) for v in machine.design
    ]
    limits = [(r.name, r.unit, r.limit) for r in task.requirements]
    assert [r[:3] for r in rows(page, "requirement")] == limits
    assert [r[:3] for r in rows(page, "objective")] == [
        (o.name, o.unit, "more" if o.maximise else "less") for o in task.objectives
    ]
    assert machine.checks is not None
    checks = machine.checks(machine)
    for row, check in zip(rows(page, "quantity"), checks, strict=True):
        assert row[:2] == (check.quantity, check.unit) and row[4]
        assert row[2:4] == pytest.approx((check.expected, check.tolerance), rel=1e-5)
    constants = rows(page, "constant")
    assert len(constants) >= 5 and all(all(row) for row in constants)


def _channel(c: Any) -> tuple[Any, ...]:
    return c.name, c.unit, c.low, c.high


def rows(page: str, first: str) -> list[tuple[Any, ...]]:
    """Return the rows of the tables whose first column is this, numbers as such, without ticks."""
    found, head = [], ""
    for line in page.splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            head = ""
        elif not head:
            head = cells[0]
        elif head == first and not set(line) <= set("|-: "):
            found.append(tuple(map(_number, cells)))
    return found


def _number(cell: str) -> Any:
    # A unit of "1" is text, and stands beside its channel: no such unit in this sheet.
    return float(cell) if re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", cell) else cell


def test_starts_are_inside_the_observation_ranges(machine: Plant, task: Task) -> None:
    low, high = (np.array([getattr(c, end) for c in task.observations]) for end in ("low", "high"))
    assert task.excitation is not None
    for draw in (task.reset, task.excitation):
        keys = jax.random.split(jax.random.key(0), 200)
        states = jax.vmap(draw, (0, None))(keys, jnp.asarray(machine.nominal, jnp.float32))
        seen = np.asarray(jax.vmap(task.observe)(states))
        assert (seen >= low).all() and (seen <= high).all()


def test_requirements_hold_at_the_command_and_fail_off_it(machine: Plant, task: Task) -> None:
    def resting(off: float) -> State:
        start = task.reset(jax.random.key(0), jnp.asarray(machine.nominal, jnp.float32))
        start = start.replace(qpos=jnp.array([start.command[0] + off, 0.0]), qvel=jnp.zeros(2))
        states = jax.tree.map(lambda x: jnp.broadcast_to(x, (201, *x.shape)), start)
        return states.replace(time=0.01 * jnp.arange(201))

    def met(states: State) -> list[bool]:
        return [bool(r.measure(states) <= r.limit) for r in task.requirements]

    assert task.settling is not None
    assert met(resting(0.01)) == [True, True] and float(task.settling(resting(0.01))) == 0.0
    assert met(resting(0.05)) == [False, True] and np.isinf(float(task.settling(resting(0.05))))
    bent = resting(0.0)
    assert met(bent.replace(qpos=bent.qpos + jnp.array([-0.1, 0.1]))) == [True, False]
    idle = jnp.zeros(1)
    near, far = (resting(off)[0] for off in (0.0, 0.1))
    assert float(task.reward(near, idle, near)) > float(task.reward(far, idle, far))


def test_random_actions_do_not_diverge(machine: Plant, task: Task) -> None:
    rng = np.random.default_rng(0)
    assert task.excitation is not None
    keys = jax.random.split(jax.random.key(1), 64)
    starts = jax.vmap(task.excitation, (0, None))(keys, jnp.asarray(machine.nominal, jnp.float32))
    simulations, state = TruePlant(machine, 64), jax.tree.map(np.asarray, starts)
    for _ in range(100):
        state = simulations.step(state, rng.uniform(-1.5, 1.5, size=(64, 1)))
    assert simulations.valid.all() and np.abs(state.qpos).max() < 50.0


# One's own model


def examples(text: str) -> Iterator[tuple[str, str]]:
    """Yield the text of each block of comments and the code in it: what parses, after the prose."""
    for block in re.findall(r"(?:^#.*\n)+", text, flags=re.MULTILINE):
        lines = [line[2:] for line in block.splitlines()]
        for first in range(len(lines)):
            code = "\n".join(lines[first:])
            try:
                tree = ast.parse(code)
            except SyntaxError:
                continue
            if any(not isinstance(node, ast.Expr | ast.AnnAssign) for node in tree.body):
                yield block, code
                break


def test_a_hinge_arm_gets_its_channels_and_examples_that_work(here: Path, cli) -> None:
    (here / "arm.xml").write_text(ARM)
    status, shown, _ = cli("new", "my_arm", "--model", "arm.xml")
    assert status == 0 and "physai check my_arm" in shown
    folder = here / "my_arm"
    assert (folder / "plant.xml").read_text() == ARM
    plant, task = load_plant("my_arm"), (folder / "task.py").read_text()
    assert load_task(plant).duration == load_module(folder / "task.py").DURATION  # type: ignore[union-attr]
    for words in ("qpos[0]: elbow, rad", "qvel[0]: elbow.rate", "action[0]: servo, -4 to 4 N m"):
        assert words in task
    assert "elbow.error, rad" in task and "at most 3 deg" in task
    (reward,) = [code for _, code in examples(task)]
    (folder / "task.py").write_text(f"DURATION = 2.5\n{reward}\n")
    changed = load_task(plant)
    state = changed.reset(jax.random.key(0), jnp.zeros(0)).replace(qvel=jnp.array([2.0]))
    assert float(changed.reward(state, jnp.zeros(1), state)) == -4.0 and changed.duration == 2.5


def test_the_examples_of_plant_py_work(here: Path) -> None:
    two = '<jointpos name="a" joint="elbow"/><jointvel name="b" joint="elbow"/>'
    (here / "arm.xml").write_text(ARM.replace("</mujoco>", f"<sensor>{two}</sensor></mujoco>"))
    new_plant("my_arm", model="arm.xml")
    file = here / "my_arm" / "plant.py"
    found = [code for _, code in examples(file.read_text())]
    assert len(found) == 5 and '"servo": "N m"' in found[0] and '"gust": "N"' in found[0]
    text = "\n".join(code.replace('"NAME"', '"gust"') for code in found)
    file.write_text(text.replace("('a', 'b')", "('b',)"))
    plant = load_plant("my_arm")
    assert plant.compile([0.6]).dof_damping[0] == pytest.approx(0.6)
    assert plant.design[0].nominal == 0.3 and plant.disturbances[0].std == 0.1
    assert [c.name for c in plant.sensor_channels] == ["b"]
    assert plant.checks is not None and all(c.passed for c in plant.checks(plant))


def test_includes_and_meshes_come_along(here: Path, robot: Path) -> None:
    folder, plant = new_plant("my_robot", model=robot)
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert files == {"plant.xml", "plant.py", "task.py", "parts/body.xml", "assets/wedge.obj"}
    assert (folder / "parts/body.xml").read_text() == BODY
    robot.unlink()
    (robot.parent / "assets/wedge.obj").unlink()
    plant = load_plant("my_robot")
    assert plant.model.nmesh == 1 and (plant.model.nq, plant.nu) == (5, 1)
    text = (folder / "task.py").read_text()
    assert "qpos[1:5]: joint_1, unit quaternion" in text and "qvel[0]: slider.rate" in text
    assert "action[0]: actuator_0, -1 to 1 1" in text


def test_a_model_without_named_joints_or_actuators_is_taken_too(here: Path, cli) -> None:
    (here / "ball.xml").write_text(
        "<mujoco><worldbody><body><freejoint/><geom size='0.1'/></body></worldbody></mujoco>"
    )
    status, shown, _ = cli("new", "ball", "--model", "ball.xml")
    assert status == 0 and "physai rollout ball" in shown and "physai run" not in shown
    file = here / "ball" / "plant.py"
    (code,) = [code for _, code in examples(file.read_text()) if "DESIGN" in code]
    file.write_text(code)
    assert load_plant("ball").compile([5.0]).opt.gravity[2] == -5.0


def refused(model: Path, *words: str) -> None:
    before = sorted(Path.cwd().rglob("*"))
    with pytest.raises(InputError) as caught:
        new_plant("mine", model=model)
    for word in words:
        assert word in str(caught.value), caught.value
    assert sorted(Path.cwd().rglob("*")) == before


def test_files_outside_the_models_folder_are_refused(here: Path, robot: Path) -> None:
    inside, text = robot.parent, robot.read_text()
    other = here / "other" / "robot.xml"
    other.parent.mkdir()
    other.write_text(text.replace('"assets"', '"../source/assets"').replace("parts/", ""))
    (other.parent / "body.xml").write_text(BODY)
    refused(other, "wedge.obj", "outside the model's folder")
    robot.write_text(text.replace("wedge.obj", str(inside / "assets/wedge.obj")))
    refused(robot, "wedge.obj", "absolute path")
    robot.write_text(text.replace("parts/", f"{inside}/parts/"))
    refused(robot, "body.xml", "absolute path")


def test_models_that_cannot_be_taken_are_refused_with_their_reason(here: Path) -> None:
    refused(here / "none.xml", "none.xml", "expected an MJCF file")
    (here / "arm.urdf").write_text(ARM)
    refused(here / "arm.urdf", "expected an MJCF file")
    broken = here / "broken.xml"
    broken.write_text("<mujoco><worldbdy/></mujoco>")
    refused(broken, "broken.xml", "worldbdy")
    broken.write_text(ARM.replace('name="servo" joint="elbow" ctrlrange="-4 4"', 'joint="elbow"'))
    refused(broken, "no ctrlrange")
    (here / "plant.xml").write_text(BODY.replace('<geom type="mesh" mesh="wedge"/>', ""))
    broken.write_text(
        '<mujoco><worldbody><include file="plant.xml"/><body><joint/><geom size="1"/></body>'
        "</worldbody></mujoco>"
    )
    (here / "plant.xml").write_text('<mujocoinclude><geom size="0.1"/></mujocoinclude>')
    refused(broken, "plant.xml", "a name that a plant folder keeps")


def test_the_model_in_the_template_is_the_nominal_design(machine: Plant) -> None:
    """What plant.xml says by itself equals what `apply` writes at the nominal design."""
    alone = mujoco.MjModel.from_xml_path(str(machine.folder / "plant.xml"))
    for field in ("body_mass", "body_inertia", "jnt_stiffness", "dof_damping"):
        assert getattr(alone, field) == pytest.approx(getattr(machine.model, field))
