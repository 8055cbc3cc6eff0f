"""What a plant's own `forces` sees and writes: arrays over all simulations at once, no copies.

Forces that MJCF cannot say (aerodynamics of a strip, a tyre, propellant that burns off) are one
vectorised function of plant.py,

    def forces(live: Live) -> None

called before every physics step for the whole batch. It must be a function of the state, the
controls and the design alone: a state that it kept would be unknown to the surrogate.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco.batch
import numpy as np

from physai.plant import Plant


@dataclass(frozen=True)
class Live:
    """Live arrays of a batch of simulations.

    Attributes:
        plant: the plant at its nominal design.
        design: design vectors `[n, nd]`, in the variables' units.
    """

    plant: Plant
    design: np.ndarray
    _batch: mujoco.batch.Batch

    def data(self, name: str) -> np.ndarray:
        """Return a field of MjData for all simulations `[n, ...]`, kinematics up to date.

        `qpos`, `qvel`, `act`, `ctrl`, `xfrc_applied` and `qfrc_applied` may be written, derived
        fields such as `xpos`, `xmat`, `site_xpos` and `cvel` may not. What is written to the
        applied forces stays until it is written again.
        """
        return self._batch.bind(name)

    def model(self, name: str) -> np.ndarray:
        """Return a field of MjModel with values of its own for every simulation `[n, ...]`.

        Constants derived from it do not follow: write only what MuJoCo reads in every step, such as
        `body_mass` and `body_inertia` of a body whose centre of mass is off its frame's origin.
        Verification scales masses before the first step: a mass that is set outright, rather than
        in proportion, loses that factor.
        """
        return self._batch.expand(name)
