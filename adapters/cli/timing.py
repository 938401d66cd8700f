"""Where the time of a publication went, for people; in JSON it is the version's `stats`."""

from collections.abc import Mapping
from typing import Any

from adapters.text import bytes_text, seconds_text, table

HEADER = ("STAGE", "TIME", "CPU", "READ", "WRITTEN", "CLONED", "SKIPPED")
BYTES = ("bytesRead", "bytesWritten", "bytesCloned", "bytesSkipped")


def stats_text(stats: Mapping[str, Any]) -> str:
    """A line a stage, and one for all; empty where nothing was measured."""
    stages = stats.get("stages", ())
    if not stages:
        return ""
    whole = {**stats, "name": "all", **{key: sum(one[key] for one in stages) for key in BYTES}}
    rows = [
        (
            one["name"],
            seconds_text(one["wallSeconds"]),
            seconds_text(one["cpuSeconds"]),
            *(bytes_text(one[key]) if one[key] else "-" for key in BYTES),
        )
        for one in (*stages, whole)
    ]
    return table(HEADER, rows)
