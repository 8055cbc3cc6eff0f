"""The data forecast: power laws recovered, floors told, fits resumed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from masses import SPRING, episodes_of, machine

from physai.errors import InputError
from physai.provenance import check_chain
from physai.surrogate.fit import FitSettings
from physai.surrogate.forecast import PowerLaw, fit_power_law, forecast, statement
from physai.surrogate.learning_curve import ForecastSettings, write_forecast

EPISODES = np.repeat([125.0, 250.0, 500.0, 1000.0], 2)


@pytest.mark.parametrize(
    ("floor", "gain", "exponent"), [(0.02, 0.05, 0.5), (0.0, 0.1, 0.3), (0.1, 0.02, 1.2)]
)
def test_a_power_law_is_recovered(floor: float, gain: float, exponent: float) -> None:
    errors = floor + gain * (EPISODES / 1000.0) ** -exponent
    law = fit_power_law(EPISODES, errors)
    assert law.floor == pytest.approx(floor, abs=1e-4)
    assert law.gain == pytest.approx(gain, abs=1e-4)
    assert law.exponent == pytest.approx(exponent, abs=2e-3)


def test_what_is_needed_gives_the_error_asked_for() -> None:
    law = PowerLaw(0.02, 0.05, 0.5, 1000.0)
    # 0.02 + 0.05 / sqrt(n / 1000) = 0.03 at n = 25 thousand
    assert law.needed(0.03) == pytest.approx(25_000.0)
    assert law.error(np.array(25_000.0)) == pytest.approx(0.03)
    assert law.needed(0.02) == law.needed(0.01) == np.inf


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Errors 3% off a law that needs 1,250 more episodes: 15 repeats, 90% intervals."""
    law, rng, trials = PowerLaw(0.02, 0.045, 0.5, 1000.0), np.random.default_rng(0), 15
    true, held = law.needed(0.05) - 1000.0, 0
    for seed in range(trials):
        errors = law.error(EPISODES) * np.exp(0.03 * rng.standard_normal(len(EPISODES)))
        low, high = forecast(EPISODES, errors, 0.05, seed)["more_interval"]
        held += low <= true and (high is None or true <= high)
    assert true == pytest.approx(1250.0)
    assert held >= 9  # of 15 at 90%, 8 or fewer happen once in 3,000


def test_a_tolerance_below_the_floor_is_said_to_be_out_of_reach() -> None:
    errors = 0.08 + 0.02 * (EPISODES / 1000.0) ** -1.0
    found = forecast(EPISODES, errors, 0.05)
    assert found["outcome"] == "floor" and found["more"] is None and found["unreachable"] == 1.0
    said = statement(found, "an nRMSE")
    assert "not reachable" in said and "the floor is at 0.08" in said
    found = forecast(EPISODES, 0.01 + 0.1 * (EPISODES / 1000.0) ** -0.2, 0.04)
    # (0.1 / 0.03)^5 = 412 times the episodes: above the floor, and too far to be forecast.
    assert found["outcome"] == "beyond" and "more than 100 times the 1,000" in statement(found, "")


def test_a_tolerance_that_is_kept_needs_nothing_more() -> None:
    found = forecast(EPISODES, 0.02 + 0.05 * (EPISODES / 1000.0) ** -0.5, 0.08)
    assert (found["outcome"], found["more"]) == ("kept", 0)
    assert "is kept already: 0.07 is expected of 1,000 episodes" in statement(found, "an nRMSE")


def test_more_episodes_are_told_with_an_interval() -> None:
    errors = 0.02 + 0.05 * (EPISODES / 1000.0) ** -0.5
    found = forecast(EPISODES, errors, 0.06)
    low, high = found["more_interval"]
    assert found["more"] == pytest.approx(563, abs=2) and low < 563 < high
    assert f"{found['more']} more episodes than the 1,000 that are there" in statement(found, "it")


@pytest.mark.parametrize(
    ("episodes", "errors", "tolerance"),
    [
        ([1, 2, 3], [0.3, 0.2, 0.1], 0.1),
        ([1, 1, 2, 2], [0.3, 0.3, 0.2, 0.2], 0.1),
        ([1, 2, 3, 4], [0.3, 0.2, np.inf, 0.1], 0.1),
        ([1, 2, 3, 4], [0.3, 0.2, 0.15, 0.1], 0.0),
    ],
)
def test_what_gives_no_forecast_is_refused(episodes: list, errors: list, tolerance: float) -> None:
    with pytest.raises(InputError):
        forecast(episodes, errors, tolerance)


def test_settings_that_give_no_forecast_are_refused() -> None:
    for shares in ((0.5, 1.0), (0.25, 0.5, 0.75), (0.0, 0.5, 1.0), (0.5, 0.25, 1.0)):
        with pytest.raises(InputError, match="shares"):
            ForecastSettings(shares=shares)
    with pytest.raises(InputError, match="repeats"):
        ForecastSettings(shares=(0.25, 0.5, 1.0), repeats=1)


def test_a_stopped_forecast_goes_on_with_what_is_left(tmp_path: Path) -> None:
    plant = machine(tmp_path, SPRING)
    data = episodes_of(plant, tmp_path / "data", 60)
    few = {"steps": 250, "calibrated_horizon": 1}
    tiny = FitSettings(members=1, width=8, depth=1, equations=False, **few)
    settings = ForecastSettings((0.125, 0.25, 0.5, 1.0), 1, 10, tiny)

    def stop(stage: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    out = tmp_path / "forecast"
    with pytest.raises(KeyboardInterrupt):
        write_forecast(plant, [data], out, 0.1, settings, progress=stop)
    assert not out.exists()
    kept = [json.loads((tmp_path / f"forecast.training/{i}.json").read_text()) for i in (0, 1)]
    found = write_forecast(plant, [data], out, 0.1, settings)
    assert found["points"][:2] == [point for file in kept for point in file["points"]]
    assert [point["episodes"] for point in found["points"]] == [8, 16, 32, 64]
    assert not (tmp_path / "forecast.training").exists() and check_chain(out)[0].ok

    def never(stage: str, done: int, total: int) -> None:
        raise AssertionError(f"{stage}: fitted again")

    # Another tolerance is answered from what is there.
    wide = write_forecast(plant, [data], out, 1e3, settings, progress=never)
    assert wide["outcome"] == "kept" and wide["points"] == found["points"]
    with pytest.raises(InputError, match="at least 8 episodes in the smallest share, got 4 of 64"):
        small = ForecastSettings((0.0625, 0.5, 1.0), 2, 10, tiny)
        write_forecast(plant, [data], tmp_path / "small", 0.1, small)
