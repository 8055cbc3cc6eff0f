"""Minari datasets: offline reinforcement learning's format, read and written.

What is written holds, an episode: observations, actions and rewards of the task, and, so that
nothing is lost, the full state in `infos`: qpos, qvel, act, time, command, design and disturbance
(that which acted during the period that begins there; the last row is 0). It is read back without a
mapping file. A dataset of others is a table a episode, with the columns `observation[i]` (or
`observation.KEY[i]`), `action[i]` and `infos.KEY[i]`, and needs one.

Reference: Younis et al., "Minari", 2024, Farama Foundation, minari.farama.org.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np

from physai.errors import InputError
from physai.exchange.extra import extra
from physai.exchange.logs import Log, check_columns, table_log
from physai.exchange.mapping import ColumnMap
from physai.exchange.resample import Recording
from physai.plant import Plant
from physai.progress import Progress
from physai.rollout.dataset import Dataset, Episodes
from physai.rollout.store import SPLITS, columns
from physai.state import State
from physai.task import Task

STATE = ("qpos", "qvel", "act", "time", "command", "design", "disturbance")
_KEY = "physai"


def minari_folder(path: Path) -> Path:
    """Return the folder of a Minari dataset: this one, or that of the local dataset of this id.

    Raises:
        InputError: there is neither; nothing is downloaded.
    """
    if (path / "data" / "metadata.json").is_file():
        return path
    if path.exists():
        raise InputError(
            f"{path}: expected a .csv, .parquet or .mcap file, or the folder of a Minari dataset"
        )
    local = Path(extra("minari.storage").get_dataset_path(path.as_posix()))
    if (local / "data" / "metadata.json").is_file():
        return local
    raise InputError(
        f"{path}: no such file, and no Minari dataset of that id in {local.parent}; "
        "`minari download` fetches one"
    )


def write_minari(
    dataset: Dataset, plant: Plant, task: Task, folder: Path, progress: Progress
) -> int:
    """Write all episodes of a dataset in Minari's format into an empty folder.

    Returns:
        The number of episodes.
    """
    minari = extra("minari")
    storage = extra("minari.dataset.minari_storage").MinariStorage
    low, high = _bounds(task.observations)
    action_low, action_high = _bounds(plant.actions)
    (folder / "data").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an infinite bound is a bound
        store = storage.new(
            folder / "data",
            observation_space=gymnasium.spaces.Box(low, high, dtype=np.float32),
            action_space=gymnasium.spaces.Box(action_low, action_high, dtype=np.float32),
            data_format="hdf5",
        )
    store.update_metadata(
        {
            "dataset_id": f"physai/{_word(plant.name)}-v0",
            "minari_version": minari.__version__,
            "algorithm_name": "physai rollout",
            "description": f"episodes of {plant.name}, recorded by physai; SI units",
            "author": {"physai"},
            _KEY: _origin(dataset, plant, task),
        }
    )
    buffers = _buffers(dataset, task, low, high, minari.data_collector.EpisodeBuffer)
    store.update_episodes(_counted(buffers, dataset, progress))
    return sum(count["episodes"] for count in dataset.counts.values())


def _bounds(channels: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return low and high ends `[n]` of channels, float32; there may be none."""
    low, high = ([getattr(c, end) for c in channels] for end in ("low", "high"))
    return np.array(low, np.float32), np.array(high, np.float32)


def _word(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)


def _origin(dataset: Dataset, plant: Plant, task: Task) -> dict[str, Any]:
    return {
        "plant": plant.name,
        "plant_sha256": plant.sha256,
        "mujoco": dataset.meta["mujoco"],
        "control_period": plant.control_period,
        "columns": columns(plant, task),
        "observations": [[c.name, c.unit] for c in task.observations],
        "splits": {split: dataset.counts[split]["episodes"] for split in SPLITS},
    }


def _buffers(
    dataset: Dataset, task: Task, low: np.ndarray, high: np.ndarray, buffer: Any
) -> Iterator[Any]:
    judge = jax.jit(jax.vmap(lambda s, a, n: (task.reward(s, a, n), task.terminated(n))))
    observe = jax.jit(jax.vmap(task.observe))
    for split in SPLITS:
        episodes = dataset.episodes(split)
        for i, length in enumerate(episodes.length.tolist()):
            states, actions = episodes.states[i], episodes.actions[i]
            # All episodes have one shape before they are cut, so that each is compiled once.
            now, then = states[:-1], states[1:]
            rewards, terminated = (np.asarray(x) for x in judge(now, actions, then))
            ended = terminated[:length].copy()
            ended[:-1] = False
            truncated = np.zeros(length, bool)
            truncated[-1:] = not ended[-1:].any()
            yield buffer(
                observations=np.clip(np.asarray(observe(states)), low, high)[: length + 1],
                actions=actions[:length],
                rewards=rewards[:length].astype(np.float32),
                terminations=ended,
                truncations=truncated,
                infos=_infos(states[: length + 1], episodes, i, length),
            )


