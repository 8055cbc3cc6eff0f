"""Loading plants, what their design variables move, and the closed-form checks they bring."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import mujoco
import numpy as np
import pytest

from physai.errors import InputError
from physai.plant import DesignVariable, check_variables, load_plant, plant_names, plants_folder
from physai.provenance import write_manifest

SLIDER = """
<mujoco>
  <option timestep="0.005"/>
  <custom><numeric name="control_period" data="{period}"/></custom>
  <worldbody><body name="cart"><joint name="x" type="slide" axis="1 0 0"/>
    <geom name="cart" size="0.1" mass="1"/></body></worldbody>
  <actuator><motor name="push" joint="x" ctrlrange="{low} 2"/>{more}</actuator>
</mujoco>
"""
VARIABLE = "DesignVariable('m', 'kg', 1.0, 2.0, 1.5)"
KEY = '</actuator><keyframe><key name="home" qpos="{}"/></keyframe><actuator>'


def write_plant(
    folder: Path, xml: str | None = None, python: str = "", period="0.02", low="-2", more=""
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    xml = SLIDER.format(period=period, low=low, more=more) if xml is None else xml
    (folder / "plant.xml").write_text(xml)
    if python:
        (folder / "plant.py").write_text("from physai.plant import DesignVariable\n" + python)
    return folder


@pytest.fixture(scope="module")
def quadrotor():
    return load_plant("quadrotor")


def nominal_but(plant, **changes: float) -> np.ndarray:
    return np.array([changes.get(v.name, v.nominal) for v in plant.design])


# --- closed forms


def test_closed_form_checks_of_the_quadrotor(quadrotor):
    """The tolerances, and why they are what they are.

    mass, hover thrust, thrust-to-weight: sums and ratios of constants that the XML gives to four
        digits, so the last of those digits.
    free fall: semi-implicit Euler falls g h T / 2 = 0.0196 m farther than g T^2 / 2 in T = 1 s with
        h = 0.004 s, just within 0.02 m.
    angular momentum: the integrator treats the gyroscopic term explicitly, an error of first order,
        |omega| h / 2 = 1.1% for 5.4 rad/s were it never to change sign; 1%.
    motor: the lag is integrated exactly, so rounding.
    """
    checks = quadrotor.checks(quadrotor)
    assert len(checks) >= 6
    for check in checks:
        assert check.passed, f"{check.quantity}: {check.simulated} instead of {check.expected}"


def test_free_fall_is_semi_implicit_euler_to_rounding(quadrotor):
    """v_n = -n h g and z_n = -h^2 g n (n + 1) / 2, exactly; only the rounding of n sums is left."""
    model = quadrotor.compile()
    model.opt.density = model.opt.viscosity = 0.0
    data = mujoco.MjData(model)
    n, h = 250, model.opt.timestep
    mujoco.mj_step(model, data, nstep=n)
    assert abs(data.qpos[2] + 9.81 * h**2 * n * (n + 1) / 2) < 1e-12
    assert abs(data.qvel[2] + 9.81 * h * n) < 1e-12
    # The continuous fall is g h T / 2 shorter, which the check's tolerance has to admit.
    assert abs(-data.qpos[2] - 4.905 - 9.81 * h / 2) < 1e-9


def test_a_check_that_gives_nan_does_not_pass(quadrotor):
    check = quadrotor.checks(quadrotor)[0]
    assert not dataclasses.replace(check, simulated=float("nan")).passed


# --- design variables


def test_payload_moves_mass_and_derived_constants(quadrotor):
    nominal, loaded = quadrotor.compile(), quadrotor.compile(nominal_but(quadrotor, payload=0.4))
    added = loaded.body_subtreemass[0] - nominal.body_subtreemass[0]
    assert added == pytest.approx(0.4, abs=1e-12)
    for model in (nominal, loaded):
        np.testing.assert_allclose(model.dof_invweight0, inverse_weights(model), rtol=1e-9)
    assert (loaded.dof_invweight0[:3] < 0.8 * nominal.dof_invweight0[:3]).all()
    # It hangs below the centre of mass, so it adds inertia about the horizontal axes.
    assert (loaded.body_inertia[1] > nominal.body_inertia[1] + 1e-5).all()


def inverse_weights(model: mujoco.MjModel) -> np.ndarray:
    """Return what MuJoCo defines for a free body: diag(M^-1), averaged over each three axes."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    mass = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, mass)
    weights = np.diag(np.linalg.inv(mass)).reshape(2, 3).mean(1)
    return np.repeat(weights, 3)


