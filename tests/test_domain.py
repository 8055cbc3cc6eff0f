"""The operating domain: its edge against closed forms, what lies outside, and its own rates."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2, norm
from surrogates import untrained_surrogate

from physai.plant import load_plant
from physai.rollout.dataset import Episodes
from physai.state import State
from physai.surrogate.domain import EDGE, Domain, fit_domain
from physai.surrogate.guard import (
    area,
    channels,
    domain_rates,
    excess,
    periods_of,
    pushed,
    ranges_of,
    rates,
)
from physai.surrogate.inputs import inputs

ARM = load_plant("arm")


def scores(domain: Domain, x: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(Domain.score)(domain, jnp.asarray(x, jnp.float32)))


def ring(rng: np.random.Generator, count: int) -> np.ndarray:
    angle, radius = rng.uniform(0, 2 * np.pi, count), rng.normal(1.0, 0.05, count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def test_the_edge_of_gaussian_data_is_that_of_chi_square() -> None:
    """With one prototype, their mean, and independent channels the distance is Mahalanobis's."""
    rng = np.random.default_rng(0)
    scale, centre = np.array([2.0, 0.1, 30.0]), np.array([5.0, -1.0, 0.0])
    x = centre + scale * rng.standard_normal((60_000, 3))
    domain = fit_domain(x[:40_000], x[40_000:], prototypes=1)
    assert float(domain.radius) ** 2 == pytest.approx(chi2.ppf(0.99, 3), rel=0.04)
    point = np.array([[5.0 + 2.0 * 2.0, -1.0 - 0.1 * 1.0, 30.0 * 2.0]])
    assert scores(domain, point)[0] == pytest.approx(3.0 / float(domain.radius), rel=0.03)


