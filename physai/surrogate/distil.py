"""Distil a fitted ensemble into one small network that is fast.

The student is a surrogate of one member that shares its teacher's layout, scales, domain and
bounds, but for that on its pace, which is its own. It is trained on the teacher's mean predictions,
which are free at any input, as the teacher was on recorded ones (`physai.surrogate.fit`). Its
intervals are its own, calibrated on episodes that no training saw. It has no readout of sensors.

The teacher is asked at all recorded control periods, and at as many again of which each mixes
three recorded ones i, j, k drawn at random, with u uniform in (0, 1):

    state = s_i (+) u^3 (s_j (-) s_i),      action and disturbance those of k

so that no channel leaves its recorded range, while states meet actions that they never met. Most
are near a recorded one, where flights go; some are anywhere between, where a flight may stray.

References: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015, section 2,
arXiv:1503.02531; Zhang et al., "mixup: beyond empirical risk minimization", 2018, equation 1 for
the inputs, arXiv:1710.09412, here with labels of the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from physai.errors import InputError
from physai.plant import Plant
from physai.progress import Progress, silent
from physai.provenance import (
    Source,
    atomic_folder,
    atomic_write,
    locate,
    read_json,
    write_json,
    write_manifest,
)
from physai.rollout.dataset import Dataset, Episodes
from physai.settings import check_number, check_whole
from physai.state import State, minus, plus
from physai.surrogate.adapt import side_by_side
from physai.surrogate.bounds import recorded
from physai.surrogate.calibration import calibrate
from physai.surrogate.checkpoint import Checkpoints
from physai.surrogate.fit import FitSettings, stage_of, uncalibrated
from physai.surrogate.model import Surrogate
from physai.surrogate.network import apply_ensemble, init_ensemble
from physai.surrogate.pace import paced
from physai.surrogate.prior import periods
from physai.surrogate.release import (
    CURVE,
    KEPT,
    calibrated_on,
    check_lengths,
    curve,
    dataset_roles,
    episodes_of,
    held_out,
    identity_of,
)
from physai.surrogate.store import CARD, load_surrogate, save_surrogate
from physai.surrogate.train import train

FORMAT, RECORD = "physai.distilled/1", "distilled.json"
ASKED = 4096  # inputs that the teacher is asked at once
NEAR = 3  # power that a uniform share of the way to another state is raised to


@dataclass(frozen=True)
class DistilSettings:
    """How to distil.

    Attributes:
        width, depth: of the student.
        steps: optimiser steps on the teacher's predictions, rounded up to a multiple of 250.
        batch: control periods the student sees in a step.
        learning_rate: peak of the cosine schedule of these steps.
        mixed: mixed control periods at which the teacher is asked, per recorded one.
        calibrated_horizon: horizons 1 to this get an interval.
        stride: control periods between the windows that calibration cuts from an episode.
    """

    width: int = 96
    depth: int = 2
    steps: int = 24_000
    batch: int = 1024
    learning_rate: float = 1e-2
    mixed: int = 1
    calibrated_horizon: int = 50
    stride: int = 5

    def __post_init__(self) -> None:
        """Refuse what cannot be distilled."""
        check_whole(self, "width", "depth", "steps", "batch", least=1)
        check_whole(self, "calibrated_horizon", "stride", least=1)
        check_whole(self, "mixed", least=0)
        check_number(self, "learning_rate", above=0.0)

    def training(self) -> FitSettings:
        """Return how a fit would train the student."""
        own = asdict(self)
        return FitSettings(members=1, **{k: own[k] for k in own if k != "mixed"})


def distil(
    plant: Plant,
    surrogate: str | Path,
    datasets: Sequence[Dataset],
    folder: str | Path,
    settings: DistilSettings | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Distil a surrogate on the datasets' training episodes, resumably, and write the student.

    Args:
        plant: the machine.
        surrogate: folder of the teacher.
        datasets: at least one; those that the teacher was fitted to are a good choice.
        folder: of the student.
        settings: how.
        seed: of weights, mixed control periods and batches.
        progress: called as training goes on.

    Returns:
        JSON-ready, also in `folder/distilled.json`: the student's error beside the teacher's.

    Raises:
        InputError: as `load_surrogate` does; the folder is the teacher's own; no dataset, too few
            valid steps, or a damaged training state.
    """
    folder, settings = Path(folder), settings or DistilSettings()
    if locate(folder) == locate(surrogate):
        raise InputError(f"{folder}: expected another folder than that of the surrogate")
    if not datasets:
        raise InputError("distil: expected at least one dataset, got none")
    teacher = load_surrogate(surrogate, plant)
    training, calibration = (episodes_of(datasets, split) for split in ("train", "calibration"))
    check_lengths(calibration, settings.training())
    inputs = distil_inputs(surrogate, datasets)
    identity = identity_of(settings, seed, inputs)
    checkpoints = Checkpoints(folder.with_name(f"{folder.name}.training"), identity)
    student, losses = distil_ensemble(
        teacher, training, calibration, settings, seed, checkpoints, progress
    )
    split, episodes = held_out(datasets)
    both = side_by_side({"teacher": teacher, "student": student}, episodes)
    record = {"format": FORMAT, "split": split, **both}
    card = read_json(Path(surrogate) / CARD)
    about = {key: card[key] for key in KEPT if key in card}
    about["calibration"] = calibrated_on(datasets)
    with atomic_folder(folder) as temporary:
        save_surrogate(temporary, student, plant, about)
        atomic_write(temporary / CURVE, curve(losses))
        write_json(temporary / RECORD, record)
        write_manifest(temporary, "surrogate", inputs, settings, seed, checkpoints.seconds)
    checkpoints.remove()
    return record


