"""Reflink groups: zones that need not be written, as they can take over what another one has got.

on one file system that clones files     a clone of the base
elsewhere, with the same parent          a copy of the delta on it
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TypeVar

from pipeline.errors import GalleriaError
from pipeline.ports import StoredBase, TransferStats, Zone
from pipeline.storage.placement import has_parent, usable_base
from pipeline.storage.soundness import Reading, checked_base, problem_of

T = TypeVar("T")

Groups = Mapping[str, Sequence[str]]  # the zones that are written, and those that take over from it


def grouped(
    zones: Mapping[str, Zone], parents: Sequence[str], independent: Collection[str]
) -> Groups:
    """Which of these zones are written, and which take over from them. Of each group one that has a
    base to start from is written, if any has; those of `independent` are alone."""
    groups: dict[str, list[str]] = {}
    for name, zone in zones.items():
        alike = name if name in independent else _alike(name, zone, parents)
        groups.setdefault(alike, []).append(name)
    found = {}
    for members in groups.values():
        leader = max(members, key=lambda name: has_parent(zones[name], {None: parents}))
        found[leader] = [name for name in members if name != leader]
    return found


def _alike(name: str, zone: Zone, parents: Sequence[str]) -> str:
    """What zones have in common that can take over each other's new base."""
    if zone.reflink:
        return zone.file_system
    parent = zone.delta_parent(parents)
    return name if parent is None else f"on {parent}"


def cloned_from_other_zone(
    groups: Groups,
    made: Mapping[str, StoredBase],
    zones: Mapping[str, Zone],
    reading: Reading,
) -> dict[str, StoredBase | OSError | GalleriaError]:
    """What the other zones got of the bases that were `made`, or why not; nothing of those that can
    not take them over. What one of them holds already is read, and replaced if it is rotten."""
    found: dict[str, StoredBase | OSError | GalleriaError | None] = {}
    calls: dict[str, Callable[[], StoredBase | None]] = {}
    for leader, base in made.items():
        for name in groups[leader]:
            zone = zones[name]
            there = usable_base(zone, base.digest)
            if there is not None and not problem_of(there, zone, reading):
                found[name] = there
                continue
            if base.method == "delta" and not _may_be_below(base.parent, zone, reading):
                continue
            calls[name] = partial(zone.clone_base_from, base, replace=there is not None)
    found |= in_parallel(calls)
    return {name: result for name, result in found.items() if result is not None}


def _may_be_below(parent: str | None, zone: Zone, reading: Reading) -> bool:
    """Whether what a zone has of a delta's parent is sound."""
    return parent is not None and checked_base(zone, parent, reading, reused=True) is not None


def with_taken(
    stats: TransferStats,
    groups: Groups,
    taken: Mapping[str, StoredBase | OSError | GalleriaError],
) -> TransferStats:
    """With what became of a disk's bytes in the zones that took it over."""
    written, kept, cloned = dict(stats.written), dict(stats.kept), dict(stats.cloned)
    for leader, names in groups.items():
        for name in names:
            base = taken.get(name)
            if not isinstance(base, StoredBase):
                continue
            if base.method == "delta":
                written[name], kept[name] = stats.written[leader], stats.kept[leader]
            else:
                kinds = (stats.written, stats.kept, stats.cloned)
                cloned[name] = sum(kind[leader] for kind in kinds)
    return replace(stats, written=written, kept=kept, cloned=cloned)


def in_parallel(calls: Mapping[str, Callable[[], T]]) -> dict[str, T | OSError | GalleriaError]:
    """What came of each call, or the error that it ended with. Others are raised."""
    results: dict[str, T | OSError | GalleriaError] = {}
    with ThreadPoolExecutor(max(1, len(calls)), thread_name_prefix="store") as pool:
        jobs = {name: pool.submit(call) for name, call in calls.items()}
    for name, job in jobs.items():
        error = job.exception()
        if error is None:
            results[name] = job.result()
        elif isinstance(error, OSError | GalleriaError):
            results[name] = error
        else:
            raise error
    return results
