"""The training loop: any number of devices, stopped anywhere, the same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from physai.plant import load_plant
from physai.progress import silent
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.dataset import open_dataset
from physai.surrogate.checkpoint import Checkpoints
from physai.surrogate.devices import divide
from physai.surrogate.fit import FitSettings
from physai.surrogate.network import Parameters
from physai.surrogate.release import fit
from physai.surrogate.train import CHUNK, Objective, Stage, train
from physai.task import load_task

ROOT = Path(__file__).parents[1]
SPRING = (
    "<mujoco><option timestep='0.01'/><worldbody><body>"
    "<joint name='x' type='slide' axis='1 0 0' stiffness='40' damping='0.5'/>"
    "<geom size='0.1' mass='1'/></body></worldbody>"
    "<actuator><motor name='push' joint='x' ctrlrange='-5 5'/></actuator></mujoco>"
)
TINY = FitSettings(
    *(2, 16, 1, 2 * CHUNK),
    equations=False,
    batch=32,
    learning_rate=3e-3,  # at 1e-2 rounding grows a thousandfold within these steps
    calibrated_horizon=3,
)
MEMBERS, BATCH = 2, 64
WEIGHTS = np.array([[1.0, -2.0], [0.5, 0.0], [3.0, 0.25]], np.float32)


def recovery() -> Stage:
    """Return what recovers `WEIGHTS` from inputs and targets without noise."""
    x = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)

    def draw(key: jax.Array, data: Any) -> jax.Array:
        return jax.random.randint(key, (BATCH,), 0, len(data[0]))

    def loss(member: Parameters, index: jax.Array, data: Any) -> jax.Array:
        return jnp.mean(jnp.square(data[0][index] @ member["w"] - data[1][index]))

    objective, data = Objective(BATCH, draw, loss), (x, x @ WEIGHTS)
    rate = optax.cosine_decay_schedule(3e-2, 5 * CHUNK)
    return Stage("fit", 5 * CHUNK, optax.adam(rate), objective, data)


def trained(folder: Path | None, progress: Any = silent) -> np.ndarray:
    """Return the members' weights `[members, 3, 2]`."""
    begun = {"w": jax.random.normal(jax.random.key(1), (MEMBERS, *WEIGHTS.shape))}
    checkpoints = Checkpoints(folder, {"seed": 0})
    return np.asarray(train(begun, recovery(), jax.random.key(0), checkpoints, progress)[0]["w"])


@pytest.fixture(scope="module")
def straight() -> np.ndarray:
    return trained(None)


def test_training_recovers_what_made_the_targets(straight: np.ndarray) -> None:
    np.testing.assert_allclose(straight, np.stack([WEIGHTS] * MEMBERS), atol=1e-4)
    assert np.abs(straight[0] - straight[1]).max() > 0.0


@pytest.mark.parametrize(
    ("members", "batch", "devices", "shape"),
    [
        (4, 256, 1, (1, 1)),
        (4, 256, 4, (4, 1)),
        (4, 256, 8, (4, 2)),
        (2, 256, 8, (2, 4)),
        (8, 256, 4, (4, 1)),
        (6, 256, 4, (2, 2)),  # 3 along members would leave one device over
        (3, 8, 5, (1, 4)),
        (4, 256, 6, (4, 1)),  # 2 x 2 is as many, but exchanges gradients
        (5, 7, 4, (1, 1)),
        (1, 1, 8, (1, 1)),
    ],
)
def test_devices_are_divided_over_members_first(
    members: int, batch: int, devices: int, shape: tuple[int, int]
) -> None:
    assert divide(members, batch, devices) == shape


def stop_at(name: str, chunk: int) -> Any:
    def progress(stage: str, done: int, total: int) -> None:
        if (stage, done) == (name, chunk):
            raise KeyboardInterrupt

    return progress


def test_a_training_stopped_at_every_boundary_goes_on_to_the_same_bits(
    straight: np.ndarray, tmp_path: Path
) -> None:
    """Each call goes on where the last one stopped."""
    places = [("fit", 1), ("fit", 2), ("fit", 4)]
    for place in places:
        seen: list[tuple[str, int]] = []

        def progress(stage: str, done: int, total: int, place=place, seen=seen) -> None:
            seen.append((stage, done))
            stop_at(*place)(stage, done, total)

        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path, progress)
        assert len(seen) <= 4  # nothing that was saved is trained again
    np.testing.assert_array_equal(trained(tmp_path), straight)


def python(code: str, *arguments: str | Path, devices: int = 1) -> subprocess.CompletedProcess[str]:
    """Run a program that finds this module's functions as `t`, on so many devices."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    return subprocess.run(
        [sys.executable, "-c", f"import sys, test_train as t\n{code}", *map(str, arguments)],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )


KILLED = """
import os, signal
from pathlib import Path
from physai.surrogate import checkpoint

checkpoint.SECONDS_BETWEEN_SAVES = 0.0
renamed = []

def watch(event, arguments):
    if event == "os.rename" and Path(arguments[1]).parent.name == "fit":
        renamed.append(arguments)
        if len(renamed) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
