"""Any MJCF without code: derived channels, refusals by name, and the default task."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physai.errors import InputError
from physai.plant import load_plant
from physai.state import State
from physai.task import load_task

ARM = """
<mujoco model="arm">
  <option timestep="0.005" integrator="implicitfast"><flag contact="disable"/></option>
  <worldbody>
    <body><joint name="shoulder" axis="0 1 0" damping="0.2" {limit}/>
      <geom type="capsule" fromto="0 0 0 0.4 0 0" size="0.03" mass="1.5"/>
      <body pos="0.4 0 0"><joint name="elbow" axis="0 1 0" damping="0.1" range="-140 140"/>
        <geom type="capsule" fromto="0 0 0 0.35 0 0" size="0.025" mass="0.8"/>
      </body>
    </body>
    {bodies}
  </worldbody>
  <actuator>
    <motor name="shoulder" joint="shoulder" gear="25" ctrlrange="-1 1"/>
    <motor name="elbow" joint="elbow" gear="12" ctrlrange="-1 1"/>
    {actuators}
  </actuator>
  {more}
</mujoco>
"""
KEY = '<keyframe><key name="home" qpos="0.4 -0.8"/></keyframe>'


def write_arm(
    folder: Path, limit: str = 'range="-150 150"', bodies="", actuators="", more=KEY
) -> Path:
    path = folder / "arm.xml"
    path.write_text(ARM.format(limit=limit, bodies=bodies, actuators=actuators, more=more))
    return path


def at(task, plant, qpos, qvel=None) -> State:
    state = task.reset(jax.random.key(0), jnp.zeros(len(plant.design)))
    return state.replace(
        qpos=jnp.asarray(qpos, jnp.float32),
        qvel=jnp.zeros_like(state.qvel) if qvel is None else jnp.asarray(qvel, jnp.float32),
    )


# --- channels


@pytest.mark.parametrize(
    ("actuator", "unit", "low", "high"),
    [
        ('<motor joint="elbow" ctrlrange="-3 3"/>', "N m", -3.0, 3.0),
        ('<motor joint="elbow" forcerange="-6 6"/>', "N m", -6.0, 6.0),
        ('<motor joint="elbow" gear="4" forcerange="-6 8"/>', "1", -6.0, 8.0),
        ('<general joint="elbow" gainprm="2" forcerange="-6 8"/>', "1", -3.0, 4.0),
        ('<general joint="elbow" gainprm="-2" forcerange="-6 8"/>', "1", -4.0, 3.0),
        ('<position joint="elbow" kp="9"/>', "rad", -2.4434609, 2.4434609),
        ('<position joint="elbow" kp="9" ctrlrange="-1 2"/>', "rad", -1.0, 2.0),
        ('<velocity joint="elbow" kv="9" ctrlrange="-1 2"/>', "rad/s", -1.0, 2.0),
        ('<intvelocity joint="elbow" kp="9" actrange="-1 1" ctrlrange="-5 5"/>', "rad/s", -5, 5),
    ],
)
def test_unit_and_range_of_an_actuator_follow_from_what_it_drives(
    tmp_path, actuator, unit, low, high
):
    channel = load_plant(write_arm(tmp_path, actuators=actuator, more="")).actions[2]
    assert (channel.unit, channel.low, channel.high) == (
        unit,
        pytest.approx(low),
        pytest.approx(high),
    )


def test_a_model_without_control_period_gets_the_multiple_of_its_time_step_nearest_20_ms(tmp_path):
    path = write_arm(tmp_path)
    path.write_text(path.read_text().replace('timestep="0.005"', 'timestep="0.003"'))
    plant = load_plant(path)
    assert (plant.control_period, plant.substeps) == (pytest.approx(0.021), 7)


# --- identity


def test_the_hash_covers_what_the_file_includes_and_refers_to(tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "key.xml").write_text(f"<mujoco>{KEY}</mujoco>")
    tetrahedron = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 1 4 3\n"
    (parts / "m.obj").write_text(tetrahedron)
    more = '<include file="parts/key.xml"/><asset><mesh name="m" file="parts/m.obj"/></asset>'
    path = write_arm(tmp_path, more=more)
    before = load_plant(path).sha256
    assert load_plant(path).sha256 == before
    (parts / "m.obj").write_text(tetrahedron.replace("v 1 0 0", "v 2 0 0"))
    mesh_changed = load_plant(path).sha256
    (parts / "key.xml").write_text(f"<mujoco>{KEY.replace('0.4', '0.5')}</mujoco>")
    assert len({before, mesh_changed, load_plant(path).sha256}) == 3


# --- refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"bodies": '<body name="hand" mocap="true"><geom size="0.1"/></body>', "more": ""},
            "mocap body 'hand'",
        ),
        (
            {"actuators": '<motor joint="elbow" ctrlrange="0 1" delay="0.01" nsample="4"/>'},
            "delayed actuators",
        ),
        (
            {"actuators": '<general name="own" joint="elbow" ctrlrange="0 1" gaintype="user"/>'},
            "actuator own, whose type `user` needs a callback",
        ),
        ({"actuators": '<motor name="bare" joint="elbow"/>'}, "actuator bare has no ctrlrange"),
        ({"more": '<keyframe><key qpos="1 2 3"/></keyframe>'}, "keyframe"),
        ({"more": '<asset><mesh name="m" file="gone.stl"/></asset>'}, "gone.stl"),
        ({"more": '<include file="gone.xml"/>'}, "gone.xml"),
    ],
)
def test_what_cannot_be_represented_is_refused_by_name(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load_plant(write_arm(tmp_path, **changes))


def test_a_model_without_joints_is_refused(tmp_path):
    (tmp_path / "rock.xml").write_text("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
    with pytest.raises(InputError, match="no joints"):
        load_plant(tmp_path / "rock.xml")


# --- the default task


def test_the_goal_is_the_key_frame_and_else_the_rest_pose(tmp_path):
    for more, goal in ((KEY, [0.4, -0.8]), ("", [0.0, 0.0])):
        plant = load_plant(write_arm(tmp_path, more=more))
        task = load_task(plant)
        there, away = at(task, plant, goal), at(task, plant, np.add(goal, [0.3, 0.1]))
        np.testing.assert_allclose(task.observe(there), np.zeros(4), atol=1e-6)
        still = jnp.zeros(2)
        assert task.reward(there, still, there) > task.reward(away, still, away)


def test_the_action_that_holds_the_goal_is_that_of_statics(tmp_path):
    """Torques of two horizontal uniform rods under gravity, over the gear."""
    plant = load_plant(write_arm(tmp_path, more=""))
    task = load_task(plant)
    g = 9.81
    elbow = 0.8 * g * 0.35 / 2
    shoulder = 1.5 * g * 0.2 + 0.8 * g * (0.4 + 0.35 / 2)
    holding = -np.array([shoulder / 25, elbow / 12])
    there = at(task, plant, [0.0, 0.0])
    rewards = jax.vmap(lambda u: task.reward(there, u, there))
    best = rewards(jnp.asarray(holding)[None])[0]
    assert best == pytest.approx(0.0, abs=1e-6)
    assert (rewards(holding + 0.1 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])) < best).all()


def test_requirements_judge_the_last_second_in_degrees(tmp_path):
    plant = load_plant(write_arm(tmp_path))
    task = load_task(plant)
    (angle,) = task.requirements
    goal = np.array([0.4, -0.8])
    offset = np.zeros((201, 2))
    offset[:100, 0] = 1.0
    offset[-20:, 1] = np.radians(2.0)
    path = at(task, plant, [0, 0])
    states = jax.tree.map(lambda x: jnp.broadcast_to(x, (201, *x.shape)), path)
    states = states.replace(
        qpos=jnp.asarray(goal + offset, jnp.float32), time=0.02 * jnp.arange(201.0)
    )
    assert angle.unit == "deg"
    assert angle.measure(states) == pytest.approx(2.0, rel=1e-3)
    assert task.settling is not None
    assert task.settling(states) == pytest.approx(2.0)


def test_starts_respect_the_ranges_of_the_joints_and_differ(tmp_path):
    plant = load_plant(write_arm(tmp_path, limit='range="20 30"'))
    task = load_task(plant)
    starts = jax.vmap(lambda k: task.reset(k, jnp.zeros(0)))(
        jax.random.split(jax.random.key(0), 64)
    )
    shoulder = np.degrees(starts.qpos[:, 0])
    assert shoulder.min() >= 19.999
    assert shoulder.max() <= 30.001
    assert np.ptp(shoulder) > 3.0


def test_a_joint_without_range_is_seen_as_sine_and_cosine_of_its_error(tmp_path):
    plant = load_plant(write_arm(tmp_path, limit=""))
    task = load_task(plant)
    names = [c.name for c in task.observations]
    assert names[:3] == ["shoulder.error_sin", "shoulder.error_cos", "elbow.error"]
    turned = task.observe(at(task, plant, [0.4 + 2 * np.pi + 0.5, -0.8]))
    np.testing.assert_allclose(turned[:2], [np.sin(0.5), np.cos(0.5)], atol=1e-5)


@pytest.mark.parametrize(
    ("qpos", "message"),
    [
        ("5 -0.8", "key frame 'home': joint shoulder: .* range, -2.6.* to 2.6.* rad, got 5"),
        ("0.4 -3", "key frame 'home': joint elbow: expected a goal within its range"),
    ],
)
def test_a_key_frame_outside_the_ranges_is_no_goal(tmp_path, qpos, message):
    plant = load_plant(write_arm(tmp_path, more=KEY.replace("0.4 -0.8", qpos)))
    with pytest.raises(InputError, match=message):
        load_task(plant)


def test_a_key_frame_within_the_requirement_of_a_range_is_a_goal(tmp_path):
    within = np.radians(140) + np.radians(2)  # the requirement leaves 3 degrees
    load_task(load_plant(write_arm(tmp_path, more=KEY.replace("-0.8", f"{within}"))))


def test_free_and_ball_joints_and_activations_fit_the_task(tmp_path):
    bodies = (
        '<body name="ball" pos="1 0 0"><joint name="b" type="ball"/><geom size="0.1"/></body>'
        '<body name="cube" pos="2 0 0"><freejoint name="f"/><geom size="0.1"/></body>'
    )
    actuators = '<general joint="elbow" ctrlrange="-1 1" dyntype="filter" dynprm="0.1"/>'
    plant = load_plant(write_arm(tmp_path, bodies=bodies, actuators=actuators, more=""))
    task = load_task(plant)
    state = task.reset(jax.random.key(1), jnp.zeros(0))
    assert task.observe(state).shape == (task.no,) == (2 + 3 + 6 + 11 + 1,)
    assert {r.unit for r in task.requirements} == {"deg", "m"}
    np.testing.assert_allclose(np.linalg.norm(state.qpos[2:6]), 1.0, atol=1e-6)


# --- task.py on top of it

OBSERVE = """
from physai.task import ObservationChannel
def observe(state):
    return state.qpos[:1]