def _infos(states: State, episodes: Episodes, i: int, length: int) -> dict[str, np.ndarray]:
    disturbance = np.zeros((length + 1, episodes.disturbances.shape[-1]), np.float32)
    disturbance[:length] = episodes.disturbances[i, :length]
    found = {name: np.asarray(getattr(states, name)) for name in STATE[:-1]}
    # HDF5 has no chunks of nothing: what has no columns is left out.
    return {n: v for n, v in {**found, "disturbance": disturbance}.items() if v.size}


def _counted(buffers: Iterator[Any], dataset: Dataset, progress: Progress) -> Iterator[Any]:
    total = sum(count["episodes"] for count in dataset.counts.values())
    progress("convert", 0, total)
    for number, buffer in enumerate(buffers, start=1):
        yield buffer
        progress("convert", number, total)


def read_minari(folder: Path, plant: Plant, task: Task) -> tuple[list[Recording], list[str]]:
    """Read a Minari dataset that physai wrote, and what the user may want to know of it.

    Raises:
        InputError: it was not written by physai, or for a machine with other channels or another
            control period.
    """
    opened = _open(folder)
    origin = opened.storage.metadata.get(_KEY)
    if origin is None:
        raise InputError(f"{folder}: was not written by physai; import it with a --mapping")
    wanted = {"columns": columns(plant, task), "control_period": plant.control_period}
    for name, value in wanted.items():
        if origin[name] != _listed(value):
            raise InputError(
                f"{folder}: {name.replace('_', ' ')}: expected {_listed(value)} of {plant.name}, "
                f"got {origin[name]} of {origin['plant']}"
            )
    notes = []
    if origin["plant_sha256"] != plant.sha256:
        notes.append(f"{folder.name}: the files of {plant.name} have changed since it was recorded")
    return [_recording(episode, folder.name, plant, task) for episode in opened], notes


def _listed(value: Any) -> Any:
    """Return a value as JSON gives it back."""
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


def _recording(episode: Any, name: str, plant: Plant, task: Task) -> Recording:
    widths = {array: len(named) for array, named in columns(plant, task).items()}
    n = len(episode.actions)
    infos = {
        key: np.asarray(episode.infos.get(key, np.zeros((n + 1, widths.get(key, 0)))))
        for key in STATE
    }
    return Recording(
        source=f"{name}, episode {episode.id}",
        arrays={
            **{key: infos[key] for key in ("qpos", "qvel", "act")},
            "action": np.asarray(episode.actions),
            "disturbance": infos["disturbance"][:n],
            "command": infos["command"][0],
            "design": infos["design"][0],
        },
        start=float(infos["time"][0]),
        terminated=bool(episode.terminations[-1]),
    )


def minari_logs(folder: Path, mapping: ColumnMap) -> list[Log]:
    """Read a Minari dataset of others: a table an episode.

    Raises:
        InputError: it lacks a column, or the mapping does not tell the period.
    """
    time, found = mapping.time, []
    if time.source or mapping.episode:
        raise InputError(f"{mapping.path}: a Minari dataset needs [time] period or column alone")
    for episode in _open(folder):
        cells = dict(_cells("observation", episode.observations))
        rows = len(next(iter(cells.values())))
        cells |= _cells("action", episode.actions)
        cells |= _cells("infos", episode.infos or {})
        # An action has no row at the last moment.
        cells = {k: np.pad(v, (0, rows - len(v)), constant_values=np.nan) for k, v in cells.items()}
        wanted = [*filter(None, [time.column]), *mapping.columns]
        check_columns(wanted, sorted(cells), str(folder))
        seconds = np.arange(rows) * time.period
        if time.column:
            seconds = cells[time.column] * _second(mapping)
        chosen = {column: cells[column] for column in mapping.columns}
        found.append(table_log(f"{folder.name}, episode {episode.id}", seconds, chosen, 0))
    return found


def _second(mapping: ColumnMap) -> float:
    from physai.exchange.units import convert

    return float(convert(1.0, mapping.time.unit or "s", "s", f"{mapping.path}: [time]"))


def _cells(prefix: str, values: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the columns of nested arrays: a time series of scalars or vectors each."""
    if isinstance(values, Mapping):
        for key, inner in values.items():
            yield from _cells(f"{prefix}.{key}", inner)
        return
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" or array.ndim == 0:
        return
    if array.ndim == 1:
        yield prefix, array.astype(float)
        return
    flat = array.reshape(len(array), -1).astype(float)
    for i in range(flat.shape[1]):
        yield f"{prefix}[{i}]", flat[:, i]


def _open(folder: Path) -> Any:
    minari = extra("minari")
    try:
        return minari.MinariDataset(folder / "data")
    except (OSError, ValueError, KeyError, AssertionError, ImportError) as error:
        raise InputError(f"{folder}: Minari cannot open it: {error}") from error
