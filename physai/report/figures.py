"""The report's figures: drawn with matplotlib, returned as SVG text that takes the page's colours.

Matplotlib's settings are changed only while a figure is drawn, and no window or file is opened.
Colours are placeholders that `svg` turns into CSS variables: one drawing serves light, dark and
paper.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 9.0  # inches, the width of the page's text
INK, SOFT, GRID = "#101112", "#202122", "#303132"
BLUE, ORANGE, GREEN, PURPLE, RED = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05"
COLOURS = {
    INK: "ink",
    SOFT: "soft",
    GRID: "grid",
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    PURPLE: "purple",
    RED: "red",
}
"""Placeholder colours and the CSS variables they become. Blue is the surrogate, orange the true
simulator, green flights without and purple with disturbances, red the worst flight."""

CONDITIONS = (GREEN, PURPLE, ORANGE, BLUE)
GROUPS = (BLUE, ORANGE, GREEN, PURPLE, RED)

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlecolor": INK,
    "axes.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "text.color": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "text.parse_math": False,  # a dollar sign in a unit is a dollar sign
    "svg.fonttype": "none",  # text stays text: it can be searched and takes the page's font
}

Columns = Mapping[str, Sequence[Any]]
"""Equally long columns by name; None is a gap."""

P = ParamSpec("P")


def drawing(draw: Callable[P, Figure]) -> Callable[P, str]:
    """Return a function that draws in the report's style and returns SVG."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
        from matplotlib import rc_context

        with rc_context({**STYLE, "svg.hashsalt": draw.__name__}):
            return svg(draw(*args, **kwargs), draw.__name__.removesuffix("_figure"))

    return drawn


@drawing
def error_figure(curve: Columns) -> Figure:
    """Draw error against horizon, from `physai.report.series.error_series`."""
    figure, (axes,) = _figure(3.3)
    time = _numbers(curve["horizon_s"])
    for name, label, colour, line, width in (
        ("persistence_nrmse", "forecast that nothing changes", SOFT, ":", 1.5),
        ("ridge_nrmse", "ridge regression", ORANGE, "-.", 1.5),
        ("interval_half_width_nrmse", "half width of the 90% interval", BLUE, "--", 1.5),
        ("error_nrmse", "surrogate", BLUE, "-", 2.0),
    ):
        if name in curve:
            axes.plot(time, _numbers(curve[name]), label=label, color=colour, ls=line, lw=width)
    axes.set_yscale("log")
    axes.set_xlabel("horizon, s")
    axes.set_ylabel("error in terms of the\nchannels' spread (nRMSE)")
    axes.set_xlim(0.0, float(time[-1]))
    _plain_log(axes)
    period = float(time[-1]) / float(curve["horizon_periods"][-1])
    steps = axes.secondary_xaxis(
        "top", functions=(lambda t: np.divide(t, period), lambda k: np.multiply(k, period))
    )
    steps.set_xlabel("horizon, control periods", color=SOFT)
    steps.tick_params(colors=SOFT, length=3)
    steps.spines["top"].set_visible(False)
    _legend(figure, [axes])
    return figure


@drawing
def fit_figure(curve: Columns) -> Figure:
    """Draw the training loss, one panel a stage, from `physai.report.series.fit_series`."""
    stages: dict[str, list[int]] = {}
    for i, name in enumerate(curve["stage"]):
        stages.setdefault(name, []).append(i)
    longest = max(map(len, stages.values()), default=1)
    ratios = [max(len(rows) / longest, 0.35) for rows in stages.values()] or [1.0]
    figure, panels = _figure(2.4, len(ratios), width_ratios=ratios)
    for axes, (stage, rows) in zip(panels, stages.items(), strict=False):
        step, loss = (_numbers([curve[name][i] for i in rows]) for name in ("step", "loss"))
        axes.plot(step, loss, color=BLUE, marker="o" if len(rows) < 10 else None, ms=4)
        axes.set_yscale("log")
        axes.set_title(stage)
        axes.set_xlabel("optimiser step")
        _plain_log(axes)
    panels[0].set_ylabel("mean training loss")
    return figure


