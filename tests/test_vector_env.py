"""The vector environment: episode by episode the single one, and Gymnasium's rules between them."""

from __future__ import annotations

import logging

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from sledges import Slider, sledge, slider
from surrogates import untrained_surrogate

from physai.env.single import PlantEnv
from physai.env.vector import PlantVectorEnv
from physai.errors import InputError
from physai.plant import Plant, load_plant
from physai.rollout.engine import TruePlant
from physai.state import State
from physai.task import load_task

N = 5
MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP]


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    return sledge(tmp_path_factory.mktemp("plants") / "sledge")


@pytest.fixture(params=["true", "learned"])
def surrogate(request: pytest.FixtureRequest) -> Slider | None:
    return slider() if request.param == "learned" else None


def start(plant: Plant, x: float, speed: float = 0.0, mass: float = 1.0) -> State:
    qpos, qvel = np.array([x, 0.0, 0.0]), np.array([speed, 0.0, 0.0])
    return State(qpos, qvel, np.zeros(1), np.array(0.0), np.zeros(1), np.array([mass]))


def stacked(*states: State) -> State:
    return jax.tree.map(lambda *x: np.stack(x), *states)


def agree(ours, theirs, path: str = "", exact: bool = True) -> None:
    """Compare in structure, type and value; what JAX computed for a batch, to rounding."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), path
        for key in theirs:
            agree(ours[key], theirs[key], f"{path}/{key}", exact)
    elif theirs.dtype == object:
        for one, other in zip(ours, theirs, strict=True):
            assert (one is None) == (other is None), path
            if one is not None:
                agree(one, other, path, False)
    else:
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, path
        tolerance = 0.0 if exact else 1e-5
        np.testing.assert_allclose(ours, theirs, tolerance, tolerance, err_msg=path)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sensor_noise", [False, True])
def test_it_is_gymnasiums_vector_of_single_environments(
    plant, surrogate, mode, sensor_noise
) -> None:
    """Over several episodes, some lost and some truncated; disturbances outlast their block."""
    options = {"sensor_noise": sensor_noise, "duration": 0.9}
    ours = PlantVectorEnv(plant, N, surrogate, autoreset_mode=mode, **options)
    single = lambda: PlantEnv(plant, surrogate, **options)
    theirs = SyncVectorEnv([single] * N, autoreset_mode=mode)
    theirs.action_space.seed(0)
    exact, ends = surrogate is None, np.zeros(2, int)
    for (observation, info), (expected, expected_info) in [
        (ours.reset(seed=3), theirs.reset(seed=3)),
        (ours.reset(seed=[9, 3, None, 5, 1]), theirs.reset(seed=[9, 3, None, 5, 1])),
        (ours.reset(), theirs.reset()),
    ]:
        agree(observation, expected, exact=False)
        agree(info, expected_info, exact=exact)
    for _ in range(120):
        actions = theirs.action_space.sample()
        actions[:2] = 9.0  # these run out of their rail
        *results, info = ours.step(actions)
        *expected, expected_info = theirs.step(actions)
        for one, other in zip(results, expected, strict=True):
            agree(one, other, exact=False)
        agree(info, expected_info, exact=exact)
        ends += [results[2].sum(), results[3].sum()]
    assert (ends > 2).all()


@pytest.mark.parametrize("mode", MODES)
def test_domain_scores_of_a_surrogate(mode) -> None:
    """Of the steps that were flown, not of those that only started an episode."""
    plant = load_plant("quadrotor")
    surrogate = untrained_surrogate(plant)
    ours = PlantVectorEnv(plant, 3, surrogate, autoreset_mode=mode, duration=0.1)
    single = lambda: PlantEnv(plant, surrogate, duration=0.1)
    theirs = SyncVectorEnv([single] * 3, autoreset_mode=mode)
    seen = []
    ours.reset(seed=0), theirs.reset(seed=0)
    for _ in range(12):
        actions = np.tile(plant.trim, (3, 1)).astype(np.float32)
        info, expected = ours.step(actions)[4], theirs.step(actions)[4]
        agree(info, expected, exact=False)
        seen.append("domain_score" in info)
    assert any(seen) and not all(seen)


def test_each_environment_is_the_single_one_of_its_seed(plant) -> None:
    envs = PlantVectorEnv(plant, N, autoreset_mode="Disabled")
    designs = np.linspace(0.6, 1.9, N)[:, None]
    _, info = envs.reset(seed=4, options={"design": designs})
    flown = [info] + [envs.step(np.full((N, 1), 2.0))[4] for _ in range(12)]
    for i in range(N):
        env = PlantEnv(plant)
        _, info = env.reset(seed=4 + i, options={"design": designs[i]})
        alone = [info] + [env.step(np.full(1, 2.0))[4] for _ in range(12)]
        for ours, theirs in zip(flown, alone, strict=True):
            for name, value in theirs["state"].items():
                np.testing.assert_array_equal(ours["state"][name][i], value)


def test_a_restart_equals_a_simulator_of_its_own_and_leaves_the_others(plant) -> None:
    """To the bit, through contacts, whose solver starts from the last solution."""
    task, n = load_task(plant), 4
    keys = jax.random.split(jax.random.key(0), 2 * n)
    designs = jnp.ones((2 * n, 1))
    starts = jax.tree.map(lambda x: np.array(x, float), jax.vmap(task.reset)(keys, designs))
    actions = np.random.default_rng(0).uniform(-9, 9, (60, n, 1))
    together, state, rows = TruePlant(plant, n), starts[:n], np.array([1, 3])
    alone = [TruePlant(plant, 1) for _ in range(n)]
    singles = [starts[i : i + 1] for i in range(n)]
    for k, action in enumerate(actions):
        if k == 25:
            before = state
            state = together.restart(state, rows, starts[n + rows])
            np.testing.assert_array_equal(before.qpos[[0, 2]], state.qpos[[0, 2]])
            np.testing.assert_array_equal(state.command[rows], starts.command[n + rows])
            for i in rows:
                singles[i] = starts[n + i : n + i + 1]
        state = together.step(state, action)
        singles = [
            a.step(s, action[i : i + 1])
            for i, (a, s) in enumerate(zip(alone, singles, strict=True))
        ]
        np.testing.assert_array_equal(state.qpos, np.concatenate([s.qpos for s in singles]))
        np.testing.assert_array_equal(state.qvel, np.concatenate([s.qvel for s in singles]))
    with pytest.raises(InputError, match=r"qpos: expected shape \(2, 3\)"):
        together.restart(state, rows, starts[:3])


def test_a_restart_revives_what_diverged(plant) -> None:
    simulator, zero = TruePlant(plant, 2), np.zeros((2, 1))
    state = simulator.step(stacked(start(plant, 0.1), start(plant, 0.2, 1e9)), zero)
    np.testing.assert_array_equal(simulator.valid, [True, False])
    state = simulator.restart(state, np.array([1]), stacked(start(plant, 0.3, 1.0)))
    assert simulator.valid.all()
    state = simulator.step(state, zero)
    assert simulator.valid.all() and state.qpos[1, 0] > 0.31
    np.testing.assert_allclose(state.time, [0.04, 0.02])
    # Of a state that is not the last one, all is written.
    state = simulator.restart(stacked(*[start(plant, -0.5)] * 2), np.array([0]), state[1:])
    assert simulator.step(state, zero).qpos[1, 0] == pytest.approx(-0.5, abs=1e-3)


def test_divergence_is_terminated_and_not_valid_then_starts_anew(plant) -> None:
    envs = PlantVectorEnv(plant, 2, disturbances=False)
    envs.reset(seed=0, options={"state": stacked(start(plant, 0.1), start(plant, 0.2, 1e9))})
    zero = np.zeros((2, 1))
    observation, reward, terminated, truncated, info = envs.step(zero)
    np.testing.assert_array_equal(terminated, [False, True])
    np.testing.assert_array_equal(info["valid"], [True, False])
    assert observation in envs.observation_space and np.isfinite(reward).all()
    assert not truncated.any()
    nothing = np.array([[0.0], [np.nan]])  # the action of what starts anew does not matter
    _, reward, terminated, _, info = envs.step(nothing)
    assert info["valid"].all() and not terminated.any() and reward[1] == 0.0
    np.testing.assert_allclose(info["state"]["time"], [0.04, 0.0])
    assert envs.step(zero)[4]["valid"].all()
    with pytest.raises(InputError, match="finite"):
        envs.step(nothing)


def test_disabled_waits_for_a_mask(plant, surrogate) -> None:
    envs = PlantVectorEnv(plant, 3, surrogate, autoreset_mode="Disabled", disturbances=False)
    with pytest.raises(gymnasium.error.ResetNeeded):
        envs.reset(options={"reset_mask": np.array([True, False, True])})
    lost = stacked(start(plant, 0.1), start(plant, 1.049, 4.0), start(plant, 0.3))
    first, _ = envs.reset(seed=0, options={"state": lost})
    zero, mask = np.zeros((3, 1)), np.array([False, True, False])
    observation, _, terminated, _, before = envs.step(zero)
    np.testing.assert_array_equal(terminated, mask)
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset_mask"):
        envs.step(zero)
    options = {"reset_mask": mask, "state": start(plant, 0.5)}
    after, info = envs.reset(options=options)
    assert set(options) == {"reset_mask", "state"}  # the caller's own
    np.testing.assert_array_equal(after[[0, 2]], observation[[0, 2]])
    np.testing.assert_allclose(after[1], [0.5, 0.0])
    np.testing.assert_array_equal(info["_valid"], mask)
    np.testing.assert_array_equal(info["state"]["_qpos"], mask)
    np.testing.assert_array_equal(info["state"]["qpos"][[0, 2]], 0.0)
    *_, terminated, _, info = envs.step(zero)
    assert not terminated.any()
    np.testing.assert_allclose(info["state"]["time"], [0.04, 0.02, 0.04], rtol=1e-6)
    np.testing.assert_allclose(before["state"]["time"], 0.02, rtol=1e-6)  # not written over
    assert first.shape == (3, 2)


def test_masked_resets_keep_designs_and_other_streams(plant, surrogate) -> None:
    """What one environment is told does not move another's disturbances, noise or machine."""
    flown = []
    for masked in (False, True):
        envs = PlantVectorEnv(plant, 3, surrogate, autoreset_mode="Disabled", sensor_noise=True)
        envs.reset(seed=1, options={"design": [[0.7], [1.0], [1.3]]})
        observations = []
        for k in range(10):
            if masked and k == 4:
                mask = np.array([True, False, False])
                info = envs.reset(seed=99, options={"reset_mask": mask})[1]
                assert info["state"]["design"][0] == pytest.approx(0.7)
            observations.append(envs.step(np.zeros((3, 1)))[0])
        flown.append(np.array(observations))
    np.testing.assert_array_equal(flown[0][:, 1:], flown[1][:, 1:])
    assert not np.allclose(flown[0][4:, 0], flown[1][4:, 0])


