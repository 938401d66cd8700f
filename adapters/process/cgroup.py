"""Limits of a sandbox as a whole: control groups, where this process may make them.

Limits of single processes (`command.Limits`) hold everywhere; a group also bounds what many
processes and an own /tmp take together. Version 1 of control groups lets anybody with the right to
write make a group below the own one. In version 2 a group that has processes has no limits for
groups below it, so there the new one is a sibling.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

MEMORY = 4 << 30  # an appliance, or a booted guest, and what their emulator needs beside them
PROCESSES = 512
V1: Mapping[str, Mapping[str, int]] = {
    "memory": {"memory.limit_in_bytes": MEMORY, "memory.memsw.limit_in_bytes": MEMORY},
    "pids": {"pids.max": PROCESSES},
}
V2: Mapping[str, int] = {"memory.max": MEMORY, "memory.swap.max": 0, "pids.max": PROCESSES}
PREFIX = "galleria-"
_numbers = itertools.count()
_ending: list[Path] = []  # groups whose processes were still ending


@contextlib.contextmanager
def group() -> Iterator[tuple[Path, ...]]:
    """A new group for the length of a `with`: the files into which a process writes its number to
    be in it. Empty where none can be made, which `places` says."""
    name = f"{PREFIX}{os.getpid()}-{next(_numbers)}"
    made: list[Path] = []
    try:
        for parent, limits in places().items():
            place = parent / name
            try:
                place.mkdir()
                made.append(place)
                for limit, value in limits:
                    if (place / limit).exists():
                        (place / limit).write_text(str(value))
            except OSError:
                continue  # it was taken away meanwhile: the limits of single processes hold
        yield tuple(place / "cgroup.procs" for place in made)
    finally:
        _ending.extend(made)
        for place in tuple(_ending):
            with contextlib.suppress(OSError, ValueError):  # next time, or another thread does it
                place.rmdir()
                _ending.remove(place)


@cache
def places() -> Mapping[Path, tuple[tuple[str, int], ...]]:
    """Where groups can be made, and their limits. What galleria's processes that were killed left
    there is removed."""
    found = {}
    for parent, limits in _candidates(Path("/proc/self/cgroup"), Path("/proc/self/mountinfo")):
        trial = parent / f"{PREFIX}{os.getpid()}"
        try:
            _sweep(parent)
            trial.mkdir()
            try:
                whole = all((trial / name).exists() for name, _ in limits[:1])
                writable = os.access(parent / "cgroup.procs", os.W_OK)
            finally:
                trial.rmdir()
        except OSError:
            continue
        if whole and writable:
            found[parent] = limits
    return found


def _candidates(own: Path, mounts: Path) -> Iterator[tuple[Path, tuple[tuple[str, int], ...]]]:
    """The directories that could be parents, by cgroups(7) and proc_pid_mountinfo(5)."""
    try:
        groups = [line.split(":", 2) for line in own.read_text().splitlines()]
        lines = [line.split() for line in mounts.read_text().splitlines() if " - cgroup" in line]
    except (OSError, ValueError):
        return
    for _, controllers, path in groups:
        for words in lines:
            kind, options = words[words.index("-") + 1], words[-1].split(",")
            inside = os.path.relpath(path, words[3])
            if inside.startswith(".."):
                continue
            place = Path(words[4], inside)
            if kind == "cgroup2" and not controllers:
                yield (place.parent if place != Path(words[4]) else place), tuple(V2.items())
            elif kind == "cgroup" and controllers in V1 and controllers in options:
                yield place, tuple(V1[controllers].items())


def _sweep(parent: Path) -> None:
    for stale in parent.glob(f"{PREFIX}*"):
        number = stale.name.removeprefix(PREFIX).split("-")[0]
        if not Path("/proc", number).exists():
            with contextlib.suppress(OSError):
                stale.rmdir()
