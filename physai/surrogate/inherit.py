"""What a fit takes over from a fitted surrogate: of the same machine, or of a variant of it.

The network and its scales stay, so that the function it learned is the one that training goes on
from. What the model tells comes from the new machine: the masses of the known equations and of the
mass centres, the ranges of joint limits, the speeds of dry friction. Which of it is used, and which
symmetries are relied on, is what the network was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from physai.errors import InputError
from physai.plant import Plant
from physai.rollout.symmetry import Symmetry
from physai.surrogate.balls import contacts_of
from physai.surrogate.centre import translations
from physai.surrogate.domain import rounding
from physai.surrogate.features import Layout, layout_of
from physai.surrogate.inputs import input_channels
from physai.surrogate.known import known_dynamics
from physai.surrogate.model import Surrogate
from physai.surrogate.network import Parameters
from physai.surrogate.scaling import TARGET_MARGIN, Normaliser
from physai.surrogate.store import load_surrogate, read_card

NAMED = 4  # channels that a message names


@dataclass(frozen=True)
class Start:
    """A surrogate that a fit goes on from.

    Attributes:
        surrogate: as it was fitted.
        fitting: the same network, of the new machine: its layout and what is known of it.
        plant: name and hash of the machine that it was fitted to.
    """

    surrogate: Surrogate
    fitting: Surrogate
    plant: dict[str, str]


def open_start(folder: str | Path, plant: Plant, symmetry: Symmetry) -> Start:
    """Load a surrogate to go on from on data of a plant, its own or one of the same channels.

    Args:
        folder: the surrogate.
        plant: the machine of the data.
        symmetry: of the data: what the surrogate may leave out of its inputs.

    Raises:
        InputError: as `load_surrogate`; or joints, channels, units, control period, vectors or mass
            centres that are not those of the plant, or an input that the plant depends on and the
            surrogate does not see. The message names them.
    """
    surrogate, card = load_surrogate(folder), read_card(folder)
    of = {key: card["plant"][key] for key in ("name", "sha256")}
    if of["sha256"] == plant.sha256:
        return Start(surrogate, surrogate, of)
    own, old = layout_of(plant, symmetry), surrogate.layout
    chosen = ("position_axes", "heading_invariant", "idle", "turns", "equations", "contacts")
    layout = replace(own, **{name: getattr(old, name) for name in chosen})
    problems = _problems(card, old, own, layout, plant)
    if not problems:
        centre = {t.qvel_index: t for t in translations(plant)}
        wanted = [t.qvel_index for t in old.centred]
        lost = [plant.state_channels[i].name for i in wanted if i not in centre]
        problems = [f"no mass centre that moves about its root: {_few(lost)}"] if lost else []
    contacts = {contact.name: contact for contact in contacts_of(plant)}
    if not problems:
        lost = [contact.name for contact in old.contacts if contact.name not in contacts]
        problems = [f"nothing that touches the ground there: {_few(lost)}"] if lost else []
    if problems:
        raise InputError(
            f"{folder}: a surrogate of plant {of['name']} does not fit {plant.name}: "
            f"{'; '.join(problems)}. Give --from a surrogate of the same channels, or fit without "
            "--from"
        )
    layout = replace(
        layout,
        design_low=old.design_low,  # the scale of the inputs that the network was trained on
        design_high=old.design_high,
        centred=tuple(centre[i] for i in wanted),
        contacts=tuple(contacts[contact.name] for contact in old.contacts),
    )
    known = None if surrogate.known is None else known_dynamics(plant)
    return Start(surrogate, replace(surrogate, layout=layout, known=known), of)


def _problems(
    card: Mapping[str, Any], old: Layout, own: Layout, layout: Layout, plant: Plant
) -> list[str]:
    """Say what of a plant a surrogate does not fit; `layout` is its own with the old's choices."""
    found = []
    if old.control_period != own.control_period:
        found.append(
            f"control period: expected {old.control_period:g} s, got {own.control_period:g} s"
        )
    joints = [[f"{j.name} ({j.kind})" for j in each.joints] for each in (old, own)]
    found += _apart("joints", *joints)
    if found and joints[0] != joints[1]:
        return found  # their channels differ as well, and say no more
    found += _apart("predicted channels", _named(card["predicts"]), _plain(plant.state_channels))
    seen, given = _named(card["inputs"]), _plain(input_channels(layout, plant))
    found += _apart("inputs", seen, given)
    blind = [c for c in _plain(input_channels(own, plant)) if c not in given]
    if blind and seen == given:
        found.append(f"{plant.name} depends on inputs that the surrogate leaves out: {_few(blind)}")
    if old.vectors != own.vectors and not found:
        found.append(f"disturbance vectors: expected {old.vectors}, got {own.vectors}")
    return found


def _named(channels: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{c['name']} [{c['unit']}]" for c in channels]


def _plain(channels: Sequence[Any]) -> list[str]:
    return [f"{c.name} [{c.unit}]" for c in channels]


def _apart(what: str, expected: list[str], got: list[str]) -> list[str]:
    """Say how two lists of names differ; nothing where they do not."""
    if expected == got:
        return []
    lacking = [name for name in expected if name not in got]
    more = [name for name in got if name not in expected]
    if not (lacking or more):
        return [f"{what}: expected the order {_few(expected)}, got {_few(got)}"]
    return [f"{what}: expected {_few(lacking) or 'no more'}, got {_few(more) or 'none of these'}"]


def _few(names: Sequence[str]) -> str:
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + rest


def taken_over(
    start: Surrogate, fresh: Normaliser, targets: jax.Array
) -> tuple[Parameters, Normaliser]:
    """Return a surrogate's weights and scales, able to learn from data of another machine.

    The network's function is the start's, but for how large a change it may predict: that follows
    from the new data. Where the start's data held one value of an input, or nothing to learn of a
    target, its weights are those that nobody trained and its scale says nothing. There the weights
    become 0 and the scale that of the new data.

    Args:
        start: the surrogate.
        fresh: scales of the new data.
        targets: of the new data, raw `[N, nt]`.
    """
    low, high, old = start.domain.low, start.domain.high, start.normaliser
    still = high - low <= rounding(low, high)
    idle = (old.target_std == 0.0) & (fresh.target_std > 0.0)
    std = jnp.where(idle, fresh.target_std, old.target_std)
    limit = TARGET_MARGIN * jnp.max(jnp.abs(targets - old.target_mean), axis=0)
    normaliser = Normaliser(
        jnp.where(still, fresh.input_mean, old.input_mean),
        jnp.where(still, fresh.input_std, old.input_std),
        old.target_mean,
        std,
        limit / jnp.where(std > 0.0, std, 1.0),
    )
    parameters = jax.tree.map(lambda leaf: leaf, start.parameters)
    for layer in (parameters["hidden"][0], parameters["linear"]):
        layer["kernel"] = jnp.where(still[:, None], 0.0, layer["kernel"])
    for layer in ("readout", "linear"):
        parameters[layer] = {n: jnp.where(idle, 0.0, leaf) for n, leaf in parameters[layer].items()}
    return parameters, normaliser