def test_a_new_design_needs_a_reset_of_all_in_true_mujoco(plant) -> None:
    options = {"design": [1.5], "reset_mask": np.array([True, False])}
    envs = PlantVectorEnv(plant, 2)
    envs.reset(seed=0)
    with pytest.raises(InputError, match="needs a reset of all"):
        envs.reset(options=options)
    envs.reset(options={"design": [1.5]})
    np.testing.assert_array_equal(envs.state.design, [[1.5], [1.5]])
    learned = PlantVectorEnv(plant, 2, slider())
    learned.reset(seed=0)
    learned.reset(options=options)
    np.testing.assert_array_equal(learned.state.design, [[1.5], [1.0]])


@pytest.mark.parametrize("mode", MODES)
def test_device_arrays_are_the_same_numbers(plant, mode) -> None:
    options = {"autoreset_mode": mode, "sensor_noise": True, "duration": 0.2}
    host = PlantVectorEnv(plant, N, slider(), **options)
    device = PlantVectorEnv(plant, N, slider(), device_arrays=True, **options)
    (ours, info), theirs = device.reset(seed=0), host.reset(seed=0)[0]
    assert all(isinstance(x, jax.Array) for x in (ours, info["valid"], info["state"]["qpos"]))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    for _ in range(25):
        action = 20.0 * np.ones((N, 1), np.float32)
        ours, theirs = device.step(jnp.asarray(action)), host.step(action)
        for k in (0, 1):
            assert isinstance(ours[k], jax.Array) and ours[k].dtype == jnp.float32
        for k in range(4):
            np.testing.assert_allclose(ours[k], theirs[k], rtol=1e-5, atol=1e-6)
        assert isinstance(ours[4]["valid"], jax.Array) and ours[4]["valid"].all()
        for name in ("qpos", "time", "command"):
            assert isinstance(ours[4]["state"][name], jax.Array)
            np.testing.assert_allclose(
                ours[4]["state"][name], theirs[4]["state"][name], rtol=1e-5, atol=1e-6
            )


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("device", [False, True])
def test_a_flown_surrogate_is_reset_like_a_new_one(mode, device) -> None:
    """In every mode, of all by a seed or by a mask, and of some where that is allowed."""
    plant = load_plant("quadrotor")
    options = {"surrogate": untrained_surrogate(plant), "device_arrays": device}
    envs = PlantVectorEnv(plant, 2, autoreset_mode=mode, **options)
    trim = np.tile(plant.trim, (2, 1)).astype(np.float32)

    def flown(**reset) -> tuple:
        first, info = envs.reset(**reset)
        assert isinstance(first, jax.Array) == device and np.asarray(info["valid"]).all()
        return np.asarray(first), np.asarray(envs.step(trim)[0])

    fresh, every = flown(seed=1), {"reset_mask": np.ones(2, bool)}
    for reset in ({"seed": 1}, {"seed": 1, "options": every}):
        for ours, theirs in zip(flown(**reset), fresh, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    kept = np.asarray(envs.state.qpos)[1]
    envs.reset(options={"reset_mask": np.array([True, False])})
    np.testing.assert_array_equal(np.asarray(envs.state.qpos)[1], kept)
    assert envs.state.time[0] == 0.0 and envs.state.time[1] > 0.0


def test_what_it_returned_is_the_callers(plant, surrogate) -> None:
    """Neither does writing into it change a later reset, nor a later reset what was returned."""
    envs = PlantVectorEnv(plant, 2, surrogate, autoreset_mode="Disabled")
    first = envs.reset(seed=0)[0]
    observation, _, _, _, info = envs.step(np.ones((2, 1)))
    seen = observation.copy()
    first *= 0.0
    observation *= 0.0
    after, _ = envs.reset(options={"reset_mask": np.array([True, False])})
    np.testing.assert_array_equal(after[1], seen[1])
    assert info["state"]["time"] == pytest.approx(0.02)


def test_nothing_compiles_after_the_first_reset(plant, surrogate, caplog) -> None:
    def use(envs: PlantVectorEnv) -> None:
        envs.reset(seed=0)
        for k in range(60):  # another number of environments starts anew each time
            envs.step(np.full((7, 1), 9.0 * np.sin(k)))

    make = lambda: PlantVectorEnv(plant, 7, surrogate)
    use(make())
    with jax.log_compiles(), caplog.at_level(logging.DEBUG, logger="jax"):
        use(make())
        assert [m for m in caplog.messages if "ompil" in m] == []


def test_gymnasium_makes_it_by_its_id() -> None:
    envs = gymnasium.make_vec(
        "physai.gym:Quadrotor-v0",
        num_envs=3,
        vectorization_mode="vector_entry_point",
        max_episode_steps=4,
        autoreset_mode="SameStep",
    )
    assert isinstance(envs.unwrapped, PlantVectorEnv) and envs.num_envs == 3
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observation, _ = envs.reset(seed=0)
    assert observation in envs.observation_space
    single, info = gymnasium.make("physai.gym:Quadrotor-v0").reset(seed=2)
    np.testing.assert_allclose(observation[2], single, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(envs.unwrapped.state.qpos[2], info["state"]["qpos"])
    ends = [envs.step(envs.action_space.sample())[3].all() for _ in range(8)]
    assert ends == [False, False, False, True] * 2
    wrapped = gymnasium.wrappers.vector.RecordEpisodeStatistics(envs)
    wrapped.reset(seed=0)
    for _ in range(4):
        info = wrapped.step(envs.action_space.sample())[4]
    np.testing.assert_array_equal(info["episode"]["l"], 4)


def test_images_one_an_environment(plant) -> None:
    envs = PlantVectorEnv(plant, 2, render_mode="rgb_array", width=64, height=48)
    envs.reset(options={"state": stacked(start(plant, -0.5), start(plant, 0.5))})
    images = envs.render()
    assert images is not None and len(images) == 2
    assert images[0].shape == (48, 64, 3) and (images[0] != images[1]).any()
    envs.close()


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"num_envs": 0}, "num_envs"),
        ({"autoreset_mode": "never"}, "autoreset_mode"),
        ({"device_arrays": True}, "device_arrays"),
        ({"render_mode": "ansi"}, "render_mode"),
        ({"max_episode_steps": 0}, "max_episode_steps"),
        ({"duration": -1.0}, "duration"),
        ({"duration": "x"}, "duration"),
        ({"task": 3}, "task"),
        ({"width": -5}, "width"),
    ],
)
def test_bad_constructor_options_are_refused(plant, option, text) -> None:
    with pytest.raises(InputError, match=text):
        PlantVectorEnv(plant, **option)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ({"seed": [1, 2, 3]}, "a list of 2, got 3"),
        ({"options": {"wind": 1}}, "got 'wind'"),
        ({"options": {"design": [[1.0]] * 3}}, r"expected shape \(1,\) or \(2, 1\)"),
        ({"options": {"design": [9.0]}}, "mass: expected 0.5 to 2 kg"),
        ({"options": {"state": 3}}, "expected a State, got int"),
        ({"options": {"design": "abc"}}, r"expected 1 values \(mass\), got 'abc'"),
        ({"options": 3}, "expected a dict, got 3"),
        ({"seed": "x"}, "expected a whole number or a list of 2, got 'x'"),
        ({"seed": 1.5}, "expected a whole number or a list of 2, got 1.5"),
        ({"seed": [1.5, 2]}, "expected whole numbers from 0, got 1.5"),
        ({"seed": -3}, "expected whole numbers from 0, got -3"),
        ({"options": {"reset_mask": [True, False]}}, "a numpy array of bool"),
        ({"options": {"reset_mask": np.zeros(2, bool)}}, "at least one True"),
        ({"options": {"reset_mask": np.ones(3, bool)}}, r"expected shape \(2,\)"),
    ],
)
def test_bad_resets_are_refused(plant, call, text) -> None:
    with pytest.raises(InputError, match=text):
        PlantVectorEnv(plant, 2).reset(**call)


