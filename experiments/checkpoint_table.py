"""Write the table of released surrogates in `checkpoints/README.md` anew, from their report cards.

python experiments/checkpoint_table.py
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from physai.provenance import atomic_write
from physai.provenance.storage import read_json

SHOWN = (1, 10, 50)
HEAD = "| checkpoint |"


@dataclass(frozen=True)
class Settings:
    """What to tell."""

    name: str = "v1"
    """Of the checkpoints."""
    checkpoints: Path = Path(__file__).parents[1] / "checkpoints"
    """Where they are."""


def main(settings: Settings) -> int:
    """Write the table; return 1 where the page has none."""
    page = settings.checkpoints / "README.md"
    lines = page.read_text().splitlines()
    heads = [i for i, line in enumerate(lines) if line.startswith(HEAD)]
    if len(heads) != 1:
        print(f"{page}: expected one table that begins with '{HEAD}'", file=sys.stderr)
        return 1
    begin = heads[0] + 2  # below the head and its rule
    end = next(i for i in range(begin, len(lines) + 1) if not "".join(lines[i : i + 1]))
    found = sorted(settings.checkpoints.glob(f"*/{settings.name}/student-score"))
    lines[begin:end] = [row(folder.parent, settings) for folder in found]
    atomic_write(page, "\n".join(lines) + "\n")
    return 0


def row(folder: Path, settings: Settings) -> str:
    """Return the row of a checkpoint."""
    where = folder.relative_to(settings.checkpoints)
    cells = [f"[`{where}`]({where}/README.md)"]
    for part in ("score", "student-score"):
        card: dict[str, Any] = read_json(folder / part / "score.json")
        at = [card["horizons"].index(horizon) for horizon in SHOWN]
        cells.append(", ".join(f"{100 * card['nrmse'][i]:.3g}" for i in at))
        cells.append(", ".join(f"{100 * card['coverage'][i]:.1f}" for i in at))
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