@pytest.mark.parametrize("prototypes", [1, 256])
def test_false_alarms_on_fresh_data(prototypes: int) -> None:
    """1% of correlated, skewed and heavy-tailed channels alike; a binomial has 0.07% here."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((60_000, 5)) @ rng.standard_normal((5, 5))
    x = np.concatenate([x, np.exp(x[:, :1]), rng.standard_t(2.5, (60_000, 1))], axis=1)
    domain = fit_domain(x[:20_000], x[20_000:40_000], prototypes=prototypes)
    assert np.mean(scores(domain, x[40_000:]) > 1.0) == pytest.approx(0.01, abs=0.0035)


def test_the_middle_of_a_ring_is_outside_and_the_ring_inside() -> None:
    """The mean of the data is where they are not: a distance from it would call it the safest."""
    rng = np.random.default_rng(2)
    domain = fit_domain(ring(rng, 20_000), ring(rng, 5_000))
    assert scores(domain, np.zeros((1, 2)))[0] > 2.0
    assert np.mean(scores(domain, ring(rng, 20_000)) > 1.0) < 0.02
    two = rng.normal(0.0, 0.1, (20_000, 3)) + np.sign(rng.standard_normal((20_000, 1)))
    domain = fit_domain(two[:15_000], two[15_000:])
    assert scores(domain, np.zeros((1, 3)))[0] > 2.0
    assert (scores(domain, np.array([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])) < 0.5).all()


def test_one_channel_among_many_and_a_broken_correlation_are_seen() -> None:
    rng = np.random.default_rng(3)
    x = rng.uniform(-1.0, 1.0, (20_000, 40))
    x[:, 1] = x[:, 0] + 0.01 * rng.standard_normal(20_000)
    domain = fit_domain(x[:15_000], x[15_000:])
    middle = np.zeros((3, 40))
    middle[1, 7] = 1.02  # 1% of the width beyond the range: a ball in 40 dimensions is far wider
    middle[2, :2] = 0.6, -0.6  # each in its range
    found = scores(domain, middle)
    assert found[0] < 1.0 < found[1] and found[2] > 1.0
    assert np.asarray(domain.outside(jnp.asarray(middle[1]))).nonzero()[0].tolist() == [7]
    assert not np.asarray(domain.outside(jnp.asarray(x[:15_000], jnp.float32))).any()


def test_a_constant_channel_may_round_and_not_move() -> None:
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.standard_normal((5_000, 2)), np.full((5_000, 1), 3.0)], axis=1)
    domain = fit_domain(x[:4_000], x[4_000:])
    point = np.array([[0.0, 0.0, 3.0], [0.0, 0.0, 3.0 * (1.0 + 1e-6)], [0.0, 0.0, 3.01]])
    assert (scores(domain, point) > 1.0).tolist() == [False, False, True]


def test_few_recorded_designs_do_not_end_at_the_outermost() -> None:
    """Of 64 evenly drawn values; without a margin every 33rd fresh one would lie outside."""
    rng = np.random.default_rng(5)

    def drawn(designs: int) -> np.ndarray:
        design = np.repeat(rng.uniform(-1.0, 1.0, designs), 12_800 // designs)
        return np.stack([design, rng.standard_normal(12_800)], axis=1)

    alarms = []
    for _ in range(10):
        training, fresh = drawn(64), drawn(12_800)
        domain = fit_domain(training, drawn(64), prototypes=8)
        alarms.append(np.asarray(domain.outside(jnp.asarray(fresh)))[:, 0].mean())
        assert float(domain.high[0]) < 1.0  # what was recorded is what is stated
        assert scores(domain, np.array([[1.5, 0.0]]))[0] > 1.0
    assert np.mean(alarms) < 0.005


def test_few_episodes_widen_the_edge() -> None:
    """Inputs of an episode share its scale: the share outside has to hold for fresh episodes."""
    rng = np.random.default_rng(6)

    def episodes(count: int) -> np.ndarray:
        scale = np.exp(rng.standard_normal((count, 1, 1)))
        return (scale * rng.standard_normal((count, 50, 1))).reshape(-1, 1)

    training, fresh, length = episodes(1_000), episodes(4_000), np.full(60, 50)
    careful, careless = [], []
    for _ in range(20):
        calibration = episodes(60)
        for found, given in ((careful, length), (careless, None)):
            domain = fit_domain(training, calibration, given, prototypes=8)
            found.append(np.mean(scores(domain, fresh) > 1.0))
    assert np.mean(careful) < 0.02 and np.mean(careful) < 0.7 * np.mean(careless)


def test_it_is_finite_continuous_and_has_a_gradient() -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal((5_000, 3)) * [1.0, 1e-6, 1e4]
    domain = fit_domain(x[:4_000], x[4_000:])
    far = np.array([[3e38, -3e38, 3e38], [-3e38, 3e38, 0.0], [0.0, 1.0, 0.0]], np.float32)
    assert np.isfinite(scores(domain, far)).all() and (scores(domain, far) > 1.0).all()
    slope = jax.vmap(jax.grad(domain.score))
    at_prototype = (domain.prototypes @ jnp.linalg.inv(domain.whitening) + domain.mean)[:1]
    points = jnp.concatenate([jnp.asarray(far), at_prototype, jnp.asarray(x[:500], jnp.float32)])
    assert np.isfinite(np.asarray(slope(points))).all()
    end = float(domain.high[0]) * (1.0 + np.linspace(-2 * EDGE, 4 * EDGE, 2_000))
    path = scores(domain, np.stack([end, 0 * end, 0 * end], axis=1))
    assert max(abs(b - a) for a, b in pairwise(path)) < 0.02 and path[-1] > 1.0 > path[0] - 1.0


def test_area_of_gaussian_scores_is_the_closed_form() -> None:
    """Phi(shift / sqrt(2)) for equal variances; ties count half."""
    rng = np.random.default_rng(8)
    found = area(rng.standard_normal(40_000), 1.5 + rng.standard_normal(30_000))
    assert found == pytest.approx(norm.cdf(1.5 / np.sqrt(2.0)), abs=0.005)
    assert area(np.array([1.0, 1.0]), np.array([1.0, 2.0])) == 0.75
    assert rates(np.array([0.5, 2.0, 1.0, 0.1]), np.array([0.9, 3.0])) == {
        **{"false_alarms": 0.25, "misses": 0.5, "auc": 0.75, "inputs": 4, "beyond": 2}
    }


def arm_episodes(rng: np.random.Generator, count: int, scale: float) -> Episodes:
    """Return episodes that no simulator made: every channel is white noise."""
    model, steps = ARM.model, 20

    def noise(*shape: int) -> np.ndarray:
        return (scale * rng.uniform(-1.0, 1.0, (count, *shape))).astype(np.float32)

    low, high = (np.array([getattr(v, end) for v in ARM.design]) for end in ("low", "high"))
    design = rng.uniform(low, high, (count, 1, len(ARM.design))) + np.zeros((1, steps + 1, 1))
    states = State(
        noise(steps + 1, model.nq),
        noise(steps + 1, model.nv),
        noise(steps + 1, model.na),
        np.zeros((count, steps + 1), np.float32),
        np.zeros((count, steps + 1, 0), np.float32),
        design.astype(np.float32),
    )
    length = np.full(count, steps, np.int32)
    return Episodes(states, noise(steps, ARM.nu), noise(steps, ARM.nw), length)


def test_rates_of_a_surrogate_on_its_own_range_and_beyond() -> None:
    rng = np.random.default_rng(9)
    plain = untrained_surrogate(ARM)
    training, calibration, test = (arm_episodes(rng, 400, 1.0) for _ in range(3))
    x = [
        np.asarray(inputs(plain.layout, plain.known, *periods_of(e)))
        for e in (training, calibration)
    ]
    surrogate = replace(plain, domain=fit_domain(x[0], x[1], calibration.length))
    own = domain_rates(surrogate, test)
    assert own == domain_rates(surrogate, test) and own["inputs"] == own["beyond"] == 8_000
    assert own["false_alarms"] < 0.02 and own["misses"] < 0.01 and own["auc"] > 0.98
    beyond = domain_rates(surrogate, test, arm_episodes(rng, 100, 3.0))
    assert beyond["beyond"] > 1_900 and beyond["misses"] < 0.01 and beyond["auc"] > 0.99
    gentle = domain_rates(surrogate, test, arm_episodes(rng, 100, 0.5))
    assert gentle["beyond"] == 0 and np.isnan(gentle["auc"])


def test_pushed_periods_leave_the_range_by_what_is_said_in_one_channel() -> None:
    rng = np.random.default_rng(10)
    layout = untrained_surrogate(ARM).layout
    given = periods_of(arm_episodes(rng, 50, 1.0))
    ranges = ranges_of(layout, given)
    beyond = excess(layout, pushed(layout, given, ranges, 0), ranges)
    assert (beyond > 0.0999).all() and (beyond < 0.5001).all() and beyond.std() > 0.1
    assert excess(layout, given, ranges).max() <= 0.0
    before = excess(layout, given, ranges_of(layout, given))
    assert (before <= 0.0).all()  # and `given` was not written
    names = [name for name, _ in channels(layout)]
    assert names.count("design") == len(ARM.design) and names.count("actions") == ARM.nu
