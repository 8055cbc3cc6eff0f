"""Released checkpoints hold what they promise: whole, of the plant as it is, and verified anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from physai.control.controller import BatchController, batch_controller, policy_controller
from physai.export.bundle import check_bundle
from physai.export.compiled import compiled_controller
from physai.learn.learn import load_policy_folder
from physai.plant import Plant, load_plant
from physai.provenance import check_chain
from physai.rollout.collect import RolloutSettings, collect
from physai.surrogate.score import score
from physai.surrogate.store import load_surrogate
from physai.task import load_task
from physai.verify import load_certificate
from physai.verify.fly import fly, judge
from physai.verify.scenarios import DISTURBED, NOMINAL, ScenarioSettings, draw_scenarios

ROOT = Path(__file__).parents[1] / "checkpoints"
FOLDERS = sorted(path.parent for path in ROOT.glob("*/*/policy"))
RELEASED = sorted(path for name in ("surrogate", "student") for path in ROOT.glob(f"*/*/{name}"))
FLIGHTS, FRESH_SEED = 200, 1


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda path: f"{path.parent.name}-{path.name}")
def checkpoint(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(scope="module")
def plant(checkpoint: Path) -> Plant:
    return load_plant(checkpoint.parent.name)


def test_there_is_a_checkpoint() -> None:
    assert FOLDERS


@pytest.mark.parametrize("part", ["score", "certificate", "bundle"])
def test_the_chain_holds_but_for_the_dataset_that_is_not_shipped(
    checkpoint: Path, part: str
) -> None:
    links = check_chain(checkpoint / part)
    assert [link.name for link in links if not link.ok] in ([], ["dataset"])
    assert "surrogate" in {link.name for link in links}


@pytest.mark.parametrize("released", RELEASED, ids=lambda path: "-".join(path.parts[-3:]))
def test_released_weights_are_whole_small_and_of_the_plant_as_it_is(released: Path) -> None:
    plant = load_plant(released.parents[1].name)
    assert load_surrogate(released, plant).members == (1 if released.name == "student" else 4)
    assert sum(path.stat().st_size for path in released.iterdir()) < 3 * 2**20
    links = check_chain(released)
    assert {link.name for link in links if not link.ok} <= {"dataset"}


def test_intervals_cover_fresh_episodes(checkpoint: Path, plant: Plant, tmp_path: Path) -> None:
    settings = RolloutSettings(train=1, calibration=0, test=192)
    data = collect(plant, load_task(plant), tmp_path / "fresh", settings, FRESH_SEED)
    card = score(load_surrogate(checkpoint / "surrogate", plant), plant, data.episodes("test"))
    assert np.all(np.abs(np.array(card["coverage"]) - 0.9) < 0.03)


def fresh_passes(plant: Plant, controller: BatchController, settings: ScenarioSettings) -> int:
    task = load_task(plant)
    scenarios = draw_scenarios(plant, task, settings, FRESH_SEED)
    return int(judge(task, fly(plant, task, controller, scenarios)).passed.sum())


@pytest.mark.parametrize("condition", ["nominal", "disturbed"])
@pytest.mark.parametrize("flown_by", ["policy", "bundle"])
def test_fresh_flights_pass_as_often_as_certified(
    checkpoint: Path, plant: Plant, condition: str, flown_by: str
) -> None:
    if flown_by == "policy":
        policy, _ = load_policy_folder(checkpoint / "policy")
        controller = batch_controller(policy_controller(policy))
    else:
        check_bundle(checkpoint / "bundle")
        controller = compiled_controller(checkpoint / "bundle")
    settings = replace(NOMINAL if condition == "nominal" else DISTURBED, flights=FLIGHTS)
    certified = load_certificate(checkpoint / "certificate").condition(condition)
    # A policy as good as the certificate's lower bound fails this in one of a thousand tries.
    least = int(binom.ppf(1e-3, FLIGHTS, certified.low))
    assert fresh_passes(plant, controller, settings) >= least
