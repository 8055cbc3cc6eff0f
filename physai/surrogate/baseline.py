"""The linear surrogate that any learned one has to beat: ridge regression on the same inputs.

With normalised inputs x and targets y of N control periods, per target,

    w = (X^T X / N + c I)^-1 X^T y / N

Reference: Hoerl, Kennard, "Ridge regression: biased estimation for nonorthogonal problems", 1970,
equation 2.1, doi:10.1080/00401706.1970.10488634.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from physai.rollout.dataset import Episodes
from physai.surrogate.bounds import fit_bounds, recorded
from physai.surrogate.domain import fit_domain
from physai.surrogate.features import Layout
from physai.surrogate.fit import uncalibrated
from physai.surrogate.known import Known
from physai.surrogate.model import Surrogate
from physai.surrogate.network import Architecture
from physai.surrogate.normalise import normalised, normaliser_of, transitions

PENALTY = 1e-6
"""c: small, since there are many more control periods than inputs."""


def linear_surrogate(layout: Layout, known: Known | None, training: Episodes) -> Surrogate:
    """Fit a surrogate of one member without hidden layers, in closed form, uncalibrated.

    Args:
        layout, known: as `prior` returns them.
        training: episodes to fit on.
    """
    x, y = transitions(layout, training, known)
    normaliser = normaliser_of(layout, known, training, x, y)
    inputs, targets = (np.asarray(a, np.float64) for a in normalised(normaliser, x, y))
    square = inputs.T @ inputs / len(inputs) + PENALTY * np.eye(inputs.shape[1])
    weights = np.linalg.solve(square, inputs.T @ targets / len(inputs))
    linear = jnp.asarray(weights[None], jnp.float32)
    nothing = {"bias": jnp.zeros((1, y.shape[1])), "kernel": jnp.zeros_like(linear)}
    return Surrogate(
        parameters={"hidden": {}, "readout": nothing, "linear": {"kernel": linear}},
        normaliser=normaliser,
        bounds=fit_bounds(layout, *recorded(layout, known, training)),
        calibration=uncalibrated(layout),
        domain=fit_domain(np.asarray(x), np.asarray(x), training.length),
        layout=layout,
        architecture=Architecture(x.shape[1], y.shape[1], 0, 0),
        known=known,
    )
