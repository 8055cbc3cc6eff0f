"""Does a tenth of the data do for a variant, where a surrogate of the machine is at hand?

For every plant a variant is made of its folder, with a payload or springs that the design variables
do not reach (`VARIANTS` tells what is changed), and 100,000 control steps of it are collected, as
many as the released surrogate of the machine was fitted to. On test episodes are then compared:

    from scratch on all, from scratch on a tenth, the released one as it is, fine-tuned on a tenth

by their open-loop error at 1, 10 and 50 control periods and the seconds of the fit. The tenth is of
training and calibration episodes. A plant that has its rows is not done again.

    python experiments/fine_tune.py --plants quadrotor hopper     # some minutes each
    python experiments/fine_tune.py --smoke                       # a minute, and no table
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import table
import tyro

from physai.plant import Plant, load_plant
from physai.rollout.collect import RolloutSettings, collect
from physai.rollout.dataset import Dataset, Episodes
from physai.surrogate.adapt import going_on, side_by_side
from physai.surrogate.features import layout_of
from physai.surrogate.fit import FitSettings, fit_ensemble
from physai.surrogate.inherit import open_start
from physai.surrogate.model import Surrogate
from physai.surrogate.prior import prior
from physai.task import load_task


@dataclass(frozen=True)
class Variant:
    """What is changed in a plant.

    Attributes:
        told: in words.
        after: statements at the end of `apply(spec, design)`.
        text: replacements in plant.py, each found exactly once.
        model: the same in plant.xml.
    """

    told: str
    after: str = ""
    text: tuple[tuple[str, str], ...] = ()
    model: tuple[tuple[str, str], ...] = ()


VARIANTS = {
    "quadrotor": Variant(
        "0.4 kg more payload, 30% of the nominal mass (design: 0 to 0.6 kg)",
        "spec.geom('payload').mass += 0.4",
    ),
    "rocket": Variant(
        "131 kg payload at the hull's mass centre, 30% of the full mass (no design variable)",
        text=(("DRY_MASS, DRY_CENTRE = 25.6, 1.7", "DRY_MASS, DRY_CENTRE = 156.6, 1.7"),),
        model=(('<inertial mass="25.6"', '<inertial mass="156.6"'),),
    ),
    "arm": Variant(
        "1.5 kg more payload, 30% of the design's largest (design: 0 to 5 kg)",
        "spec.geom('payload').mass += 1.5",
    ),
    "hopper": Variant(
        "1.65 kg more torso, 30% of the design's largest (design: 2.5 to 5.5 kg)",
        "spec.geom('torso_geom').mass = design['torso_mass'] + 1.65",
    ),
    "halfcheetah": Variant(
        "springs of all joints 30% stiffer (no design variable)",
        "for joint in spec.joints:\n        joint.stiffness[0] *= 1.3",
    ),
    "flexwing": Variant(
        "springs of wing bending and torsion 30% stiffer (design: 1 to 3 times)",
        "for joint in spec.joints:\n        joint.stiffness[0] *= 1.3",
    ),
    "wafer_stage": Variant(
        "chuck 30% heavier on the same flexure (no design variable)",
        "spec.geom('chuck').mass *= 1.3",
    ),
    "satellite": Variant(
        "panels 30% heavier on the same springs (no design variable)",
        "for side in (1, 2):\n        spec.geom(f'panel_{side}').mass *= 1.3",
    ),
}


@dataclass(frozen=True)
class Settings:
    """What to compare."""

    plants: tuple[str, ...] = tuple(VARIANTS)
    """Names of shipped plants that have a variant."""
    seed: int = 0
    """Of data, weights and batches."""
    share: float = 0.1
    """Of the variant's training and calibration episodes that fine-tuning sees."""
    name: str = "v1"
    """Of the checkpoints."""
    checkpoints: Path = Path(__file__).parents[1] / "checkpoints"
    """Where they are."""
    data: Path = Path("runs/fine_tune")
    """Where variants and datasets are kept."""
    out: Path = Path(__file__).parent / "results" / "fine_tune.csv"
    """The table."""
    smoke: bool = False
    """One plant, little data, no table."""


def main(settings: Settings) -> None:
    """Compare, and write the rows of a plant."""
    rows = table.read(settings.out)
    done = {(row["plant"], int(row["seed"])) for row in rows}
    for name in ("quadrotor",) if settings.smoke else settings.plants:
        if settings.smoke or (name, settings.seed) not in done:
            rows += compare(settings, name)
            if not settings.smoke:
                table.write(settings.out, rows)
            jax.clear_caches()  # else the process runs out of maps of memory


