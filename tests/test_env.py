"""Gymnasium environments: the interface, and the physics behind it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import RecordEpisodeStatistics, RescaleAction
from sledges import sledge

from physai.env.model import Model, batch_task
from physai.env.single import PlantEnv
from physai.errors import InputError
from physai.plant import Plant, load_plant
from physai.rollout.engine import TruePlant
from physai.rollout.symmetry import Symmetry
from physai.state import Array, State, plus, rotate
from physai.surrogate.domain import Domain
from physai.surrogate.features import input_channels, layout_of
from physai.surrogate.model import Calibration, Normaliser, Surrogate
from physai.surrogate.network import Architecture, init_ensemble
from physai.surrogate.store import save_surrogate
from physai.task import design_aware, load_task

ID = "physai.gym:Quadrotor-v0"
STEPS = 250  # 5 s at 50 Hz
PLANT = load_plant("quadrotor")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PointMass:
    """A learned model's stand-in: the quadrotor without air, whose attitude follows its rates."""

    mass: jax.Array
    gravity: jax.Array

    def step(self, state: State, action: Array, disturbance: Array) -> State:
        h = 0.02
        lag = jnp.exp(-h / 0.05)
        act = action + (state.act - action) * lag
        up = rotate(state.qpos[..., 3:7], jnp.array([0.0, 0.0, 13.0]))
        force = up * act.sum(-1)[..., None] + disturbance
        acceleration = force / self.mass + jnp.array([0.0, 0.0, -1.0]) * self.gravity
        velocity = state.qvel.at[..., :3].add(h * acceleration)
        qpos = plus(PLANT.joints, state.qpos, h * velocity)
        return state.replace(qpos=qpos, qvel=velocity, act=act, time=state.time + h)


def point_mass(gravity: float = 9.81) -> PointMass:
    return PointMass(jnp.float32(1.325), jnp.float32(gravity))


def untrained_surrogate(plant: Plant) -> Surrogate:
    """A real Surrogate with random weights and small steps; its predictions do not matter here."""
    layout = layout_of(plant, Symmetry("xyz", heading=True))
    ni, nt = len(input_channels(layout, plant)), layout.nt
    architecture = Architecture(inputs=ni, outputs=nt, width=8, depth=1)
    return Surrogate(
        init_ensemble(architecture, 2, jax.random.key(0)),
        Normaliser(
            jnp.zeros(ni), jnp.ones(ni), jnp.zeros(nt), jnp.full(nt, 1e-3), jnp.full(nt, 12.0)
        ),
        Calibration(jnp.zeros((5, nt)), jnp.zeros((5, nt))),
        Domain(-jnp.ones(ni), jnp.ones(ni), jnp.zeros(ni), jnp.eye(ni), jnp.float32(1.0)),
        layout,
        architecture,
    )


@pytest.fixture(scope="module")
def surrogate_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("surrogate")
    save_surrogate(folder, untrained_surrogate(PLANT), PLANT, {})
    return folder


@pytest.fixture(params=["true", "learned", "surrogate folder"])
def surrogate(request: pytest.FixtureRequest, surrogate_folder: Path) -> Model | str | None:
    choices = {"true": None, "learned": point_mass(), "surrogate folder": str(surrogate_folder)}
    return choices[request.param]


def at_rest(height: float = 0.0, **changes) -> State:
    state = State(
        qpos=np.array([0.0, 0.0, height, 1.0, 0.0, 0.0, 0.0]),
        qvel=np.zeros(6),
        act=np.array(PLANT.trim),
        time=np.array(0.0),
        command=np.zeros(4),
        design=PLANT.nominal,
    )
    return state.replace(**changes)


def turned(quaternion) -> State:
    return at_rest(qpos=np.array([0.0, 0.0, 0.0, *quaternion]))


def fly(env: gymnasium.Env, seed: int, steps: int = 20) -> tuple[np.ndarray, list[float]]:
    observation, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    observations, rewards = [observation], []
    for _ in range(steps):
        observation, reward, *_ = env.step(env.action_space.sample())
        observations.append(observation)
        rewards.append(float(reward))
    return np.array(observations), rewards


