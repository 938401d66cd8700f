"""The report of all cells that were measured: Markdown, JSON, and a plot for each table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from adapters.text import bytes_text
from tests.bench.judging import Figure, figures
from tests.bench.plots import plot
from tests.bench.rows import MEMORY, ROWS, Measure, cells

Cell = Mapping[str, Any]
SIZES = {Measure.BYTES, Measure.MEMORY}


def load(directory: Path) -> list[Cell]:
    """The records of the cells in a directory, in the order of the table."""
    order = list(cells(quick=False))
    found = [json.loads(path.read_text()) for path in (directory / "cells").glob("*.json")]
    return sorted(found, key=lambda cell: order.index(cell["cell"]))


def write(directory: Path) -> str:
    """Write bench.md, bench.json and the plots of what lies in `directory`; the Markdown."""
    records = load(directory)
    judged = {cell["cell"]: figures(cell) for cell in records}
    text = markdown(records, judged)
    (directory / "bench.md").write_text(text)
    document = {"cells": records, "figures": [document_of(f) for fs in judged.values() for f in fs]}
    (directory / "bench.json").write_text(json.dumps(document, indent=2) + "\n")
    for table in dict.fromkeys(row.table for row in ROWS):
        shown = [f for fs in judged.values() for f in fs if f.row.table == table]
        if shown:
            plot(table, shown, directory / f"{_slug(table)}.png")
    return text


def document_of(figure: Figure) -> dict[str, Any]:
    limit = figure.limit
    return {
        "row": figure.row.key,
        "system": figure.system,
        "measure": limit.measure.value,
        "peer": limit.peer,
        "ours": figure.ours,
        "theirs": figure.theirs,
        "value": figure.value,
        "low": figure.low,
        "high": figure.high,
        "target": limit.target,
        "met": figure.met,
    }


# --- Markdown ------------------------------------------------------------------------------------


HEADS = (
    *("row", "on", "cache", "peer", "galleria", "peer", "result", "target", "met"),
    *("write", "hash", "CPU s"),
)


def markdown(records: Sequence[Cell], judged: Mapping[str, Sequence[Figure]]) -> str:
    if not records:
        return "Nothing was measured.\n"
    parts = ["# galleria: benchmark", _facts(records)]
    by_name = {cell["cell"]: cell for cell in records}
    for table in dict.fromkeys(row.table for row in ROWS):
        names = [name for name, cell in by_name.items() if _table(name) == table]
        if names:
            parts += [f"## {table}", _table_of(names, by_name, judged)]
    parts.append(_memory(by_name, judged))
    missed = [name for name in by_name if not all(figure.met for figure in judged[name])]
    if missed:
        parts.append("## Where the time went, in what is not as aimed at")
        parts += [_profile(by_name[name]) for name in missed]
    parts.append(_data(records))
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(name: str) -> str:
    return cells(quick=False)[name][0].table


def _facts(records: Sequence[Cell]) -> str:
    host = records[-1]["host"]
    dates = sorted(cell["date"] for cell in records)
    loads = [cell["load"][0][0] for cell in records]
    versions = ", ".join(f"{name} {text}" for name, text in sorted(host["versions"].items()))
    commits = ", ".join(dict.fromkeys(cell["host"]["commit"] for cell in records))
    rounds = sorted({cell["rounds"] for cell in records})
    return (
        f"{host['processor']}, {host['cores']} cores, {bytes_text(host['memory'])}, "
        f"kernel {host['kernel']}, {host['distribution']}, Python {host['python']}; {versions}. "
        f"Commit {commits}. Measured {dates[0]} to {dates[-1]}, load before the rows "
        f"{min(loads):.1f} to {max(loads):.1f}; data: {records[-1]['scale']}; rounds: "
        f"{', '.join(map(str, rounds))}.\n\n"
        "Contenders run in turn, every round beginning with another one; seconds are medians and "
        "include flushing the target's file system; a ratio is the median of the rounds' ratios, "
        "in brackets its extremes. Every output was compared with its source by `qemu-img compare`,"
        " outside the timed part. *write* is the time of writing the same bytes by themselves on "
        "the same file system in the same rounds, plainly, and its part of the peer's: a "
        "scale of what the disk did; *hash* the time of reading the source and computing both "
        "digests, with nothing written: what the processor allowed. The file systems are made "
        "afresh for every run, on loop devices with direct I/O over one preallocated file."
    )


def _table_of(
    names: Sequence[str], by_name: Mapping[str, Cell], judged: Mapping[str, Sequence[Figure]]
) -> str:
    lines = [f"| {' | '.join(HEADS)} |", "|" + "---|" * len(HEADS)]
    for name in names:
        cell = by_name[name]
        for figure in judged[name]:
            if figure.limit is MEMORY:
                continue
            row, limit = figure.row, figure.limit
            theirs = "" if figure.theirs is None else _amount(figure.theirs, limit.measure)
            sign = "≥" if limit.measure is Measure.RATE else "≤"
            what = "" if limit.measure in (Measure.RATIO,) else f" ({limit.measure.value})"
            lines.append(
                f"| {row.title} | {figure.system} | {row.cache} | {limit.peer}{what} "
                f"| {_amount(figure.ours, limit.measure)} | {theirs} "
                f"| {figure.value:.2f} ({figure.low:.2f}-{figure.high:.2f}) "
                f"| {sign} {limit.target:.2f} | {'yes' if figure.met else '**no**'} "
                f"| {_floor(cell, 'write', limit.peer)} | {_floor(cell, 'hash', limit.peer)} "
                f"| {_processor(cell)} |"
            )
        lines += [
            f"| {cell['title']} | {name.split('@')[1]} | | {note} |" for note in cell["notes"]
        ]
    return "\n".join(lines)


def _floor(cell: Cell, part: str, peer: str) -> str:
    """Seconds of writing, or hashing, alone, and what part of the peer's time that is."""
    alone = [run["wall"] for run in cell["timings"].get(part, ())]
    theirs = [run["wall"] for run in cell["timings"].get(peer, ())]
    if not alone or not theirs:
        return ""
    return f"{median(alone):.2f} s = {median(alone) / median(theirs):.2f}"


