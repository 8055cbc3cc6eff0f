"""Draw the tables of surrogates: error against horizon beside peers, and error against speed.

    python experiments/surrogate_figures.py          # docs/surrogate_errors.png, _speed.png

Lines and points are medians over seeds of `results/surrogate_benchmark.csv`; speeds and their
errors are those of `results/speed.csv`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import table
import tyro
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from surrogate_benchmark import CONTACT, HORIZONS, PLANTS

RESULTS = Path(__file__).parent / "results"
COLOURS = {
    "physai": "#1f5fbf",
    "mbrl": "#c8501e",
    "recurrent": "#2c8a4b",
    "ridge": "#8a6fb0",
    "persistence": "#777777",
}
LINES = {"": ":", "60.0": "--", "600.0": "-"}
"""By seconds of training; without any where nothing is trained."""
IN_CONTACT = "#c8501e"
"""Of machines that walk, beside the blue of all others."""
MOST = 100.0
"""Of the motion: flights farther off count as that."""
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Settings:
    """What to draw."""

    benchmark: Path = RESULTS / "surrogate_benchmark.csv"
    """Errors by competitor, budget and seed."""
    speed: Path = RESULTS / "speed.csv"
    """Speeds of released models."""
    out: Path = Path(__file__).parents[1] / "docs"
    """Folder of the pictures."""


def main(settings: Settings) -> None:
    """Draw what has rows."""
    drawn = {
        "surrogate_errors": (errors, table.read(settings.benchmark)),
        "surrogate_speed": (speeds, table.read(settings.speed)),
    }
    for name, (draw, rows) in drawn.items():
        if rows:
            with rc_context(STYLE):
                draw(rows).savefig(settings.out / f"{name}.png", dpi=130)
            print(settings.out / f"{name}.png")


def errors(rows: list[dict[str, Any]]) -> Figure:
    """Draw error against horizon, a panel a plant, a line a competitor and budget."""
    plants = [plant for plant in PLANTS if any(row["plant"] == plant for row in rows)]
    high = -(-len(plants) // 4)
    figure = Figure(figsize=(9.0, 0.5 + 1.9 * high), layout="constrained")
    panels = list(figure.subplots(high, 4, squeeze=False, sharex=True).flat)
    for axes, plant in zip(panels, plants, strict=False):
        found = defaultdict(list)
        for row in rows:
            if row["plant"] == plant:
                curve = [float(row[f"nrmse_{h}"]) for h in HORIZONS]
                found[row["competitor"], row["budget"]].append(curve)
        for (competitor, budget), curves in found.items():
            middle = np.minimum(np.median(curves, axis=0), MOST)
            axes.plot(HORIZONS, middle, color=COLOURS[competitor], ls=LINES[budget], lw=1.4)
        axes.set_title(plant)
        _log(axes)
        axes.set_xticks(HORIZONS, map(str, HORIZONS))
    for axes in panels[len(plants) :]:
        axes.axis("off")
    figure.supxlabel("control periods ahead", fontsize=8)
    figure.supylabel("error / spread of the motion (nRMSE)", fontsize=8)
    _legend(figure, rows)
    return figure


def _legend(figure: Figure, rows: Iterable[dict[str, Any]]) -> None:
    there = {row["competitor"] for row in rows}
    budgets = sorted({row["budget"] for row in rows} - {""}, key=float)
    handles = [Line2D([], [], color=c, label=n) for n, c in COLOURS.items() if n in there]
    handles += [
        Line2D([], [], color="k", ls=LINES[b], label=f"{float(b):g} s of training") for b in budgets
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))


def speeds(rows: list[dict[str, Any]]) -> Figure:
    """Draw the error after 50 periods against the speed in terms of MuJoCo's, ensemble to student.

    Left of 1 the simulator is faster.
    """
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    axes = figure.subplots()
    for plant in dict.fromkeys(row["plant"] for row in rows):
        pair = {row["model"]: row for row in rows if row["plant"] == plant}
        x, y = (
            [float(pair[model][key]) for model in ("ensemble", "student")]
            for key in ("ratio", "nrmse_50")
        )
        colour = IN_CONTACT if plant in CONTACT else COLOURS["physai"]
        axes.plot(x, y, color=colour, lw=1.0)
        axes.plot(x[0], y[0], "o", color=colour, mfc="white", ms=5)
        axes.plot(x[1], y[1], "o", color=colour, ms=5)
        axes.annotate(plant, (x[1], y[1]), xytext=(5, 3), textcoords="offset points")
    axes.axvline(1.0, color="#444444", lw=1.0)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("control periods a second, in terms of mujoco.batch on all cores")
    axes.set_ylabel("nRMSE after 50 periods")
    _log(axes)
    marks = (("ensemble", "white"), ("student", "#444444"))
    handles = [
        Line2D([], [], ls="", marker="o", color="#444444", mfc=face, label=name)
        for name, face in marks
    ]
    kinds = ((COLOURS["physai"], "smooth"), (IN_CONTACT, "in contact with the ground"))
    handles += [Line2D([], [], color=colour, label=name) for colour, name in kinds]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return figure


def _log(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
