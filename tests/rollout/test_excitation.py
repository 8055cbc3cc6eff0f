"""What shakes a plant: noise, gusts, starts."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from rails import (
    cart,
)

from physai.errors import InputError
from physai.rollout.excitation import (
    Excitation,
    coloured_noise,
    disturbance_process,
    draw_starts,
    shake,
)


def test_coloured_noise_is_its_recursion():
    """The scan in log2(T) passes against x_k+1 = r x_k + sqrt(1 - r^2) e_k, step by step."""
    periods = np.array([[[0.5]], [[3.0]], [[200.0]]])
    got = coloured_noise(np.random.default_rng(5), (3, 77, 2), periods)
    e = np.random.default_rng(5).standard_normal((3, 77, 2), dtype=np.float32).astype(float)
    r = np.exp(-1 / periods[:, 0])
    expected = [e[:, 0]]
    for k in range(1, 77):
        expected.append(r * expected[-1] + np.sqrt(1 - r * r) * e[:, k])
    np.testing.assert_allclose(got, np.stack(expected, 1), atol=3e-6)  # float32 sums


def test_coloured_noise_has_unit_variance_and_the_stated_correlation():
    x = coloured_noise(np.random.default_rng(0), (4000, 60, 1), 7.0)[..., 0]
    # 4000 independent rows: standard errors of 2.2% for a variance, 1.6% for a covariance.
    np.testing.assert_allclose(x.var(0), 1.0, atol=0.12)
    for lag in (1, 7, 20):
        covariance = np.mean(x[:, 10] * x[:, 10 + lag])
        assert covariance == pytest.approx(np.exp(-lag / 7.0), abs=0.08)


def test_disturbances_have_the_plants_statistics_and_range(quadrotor):
    plant = quadrotor.plant
    calm = disturbance_process(plant, np.random.default_rng(0), 50, np.zeros(3))
    assert calm.shape == (3, 50, 3) and not calm.any()
    one = disturbance_process(plant, np.random.default_rng(0), 50, 1.0)
    assert one.shape == (50, 3) and one.dtype == np.float32
    many = disturbance_process(plant, np.random.default_rng(0), 50, np.ones(3000))
    # std 0.2 N of a range of 1.5 N: nothing is clipped; 9000 independent rows give 0.75%.
    np.testing.assert_allclose(many.std((0, 2)), 0.2, rtol=0.04)
    wild = disturbance_process(plant, np.random.default_rng(0), 50, np.full(9, 100.0))
    assert wild.min() == -1.5 and wild.max() == 1.5


def test_action_noise_spans_the_stated_scales(quadrotor):
    settings, rng = Excitation(), np.random.default_rng(0)
    shaking = shake(*quadrotor, settings, rng, 3000, 200, controlled=False)
    assert shaking.mean.shape == (3000, 1, 4)
    offset = (shaking.mean - quadrotor.plant.trim)[:, 0]
    assert (offset == offset[:, :1]).all()
    assert offset[:, 0].std() == pytest.approx(0.15, rel=0.05)
    scale = shaking.noise.std((1, 2))
    # Log-uniform 0.02 to 0.3: the median is their geometric mean, 0.077.
    assert np.median(scale) == pytest.approx(np.sqrt(0.02 * 0.3), rel=0.1)
    assert 0.005 < scale.min() < 0.03 and 0.2 < scale.max() < 0.6
    assert shaking.sensor_noise.size == 0 and not shaking.delayed.any()


def test_noise_about_a_controller_is_smaller_and_some_actions_are_late(quadrotor):
    rng = np.random.default_rng(0)
    shaking = shake(*quadrotor, Excitation(), rng, 3000, 50, controlled=True)
    # The factor is uniform in 0.1 to 1/3, its mean 0.217; log-uniform scales have mean 0.103.
    assert shaking.noise.std() == pytest.approx(0.217 * 0.133, rel=0.15)
    assert shaking.delayed.mean() == pytest.approx(0.3, abs=0.03)
    expected = quadrotor.task.observation_noise
    np.testing.assert_allclose(shaking.sensor_noise.std((0, 1)), expected, rtol=0.02)


def test_starts_do_not_depend_on_how_many_are_drawn(tmp_path):
    machine = cart(tmp_path / "cart")
    few, many = (
        draw_starts(machine.task, jax.random.key(0), np.ones((n, 1))).qpos for n in (5, 150)
    )
    assert few.shape == (5, 1) and len(np.unique(many)) == 150
    np.testing.assert_array_equal(few, many[:5])


@pytest.mark.parametrize(
    "bad",
    [
        {"scale": (0.0, 0.3)},
        {"scale": (0.3, 0.02)},
        {"correlation_time": (0.04, np.inf)},
        {"offset": -1.0},
        {"disturbance": np.nan},
        {"delayed": 1.5},
    ],
)
def test_bad_excitations_are_refused(bad):
    with pytest.raises(InputError, match=f"^{next(iter(bad))}: expected"):
        Excitation(**bad)
