"""Going on from a surrogate of the machine, or of a variant of it: what stays, what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from machines_by_hand import PLANT, pendulum
from surrogates import unit_domain, untrained_surrogate

from physai.cli import main
from physai.errors import InputError
from physai.plant import Plant, load_plant
from physai.provenance import read_manifest
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.symmetry import Symmetry
from physai.state import State
from physai.surrogate.adapt import going_on
from physai.surrogate.bounds import Bounds, Pace
from physai.surrogate.fit import FitSettings
from physai.surrogate.inherit import open_start, taken_over
from physai.surrogate.inputs import inputs
from physai.surrogate.known import known_dynamics
from physai.surrogate.model import Normaliser, Surrogate
from physai.surrogate.release import fit
from physai.surrogate.store import load_surrogate, read_card, save_surrogate
from physai.task import load_task

RELEASED = Path(__file__).parents[1] / "checkpoints/quadrotor/v1/surrogate"
ANY = Symmetry("xyz", heading=True)


def heavier(folder: Path) -> Plant:
    """A quadrotor that carries 0.4 kg more than its design tells."""
    shutil.copytree(PLANT.folder, folder, ignore=shutil.ignore_patterns("__pycache__"))
    code = (folder / "plant.py").read_text()
    changed = code.replace('mass = design["payload"]', 'mass = 0.4 + design["payload"]')
    assert changed != code
    (folder / "plant.py").write_text(changed)
    return load_plant(folder)


def random_scales(ni: int, nt: int, seed: int) -> Normaliser:
    rng = np.random.default_rng(seed)
    shapes = (ni, ni, nt, nt, nt)
    return Normaliser(*(jnp.float32(rng.uniform(0.5, 2.0, n)) for n in shapes))


def saved(folder: Path, surrogate: Surrogate, plant: Plant) -> Path:
    folder.mkdir()
    save_surrogate(folder, surrogate, plant, {})
    return folder


def step(surrogate: Surrogate, plant: Plant, state: State) -> State:
    zero = jnp.zeros((len(state.time), plant.nu)), jnp.zeros((len(state.time), plant.nw))
    return jax.jit(Surrogate.step)(surrogate, state, *zero)


def states(n: int = 32) -> State:
    """Quadrotors here and there."""
    rng = np.random.default_rng(0)
    draw = lambda k: jnp.float32(rng.uniform(0.1, 0.9, (n, k)))
    low, high = (np.array([getattr(v, end) for v in PLANT.design]) for end in ("low", "high"))
    design = low + (high - low) * draw(4)
    return State(draw(7), draw(6), draw(4), jnp.zeros(n), draw(4), design)


# What is taken over


def test_the_function_of_the_start_stays_whatever_the_new_scales() -> None:
    start = untrained_surrogate(PLANT, change=0.1)
    ni, nt = start.architecture.inputs, start.architecture.outputs
    start = replace(start, normaliser=random_scales(ni, nt, 0))
    fresh, targets = random_scales(ni, nt, 1), jnp.full((3, nt), 50.0)
    parameters, normaliser = taken_over(start, fresh, targets)
    begun = replace(start, parameters=parameters, normaliser=normaliser)
    before, after = step(start, PLANT, states()), step(begun, PLANT, states())
    np.testing.assert_allclose(after.qvel, before.qvel, rtol=1e-6)
    wrong = replace(start, normaliser=fresh)
    assert np.abs(np.asarray(step(wrong, PLANT, states()).qvel - before.qvel)).max() > 0.1


def test_an_input_that_the_start_never_saw_move_has_no_say_at_first() -> None:
    """Its weights are random: nobody trained them."""
    start = untrained_surrogate(PLANT, change=0.1)
    ni, nt = start.architecture.inputs, start.architecture.outputs
    payload = ni - 3
    one = jnp.ones(ni).at[payload].set(0.0)
    start = replace(start, domain=replace(unit_domain(ni), low=-one, high=one))
    fresh = replace(random_scales(ni, nt, 1), input_mean=jnp.full(ni, 0.3))
    parameters, normaliser = taken_over(start, fresh, jnp.ones((3, nt)))
    begun = replace(start, parameters=parameters, normaliser=normaliser)
    light, heavy = (
        states().replace(design=states().design.at[:, 1].set(kg)) for kg in (0.3, 0.6)
    )  # 0.3 kg is 0 of the input's scale
    found = step(begun, PLANT, light).qvel
    np.testing.assert_allclose(found, step(start, PLANT, light).qvel, rtol=1e-6)
    np.testing.assert_array_equal(found, step(begun, PLANT, heavy).qvel)
    assert np.abs(np.asarray(step(start, PLANT, heavy).qvel - found)).max() > 1e-4
    assert normaliser.input_std[payload] == fresh.input_std[payload]


def test_a_target_that_the_start_had_nothing_to_learn_of_can_be_learned() -> None:
    start = untrained_surrogate(PLANT)
    ni, nt = start.architecture.inputs, start.architecture.outputs
    idle = replace(start.normaliser, target_std=start.normaliser.target_std.at[8].set(0.0))
    start = replace(start, normaliser=idle)
    parameters, normaliser = taken_over(start, random_scales(ni, nt, 1), jnp.ones((3, nt)))
    begun = replace(start, parameters=parameters, normaliser=normaliser)
    before, after = step(start, PLANT, states()), step(begun, PLANT, states())
    np.testing.assert_array_equal(before.qvel, after.qvel)
    assert normaliser.target_std[8] > 0.0


def test_what_the_model_tells_is_the_new_machines(tmp_path: Path) -> None:
    """Masses, limits, dry friction; the scale of the design inputs is the network's."""
    text = """<mujoco><worldbody><body><joint name="x" type="slide" axis="1 0 0" limited="true"
        range="-1 1" frictionloss="0.5"/><geom name="block" size="0.1" mass="2"/></body></worldbody>
        <actuator><motor name="push" joint="x" ctrlrange="-5 5"/></actuator></mujoco>"""
    code = """from physai.plant import DesignVariable
DESIGN = (DesignVariable("size", "m", 0.1, 0.2, 0.1),)
def apply(spec, design): spec.geom("block").size[0] = design["size"]
"""
    plants = []
    for name, xml, py in (
        ("light", text, code),
        ("heavy", text.replace('"2"', '"4"').replace("-1 1", "-2 3"), code.replace("0.2,", "0.9,")),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plant.xml").write_text(xml)
        (tmp_path / name / "plant.py").write_text(py)
        plants.append(load_plant(tmp_path / name))
    light, heavy = plants
    start = untrained_surrogate(light)
    layout = replace(start.layout, equations=True)
    start = replace(start, layout=layout, known=known_dynamics(light))
    begun = open_start(saved(tmp_path / "s", start, light), heavy, ANY).fitting
    assert begun.known is not None and begun.layout.equations
    assert float(begun.known.constants["mass"][1]) == 4.0
    assert begun.layout.limits[0][2:] == (-2.0, 3.0)
    assert begun.layout.friction[0][1] == pytest.approx(0.5 * start.layout.friction[0][1])
    assert begun.layout.design_high == (0.2,)
    at, none = jnp.float32([0.1]), jnp.zeros(0)
    state = State(at, at, none, jnp.zeros(()), none, jnp.float32([0.2]))
    assert inputs(begun.layout, None, state, jnp.zeros(1), jnp.zeros(0))[-1] == pytest.approx(1.0)


def test_bounds_hold_what_the_data_of_either_held() -> None:
    ends = [jnp.float32(x) for x in ([-1, -3], [1, 2], [-5, -5], [5, 5])]
    more = [jnp.float32(x) for x in ([-2, -2], [0, 4], [-6, -4], [4, 6])]
    pace = Pace(jnp.ones(2), jnp.eye(2), jnp.float32(3.0))
    both = Bounds(*ends, pace).around(Bounds(*more, pace))
    expected = [[-2, -3], [1, 4], [-6, -5], [5, 6]]
    assert both.pace is None  # chosen again
    np.testing.assert_array_equal(jnp.stack(jax.tree.leaves(both)), expected)


# What is refused


def test_a_surrogate_of_other_channels_is_refused_with_their_names(tmp_path: Path) -> None:
    folder = saved(tmp_path / "s", untrained_surrogate(PLANT), PLANT)
    (other,) = pendulum(tmp_path)
    with pytest.raises(InputError, match=r"expected root \(free\), got pivot \(hinge\)"):
        open_start(folder, other, ANY)
    rotors = [replace(PLANT.actions[0], name="fan", unit="N"), *PLANT.actions[1:]]
    renamed = replace(PLANT, sha256="1" * 64, actions=tuple(rotors))
    with pytest.raises(InputError, match=r"expected rotor_1 \[1\], got fan \[N\]"):
        open_start(folder, renamed, ANY)
    slower = replace(PLANT, sha256="1" * 64, control_period=0.04)
    with pytest.raises(InputError, match=r"control period: expected 0\.02 s, got 0\.04 s"):
        open_start(folder, slower, ANY)
    swapped = replace(PLANT, sha256="1" * 64, design=PLANT.design[::-1])
    with pytest.raises(InputError, match=r"inputs: expected the order"):
        open_start(folder, swapped, ANY)


def test_a_symmetry_that_the_variant_lacks_is_refused_with_the_input(tmp_path: Path) -> None:
    """A surrogate that does not see the height cannot learn what depends on it."""
    folder = saved(tmp_path / "s", untrained_surrogate(PLANT), PLANT)
    variant = replace(PLANT, sha256="1" * 64)
    with pytest.raises(InputError, match=r"leaves out: root\.z \[m\]"):
        open_start(folder, variant, Symmetry("xy", heading=True))
    assert open_start(folder, variant, ANY).fitting.layout == load_surrogate(folder).layout


def test_a_comparison_needs_something_to_compare_with(tmp_path: Path) -> None:
    (plant,) = pendulum(tmp_path)
    data = collect(
        plant, load_task(plant), tmp_path / "d", RolloutSettings(train=8, calibration=2, test=2)
    )
    with pytest.raises(InputError, match="give one as --from"):
        fit(plant, [data], tmp_path / "s", compare=True)


# The whole of it


def test_a_variant_is_learned_from_a_few_episodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The released surrogate, on a quadrotor whose payload is 0.4 kg beyond the design."""
    plant, data, out = heavier(tmp_path / "heavy"), tmp_path / "data", tmp_path / "s"
    few = RolloutSettings(train=64, calibration=24, test=24, designs_per_shard=8)
    collect(plant, load_task(plant), data, few, seed=1)
    rough = "--no-equations --members 1 --width 8 --depth 1 --steps 2250 --json".split()
    arguments = ["--dataset", data, "--out", out, "--from", RELEASED, "--compare", *rough]
    assert main(["fit", *map(str, [plant.folder, *arguments])]) == 0
    shown = json.loads(capsys.readouterr().out)
    beside = json.loads((out / "adapted.json").read_text())
    assert shown == {"out": str(out), "members": 4, "adapted": beside}
    assert beside["split"] == "test" and beside["horizons"] == [1, 10, 50]
    start, adapted, scratch = (
        np.array(beside["nrmse"][name]) for name in ("start", "adapted", "scratch")
    )
    assert (adapted < 0.5 * start).all() and (adapted < 0.5 * scratch).all()
    was, card = {"name": "quadrotor", "sha256": PLANT.sha256}, read_card(out)
    assert beside["start"] == was and card["start"] == was
    assert card["plant"]["sha256"] == plant.sha256
    made, begun = load_surrogate(out, plant), load_surrogate(RELEASED)
    assert (made.bounds.velocity_high >= begun.bounds.velocity_high).all()
    # Trust is of the new data alone, which are few.
    assert (made.domain.high < begun.domain.high).any()
    assert read_manifest(out)["inputs"]["start"]["content"] == read_manifest(RELEASED)["content"]
    assert made.architecture == begun.architecture
    assert not out.with_name("s.training").exists()


def test_going_on_takes_fewer_and_smaller_steps() -> None:
    settings = FitSettings(steps=9000)
    assert going_on(settings).steps < settings.steps
    assert going_on(settings).learning_rate < settings.learning_rate
    assert going_on(FitSettings(steps=1)).steps == 1