def test_states_have_unit_quaternions() -> None:
    plant, turn = load_plant("satellite"), np.array([0.6, 0.0, 0.8, 0.0])
    envs = PlantVectorEnv(plant, 2, disturbances=False)
    envs.reset(seed=0)
    state = jax.tree.map(np.array, envs.state)
    (joint,) = (j for j in plant.joints if j.kind in ("free", "ball"))
    four = joint.qpos_index + 3 * (joint.kind == "free") + np.arange(4)
    state.qpos[:, four] = [turn, 0.9995 * turn]
    _, info = envs.reset(options={"state": state})
    np.testing.assert_allclose(info["state"]["qpos"][:, four], [turn, turn], rtol=1e-15)
    for q in (0.0 * turn, 1.002 * turn):
        state.qpos[1, four] = q
        with pytest.raises(InputError, match=f"joint {joint.name}: .*unit quaternion"):
            envs.reset(options={"state": state})


def test_a_refused_reset_leaves_the_machines_as_they_were(plant) -> None:
    envs = PlantVectorEnv(plant, 2, disturbances=False)
    start = envs.reset(seed=0)[1]["state"]
    with pytest.raises(InputError, match="seed"):
        envs.reset(seed=-1, options={"design": [2.0]})
    after = envs.step(np.full((2, 1), 9.0))[4]["state"]["qvel"]
    fresh = PlantVectorEnv(plant, 2, disturbances=False)
    fresh.reset(options={"state": State(**{k: v for k, v in start.items() if k[0] != "_"})})
    np.testing.assert_array_equal(after, fresh.step(np.full((2, 1), 9.0))[4]["state"]["qvel"])


def test_bad_steps_are_refused(plant) -> None:
    envs = PlantVectorEnv(plant, 2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        envs.step(np.zeros((2, 1)))
    envs.reset(seed=0)
    device = PlantVectorEnv(plant, 2, slider(), device_arrays=True)
    device.reset(seed=0)
    for each in (envs, device):
        for bad in (np.zeros(2), np.zeros((1, 1)), jnp.zeros(1), "up", None, [[1.0], [1.0, 2.0]]):
            with pytest.raises(InputError, match=r"action: expected shape \(2, 1\)"):
                each.step(bad)
