"""Logs and datasets in other formats: read, written, and read again; and a fit to one."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from logs import BARE, CARTPOLE, ONE, SWINGS, cartpole_cells, fly, whole, write_csv

from physai.cli import main
from physai.errors import InputError
from physai.exchange import extra as extras
from physai.exchange.convert import convert_dataset, mapping_text
from physai.exchange.ingest import import_logs
from physai.exchange.mapping import load_mapping
from physai.exchange.windows import ImportSettings
from physai.plant import Plant, load_plant
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.dataset import Dataset, open_dataset
from physai.rollout.store import SPLITS
from physai.surrogate.store import load_surrogate
from physai.task import load_task


@pytest.fixture(scope="module")
def cells(plant: Plant) -> dict[str, np.ndarray]:
    return cartpole_cells(fly(plant, SWINGS))


# Other formats


def write_parquet(path: Path, cells: dict[str, np.ndarray]) -> Path:
    arrow, parquet = extras.extra("pyarrow"), extras.extra("pyarrow.parquet")
    parquet.write_table(arrow.table(cells), path)
    return path


def write_mcap(
    path: Path, cells: dict[str, np.ndarray], start: int = 1_700_000_000_000_000_000
) -> Path:
    """Write a state and an input topic in JSON, as two processes would."""
    buffer = io.BytesIO()
    writer = extras.extra("mcap.writer").Writer(buffer)
    writer.start()
    schema = writer.register_schema("any", "jsonschema", b"{}")
    topics = {t: writer.register_channel(t, "json", schema) for t in ("/state", "/state/input")}
    for i in range(len(cells["t"])):
        stamp = start + round(cells["t"][i] * 1e6)
        state = {"joints": {"position": [cells["x"][i], cells["theta"][i]]}}
        state["joints"]["velocity"] = [cells["v"][i], cells["omega"][i]]
        messages = {"/state": state}
        if np.isfinite(cells["u"][i]):
            messages["/state/input"] = {"u": cells["u"][i]}
        for topic, message in messages.items():
            writer.add_message(topics[topic], stamp, json.dumps(message).encode(), stamp)
    writer.finish()
    path.write_bytes(buffer.getvalue())
    return path


MCAP = (
    CARTPOLE.replace('column = "t"\nunit = "ms"', 'source = "log"')
    .replace('"x"', '"/state.joints.position[0]"')
    .replace('"theta"', '"/state.joints.position[1]"')
    .replace('"v"', '"/state.joints.velocity[0]"')
    .replace('"omega"', '"/state.joints.velocity[1]"')
    .replace('"u"', '"/state/input.u"')
)


def test_csv_parquet_and_mcap_say_the_same(plant, task, tmp_path: Path, cells) -> None:
    (tmp_path / "table.toml").write_text(CARTPOLE)
    (tmp_path / "mcap.toml").write_text(MCAP)
    logs = {
        "csv": write_csv(tmp_path / "a.csv", cells),
        "parquet": write_parquet(tmp_path / "a.parquet", cells),
        "mcap": write_mcap(tmp_path / "a.mcap", cells),
    }
    settings, found = ImportSettings(**ONE, symmetry=False), []
    for name, log in logs.items():
        mapping = tmp_path / ("mcap.toml" if name == "mcap" else "table.toml")
        found.append(import_logs(plant, task, [log], tmp_path / name, mapping, settings))
    first = whole(found[0].dataset)
    for other, _ in found[1:]:
        np.testing.assert_allclose(whole(other).states.qpos, first.states.qpos, atol=1e-6)
        np.testing.assert_allclose(whole(other).actions, first.actions, atol=1e-6)


def test_ros_messages_are_read_by_their_own_stamp(plant, task, tmp_path: Path, cells) -> None:
    text = """std_msgs/Header header
