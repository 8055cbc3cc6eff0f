"""The true simulator at scale: many copies of a plant on MuJoCo's batch engine, on all cores."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import mujoco
import mujoco.batch
import numpy as np

from physai.plant import Plant, gather
from physai.rollout.batch import batch_of, checked, checked_designs, checked_masses, constrained
from physai.rollout.live import Live
from physai.state import State

_VELOCITY = mujoco.mjtStage.mjSTAGE_VEL.value
Reading = Callable[[mujoco.MjModel, mujoco.MjData], np.ndarray]
SPEED_LIMIT = 1e6  # m/s or rad/s: beyond this a simulation counts as diverged


class TruePlant:
    """A `Model` of `nsim` simulations of the true plant, each with its own design.

    `step` advances every simulation by one control period, bit-identical to a loop over mj_step. A
    simulation that diverges is frozen and marked in `valid`; it does not stop the others.

    Args:
        plant: the plant.
        nsim: number of simulations.
        designs: design vectors `[nsim, nd]` (None: the nominal one for all).
        mass_scale: factors on every mass and inertia `[nsim]` (None: 1).
        nthread: threads (0: all cores).
        derived: keep what mj_step computes of each simulation, for `readings`.

    Raises:
        InputError: a design or mass_scale of the wrong shape, not finite or outside its bounds.
    """

    def __init__(
        self,
        plant: Plant,
        nsim: int,
        designs: np.ndarray | None = None,
        mass_scale: np.ndarray | None = None,
        nthread: int = 0,
        derived: bool = False,
    ) -> None:
        self.plant = plant
        self.designs = checked_designs(plant, nsim, designs)
        keep = derived or plant.forces is not None
        self._batch = batch_of(plant, self.designs, checked_masses(nsim, mass_scale), nthread, keep)
        self._forces = None if plant.forces is None else Live(plant, self.designs, self._batch)
        self._qpos = self._batch.bind("qpos")
        self._qvel = self._batch.bind("qvel")
        self._act = self._batch.bind("act") if plant.model.na else np.zeros((nsim, 0))
        self._time = self._batch.bind("time")
        self._ctrl = self._batch.bind("ctrl")
        self._sensordata = self._batch.bind("sensordata") if plant.sensors else np.zeros((nsim, 0))
        self._warnings = self._batch.warning[:, :, 1]
        self._fresh = self._batch.state.copy()
        self._warned = self._warnings.sum(1)
        self._actions = list(plant.action_ids)
        self._disturbances = list(plant.disturbance_ids)
        self._low = np.array([a.low for a in plant.actions])
        self._high = np.array([a.high for a in plant.actions])
        self._models: list[mujoco.MjModel] = []
        self._scratch: mujoco.MjData | None = None
        self._constrained = derived or constrained(plant.model)
        self._last: State | None = None
        self.valid = np.ones(nsim, dtype=bool)

    @property
    def nsim(self) -> int:
        """Number of simulations."""
        return len(self.designs)

    def model_of(self, sim: int) -> mujoco.MjModel:
        """Return a copy of the MuJoCo model that simulation `sim` runs on, its textures blank."""
        return self._batch.get_model(sim)

    def step(
        self,
        state: State,
        action: np.ndarray,
        disturbance: np.ndarray | None = None,
        rows: np.ndarray | None = None,
    ) -> State:
        """Advance one control period.

        Args:
            state: batched state `[nsim, ...]`; the one returned last continues without a copy.
            action: `[nsim, nu]` in the channels' units, clipped to their ranges.
            disturbance: `[nsim, nw]` (None: zero), clipped likewise by MuJoCo.
            rows: the simulations to advance, indices `[k]` (None: all); the others stay as they are
                and cost little.

        Returns:
            The next state, float64 numpy arrays. Rows with `valid` False repeat their last state.

        Raises:
            InputError: a state, action or disturbance of the wrong shape or with NaN in it.
        """
        self._place(state, rows)
        self._control(action, disturbance)
        try:
            with quiet_warnings():
                sound = rows is None and self.valid.all()
                everyone = np.arange(self.nsim) if rows is None else rows
                self._advance(None if sound else everyone[self.valid[everyone]])
        except mujoco.batch.SimulationError as error:
            self.valid[error.ids] = False
        after = self._read(state)
        self._last = after if rows is None else None
        return after

    def restart(self, state: State, rows: np.ndarray, start: State) -> State:
        """Start some simulations anew, to the bit as in a `TruePlant` of their own.

        Args:
            state: batched state `[nsim, ...]` of all; the one returned last is not written again.
            rows: the k simulations to start, indices `[k]`.
            start: their new states `[k, ...]`, of the designs that these simulations have.

        Returns:
            The state of all, from which `step` continues without a copy.

        Raises:
            InputError: a state or start of the wrong shape or with NaN in it.
        """
        values = self._physical(start, len(rows))
        self.place(state)
        self._batch.state[rows] = self._fresh[rows]
        merged = {}
        for live, name in self._live:
            live[rows] = values[name]
            merged[name] = live.copy()
        for name in ("command", "design"):
            merged[name] = np.array(getattr(state, name), float)
            merged[name][rows] = getattr(start, name)
        self._warned[rows] = self._warnings[rows].sum(1)
        if self._constrained:
            self._forward(rows)
        self.valid[rows] = True
        self._last = State(**merged)
        return self._last

    def _physical(self, state: State, count: int) -> dict[str, np.ndarray]:
        model = self.plant.model
        return {
            "qpos": checked(state.qpos, (count, model.nq), "qpos"),
            "qvel": checked(state.qvel, (count, model.nv), "qvel"),
            "act": checked(state.act, (count, model.na), "act"),
            "time": checked(state.time, (count,), "time"),
        }

    def _advance(self, ids: np.ndarray | None) -> None:
        """Run the physics steps of a control period, the plant's own forces before each."""
        if self._forces is None or self.plant.forces is None:
            self._batch.step(ids, nstep=self.plant.substeps)
            return
        # Derived fields (poses, velocities) are to be those of the state that the forces act on.
        self._batch.forward(ids, stage=_VELOCITY)
        for _ in range(self.plant.substeps):
            self.plant.forces(self._forces)
            self._batch.step(ids, nstep=1, stage=_VELOCITY)

    def place(self, state: State) -> None:
        """Write a state `[nsim, ...]`, from which `step` then continues; the last one is there.

        The solver's warm start is state too: it is that of the forces without controls, as after
        Gymnasium's reset of a MuJoCo model.
        """
        self._place(state, None)

    def _place(self, state: State, rows: np.ndarray | None) -> None:
        """Write a state, and make ready those rows `[k]` of it that will be stepped (None: all)."""
        if state is self._last:
            return
        values = self._physical(state, self.nsim)
        self._batch.state[:] = self._fresh
        for live, name in self._live:
            live[:] = values[name]
        self._last = state
        self._warned = self._warnings.sum(1)
        if self._constrained:
            self._forward(rows)
        self.valid = np.ones(self.nsim, dtype=bool)

    def _forward(self, rows: np.ndarray | None) -> None:
        with quiet_warnings(), suppress(mujoco.batch.SimulationError):  # `step` will tell
            self._batch.forward(rows)

    def sense(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Return what the plant's sensors tell of the state that `step` returned last.

        It is what mj_forward computes of that state with the controls of the last step still
        applied, and with the plant's own forces at that state: what a controller reads before it
        acts next. The simulation goes on as if it had not been read.

        Args:
            rows: the simulations to read, indices `[k]` (None: all).

        Returns:
            `[nsim, ns]`, in the order of `Plant.sensor_channels`; NaN in rows that were not read,
            and where MuJoCo warns or gives no finite number.
        """
        state, warned = self._batch.state.copy(), self._warnings.sum(1)
        fields = self._own_fields()
        with quiet_warnings(), suppress(mujoco.batch.SimulationError):
            if self._forces is not None and self.plant.forces is not None:
                self._batch.forward(rows, stage=_VELOCITY)
                self.plant.forces(self._forces)
            self._batch.forward(rows)
        read = gather(self.plant.sensors, self._sensordata)
        sound = (self._warnings.sum(1) == warned) & np.isfinite(read).all(1)
        sound &= np.isin(np.arange(self.nsim), rows) if rows is not None else True
        self._warned += self._warnings.sum(1) - warned
        self._batch.state[:] = state
        for name, values in fields.items():
            self._batch.expand(name)[:] = values
        return np.where(sound[:, None], read, np.nan)

    def sense_at(
        self, state: State, action: np.ndarray, disturbance: np.ndarray | None = None
    ) -> np.ndarray:
        """Return what the sensors tell `[nsim, ns]` of any states while these inputs are applied.

        Args:
            state: batched state `[nsim, ...]`.
            action: `[nsim, nu]` in the channels' units, clipped to their ranges.
            disturbance: `[nsim, nw]` (None: zero).

        Raises:
            InputError: a state, action or disturbance of the wrong shape or with NaN in it.
        """
        self.place(state)
        self._control(action, disturbance)
        return self.sense()

    def _control(self, action: np.ndarray, disturbance: np.ndarray | None) -> None:
        action = checked(action, (self.nsim, self.plant.nu), "action")
        if disturbance is not None:
            disturbance = checked(disturbance, (self.nsim, self.plant.nw), "disturbance")
        self._ctrl[:, self._actions] = np.clip(action, self._low, self._high)
        if self._disturbances:
            self._ctrl[:, self._disturbances] = 0.0 if disturbance is None else disturbance

    def _own_fields(self) -> dict[str, np.ndarray]:
        """Return copies of the model's fields that the plant's own forces may write."""
        if self._forces is None:
            return {}
        expanded = {name: self._batch.expanded(name) for name in mujoco.batch.MODEL_FIELDS}
        return {name: values.copy() for name, values in expanded.items() if values is not None}

    def readings(self, read: Reading, rows: np.ndarray, stepped: np.ndarray) -> np.ndarray:
        """Read derived quantities of simulations, made with `derived`.

        Args:
            read: `(MjModel, MjData) -> [nr]`.
            rows: which simulations, indices `[k]`.
            stepped: which of them were stepped since they were placed, bool `[k]`: then the forces
                of constraints on the bodies are computed too.

        Returns:
            `[k, nr]`.
        """
        if not self._models:
            self._models = self._compiled()
        found, models = [], self._models
        for row, moved in zip(rows, stepped, strict=True):
            model = models[row]
            self._scratch = self._batch.get_data(int(row), self._scratch)
            if moved:
                mujoco.mj_rnePostConstraint(model, self._scratch)
            found.append(read(model, self._scratch))
        return np.array(found)

    def _compiled(self) -> list[mujoco.MjModel]:
        """Return the model of each simulation, one for all that are of a design."""
        unique, inverse = np.unique(self.designs, axis=0, return_inverse=True)
        nominal, plant = self.plant.nominal, self.plant
        models = [
            plant.model if np.array_equal(d, nominal) else plant.compile(d, textures=False)
            for d in unique
        ]
        return [models[i] for i in inverse]

    @property
    def _live(self) -> tuple[tuple[np.ndarray, str], ...]:
        return (
            (self._qpos, "qpos"),
            (self._qvel, "qvel"),
            (self._act, "act"),
            (self._time, "time"),
        )

    def _read(self, before: State) -> State:
        after = {name: live.copy() for live, name in self._live}
        # Numbers over the whole batch first: looking at every row costs five times as much.
        if not (self.valid.all() and self._sound(after, None)):
            self.valid &= self._sound(after, 1)
            lost = ~self.valid
            for live, name in self._live:
                live[lost] = after[name][lost] = np.asarray(getattr(before, name))[lost]
        return State(**after, command=np.asarray(before.command), design=np.asarray(before.design))

    def _sound(self, after: dict[str, np.ndarray], axis: int | None) -> np.ndarray | np.bool_:
        """Tell for the whole batch (axis None) or row by row (1) that nothing has diverged."""
        # mj_step resets a simulation whose state it finds bad: finite, plausible and wrong. Only
        # the counters tell. What turns bad in the very last physics step shows in the state.
        warned = self._warned.sum() if axis is None else self._warned
        qvel, rest = after["qvel"], after["qpos"].sum(axis) + after["act"].sum(axis)
        return (
            (self._warnings.sum(axis) == warned)
            & (qvel.max(axis, initial=0.0) < SPEED_LIMIT)
            & (qvel.min(axis, initial=0.0) > -SPEED_LIMIT)
            & np.isfinite(rest)  # a sum is not finite when a term is not
        )


class quiet_warnings:
    """Keep MuJoCo from writing MUJOCO_LOG.TXT where the user works; `valid` tells the same."""

    def __enter__(self) -> None:
        self._before = mujoco.get_mju_user_warning()
        mujoco.set_mju_user_warning(_ignore)

    def __exit__(self, *_: object) -> None:
        mujoco.set_mju_user_warning(self._before)


def _ignore(_: str) -> None:
    return None