@drawing
def calibration_figure(curve: Columns, groups: Columns, target: float) -> Figure:
    """Draw the coverage of the intervals against the horizon, and by channel group.

    Args:
        curve: from `physai.report.series.calibration_series`.
        groups: from `physai.report.series.group_series`.
        target: the coverage that was asked for, in percent.
    """
    figure, (left, right) = _figure(3.1, 2, share_y=True)
    time = _numbers(curve["horizon_s"])
    low, high = _numbers(curve["band_low_percent"]), _numbers(curve["band_high_percent"])
    left.fill_between(time, low, high, color=SOFT, alpha=0.25, lw=0, label="95% band of chance")
    left.plot(time, _numbers(curve["coverage_percent"]), color=INK, lw=2, label="all channels")
    left.set_xlabel("horizon, s")
    left.set_xlim(0.0, float(time[-1]))
    left.set_ylabel("true values inside\nthe interval, %")
    left.set_title("mean of all channels")
    names = list(dict.fromkeys(groups["group"]))
    horizons = sorted(set(groups["horizon_s"]))
    for i, name in enumerate(names):
        rows = [k for k, group in enumerate(groups["group"]) if group == name]
        places = np.array([horizons.index(groups["horizon_s"][k]) for k in rows])
        values = _numbers([groups["coverage_percent"][k] for k in rows])
        shift = 0.12 * (i - (len(names) - 1) / 2)
        marker, colour = "osD^v"[i % 5], GROUPS[i % len(GROUPS)]
        right.plot(places + shift, values, ls="none", marker=marker, ms=6, color=colour, label=name)
    right.set_xticks(range(len(horizons)), [f"{h:g}" for h in horizons])
    right.set_xlim(-0.5, len(horizons) - 0.5)
    right.grid(visible=False, axis="x")
    right.set_xlabel("horizon, s")
    right.set_title("by kind of channel")
    _legend(figure, [left, right])
    seen = [*curve["coverage_percent"], *groups["coverage_percent"], *curve["band_low_percent"]]
    lowest = min(x for x in seen if x is not None)
    for axes in (left, right):
        axes.axhline(target, color=INK, ls="--", lw=1)
        axes.set_ylim(max(0.0, lowest - 0.15 * (101.0 - lowest)), 101.0)
    return figure


@drawing
def learning_figure(curve: Columns) -> Figure:
    """Draw imagined against true return, from `physai.report.series.learning_series`."""
    figure, (axes,) = _figure(3.1)
    update, number = _numbers(curve["update"]), _numbers(curve["round"])
    for name, colour, marker, label in (
        ("imagined_return", BLUE, "o", "imagined: flown in the surrogate"),
        ("true_return", ORANGE, "s", "true: the same starts flown in MuJoCo"),
    ):
        values = _numbers(curve[name])
        seen = np.isfinite(values)
        axes.plot(update[seen], values[seen], color=colour, marker=marker, ms=4, label=label)
    rounds = update[1:][np.diff(number) > 0]
    for place in rounds:
        axes.axvline(place, color=SOFT, lw=1, ls=":")
    axes.set_xlabel("policy update" + (" (dotted: the next round begins)" if len(rounds) else ""))
    axes.set_xlim(left=0.0)
    axes.set_ylabel("mean return of a flight")
    _legend(figure, [axes])
    return figure


@drawing
def trajectory_figure(
    columns: Columns, conditions: Sequence[str], requirements: Sequence[Any]
) -> Figure:
    """Draw the typical and the worst flight: a row a requirement, a column a condition.

    Args:
        columns: from `physai.report.series.trajectory_series`.
        conditions: names, in order.
        requirements: with `name`, `unit` and `limit`.
    """
    shape = (len(conditions), max(len(requirements), 1))
    figure, panels = _figure(0.6 + 1.9 * shape[1], *shape, share_y=True)
    time = _numbers(columns["time_s"])
    for index, axes in enumerate(panels[: len(conditions) * len(requirements)]):
        row, column = divmod(index, len(conditions))
        requirement, condition = requirements[row], conditions[column]
        colours = {"typical": CONDITIONS[column % len(CONDITIONS)], "worst": RED}
        for kind, colour in colours.items():
            name = f"{condition}_{kind}_{requirement.name}_{requirement.unit}"
            values = _visible(_numbers(columns[name]), requirement.limit)
            label = kind if kind == "worst" else f"{kind}, {condition}"
            axes.plot(time, values, color=colour, lw=1.6, label=label)
        axes.axhline(requirement.limit, color=INK, ls="--", lw=1, label="limit")
        axes.set_xlim(0.0, float(time[-1]))
        if requirement.limit > 0:
            axes.set_yscale("log")
            _plain_log(axes)
        if row == 0:
            axes.set_title(condition)
        if row == len(requirements) - 1:
            axes.set_xlabel("time, s")
        if column == 0:
            axes.set_ylabel(f"{requirement.name}, {requirement.unit}")
    _legend(figure, panels)
    return figure


