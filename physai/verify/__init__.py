"""Flights in true MuJoCo: scenarios, the certificate of how many met the requirements, replay."""

from physai.verify.certificate import Certificate, VerifySettings, certify, load_certificate
from physai.verify.fly import Flights, Judgement, fly, judge
from physai.verify.render import frame_indices, render
from physai.verify.replay import SavedFlight, Trajectory, load_flight, replay
from physai.verify.results import ConditionResult, RequirementResult, clopper_pearson
from physai.verify.scenarios import (
    DISTURBED,
    NOMINAL,
    Scenarios,
    ScenarioSettings,
    draw_scenarios,
)

__all__ = [
    "DISTURBED",
    "NOMINAL",
    "Certificate",
    "ConditionResult",
    "Flights",
    "Judgement",
    "RequirementResult",
    "SavedFlight",
    "ScenarioSettings",
    "Scenarios",
    "Trajectory",
    "VerifySettings",
    "certify",
    "clopper_pearson",
    "draw_scenarios",
    "fly",
    "frame_indices",
    "judge",
    "load_certificate",
    "load_flight",
    "render",
    "replay",
]