def test_arm_length_moves_geometry_inertia_and_mass(quadrotor):
    nominal = quadrotor.compile()
    arm = quadrotor.nominal[0]
    longer = quadrotor.compile(nominal_but(quadrotor, arm_length=1.3 * arm))
    added = longer.body_subtreemass[0] - nominal.body_subtreemass[0]
    assert added == pytest.approx(4 * 0.15 * 0.3 * arm, rel=1e-9)  # four arms of 0.15 kg/m
    # Rotors are most of the inertia, and theirs grows with the square of the arm.
    growth = longer.body_inertia[1].max() / nominal.body_inertia[1].max()
    assert 1.5 < growth < 1.3**2 + 0.05
    assert longer.dof_invweight0[3] < 0.75 * nominal.dof_invweight0[3]
    np.testing.assert_allclose(longer.site("thrust_1").pos[:2], [0.182, -0.234], atol=1e-9)


def test_thrust_and_time_constant_move_the_actuators(quadrotor):
    nominal = quadrotor.compile()
    changed = quadrotor.compile(nominal_but(quadrotor, max_thrust=17.0, motor_time_constant=0.09))
    for i in quadrotor.action_ids:
        assert changed.actuator_gainprm[i, 0] == pytest.approx(17.0)
        assert changed.actuator_dynprm[i, 0] == pytest.approx(0.09)
        assert nominal.actuator_gainprm[i, 0] == pytest.approx(13.0)
    added = changed.body_subtreemass[0] - nominal.body_subtreemass[0]
    assert added == pytest.approx(4 * 0.23 * (17 / 13 - 1), rel=1e-9)  # heavier rotors


def test_nominal_design_is_the_loaded_model(quadrotor):
    assert mujoco_arrays(quadrotor.compile(quadrotor.nominal)) == mujoco_arrays(quadrotor.model)


def test_blank_textures_leave_the_dynamics(quadrotor):
    drawn, blank = mujoco_arrays(quadrotor.compile()), mujoco_arrays(quadrotor.compile(None, False))
    different = {name for name in drawn if drawn[name] != blank[name]}
    assert different and all(name.startswith("tex_") for name in different)


def mujoco_arrays(model: mujoco.MjModel) -> dict[str, bytes]:
    values = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    return {n: v.tobytes() for n, v in values.items() if isinstance(v, np.ndarray)}


def test_bounds_forgive_rounding_and_nothing_more(quadrotor):
    high = np.array([v.high for v in quadrotor.design])
    rounded = high.astype(np.float32).astype(float)
    assert (rounded > high).any()  # else this test shows nothing
    np.testing.assert_array_equal(quadrotor.check_design(np.maximum(rounded, high)), high)
    assert quadrotor.compile(rounded).nbody == quadrotor.model.nbody
    beyond = high + 1e-4 * (high - [v.low for v in quadrotor.design])
    with pytest.raises(InputError, match=r"arm_length: expected 0.16 to 0.34 m, got 0.340018"):
        quadrotor.compile(beyond)


@pytest.mark.parametrize(
    ("design", "message"),
    [
        ([0.2, 0.0, 13.0], r"expected 4 values \(arm_length, payload, max_thrust"),
        ([0.2, np.nan, 13.0, 0.05], "payload: expected 0 to 0.6 kg, got nan"),
        ([0.2, 0.0, np.inf, 0.05], "max_thrust: expected 9 to 18 N, got inf"),
    ],
)
def test_bad_designs_are_refused(quadrotor, design, message):
    with pytest.raises(InputError, match=message):
        quadrotor.compile(design)


def test_an_edit_of_the_file_after_loading_does_not_mix_in(tmp_path):
    plant = load_plant(write_plant(tmp_path / "p"))
    (tmp_path / "p" / "plant.xml").write_text("<mujoco/>")
    assert plant.compile().nu == 1


def test_a_mesh_is_found_from_the_folder(tmp_path):
    xml = """<mujoco><asset><mesh name="t" file="tetra.obj"/></asset><worldbody><body>
    <freejoint/><geom type="mesh" mesh="t" mass="2"/><site name="s"/></body></worldbody>
    <actuator><motor name="m" site="s" gear="0 0 1 0 0 0" ctrlrange="0 1"/></actuator></mujoco>"""
    folder = write_plant(tmp_path / "meshed", xml)
    (folder / "tetra.obj").write_text(
        "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
    )
    assert load_plant(folder).compile().body_mass[1] == pytest.approx(2.0)


