"""Design studies: the optimiser against known fronts, flights against MuJoCo, a whole study."""

from __future__ import annotations

import csv
import itertools
import shutil
import sys
import warnings
from dataclasses import asdict, dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from controllers import geometric_controller

from physai.control.controller import Controller, batch_controller
from physai.control.policy import Policy, save_policy
from physai.design import study as study_module
from physai.design.calibration import calibrate, half_widths, next_best
from physai.design.evaluations import Evaluations, evaluations_csv, explore, read_evaluations
from physai.design.optimise import best, crowding, nondominated, pareto_set, search
from physai.design.sampling import Trials, imagined_flights, outcome, true_flights
from physai.design.study import StudySettings, run_study
from physai.design.summary import conclude, objective_rows, rows
from physai.design.variables import design_space, sobol
from physai.errors import InputError
from physai.learn.learn import learn_inputs
from physai.learn.value_gradient import LearnSettings
from physai.plant import Plant, load_plant
from physai.provenance import atomic_folder, check_chain, write_json, write_manifest
from physai.rollout.collect import RolloutSettings
from physai.rollout.engine import TruePlant
from physai.surrogate.fit import FitSettings
from physai.task import Objective, Task, design_aware, load_task
from physai.verify.scenarios import ScenarioSettings, draw_scenarios

# A cart on a rail: m x'' = F u with |u| <= 1. Its design is the mass m and the force F.
CART_XML = """
<mujoco model="cart">
  <option timestep="0.01" gravity="0 0 0"/>
  <custom><numeric name="control_period" data="0.05"/></custom>
  <worldbody>
    <body name="cart">
      <joint name="rail" type="slide" axis="1 0 0"/>
      <geom name="box" type="box" size="0.1 0.1 0.1" mass="1"/>
    </body>
  </worldbody>
  <actuator><motor name="push" joint="rail" ctrlrange="-1 1" gear="2"/></actuator>
</mujoco>
"""
CART_PLANT = """
from physai.plant import DesignVariable
DESIGN = (DesignVariable("mass", "kg", 0.5, 2.0, 1.0), DesignVariable("force", "N", 0.2, 4.0, 2.0))
def apply(spec, design):
    spec.geom("box").mass = design["mass"]
    spec.actuator("push").gear[0] = design["force"]
"""
CART_TASK = """
import jax, jax.numpy as jnp
from physai.state import State
from physai.task import Objective, ObservationChannel, Requirement, Task
LIMIT = 0.05

def reset(key, design):
    x = jax.random.uniform(key, (1,), minval=0.5, maxval=1.0)
    z = jnp.zeros
    return State(qpos=x, qvel=z(1), act=z(0), time=z(()), command=z(0), design=design)

def settling(states):
    outside = jnp.abs(states.qpos[:, 0]) > LIMIT
    last = jnp.max(jnp.where(outside, jnp.arange(outside.shape[0]), -1))
    return jnp.append(states.time, jnp.inf)[last + 1] - states.time[0]

TASK = Task(
    commands=(),
    observations=(
        ObservationChannel("x", "m", -5, 5, 0.0),
        ObservationChannel("v", "m/s", -5, 5, 0.0),
    ),
    duration=4.0,
    reset=reset,
    observe=lambda s: jnp.concatenate([s.qpos, s.qvel]),
    reward=lambda s, a, n: -jnp.abs(n.qpos[0]),
    terminated=lambda s: jnp.abs(s.qpos[0]) > 4.0,
    settling=settling,
    objectives=(
        Objective("settling_time", "time to stay", "s", False, settling),
        Objective("mass", "mass moved", "kg", True, lambda s: s.design[0, 0]),
        Objective("force", "size of the motor", "N", False, lambda s: s.design[0, 1]),
    ),
    requirements=(
        Requirement("position", "at the end", "m", LIMIT, lambda s: jnp.abs(s.qpos[-1, 0])),
    ),
)
"""


@pytest.fixture(scope="module")
def cart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plant, Task]:
    folder = tmp_path_factory.mktemp("plants") / "cart"
    folder.mkdir()
    for name, text in {"plant.xml": CART_XML, "plant.py": CART_PLANT, "task.py": CART_TASK}.items():
        (folder / name).write_text(text)
    plant = load_plant(folder)
    return plant, load_task(plant)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ExactCart:
    """The cart as MuJoCo integrates it: semi-implicit Euler, 5 steps of 0.01 s."""

    step_size: float = 0.01

    def step(self, state, action, disturbance):
        mass, force = state.design[..., :1], state.design[..., 1:]
        x, v = state.qpos, state.qvel
        for _ in range(5):
            v = v + self.step_size * force / mass * action
            x = x + self.step_size * v
        return state.replace(qpos=x, qvel=v, time=state.time + 5 * self.step_size)


