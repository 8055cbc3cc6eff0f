"""A design study: search a design space on a surrogate, and verify every point of what was found.

    surrogate ──learn──> policy that sees ──> search ──> calibration ──> study
    (dataset, fit)       the design           on the     next best       Pareto set, predicted
                                              surrogate  designs, both   beside verified in true
                                                         ways            MuJoCo

Predictions and verifications are means over flights from random starts. A search looks for designs
whose predictions are too good, on the very starts that it chooses by. So chosen designs are
predicted anew from other starts, the intervals come from designs that the search nearly chose, and
two numbers stand beside the result: the share found inside the intervals, and the optimism, by how
much verified values are worse than predicted on average.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from physai.control.controller import batch_controller, policy_controller
from physai.design.calibration import calibrate, next_best
from physai.design.evaluations import (
    Evaluations,
    csv_text,
    design_columns,
    evaluations_csv,
    explore,
    number,
    read_evaluations,
)
from physai.design.optimise import check_extra
from physai.design.sampling import Trials, check_objectives, imagined_flights
from physai.design.summary import conclude, pareto_csv
from physai.design.variables import DesignSpace, design_space
from physai.errors import InputError
from physai.learn.imagination import Conditions
from physai.learn.learn import learn_inputs, learn_policy, load_policy_folder
from physai.learn.value_gradient import LearnSettings
from physai.plant import Plant, check_driven
from physai.progress import Progress, silent
from physai.provenance import (
    Source,
    atomic_folder,
    atomic_write,
    is_complete,
    read_json,
    remove_stale,
    write_json,
    write_manifest,
    writing,
)
from physai.rollout.collect import RolloutSettings, collect
from physai.settings import check_number, check_whole
from physai.surrogate.fit import FitSettings
from physai.surrogate.model import Surrogate
from physai.surrogate.release import fit
from physai.surrogate.store import load_surrogate
from physai.task import Task, design_aware, load_task

CONDITIONS = Conditions(design_spread=1.0)
"""What the policy learns in: machines from the whole design space."""
EVALUATIONS = "evaluations.csv"
LEAST_SPREAD = 0.8  # of each variable's range that the surrogate must have been trained on


@dataclass(frozen=True)
class StudySettings:
    """What to study and how thoroughly."""

    variables: tuple[str, ...] = ("arm_length", "max_thrust", "payload")
    """Design variables that the search moves; the others stay nominal."""
    population: int = 36
    """Designs in a generation, and most points in the Pareto set."""
    generations: int = 20
    """Generations of the search, the first one included."""
    starts: int = 32
    """Flights of a design in the search, all of which must settle."""
    calibration_designs: int = 48
    """Next best designs, flown both in the surrogate and in true MuJoCo to find the intervals."""
    verify_flights: int = 200
    """Flights of a design in true MuJoCo."""
    coverage: float = 0.9
    """Probability that an interval is made for."""
    pass_rate: float = 0.9
    """A verified design passes its requirements at least this often, at 95% confidence."""
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    """Of the dataset, where no surrogate is given."""
    fit: FitSettings = field(default_factory=FitSettings)
    """Of the surrogate, where none is given."""
    learn: LearnSettings = field(default_factory=LearnSettings)
    """Of the policy."""

    def __post_init__(self) -> None:
        """Refuse what cannot be studied."""
        check_whole(self, "population", least=4)
        check_whole(self, "generations", "starts", "verify_flights", least=1)
        check_number(self, "coverage", "pass_rate", above=0.0, below=1.0)
        # With fewer, not even the largest residual is a bound of that coverage.
        needed = int(np.ceil(self.coverage / (1.0 - self.coverage) - 1e-9))
        if self.calibration_designs < needed:
            raise InputError(
                f"calibration_designs: an interval of coverage {self.coverage:g} needs at least "
                f"{needed}, got {self.calibration_designs}"
            )


def run_study(
    plant: Plant,
    out: str | Path,
    surrogate: str | Path | None = None,
    settings: StudySettings | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Search a plant's design space on a surrogate, and verify the Pareto set in true MuJoCo.

    `out` gets dataset and surrogate (where none is given), policy, search, calibration and study,
    each an artefact of its own that a second call finds again.

    Args:
        plant: the machine.
        out: folder of the study.
        surrogate: folder of a surrogate that was trained over the design space (None: make one).
        settings: of the study.
        seed: 0 or more; of everything random.
        progress: called as the work goes on.

    Returns:
        What `study/study.json` says, and under "out" where it is.

    Raises:
        InputError: no such variable, a task without objectives, a surrogate without designs, pymoo
            missing, or artefacts in `out` that were made otherwise.
    """
    s = _Study(plant, load_task(plant), Path(out), settings or StudySettings(), seed, progress)
    check_driven(plant)
    space = design_space(plant, s.settings.variables)
    check_objectives(plant, s.task)
    check_extra()
    if seed < 0:
        raise InputError(f"seed: expected 0 or more, got {seed}")
    with writing(s.out):
        s.out.mkdir(parents=True, exist_ok=True)
    remove_stale(s.out)
    fitted = s.surrogate(space, surrogate)
    learned = s.policy(fitted)
    sources: dict[str, Source] = {"plant": plant, "surrogate": fitted, "policy": learned}
    trials = s.trials(load_surrogate(fitted, plant), learned)
    sources["search"] = s.search(trials, space, sources)
    found = read_evaluations(Path(str(sources["search"])) / EVALUATIONS, space, s.task.objectives)
    sources["calibration"] = s.calibration(trials, space, found, sources)
    study = s.study(trials, space, found, sources)
    return {**study, "out": str(s.out)}


