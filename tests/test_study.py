"""A whole design study: intervals, table, conclusions; found again, resumed and refused."""

from __future__ import annotations

import csv
import itertools
import shutil
from dataclasses import asdict, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from carts import CART_TASK, ExactCart, cart_at, cart_trials

from physai.control.controller import Controller, batch_controller
from physai.control.policy import Policy, save_policy
from physai.design import study as study_module
from physai.design.calibration import calibrate, next_best
from physai.design.evaluations import Evaluations, evaluations_csv, explore, read_evaluations
from physai.design.sampling import Trials, imagined_flights
from physai.design.study import StudySettings, run_study
from physai.design.summary import conclude, objective_rows, rows
from physai.design.variables import design_space
from physai.errors import InputError
from physai.learn.learn import learn_inputs
from physai.learn.value_gradient import LearnSettings
from physai.plant import Plant, load_plant
from physai.provenance import atomic_folder, check_chain, write_json, write_manifest
from physai.rollout.collect import RolloutSettings
from physai.surrogate.fit import FitSettings
from physai.task import Objective, Task, design_aware


@pytest.fixture(scope="module")
def cart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plant, Task]:
    return cart_at(tmp_path_factory.mktemp("plants") / "cart")


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