def distil_inputs(surrogate: str | Path, datasets: Sequence[Dataset]) -> dict[str, Source]:
    """Return what a student is made from, by role."""
    return {"surrogate": Path(surrogate), **dataset_roles(datasets)}


def distil_ensemble(
    teacher: Surrogate,
    training: Episodes,
    calibration: Episodes,
    settings: DistilSettings,
    seed: int,
    checkpoints: Checkpoints | None = None,
    progress: Progress = silent,
) -> tuple[Surrogate, dict[str, np.ndarray]]:
    """Train a student.

    Args:
        teacher: any surrogate.
        training: episodes that the teacher is asked about.
        calibration: what the intervals are made from.
        settings: how.
        seed: of weights, mixed control periods and batches.
        checkpoints: where to keep the resumable state (None: nowhere).
        progress: called as training goes on.

    Returns:
        The calibrated student, and by stage the geometric mean, over targets and steps, of the
        relative squared error of each 250 steps.
    """
    key = jax.random.key(seed)
    architecture = replace(teacher.architecture, width=settings.width, depth=settings.depth)
    student = replace(
        teacher,
        parameters=init_ensemble(architecture, 1, jax.random.fold_in(key, 0)),
        architecture=architecture,
        bounds=replace(teacher.bounds, pace=None),
        calibration=uncalibrated(teacher.layout),
        readout=None,
    )
    told = jax.device_get(lessons(teacher, training, settings, seed))
    stage = stage_of(student, told, settings.training())
    kept = checkpoints or Checkpoints(None)
    parameters, losses = train(student.parameters, stage, key, kept, progress)
    student = replace(student, parameters=parameters)
    progress("calibrate", 0, 1)
    flown = settings.calibrated_horizon, settings.stride
    velocity = recorded(student.layout, student.known, training)[1]
    student = paced(student, velocity, calibration, *flown)
    intervals = calibrate(student, calibration, *flown)
    progress("calibrate", 1, 1)
    return replace(student, calibration=intervals), losses


def lessons(
    teacher: Surrogate, training: Episodes, settings: DistilSettings, seed: int
) -> tuple[jax.Array, jax.Array]:
    """Return normalised inputs `[N, ni]`, recorded and mixed, and the teacher's targets `[N, nt]`.

    The targets are the mean of the members', within `Normaliser.target_limit`.
    """
    before, actions, disturbances, _ = periods(training)
    recorded = (before, actions, disturbances)
    parts: list[tuple[State, Any, Any]] = [recorded]
    for number in range(settings.mixed):
        rng = np.random.default_rng((seed, number))
        parts.append(mixed(teacher, recorded, rng))
    limit = teacher.normaliser.target_limit

    def ask(period: tuple[State, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x = teacher.normalised_inputs(*period)
        mean = jnp.mean(apply_ensemble(teacher.architecture, teacher.parameters, x), axis=0)
        return x, jnp.clip(mean, -limit, limit)

    asked = jax.jit(lambda every: jax.lax.map(ask, every, batch_size=ASKED))
    answers = [asked(jax.tree.map(jnp.asarray, part)) for part in parts]
    return jax.tree.map(lambda *x: jnp.concatenate(x), *answers)


def mixed(
    teacher: Surrogate,
    recorded: tuple[State, np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> tuple[State, jax.Array, jax.Array]:
    """Return as many control periods as were recorded, each mixed of three of them.

    Args:
        teacher: whose joints these are.
        recorded: states `[N, ...]`, actions `[N, nu]`, disturbances `[N, nw]`.
        rng: of the draws.
    """
    states, actions, disturbances = recorded
    other, driven = (rng.permutation(len(actions)) for _ in range(2))
    way = rng.uniform(0.0, 1.0, (len(actions), 1)).astype(np.float32) ** NEAR
    return (
        _between(teacher, states, states[other], way),
        jnp.asarray(actions[driven]),
        jnp.asarray(disturbances[driven]),
    )


@jax.jit
def _between(teacher: Surrogate, start: State, to: State, way: jax.Array) -> State:
    """Return states `[N, ...]` a share `[N, 1]` of the way from one to another."""
    joints = teacher.layout.joints
    along = jax.tree.map(
        lambda a, b: a + way[:, 0] * (b - a) if a.ndim == 1 else a + way * (b - a), start, to
    )
    turned = plus(joints, start.qpos, way * minus(joints, to.qpos, start.qpos))
    return along.replace(qpos=turned)