@dataclass(frozen=True)
class _Study:
    """What the stages share."""

    plant: Plant
    task: Task
    out: Path
    settings: StudySettings
    seed: int
    progress: Progress

    def stage(
        self,
        kind: str,
        settings: Any,
        inputs: Mapping[str, Source],
        make: Callable[[Path], object],
    ) -> Path:
        """Make an artefact unless it is there; refuse one that was made otherwise."""
        folder = self.out / kind
        if is_complete(folder, settings, inputs, kind=kind, seed=self.seed):
            return folder
        if (folder / "manifest.json").exists():
            raise InputError(
                f"{folder}: this {kind} is damaged, or was made with other settings or from other "
                "inputs. Remove it, or choose another --out."
            )
        make(folder)
        return folder

    def surrogate(self, space: DesignSpace, given: str | Path | None) -> Path:
        """Return the folder of the surrogate, made here where none is given."""
        settings = self.settings
        if given is None:
            if settings.rollout.designs_per_shard == 0:
                raise InputError(
                    "rollout.designs_per_shard: expected more than 0, which is the nominal design "
                    "only; a study needs data from the whole design space"
                )
            folder, report = self.out / "dataset", self.progress
            data = collect(
                self.plant, self.task, folder, settings.rollout, self.seed, progress=report
            )
            given = self.stage(
                "surrogate",
                settings.fit,
                {"dataset": data.folder},
                lambda folder: fit(
                    self.plant, [data], folder, settings.fit, self.seed, progress=report
                ),
            )
        check_spread(load_surrogate(given, self.plant), space, Path(given))
        return Path(given)

    def policy(self, surrogate: Path) -> Path:
        """Return the folder of a policy that sees the design."""
        settings = self.settings.learn
        own = {"settings": asdict(settings), "conditions": asdict(CONDITIONS), "seed": self.seed}
        return self.stage(
            "policy",
            own,
            learn_inputs(self.plant, surrogate, None),
            lambda folder: learn_policy(
                self.plant,
                design_aware(self.task, self.plant),
                surrogate,
                folder,
                settings,
                CONDITIONS,
                self.seed,
                progress=self.progress,
            ),
        )

    def trials(self, model: Surrogate, policy: Path) -> Trials:
        """Return the closed loop of a policy, in the model and in true MuJoCo."""
        task, settings = design_aware(self.task, self.plant), self.settings
        controller = policy_controller(load_policy_folder(policy)[0])
        imagine = imagined_flights(
            self.plant, task, controller, model, settings.population, settings.starts
        )
        return Trials(
            imagine,
            batch_controller(controller),
            self.plant,
            task,
            settings.starts,
            settings.verify_flights,
            self.seed,
        )

    def search(self, trials: Trials, space: DesignSpace, sources: Mapping[str, Source]) -> Path:
        """Return the folder of the search: every evaluation, and which form the Pareto set."""
        own = self.chosen("variables", "population", "generations", "starts")

        def make(folder: Path) -> None:
            found = explore(
                trials,
                space,
                self.settings.population,
                self.settings.generations,
                self.progress,
            )
            with atomic_folder(folder) as temporary:
                text = evaluations_csv(space, self.task.objectives, found)
                atomic_write(temporary / EVALUATIONS, text)
                write_manifest(temporary, "search", sources, own, self.seed)

        return self.stage("search", own, sources, make)

    def calibration(
        self,
        trials: Trials,
        space: DesignSpace,
        found: Evaluations,
        sources: Mapping[str, Source],
    ) -> Path:
        """Return the folder of the intervals."""
        own = self.chosen("calibration_designs", "verify_flights", "coverage")
        objectives = self.task.objectives
        columns = design_columns(space)
        columns += [f"{way}.{o.name}" for way in ("predicted", "verified") for o in objectives]

        def make(folder: Path) -> None:
            rows = next_best(
                found, [o.maximise for o in objectives], self.settings.calibration_designs
            )
            designs = found.designs[rows]
            result, predicted, verified = calibrate(
                trials, designs, self.settings.coverage, self.progress
            )
            flown = np.hstack([space.chosen(designs), predicted.values, verified.values])
            with atomic_folder(folder) as temporary:
                write_json(temporary / "calibration.json", result)
                table = [[number(x) for x in row] for row in flown]
                atomic_write(temporary / "calibration.csv", csv_text(columns, table))
                write_manifest(temporary, "calibration", sources, own, self.seed)

        return self.stage("calibration", own, sources, make)

    def study(
        self,
        trials: Trials,
        space: DesignSpace,
        found: Evaluations,
        sources: Mapping[str, Source],
    ) -> dict[str, Any]:
        """Return the summary: what was predicted of the Pareto set, and what verification says."""
        own = self.chosen("verify_flights", "pass_rate")
        calibration = read_json(Path(str(sources["calibration"])) / "calibration.json")

        def make(folder: Path) -> None:
            summary = conclude(
                trials, space, found, calibration, self.settings.pass_rate, self.progress
            )
            with atomic_folder(folder) as temporary:
                write_json(temporary / "study.json", summary)
                atomic_write(temporary / "pareto.csv", pareto_csv(summary))
                write_manifest(temporary, "study", sources, own, self.seed)

        return read_json(self.stage("study", own, sources, make) / "study.json")

    def chosen(self, *names: str) -> dict[str, Any]:
        """Return some of the settings, for a manifest."""
        return {name: getattr(self.settings, name) for name in names}


def check_spread(surrogate: Surrogate, space: DesignSpace, folder: Path) -> None:
    """Refuse a surrogate that has not seen most of the range of each chosen variable.

    Raises:
        InputError: so it is.
    """
    nd = surrogate.layout.nd
    low, high = (
        np.asarray(x)[-nd:] if nd else () for x in (surrogate.domain.low, surrogate.domain.high)
    )
    for column, variable in zip(space.columns, space.variables, strict=True):
        seen = 0.0 if not nd else 0.5 * float(high[column] - low[column])
        if not seen >= LEAST_SPREAD:
            raise InputError(
                f"{folder}: this surrogate was trained on {100 * seen:.0f}% of the range of "
                f"{variable.name}, expected at least {100 * LEAST_SPREAD:.0f}%. Collect with "
                "designs_per_shard above 0 and fit again, or let the study make its own surrogate."
            )