def variant_of(name: str, folder: Path) -> Plant:
    """Write the folder of a plant's variant, and load it."""
    change, original = VARIANTS[name], load_plant(name).folder
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file, edits in (("plant.py", change.text), ("plant.xml", change.model)):
        for old, new in edits:
            text = (folder / file).read_text()
            if text.count(old) != 1:
                raise SystemExit(f"{name}: {file}: expected {old!r} once")
            (folder / file).write_text(text.replace(old, new))
    if change.after:
        with (folder / "plant.py").open("a") as file:
            file.write(
                "\n\n_of_the_original = apply\n\n\ndef apply(spec, design):\n"
                f"    _of_the_original(spec, design)\n    {change.after}\n"
            )
    return load_plant(folder)


def compare(settings: Settings, name: str) -> list[dict[str, Any]]:
    """Return the rows of a plant, one a surrogate."""
    folder = settings.data / f"{'smoke_' if settings.smoke else ''}{name}_{settings.seed}"
    rollout, fitting = RolloutSettings(), FitSettings()
    if settings.smoke:
        rollout = replace(rollout, train=400, calibration=200, test=64)
        fitting = replace(fitting, members=2, width=32, steps=1000)
    variant = variant_of(name, folder / f"{name}_variant")
    start = settings.checkpoints / name / settings.name / "surrogate"
    data = collect(variant, load_task(variant), folder / "variant", rollout, settings.seed)
    test = data.episodes("test")
    rows = []
    for method, share, seconds, surrogate in surrogates(settings, variant, data, start, fitting):
        found = side_by_side({"it": surrogate}, test)
        errors = zip(found["horizons"], found["nrmse"]["it"], strict=True)
        rows.append(
            {
                **table.here(),
                "jax": jax.__version__,
                **{"plant": name, "seed": settings.seed, "variant": VARIANTS[name].told},
                **{"method": method, "share": share, "train_steps": steps(data, share)},
                **{f"nrmse_{h}": error for h, error in errors},
                "blown_up": found["blown_up"]["it"],
                "fit_seconds": round(seconds, 1),
            }
        )
        print({k: v for k, v in rows[-1].items() if k not in table.here()}, flush=True)
    return rows


def surrogates(
    settings: Settings, variant: Plant, data: Dataset, start: Path, fitting: FitSettings
) -> Iterator[tuple[str, float, float, Surrogate]]:
    """Yield name, share of the data, seconds of the fit, and the surrogate."""
    begun = open_start(start, variant, data.symmetry)

    def scratch(share: float) -> Surrogate:
        training, calibration = (part(data, s, share) for s in ("train", "calibration"))
        layout = layout_of(variant, data.symmetry)
        layout, known, _ = prior(variant, layout, training, fitting.equations)
        return fit_ensemble(layout, training, calibration, fitting, settings.seed, known=known)[0]

    def tuned() -> Surrogate:
        training, calibration = (part(data, s, settings.share) for s in ("train", "calibration"))
        layout, known = begun.fitting.layout, begun.fitting.known
        chosen = going_on(fitting)
        return fit_ensemble(
            layout, training, calibration, chosen, settings.seed, start=begun.fitting, known=known
        )[0]

    yield "start", 0.0, 0.0, begun.surrogate
    yield "fine-tuned", settings.share, *timed(tuned)
    yield "scratch", settings.share, *timed(lambda: scratch(settings.share))
    yield "scratch", 1.0, *timed(lambda: scratch(1.0))


def timed(make: Callable[[], Surrogate]) -> tuple[float, Surrogate]:
    """Return the seconds that a fit takes, and what it gives."""
    begun = time.monotonic()
    surrogate = make()
    return time.monotonic() - begun, surrogate


def part(data: Dataset, split: Any, share: float) -> Episodes:
    """Return the first episodes of a split."""
    episodes = data.episodes(split)
    few = max(1, round(share * len(episodes.length)))
    return jax.tree.map(lambda leaf: leaf[:few], episodes)


def steps(data: Dataset, share: float) -> int:
    """Return the control steps of the share of the training episodes."""
    return int(part(data, "train", share).length.sum()) if share else 0


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