# --- channels


def test_channels_have_names_units_and_ranges(quadrotor):
    assert [a.name for a in quadrotor.actions] == ["rotor_1", "rotor_2", "rotor_3", "rotor_4"]
    assert [(a.unit, a.low, a.high) for a in quadrotor.actions] == [("1", 0.0, 1.0)] * 4
    assert [(d.name, d.unit, d.vector) for d in quadrotor.disturbances] == [
        (f"gust_{axis}", "N", "gust") for axis in "xyz"
    ]
    assert (quadrotor.control_period, quadrotor.substeps) == (0.02, 5)
    weight = quadrotor.model.body_subtreemass[0] * 9.81
    assert 4 * 13.0 * quadrotor.trim == pytest.approx(weight, rel=1e-3)
    channels = quadrotor.state_channels
    model = quadrotor.model
    assert len(channels) == 2 * model.nv + model.na
    assert (channels[3].name, channels[3].unit) == ("root.rx", "rad")
    assert (channels[9].name, channels[9].unit) == ("root.rx.rate", "rad/s")


def test_every_activation_has_a_channel(tmp_path):
    more = (
        '<dcmotor name="slow" joint="x" ctrlrange="0 1" motorconst="0.05 0.05" resistance="1" '
        'inductance="0.01" input="pos" controller="1 1 0"/>'
    )
    plant = load_plant(write_plant(tmp_path / "p", more=more))
    names = [c.name for c in plant.state_channels]
    assert plant.model.na > 1
    assert names[2:] == [f"slow.activation_{k}" for k in range(1, plant.model.na + 1)]


def test_trim_without_a_key_frame_is_the_nearest_to_zero(tmp_path):
    assert load_plant(write_plant(tmp_path / "a")).trim == [0.0]
    assert load_plant(write_plant(tmp_path / "b", low="0.5")).trim == [0.5]


def test_disturbances_default_to_a_third_of_their_range(tmp_path):
    more = '<motor name="disturbance/wind" joint="x" ctrlrange="-6 6"/>'
    plant = load_plant(write_plant(tmp_path / "p", more=more))
    (wind,) = plant.disturbances
    assert (wind.name, wind.std, wind.high, plant.nu) == ("wind", 2.0, 6.0, 1)


def test_derived_names_keep_off_names_that_were_given(tmp_path):
    xml = """<mujoco><worldbody>
      <body><joint name="joint_1" type="slide"/><geom size="0.1"/>
        <body><joint axis="0 1 0"/><geom size="0.1"/></body></body></worldbody>
    <actuator><motor name="actuator_1" joint="joint_1" ctrlrange="-1 1"/>
      <general joint="joint_1" ctrlrange="-1 1" dyntype="filter" dynprm="1"/></actuator></mujoco>"""
    plant = load_plant(write_plant(tmp_path / "p", xml))
    assert [j.name for j in plant.joints] == ["joint_1", "joint_1_"]
    assert [a.name for a in plant.actions] == ["actuator_1", "actuator_1_"]
    assert plant.state_channels[-1].name == "actuator_1_.activation"


def test_state_channels_of_one_name_are_refused(tmp_path):
    xml = """<mujoco><worldbody><body><freejoint name="a"/><geom size="0.1"/>
      <body><joint name="a.x"/><geom size="0.1"/></body></body></worldbody></mujoco>"""
    with pytest.raises(InputError, match=r"two state channels would be called 'a.x'"):
        load_plant(write_plant(tmp_path / "p", xml))


# --- what the author's functions do when they are called


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    1 / 0", r"plant.py:5: checks\(\) failed: ZeroDivisionError"),
        ("    import sys; sys.exit(0)", r"plant.py:5: checks\(\) failed: sys.exit: 0"),
        ("    return 3", r"plant.py: checks\(\): expected a list of .*Check, got 3"),
        ("    return [True]", r"plant.py: checks\(\): expected a list of .*Check, got \[True\]"),
        (
            "    return [Check('mass', 'kg', 1.0, None, 0.1)]",
            r"plant.py: checks\(\): mass: expected numbers, got \(1.0, None, 0.1\)",
        ),
    ],
)
def test_checks_that_fail_to_check_name_the_file(tmp_path, body, message):
    python = f"from physai.plant import Check\n\ndef checks(plant):\n{body}\n"
    plant = load_plant(write_plant(tmp_path / "p", python=python))
    with pytest.raises(InputError, match=message):
        plant.checks(plant)