@drawing
def measure_figure(
    columns: Columns, conditions: Sequence[str], requirements: Sequence[Any]
) -> Figure:
    """Draw the share of flights whose measure is at most a value, one panel a requirement.

    Args:
        columns: from `physai.report.series.measure_series`; None is a flight that failed.
        conditions: names, in order.
        requirements: with `name`, `unit` and `limit`.
    """
    figure, panels = _figure(3.0, max(len(requirements), 1), share_y=True)
    for axes, requirement in zip(panels, requirements, strict=False):
        for i, condition in enumerate(conditions):
            values = _numbers(columns[f"{condition}_{requirement.name}_{requirement.unit}"])
            known = np.sort(values[np.isfinite(values)])
            rank = _ranks(len(known))
            share, colour = 100.0 * rank / len(values), CONDITIONS[i % len(CONDITIONS)]
            axes.step(known[rank - 1], share, where="post", color=colour, lw=2, label=condition)
        axes.axvline(requirement.limit, color=INK, ls="--", lw=1, label="limit")
        axes.set_xlabel(f"{requirement.name}, {requirement.unit}")
        if requirement.limit > 0:
            axes.set_xscale("log")
            _plain_log(axes, "x")
        axes.set_ylim(0.0, 102.0)
    panels[0].set_ylabel("flights at or below, %")
    _legend(figure, panels)
    return figure


def svg(figure: Figure, name: str) -> str:
    """Return a figure as inline SVG: ids are unique to `name`, colours are the page's."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawn = text.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    drawn = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", drawn)
    # The names of XML's vocabularies look like addresses; inside HTML they are not needed.
    drawn = re.sub(r' xmlns(:\w+)?="[^"]*"', "", drawn).replace("xlink:href", "href")
    # Without a size of its own the drawing takes the page's width.
    head, _, rest = drawn.partition(">")
    drawn = re.sub(r' (width|height)="[^"]*"', "", head) + ">" + rest
    for colour, variable in COLOURS.items():
        drawn = drawn.replace(colour, f"var(--{variable})")
    return drawn.strip()


def _figure(
    height: float, columns: int = 1, rows: int = 1, share_y: bool = False, **grid: Any
) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    share = "row" if share_y else False
    axes = figure.subplots(rows, columns, squeeze=False, sharey=share, gridspec_kw=grid)
    return figure, list(axes.flat)


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Put one legend above all panels, where no line can run through it."""
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if "limit" in found:
        found["limit"] = found.pop("limit")
    figure.legend(
        found.values(), found.keys(), loc="outside upper left", ncols=len(found), handlelength=1.6
    )


def _plain_log(axes: Axes, which: str = "y") -> None:
    """Write a logarithmic axis's numbers as 0.01, not as powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axis = axes.yaxis if which == "y" else axes.xaxis
    low, high = sorted(axes.get_ylim() if which == "y" else axes.get_xlim())
    span = high / low if low > 0.0 else np.inf
    if span < 4.0:
        axis.set_major_locator(MaxNLocator(4))
    else:
        subs = (1.0, 2.0, 5.0) if span < 30.0 else (1.0,)
        axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _numbers(values: Sequence[Any]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], float)


def _ranks(count: int) -> np.ndarray:
    """Return which of `count` sorted values to draw: few of many, but the largest 100 all."""
    few = np.linspace(1, count, min(count, 200)).round().astype(int)
    return np.unique(np.concatenate([few, np.arange(max(count - 99, 1), count + 1)]))


def _visible(values: np.ndarray, limit: float) -> np.ndarray:
    """Hold values up where a logarithmic axis would run off to zero."""
    return np.maximum(values, limit / 100.0) if limit > 0 else values
