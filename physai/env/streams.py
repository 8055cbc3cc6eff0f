"""Everything random of many environments at once, each as the single environment draws it.

An environment owns a generator of its episodes' seeds. An episode owns three seeds: of its start,
of its disturbances and of its sensor noise. Streams are drawn in blocks, so that a step only reads
them, and an environment's numbers depend on its own seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from gymnasium.utils import seeding

from physai.errors import InputError
from physai.plant import Plant
from physai.rollout.excitation import disturbance_process
from physai.state import Array, State
from physai.task import Task

NOISE_BLOCK = 32  # observations that sensor noise is drawn for at once
_CHUNK = 16  # starts drawn in one compiled call

Draw = Callable[[Sequence[np.random.Generator]], np.ndarray]


class Seeds:
    """The generators of n environments, from which each draws three seeds an episode."""

    def __init__(self, n: int) -> None:
        self.generators: list[np.random.Generator | None] = [None] * n
        self.values = [-1] * n

    def seed(self, rows: np.ndarray, seed: int | Sequence[int | None] | None) -> None:
        """Seed environments `rows`: i with seed + i, or with its entry of a list.

        None leaves a generator that is there as it is.

        Raises:
            InputError: something else than whole numbers from 0, or a list of another length.
        """
        n, whole = len(self.generators), (int, np.integer)
        if seed is None or isinstance(seed, whole):
            seeds = [None if seed is None else int(seed) + i for i in range(n)]
        elif isinstance(seed, (Sequence, np.ndarray)) and not isinstance(seed, str):
            seeds = list(seed)
        else:
            raise InputError(f"seed: expected a whole number or a list of {n}, got {seed!r}")
        if len(seeds) != n:
            raise InputError(f"seed: expected a number or a list of {n}, got {len(seeds)} numbers")
        for s in seeds:
            if s is not None and (not isinstance(s, whole) or s < 0):
                raise InputError(f"seed: expected whole numbers from 0, got {s!r}")
        seeds = [None if s is None else int(s) for s in seeds]
        for i in rows:
            if seeds[i] is not None or self.generators[i] is None:
                self.generators[i], self.values[i] = seeding.np_random(seeds[i])

    def episode(self, rows: np.ndarray) -> np.ndarray:
        """Return seeds of start, disturbances and sensor noise of new episodes, uint32 `[k, 3]`."""
        drawn = np.empty((len(rows), 3), np.uint32)
        for k, i in enumerate(rows):
            generator = self.generators[i]
            assert generator is not None
            drawn[k] = generator.integers(2**32, size=3, dtype=np.uint32)
        return drawn


class Streams:
    """Random vectors `[width]` of n episodes, read one a step and drawn a block at a time.

    Args:
        n: number of environments.
        block: vectors drawn at once.
        width: of a vector.
        draw: from k generators, one block of each, `[k, block, width]`.
    """

    def __init__(self, n: int, block: int, width: int, draw: Draw) -> None:
        self._generators: list[Any] = [None] * n
        self._read = np.zeros(n, int)
        self._values: np.ndarray | None = None
        self._shape, self._draw = (n, block, width), draw

    def start(self, rows: np.ndarray, seeds: np.ndarray) -> None:
        """Begin the streams of new episodes: environments `[k]`, seeds uint32 `[k]`."""
        for i, seed in zip(rows, seeds, strict=True):
            self._generators[i] = np.random.default_rng(seed)
        self._read[rows] = 0

    def next(self, rows: np.ndarray) -> np.ndarray:
        """Return the next vectors `[k, width]` of environments `rows` `[k]`."""
        within = self._read[rows] % self._shape[1]
        due = rows[within == 0]
        if due.size:
            values = self._draw([self._generators[i] for i in due])
            if self._values is None:
                self._values = np.zeros(self._shape, values.dtype)
            self._values[due] = values
        self._read[rows] += 1
        assert self._values is not None
        return self._values[rows, within]


def disturbance_streams(plant: Plant, n: int, block: int) -> Streams:
    """Return the disturbances of n episodes, in the units of `Plant.disturbances`."""

    def draw(generators: Sequence[np.random.Generator]) -> np.ndarray:
        together: Any = _Together(generators)
        return disturbance_process(plant, together, block, np.ones(len(generators)))

    return Streams(n, block, plant.nw, draw)


def noise_streams(noise: np.ndarray, n: int) -> Streams:
    """Return the sensor noise of n episodes, of standard deviations `noise` [no]."""
    shape = (NOISE_BLOCK, len(noise))

    def draw(generators: Sequence[np.random.Generator]) -> np.ndarray:
        return np.stack([noise * g.standard_normal(shape) for g in generators])

    return Streams(n, NOISE_BLOCK, len(noise), draw)


class _Together:
    """Stands for one generator: draws the first dimension's entries from k generators in turn."""

    def __init__(self, generators: Sequence[np.random.Generator]) -> None:
        self._generators = generators

    def standard_normal(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        values = np.empty(shape, dtype)
        for row, generator in zip(values, self._generators, strict=True):
            generator.standard_normal(out=row, dtype=dtype)
        return values


def draw_episode_starts(task: Task, seeds: np.ndarray, designs: np.ndarray) -> State:
    """Draw starts `[k, ...]`, float64, each the one that `BatchTask.start` gives for its seed.

    Args:
        task: says how starts are spread.
        seeds: uint32 `[k]`.
        designs: `[k, nd]`.
    """
    parts = []
    for first in range(0, len(seeds), _CHUNK):
        # A chunk's last start is repeated to its full size, so that one size is compiled.
        rows = np.minimum(np.arange(first, first + _CHUNK), len(seeds) - 1)
        chunk = _compiled_starts(task.reset)(seeds[rows], designs[rows])
        kept = min(_CHUNK, len(seeds) - first)
        parts.append(jax.tree.map(lambda x, kept=kept: np.array(x[:kept], float), _host(chunk)))
    starts = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    return starts.replace(design=np.array(designs, float))


_host = partial(jax.tree.map, np.asarray)


@lru_cache(maxsize=32)
def _compiled_starts(
    reset: Callable[[jax.Array, jax.Array], State],
) -> Callable[[Array, Array], State]:
    """Compile a reset for a chunk: one after the other, since a batch may round otherwise."""

    def one(place: tuple[jax.Array, jax.Array]) -> State:
        return reset(jax.random.key(place[0]), place[1])

    return jax.jit(lambda seeds, designs: jax.lax.map(one, (seeds, designs)))
