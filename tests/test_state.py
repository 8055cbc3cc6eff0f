"""Manifold arithmetic against scipy's rotations and MuJoCo's own integrator."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from physai.plant import joint_layout
from physai.state import (
    State,
    difference,
    minus,
    plus,
    quaternion_conjugate,
    quaternion_exp,
    quaternion_from_axis_angle,
    quaternion_log,
    quaternion_multiply,
    rotate,
    rotate_inverse,
)

ROUNDING_32 = 2e-6  # a few units in the last place of float32, for numbers of order 1
ROUNDING_64 = 1e-13


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def random_model(seed: int) -> mujoco.MjModel:
    """Build two free trees, each with a random chain of all other joint types in random order."""
    rng = np.random.default_rng(seed)
    spec = mujoco.MjSpec()
    kinds = [
        mujoco.mjtJoint.mjJNT_BALL,
        mujoco.mjtJoint.mjJNT_SLIDE,
        mujoco.mjtJoint.mjJNT_HINGE,
    ]
    for tree in range(2):
        body = spec.worldbody.add_body(name=f"root_{tree}", pos=rng.normal(size=3))
        body.add_freejoint(name=f"free_{tree}")
        body.add_geom(size=[0.1, 0.1, 0.1])
        for link, kind in enumerate(rng.permutation(3)):
            body = body.add_body(pos=rng.normal(size=3))
            body.add_geom(size=[0.1, 0.1, 0.1])
            body.add_joint(name=f"joint_{tree}_{link}", type=kinds[kind], axis=rng.normal(size=3))
    return spec.compile()


def random_qpos(model: mujoco.MjModel, rng: np.random.Generator) -> np.ndarray:
    qpos = rng.normal(size=model.nq)
    mujoco.mj_normalizeQuat(model, qpos)
    return qpos


def wxyz(rotation: Rotation) -> np.ndarray:
    return rotation.as_quat(scalar_first=True)


@pytest.mark.parametrize("seed", range(4))
def test_plus_is_mujocos_integration(double, seed):
    model, rng = random_model(seed), np.random.default_rng(seed)
    for scale in (1e-9, 1e-3, 1.0, 5.0):
        qpos, tangent = random_qpos(model, rng), scale * rng.normal(size=model.nv)
        expected = qpos.copy()
        mujoco.mj_integratePos(model, expected, tangent, 1.0)
        got = plus(joint_layout(model), qpos, tangent)
        np.testing.assert_allclose(got, expected, atol=ROUNDING_64, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_minus_is_mujocos_differentiation(double, seed):
    model, rng = random_model(seed), np.random.default_rng(seed)
    for _ in range(20):
        to, start = random_qpos(model, rng), random_qpos(model, rng)
        expected = np.zeros(model.nv)
        mujoco.mj_differentiatePos(model, expected, 1.0, start, to)
        got = minus(joint_layout(model), to, start)
        np.testing.assert_allclose(got, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e-6, 1e-3, 1.0])
def test_plus_and_minus_undo_each_other(double, scale):
    model, rng = random_model(7), np.random.default_rng(7)
    joints = joint_layout(model)
    start = np.stack([random_qpos(model, rng) for _ in range(50)])
    # Components below 1.8 keep every rotation vector shorter than pi, where log is unique.
    tangent = scale * rng.uniform(-1.8, 1.8, (50, model.nv))
    there = plus(joints, start, tangent)
    np.testing.assert_allclose(minus(joints, there, start), tangent, atol=1e-12, rtol=1e-9)
    to = np.stack([random_qpos(model, rng) for _ in range(50)])
    back = plus(joints, start, minus(joints, to, start))
    error = minus(joints, back, to)  # not back - to: q and -q are one attitude
    np.testing.assert_allclose(error, 0.0, atol=1e-12)


def test_round_trip_in_single_precision():
    model, rng = random_model(3), np.random.default_rng(3)
    joints = joint_layout(model)
    start = np.stack([random_qpos(model, rng) for _ in range(50)]).astype(np.float32)
    tangent = rng.uniform(-1.0, 1.0, (50, model.nv)).astype(np.float32)
    there = plus(joints, start, tangent)
    assert there.dtype == jnp.float32
    np.testing.assert_allclose(minus(joints, there, start), tangent, atol=ROUNDING_32, rtol=0)


def test_leading_dimensions_are_a_loop():
    model, rng = random_model(5), np.random.default_rng(5)
    joints = joint_layout(model)
    start = np.stack([random_qpos(model, rng) for _ in range(6)]).reshape(2, 3, -1)
    tangent = rng.normal(size=(2, 3, model.nv))
    batched = plus(joints, start, tangent)
    for i in range(2):
        for j in range(3):
            one = plus(joints, start[i, j], tangent[i, j])
            np.testing.assert_allclose(batched[i, j], one, atol=ROUNDING_32, rtol=0)


def test_quaternions_are_scipys_rotations(double):
    rng = np.random.default_rng(0)
    a, b = Rotation.random(100, random_state=1), Rotation.random(100, random_state=2)
    vectors = rng.normal(size=(100, 3))
    product = wxyz(a * b)
    got = np.asarray(quaternion_multiply(wxyz(a), wxyz(b)))
    got = got * np.sign(np.sum(got * product, -1, keepdims=True))
    np.testing.assert_allclose(got, product, atol=ROUNDING_64)
    np.testing.assert_allclose(rotate(wxyz(a), vectors), a.apply(vectors), atol=ROUNDING_64)
    turned_back = rotate_inverse(wxyz(a), vectors)
    np.testing.assert_allclose(turned_back, a.inv().apply(vectors), atol=ROUNDING_64)
    np.testing.assert_allclose(
        rotate(quaternion_conjugate(wxyz(a)), vectors), a.inv().apply(vectors), atol=ROUNDING_64
    )


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 9e-4, 1.1e-3, 0.1, 1.0, 3.0, 3.14159265])
def test_exp_and_log_are_scipys(double, angle):
    """Both sides of the switch to series at 1e-3 (exp) and 2e-4 (log), up to just below pi."""
    rng = np.random.default_rng(1)
    axis = rng.normal(size=(50, 3))
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    expected = Rotation.from_rotvec(angle * axis)
    got = quaternion_exp(angle * axis)
    np.testing.assert_allclose(got, wxyz(expected), atol=ROUNDING_64)
    np.testing.assert_allclose(
        quaternion_from_axis_angle(axis, np.full(50, angle)), got, atol=ROUNDING_64
    )
    # Near pi a rounding error e of the quaternion turns into 2 e of the angle, never more.
    np.testing.assert_allclose(
        quaternion_log(got), expected.as_rotvec(), rtol=1e-12, atol=1e-15 + 1e-12 * angle
    )


def test_log_of_small_rotations_to_third_order(double):
    """2 asin(n) = 2 n + n^3 / 3: the first term of the series that a wrong sign would show in."""
    n = 9e-5
    q = np.array([np.sqrt(1 - n * n), n, 0.0, 0.0])
    expected = 2 * n + n**3 / 3
    assert abs(float(quaternion_log(q)[0]) / expected - 1) < 1e-15 * 4


def test_a_quaternion_and_its_negative_are_one_attitude():
    q = wxyz(Rotation.random(20, random_state=4)).astype(np.float32)
    np.testing.assert_array_equal(quaternion_log(q), quaternion_log(-q))


@pytest.mark.parametrize("angle", [0.0, 1e-4, 5e-4, 2e-3, 1.0])
def test_derivatives_pass_through_zero(angle):
    """log(exp(v)) = v: its Jacobian is the identity, at 0 too, where naive formulas give NaN."""
    v = angle * jnp.array([0.6, 0.0, 0.8])
    jacobian = jax.jacobian(lambda x: quaternion_log(quaternion_exp(x)))(v)
    np.testing.assert_allclose(jacobian, np.eye(3), atol=2e-5)


def test_difference_lists_position_velocity_activation():
    model = random_model(2)
    joints = joint_layout(model)
    rng = np.random.default_rng(2)
    qpos = np.stack([random_qpos(model, rng) for _ in range(4)])
    tangent = 0.1 * rng.normal(size=(4, model.nv))
    zeros = np.zeros((4, 0))
    start = State(qpos, np.ones((4, model.nv)), np.ones((4, 2)), np.zeros(4), zeros, zeros)
    to = start.replace(qpos=plus(joints, qpos, tangent), qvel=start.qvel + 2.0, act=start.act - 3.0)
    got = difference(joints, to, start)
    assert got.shape == (4, 2 * model.nv + 2)
    np.testing.assert_allclose(got[:, : model.nv], tangent, atol=ROUNDING_32)
    np.testing.assert_array_equal(got[:, model.nv : -2], 2.0)
    np.testing.assert_array_equal(got[:, -2:], -3.0)


def test_state_is_a_pytree_that_indexes_like_an_array():
    state = State(*(np.arange(6.0).reshape(3, 2) + i for i in range(6)))
    assert len(jax.tree.leaves(state)) == 6
    np.testing.assert_array_equal(state[1].qvel, [3.0, 4.0])
    assert state[1:].act.shape == (2, 2)
    doubled = jax.jit(lambda s: jax.tree.map(lambda x: 2 * x, s))(state)
    np.testing.assert_array_equal(doubled.design, 2 * state.design)
    with pytest.raises(AttributeError):
        state.qpos = 0
