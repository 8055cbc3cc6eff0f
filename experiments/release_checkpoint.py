"""Release what a finished run made as an open checkpoint, without its dataset.

Copies surrogate, report card, policy, certificate and bundle of a run into
`checkpoints/PLANT/NAME/`, with a student distilled from the surrogate, and writes a card beside
them. Refuses a run whose chain of hashes does
not hold, or that was made from code that is not committed.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from release_surrogates import percent, student_of

from physai.plant import load_plant
from physai.provenance import atomic_folder, check_chain, read_manifest
from physai.provenance.storage import read_json
from physai.rollout.dataset import open_dataset
from physai.surrogate.distil import DistilSettings

PARTS = ("surrogate", "score", "policy", "certificate", "bundle")
STUDENT = ("student", "student-score")


@dataclass(frozen=True)
class Settings:
    """What to release."""

    run: Path = Path("runs/quadrotor")
    """Folder of a finished run of one round."""
    name: str = "v1"
    """Name of the checkpoint."""
    checkpoints: Path = Path("checkpoints")
    """Where checkpoints are kept."""


def main(settings: Settings) -> int:
    """Release; return 0, or 1 with the reason where the run cannot be released."""
    summary = json.loads((settings.run / "summary.json").read_text())
    if len(summary["returns"]) != 1:
        print("cannot release: the run took more than one round", file=sys.stderr)
        return 1
    if broken := [link for link in check_chain(settings.run / "report") if not link.ok]:
        print(f"cannot release: {broken[0].path}: {broken[0].detail}", file=sys.stderr)
        return 1
    plant = load_plant(summary["plant"])
    data = open_dataset(settings.run / "dataset", plant)
    student_of(plant, settings.run, data, DistilSettings(), summary["seed"])
    parts = (*PARTS, *STUDENT)
    if any(read_manifest(settings.run / part)["git"]["dirty"] is not False for part in parts):
        print("cannot release: the run was made from code that is not committed", file=sys.stderr)
        return 1
    folder = settings.checkpoints / summary["plant"] / settings.name
    with atomic_folder(folder) as temporary:
        for part in parts:
            shutil.copytree(settings.run / part, temporary / part)
        (temporary / "README.md").write_text(card(settings, summary))
    print(folder)
    return 0


def card(settings: Settings, summary: dict[str, Any]) -> str:
    """Return the card: what it is, what came out, what it is not for, how to check it."""
    manifest = read_manifest(settings.run / "policy")
    plant, seed, score = summary["plant"], summary["seed"], summary["score"]
    versions = ", ".join(f"{n} {manifest['versions'][n]}" for n in ("python", "jax", "mujoco"))
    conditions = summary["certificate"]["conditions"]
    compiled = ", ".join(
        f"{found['passed']} {name}"
        for name, found in sorted(summary["certificate_c99"]["conditions"].items(), reverse=True)
    )
    flights = "\n".join(
        f"| flights that pass, {name} | {found['passed']} of {found['flights']}, "
        f"95% interval {found['low']:.4f} to {found['high']:.4f} |"
        for name, found in sorted(conditions.items(), reverse=True)
    )
    student = read_json(settings.run / "student-score" / "score.json")
    errors = "\n".join(
        f"| {name} {steps} steps ahead | nRMSE {percent(error)}, "
        f"90% interval covers {100 * covered:.1f}% |"
        for name, told in (("surrogate", score), ("student", student))
        for steps, error, covered in zip(
            told["horizons"], told["nrmse"], told["coverage"], strict=True
        )
    )
    return f"""# {plant}

Surrogate, student, policy and exported code of `physai run {plant} --seed {seed}`, of commit
`{manifest["git"]["commit"]:.12}` with {versions}.

For simulation of the shipped plant `{plant}` and as a start for fine-tuning. Not for a real
machine: simulator against reality was not compared.

| | |
|---|---|
{flights}
{errors}
| flights that the compiled C passes | {compiled} |
| C99 against JAX, at most | {summary["parity"]["c99_max_error"]:.1e} |

The operating domain, input by input, is in `surrogate/surrogate.json`; channels, units and ranges
of the policy are in `bundle/contract.json`. The dataset is not shipped. These two commands make it
again, bit for bit on a machine like the one it came from, and check the chain with it:

```sh
physai rollout {plant} --out checkpoints/{plant}/{settings.name}/dataset --seed {seed}
physai check checkpoints/{plant}/{settings.name}/bundle
```
"""


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
