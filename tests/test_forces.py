"""Forces of a plant's own: closed forms, current kinematics, and designs that differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from physai.errors import InputError
from physai.plant import Plant, load_plant
from physai.rollout.engine import TruePlant
from physai.state import State

ROCKET = """
<mujoco>
  <option timestep="0.001" gravity="0 0 0" integrator="RK4"/>
  <custom><numeric name="control_period" data="0.01"/></custom>
  <worldbody>
    <body name="hull"><freejoint name="root"/>
      <geom name="dry" type="box" size="0.1 0.1 0.5" pos="0 0 0.2" mass="40"/>
    </body>
  </worldbody>
  <actuator>
    <general name="throttle" site="nozzle" gainprm="0" dyntype="integrator" ctrlrange="0 1"/>
  </actuator>
</mujoco>
"""
PYTHON = """
from physai.plant import DesignVariable

DESIGN = (DesignVariable("propellant", "kg", 10.0, 90.0, 60.0),)
THRUST, FLOW = 200.0, 5.0  # N, kg/s


def apply(spec, design):
    spec.geom("dry").mass = 40.0 + design["propellant"]


def forces(live):
    mass = live.model("body_mass")
    full = 40.0 + live.design[:, 0]
    left = full - FLOW * live.data("act")[:, 0]
    live.model("body_inertia")[:, 1] *= (left / mass[:, 1])[:, None]
    mass[:, 1] = left
    axis = live.data("xmat")[:, 1, [2, 5, 8]]
    live.data("xfrc_applied")[:, 1, :3] = THRUST * live.data("ctrl") * axis
"""


@pytest.fixture(scope="module")
def rocket(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    folder = tmp_path_factory.mktemp("rocket")
    xml = ROCKET.replace("</body>", '<site name="nozzle"/></body>')
    (folder / "plant.xml").write_text(xml)
    (folder / "plant.py").write_text(PYTHON)
    return load_plant(folder)


def start(plant: Plant, n: int, propellant: np.ndarray | float = 60.0) -> State:
    qpos = np.tile(np.array([0.0, 0, 0, 1, 0, 0, 0]), (n, 1))
    design = np.broadcast_to(np.asarray(propellant, float).reshape(-1, 1), (n, 1))
    return State(
        qpos, np.zeros((n, 6)), np.zeros((n, 1)), np.zeros(n), np.zeros((n, 0)), design.copy()
    )


def burn(plant: Plant, propellant: np.ndarray, seconds: float, throttle: float = 1.0) -> State:
    n = len(propellant)
    state = start(plant, n, propellant)
    simulator = TruePlant(plant, n, state.design)
    for _ in range(round(seconds / plant.control_period)):
        state = simulator.step(state, np.full((n, 1), throttle))
    assert simulator.valid.all()
    return state


def test_a_rocket_that_burns_off_its_propellant_flies_as_tsiolkovsky_says(rocket: Plant) -> None:
    """v = c ln(m_0 / m_1), Tsiolkovsky 1903; the mass is held over a step of 1 ms: error 3e-5."""
    propellant = np.array([10.0, 30.0, 60.0, 90.0])
    state = burn(rocket, propellant, 2.0)
    full = 40.0 + propellant
    expected = 200.0 / 5.0 * np.log(full / (full - 5.0 * 2.0))
    np.testing.assert_allclose(state.qvel[:, 2], expected, rtol=1e-4)


def test_a_batch_of_designs_flies_as_each_design_alone(rocket: Plant) -> None:
    propellant = np.array([10.0, 30.0, 10.0])
    together = burn(rocket, propellant, 0.2)
    for i, p in enumerate(propellant):
        alone = burn(rocket, np.array([p]), 0.2)
        np.testing.assert_array_equal(alone.qvel[0], together.qvel[i])


def test_forces_see_the_attitude_of_the_step_that_they_act_in(rocket: Plant) -> None:
    """A thrust along the body's own axis: started tilted, the flight leaves along that axis."""
    state = start(rocket, 2)
    state.qpos[1, 3:] = [np.cos(0.4), np.sin(0.4), 0, 0]  # 0.8 rad about x
    simulator = TruePlant(rocket, 2)
    after = simulator.step(state, np.ones((2, 1)))
    speed = after.qvel[0, 2]
    expected = speed * np.array([0, -np.sin(0.8), np.cos(0.8)])
    # The thrust acts at the centre of mass, so that nothing turns and the axis stays.
    np.testing.assert_allclose(after.qvel[1, :3], expected, atol=1e-9)


def test_forces_that_raise_name_their_line(tmp_path: Path) -> None:
    xml = ROCKET.replace("</body>", '<site name="nozzle"/></body>')
    (tmp_path / "plant.xml").write_text(xml)
    (tmp_path / "plant.py").write_text("def forces(live):\n    live.data('no such field')\n")
    plant = load_plant(tmp_path)
    still = start(plant, 1).replace(design=np.zeros((1, 0)))
    with pytest.raises(InputError, match=r"plant.py:2: forces\(\) failed: .*no such field"):
        TruePlant(plant, 1).step(still, np.ones((1, 1)))


def test_a_start_anew_forgets_what_was_burnt(rocket: Plant) -> None:
    simulator = TruePlant(rocket, 1)
    state = start(rocket, 1)
    first = simulator.step(state, np.ones((1, 1)))
    later = first
    for _ in range(20):
        later = simulator.step(later, np.ones((1, 1)))
    again = simulator.step(state, np.ones((1, 1)))
    np.testing.assert_array_equal(again.qvel, first.qvel)
