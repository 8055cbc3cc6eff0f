"""Stored flights are flown again to the bit, and shown."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import jax
import numpy as np
import pytest
from pushed_cart import SMALL, TASK, damper, stateless

from physai.control.controller import BatchController, batch_controller, policy_controller
from physai.control.policy import init_policy
from physai.errors import InputError
from physai.offscreen import find_backend
from physai.plant import Plant
from physai.task import Task
from physai.verify import (
    DISTURBED,
    NOMINAL,
    VerifySettings,
    certify,
    draw_scenarios,
    fly,
    frame_indices,
    judge,
    load_flight,
    render,
    replay,
)


@pytest.fixture(scope="module")
def certified(
    quadrotor: Plant, quadrotor_task: Task, pilot: BatchController, tmp_path_factory: Any
) -> Any:
    folder = tmp_path_factory.mktemp("run") / "certificate"
    settings = VerifySettings(block=6).with_flights(10)
    certify(quadrotor, quadrotor_task, pilot, folder, settings=settings, seed=1)
    return folder


@pytest.mark.parametrize("name", ["nominal_worst", "nominal_typical", "disturbed_worst"])
def test_replay_is_the_stored_flight_to_the_bit(
    quadrotor: Plant, quadrotor_task: Task, pilot: BatchController, certified: Any, name: str
) -> None:
    stored = load_flight(certified / f"{name}.npz").trajectory
    again = replay(quadrotor, quadrotor_task, pilot, certified / f"{name}.npz")
    assert again.identical
    np.testing.assert_array_equal(again.states.qpos, stored.states.qpos)
    np.testing.assert_array_equal(again.actions, stored.actions)
    np.testing.assert_array_equal(again.measures, stored.measures)


def test_replay_of_a_network_is_the_stored_flight_to_the_bit(
    quadrotor: Plant, quadrotor_task: Task, tmp_path: Any
) -> None:
    """Matrix products round by batch size: the block is what makes a flight alone the same."""
    low, high = np.transpose([(a.low, a.high) for a in quadrotor.actions])
    mean, std = np.zeros(19), np.ones(19)
    policy = init_policy(jax.random.key(0), (64, 64), mean, std, low, high, quadrotor.trim)
    controller = batch_controller(policy_controller(policy))
    certify(quadrotor, quadrotor_task, controller, tmp_path / "c", flights=3)
    for path in sorted((tmp_path / "c").glob("*_worst.npz")):
        assert replay(quadrotor, quadrotor_task, controller, path).identical, path.name


def test_replay_with_another_controller_says_so(
    quadrotor: Plant, quadrotor_task: Task, certified: Any
) -> None:
    trim = stateless(lambda observation: np.tile(quadrotor.trim, (len(observation), 1)))
    path = certified / "disturbed_worst.npz"
    flown = replay(quadrotor, quadrotor_task, trim, path)
    stored = load_flight(path).trajectory
    assert not flown.identical
    np.testing.assert_array_equal(flown.states.qpos[0], stored.states.qpos[0])
    np.testing.assert_array_equal(flown.disturbances, stored.disturbances)


def test_replay_refuses_another_plant_task_or_file(
    cart: Plant, quadrotor: Plant, quadrotor_task: Task, pilot: BatchController, certified: Any
) -> None:
    path = certified / "nominal_worst.npz"
    with pytest.raises(InputError, match="verify again"):
        replay(cart, TASK, damper, path)
    blind = replace(quadrotor_task, observations=quadrotor_task.observations[:-1])
    with pytest.raises(InputError, match="19 observation channels"):
        replay(quadrotor, blind, pilot, path)
    with pytest.raises(InputError, match="saved by verify"):
        load_flight(certified / "flights.npz")
    with pytest.raises(InputError, match="cannot be read"):
        load_flight(certified / "certificate.json")
    with pytest.raises(InputError, match="cannot be read"):
        load_flight(certified / "missing.npz")


def test_geometric_controller_passes_most_flights(
    quadrotor: Plant, quadrotor_task: Task, pilot: BatchController
) -> None:
    for settings, least in ((NOMINAL, 90), (DISTURBED, 85)):
        scenarios = draw_scenarios(quadrotor, quadrotor_task, replace(settings, flights=100), 4)
        assert (
            judge(quadrotor_task, fly(quadrotor, quadrotor_task, pilot, scenarios)).passed.sum()
            >= least
        )


def test_frames_go_from_start_to_end(quadrotor: Plant, certified: Any) -> None:
    states = load_flight(certified / "nominal_typical.npz").trajectory.states
    moments = frame_indices(quadrotor, states, 8)
    assert len(moments) == 8 and moments[0] == 0 and moments[-1] == 250
    assert all(a < b for a, b in pairwise(moments))
    assert frame_indices(quadrotor, states[:1], 3) == [0, 0, 0]


def _pictures(*arguments: Any) -> list[np.ndarray]:
    try:
        return render(*arguments)
    except InputError as error:
        pytest.skip(str(error))


def test_pictures_show_machine_and_target(quadrotor: Plant, certified: Any) -> None:
    trajectory = load_flight(certified / "nominal_typical.npz").trajectory
    images = _pictures(quadrotor, trajectory, 3, 160, 120)
    assert [(i.shape, i.dtype) for i in images] == [((120, 160, 3), np.uint8)] * 3
    rgb = images[0].astype(int)
    orange = (rgb[..., 0] > 170) & (rgb[..., 1] < 150) & (rgb[..., 2] < 90)
    dark = rgb.sum(axis=2) < 270  # the rotors; the scenery is light
    assert orange.any() and dark.sum() > 20
    assert np.abs(rgb - images[-1]).max() > 50  # it has moved


def test_pictures_of_a_plant_without_floor_and_target(cart: Plant, tmp_path: Any) -> None:
    certify(cart, TASK, damper, tmp_path / "c", settings=SMALL)
    trajectory = load_flight(tmp_path / "c" / "nominal_worst.npz").trajectory
    (image,) = _pictures(cart, trajectory, 1, 64, 48)
    assert image.shape == (48, 64, 3) and image.std() > 1.0


def test_pictures_of_no_size_are_refused(quadrotor: Plant, certified: Any) -> None:
    trajectory = load_flight(certified / "nominal_typical.npz").trajectory
    with pytest.raises(InputError, match="at least one frame"):
        render(quadrotor, trajectory, 0)


def test_a_machine_that_cannot_render_is_told_what_to_install() -> None:
    assert find_backend(lambda library: library) == "egl"
    assert find_backend(lambda library: library if library == "OSMesa" else None) == "osmesa"
    with pytest.raises(InputError, match="apt install"):
        find_backend(lambda library: None)