float64[] position
float64 effort
================================================================================
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec"""
    buffer = io.BytesIO()
    writer = extras.extra("mcap_ros2.writer").Writer(buffer)
    schema = writer.register_msgdef("machine_msgs/msg/State", text)
    for i in range(SWINGS):
        sec, nanosec = divmod(round(cells["t"][i] * 1e6), 1_000_000_000)
        message = {
            "header": {"stamp": {"sec": sec, "nanosec": nanosec}, "frame_id": ""},
            "position": [cells["x"][i], cells["theta"][i]],
            "effort": cells["u"][i],
        }
        writer.write_message("/state", schema, message, log_time=7 * i, publish_time=7 * i)
    writer.finish()
    (tmp_path / "a.mcap").write_bytes(buffer.getvalue())
    mapping = BARE.replace('column = "t"\nunit = "ms"', 'source = "header"')
    for old, new in (("x", "position[0]"), ("theta", "position[1]"), ("u", "effort")):
        mapping = mapping.replace(f'"{old}"', f'"/state.{new}"')
    (tmp_path / "mapping.toml").write_text(mapping)
    settings = ImportSettings(**ONE, symmetry=False)
    log, target = tmp_path / "a.mcap", tmp_path / "data"
    _, report = import_logs(plant, task, [log], target, tmp_path / "mapping.toml", settings)
    # The last action holds to the end of its period, but there is no position there.
    assert report["logs"][0]["periods"] == SWINGS - 1
    assert report["logs"][0]["rate_hz"] == pytest.approx(100.0)


def test_protobuf_messages_are_read(plant, task, tmp_path: Path, cells) -> None:
    descriptor = extras.extra("google.protobuf.descriptor_pb2")
    file = descriptor.FileDescriptorProto(name="state.proto", package="machine", syntax="proto3")
    kind = file.message_type.add(name="State")
    field = descriptor.FieldDescriptorProto
    for number, (name, label) in enumerate(
        (("position", field.LABEL_REPEATED), ("effort", field.LABEL_OPTIONAL)), start=1
    ):
        kind.field.add(name=name, number=number, label=label, type=field.TYPE_DOUBLE)
    pool = extras.extra("google.protobuf.descriptor_pool").DescriptorPool()
    pool.Add(file)
    make = extras.extra("google.protobuf.message_factory").GetMessageClass
    state = make(pool.FindMessageTypeByName("machine.State"))
    buffer = io.BytesIO()
    with extras.extra("mcap_protobuf.writer").Writer(buffer) as writer:
        for i in range(SWINGS):
            message = state(position=[cells["x"][i], cells["theta"][i]], effort=cells["u"][i])
            stamp = round(cells["t"][i] * 1e6)
            writer.write_message("/state", message, log_time=stamp, publish_time=stamp)
    (tmp_path / "a.mcap").write_bytes(buffer.getvalue())
    mapping = BARE.replace('column = "t"\nunit = "ms"', 'source = "log"')
    for old, new in (("x", "position[0]"), ("theta", "position[1]"), ("u", "effort")):
        mapping = mapping.replace(f'"{old}"', f'"/state.{new}"')
    (tmp_path / "mapping.toml").write_text(mapping)
    (tmp_path / "table.toml").write_text(BARE)
    table = write_csv(tmp_path / "a.csv", {name: values[:SWINGS] for name, values in cells.items()})
    settings, found = ImportSettings(**ONE, symmetry=False), []
    for name, log in (("mapping", tmp_path / "a.mcap"), ("table", table)):
        mapped = tmp_path / f"{name}.toml"
        found.append(import_logs(plant, task, [log], tmp_path / name, mapped, settings).dataset)
    proto, plain = (whole(dataset) for dataset in found)
    np.testing.assert_allclose(proto.states.qpos, plain.states.qpos, atol=1e-6)
    np.testing.assert_allclose(proto.actions, plain.actions, atol=1e-6)


def test_a_topic_or_field_that_is_not_there_is_refused(plant, task, tmp_path, cells) -> None:
    log = write_mcap(tmp_path / "a.mcap", {name: values[:50] for name, values in cells.items()})
    for old, new, said in (
        ("/state/input.u", "/inputs.u", "no topic for column '/inputs.u'; expected TOPIC.FIELD"),
        ("position[1]", "position[7]", "expected a number in every message, got nothing"),
        ("position[1]", "position", "expected a number in every message, got list"),
        ('source = "log"', 'source = "header"', "expected header.stamp.sec and .nanosec"),
        ('source = "log"', 'column = "t"', 'a.mcap needs source = "log"'),
    ):
        (tmp_path / "mapping.toml").write_text(MCAP.replace(old, new))
        with pytest.raises(InputError, match=re.escape(said)):
            import_logs(plant, task, [log], tmp_path / "data", tmp_path / "mapping.toml")
    (tmp_path / "mapping.toml").write_text(MCAP)


def test_a_damaged_mcap_file_is_refused(plant, task, tmp_path: Path, cells) -> None:
    whole = write_mcap(tmp_path / "a.mcap", cells).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    (tmp_path / "mapping.toml").write_text(MCAP)
    damaged = tmp_path / "b.mcap"
    for content, said in (
        (b"not this", "expected MCAP: InvalidMagic"),
        (b"short", "expected MCAP: error: unpack requires"),
        (b"", "expected MCAP: EndOfFile"),
        (bytes(flipped), "cannot be read to its end"),
    ):
        damaged.write_bytes(content)
        with pytest.raises(InputError, match=f"b.mcap: {said}.*; copy it again, or recover"):
            import_logs(plant, task, [damaged], tmp_path / "data", tmp_path / "mapping.toml")


# Round trips


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    plant = load_plant("quadrotor")
    settings = RolloutSettings(
        train=10, calibration=4, test=4, duration=0.4, designs_per_shard=2, shard_episodes=16
    )
    return collect(plant, load_task(plant), tmp_path_factory.mktemp("r") / "data", settings, 3)


def sorted_episodes(dataset: Dataset) -> tuple[np.ndarray, ...]:
    """All episodes of a dataset, in the order of their first position."""
    parts = [dataset.episodes(split) for split in SPLITS]
    names = ("qpos", "qvel", "act", "command", "design", "time")
    arrays = [np.concatenate([getattr(p.states, n) for p in parts]) for n in names]
    arrays += [np.concatenate([getattr(p, n) for p in parts]) for n in ("actions", "disturbances")]
    arrays.append(np.concatenate([p.length for p in parts]))
    order = np.argsort(arrays[0][:, 0, 0])
    return tuple(values[order] for values in arrays)


@pytest.mark.parametrize("to", ["minari", "csv", "parquet"])
def test_a_dataset_survives_the_round_trip(recorded: Dataset, tmp_path: Path, to: str) -> None:
    plant = load_plant("quadrotor")
    task = load_task(plant)
    told = convert_dataset(plant, task, recorded, to, tmp_path / to)  # type: ignore[arg-type]
    assert told == {"episodes": 18 - recorded.diverged, "steps": recorded.steps}
    source, mapping = tmp_path / to, None
    if to != "minari":
        source, mapping = source / f"episodes.{to}", source / "mapping.toml"
    settings = ImportSettings(duration=0.4, symmetry=False)
    again, _ = import_logs(plant, task, [source], tmp_path / "again", mapping, settings)
    open_dataset(tmp_path / "again", plant)
    exact = to == "minari"
    for before, after in zip(sorted_episodes(recorded), sorted_episodes(again), strict=True):
        # A table's orientations are normalised in float64: one unit in the last place.
        np.testing.assert_allclose(after, before, rtol=0.0 if exact else 2e-7, atol=1e-7)


@pytest.mark.parametrize("to", ["minari", "csv"])
def test_a_plant_without_actuators_survives_the_round_trip(tmp_path: Path, to: str) -> None:
    (tmp_path / "swing.xml").write_text(
        '<mujoco><worldbody><body><joint name="j" axis="0 1 0" damping="0.2"/>'
        '<geom type="capsule" fromto="0 0 0 .4 0 0" size=".03" mass="1"/></body></worldbody>'
        "</mujoco>"
    )
    plant = load_plant(tmp_path / "swing.xml")
    task = load_task(plant)
    settings = RolloutSettings(train=8, calibration=2, test=2, duration=0.4)
    dataset = collect(plant, task, tmp_path / "data", settings, 3)
    convert_dataset(plant, task, dataset, to, tmp_path / to)  # type: ignore[arg-type]
    source = tmp_path / to if to == "minari" else tmp_path / to / "episodes.csv"
    mapping = None if to == "minari" else tmp_path / to / "mapping.toml"
    wanted = ImportSettings(duration=0.4, symmetry=False)
    again, _ = import_logs(plant, task, [source], tmp_path / "again", mapping, wanted)
    for before, after in zip(sorted_episodes(dataset), sorted_episodes(again), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-7)


def test_a_minari_dataset_is_one(recorded: Dataset, tmp_path: Path) -> None:
    plant = load_plant("quadrotor")
    task = load_task(plant)
    convert_dataset(plant, task, recorded, "minari", tmp_path / "minari")
    opened = extras.extra("minari").MinariDataset(tmp_path / "minari" / "data")
    assert opened.total_steps == recorded.steps
    episode, first = opened[0], recorded.episodes("train")
    n = int(first.length[0])
    assert episode.observations.shape == (n + 1, task.no)
    assert opened.observation_space.contains(episode.observations[0])
    np.testing.assert_array_equal(episode.actions, first.actions[0, :n])
    assert episode.rewards.shape == (n,) and (episode.terminations | episode.truncations)[-1]


def test_a_minari_dataset_of_others_needs_a_mapping(recorded, tmp_path: Path, plant, task) -> None:
    quadrotor = load_plant("quadrotor")
    theirs = load_task(quadrotor)
    convert_dataset(quadrotor, theirs, recorded, "minari", tmp_path / "minari")
    with pytest.raises(InputError, match="columns: expected"):
        import_logs(plant, task, [tmp_path / "minari"], tmp_path / "wrong")
    metadata = tmp_path / "minari" / "data" / "metadata.json"
    document = json.loads(metadata.read_text())
    del document["physai"]
    metadata.write_text(json.dumps(document))
    with pytest.raises(InputError, match="was not written by physai; import it with a --mapping"):
        import_logs(quadrotor, theirs, [tmp_path / "minari"], tmp_path / "again")
    lines = ["[time]", "period = 0.02", "[position]"]
    lines += [
        f'root.{a} = {{ column = "infos.qpos[{i}]", unit = "m" }}' for i, a in enumerate("xyz")
    ]
    four = ", ".join(f'"infos.qpos[{i}]"' for i in range(3, 7))
    lines += ["[quaternion]", f'root = {{ columns = [{four}], order = "wxyz" }}', "[action]"]
    lines += [f'rotor_{i + 1} = {{ column = "action[{i}]", unit = "1" }}' for i in range(4)]
    (tmp_path / "mapping.toml").write_text("\n".join(lines))
    settings = ImportSettings(duration=0.4, symmetry=False)
    source, mapping = [tmp_path / "minari"], tmp_path / "mapping.toml"
    again, _ = import_logs(quadrotor, theirs, source, tmp_path / "again", mapping, settings)
    assert again.steps == recorded.steps


def test_something_that_is_no_log_is_refused(plant, task, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    with pytest.raises(InputError, match="no such file, and no Minari dataset of that id"):
        import_logs(plant, task, ["nobody/nothing-v0"], tmp_path / "data")
    with pytest.raises(InputError, match=r"expected a \.csv, \.parquet or \.mcap file"):
        import_logs(plant, task, [tmp_path], tmp_path / "data")


@pytest.mark.parametrize("name", ["cartpole", "quadrotor", "wafer_stage", "halfcar"])
def test_the_mapping_of_a_table_fits_its_plant(name: str, tmp_path: Path) -> None:
    plant = load_plant(name)
    task = load_task(plant)
    (tmp_path / "mapping.toml").write_text(mapping_text(plant, task))
    mapping = load_mapping(tmp_path / "mapping.toml", plant, task)
    assert len(mapping.channels["velocity"]) == plant.model.nv


# From a log to a surrogate


def test_a_surrogate_is_fitted_to_a_log(tmp_path: Path, plant, capsys) -> None:
    (tmp_path / "mapping.toml").write_text(CARTPOLE)
    log = write_csv(tmp_path / "log.csv", cartpole_cells(fly(plant, 3000)))

    def call(*arguments: object) -> dict:
        capsys.readouterr()
        status = main([*map(str, arguments), "--json"])
        shown = capsys.readouterr()
        assert status == 0, shown.err
        return json.loads(shown.out)

    data, fitted = tmp_path / "data", tmp_path / "surrogate"
    told = call("import", "cartpole", log, "--mapping", tmp_path / "mapping.toml", "--out", data)
    # Half a minute at 100 Hz is just enough for what fit and score need by default.
    assert told["episodes"] == {"train": 28, "calibration": 20, "test": 12}
    assert told["steps"] == 3000 and not told["notes"]
    call(
        *("fit", "cartpole", "--dataset", data, "--out", fitted, "--members", 2, "--width", 24),
        *("--steps", 1500, "--calibrated-horizon", 10),
    )
    card = call(
        *("score", "cartpole", "--surrogate", fitted, "--dataset", data),
        *("--out", tmp_path / "score"),
    )
    assert load_surrogate(fitted, plant).members == 2
    # One period ahead it has learned the machine: a constant prediction has 1.
    assert card["nrmse"][0] < 0.3
