"""Which symmetries a plant has is found by flying it."""

from __future__ import annotations

import pytest
from rails import (
    cart,
    puck,
)

from physai.plant import load_plant
from physai.rollout.symmetry import TOLERANCE, find_symmetries
from physai.task import load_task


def test_quadrotor_is_invariant_to_rounding(quadrotor):
    found = find_symmetries(*quadrotor, seed=0)
    assert found.translation == "xyz" and found.heading
    assert max(found.errors.values()) < 1e-10


@pytest.mark.parametrize(
    ("broken", "translation", "heading"),
    [
        ({}, "xyz", True),
        # A wind is everywhere the same, so only the heading feels it.
        ({"option": 'wind="3 0 0" density="1.2"'}, "xyz", False),
        ({"option": 'gravity="1 0 -9.81"'}, "xyz", False),
        # MuJoCo's pyramid of friction stands along fixed axes of the floor, its cone does not.
        ({"contact": "enable"}, "xy", False),
        ({"contact": "enable", "option": 'cone="elliptic"'}, "xy", True),
        (
            {"tendon": '<spatial stiffness="2"><site site="world"/><site site="hub"/></spatial>'},
            "",
            False,
        ),
        # World-frame gusts that are not marked as a vector do not turn along.
        ({"python": ""}, "xyz", False),
    ],
    ids=["free", "wind", "slope", "floor", "round floor", "spring", "unmarked gust"],
)
def test_what_breaks_a_symmetry_is_found(tmp_path, broken, translation, heading):
    found = find_symmetries(*puck(tmp_path / "puck", **broken), seed=1)
    assert (found.translation, found.heading) == (translation, heading)
    for moved, error in found.errors.items():
        holds = heading if moved == "heading" else moved in translation
        assert error < 1e-9 if holds else error > 1e-4  # no verdict by a hair's breadth


def test_a_cart_on_a_rail_has_no_free_joint_to_move(tmp_path):
    found = find_symmetries(*cart(tmp_path / "cart"))
    assert (found.translation, found.heading, found.errors) == ("", False, {})


@pytest.mark.parametrize(
    ("name", "translation", "heading", "joints"),
    [
        ("satellite", "xyz", True, ("wheel_1", "wheel_2", "wheel_3", "wheel_4")),
        ("wafer_stage", "", False, ("carriage",)),
        ("hopper", "", False, ("rootx",)),
        ("cartpole", "", False, ()),
        ("ant", "xy", True, ()),
    ],
)
def test_the_symmetries_of_shipped_plants(name, translation, heading, joints):
    """Wheels, a long rail, a walker's track, a floor; but no pole under gravity, no spring."""
    plant = load_plant(name)
    found = find_symmetries(plant, load_task(plant))
    assert (found.translation, found.heading, found.joints) == (translation, heading, joints)
    for moved, error in found.errors.items():
        holds = heading if moved == "heading" else moved in translation
        assert error < 0.1 * TOLERANCE if holds else error > 10.0 * TOLERANCE


def test_a_joint_without_a_name_may_be_idle_too(tmp_path):
    """A flywheel on a fixed vertical axle, beside a pendulum that gravity turns back."""
    model = tmp_path / "wheel.xml"
    model.write_text(
        "<mujoco><worldbody><body><joint axis='0 0 1'/><geom size='0.1'/></body>"
        "<body pos='2 0 0'><joint axis='0 1 0'/><geom size='0.1' pos='0 0 -1'/></body>"
        "</worldbody></mujoco>"
    )
    plant = load_plant(model)
    assert find_symmetries(plant, load_task(plant)).joints == (plant.joints[0].name,)