def pd_controller(position: float = 2.0, velocity: float = 2.5) -> Controller:
    def step(cstate, observation):
        return (
            cstate,
            jnp.clip(-position * observation[:1] - velocity * observation[1:2], -1, 1),
            {},
        )

    return Controller(lambda key: (), step)


def cart_trials(cart: tuple[Plant, Task], seed: int = 0, flights: int = 6) -> Trials:
    plant, task = cart
    imagine = imagined_flights(plant, task, pd_controller(), ExactCart(), designs=8, flights=4)
    return Trials(imagine, batch_controller(pd_controller()), plant, task, 4, flights, seed)


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


class TestStudy:
    settings = StudySettings(
        variables=("mass", "force"),
        population=8,
        generations=4,
        starts=4,
        calibration_designs=9,
        verify_flights=30,
        coverage=0.9,
        rollout=RolloutSettings(train=64, calibration=32, test=1, duration=2.0, shard_episodes=32),
        fit=FitSettings(
            equations=False,
            members=2,
            width=16,
            steps=250,
            fine_steps=0,
            calibrated_horizon=10,
            batch=64,
        ),
        learn=LearnSettings(updates=1),
    )

    @staticmethod
    def intervals(settling: float) -> dict:
        half_width = {"settling_time": settling, "mass": 0.0, "force": 0.0}
        return {"coverage": 0.9, "designs": 9, "half_width": half_width}

    def test_exact_model_predicts_within_its_intervals(self, cart):
        plant, _ = cart
        trials = cart_trials(cart, flights=40)
        space = design_space(plant, self.settings.variables)
        designs = space.completed(np.array([[m, f] for m in (0.6, 1.0, 1.5) for f in (2, 3, 4)]))
        calibration, predicted, verified = calibrate(trials, designs, 0.9)
        assert calibration["designs"] == 9
        assert calibration["half_width"]["mass"] == calibration["half_width"]["force"] == 0.0
        # Nine designs: the half width is the largest residual.
        width = np.abs(predicted.values - verified.values).max(axis=0)
        assert calibration["half_width"]["settling_time"] == width[0]
        # The model is exact, so what is left is the luck of 40 starts: settling varies by 0.1 to
        # 0.3 s from start to start, its mean by a sixth of that.
        assert 0.0 < width[0] < 0.2

    def test_next_best_are_feasible_and_outside_the_set(self, cart):
        trials = cart_trials(cart)
        space = design_space(cart[0], self.settings.variables)
        found = explore(trials, space, population=8, generations=4)
        maximise = [o.maximise for o in trials.task.objectives]
        rows_chosen = next_best(found, maximise, 5)
        assert len(rows_chosen) == 5
        assert found.feasible[rows_chosen].all() and not found.pareto[rows_chosen].any()

    def test_evaluations_survive_the_disk_to_the_last_bit(self, cart, tmp_path):
        plant, task = cart
        space = design_space(plant, self.settings.variables)
        rng = np.random.default_rng(0)
        values = rng.normal(size=(4, 3))
        values[1] = np.nan
        found = Evaluations(
            designs=space.designs(rng.uniform(size=(4, 2))),
            values=values,
            settled=np.array([1.0, 0.0, 1 / 3, 1.0]),
            generation=np.array([0, 0, 1, 1]),
            pareto=np.array([True, False, False, False]),
        )
        path = tmp_path / "evaluations.csv"
        path.write_text(evaluations_csv(space, task.objectives, found))
        read = read_evaluations(path, space, task.objectives)
        for name in ("designs", "values", "settled", "generation", "pareto", "feasible"):
            np.testing.assert_array_equal(getattr(read, name), getattr(found, name), name)

    def test_summary_of_a_search(self, cart):
        plant, _ = cart
        trials = cart_trials(cart, flights=40)
        space = design_space(plant, self.settings.variables)
        calibration = self.intervals(0.25)
        found = explore(trials, space, population=8, generations=4)
        summary = conclude(trials, space, found, calibration, pass_rate=0.9)
        assert summary["evaluations"] == len(found.designs) == 32
        assert 0 < summary["feasible"] < 32, "the test needs designs of both kinds"
        # Too little force for the mass: the cart cannot be there in 4 s. Bang-bang from 1 m takes
        # 2 sqrt(m / F), which no controller beats.
        designs = space.chosen(found.designs)
        hopeless = 2.0 * np.sqrt((0.5 - 0.05) * designs[:, 0] / designs[:, 1]) > 4.0
        assert not found.feasible[hopeless].any()
        points = summary["pareto"]
        for p in points:
            assert p["predicted"]["mass"] == p["verified"]["mass"] == p["design"]["mass"]
            apart = abs(p["predicted"]["settling_time"] - p["verified"]["settling_time"])
            assert p["inside"]["settling_time"] == (apart <= 0.25 * (1 + 1e-5))
            assert p["low"] < p["rate"] <= p["high"]
            assert p["passes"] == (p["low"] >= 0.9)
        shares = [p["inside"]["settling_time"] for p in points]
        assert summary["objectives"][0]["inside"] == np.mean(shares)
        assert summary["inside_all"] == np.mean([all(p["inside"].values()) for p in points])
        # Among those that pass, no verified point dominates another.
        best = [points[i]["verified"] for i in summary["verified_pareto"]]
        assert best and all(points[i]["passes"] for i in summary["verified_pareto"])
        for a, b in itertools.permutations(best, 2):
            worse = a["settling_time"] > b["settling_time"] or a["mass"] < b["mass"]
            assert worse or a["force"] > b["force"] or a == b

    def test_table(self, cart):
        plant, _ = cart
        trials = cart_trials(cart)
        space = design_space(plant, self.settings.variables)
        found = explore(trials, space, population=8, generations=4)
        summary = conclude(trials, space, found, self.intervals(1e-4), pass_rate=0.9)
        columns, table = rows(summary)
        assert columns[:4] == ["mass kg", "force N", "settling_time s ±0.0001", "true"]
        assert len(table) == len(summary["pareto"])
        assert {len(row) for row in table} == {len(columns)}
        marked = [row[3].endswith("!") for row in table]
        assert marked == [not p["inside"]["settling_time"] for p in summary["pareto"]]
        assert any(marked), "with so narrow an interval some must lie outside"
        columns, table = objective_rows(summary)
        assert columns[3] == "inside 90% interval"
        inside = 100 * (1 - np.mean(marked))
        assert [row[3] for row in table] == [f"{inside:.3g}%", "100%", "100%", f"{inside:.3g}%"]

    def test_no_feasible_design_is_a_result(self, cart):
        plant, task = cart
        idle = Controller(lambda key: (), lambda c, o: (c, jnp.zeros(1), {}))
        imagine = imagined_flights(plant, task, idle, ExactCart(), designs=8, flights=2)
        trials = Trials(imagine, batch_controller(idle), plant, task, 2, 3, 0)
        space = design_space(plant, self.settings.variables)
        found = explore(trials, space, population=8, generations=2)
        assert not found.pareto.any()
        calibration, _, _ = calibrate(trials, found.designs[found.pareto], 0.9)
        assert calibration["designs"] == 0
        assert set(calibration["half_width"].values()) == {None}
        summary = conclude(trials, space, found, calibration, pass_rate=0.9)
        assert summary["pareto"] == summary["verified_pareto"] == []
        assert summary["feasible"] == 0
        assert summary["inside_all"] is None
        assert rows(summary)[1] == []
        assert {row[3] for row in objective_rows(summary)[1]} == {"none"}
        assert np.isnan(found.values[:, 0]).all()

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"population": 3}, "population: expected a whole number of at least 4"),
            ({"generations": 0}, "generations"),
            ({"coverage": 1.0}, "coverage: expected a number above 0 and below 1, got 1"),
            ({"calibration_designs": 8}, "needs at least 9, got 8"),
            ({"coverage": 0.95}, "needs at least 19, got 9"),
        ],
    )
    def test_wrong_settings(self, wrong, message):
        with pytest.raises(InputError, match=message):
            replace(self.settings, **wrong)

    def test_task_without_objectives(self, cart, tmp_path):
        plant, _ = cart
        folder = tmp_path / "cart"
        shutil.copytree(plant.folder, folder)
        text = CART_TASK.replace("objectives=(", "objectives=() and (")
        (folder / "task.py").write_text(text)
        with pytest.raises(InputError, match="no objectives"):
            run_study(load_plant(folder), tmp_path / "out", settings=self.settings)
        assert not (tmp_path / "out").exists()

    def test_objective_of_a_wrong_shape(self, cart):
        plant, task = cart
        wrong = Objective("path", "all of it", "m", False, lambda states: states.qpos)
        with pytest.raises(InputError, match=r"objective path: expected a scalar, got \(81, 1\)"):
            study_module.check_objectives(plant, replace(task, objectives=(wrong,)))


