"""The horizon certificate: for how many steps a prediction stays within a tolerance.

Each test episode is one flight, predicted open loop from its start with the recorded actions and
disturbances, so that n flights are n draws. With t_i the first step at which flight i exceeds the
tolerance, and t_(1) <= ... <= t_(n), the order statistic t_(r) with the largest r for which

    P(K <= r - 1) <= 1 - confidence,    K binomial (n, 1 - share)

is a lower tolerance limit, whatever the distribution of t: with the stated confidence at least this
share of all flights stay within the tolerance for t_(r) - 1 steps. The same number of steps follows
from Clopper and Pearson's one-sided bound. At least ln(1 - confidence) / ln(share) flights are
needed, 59 for 95% and 95%.

Episodes of a dataset share designs. Given the designs the number of exceedances is less spread than
a binomial one of the same mean (Hoeffding, "On the distribution of the number of successes in
independent trials", 1956, theorem 4, doi:10.1214/aoms/1177728178): the limit then holds for flights
of these designs.

Reference: Wilks, "Determination of sample sizes for setting tolerance limits", Annals of
Mathematical Statistics 12, 1941, doi:10.1214/aoms/1177731788.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from scipy.stats import binom

from physai.errors import InputError
from physai.exchange.units import convert
from physai.plant import Channel, Plant
from physai.rollout.dataset import Episodes
from physai.state import VELOCITY_WIDTH
from physai.surrogate.calibration import fly_beside, stretches
from physai.surrogate.model import Surrogate

CONFIDENCE, SHARE = 0.95, 0.95
SHARES = (0.5, 0.8, 0.9, 0.95, 0.99)  # shares of flights that the certificate tells of
LEAST_FLIGHTS = 20  # that last so long, or the certificate ends there
KINDS = {
    "position": "m",
    "angle": "rad",
    "velocity": "m/s",
    "angular_velocity": "rad/s",
    "activation": "1",
}
"""Kinds of channels by unit; a tolerance may name one, and then holds for each joint."""


@dataclass(frozen=True)
class Limit:
    """One part of a tolerance.

    Attributes:
        what: a channel, a kind of channels, or "nRMSE".
        value: the largest error.
        unit: of `value`, the channel's; "1" for the nRMSE.
        given: value and unit as the user wrote them.
        vectors: channels whose errors form a vector, the length of which is judged; for the nRMSE
            one group of all.
    """

    what: str
    value: float
    unit: str
    given: str
    vectors: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        """Say it as in "0.05 m in position"."""
        if self.what == "nRMSE":
            return f"an nRMSE of {self.given}"
        return f"{self.given} in {self.what}"


def parse_tolerance(texts: Sequence[str], plant: Plant) -> tuple[Limit, ...]:
    """Read a tolerance, all parts of which have to be kept at once.

    Args:
        texts: a number, the nRMSE over all channels of a flight; or `NAME=VALUE`, with a unit at
            its end where it is not the channel's, such as `root.z=0.05`, `angle=2deg`. NAME is a
            channel as the report card names it, or a kind (`position`, `angle`, `velocity`,
            `angular_velocity`, `activation`): the error of every joint then counts by its length,
            as a distance or an angle of rotation; or a kind of one joint (`root.angle`).
        plant: whose channels these are.

    Raises:
        InputError: no such channel, no such unit, or no positive number.
    """
    return tuple(_parse(text, plant) for text in texts)


def _parse(text: str, plant: Plant) -> Limit:
    channels = plant.state_channels
    name, equals, rest = text.rpartition("=")
    digits = rest.rstrip("".join(set(rest) - set("0123456789.")))  # the unit is what follows
    where = f"tolerance {text}"
    try:
        value = float(digits)
    except ValueError:
        raise InputError(
            f"{where}: expected a number, or NAME=VALUE such as angle=2deg, got {text!r}"
        ) from None
    if not (math.isfinite(value) and value > 0.0):
        raise InputError(f"{where}: expected a positive number, got {value:g}")
    unit = rest[len(digits) :].strip()
    if not equals:
        if unit:
            raise InputError(f"{where}: expected NAME=VALUE where there is a unit, got {text!r}")
        return Limit("nRMSE", value, "1", digits, (tuple(range(len(channels))),))
    vectors, own = _vectors(name, plant, where)
    given = f"{digits} {unit or own}".removesuffix(" 1")
    if unit and unit != own:
        value = float(convert(value, unit, own, where))
    return Limit(name, value, own, given, vectors)


def _vectors(name: str, plant: Plant, where: str) -> tuple[tuple[tuple[int, ...], ...], str]:
    """Return what a name stands for: groups of channels, and their unit."""
    channels = plant.state_channels
    for i, channel in enumerate(channels):
        if channel.name == name:
            return ((i,),), channel.unit
    joint, _, kind = name.rpartition(".")
    unit = KINDS.get(kind)
    found = tuple(
        vector
        for owner, vector in _joint_vectors(plant, channels)
        if channels[vector[0]].unit == unit and joint in ("", owner)
    )
    if unit is None or not found:
        there = [k for k, u in KINDS.items() if any(c.unit == u for c in channels)]
        raise InputError(
            f"{where}: {plant.name} has no channel {name!r}; expected one of "
            f"{', '.join([*there, *(c.name for c in channels)])}"
        )
    return found, unit


def _joint_vectors(plant: Plant, channels: Sequence[Channel]) -> list[tuple[str, tuple[int, ...]]]:
    """Return the joints' positions, angles and rates, and each activation: name and channels."""
    groups, nv = [], plant.model.nv
    for joint in plant.joints:
        first, width = joint.qvel_index, VELOCITY_WIDTH[joint.kind]
        for part in range(first, first + width, 3 if width >= 3 else 1):
            axes = tuple(range(part, part + min(width, 3)))
            groups += [(joint.name, axes), (joint.name, tuple(nv + axis for axis in axes))]
    return groups + [("", (i,)) for i in range(2 * nv, len(channels))]


