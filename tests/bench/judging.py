"""From runs to figures: medians, ratios of runs of one round, and whether they are as aimed at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.bench.rows import MEMORY, Limit, Measure, Row, cells

# in these, more is better
AT_LEAST = {Measure.RATE}


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a cell. `ours` and `theirs` are medians (seconds or bytes), `value` is what is
    compared with the target, `low` and `high` its extremes over the rounds."""

    row: Row
    system: str
    limit: Limit
    ours: float
    theirs: float | None
    value: float
    low: float
    high: float

    @property
    def met(self) -> bool:
        if self.limit.measure in AT_LEAST:
            return self.value >= self.limit.target
        return self.value <= self.limit.target


def figures(cell: Mapping[str, Any]) -> list[Figure]:
    """What a cell's record says for each limit of its row; a peer that was too slow has none."""
    row, system = cells(quick=False)[cell["cell"]]
    found = [_figure(row, system, limit, cell["timings"]) for limit in row.limits]
    peaks = [run["peak"] for run in cell["timings"]["galleria"] if run["peak"] is not None]
    if peaks:
        top = float(max(peaks))
        found.append(Figure(row, system, MEMORY, top, None, top, float(min(peaks)), top))
    return [figure for figure in found if figure is not None]


def _figure(
    row: Row, system: str, limit: Limit, timings: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Figure | None:
    field = {Measure.BYTES: "stored", Measure.CPU: "cpu"}.get(limit.measure, "wall")
    ours = [float(run[field]) for run in timings[limit.subject]]
    if not limit.peer:
        middle = median(ours)
        return Figure(row, system, limit, middle, None, middle, min(ours), max(ours))
    theirs = [float(run[field]) for run in timings.get(limit.peer, ())]
    if not theirs:
        return None
    # runs of one round are compared; a peer that was run once, with every round of galleria's
    if len(theirs) != len(ours):
        theirs = theirs[:1] * len(ours)
    pairs = list(zip(ours, theirs, strict=True))
    if limit.measure is Measure.RATE:
        values = [their / our for our, their in pairs]
    else:
        values = [our / their for our, their in pairs]
    return Figure(
        row,
        system,
        limit,
        median(ours),
        median(theirs),
        median(values),
        min(values),
        max(values),
    )
