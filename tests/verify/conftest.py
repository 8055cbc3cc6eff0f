"""What verification is tried on: a cart with closed forms, and the quadrotor."""

from __future__ import annotations

import pytest
from controllers import geometric_controller
from pushed_cart import pushed_cart

from physai.control.controller import BatchController, batch_controller
from physai.plant import Plant, load_plant
from physai.task import Task, load_task


@pytest.fixture(scope="module")
def cart(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    return pushed_cart(tmp_path_factory.mktemp("cart"))


@pytest.fixture(scope="module")
def quadrotor() -> Plant:
    return load_plant("quadrotor")


@pytest.fixture(scope="module")
def quadrotor_task(quadrotor: Plant) -> Task:
    return load_task(quadrotor)


@pytest.fixture(scope="module")
def pilot(quadrotor: Plant) -> BatchController:
    return batch_controller(geometric_controller(quadrotor))
