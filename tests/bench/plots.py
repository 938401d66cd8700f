"""A plot of a table: each figure as a share of its target, so that all have one scale."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from tests.bench.judging import AT_LEAST, Figure
from tests.bench.rows import MEMORY

MET, MISSED = "#2a7f4f", "#b3392f"


def plot(title: str, figures: Sequence[Figure], path: Path) -> None:
    """Bars to the left of the line are as aimed at; whiskers are the extremes of the rounds."""
    shown = [figure for figure in figures if figure.limit is not MEMORY]
    height = 1.2 + 0.38 * len(shown)
    canvas, axes = pyplot.subplots(figsize=(9, height), layout="constrained")
    for place, figure in enumerate(reversed(shown)):
        _bar(axes, place, figure)
    axes.set_yticks(range(len(shown)), [_label(figure) for figure in reversed(shown)], fontsize=8)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xlabel("result as a share of its target: left of the line is met")
    axes.set_title(title)
    canvas.savefig(path, dpi=110)
    pyplot.close(canvas)


def _bar(axes: Axes, place: int, figure: Figure) -> None:
    values = [_share(figure, value) for value in (figure.value, figure.low, figure.high)]
    middle, low, high = values[0], min(values), max(values)
    axes.barh(place, middle, color=MET if figure.met else MISSED, height=0.6)
    axes.plot([low, high], [place, place], color="black", linewidth=1)
    axes.text(high + 0.02, place, f"{figure.value:.2f}", va="center", fontsize=8)


def _share(figure: Figure, value: float) -> float:
    target = figure.limit.target
    return target / value if figure.limit.measure in AT_LEAST else value / target


def _label(figure: Figure) -> str:
    limit = figure.limit
    versus = f" : {limit.peer}" if limit.peer else ""
    return f"{figure.row.key}@{figure.system}{versus} ({limit.measure.value})"
