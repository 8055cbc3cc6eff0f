"""What a surrogate sees and predicts: inputs, targets, and how they lead to the next state."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from physai.plant import Plant, load_plant
from physai.rollout.dataset import Episodes
from physai.rollout.symmetry import Symmetry
from physai.state import Joint, State, difference, quaternion_from_axis_angle, quaternion_multiply
from physai.surrogate.features import Layout, advance, layout_of, targets
from physai.surrogate.inputs import input_channels, inputs
from physai.surrogate.normalise import rounding
from physai.task import load_task


@pytest.fixture(scope="module")
def plant() -> Plant:
    return load_plant("quadrotor")


ALL_KINDS = (
    Joint("root", "free", 0, 0),
    Joint("ball", "ball", 7, 6),
    Joint("slide", "slide", 11, 9),
    Joint("hinge", "hinge", 12, 10),
)


def random_layout(translation: bool = True, heading: bool = True) -> Layout:
    return Layout(
        joints=ALL_KINDS,
        nq=13,
        nv=11,
        na=2,
        nu=2,
        nw=4,
        nd=1,
        control_period=0.02,
        position_axes="" if translation else "xyz",
        heading_invariant=heading,
        vectors=((1, 2, 3),),
        design_low=(1.0,),
        design_high=(3.0,),
    )


def random_state(rng: np.random.Generator, n: int = 32) -> State:
    def quaternion() -> np.ndarray:
        q = rng.normal(size=(n, 4))
        return q / np.linalg.norm(q, axis=1, keepdims=True)

    qpos = [rng.normal(size=(n, 3)), quaternion(), quaternion(), rng.normal(size=(n, 2))]
    return State(
        qpos=np.concatenate(qpos, axis=1).astype(np.float32),
        qvel=rng.normal(size=(n, 11)).astype(np.float32),
        act=rng.uniform(size=(n, 2)).astype(np.float32),
        time=np.zeros(n, np.float32),
        command=np.zeros((n, 0), np.float32),
        design=np.full((n, 1), 2.0, np.float32),
    )


def test_advance_inverts_targets_for_every_joint_kind() -> None:
    rng, layout = np.random.default_rng(0), random_layout()
    before, after = random_state(rng), random_state(rng)
    reached = advance(layout, before, targets(layout, before, after))
    # float32 rotations compose to a few ulp of their angle
    assert np.abs(difference(layout.joints, reached, after)).max() < 2e-5


def test_a_body_in_uniform_motion_has_zero_targets() -> None:
    """Constant world velocity and spin about a principal axis: nothing is left to learn."""
    layout = replace(random_layout(), joints=ALL_KINDS[:1], nq=7, nv=6, na=0)
    h, velocity, spin = 0.02, np.array([1.0, -2.0, 0.5]), np.array([0.0, 0.0, 3.0])
    start = np.asarray(quaternion_from_axis_angle(np.array([0.6, 0.0, 0.8]), 0.7))
    turn = quaternion_from_axis_angle(np.array([0.0, 0.0, 1.0]), 3.0 * h)
    end = quaternion_multiply(start, turn)

    def state(position: np.ndarray, attitude: np.ndarray) -> State:
        qpos = np.concatenate([position, attitude])[None]
        empty = np.zeros((1, 0))
        return State(qpos, np.append(velocity, spin)[None], empty, np.zeros(1), empty, empty)

    y = targets(layout, state(np.zeros(3), start), state(velocity * h, np.asarray(end)))
    assert np.abs(np.asarray(y)).max() < 1e-6


@pytest.mark.parametrize("heading", [True, False])
def test_inputs_ignore_heading_only_where_the_layout_says_so(heading: bool) -> None:
    rng, layout = np.random.default_rng(1), random_layout(heading=heading)
    state, angle = random_state(rng), 1.1
    action, wind = rng.uniform(size=(32, 2)), rng.normal(size=(32, 4))
    turn = np.asarray(quaternion_from_axis_angle(np.array([0.0, 0.0, 1.0]), angle))
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    qpos, qvel, turned_wind = state.qpos.copy(), state.qvel.copy(), wind.copy()
    qpos[:, :3] = qpos[:, :3] @ matrix.T + 5.0
    qpos[:, 3:7] = quaternion_multiply(np.broadcast_to(turn, (32, 4)), state.qpos[:, 3:7])
    qvel[:, :3] = qvel[:, :3] @ matrix.T
    turned_wind[:, 1:] = wind[:, 1:] @ matrix.T
    x = inputs(layout, None, state, action, wind)
    y = inputs(layout, None, state.replace(qpos=qpos, qvel=qvel), action, turned_wind)
    assert (np.abs(np.asarray(x - y)).max() < 1e-5) == heading


def test_inputs_see_position_where_translation_matters(plant: Plant) -> None:
    rng = np.random.default_rng(2)
    state = random_state(rng)
    moved = state.replace(qpos=state.qpos + np.eye(13, dtype=np.float32)[0])
    for axes, invariant in (("", True), ("xyz", False), ("z", True), ("x", False)):
        layout = replace(random_layout(), position_axes=axes)
        see = partial(inputs, layout, None, action=np.zeros((32, 2)), disturbance=np.zeros((32, 4)))
        assert np.allclose(see(state), see(moved)) == invariant


def test_input_channels_name_every_input(plant: Plant) -> None:
    for symmetry in (Symmetry("xyz", heading=True), Symmetry("xy"), Symmetry()):
        layout = layout_of(plant, symmetry)
        state = jax.tree.map(lambda x: np.asarray(x)[None], _zero_state(plant))
        x = inputs(layout, None, state, np.zeros((1, plant.nu)), np.zeros((1, plant.nw)))
        names = [c.name for c in input_channels(layout, plant)]
        assert len(names) == x.shape[-1] == len(set(names))


def test_an_idle_joint_is_no_input_and_friction_is_one() -> None:
    stage = load_plant("wafer_stage")
    plain, layout = (layout_of(stage, Symmetry(joints=idle)) for idle in ((), ("carriage",)))
    names = [c.name for c in input_channels(layout, stage)]
    assert "carriage.position" not in names and "carriage.rate.sliding" in names
    task = load_task(stage)
    state = task.excitation(jax.random.key(0), jnp.asarray(stage.nominal))
    moved = state.replace(qpos=state.qpos.at[2].add(0.5))
    now, later = (inputs(layout, None, s, jnp.zeros(1), jnp.zeros(1)) for s in (state, moved))
    np.testing.assert_array_equal(now, later)
    assert len(now) == len(names) == len(input_channels(plain, stage)) - 1
    # EMPS: 20.39 N slow what they move by 20.39 * 0.005 / m in a period, m between both masses.
    ((index, speed),) = layout.friction
    assert index == 2 and 20.39 * 0.005 / 95.1 <= speed <= 20.39 * 0.005 / 70.0
    pushed = state.replace(qvel=state.qvel.at[2].set(speed))
    sliding = inputs(layout, None, pushed, *2 * [jnp.zeros(1)])
    assert float(sliding[names.index("carriage.rate.sliding")]) == pytest.approx(np.tanh(1.0))


def test_rounding_of_the_record_is_that_of_float32() -> None:
    """A wheel that turned by 1,000 rad is known to 1.2e-4 rad, an attitude to 1.2e-7."""
    satellite = load_plant("satellite")
    layout, task = layout_of(satellite, Symmetry("xyz", heading=True)), load_task(satellite)
    start = task.reset(jax.random.key(0), jnp.asarray(satellite.nominal))
    start = start.replace(qpos=start.qpos.at[7:11].set(1000.0).at[3:7].set(0.5))
    n, steps = 32, 20
    states = jax.tree.map(lambda x: np.tile(np.asarray(x), (n, steps + 1, *[1] * x.ndim)), start)
    still = Episodes(
        states,
        np.zeros((n, steps, satellite.nu), np.float32),
        np.zeros((n, steps, satellite.nw), np.float32),
        np.full(n, steps, np.int32),
    )
    found = np.asarray(rounding(layout, None, still))
    assert (found[6:10] > 0.4 * 1000.0 * 2.0**-23).all()
    assert (found[6:10] < 2.0 * 1000.0 * 2.0**-23).all()
    assert (found[3:6] > 0.2 * 2.0**-23).all() and (found[3:6] < 4.0 * 2.0**-23).all()
    assert (found[:3] == 0.0).all()


def _zero_state(plant: Plant) -> State:
    data = mujoco.MjData(plant.model)
    return State(
        data.qpos, data.qvel, data.act, np.zeros(()), np.zeros(4), plant.nominal.astype(np.float32)
    )


def test_limits_show_how_far_they_are_exceeded_now_and_at_the_end_of_the_period() -> None:
    plant = load_plant("hopper")
    layout = layout_of(plant, Symmetry())
    limited = np.flatnonzero(plant.model.jnt_limited)
    assert [limit.qpos_index for limit in layout.limits] == list(plant.model.jnt_qposadr[limited])
    names = [channel.name for channel in input_channels(layout, plant)]
    first = layout.limits[0]
    joint = plant.model.joint(int(limited[0])).name
    now, ahead = (names.index(f"{joint}.beyond_limit{end}") for end in ("", "_ahead"))
    state = State(
        qpos=np.zeros((3, layout.nq), np.float32),
        qvel=np.zeros((3, layout.nv), np.float32),
        act=np.zeros((3, layout.na), np.float32),
        time=np.zeros(3, np.float32),
        command=np.zeros((3, 0), np.float32),
        design=np.tile([v.nominal for v in plant.design], (3, 1)).astype(np.float32),
    )
    middle, h = 0.5 * (first.low + first.high), layout.control_period
    state.qpos[:, first.qpos_index] = middle, first.high + 0.2, first.low
    state.qvel[:, first.qvel_index] = 0.0, -0.1 / h, -0.3 / h
    still = np.zeros((3, plant.nu)), np.zeros((3, layout.nw))
    raw = np.asarray(inputs(layout, None, state, *still))
    assert raw.shape == (3, len(names))
    np.testing.assert_allclose(raw[:, now], [0.0, -0.2, 0.0], atol=1e-6)
    np.testing.assert_allclose(raw[:, ahead], [0.0, -0.1, 0.3], atol=1e-6)