def test_checks_may_be_yielded(tmp_path):
    python = (
        "from physai.plant import Check\ndef checks(plant):\n"
        "    yield Check('mass', 'kg', 1.0, 1.0, 0.1)\n"
    )
    plant = load_plant(write_plant(tmp_path / "p", python=python))
    assert [c.passed for c in plant.checks(plant)] == [True]


# --- whether a variable does anything


APPLY = f"DESIGN = ({VARIABLE},)\ndef apply(spec, design): "


@pytest.mark.parametrize(
    "change", ["geom('cart').mass", "option.gravity[2]", "joint('x').damping[0]"]
)
def test_a_variable_that_changes_the_model_passes(tmp_path, change):
    python = f"{APPLY}spec.{change} = design['m']"
    check_variables(load_plant(write_plant(tmp_path / "p", python=python)))


def test_a_variable_that_changes_nothing_is_refused_by_name(tmp_path):
    folder = write_plant(tmp_path / "p", python=f"{APPLY}spec.geom('cart').rgba[0] = 0.5")
    with pytest.raises(InputError, match=r"plant.py: design variable m: apply\(\) changes nothing"):
        check_variables(load_plant(folder))


def test_a_variable_that_only_forces_read_passes(tmp_path):
    python = f"{APPLY}pass\ndef forces(live): pass"
    check_variables(load_plant(write_plant(tmp_path / "p", python=python)))


# --- identity


def test_hash_is_that_of_the_manifest_and_of_what_counts(tmp_path):
    folder = write_plant(tmp_path / "p")
    before = load_plant(folder)
    (tmp_path / "artefact").mkdir()
    manifest = write_manifest(tmp_path / "artefact", "test", {"plant": before}, {}, None)
    assert manifest["inputs"]["plant"]["content"] == before.sha256
    (folder / "runs").mkdir()
    (folder / "runs" / "log").write_text("what a run wrote is not the plant")
    assert load_plant(folder).sha256 == before.sha256
    (folder / "task.py").write_text("# another task is another plant folder")
    assert load_plant(folder).sha256 != before.sha256


def test_a_bare_file_is_not_judged_by_its_neighbours(tmp_path):
    path = write_plant(tmp_path) / "plant.xml"
    before = load_plant(path).sha256
    (tmp_path / "holiday.jpg").write_bytes(b"nothing to do with it")
    assert load_plant(path).sha256 == before
    path.write_text(SLIDER.format(period="0.01", low="-2", more=""))
    assert load_plant(path).sha256 != before


def test_shipped_plants_load_by_name_and_by_path(tmp_path):
    assert "quadrotor" in plant_names()
    copy = tmp_path / "mine"
    shutil.copytree(plants_folder() / "quadrotor", copy)
    assert load_plant(copy).sha256 == load_plant("quadrotor").sha256
    assert load_plant(str(copy)).name == "mine"