def saturating_pd(plant: Plant) -> Policy:
    """tanh(-(2 x + 2.5 v)), blind to the two design channels: one layer is a controller."""
    f = lambda *x: jnp.array(x, jnp.float32)
    return Policy(
        (f(-2.0, -2.5, 0.0, 0.0)[:, None],), (f(0.0),), f(0, 0, 0, 0), f(1, 1, 1, 1), f(-1), f(1)
    )


@pytest.fixture
def taught(monkeypatch):
    """Write the saturating PD controller where a policy would be learned."""

    def learn(plant, task, surrogate, folder, settings, conditions, seed, progress):
        inputs = learn_inputs(plant, surrogate, None)
        own = {"settings": asdict(settings), "conditions": asdict(conditions), "seed": seed}
        with atomic_folder(folder) as temporary:
            save_policy(temporary / "policy.safetensors", saturating_pd(plant))
            write_json(temporary / "policy.json", {**own, "observations": []})
            write_manifest(temporary, "policy", inputs, own, seed)

    monkeypatch.setattr(study_module, "learn_policy", learn)


def test_whole_study_is_found_again_and_refused_when_made_otherwise(cart, taught, tmp_path):
    plant, _ = cart
    settings, out = TestStudy.settings, tmp_path / "out"
    study = run_study(plant, out, settings=settings, seed=3)
    assert study["pareto"] and study["out"] == str(out)
    assert all(link.ok for link in check_chain(out / "study"))
    names = ("study/study.json", "study/pareto.csv", "search/evaluations.csv")
    before = [(out / name).read_bytes() for name in names]
    table = list(csv.DictReader((out / "search" / "evaluations.csv").open()))
    assert len(table) == study["evaluations"] == 32
    assert sum(int(row["feasible"]) for row in table) == study["feasible"]
    assert sum(int(row["pareto"]) for row in table) == len(study["pareto"])

    assert run_study(plant, out, settings=settings, seed=3) == study
    with pytest.raises(InputError, match="search is damaged, or was made with other settings"):
        run_study(plant, out, settings=replace(settings, generations=5), seed=3)

    # As after a kill: the stages before it are found, the others are made again, to the bit.
    other = tmp_path / "other"
    shutil.copytree(out / "policy", other / "policy")
    resumed = run_study(plant, other, out / "surrogate", settings, seed=3)
    assert {p.name for p in other.iterdir()} == {"policy", "search", "calibration", "study"}
    assert resumed == {**study, "out": str(other)}
    assert [(other / name).read_bytes() for name in names] == before


def test_surrogate_that_has_seen_one_design_only_is_refused(cart, tmp_path):
    from physai.rollout.collect import collect
    from physai.surrogate.release import fit

    plant, task = cart
    settings = replace(TestStudy.settings.rollout, designs_per_shard=0)
    with pytest.raises(InputError, match="designs_per_shard: expected more than 0"):
        run_study(plant, tmp_path / "a", settings=replace(TestStudy.settings, rollout=settings))
    data = collect(plant, task, tmp_path / "dataset", settings, seed=0)
    fit(plant, [data], tmp_path / "surrogate", TestStudy.settings.fit)
    with pytest.raises(
        InputError, match=r"trained on 0% of the range of mass, expected at least 80%"
    ):
        run_study(plant, tmp_path / "b", tmp_path / "surrogate", TestStudy.settings)
    assert not list((tmp_path / "b").iterdir())


def test_policy_of_a_study_sees_the_design(cart):
    plant, task = cart
    aware = design_aware(task, plant)
    state = task.reset(jax.random.key(0), jnp.array([2.0, 0.2]))
    np.testing.assert_allclose(aware.observe(state)[2:], [1.0, -1.0], atol=1e-6)
