"""Search for the Pareto set of several objectives under a constraint, with a library's optimiser.

The optimiser is pymoo's NSGA-II. Its crowding distance spreads points poorly over a front of three
objectives, and NSGA-III's reference directions, which cure that, leave part of the population
without a direction where a constraint cuts the front. So survivors are chosen by the product of the
distances to the M nearest neighbours, one removal at a time. On two constrained test fronts this
gave NSGA-III's hypervolume to within 1%, and every point where NSGA-III left a quarter of them out.

An infeasible design never competes by its objectives: a feasible one always comes before it, and
two infeasible ones compare by how far they are from feasible (Deb's rule). A failed evaluation is
NaN with the largest violation; it needs no large number in place of an objective.

References: Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002,
doi:10.1109/4235.996017; Kukkonen and Deb, "A fast and effective method for pruning of non-dominated
solutions in many-objective problems", 2006, doi:10.1007/11844297_56.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from physai.errors import InputError
from physai.progress import Progress, silent

Evaluate = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""`points [n, k] -> (objectives [n, no], violation [n])`; feasible where violation is 0."""


@dataclass(frozen=True)
class Search:
    """Every evaluation of a search, in order.

    Attributes:
        points: `[m, k]` in the unit cube.
        values: objectives `[m, no]`, in their own units and senses.
        violation: `[m]`, 0 where feasible, above 0 or NaN where not.
        generation: `[m]`, from 0.
    """

    points: np.ndarray
    values: np.ndarray
    violation: np.ndarray
    generation: np.ndarray

    @property
    def feasible(self) -> np.ndarray:
        """Which evaluations are feasible `[m]`."""
        return _feasible(self.values, self.violation)


def check_extra() -> None:
    """Raise InputError unless the optional packages of design studies are installed."""
    try:
        import pymoo  # noqa: F401
        import scipy  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"design studies need {error.name}: pip install 'physai[design]'"
        ) from error


def search(
    evaluate: Evaluate,
    start: np.ndarray,
    maximise: Sequence[bool],
    generations: int,
    seed: int,
    progress: Progress = silent,
) -> Search:
    """Evaluate `generations` populations of the size of `start`, and return all of them.

    Args:
        evaluate: called with one population a generation, at most the size of `start`.
        start: the first population `[n, k]`, in the unit cube.
        maximise: for each objective whether more is better.
        generations: at least 1.
        seed: of selection, crossover and mutation.
        progress: called once a generation.

    Raises:
        InputError: pymoo is not installed, fewer than 4 points to start from, or no generation.
    """
    check_extra()
    start = np.asarray(start, float)
    if start.ndim != 2 or len(start) < 4:
        raise InputError(f"population: expected at least 4 designs, got {len(start)}")
    if generations < 1:
        raise InputError(f"generations: expected at least 1, got {generations}")
    sign = np.where(np.asarray(maximise), -1.0, 1.0)
    points, values, violation, born = [], [], [], []
    # pymoo sets warnings.simplefilter("ignore") for the whole process.
    with warnings.catch_warnings():
        algorithm, tell = _nsga2(start, len(sign), seed)
        for generation in range(generations):
            progress("search", generation, generations)
            asked = algorithm.ask()
            if asked is None:  # no new design could be found by mating: all are known
                break
            x = np.clip(asked.get("X"), 0.0, 1.0)
            f, v = evaluate(x)
            tell(asked, sign * f, np.where(_feasible(f, v), 0.0, _positive(v)))
            points.append(x)
            values.append(f)
            violation.append(v)
            born.append(np.full(len(x), generation))
    progress("search", generations, generations)
    return Search(*map(np.concatenate, (points, values, violation, born)))


def nondominated(values: np.ndarray, maximise: Sequence[bool]) -> np.ndarray:
    """Return which rows of `values [n, no]` no other row dominates `[n]` bool.

    One row dominates another when it is as good in every objective and better in one.
    """
    cost = np.where(np.asarray(maximise), -values, values)
    no_worse = (cost[:, None] <= cost[None]).all(axis=-1)
    better = (cost[:, None] < cost[None]).any(axis=-1)
    return ~np.any(no_worse & better, axis=0)


