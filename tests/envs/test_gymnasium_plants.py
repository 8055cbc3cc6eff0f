"""Gymnasium's five: equal to its own environments, designs, starts, what learned dynamics lack."""

from __future__ import annotations

from types import SimpleNamespace

import gymnasium
import jax
import mujoco
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from physai.env import peer
from physai.env.peer import peer_checks
from physai.env.single import PlantEnv
from physai.env.vector import PlantVectorEnv
from physai.errors import InputError
from physai.plant import load_plant
from physai.task import load_task

PEERS = {
    "hopper": ("Hopper-v5", 11),
    "walker2d": ("Walker2d-v5", 17),
    "halfcheetah": ("HalfCheetah-v5", 17),
    "ant": ("Ant-v5", 105),
    "humanoid": ("Humanoid-v5", 348),
}
READ = {"ant": 27, "humanoid": 45}
"""Observations that remain without the simulator's readout."""


@pytest.mark.parametrize("name", PEERS)
def test_it_equals_gymnasiums_environment_for_a_thousand_random_steps(name: str) -> None:
    checks = peer_checks(PEERS[name][0], load_plant(name), steps=1000, seed=1)
    assert [c for c in checks if not c.passed] == []
    assert checks[0].simulated < 1e-7 and checks[2].simulated == 0.0


def test_a_difference_from_gymnasium_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against an environment whose control costs differ, only the reward fails."""

    def dear(env_id: str) -> object:
        return gymnasium.make(env_id, max_episode_steps=-1, ctrl_cost_weight=0.002).unwrapped

    monkeypatch.setattr(peer, "_peer", dear)
    checks = peer_checks("Hopper-v5", load_plant("hopper"), steps=50)
    assert [c.passed for c in checks] == [True, False, True]
    assert 1e-4 < checks[1].simulated < 3e-3


@pytest.mark.parametrize("name", PEERS)
def test_time_limits_and_sizes_are_those_that_gymnasium_registers(name: str) -> None:
    plant = load_plant(name)
    task, spec = load_task(plant), gymnasium.spec(PEERS[name][0])
    assert round(task.duration / plant.control_period) == spec.max_episode_steps
    env = PlantEnv(plant)
    assert env.observation_space.shape == (PEERS[name][1],)
    env.close()


@pytest.mark.parametrize("name", READ)
def test_learned_dynamics_and_readout_false_leave_out_what_is_no_function_of_the_state(
    name,
) -> None:
    full, reduced = PlantEnv(name), PlantEnv(name, readout=False)
    seen, _ = full.reset(seed=3)
    less, _ = reduced.reset(seed=3)
    action = np.full(full.action_space.shape, 0.1, np.float32)
    for _ in range(3):
        np.testing.assert_array_equal(seen[: READ[name]], less)
        seen, reward, *_ = full.step(action)
        less, cheaper, *_ = reduced.step(action)
    assert less.shape == (READ[name],) and abs(reward - cheaper) > 1e-9


@pytest.mark.parametrize("name", READ)
def test_the_vector_environment_reads_out_the_same(name: str) -> None:
    """Also over autoresets: episodes of ten control periods."""
    duration = 10 * load_plant(name).control_period
    many = PlantVectorEnv(name, 3, duration=duration)
    single = SyncVectorEnv([lambda: PlantEnv(name, duration=duration)] * 3)
    ours, theirs = many.reset(seed=5)[0], single.reset(seed=5)[0]
    rng = np.random.default_rng(0)
    for _ in range(25):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
        action = rng.uniform(-0.4, 0.4, many.action_space.shape).astype(np.float32)
        ours, paid, *_ = many.step(action)
        theirs, expected, *_ = single.step(action)
        np.testing.assert_allclose(paid, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("end", ["low", "high"])
def test_a_design_starts_above_the_ground_and_stays_sound(name: str, end: str) -> None:
    plant = load_plant(name)
    design = np.array([getattr(v, end) for v in plant.design])
    task = load_task(plant)
    model = plant.compile(design)
    data = mujoco.MjData(model)
    start = jax.jit(task.reset)(jax.random.key(0), design)
    data.qpos[:] = np.asarray(start.qpos)
    mujoco.mj_forward(model, data)
    noise = 0.1 if name == "halfcheetah" else 0.02  # of Gymnasium's own start
    assert min([0.0, *data.contact.dist]) > -noise
    env = PlantEnv(plant)
    env.reset(seed=0, options={"design": design})
    for _ in range(20):
        *_, info = env.step(env.action_space.sample())
        assert info["valid"]


@pytest.mark.parametrize(
    ("name", "variable", "value", "mass"),
    [
        # A capsule of radius r and length L weighs 1000 pi r^2 (L + 4 r / 3).
        ("hopper", "thigh_length", 0.54, 1000 * np.pi * 0.05**2 * 0.09),
        ("hopper", "leg_length", 0.4, -1000 * np.pi * 0.04**2 * 0.1),
        ("walker2d", "thigh_length", 0.54, 2 * 1000 * np.pi * 0.05**2 * 0.09),
        ("walker2d", "torso_mass", 5.0, 5.0 - 3.6651914291880923),
        ("halfcheetah", "mass", 20.0, 6.0),
        ("ant", "shin_length", 0.65, 4 * 5 * np.pi * 0.08**2 * (0.65 - 0.4 * 2**0.5)),
        ("humanoid", "shin_length", 0.36, 2 * 1000 * np.pi * 0.049**2 * 0.06),
        ("humanoid", "head_mass", 4.0, 4.0 - 1000 * 4 / 3 * np.pi * 0.09**3),
    ],
)
def test_a_design_variable_moves_the_mass_that_geometry_says(name, variable, value, mass) -> None:
    plant = load_plant(name)
    design = plant.nominal
    design[[v.name for v in plant.design].index(variable)] = value
    moved = plant.compile(design).body_mass.sum() - plant.model.body_mass.sum()
    assert moved == pytest.approx(mass, rel=1e-6)


@pytest.mark.parametrize("name", PEERS)
def test_a_flight_at_the_wanted_speed_meets_the_requirements_and_one_at_rest_does_not(name) -> None:
    plant = load_plant(name)
    task = load_task(plant)
    start = jax.jit(task.reset)(jax.random.key(0), plant.nominal)
    n = 101

    def flight(speed: float) -> SimpleNamespace:
        time = np.linspace(0.0, 2.0, n)
        qpos = np.tile(start.qpos, (n, 1))
        qpos[:, 0] += speed * time
        rest = jax.tree.map(lambda x: np.tile(x, (n, *[1] * np.ndim(x))), start)
        return rest.replace(qpos=qpos, time=time)

    for speed, met in ((5.0, True), (0.0, False)):
        values = [float(r.measure(flight(speed))) <= r.limit for r in task.requirements]
        assert all(values) == met


def test_another_version_of_the_model_is_refused(tmp_path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for file in ("plant.py", "task.py"):
        text = (load_plant("hopper").folder / file).read_text()
        (folder / file).write_text(text.replace("3ce93a05", "00000000"))
    with pytest.raises(
        InputError, match=r"MODEL .*hopper\.xml: expected the file of MODEL_SHA256 0"
    ):
        load_plant(folder)
