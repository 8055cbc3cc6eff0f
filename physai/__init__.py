"""physai: from a MuJoCo model to a controller that was verified in the true simulator.

plant + task -> collect -> fit -> learn -> verify -> export_policy; `run` does all of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from physai.control.controller import Controller, batch_controller, policy_controller
    from physai.control.policy import Policy
    from physai.design.study import run_study
    from physai.env.model import Model
    from physai.errors import InputError
    from physai.export.bundle import check_bundle
    from physai.export.export import export_policy
    from physai.flow import RunSettings, run
    from physai.learn.learn import learn_policy, load_policy_folder
    from physai.plant import Plant, load_plant
    from physai.provenance import check_chain
    from physai.report.run import report_run
    from physai.rollout.collect import RolloutSettings, collect
    from physai.rollout.dataset import open_dataset
    from physai.rollout.engine import TruePlant
    from physai.state import State
    from physai.surrogate.model import Surrogate
    from physai.surrogate.release import fit, write_score
    from physai.surrogate.store import load_surrogate
    from physai.task import Task, load_task
    from physai.verify.certificate import certify, load_certificate

_HOMES = {
    "control.controller": ("Controller", "batch_controller", "policy_controller"),
    "control.policy": ("Policy",),
    "design.study": ("run_study",),
    "env.model": ("Model",),
    "errors": ("InputError",),
    "export.bundle": ("check_bundle",),
    "export.export": ("export_policy",),
    "flow": ("RunSettings", "run"),
    "learn.learn": ("learn_policy", "load_policy_folder"),
    "plant": ("Plant", "load_plant"),
    "provenance": ("check_chain",),
    "report.run": ("report_run",),
    "rollout.collect": ("RolloutSettings", "collect"),
    "rollout.dataset": ("open_dataset",),
    "rollout.engine": ("TruePlant",),
    "state": ("State",),
    "surrogate.model": ("Surrogate",),
    "surrogate.release": ("fit", "write_score"),
    "surrogate.store": ("load_surrogate",),
    "task": ("Task", "load_task"),
    "verify.certificate": ("certify", "load_certificate"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = [
    "Controller",
    "InputError",
    "Model",
    "Plant",
    "Policy",
    "RolloutSettings",
    "RunSettings",
    "State",
    "Surrogate",
    "Task",
    "TruePlant",
    "batch_controller",
    "certify",
    "check_bundle",
    "check_chain",
    "collect",
    "export_policy",
    "fit",
    "learn_policy",
    "load_certificate",
    "load_plant",
    "load_policy_folder",
    "load_surrogate",
    "load_task",
    "open_dataset",
    "policy_controller",
    "report_run",
    "run",
    "run_study",
    "write_score",
]


def __getattr__(name: str) -> Any:
    """Import a public name where it is first used, so that `import physai` costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'physai' has no attribute {name!r}")
    return getattr(import_module(f"physai.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
