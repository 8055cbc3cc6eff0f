"""Verbs about policies: learn one, verify it, export it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from physai import show
from physai.console import progress_bars
from physai.export.export import export_policy
from physai.learn.imagination import Conditions
from physai.learn.learn import learn_policy
from physai.learn.value_gradient import LearnSettings
from physai.task import design_aware
from physai.verbs.common import Flat, Name, done, flown_controller, load
from physai.verify.certificate import certify


def learn_verb(
    plant: Name,
    surrogate: Path,
    out: Path,
    start: Path | None = None,
    aware: bool = False,
    settings: Annotated[LearnSettings, Flat] = LearnSettings(),
    conditions: Conditions = Conditions(),
    seed: int = 0,
    json: bool = False,
) -> int:
    """Learn a policy inside a surrogate.

    Args:
        plant: the machine.
        surrogate: folder of the surrogate.
        out: folder of the policy.
        start: a policy to go on from.
        aware: let the policy see the design vector.
        settings: how to learn.
        conditions: what the imagined machines meet.
        seed: of every draw.
        json: print JSON to stdout.
    """
    machine, task = load(plant)
    task = design_aware(task, machine) if aware else task
    with progress_bars() as progress:
        _, comparison = learn_policy(
            machine,
            task,
            surrogate,
            out,
            settings,
            conditions,
            seed,
            start,
            progress,
        )
    result = {"out": str(out), "imagined": comparison.imagined, "true": comparison.true}
    return done(result, json, show.record)


def verify_verb(
    plant: Name,
    policy: Path,
    out: Path,
    flights: int = 2000,
    seed: int = 0,
    json: bool = False,
) -> int:
    """Fly fresh scenarios in true MuJoCo and write the certificate.

    Args:
        plant: the machine.
        policy: folder of a policy, or of a bundle (then its compiled C code flies).
        out: folder of the certificate.
        flights: scenarios, without and with disturbances each.
        seed: of the scenarios.
        json: print JSON to stdout.
    """
    machine, task = load(plant)
    controller, task, role = flown_controller(policy, task, machine)
    inputs = {role: policy, "plant": machine}
    with progress_bars() as progress:
        certificate = certify(
            machine,
            task,
            controller,
            out,
            flights=flights,
            seed=seed,
            inputs=inputs,
            progress=progress,
        )
    return done(certificate.summary(), json, show.certificate)


def export_verb(
    plant: Name,
    policy: Path,
    out: Path,
    certificate: Path | None = None,
    seed: int = 0,
    json: bool = False,
) -> int:
    """Export a policy to C99 and ONNX, and compare both with JAX.

    Args:
        plant: the machine.
        policy: folder of the policy.
        out: folder of the bundle.
        certificate: folder of its certificate, to ship along.
        seed: of the observations compared.
        json: print JSON to stdout.
    """
    machine, task = load(plant)
    with progress_bars() as progress:
        parity = export_policy(machine, task, policy, out, certificate, seed, progress)
    return done(parity, json, show.record)