@pytest.mark.parametrize("sensor_noise", [False, True])
def test_check_env_is_clean(surrogate, sensor_noise) -> None:
    env = gymnasium.make(
        ID, surrogate=surrogate, sensor_noise=sensor_noise, render_mode="rgb_array"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    env.close()


def test_spaces_are_the_ranges_of_task_and_plant() -> None:
    env = PlantEnv(PLANT)
    task = load_task(PLANT)
    np.testing.assert_array_equal(
        env.observation_space.high, np.float32([c.high for c in task.observations])
    )
    np.testing.assert_array_equal(env.action_space.low, np.zeros(4, np.float32))
    assert env.observation_space.dtype == env.action_space.dtype == np.float32
    assert env.metadata["render_fps"] == 50


def test_one_seed_is_one_trajectory(surrogate) -> None:
    first, second = (gymnasium.make(ID, surrogate=surrogate, sensor_noise=True) for _ in range(2))
    observations, rewards = fly(first, seed=3)
    fly(first, seed=5)  # what came before must not matter
    for env in (first, second):
        again, same_rewards = fly(env, seed=3)
        np.testing.assert_array_equal(again, observations)
        assert same_rewards == rewards
    assert not np.allclose(fly(first, seed=4)[0][0], observations[0])
    following = first.reset()[0]
    assert not np.allclose(following, fly(first, seed=4)[0][0])


def test_disturbances_and_noise_leave_the_start_alone() -> None:
    settings = [(False, False), (True, False), (False, True)]
    envs = [PlantEnv(PLANT, disturbances=d, sensor_noise=n) for d, n in settings]
    flights = [fly(env, seed=0) for env in envs]
    starts = [env.reset(seed=0)[1]["state"] for env in envs]
    for start in starts[1:]:
        np.testing.assert_array_equal(start["qpos"], starts[0]["qpos"])
    np.testing.assert_array_equal(flights[0][0][0], flights[1][0][0])
    assert not np.allclose(flights[0][0][-1], flights[1][0][-1], atol=1e-4)
    # Noise is on the observation only: the reward, which sees the state, is the same to the bit.
    assert flights[0][1] == flights[2][1]
    difference = flights[2][0] - flights[0][0]
    std = envs[2].task.observation_noise
    inside = np.abs(flights[0][0]) < envs[0].observation_space.high - 6 * std
    scaled = (difference / std)[inside]
    # About 300 standard normal draws: their standard deviation is within 5 / sqrt(2 n) of 1.
    assert abs(scaled.std() - 1.0) < 5.0 / np.sqrt(2 * scaled.size)


def test_true_env_is_a_bare_mujoco_loop() -> None:
    design = [0.2, 0.4, 15.0, 0.06]
    env = PlantEnv("quadrotor", disturbances=False)
    _, info = env.reset(seed=1, options={"design": design})
    model = PLANT.compile(design)
    data = mujoco.MjData(model)
    for name in ("qpos", "qvel", "act"):
        getattr(data, name)[:] = info["state"][name]
    np.testing.assert_array_equal(info["state"]["design"], design)
    rng = np.random.default_rng(0)
    before = State(**info["state"])
    for _ in range(30):
        action = rng.uniform(0.0, 1.0, 4).astype(np.float32)
        observation, reward, _, _, info = env.step(action)
        data.ctrl[list(PLANT.action_ids)] = action
        mujoco.mj_step(model, data, nstep=5)
        after = State(**{**info["state"], "qpos": data.qpos.copy(), "qvel": data.qvel.copy()})
        np.testing.assert_array_equal(info["state"]["qpos"], data.qpos)
        # float32 against float32 in another order of operations: a few units in the last place
        space = env.observation_space
        expected = np.clip(env.task.observe(after), space.low, space.high)
        np.testing.assert_allclose(observation, expected, rtol=1e-5, atol=1e-5)
        assert reward == pytest.approx(float(env.task.reward(before, action, after)), rel=1e-5)
        before = State(**info["state"])
    assert info["state"]["time"] == pytest.approx(0.6)


def test_learned_env_is_a_loop_over_its_model() -> None:
    model = point_mass()
    env = PlantEnv(PLANT, model, disturbances=False)
    _, info = env.reset(seed=1)
    state = jax.tree.map(jnp.float32, State(**info["state"]))
    for _ in range(30):
        state = model.step(state, jnp.full(4, 0.3), jnp.zeros(3))
        info = env.step(np.full(4, 0.3, np.float32))[4]
    np.testing.assert_allclose(info["state"]["qpos"], state.qpos, rtol=1e-4, atol=1e-5)
    assert "domain_score" not in info


def test_hover_keeps_its_altitude_and_no_thrust_falls(surrogate) -> None:
    if isinstance(surrogate, str):
        surrogate = point_mass(gravity=1.62)  # on the Moon the same throttle climbs
    env = PlantEnv(PLANT, surrogate, disturbances=False)
    env.reset(options={"state": at_rest()})
    for _ in range(50):
        info = env.step(PLANT.trim)[4]
    # The trim is exact to 4e-6: 0.02 mm in a second. On the Moon 9.81 - 1.62 m/s^2 are left.
    lunar = surrogate is not None and float(surrogate.gravity) < 5.0
    climb = 0.5 * 8.19 if lunar else 0.0
    assert info["state"]["qpos"][2] == pytest.approx(climb, rel=0.03, abs=1e-3)
    env.reset(options={"state": at_rest(act=np.zeros(4))})
    for _ in range(20):
        info = env.step(np.zeros(4))[4]
    # 0.4 s of free fall; drag and the step's first-order error take less than 6%.
    gravity = 1.62 if lunar else 9.81
    assert info["state"]["qpos"][2] == pytest.approx(-0.5 * gravity * 0.4**2, rel=0.06)


def test_actions_beyond_their_range_saturate(surrogate) -> None:
    env = PlantEnv(PLANT, surrogate, disturbances=False)
    outcomes = []
    for action in (np.full(4, 1.0), np.full(4, 7.0)):
        env.reset(options={"state": at_rest()})
        observation, reward, *_ = env.step(action)
        outcomes.append((observation, reward))
    np.testing.assert_array_equal(outcomes[0][0], outcomes[1][0])
    assert outcomes[0][1] == outcomes[1][1]


@pytest.mark.parametrize(
    ("action", "text"),
    [
        ([0.2, np.nan, 0.2, 0.2], r"action rotor_2: expected 0 to 1 1, got nan"),
        ([0.2, 0.2, 0.2, -np.inf], r"action rotor_4: .*got -inf"),
        ([0.2, 0.2], r"expected shape \(4,\) \(rotor_1, .*got \(2,\)"),
        ([[0.2] * 4], r"expected shape \(4,\).*got \(1, 4\)"),
        (None, r"expected shape \(4,\)|expected 4 numbers"),
        ("up", r"expected 4 numbers, got 'up'"),
    ],
)
def test_bad_actions_are_refused(surrogate, action, text) -> None:
    env = PlantEnv(PLANT, surrogate)
    env.reset(seed=0)
    with pytest.raises(InputError, match=text):
        env.step(action)


def test_step_before_reset_is_refused() -> None:
    with pytest.raises(gymnasium.error.ResetNeeded):
        PlantEnv(PLANT).step(PLANT.trim)


def test_a_task_of_another_plant_is_refused(tmp_path) -> None:
    task = load_task(load_plant("cartpole"))
    with pytest.raises(InputError, match=r"^task: not one of plant quadrotor: .*qpos of shape"):
        PlantEnv(PLANT, task=task)
    with pytest.raises(InputError, match=r"^task: not one of plant pendulum: "):
        PlantEnv(pendulum(tmp_path)[0], task=load_task(PLANT))


def test_unknown_and_foreign_surrogates_are_refused(surrogate_folder, tmp_path) -> None:
    with pytest.raises(InputError, match=r"no folder 'nowhere'.*physai fit"):
        PlantEnv(PLANT, "nowhere")
    with pytest.raises(InputError, match=r"expected a surrogate folder"):
        PlantEnv(PLANT, tmp_path)
    other = replace(PLANT, sha256="0" * 64, name="other")
    with pytest.raises(InputError, match=r"fitted to plant quadrotor .*not to other"):
        PlantEnv(other, surrogate_folder, task=load_task(PLANT))
    with pytest.raises(InputError, match=r"not a model of plant pendulum \(nq 1, .*its step fails"):
        PlantEnv(*pendulum(tmp_path), surrogate=untrained_surrogate(PLANT))
    with pytest.raises(InputError, match=r"not a model of plant quadrotor"):
        PlantEnv(PLANT, TruePlant(PLANT, 1))  # no pytree: pure JAX only


def pendulum(folder: Path) -> list[Plant]:
    """Another machine: one hinge, one motor, no design variables."""
    folder = folder / "pendulum"
    folder.mkdir()
    (folder / "plant.xml").write_text(
        """<mujoco><option timestep="0.01"/><worldbody><body><joint name="pivot" type="hinge"
        axis="0 1 0"/><geom type="capsule" fromto="0 0 0 0 0 -1" size="0.02" mass="1"/></body>
        </worldbody><actuator><motor name="motor" joint="pivot" ctrlrange="-1 1"/>
        </actuator></mujoco>"""
    )
    (folder / "task.py").write_text(
        """
import jax.numpy as jnp
from physai.state import State
from physai.task import ObservationChannel, Task

TASK = Task(
    commands=(),
    observations=(ObservationChannel("angle", "rad", -0.5, 0.5, 0.0),),
    duration=0.1,
    reset=lambda key, design: State(
        jnp.ones(1), jnp.zeros(1), jnp.zeros(0), jnp.zeros(()), jnp.zeros(0), design
    ),
    observe=lambda state: state.qpos,
    reward=lambda state, action, after: -after.qpos[0] ** 2,
    terminated=lambda state: jnp.zeros((), bool),
    requirements=(),
)
"""
    )
    return [load_plant(folder)]


def test_a_users_folder_and_observations_beyond_their_range(tmp_path) -> None:
    env = PlantEnv(*pendulum(tmp_path))
    observation, info = env.reset(seed=0)
    assert info["state"]["qpos"] == [1.0]
    np.testing.assert_array_equal(observation, np.float32([0.5]))  # the sensor saturates
    truncated = [env.step(np.zeros(1))[3] for _ in range(5)]
    assert truncated == [False] * 4 + [True]  # 0.1 s at the default 0.02 s


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"wind": 3}, r"expected 'design' or 'state', got 'wind'"),
        ({"design": [0.2, 0.0]}, r"expected 4 values"),
        ({"design": [9.0, 0.0, 13.0, 0.05]}, r"arm_length: expected 0.16 to 0.34 m"),
        ({"state": {}}, r"expected a State, got dict"),
        ({"state": at_rest(qpos=np.zeros(3))}, r"expected qpos of shape \(7,\), got \(3,\)"),
        ({"state": at_rest(qvel=np.full(6, np.nan))}, r"expected finite numbers, got qvel"),
        ({"state": at_rest(), "design": PLANT.nominal}, r"a state brings its own design"),
        ({"state": turned([0.0, 0.0, 0.0, 0.0])}, r"joint root: .*unit quaternion .*length 0;"),
        ({"state": turned([2.0, 0.0, 0.0, 0.0])}, r"qpos\[3:7\], got \[2.0, .*length 2;"),
        ({"state": turned([0.998, 0.0, 0.0, 0.0])}, r"unit quaternion"),
        ({"state": at_rest(act="full")}, r"expected numbers in act, got 'full'"),
        ({"design": "abc"}, r"expected 4 values \(arm_length, .*got 'abc'"),
        ({"design": {"mass": 1.0}}, r"expected 4 values \(arm_length, .*got {'mass': 1.0}"),
        ({"design": [PLANT.nominal]}, r"expected shape \(4,\), got \(1, 4\)"),
        ("nominal", r"expected a dict, got 'nominal'"),
    ],
)
def test_bad_reset_options_are_refused(options, text) -> None:
    with pytest.raises(InputError, match=text):
        PlantEnv(PLANT).reset(options=options)


