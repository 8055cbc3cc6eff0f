"""Building MuJoCo's batch of simulations, each with its own design and masses."""

from __future__ import annotations

import copy

import mujoco
import mujoco.batch
import numpy as np

from physai.errors import InputError
from physai.plant import Plant


def checked(values: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Return values as float64, after a check of their shape and that they are finite."""
    values = np.asarray(values, float)
    if values.shape != shape:
        raise InputError(f"{what}: expected shape {shape}, got {values.shape}")
    if not np.isfinite(values.sum()) and not np.isfinite(values).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise InputError(f"{what}: expected finite numbers, got {values[where]} at index {where}")
    return values


def checked_designs(plant: Plant, nsim: int, designs: np.ndarray | None) -> np.ndarray:
    """Return the design of every simulation `[nsim, nd]` (None: the nominal one)."""
    shape = (nsim, len(plant.design))
    if designs is None:
        return np.broadcast_to(plant.nominal, shape).copy()
    return plant.check_design(checked(designs, shape, "designs"))


def checked_masses(nsim: int, mass_scale: np.ndarray | None) -> np.ndarray | None:
    """Return the factors on the masses `[nsim]` (None: 1), after a check that they are positive."""
    if mass_scale is None:
        return None
    mass_scale = checked(mass_scale, (nsim,), "mass_scale")
    if not (mass_scale > 0).all():
        raise InputError(f"mass_scale: expected factors above 0, got {mass_scale.min():g}")
    return mass_scale


def batch_of(
    plant: Plant, designs: np.ndarray, mass_scale: np.ndarray | None, nthread: int, keep: bool
) -> mujoco.batch.Batch:
    """Compile each distinct design once, then scale masses per simulation."""
    unique, inverse = np.unique(designs, axis=0, return_inverse=True)
    nsim = len(designs)
    if len(unique) == 1:
        # Fields of its own for every simulation cost far less than a model of its own.
        nominal = np.array_equal(unique[0], plant.nominal)
        model = plant.model if nominal else plant.compile(unique[0], textures=False)
        batch = mujoco.batch.Batch(model, nsim, nthread, persistent=keep)
        if mass_scale is not None:
            for name in ("body_mass", "body_inertia"):
                field = batch.expand(name)
                field *= mass_scale.reshape(-1, *[1] * (field.ndim - 1))
            batch.set_const()
        return batch
    compiled = [plant.compile(design, textures=False) for design in unique]
    if plant.forces is not None:
        return _expanded(plant, compiled, inverse, mass_scale, nthread)
    models = [compiled[i] for i in inverse]
    if mass_scale is not None:
        models = [_scaled(m, s) for m, s in zip(models, mass_scale, strict=True)]
    batch = mujoco.batch.Batch(plant.model, nsim, nthread, persistent=keep)
    batch.set_models(models)
    batch.reset(stage=mujoco.mjtStage.mjSTAGE_NONE.value)
    return batch


def _expanded(
    plant: Plant,
    compiled: list[mujoco.MjModel],
    inverse: np.ndarray,
    mass_scale: np.ndarray | None,
    nthread: int,
) -> mujoco.batch.Batch:
    """Give every field in which designs differ values of its own for every simulation.

    Unlike models of their own, these may be written while the simulation runs.
    """
    base, nsim = compiled[0], len(inverse)
    batch = mujoco.batch.Batch(base, nsim, nthread, persistent=True)
    for name in sorted(mujoco.batch.MODEL_FIELDS):
        values = [_field(model, name) for model in compiled]
        if any(not np.array_equal(v, values[0]) for v in values[1:]):
            batch.expand(name)[:] = np.stack(values)[inverse]
    if mass_scale is not None:
        for name in ("body_mass", "body_inertia"):
            field = batch.expand(name)
            field *= mass_scale.reshape(-1, *[1] * (field.ndim - 1))
        batch.set_const()
    return batch


def constrained(model: mujoco.MjModel) -> bool:
    """Tell whether a model may have active constraints, whose solver has a warm start."""
    touching = np.any((model.geom_contype != 0) | (model.geom_conaffinity != 0)) or model.npair
    limits = np.any(model.jnt_limited) or np.any(model.tendon_limited)
    friction = np.any(model.dof_frictionloss) or np.any(model.tendon_frictionloss)
    return bool(model.neq or touching or limits or friction)


def _field(model: mujoco.MjModel, name: str) -> np.ndarray:
    value: object = model
    for part in name.split("."):
        value = getattr(value, part)
    return np.asarray(value)


def _scaled(model: mujoco.MjModel, factor: float) -> mujoco.MjModel:
    model = copy.copy(model)
    model.body_mass *= factor
    model.body_inertia *= factor
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model
