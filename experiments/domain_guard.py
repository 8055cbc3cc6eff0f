"""How well does a surrogate's operating domain tell states beyond its training data from others?

Of every plant the datasets of surrogate_benchmark.py: the domain is made from 100,000 control steps
to train on and 20,000 to calibrate on, and judges held-out episodes of the same kind, and episodes
that were shaken twice as hard. Those start where the others start, and most of their steps lie
where training data lie too. A step counts as beyond the range where at least one physical channel
(a position that matters, a velocity in MuJoCo's frame, an activation, an action or a disturbance)
is outside its range in the training data, a design variable outside its bounds; "far", where by at
least 10% of that range's width. "All" are all steps of the harder episodes.

For comparison: the two parts of the score by themselves, and Mahalanobis's distance. "Pushed" are
the steps of `domain_rates` without other episodes: one channel of a held-out step is pushed out of
the range of the held-out steps. A domain needs no fitted network, so this takes a minute a plant.

    python experiments/domain_guard.py
    python experiments/domain_guard.py --smoke                # a minute, and no file
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import surrogate_benchmark
import table
import tyro

from physai.plant import Plant, load_plant
from physai.report.inspection import untrained
from physai.rollout.dataset import Dataset, open_dataset
from physai.surrogate.domain import Domain, fit_domain
from physai.surrogate.features import layout_of
from physai.surrogate.guard import (
    Periods,
    area,
    excess,
    periods_of,
    pushed,
    ranges_of,
    rates,
    scores_of,
)
from physai.surrogate.inputs import inputs
from physai.surrogate.prior import prior

FAR = 0.1
BATCH, REPEATS = 4096, 30


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    plants: tuple[str, ...] = surrogate_benchmark.PLANTS
    """Names of shipped plants."""
    seed: int = 0
    """Of the data."""
    data: Path = Path("runs/surrogate_benchmark")
    """Where the datasets are, or will be."""
    out: Path = Path(__file__).parent / "results" / "domain_guard.csv"
    """The table."""
    smoke: bool = False
    """One plant, little data, no file."""


def main(settings: Settings) -> None:
    """Measure, and write a row a plant."""
    if settings.smoke:
        settings = replace(settings, plants=("cartpole",), data=settings.data / "smoke")
    rows = [] if settings.smoke else table.read(settings.out)
    done = {(row["plant"], int(row["seed"])) for row in rows}
    for name in settings.plants:
        if (name, settings.seed) in done:
            continue
        rows.append(measure(settings, load_plant(name)))
        print({k: v for k, v in rows[-1].items() if k not in table.here()}, flush=True)
        if not settings.smoke:
            table.write(settings.out, rows)


def measure(settings: Settings, plant: Plant) -> dict[str, Any]:
    """Return the row of a plant."""
    data, harder = datasets(settings, plant)
    training, calibration = surrogate_benchmark.cut(data, 50 if settings.smoke else 1)
    layout, known, _ = prior(plant, layout_of(plant, data.symmetry), training, equations=False)
    begun = time.monotonic()
    seen = np.asarray(inputs(layout, known, *periods_of(training)))
    held = np.asarray(inputs(layout, known, *periods_of(calibration)))
    domain = fit_domain(seen, held, calibration.length)
    seconds = time.monotonic() - begun
    inside, all_ = (periods_of(d.episodes("test")) for d in (data, harder))
    leaves = excess(layout, all_, ranges_of(layout, periods_of(training)))
    beyond, far = leaves > 0.0, leaves >= FAR
    own, other = (scores_of(domain, layout, known, p) for p in (inside, all_))
    outer = pushed(layout, inside, ranges_of(layout, inside), settings.seed)
    alone = {
        "range": replace(domain, radius=jnp.inf),
        "distance": replace(domain, slack=jnp.full_like(domain.slack, jnp.inf)),
        "mahalanobis": mahalanobis(seen, domain),
    }
    parts = {k: [scores_of(d, layout, known, p) for p in (inside, all_)] for k, d in alone.items()}
    synthetic = rates(own, scores_of(domain, layout, known, outer))
    distant = rates(own, other[far])
    found = {
        **rates(own, other[beyond]),
        **{f"{name}_far": distant[name] for name in ("beyond", "misses")},
        **{"beyond_all": len(other), "auc_all": area(own, other)},
        **{f"auc_{name}": area(s, o[beyond]) for name, (s, o) in parts.items()},
        **{f"auc_all_{name}": area(s, o) for name, (s, o) in parts.items()},
        **{f"{name}_pushed": synthetic[name] for name in ("misses", "auc")},
        "fit_seconds": seconds,
        **speed(domain, plant, data, inside),
    }
    return {
        **table.here(),
        "jax": jax.__version__,
        **{"plant": plant.name, "seed": settings.seed, "channels": seen.shape[1]},
        **{name: "" if np.isnan(value) else round(value, 4) for name, value in found.items()},
    }


def datasets(settings: Settings, plant: Plant) -> tuple[Dataset, Dataset]:
    """Return the datasets of the benchmark, collected where they are not there."""

    def there(kind: str) -> list[Path]:
        return sorted(settings.data.glob(f"{plant.name}_{kind}_{settings.seed}_*"))

    if not (there("data") and there("beyond")):
        wanted = surrogate_benchmark.Settings(data=settings.data, smoke=settings.smoke)
        surrogate_benchmark.Sets(wanted, plant, settings.seed)
    return open_dataset(there("data")[-1], plant), open_dataset(there("beyond")[-1], plant)


def mahalanobis(seen: np.ndarray, domain: Domain) -> Domain:
    """Return the domain of which the score is Mahalanobis's distance of inputs, up to a factor."""
    std = np.maximum(seen.std(0, dtype=float), 1e-5 * np.abs(seen).max(0) + 1e-7)
    unit = (seen - seen.mean(0, dtype=float)) / std
    correlation = unit.T @ unit / len(unit)
    np.fill_diagonal(correlation, 1.0)
    values, vectors = np.linalg.eigh(correlation)
    whitening = vectors / np.sqrt(np.maximum(values, 1e-4)) / std[:, None]
    return replace(
        domain,
        slack=jnp.full_like(domain.slack, jnp.inf),
        whitening=jnp.asarray(whitening, jnp.float32),
        prototypes=jnp.zeros((1, len(std))),
    )


def speed(domain: Domain, plant: Plant, data: Dataset, given: Periods) -> dict[str, float]:
    """Return scores a second, and the time of a score over that of a step of a default ensemble."""
    surrogate = replace(untrained(plant, data.symmetry), domain=domain)
    rows = np.random.default_rng(0).choice(len(given.actions), BATCH)
    batch = jax.tree.map(lambda x: jnp.asarray(x[rows]), given)
    steps = jax.jit(lambda s, batch: s.step(*batch))
    scores = jax.jit(lambda s, batch: s.domain.score(s.raw_inputs(*batch)))
    best = {}
    for name, function in (("step", steps), ("score", scores)):
        jax.block_until_ready(function(surrogate, batch))
        times = []
        for _ in range(REPEATS):
            begun = time.perf_counter()
            jax.block_until_ready(function(surrogate, batch))
            times.append(time.perf_counter() - begun)
        best[name] = min(times)
    return {
        "scores_per_second": round(BATCH / best["score"]),
        "score_over_step": best["score"] / best["step"],
    }


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
