"""Release open weights of every shipped machine: an ensemble and its student, without the dataset.

For each plant, with default settings: episodes, an ensemble, its report card, a student distilled
from it, and the student's report card; then all but the episodes go to `checkpoints/PLANT/NAME/`,
with a card. Refuses code that is not committed. The quadrotor's checkpoint holds a policy as well
and is made by `release_checkpoint.py`.

    python experiments/release_surrogates.py                     # some minutes a plant
    python experiments/release_surrogates.py --plants hopper
    python experiments/release_surrogates.py --smoke             # a minute, nothing is released

What is finished is not done again, and a plant that has its checkpoint is left alone.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import tyro

from physai.errors import InputError
from physai.plant import Plant, load_plant
from physai.plant.load import plants_folder
from physai.provenance import atomic_folder, check_chain, read_manifest
from physai.provenance.storage import read_json
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.dataset import Dataset, open_dataset
from physai.surrogate.distil import DistilSettings, distil
from physai.surrogate.fit import FitSettings
from physai.surrogate.release import fit, write_score
from physai.task import load_task

PARTS = ("surrogate", "score", "student", "student-score")


@dataclass(frozen=True)
class Settings:
    """What to release."""

    plants: tuple[str, ...] = ()
    """Names of shipped plants (empty: all that have no checkpoint of this name)."""
    name: str = "v1"
    """Name of the checkpoints."""
    seed: int = 0
    """Of data, weights and batches."""
    runs: Path = Path("runs/release_surrogates")
    """Where everything is made."""
    checkpoints: Path = Path("checkpoints")
    """Where checkpoints are kept."""
    smoke: bool = False
    """One plant, little training, nothing is released."""


def main(settings: Settings) -> int:
    """Release; return 0, or 1 with the reason where something cannot be released."""
    if settings.smoke:
        settings = replace(settings, plants=("cartpole",), runs=settings.runs / "smoke")
    shipped = sorted(p.name for p in plants_folder().iterdir() if (p / "task.py").is_file())
    for name in settings.plants or shipped:
        if (settings.checkpoints / name / settings.name).exists():
            continue
        folder, plant = settings.runs / name, load_plant(name)
        make(settings, plant, folder)
        if settings.smoke:
            print(card(settings, plant, folder))
            continue
        if problem := problem_of(folder):
            print(f"cannot release {name}: {problem}", file=sys.stderr)
            return 1
        print(release(settings, plant, folder), flush=True)
        jax.clear_caches()  # else the process runs out of maps of memory
    return 0


def make(settings: Settings, plant: Plant, folder: Path) -> None:
    """Make what is not there yet: episodes, ensemble, student, report cards."""
    rollout, fitting, teaching = RolloutSettings(), FitSettings(), DistilSettings()
    if settings.smoke:
        rollout = replace(rollout, train=64, calibration=32, test=32)
        fitting = replace(fitting, members=2, steps=250)
        teaching = replace(teaching, steps=250)
    data = collect(plant, load_task(plant), folder / "dataset", rollout, settings.seed)
    if not (folder / "surrogate").exists():
        fit(plant, [data], folder / "surrogate", fitting, settings.seed)
    student_of(plant, folder, data, teaching, settings.seed)
    if not (folder / "score").exists():
        write_score(plant, folder / "surrogate", [data], folder / "score")


def student_of(
    plant: Plant, folder: Path, data: Dataset, settings: DistilSettings, seed: int
) -> None:
    """Distil the surrogate of a folder, and score the student."""
    if not (folder / "student").exists():
        distil(plant, folder / "surrogate", [data], folder / "student", settings, seed)
    if not (folder / "student-score").exists():
        write_score(plant, folder / "student", [data], folder / "student-score")


def problem_of(folder: Path) -> str:
    """Say why what is in a folder cannot be released; nothing where it can."""
    for part in PARTS:
        if broken := [link for link in check_chain(folder / part) if not link.ok]:
            return f"{broken[0].path}: {broken[0].detail}"
        if read_manifest(folder / part)["git"]["dirty"] is not False:
            return f"{folder / part} was made from code that is not committed"
    return ""


def release(settings: Settings, plant: Plant, folder: Path) -> Path:
    """Copy the parts and write the card; return the checkpoint."""
    target = settings.checkpoints / plant.name / settings.name
    with atomic_folder(target) as temporary:
        for part in PARTS:
            shutil.copytree(folder / part, temporary / part)
        (temporary / "README.md").write_text(card(settings, plant, folder))
    return target


def card(settings: Settings, plant: Plant, folder: Path) -> str:
    """Return the card: context of use, errors, domain, limits, data and training, licence."""
    manifest = read_manifest(folder / "surrogate")
    about = read_json(folder / "surrogate" / "surrogate.json")
    scores = [read_json(folder / part / "score.json") for part in ("score", "student-score")]
    versions = ", ".join(f"{n} {manifest['versions'][n]}" for n in ("python", "jax", "mujoco"))
    data = open_dataset(folder / "dataset", plant)
    steps = ", ".join(f"{split} {c['valid_steps']:,}" for split, c in data.counts.items())
    explained = about["equations_explain"]
    share = max(explained or 0.0, 0.0)
    told = f"explain {100 * share:.1f}%" if share else "explain nothing"
    used = "used" if about["layout"]["equations"] else "not used"
    where = f"checkpoints/{plant.name}/{settings.name}"
    rollout = f"physai rollout {plant.name} --out {where}/dataset --seed {settings.seed}"
    return f"""# {plant.name}: surrogate and student