def pareto_set(values: np.ndarray, maximise: Sequence[bool], most: int) -> np.ndarray:
    """Return the indices of the rows that no other dominates, thinned by crowding to `most`."""
    front = np.flatnonzero(nondominated(values, maximise))
    if len(front) <= most:
        return front
    lonely = crowding(values[front], n_remove=len(front) - most)
    return np.sort(front[np.argsort(-lonely, kind="stable")[:most]])


def best(values: np.ndarray, maximise: Sequence[bool], most: int) -> np.ndarray:
    """Return the indices of the best rows, front by front, `most` or as many as there are."""
    left = np.arange(len(values))
    chosen = left[:0]
    while len(left) and len(chosen) < most:
        rows = left[pareto_set(values[left], maximise, most - len(chosen))]
        chosen, left = np.concatenate([chosen, rows]), np.setdiff1d(left, rows)
    return chosen


def crowding(front: np.ndarray, n_remove: int = 0, **_: Any) -> np.ndarray:
    """Return the crowding measure of a front `[n, no]`, larger is lonelier.

    It is the product of the squared distances to the no nearest neighbours, objectives scaled to
    the front's extent. The `n_remove` most crowded points are taken away one at a time, each after
    the measure of the others was updated, and get 0; the ends of the front get inf.
    """
    extent = np.ptp(front, axis=0)
    scaled = (front - front.min(axis=0)) / np.where(extent > 0.0, extent, 1.0)
    squared = np.square(scaled[:, None] - scaled[None]).sum(axis=-1)
    np.fill_diagonal(squared, np.inf)
    ends = np.unique([front.argmin(axis=0), front.argmax(axis=0)])
    nearest = min(front.shape[1], len(front) - 1)

    def measure(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        near = np.partition(squared[rows], nearest - 1, axis=1)[:, :nearest]
        return near.prod(axis=1), near.max(axis=1, initial=0.0)

    lonely, reach = measure(np.arange(len(front)))
    lonely[ends] = np.inf
    removed: list[int] = []
    for _step in range(min(n_remove, len(front) - len(ends))):
        removed.append(int(lonely.argmin()))
        neighbours = np.flatnonzero(squared[:, removed[-1]] <= reach)
        squared[removed[-1]] = squared[:, removed[-1]] = np.inf
        lonely[neighbours], reach[neighbours] = measure(neighbours)
        lonely[[*ends, *removed]] = np.inf
    lonely[removed] = 0.0
    return lonely


def _feasible(values: np.ndarray, violation: np.ndarray) -> np.ndarray:
    return (violation == 0.0) & np.isfinite(values).all(axis=1)


def _positive(violation: np.ndarray) -> np.ndarray:
    """Return violations above 0; what is NaN or claims to be feasible, but is not, counts as 1."""
    return np.where(violation > 0.0, violation, 1.0)


def _nsga2(start: np.ndarray, objectives: int, seed: int) -> tuple[Any, Callable[..., None]]:
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.config import Config
    from pymoo.core.evaluator import Evaluator
    from pymoo.core.problem import Problem
    from pymoo.core.termination import NoTermination
    from pymoo.operators.survival.rank_and_crowding import RankAndCrowding
    from pymoo.problems.static import StaticProblem

    Config.show_compile_hint = False  # it prints to stdout, which belongs to our results
    problem = Problem(n_var=start.shape[1], n_obj=objectives, n_ieq_constr=1, xl=0.0, xu=1.0)
    algorithm = NSGA2(
        pop_size=len(start),
        sampling=start,  # type: ignore[arg-type]
        survival=RankAndCrowding(crowding_func=crowding),  # type: ignore[arg-type]
    )
    algorithm.setup(problem, termination=NoTermination(), seed=seed)

    def tell(asked: Any, costs: np.ndarray, violation: np.ndarray) -> None:
        Evaluator().eval(StaticProblem(problem, F=costs, G=violation[:, None]), asked)
        algorithm.tell(infills=asked)

    return algorithm, tell
