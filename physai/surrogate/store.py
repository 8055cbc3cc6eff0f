"""Surrogates on disk: `surrogate.safetensors` (weights) and `surrogate.json` (what they mean)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from physai.errors import InputError
from physai.plant import Plant
from physai.provenance import atomic_write, read_json, write_json
from physai.rollout.images import Image
from physai.state import Joint
from physai.surrogate.balls import Contact
from physai.surrogate.bounds import Bounds, Pace, unbounded
from physai.surrogate.centre import Translation
from physai.surrogate.domain import Domain
from physai.surrogate.features import Layout, Limit
from physai.surrogate.inputs import input_channels
from physai.surrogate.known import blank_known
from physai.surrogate.model import Surrogate
from physai.surrogate.network import Architecture, init_ensemble
from physai.surrogate.readout import Frame, SensorReadout
from physai.surrogate.scaling import Calibration, Normaliser

WEIGHTS, CARD = "surrogate.safetensors", "surrogate.json"
FORMAT = "physai.surrogate/6"


def save_surrogate(
    folder: Path, surrogate: Surrogate, plant: Plant, about: Mapping[str, Any]
) -> None:
    """Write weights and card into an existing folder.

    The card names every input and predicted channel with its unit and training range, so that the
    operating domain can be read without code.
    """
    tensors = {name: np.asarray(leaf) for name, leaf in _named_leaves(surrogate).items()}
    atomic_write(folder / WEIGHTS, save_tensors(tensors))
    low, high = np.asarray(surrogate.domain.low), np.asarray(surrogate.domain.high)
    domain = [
        {"name": c.name, "unit": c.unit, "low": float(low[i]), "high": float(high[i])}
        for i, c in enumerate(input_channels(surrogate.layout, plant))
    ]
    known = surrogate.known
    card = {
        "format": FORMAT,
        "plant": {"name": plant.name, "sha256": plant.sha256},
        "members": surrogate.members,
        "architecture": dataclasses.asdict(surrogate.architecture),
        "layout": _described(surrogate.layout),
        "equations": None if known is None else known.description(),
        "calibrated_horizon": int(surrogate.calibration.floor.shape[0]),
        "prototypes": len(surrogate.domain.prototypes),
        "pace_bound": surrogate.bounds.pace is not None,
        "inputs": domain,
        "predicts": [{"name": c.name, "unit": c.unit} for c in plant.state_channels],
        **about,
    }
    if surrogate.readout is not None:
        card["readout"] = _readout_card(surrogate.readout, plant)
    write_json(folder / CARD, card)


def _described(layout: Layout) -> dict[str, Any]:
    return {
        **dataclasses.asdict(layout),
        "joints": [joint._asdict() for joint in layout.joints],
    }


def _readout_card(readout: SensorReadout, plant: Plant) -> dict[str, Any]:
    return {
        "predicts": [{"name": c.name, "unit": c.unit} for c in plant.sensor_channels],
        "architecture": dataclasses.asdict(readout.architecture),
        "layout": _described(readout.layout),
        "frames": [frame._asdict() for frame in readout.frames],
        "sparse": list(readout.sparse),
        "calibrated_horizon": int(readout.calibration.floor.shape[0]) - 1,
    }


def load_surrogate(folder: str | Path, plant: Plant | None = None) -> Surrogate:
    """Load a surrogate; with `plant`, refuse one that was fitted to another machine.

    Raises:
        InputError: missing, truncated or inconsistent files, NaN in the weights, another plant.
    """
    folder = Path(folder)
    card = read_card(folder)
    if plant is not None and card["plant"]["sha256"] != plant.sha256:
        raise InputError(
            f"{folder}: this surrogate was fitted to plant {card['plant']['name']} "
            f"({card['plant']['sha256'][:12]}), not to {plant.name} ({plant.sha256[:12]}). "
            "Fit one to this plant with `physai fit`, from this one with --from."
        )
    path = folder / WEIGHTS
    try:
        tensors = load_tensors(path.read_bytes())
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read as weights, truncated? ({error})") from error
    return _filled(_blank(card), tensors, path)


def read_card(folder: str | Path) -> dict[str, Any]:
    """Return what `surrogate.json` says of a surrogate.

    Raises:
        InputError: no surrogate, a damaged card, or one of another format.
    """
    path = Path(folder) / CARD
    if not path.is_file():
        raise InputError(f"{folder}: expected a surrogate folder with {CARD} and {WEIGHTS}")
    card = read_json(path)
    if card.get("format") != FORMAT:
        raise InputError(
            f"{path}: expected a surrogate of format {FORMAT}, got "
            f"{card.get('format', 'none')}: fit it again with `physai fit`"
        )
    return card


def _named_leaves(surrogate: Surrogate) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(surrogate)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _layout(described: Mapping[str, Any]) -> Layout:
    raw: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in described.items()}
    raw["joints"] = tuple(Joint(**joint) for joint in described["joints"])
    raw["vectors"] = tuple((a, b, c) for a, b, c in raw["vectors"])
    raw["centred"] = tuple(
        Translation(i, j, (x, y, z), body) for i, j, (x, y, z), body in raw["centred"]
    )
    raw["limits"] = tuple(Limit(*limit) for limit in raw["limits"])
    raw["contacts"] = tuple(
        Contact(name, body, ball, (x, y, z), height)
        for name, body, ball, (x, y, z), height in raw["contacts"]
    )
    raw["images"] = tuple(map(Image.of, raw["images"]))
    raw["friction"] = tuple((i, speed) for i, speed in raw["friction"])
    return Layout(**raw)


def _blank(card: Mapping[str, Any]) -> Surrogate:
    """Return a surrogate of the right shapes, to be filled with the stored arrays."""
    layout, architecture = _layout(card["layout"]), Architecture(**card["architecture"])
    ni, nt, horizon = architecture.inputs, architecture.outputs, card["calibrated_horizon"]
    vectors = {name: jnp.zeros(ni) for name in ("low", "high", "slack", "mean")}
    prototypes = jnp.zeros((card["prototypes"], ni))

    def blank() -> Surrogate:
        return Surrogate(
            init_ensemble(architecture, card["members"], jax.random.key(0)),
            _no_scales(architecture),
            _blank_bounds(layout.nv, card["pace_bound"]),
            Calibration(jnp.zeros((horizon, nt)), jnp.zeros((horizon, nt))),
            Domain(
                **vectors,
                whitening=jnp.zeros((ni, ni)),
                prototypes=prototypes,
                radius=jnp.zeros(()),
            ),
            layout,
            architecture,
            None if card["equations"] is None else blank_known(card["equations"]),
            _blank_readout(card["readout"], card["members"]) if "readout" in card else None,
        )

    return jax.eval_shape(blank)


def _blank_bounds(nv: int, paced: bool) -> Bounds:
    pace = Pace(jnp.zeros(nv), jnp.zeros((nv, nv)), jnp.zeros(()))
    return dataclasses.replace(unbounded(nv), pace=pace if paced else None)


def _no_scales(architecture: Architecture) -> Normaliser:
    ni, nt = architecture.inputs, architecture.outputs
    return Normaliser(*(jnp.zeros(n) for n in (ni, ni, nt, nt, nt)))


def _blank_readout(card: Mapping[str, Any], members: int) -> SensorReadout:
    architecture = Architecture(**card["architecture"])
    shape = card["calibrated_horizon"] + 1, len(card["predicts"])
    return SensorReadout(
        init_ensemble(architecture, members, jax.random.key(0)),
        _no_scales(architecture),
        Calibration(jnp.zeros(shape), jnp.zeros(shape)),
        _layout(card["layout"]),
        architecture,
        tuple(Frame(**frame) for frame in card["frames"]),
        tuple(card["sparse"]),
    )


def _filled(blank: Surrogate, tensors: Mapping[str, np.ndarray], path: Path) -> Surrogate:
    expected = _named_leaves(blank)
    if set(tensors) != set(expected):
        odd = sorted(set(tensors) ^ set(expected))[:3]
        raise InputError(f"{path}: the stored arrays do not match {CARD}: {', '.join(odd)}")
    for name, leaf in expected.items():
        if tensors[name].shape != leaf.shape:
            raise InputError(
                f"{path}: {name}: expected shape {leaf.shape}, got {tensors[name].shape}"
            )
        if np.isnan(tensors[name]).any():
            raise InputError(f"{path}: {name} has NaN in it")
    structure = jax.tree_util.tree_structure(blank)
    return jax.tree_util.tree_unflatten(structure, [jnp.asarray(tensors[n]) for n in expected])