An ensemble of {about["members"]} networks that predicts this machine's next state with a calibrated
90% interval, and a student of one network distilled from it. Made by
`python experiments/release_surrogates.py --plants {plant.name}`, seed {settings.seed}, of commit
`{manifest["git"]["commit"]:.12}` with {versions}.

**Context of use.** Simulation, learning and control of the shipped plant `{plant.name}`
(`{plant.sha256[:12]}`) inside its operating domain, and a start for `physai fit --from`. Not for a
real machine: simulator against reality was not compared.

**Errors**, open loop on {data.counts["test"]["episodes"]} episodes that no training saw: nRMSE, and
what 90% intervals cover.

{errors(*scores)}

**Domain.** The ranges and units of {len(about["inputs"])} inputs are in `surrogate/surrogate.json`;
outside, the environment can abstain or fall back to MuJoCo.

**Limits.** Episodes of noise around the task's starts, no policy's: recalibrate
(`physai recalibrate`) before a policy's own flights are judged. The model's own equations {told}
of the velocity changes and are {used}.

**Data and training.** Valid control steps of {plant.control_period:g} s: {steps}. Settings, seeds
and hashes are in the manifests; the dataset is not shipped. These commands make it again, bit for
bit on a machine like the one it came from, and check the chain with it:

```sh
{rollout}
physai check {where}/student-score
```

**Licence.** Apache 2.0, as the project.
"""


def errors(teacher: dict[str, Any], student: dict[str, Any]) -> str:
    """Return a table of errors and coverage by horizon, beside the baselines."""
    lines = ["| steps ahead | ensemble | covers | student | covers | ridge | persistence |"]
    lines.append("|---|---|---|---|---|---|---|")
    for i, horizon in enumerate(teacher["horizons"]):
        told = [
            text
            for each in (teacher, student)
            for text in (percent(each["nrmse"][i]), f"{100 * each['coverage'][i]:.1f}%")
        ]
        told += [percent(teacher["baselines"][name][i]) for name in ("ridge", "persistence")]
        lines.append(f"| {horizon} | {' | '.join(told)} |")
    return "\n".join(lines)


def percent(share: float) -> str:
    """Return a share as a percentage with three digits that count."""
    return f"{100 * share:.3g}%"


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(Settings, description=__doc__)))
    except InputError as error:
        sys.exit(f"release_surrogates: {error}")