def horizon_certificate(
    surrogate: Surrogate,
    plant: Plant,
    episodes: Episodes,
    tolerance: tuple[Limit, ...],
    scale: np.ndarray,
) -> dict[str, Any]:
    """Find for how many steps predictions of whole flights stay within a tolerance.

    A flight that the task ended counts as within for what it lasted. A prediction that is not
    finite exceeds any tolerance.

    Args:
        surrogate: what predicts.
        plant: the machine.
        episodes: test episodes.
        tolerance: from `parse_tolerance`.
        scale: spread of the channels by step `[H, nc]`; a limit on the nRMSE is judged up to H.

    Returns:
        JSON-ready: `tolerance` (what, value, unit), `confidence`, `share`, `steps` and `seconds`
        (None: too few flights for this share), `flights`, `designs`, `recorded` (steps up to which
        anything can be said), `lasting` (flights that last `steps`), `by_share`, `statement`.
    """
    lasted = episodes.length[episodes.length > 0]
    recorded = int(np.sort(lasted)[::-1][: min(LEAST_FLIGHTS, len(lasted))][-1])
    if any(limit.what == "nRMSE" for limit in tolerance):
        recorded = min(recorded, len(scale))
    within = _within(surrogate, episodes, tolerance, scale, recorded)
    first = np.where(within.all(axis=0), recorded + 1, np.argmin(within, axis=0) + 1)
    by_share = [{"share": share, "steps": kept_steps(first, recorded, share)} for share in SHARES]
    steps = kept_steps(first, recorded, SHARE)
    designs = np.asarray(episodes.states.design)[episodes.length > 0, 0]
    certificate = {
        "tolerance": [
            {k: v for k, v in asdict(limit).items() if k != "vectors"} for limit in tolerance
        ],
        "confidence": CONFIDENCE,
        "share": SHARE,
        "steps": steps,
        "seconds": None if steps is None else round(steps * plant.control_period, 6),
        "flights": len(lasted),
        "designs": len(np.unique(designs, axis=0)),
        "recorded": recorded,
        "lasting": None if steps is None else int((lasted >= steps).sum()),
        "by_share": by_share,
    }
    return {**certificate, "statement": statement(certificate)}


def _within(
    surrogate: Surrogate,
    episodes: Episodes,
    tolerance: tuple[Limit, ...],
    scale: np.ndarray,
    steps: int,
) -> np.ndarray:
    """Tell for each step and flight `[steps, n]` whether the tolerance is kept, or it is over."""
    flown = np.flatnonzero(episodes.length > 0)
    cut = partial(stretches, flown, np.zeros_like(flown), steps)
    states = jax.tree.map(cut, episodes.states)
    actions, disturbances = cut(episodes.actions)[:-1], cut(episodes.disturbances)[:-1]
    error, _ = fly_beside(surrogate, states, actions, disturbances)
    kept = np.ones(error.shape[:2], bool)
    for limit in tolerance:
        for vector in limit.vectors:
            kept &= _size(limit, error[..., list(vector)], scale) <= limit.value  # NaN is not
    return kept | (np.arange(1, steps + 1)[:, None] > episodes.length[flown])


def _size(limit: Limit, error: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return what a limit judges `[steps, n]`, of the errors of a group of channels."""
    if limit.what != "nRMSE":
        return np.linalg.norm(error, axis=-1)
    finite = np.asarray(np.isfinite(error).all(axis=-1))
    scaled = np.where(finite[..., None], error, 0.0) / scale[: len(error), None]
    return np.where(finite, np.sqrt(np.nanmean(np.square(scaled), axis=-1)), np.inf)


def kept_steps(
    first: np.ndarray, recorded: int, share: float, confidence: float = CONFIDENCE
) -> int | None:
    """Return for how many steps at least this share of all flights keep a tolerance.

    Args:
        first: the first step, from 1, at which each flight exceeds it `[n]`; `recorded + 1` where
            it does not.
        recorded: steps that were looked at.
        share: of the flights.
        confidence: with which this is to be true.

    Returns:
        Steps, 0 to `recorded`; None: too few flights to say so at all.
    """
    rank = int((binom.cdf(np.arange(len(first)), len(first), 1.0 - share) <= 1 - confidence).sum())
    return None if rank == 0 else min(int(np.sort(first)[rank - 1]) - 1, recorded)


def needed_flights(share: float, confidence: float = CONFIDENCE) -> int:
    """Return the least number of flights from which a share can be stated."""
    return math.ceil(math.log(1.0 - confidence) / math.log(share))


def statement(certificate: dict[str, Any]) -> str:
    """Say what was found in a sentence that can be quoted."""
    limits = " and ".join(str(Limit(**part, vectors=())) for part in certificate["tolerance"])
    share, confidence = (f"{100 * certificate[k]:g}%" for k in ("share", "confidence"))
    flights, steps = certificate["flights"], certificate["steps"]
    if steps is None:
        return (
            f"Nothing can be said of {share} of the flights with {confidence} confidence: that "
            f"takes {needed_flights(certificate['share'])} test flights, there are {flights}."
        )
    said = (
        f"With {confidence} confidence, at least {share} of flights from the test distribution "
        f"stay within {limits} for {steps} steps ({certificate['seconds']:g} s)"
    )
    if certificate["lasting"] < flights:
        said += f", or until the task ends them: {certificate['lasting']} of {flights} last so long"
    if steps == certificate["recorded"]:
        said += "; the record ends there"
    return f"{said}."
