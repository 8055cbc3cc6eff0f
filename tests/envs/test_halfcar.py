"""The half car: closed forms, what design variables move, the road, reward and requirements."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from physai.plant import load_plant
from physai.plant.load import load_module
from physai.rollout.engine import TruePlant
from physai.state import State
from physai.task import load_task


@pytest.fixture(scope="module")
def plant():
    return load_plant("halfcar")


@pytest.fixture(scope="module")
def module(plant):
    return load_module(plant.folder / "plant.py")


@pytest.fixture(scope="module")
def task(plant):
    return load_task(plant)


def at(plant, qpos=(0.0, 0.0, 0.0, 0.0), qvel=(0.0, 0.0, 0.0, 0.0)) -> State:
    return State(
        qpos=jnp.array(qpos, jnp.float32),
        qvel=jnp.array(qvel, jnp.float32),
        act=jnp.zeros(0),
        time=jnp.zeros(()),
        command=jnp.zeros(0),
        design=jnp.asarray(plant.nominal, jnp.float32),
    )


def moving(plant, qpos, qvel) -> State:
    """Trajectory `[501]` of given positions and velocities."""
    states = jax.tree.map(lambda x: jnp.broadcast_to(x, (501, *x.shape)), at(plant))
    return states.replace(qpos=jnp.asarray(qpos), qvel=jnp.asarray(qvel))


@pytest.mark.parametrize(
    "design",
    [
        (24453.0, 19636.0, 1786.0, 1649.0, 2500.0),
        (38000.0, 15000.0, 3000.0, 900.0, 1200.0),
        (16000.0, 30000.0, 900.0, 3200.0, 3900.0),
    ],
)
def test_closed_forms(plant, module, design):
    checks = module.design_checks(plant, np.array(design))
    assert [c.quantity for c in checks if not c.passed] == []
    assert len(checks) == 12


def test_xml_is_the_nominal_design(plant):
    """What apply() writes at the nominal design is what plant.xml says, to its digits."""
    written = mujoco.MjModel.from_xml_path(str(plant.folder / "plant.xml"))
    assert written.tendon_lengthspring == pytest.approx(plant.model.tendon_lengthspring, abs=1e-6)
    assert written.qpos_spring == pytest.approx(plant.model.qpos_spring, abs=1e-6)
    assert list(written.tendon_stiffness) == list(plant.model.tendon_stiffness)
    assert list(written.tendon_damping) == list(plant.model.tendon_damping)


def test_a_stiffer_spring_raises_the_frequency_and_keeps_the_ride_height(plant, module):
    stiff = plant.nominal * [1.5, 1.5, 1.0, 1.0, 1.0]
    assert (module.undamped_frequencies(stiff) > module.undamped_frequencies(plant.nominal)).all()
    data = mujoco.MjData(plant.compile(stiff))
    mujoco.mj_forward(plant.compile(stiff), data)
    assert np.abs(data.qacc).max() < 1e-6


def test_a_more_damped_car_settles_faster(plant):
    def after_a_second(design):
        simulation = TruePlant(plant, 1, design[None])
        state = jax.tree.map(lambda x: np.asarray(x, float)[None], at(plant, (0.03, 0, 0, 0)))
        for _ in range(100):
            state = simulation.step(state, np.zeros((1, 2)))
        return float(np.abs(state.qpos[0, 0]) + np.abs(state.qvel[0, 0]) / 6.0)

    damped = plant.nominal * [1.0, 1.0, 1.9, 1.9, 1.0]
    assert after_a_second(damped) < 0.5 * after_a_second(plant.nominal)


def test_a_raised_road_raises_the_car_and_an_action_is_a_force_between_body_and_wheel(plant):
    simulation = TruePlant(plant, 2)
    state = jax.tree.map(lambda x: np.stack([np.asarray(x, float)] * 2), at(plant))
    action = np.array([[0.0, 0.0], [0.5, 0.5]])
    road = np.array([[0.03, 0.03], [0.0, 0.0]])
    for _ in range(1500):
        state = simulation.step(state, action, road)
    # Everything follows the road; the force of 1250 N a strut extends it by force over stiffness.
    assert state.qpos[0] == pytest.approx([0.03, 0.0, 0.03, 0.03], abs=1e-5)
    front, rear = (
        state.qpos[1, 0] - 1.3 * state.qpos[1, 1],
        state.qpos[1, 0] + 1.4 * state.qpos[1, 1],
    )
    assert front == pytest.approx(1250.0 / 24453.0, abs=1e-4)
    assert rear == pytest.approx(1250.0 / 19636.0, abs=1e-4)
    assert state.qpos[1, 2:] == pytest.approx([0.0, 0.0], abs=1e-6)


def test_the_road_has_the_spectrum_of_class_c(plant):
    """At ten times its corner the filter's spectrum is that of ISO 8608 to 1%.

    One-sided spectrum of an Ornstein-Uhlenbeck process over time: 4 s^2 T / (1 + (2 pi f T)^2).
    """
    for road in plant.disturbances:
        frequency = 0.11 * 20.0  # Hz: 0.11 cycles/m at 20 m/s
        phase = 2.0 * np.pi * frequency * road.correlation_time
        spectrum = 4.0 * road.std**2 * road.correlation_time / (1.0 + phase**2)
        wanted = 256e-6 * (0.11 / 0.1) ** -2 / 20.0  # m^3 / (m/s) = m^2/Hz
        assert spectrum == pytest.approx(wanted, rel=0.011)
        assert road.high > 4.0 * road.std and road.unit == "m"


def test_starts_are_inside_the_observation_ranges(plant, task):
    low = np.array([c.low for c in task.observations])
    high = np.array([c.high for c in task.observations])
    keys = jax.random.split(jax.random.key(0), 500)
    for draw in (task.reset, task.excitation):
        starts = jax.vmap(draw, (0, None))(keys, jnp.asarray(plant.nominal, jnp.float32))
        seen = np.asarray(jax.vmap(task.observe)(starts))
        assert (seen >= low).all() and (seen <= high).all()
        assert not np.asarray(jax.vmap(task.terminated)(starts)).any()


def test_reward_is_largest_at_rest(plant, task):
    rest = at(plant)
    best = float(task.reward(rest, jnp.zeros(2), rest))
    assert best == pytest.approx(0.0, abs=1e-6)
    for other in (
        at(plant, (0.02, 0, 0, 0)),
        at(plant, (0, 0.02, 0, 0)),
        at(plant, (0, 0, 0.01, 0)),
    ):
        assert float(task.reward(other, jnp.zeros(2), other)) < best - 0.001
    jerked = at(plant, qvel=(0.01, 0, 0, 0))  # 1 m/s^2 over a control period
    assert float(task.reward(rest, jnp.zeros(2), jerked)) < best - 0.1
    assert float(task.reward(rest, jnp.ones(2), rest)) < best


def test_requirements_hold_at_rest_and_fail_where_they_should(plant, task):
    def failed(qpos, qvel):
        states = moving(plant, qpos, qvel)
        return {r.name for r in task.requirements if not bool(r.measure(states) <= r.limit)}

    time, nothing = 0.01 * np.arange(501), np.zeros((501, 4))

    def shaken(coordinate, amplitude, frequency):
        """Velocities of a sinusoid whose acceleration has this amplitude."""
        w = 2.0 * np.pi * frequency
        qvel = np.zeros((501, 4))
        qvel[:, coordinate] = amplitude / w * np.sin(w * time)
        return qvel

    far = nothing + np.array([0.12, 0.0, 0.0, 0.0])
    assert failed(nothing, nothing) == set()
    assert failed(far, nothing) == {"travel"}
    assert failed(nothing, shaken(0, 1.2, 1.0)) == {"heave_acceleration"}
    assert failed(nothing, shaken(0, 0.7, 1.0)) == set()
    assert failed(nothing, shaken(1, 1.2, 1.0)) == {"pitch_acceleration"}
    assert failed(nothing, shaken(2, 60.0, 5.0)) == {"load_variation"}


def test_tyre_loads_follow_from_newtons_law(plant, module, task):
    """The measure's loads, of velocities alone, are those of the tyre's spring and road height."""
    simulation, period, steps = TruePlant(plant, 1), plant.control_period, 500
    state = jax.tree.map(lambda x: np.asarray(x, float)[None], at(plant))
    states, forces = [state], []
    for k in range(steps):
        road = 0.01 * np.sin(2.0 * np.pi * 1.5 * k * period) * np.array([[1.0, -0.5]])
        state = simulation.step(state, np.array([[0.2, -0.1]]), road)
        middle = 0.5 * (states[-1].qpos[:, 2:] + state.qpos[:, 2:])
        forces.append(module.TYRE * (road - middle)[0] / module.AXLE_LOADS)
        states.append(state)
    episode = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v[0]) for v in x]), *states)
    measure = {o.name: o.measure for o in task.objectives}["load_variation"]
    expected = np.sqrt(np.mean(np.square(forces[-400:]), axis=0)).max()
    assert float(measure(episode)) == pytest.approx(expected, rel=0.02)


def test_random_actions_and_designs_do_not_diverge(plant, task):
    rng = np.random.default_rng(0)
    low = np.array([v.low for v in plant.design])
    high = np.array([v.high for v in plant.design])
    designs = np.tile(low + (high - low) * rng.uniform(size=(8, 5)), (8, 1))
    keys = jax.random.split(jax.random.key(1), 64)
    starts = jax.vmap(task.excitation)(keys, jnp.asarray(designs, jnp.float32))
    simulations, state = TruePlant(plant, 64, designs), jax.tree.map(np.asarray, starts)
    for k in range(300):
        if k % 10 == 0:
            action = rng.uniform(-1.0, 1.0, size=(64, 2))
        state = simulations.step(state, action, 0.02 * rng.standard_normal((64, 2)))
    assert simulations.valid.all()
    assert np.abs(state.qpos).max() < 1.0
