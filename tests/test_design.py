"""Design studies: the optimiser against known fronts, flights against MuJoCo."""

from __future__ import annotations

import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from carts import CART_XML, ExactCart, cart_at, pd_controller
from controllers import geometric_controller

from physai.control.controller import Controller, batch_controller
from physai.design.calibration import half_widths
from physai.design.optimise import best, crowding, nondominated, pareto_set, search
from physai.design.sampling import imagined_flights, outcome, true_flights
from physai.design.variables import design_space, sobol
from physai.errors import InputError
from physai.plant import Plant, load_plant
from physai.rollout.engine import TruePlant
from physai.task import Task, load_task
from physai.verify.scenarios import ScenarioSettings, draw_scenarios


@pytest.fixture(scope="module")
def cart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plant, Task]:
    return cart_at(tmp_path_factory.mktemp("plants") / "cart")


class TestOptimiser:
    @staticmethod
    def two_discs(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances to (0, 0) and (1, 0); the Pareto set is the line between them."""
        x, y = 2.0 * points[:, 0] - 0.5, 2.0 * points[:, 1] - 1.0
        return np.stack([x**2 + y**2, (x - 1.0) ** 2 + y**2], axis=1), np.zeros(len(points))

    def test_finds_a_known_front(self):
        found = search(self.two_discs, sobol(2, 24, 0), [False, False], 30, seed=0)
        front = np.sqrt(found.values[pareto_set(found.values, [False, False], 24)])
        # On the front the distances add up to 1; off it by d they add up to about 1 + 2 d^2.
        assert np.abs(front.sum(axis=1) - 1.0).max() < 0.01
        assert len(front) == 24
        # Spread: 24 points at even distances would lie 1/23 apart.
        assert np.diff(np.sort(front[:, 0])).max() < 4 / 23

    def test_maximising_is_minimising_the_negative(self):
        def negative(points):
            values, violation = self.two_discs(points)
            return values * [1.0, -1.0], violation

        start = sobol(2, 12, 1)
        one = search(self.two_discs, start, [False, False], 6, seed=3)
        other = search(negative, start, [False, True], 6, seed=3)
        np.testing.assert_array_equal(one.points, other.points)
        np.testing.assert_array_equal(
            pareto_set(one.values, [False, False], 12), pareto_set(other.values, [False, True], 12)
        )

    def test_infeasible_is_told_apart(self):
        """Less is better, but below 0.5 a bound is violated, and below 0.3 there is no number."""

        def evaluate(points):
            x = points[:, 0]
            return np.where(x < 0.3, np.nan, x)[:, None], np.maximum(0.5 - x, 0.0)

        found = search(evaluate, sobol(1, 12, 0), [False], 12, seed=0)
        assert np.isnan(found.values).any()
        np.testing.assert_array_equal(found.feasible, found.points[:, 0] >= 0.5)
        assert found.values[found.feasible].min() == pytest.approx(0.5, abs=0.01)

    def test_nan_that_claims_to_be_feasible_is_not(self):
        found = search(
            lambda p: (np.where(p < 0.5, np.nan, p), np.zeros(len(p))),
            sobol(1, 8, 0),
            [False],
            4,
            0,
        )
        assert not found.feasible[found.points[:, 0] < 0.5].any()

    def test_nothing_feasible_is_searched_to_the_end(self):
        found = search(
            lambda p: (np.full((len(p), 2), np.nan), np.full(len(p), np.nan)),
            sobol(2, 6, 0),
            [False, True],
            3,
            seed=0,
        )
        assert len(found.points) == 18
        assert not found.feasible.any()

    def test_same_seed_same_search_and_no_side_effects(self):
        filters, before = list(warnings.filters), np.random.get_state()[1].copy()  # noqa: NPY002
        first, second = (
            search(self.two_discs, sobol(2, 8, 0), [False, False], 5, seed=7) for _ in range(2)
        )
        np.testing.assert_array_equal(first.points, second.points)
        assert warnings.filters == filters
        np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
        other = search(self.two_discs, sobol(2, 8, 0), [False, False], 5, seed=8)
        assert not np.array_equal(first.points, other.points)

    def test_nondominated_agrees_with_the_definition(self):
        values = np.random.default_rng(0).integers(0, 5, (40, 3)).astype(float)
        cost = values * [1, -1, 1]
        expected = [not any((b <= a).all() and (b < a).any() for b in cost) for a in cost]
        np.testing.assert_array_equal(nondominated(values, [False, True, False]), expected)

    def test_crowding_prunes_as_if_measured_anew_each_time(self):
        x = np.random.default_rng(1).uniform(size=30)
        front = np.stack([x, np.sqrt(1.0 - x**2)], axis=1)
        left = list(range(30))
        for _ in range(18):
            lonely = crowding(front[left])
            left.remove(left[int(lonely.argmin())])
        # Extent and ends stay, so pruning in one call is pruning one by one.
        np.testing.assert_array_equal(np.flatnonzero(crowding(front, n_remove=18) > 0.0), left)

    def test_best_takes_front_after_front(self):
        steps = np.arange(6.0)
        fronts = [np.stack([steps, 5.0 - steps], axis=1) + shift for shift in (0.0, 0.5, 1.0)]
        values = np.concatenate(fronts)[::-1]  # the best front comes last
        assert set(best(values, [False, False], 12)) == set(range(6, 18))
        thinned = best(values, [False, False], 9)
        assert set(thinned[:6]) == set(range(12, 18))
        assert set(thinned[6:]) < set(range(6, 12))
        assert len(set(thinned)) == 9
        assert len(best(values, [False, False], 100)) == 18
        assert len(best(values[:0], [False, False], 5)) == 0

    def test_needs_a_population(self):
        with pytest.raises(InputError, match="at least 4 designs, got 3"):
            search(self.two_discs, sobol(2, 3, 0), [False, False], 5, seed=0)

    def test_missing_extra_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pymoo", None)
        with pytest.raises(InputError, match=r"pip install 'physai\[design\]'"):
            search(self.two_discs, sobol(2, 8, 0), [False, False], 5, seed=0)


class TestVariables:
    def test_others_stay_nominal_and_float32_holds_the_design(self):
        plant = load_plant("quadrotor")
        space = design_space(plant, ("payload", "arm_length"))
        designs = space.designs(np.array([[0.0, 0.0], [1.0, 1.0], [0.25, 0.5]]))
        expected = plant.nominal.copy()
        expected[:2] = 0.25, 0.15  # arm_length half way, payload a quarter of the way
        np.testing.assert_allclose(designs[2], expected, rtol=1e-7)
        np.testing.assert_array_equal(designs, designs.astype(np.float32))
        plant.check_design(designs)
        np.testing.assert_array_equal(space.chosen(designs), designs[:, [1, 0]])

    def test_sobol_fills_the_cube_evenly(self):
        points = sobol(3, 64, seed=0)
        # A scrambled Sobol sequence of 64 points has exactly 32 in either half of every axis.
        np.testing.assert_array_equal((points < 0.5).sum(axis=0), [32, 32, 32])
        np.testing.assert_array_equal(points[:40], sobol(3, 40, seed=0))
        assert not np.array_equal(points, sobol(3, 64, seed=1))

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (("wing",), r"no 'wing'; expected some of: arm_length \(0.16 to 0.34 m\)"),
            ((), "at least one of: arm_length"),
            (("payload", "payload"), "each one once"),
        ],
    )
    def test_wrong_names(self, names, message):
        with pytest.raises(InputError, match=message):
            design_space(load_plant("quadrotor"), names)

    def test_points_outside_the_cube(self):
        space = design_space(load_plant("quadrotor"), ("payload",))
        with pytest.raises(InputError, match="from 0 to 1"):
            space.designs(np.array([[1.1]]))

    def test_plant_without_variables(self, tmp_path):
        (tmp_path / "cart.xml").write_text(CART_XML)
        with pytest.raises(InputError, match="no design variables"):
            design_space(load_plant(tmp_path / "cart.xml"), ("mass",))


class TestIntervals:
    def test_coverage_on_synthetic_residuals(self):
        """The 18th residual of 19 covers a 20th one with probability 18/20, exactly."""
        rng = np.random.default_rng(0)
        hits = []
        for _ in range(4000):
            residual = rng.standard_t(3, size=(20, 2)) * [1.0, 50.0]
            width, used = half_widths(np.zeros((19, 2)), residual[:19], 0.9)
            assert used == 19
            hits.append(np.abs(residual[19]) <= width)
        # Standard error of a share of 0.9 in 4,000 draws: 0.0047.
        np.testing.assert_allclose(np.mean(hits, axis=0), 0.9, atol=4 * 0.0047)

    def test_too_few_designs_give_no_bound(self):
        width, _ = half_widths(np.zeros((8, 1)), np.ones((8, 1)), 0.9)
        assert width == np.inf

    def test_failures_count_as_missed_and_unusable_ones_not_at_all(self):
        predicted, verified = np.zeros((21, 1)), np.arange(21.0)[:, None]
        predicted[20] = np.nan  # would never be chosen
        verified[0] = np.nan  # failed where success was predicted: the largest residual of all
        width, used = half_widths(predicted, verified, 0.9)
        assert used == 20
        assert width == 19.0  # rank ceil(21 x 0.9) = 19 of the residuals 1, 2, ..., 19, inf
        assert half_widths(predicted, verified, 0.95)[0] == np.inf


class TestFlights:
    def test_model_of_the_same_physics_gives_the_same_flights(self, cart):
        """Start by start: the scan of a model against a loop over MuJoCo, for many designs."""
        plant, task = cart
        designs = design_space(plant, ("mass", "force")).designs(sobol(2, 11, 0))
        imagine = imagined_flights(plant, task, pd_controller(), ExactCart(), designs=4, flights=3)
        key = jax.random.key(5)
        flown = imagine(designs, key)

        simulator = TruePlant(plant, 33, np.repeat(designs, 3, axis=0))
        keys = [k for _ in range(11) for k in jax.random.split(key, 3)]
        state = jax.tree.map(
            lambda *x: np.stack(x).astype(float),
            *(
                task.reset(k, jnp.asarray(d, jnp.float32))
                for k, d in zip(keys, simulator.designs, strict=True)
            ),
        )
        states = [state]
        for _ in range(80):
            state = states[-1]
            action = np.clip(-2.0 * state.qpos - 2.5 * state.qvel, -1.0, 1.0)
            states.append(simulator.step(state, action, np.zeros((33, 0))))
        stacked = jax.tree.map(lambda *x: np.stack(x, axis=1).astype(np.float32), *states)
        settling = np.array([task.objectives[0].measure(stacked[i]) for i in range(33)])
        np.testing.assert_array_equal(flown.settled.ravel(), np.isfinite(settling))
        assert 0 < flown.settled.sum() < 33, "the test needs designs of both kinds"
        # A crossing of the limit may fall on either side of a control period of 0.05 s.
        found = flown.values[..., 0].ravel()
        np.testing.assert_allclose(
            found[np.isfinite(settling)], settling[np.isfinite(settling)], atol=0.051
        )
        np.testing.assert_array_equal(flown.values[..., 1], np.float32(designs[:, :1].repeat(3, 1)))

    def test_number_of_designs_does_not_change_a_design(self, cart):
        plant, task = cart
        designs = design_space(plant, ("mass", "force")).designs(sobol(2, 6, 0))
        imagine = imagined_flights(plant, task, pd_controller(), ExactCart(), designs=4, flights=3)
        key = jax.random.key(1)
        for all_of_them, first in zip(
            imagine(designs, key), imagine(designs[:1], key), strict=True
        ):
            np.testing.assert_array_equal(all_of_them[:1], first)
        controller = batch_controller(pd_controller())
        both = [
            true_flights(plant, task, controller, designs[:n], 5, seed=2, stream="x")
            for n in (3, 1)
        ]
        for all_of_them, first in zip(*both, strict=True):
            np.testing.assert_array_equal(all_of_them[:1], first)
        other = true_flights(plant, task, controller, designs[:1], 5, seed=2, stream="y")
        assert not np.array_equal(other.values, both[1].values)

    def test_true_flights_are_those_of_the_engine(self, cart):
        """A design's objectives equal those of a loop over TruePlant from the same scenarios."""
        plant, task = cart
        designs = np.array([[1.0, 2.0], [2.0, 4.0]])
        controller = batch_controller(pd_controller())
        flown = true_flights(plant, task, controller, designs, 4, seed=0, stream="verify")
        from zlib import crc32

        sequence = np.random.SeedSequence(0, spawn_key=(crc32(b"verify"), 1))
        scenario_seed = int(sequence.generate_state(1)[0])
        scenarios = draw_scenarios(
            plant, task, ScenarioSettings(flights=4), scenario_seed, designs[1]
        )
        simulator = TruePlant(plant, 4, designs[[1, 1, 1, 1]])
        state = jax.tree.map(lambda x: np.asarray(x, float), scenarios.starts)
        states = [state]
        for _ in range(80):
            seen = np.concatenate([state.qpos, state.qvel], axis=1).astype(np.float32)
            state = simulator.step(state, controller.step((), seen)[1], np.zeros((4, 0)))
            states.append(state)
        stacked = jax.tree.map(lambda *x: np.stack(x, axis=1).astype(np.float32), *states)
        settling = [float(task.objectives[0].measure(stacked[i])) for i in range(4)]
        np.testing.assert_allclose(flown.values[1, :, 0], settling, rtol=1e-6)
        np.testing.assert_array_equal(flown.values[..., 2], np.float32(designs[:, 1:].repeat(4, 1)))

    def test_lost_and_broken_flights_do_not_settle(self, cart):
        plant, task = cart
        away = Controller(lambda key: (), lambda c, o: (c, jnp.ones(1), {}))  # off the rail's end
        broken = Controller(lambda key: (), lambda c, o: (c, jnp.full(1, jnp.nan), {}))
        design = np.array([[0.5, 4.0]])
        for controller in (away, broken):
            imagine = imagined_flights(plant, task, controller, ExactCart(), designs=1, flights=2)
            true = true_flights(plant, task, batch_controller(controller), design, 2, 0, "x")
            for flown in (imagine(design, jax.random.key(0)), true):
                result = outcome(flown)
                assert result.settled == 0.0
                assert not result.passed
                assert np.isnan(result.values).all()


class TestHoverPower:
    @staticmethod
    def momentum_theory(plant: Plant, design: np.ndarray) -> float:
        """4 (m g / 4)^1.5 / sqrt(2 rho A), with the mass that MuJoCo gives the design."""
        mass = float(plant.compile(design).body_subtreemass[0])
        area = np.pi * (0.13 * design[0] / np.hypot(0.14, 0.18)) ** 2
        return 4.0 * (mass * 9.81 / 4.0) ** 1.5 / np.sqrt(2.0 * 1.225 * area)

    def test_equals_momentum_theory_of_the_weight(self):
        plant = load_plant("quadrotor")
        task = load_task(plant)
        hover_power = next(o for o in task.objectives if o.name == "hover_power")
        for design in design_space(plant, ("arm_length", "max_thrust", "payload")).designs(
            sobol(3, 4, 0)
        ):
            mass = float(plant.compile(design).body_subtreemass[0])
            start = task.reset(jax.random.key(0), jnp.asarray(design))
            throttle = jnp.full((251, 4), mass * 9.81 / 4.0 / design[2])
            states = jax.tree.map(lambda x: jnp.broadcast_to(x, (251, *x.shape)), start)
            power = hover_power.measure(states.replace(act=throttle))
            # float32, and the task's arm length to 17 digits against hypot(0.14, 0.18)
            assert float(power) == pytest.approx(self.momentum_theory(plant, design), rel=1e-5)

    def test_in_true_flight(self):
        """A machine that settled hovers: its power in the last second is that of its weight."""
        plant = load_plant("quadrotor")
        task = load_task(plant)
        design = plant.nominal[None].copy()
        design[0, 1] = 0.1  # kg of payload, which the controller does not know of
        controller = batch_controller(geometric_controller(plant))
        flown = true_flights(plant, task, controller, design, 6, seed=0, stream="hover")
        assert flown.settled.all()
        power = outcome(flown).values[0, 0]
        # The last centimetres of the approach are still flown in that second.
        assert power == pytest.approx(self.momentum_theory(plant, design[0]), rel=0.01)