def _processor(cell: Cell) -> str:
    """Seconds of galleria's processor time."""
    return f"{median(run['cpu'] for run in cell['timings']['galleria']):.2f}"


def _amount(value: float, measure: Measure) -> str:
    return bytes_text(value) if measure in SIZES else f"{value:.2f} s"


def _memory(by_name: Mapping[str, Cell], judged: Mapping[str, Sequence[Figure]]) -> str:
    found = {name: figure for name, fs in judged.items() for figure in fs if figure.limit is MEMORY}
    if not found:
        return ""
    worst = max(found, key=lambda name: found[name].value)
    largest = ", ".join(
        f"{name} {bytes_text(figure.value)}"
        for name, figure in sorted(found.items(), key=lambda item: -item[1].value)[:6]
    )
    figure = found[worst]
    both = [
        f"On {name.split('@')[1]} the disk of 2 TiB takes "
        f"{bytes_text(max(run['peak'] for run in cell['timings']['galleria']))}, the ordinary one "
        f"{bytes_text(max(run['peak'] for run in cell['timings']['ordinary disk']))}."
        for name, cell in by_name.items()
        if "ordinary disk" in cell["timings"]
    ]
    return (
        "## Memory\n\nPeak resident memory of the galleria process beyond what it has when it is "
        f"ready: at most {bytes_text(figure.value)} ({worst}); target ≤ "
        f"{bytes_text(MEMORY.target)}, {'met' if figure.met else '**not met**'}. "
        f"{' '.join([*both, f'{largest}.'])}"
    )


def _profile(cell: Cell) -> str:
    """Of the run in the middle: stages, processor time, bytes."""
    runs = sorted(cell["timings"]["galleria"], key=lambda run: run["wall"])
    run = runs[len(runs) // 2]
    profile = run["profile"]
    lines = [f"**{cell['cell']}**: {run['wall']:.2f} s, {run['cpu']:.2f} s of CPU"]
    if "stages" in profile:
        stages = ", ".join(
            f"{name} {spent['wall']:.2f} s ({spent['cpu']:.2f} CPU)"
            for name, spent in profile["stages"].items()
        )
        lines.append(f"stages: {stages}; CPU of child processes {profile['cpu_children']:.2f} s")
    if "bytes" in profile:
        amounts = ", ".join(f"{bytes_text(v)} {name}" for name, v in profile["bytes"].items())
        lines.append(f"guest bytes: {amounts}; bases by {', '.join(profile['methods'])}")
    if "io" in profile:
        counts = profile["io"]
        lines.append(
            f"{bytes_text(counts['rchar'])} through read calls, {bytes_text(counts['wchar'])} "
            f"through write calls, {bytes_text(counts['write_bytes'])} made dirty"
        )
    for name, others in cell["timings"].items():
        if name != "galleria":
            walls = [other["wall"] for other in others]
            cpus = [other["cpu"] for other in others]
            lines.append(f"{name}: {median(walls):.2f} s, {median(cpus):.2f} s of CPU")
    return "; ".join(lines) + "."


def _data(records: Sequence[Cell]) -> str:
    made: dict[str, Any] = {}
    for cell in records:
        made |= cell["data"]
    lines = ["## Data", "", "| file | virtual | data | SHA-256 of the data |", "|---|---|---|---|"]
    for name, facts in sorted(made.items()):
        data = bytes_text(facts.get("data", facts["allocated"]))
        digest = facts.get("sha256_of_data", "")[:16]
        lines.append(f"| {name} | {bytes_text(facts['virtual_size'])} | {data} | {digest} |")
    lines += [
        "",
        "v1 is a Debian with the tools of a build server; v2 and v3 are v1 after packages in a "
        "random order had all of their files written anew and renamed over the old ones, as dpkg "
        "does it.",
    ]
    base = made.get("v1.raw", {}).get("data", 0)
    for name, facts in sorted(made.items()):
        if "changed" in facts and base:
            shares = ", ".join(
                f"{100 * amount / base:.1f} % in blocks of {bytes_text(int(grain))}"
                for grain, amount in facts["changed"].items()
            )
            lines += ["", f"{name} differs from v1.raw in {shares}."]
    return "\n".join(lines)


def _slug(table: str) -> str:
    words = "".join(char if char.isalnum() else " " for char in table.lower()).split()
    return "-".join(words[:5])