# --- bad input


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"xml": "<mujoco><worldbody>"}, "MuJoCo cannot read this model"),
        ({"xml": "<mujoco><worldbody><body><freejoint/></body></worldbody></mujoco>"}, "mass"),
        (
            {
                "xml": SLIDER.format(period="0.02", low="-2", more="").replace(
                    'ctrlrange="-2 2"', ""
                )
            },
            "actuator push has no ctrlrange",
        ),
        ({"period": "0.012"}, r"multiple of the time step, got 0.012 s and 0.005 s \(2.4 steps\)"),
        ({"period": "0.001"}, "multiple of the time step"),
        ({"period": "-0.02"}, "multiple of the time step"),
        ({"python": "1/0"}, "plant.py:2: cannot be imported: ZeroDivisionError"),
        (
            {"python": "DESIGN = (DesignVariable('m', 'kg', 1.0, 2.0, 1.5),)"},
            r"no apply\(spec, design\)",
        ),
        (
            {
                "python": "DESIGN = (DesignVariable('m', 'kg', 1.0, 2.0, 3.0),)\n"
                "def apply(spec, design): pass"
            },
            "design variable m: expected low < high and a nominal value between them",
        ),
        (
            {
                "python": "DESIGN = (DesignVariable('m', 'kg', 1.0, 2.0, 1.5),)\n"
                "def apply(spec, design): spec.geom('no such geom').mass = design['m']"
            },
            r"plant.py:3: apply\(\) failed",
        ),
        ({"python": "DISTURBANCES = {'gale': {}}"}, "'gale', but the model has no actuator"),
        (
            {
                "python": "DISTURBANCES = {'gust': {'vector': 'gust'}}",
                "more": '<motor name="disturbance/gust" joint="x" ctrlrange="-1 1"/>',
            },
            "'gust': expected 3 components, got 1",
        ),
        ({"python": "import sys\nsys.exit(0)"}, "plant.py:3: cannot be imported: sys.exit: 0"),
        ({"python": "def f(:"}, "plant.py:2: cannot be imported: SyntaxError"),
        ({"python": "DESIGN = 3"}, "plant.py: DESIGN: expected a tuple of .*DesignVariable, got 3"),
        ({"python": "DESIGN = ('mass',)"}, "plant.py: DESIGN: expected a tuple"),
        (
            {"python": f"DESIGN = ({VARIABLE}, {VARIABLE})\ndef apply(spec, design): pass"},
            "plant.py: two design variables would be called 'm'",
        ),
        (
            {
                "python": "DESIGN = (DesignVariable('m', 'kg', '1', 2.0, 1.5),)\n"
                "def apply(spec, design): pass"
            },
            "design variable m: expected finite numbers low, high and nominal, got '1', 2.0",
        ),
        ({"python": f"DESIGN = ({VARIABLE},)\napply = 3"}, "apply: expected a function, got 3"),
        (
            {"python": f"DESIGN = ({VARIABLE},)\ndef apply(spec, design): raise SystemExit(1)"},
            r"plant.py:3: apply\(\) failed for {'m': 1.5}: sys.exit: 1",
        ),
        ({"python": "checks = 3"}, "plant.py: checks: expected a function, got 3"),
        ({"python": "UNITS = 3"}, "plant.py: UNITS: expected a dict .*, got 3"),
        ({"python": "UNITS = {'push': 3}"}, "plant.py: UNITS: expected a dict"),
        ({"python": "UNITS = {'pull': 'N'}"}, "UNITS names 'pull', .* it has push"),
        ({"python": "DISTURBANCES = 3"}, "plant.py: DISTURBANCES: expected a dict, got 3"),
        ({"python": "DISTURBANCES = {'a': 3}"}, "DISTURBANCES: 'a': expected a dict with some of"),
        ({"python": "DISTURBANCES = {'a': {'std': 'x'}}"}, "'a': std: expected a number from 0"),
        (
            {"python": "DISTURBANCES = {'a': {'correlation_time': 0}}"},
            "'a': correlation_time: expected seconds above 0, got 0",
        ),
        (
            {"more": KEY.format("nan")},
            "plant.xml: key frame 'home': qpos: expected finite numbers, got nan",
        ),
        (
            {"more": '<motor name="disturbance/push" joint="x" ctrlrange="-1 1"/>'},
            r"two actuators \(without disturbance/\) would be called 'push'",
        ),
    ],
)
def test_bad_plants_are_refused(tmp_path, files, message):
    with pytest.raises(InputError, match=message):
        load_plant(write_plant(tmp_path / "bad", **files))


def test_unknown_names_come_with_the_nearest(tmp_path):
    with pytest.raises(InputError, match=r"no plant named 'quadrotr'.*quadrotor"):
        load_plant("quadrotr")
    with pytest.raises(InputError, match=r"expected a plant folder with a plant.xml"):
        load_plant(tmp_path)


def test_design_variables_stand_in_the_order_of_the_vector(tmp_path):
    python = (
        "DESIGN = (DesignVariable('a', '1', 0.0, 1.0, 0.25),\n"
        "          DesignVariable('b', '1', 0.0, 9.0, 3.0))\n"
        "def apply(spec, design): spec.geom('cart').mass = 1 + design['a'] + 10 * design['b']\n"
    )
    plant = load_plant(write_plant(tmp_path / "p", python=python))
    assert all(isinstance(v, DesignVariable) for v in plant.design)
    assert plant.model.body_mass[1] == pytest.approx(31.25)
    assert plant.compile([0.5, 2.0]).body_mass[1] == pytest.approx(21.5)