@pytest.mark.parametrize(
    "option",
    [
        {"plant": 3},
        {"task": 3},
        {"task": 0},
        {"surrogate": 3},
        {"duration": 0.0},
        {"duration": np.nan},
        {"duration": "x"},
        {"duration": True},
        {"render_mode": "ansi"},
        {"width": -5},
        {"height": 0},
        {"width": 1.5},
    ],
)
def test_bad_constructor_options_are_refused(option) -> None:
    with pytest.raises(InputError, match=f"^{next(iter(option))}: "):
        PlantEnv(**{"plant": PLANT, **option})


def test_a_state_whose_quaternion_is_nearly_unit_is_that_of_the_unit_one(surrogate) -> None:
    """What was typed with three digits is normalised; what is unit to rounding is not touched."""
    env = PlantEnv(PLANT, surrogate, disturbances=False)
    exact = np.array([np.cos(0.4), np.sin(0.4), 0.0, 0.0])
    expected = env.reset(options={"state": turned(exact)})[0], *env.step(PLANT.trim)[:2]
    observation, info = env.reset(options={"state": turned(1.0009 * exact)})
    assert np.linalg.norm(info["state"]["qpos"][3:7]) == pytest.approx(1.0, abs=1e-15)
    for ours, theirs in zip((observation, *env.step(PLANT.trim)[:2]), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    single = np.float32(exact).astype(float)
    kept = env.reset(options={"state": turned(single)})[1]["state"]["qpos"][3:7]
    np.testing.assert_array_equal(kept, single)


def test_a_design_that_cannot_be_built_is_refused_again(tmp_path) -> None:
    """And not flown with the machine before."""
    folder = sledge(tmp_path / "sledge").folder
    code = (folder / "plant.py").read_text()
    check = '    assert design["mass"] < 1.5, "too heavy"\n'
    (folder / "plant.py").write_text(code.replace("    spec.geom", check + "    spec.geom"))
    env = PlantEnv(folder)
    env.reset(seed=0)
    for _ in range(2):
        with pytest.raises(InputError, match="too heavy"):
            env.reset(options={"design": [1.8]})


def test_an_infos_state_is_a_start(surrogate) -> None:
    env = PlantEnv(PLANT, surrogate, disturbances=False)
    bounds = [0.34, 0.6, 18.0, 0.1]  # which float32 rounds
    env.reset(seed=0, options={"design": bounds})
    for _ in range(5):
        info = env.step(PLANT.trim)[4]
    onward = [env.step(PLANT.trim)[0] for _ in range(5)]
    env.reset(options={"state": State(**info["state"])})
    again = [env.step(PLANT.trim)[0] for _ in range(5)]
    np.testing.assert_array_equal(again, onward)


def test_lost_is_terminated_and_valid(surrogate) -> None:
    env = PlantEnv(PLANT, surrogate)
    env.reset(options={"state": at_rest(height=7.9, qvel=np.array([0, 0, 10.0, 0, 0, 0]))})
    *_, terminated, truncated, info = env.step(PLANT.trim)  # 8.1 m from the command; 8 m is lost
    assert terminated and not truncated and info["valid"]


def test_diverged_is_terminated_and_not_valid() -> None:
    fast = at_rest(qvel=np.full(6, 1e7))
    for surrogate, start in ((None, fast), (point_mass(), fast), (point_mass(np.nan), at_rest())):
        env = PlantEnv(PLANT, surrogate)
        env.reset(options={"state": start})
        observation, reward, terminated, _, info = env.step(PLANT.trim)
        assert terminated and not info["valid"]
        assert observation in env.observation_space and np.isfinite(reward)
        np.testing.assert_array_equal(info["state"]["qpos"], at_rest().qpos)
        assert env.reset(seed=0)[1]["valid"]


def test_duration_truncates_and_wrappers_work(surrogate) -> None:
    env = RescaleAction(
        RecordEpisodeStatistics(gymnasium.make(ID, surrogate=surrogate, disturbances=False)),
        np.float32(-1.0),
        np.float32(1.0),
    )
    env.reset(options={"state": at_rest()})
    total = 0.0
    for k in range(1, STEPS + 1):
        action = (2.0 * PLANT.trim - 1.0).astype(np.float32)
        _, reward, terminated, truncated, info = env.step(action)
        total += float(reward)
        assert not terminated and truncated == (k == STEPS)
    assert info["episode"]["l"] == STEPS
    assert info["episode"]["r"] == pytest.approx(total, rel=1e-5)


def test_the_limit_can_be_moved() -> None:
    short = gymnasium.make(ID, max_episode_steps=3)
    short.reset(seed=0)
    assert [short.step(PLANT.trim.astype(np.float32))[3] for _ in range(3)] == [False, False, True]
    endless = PlantEnv(PLANT, duration=float("inf"))
    endless.reset(options={"state": at_rest()})
    assert not any(endless.step(PLANT.trim)[3] for _ in range(STEPS + 10))


def test_sync_vector_env_stacks_it() -> None:
    envs = gymnasium.make_vec(ID, num_envs=2, vectorization_mode="sync")
    observation, info = envs.reset(seed=0)
    single, _ = gymnasium.make(ID).reset(seed=1)
    np.testing.assert_array_equal(observation[1], single)
    assert info["state"]["qpos"].shape == (2, 7)
    envs.close()


def test_domain_score_is_that_of_the_surrogate() -> None:
    surrogate = untrained_surrogate(PLANT)
    env = PlantEnv(PLANT, surrogate, disturbances=False)
    _, start = env.reset(seed=0)
    info = env.step(PLANT.trim)[4]
    x = surrogate.raw_inputs(jax.tree.map(jnp.float32, State(**start["state"])), PLANT.trim)
    assert info["domain_score"] == pytest.approx(float(surrogate.domain.score(x)), rel=1e-5)
    assert start["valid"] and "domain_score" not in start


def test_another_task_of_the_same_plant() -> None:
    env = PlantEnv(PLANT, task=design_aware(PlantEnv(PLANT).task, PLANT))
    observation, _ = env.reset(seed=0, options={"design": [0.34, 0.0, 13.0, 0.03]})
    assert observation.shape == (23,)
    np.testing.assert_allclose(observation[-4:], [1.0, -1.0, -1 / 9, -1.0], atol=1e-6)


def test_nothing_compiles_after_the_first_step(surrogate, caplog) -> None:
    def use(env: PlantEnv) -> None:
        env.reset(seed=0)
        env.step(PLANT.trim)
        env.reset(options={"design": [0.3, 0.1, 12.0, 0.04]})
        for action in (PLANT.trim, PLANT.trim.astype(np.float32), list(PLANT.trim)):
            env.step(action)
        env.reset(options={"state": at_rest()})
        env.step(PLANT.trim)

    env = PlantEnv("quadrotor", surrogate)
    env.reset(seed=0)
    env.step(PLANT.trim)
    with jax.log_compiles(), caplog.at_level(logging.DEBUG, logger="jax"):
        use(env)
        if not isinstance(surrogate, str):  # loading a folder is not free, stepping it is
            use(PlantEnv("quadrotor", surrogate))
        compiled = [m for m in caplog.messages if "ompil" in m]
        assert compiled == []
        jax.jit(lambda x: x + 1.5)(1.0)
        assert any("ompil" in m for m in caplog.messages)  # a compilation would be seen
    assert batch_task(env.task) is batch_task(PlantEnv("quadrotor").task)


def test_images_show_the_machine_move(surrogate) -> None:
    env = PlantEnv(PLANT, surrogate, render_mode="rgb_array", width=160, height=120)
    tilted = np.array([0.0, 0.0, 0.0, np.cos(0.4), np.sin(0.4), 0.0, 0.0])
    images = []
    longer = np.array([0.34, 0.0, 13.0, 0.05])
    for state in (at_rest(), at_rest(), at_rest(qpos=tilted), at_rest(design=longer)):
        env.reset(options={"state": state})
        image = env.render()
        assert image is not None and image.shape == (120, 160, 3) and image.dtype == np.uint8
        images.append(image.astype(int))
    changed = [np.abs(image - images[0]).max(axis=2) > 30 for image in images[1:]]
    assert changed[0].sum() == 0  # the same configuration, the same image
    assert 100 < changed[1].sum() < 0.5 * changed[1].size  # the machine, not the whole picture
    assert changed[2].any()  # longer arms
    env.reset(options={"state": at_rest(qvel=np.array([0.0, 0.0, 0.0, 3.0, 0.0, 0.0]))})
    for _ in range(10):
        env.step(PLANT.trim)  # rolls by 0.6 rad
    assert (np.abs(env.render() - images[0]).max(axis=2) > 30).any()  # type: ignore[operator]
    env.close()
    env.close()


def test_importing_the_ids_compiles_nothing() -> None:
    code = """
import os, mujoco
environment = dict(os.environ)
mujoco.MjSpec.from_file = None
import physai.gym, gymnasium, jax
from jax._src import xla_bridge
assert gymnasium.spec("Quadrotor-v0").kwargs == {"plant": "quadrotor"}
assert not xla_bridge.backends_are_initialized(), "a jax array was made"
assert dict(os.environ) == environment
assert physai.gym.env_id("flexible_wing") == "FlexibleWing-v0"
"""
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    subprocess.run(command, check=True, env=os.environ)
