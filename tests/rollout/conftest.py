"""What is rolled out: the quadrotor, and a small dataset of a cart."""

from __future__ import annotations

from pathlib import Path

import pytest
from rails import Machine, collected, quadrotor_machine


@pytest.fixture(scope="module")
def quadrotor() -> Machine:
    return quadrotor_machine()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Machine, Path]:
    return collected(tmp_path_factory.mktemp("small"))