t.trained(Path(sys.argv[1]))
"""


def test_a_training_killed_while_it_saves_goes_on_to_the_same_bits(
    straight: np.ndarray, tmp_path: Path
) -> None:
    """The second save is written, and killed before it gets its name: the first one counts."""
    done = python(KILLED, tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = sorted(path.name for path in (tmp_path / "fit").iterdir())
    assert left[0] == "1" and len(left) == 2 and left[1].startswith("2.")
    seen: list[tuple[str, int]] = []
    np.testing.assert_array_equal(
        trained(tmp_path, lambda stage, done, total: seen.append((stage, done))), straight
    )
    assert seen[0] == ("fit", 1)


FOUR = """
import json
from pathlib import Path
import jax
from physai.surrogate import train

out, said = Path(sys.argv[1]), {"devices": jax.device_count()}
original = train._chunk

def chunk(*made_of):
    compiled = []

    def run(*arguments):
        if not compiled:
            compiled.append(original(*made_of).lower(*arguments).compile())
            said["text"] = compiled[0].as_text()
        state = compiled[0](*arguments)
        said["held"] = [s.data.shape for s in state.parameters["w"].addressable_shards]
        return state

    return run

train._chunk = chunk
try:
    t.trained(out / "training", t.stop_at("fit", 4))
except KeyboardInterrupt:
    pass
train._chunk = original
t.fit_spring(out, "on-4")
print(json.dumps(said))
"""


def fit_spring(folder: Path, name: str, progress: Any = silent) -> None:
    """Fit to the spring's dataset in a folder."""
    plant = load_plant(folder / "spring.xml")
    data = open_dataset(folder / "data", plant)
    fit(plant, [data], folder / name, TINY, seed=1, progress=progress)


@pytest.fixture(scope="module")
def on_four(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return what four devices left in a folder, and what they said of themselves."""
    folder = tmp_path_factory.mktemp("four")
    (folder / "spring.xml").write_text(SPRING)
    plant = load_plant(folder / "spring.xml")
    settings = RolloutSettings(train=64, calibration=32, test=1)
    collect(plant, load_task(plant), folder / "data", settings, 0)
    with pytest.raises(KeyboardInterrupt):
        trained(folder / "training", stop_at("fit", 2))
    done = python(FOUR, folder, devices=4)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


def test_the_computation_is_divided(on_four: tuple[Path, dict[str, Any]]) -> None:
    """Each of 2 x 2 devices holds one member, and computes on half of its batch."""
    said = on_four[1]
    assert said["devices"] == 4 and said["held"] == [[1, *WEIGHTS.shape]] * 4
    assert f"[1,{BATCH // 2}" in said["text"] and f"[{MEMBERS},{BATCH}" not in said["text"]


def test_a_training_goes_on_with_another_number_of_devices(
    on_four: tuple[Path, dict[str, Any]], straight: np.ndarray
) -> None:
    """Begun on one device, continued on four, finished on one."""
    seen: list[tuple[str, int]] = []
    weights = trained(on_four[0] / "training", lambda stage, done, _: seen.append((stage, done)))
    assert seen[0] == ("fit", 4)
    np.testing.assert_allclose(weights, straight, atol=1e-6)


@pytest.fixture(scope="module")
def on_one(on_four: tuple[Path, dict[str, Any]]) -> Path:
    fit_spring(on_four[0], "on-1")
    return on_four[0] / "on-1"


def test_an_interrupted_fit_resumes_to_the_same_bits(on_one: Path) -> None:
    """Ctrl-C in the training and before calibration, then the same call."""
    target = on_one.with_name("interrupted")
    for place in (("fit", 1), ("calibrate", 0)):
        with pytest.raises(KeyboardInterrupt):
            fit_spring(target.parent, target.name, stop_at(*place))
        assert not target.exists()
    fit_spring(target.parent, target.name, stop_at("fit", 1))  # which is over
    weights = "surrogate.safetensors"
    assert (target / weights).read_bytes() == (on_one / weights).read_bytes()
    assert not target.with_name("interrupted.training").exists()


def test_a_surrogate_fitted_on_four_devices_is_that_of_one(
    on_four: tuple[Path, dict[str, Any]], on_one: Path
) -> None:
    folder = on_four[0]
    one, four = (load_file(folder / name / "surrogate.safetensors") for name in ("on-1", "on-4"))
    for name in one:
        np.testing.assert_allclose(four[name], one[name], rtol=1e-4, atol=1e-5, err_msg=name)
    curves = [
        np.loadtxt(folder / name / "fit.csv", delimiter=",", skiprows=1, usecols=2)
        for name in ("on-1", "on-4")
    ]
    np.testing.assert_allclose(*curves, rtol=1e-4)
    assert not np.array_equal(one["parameters.readout.kernel"], four["parameters.readout.kernel"])
    card = json.loads((folder / "on-4" / "surrogate.json").read_text())
    assert card["devices"] == {
        "platform": "cpu",
        "local": 4,
        "mesh": {"members": 2, "batch": 2},
    }