"""


def folder_with(tmp_path: Path, python: str) -> Path:
    (tmp_path / "mine").mkdir()
    write_arm(tmp_path).rename(tmp_path / "mine" / "plant.xml")
    (tmp_path / "mine" / "task.py").write_text(python)
    return tmp_path / "mine"


def test_task_py_may_change_what_it_names_and_leave_the_rest(tmp_path):
    plant = load_plant(folder_with(tmp_path, "DURATION = 7.0\n"))
    task = load_task(plant)
    assert task.duration == 7.0
    assert task.requirements[0].name == "angle"


def test_task_py_may_give_lists(tmp_path):
    python = f"{OBSERVE}OBSERVATIONS = [ObservationChannel('x', 'm', -1.0, 1.0, 0.0)]\n"
    task = load_task(load_plant(folder_with(tmp_path, python)))
    assert task.no == 1 and hash(task) == hash(task)


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("x = 1\n", "or some of .*reward.* to change the default task"),
        ("TASK = 3\n", "expected TASK = physai.task.Task"),
        ("def observe(state):\n    return state.qpos\n", "observe and OBSERVATIONS together"),
        (
            "\n\ndef reward(state, action, next_state):\n    return action\n",
            r"task.py:3: reward: expected shape \(\), got \(2,\)",
        ),
        (
            "def terminated(state):\n    if state.qpos[0] > 1:\n        return True\n",
            r"task.py:2: terminated cannot be traced by JAX: .*jnp.where in place of if",
        ),
        (
            "import numpy as np\ndef reward(state, action, next_state):\n"
            "    a = 1\n    return np.linalg.norm(next_state.qpos) + missing\n",
            r"task.py:4: reward cannot be traced",
        ),
        ("import sys\nsys.exit(0)\n", r"task.py:2: cannot be imported: sys.exit: 0"),
        (
            "import sys\ndef reward(state, action, next_state):\n    sys.exit(1)\n",
            r"task.py:3: reward cannot be traced by JAX: SystemExit: 1",
        ),
        ("DURATION = 0\n", "task.py: DURATION: expected a finite number of seconds above 0, got 0"),
        ("DURATION = float('nan')\n", "task.py: DURATION: .*, got nan"),
        ("DURATION = float('inf')\n", "task.py: DURATION: .*, got inf"),
        ("DURATION = '4'\n", "task.py: DURATION: .*, got '4'"),
        ("REQUIREMENTS = 3\n", "task.py: REQUIREMENTS: expected a tuple of Requirement, got 3"),
        ("REQUIREMENTS = (3,)\n", r"task.py: REQUIREMENTS: .* of Requirement, got \(3,\)"),
        ("OBJECTIVES = None\n", "task.py: OBJECTIVES: expected a tuple of Objective, got None"),
        ("COMMANDS = ('x',)\n", "task.py: COMMANDS: expected a tuple of Channel"),
        (f"{OBSERVE}OBSERVATIONS = 'x'\n", "OBSERVATIONS: .* of ObservationChannel, got 'x'"),
        (
            f"{OBSERVE}OBSERVATIONS = (ObservationChannel('x', 'm', 1.0, -1.0, 0.0),)\n",
            "task.py: OBSERVATIONS: x: expected bounds low < high, got 1.0 and -1.0",
        ),
        (
            f"{OBSERVE}OBSERVATIONS = (ObservationChannel('x', 'm', -1.0, 1.0, -0.1),)\n",
            "task.py: OBSERVATIONS: x: noise: expected a finite number from 0, got -0.1",
        ),
        (
            "from physai.task import Requirement\n"
            "REQUIREMENTS = (Requirement('x', 'x', 'm', 'far', lambda s: s.qpos[0, 0]),)\n",
            "task.py: REQUIREMENTS: x: limit: expected a number, got 'far'",
        ),
        (
            "from physai.task import Requirement\n"
            "REQUIREMENTS = (Requirement('x', 'x', 'm', 1, 2),)\n",
            "task.py: x: measure: expected a function, got 2",
        ),
        ("reward = 3\n", "task.py: reward: expected a function, got 3"),
        (
            "import jax.numpy as jnp\n\ndef reward(state, action, next_state):\n"
            "    return jnp.sqrt(-1.0 - state.qpos[0] ** 2)\n",
            r"task.py:3: reward: expected finite numbers at a start .*, got nan",
        ),
        (
            "import jax.numpy as jnp\nfrom physai.state import State\ndef reset(key, design):\n"
            "    z = jnp.zeros\n    return State(z(2), z(2) / 0, z(0), z(()), z(0), design)\n",
            r"task.py:3: reset.qvel: expected finite numbers at a start .*, got nan",
        ),
    ],
)
def test_a_task_function_that_is_wrong_is_named_with_its_file_and_line(tmp_path, python, message):
    plant = load_plant(folder_with(tmp_path, python))
    with pytest.raises(InputError, match=message):
        load_task(plant)


def test_nothing_is_written_beside_a_model(tmp_path):
    load_task(load_plant(write_arm(tmp_path)))
    assert [p.name for p in tmp_path.iterdir()] == ["arm.xml"]


def test_a_rest_pose_beyond_a_joints_range_is_moved_into_it(tmp_path):
    """An ankle that bends from 30 to 70 degrees, as in Gymnasium's ant, has its rest pose at 0."""
    model = tmp_path / "ankle.xml"
    model.write_text(
        '<mujoco><worldbody><body><joint name="ankle" axis="0 1 0" range="30 70"/>'
        '<geom size="0.1" pos="0 0 -1"/></body></worldbody>'
        '<actuator><motor joint="ankle" ctrlrange="-1 1"/></actuator></mujoco>'
    )
    plant = load_plant(model)
    task = load_task(plant)
    keys = jax.random.split(jax.random.key(0), 64)
    starts = jax.vmap(task.reset, (0, None))(keys, jnp.zeros(0))
    angles = np.degrees(np.asarray(starts.qpos))
    # A quarter of the range on one side of the goal, which is 30 degrees.
    assert 29.99 < angles.min() < 31.0 and 38.0 < angles.max() < 40.01
