"""Every record of settings refuses what cannot work, when it is made."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from physai.design.study import StudySettings
from physai.errors import InputError
from physai.flow import RunSettings
from physai.learn.imagination import Conditions
from physai.learn.value_gradient import LearnSettings
from physai.rollout.collect import RolloutSettings
from physai.rollout.excitation import Excitation
from physai.surrogate.distil import DistilSettings
from physai.surrogate.fit import FitSettings
from physai.verify.scenarios import ScenarioSettings

WHOLE = {
    DistilSettings: ("width", "depth", "steps", "batch", "calibrated_horizon"),
    FitSettings: (
        *("members", "width", "depth", "steps", "batch"),
        *("calibrated_horizon", "stride"),
    ),
    LearnSettings: ("machines", "horizon", "updates", "critic_passes", "members"),
    RolloutSettings: ("train", "shard_episodes"),
    RunSettings: ("flights",),
    ScenarioSettings: ("flights",),
    StudySettings: ("population", "generations", "starts", "verify_flights"),
}
POSITIVE = {
    DistilSettings: ("learning_rate",),
    FitSettings: ("learning_rate",),
    LearnSettings: ("policy_rate", "critic_rate", "discount"),
    RolloutSettings: ("duration",),
    StudySettings: ("coverage", "pass_rate"),
}
SHARES = {
    Conditions: ("design_spread", "delayed", "upset"),
    Excitation: ("delayed",),
    LearnSettings: ("trace",),
    ScenarioSettings: ("mass_spread",),
}


def cases(fields: dict[Any, tuple[str, ...]]) -> list[tuple[Callable[..., Any], str]]:
    return [(record, name) for record, names in fields.items() for name in names]


@pytest.mark.parametrize(("record", "name"), cases(WHOLE))
@pytest.mark.parametrize("value", [0, -5, 1.5, True])
def test_counts_are_whole_and_positive(record: Callable[..., Any], name: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"^{name}: expected a whole number of at least \d, got"):
        record(**{name: value})


@pytest.mark.parametrize(("record", "name"), cases(POSITIVE))
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_rates_are_positive_and_finite(record: Callable[..., Any], name: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"^{name}: expected a number above 0.*, got"):
        record(**{name: value})


@pytest.mark.parametrize(("record", "name"), cases(SHARES))
@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan])
def test_shares_lie_between_0_and_1(record: Callable[..., Any], name: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"^{name}: expected a number at least 0 and .* 1, got"):
        record(**{name: value})


@pytest.mark.parametrize("hidden", [(0,), (64, -1), (64, 2.0)])
def test_every_width_is_checked(hidden: Any) -> None:
    with pytest.raises(InputError, match=r"^hidden: expected a whole number of at least 1"):
        LearnSettings(hidden=hidden)


def test_the_edges_are_allowed() -> None:
    assert LearnSettings(trace=1.0, disagreement_price=0.0, hidden=(1,)).trace == 1.0
    assert Conditions(design_spread=1.0, gusts=0.0, upset=0.0).gusts == 0.0
    assert RunSettings(rounds=0, shortfall=0.0, flights=1).rounds == 0
    assert RolloutSettings(calibration=0, test=0, duration=None).duration is None
    assert FitSettings(members=1).members == 1
