"""Convert: one read of each disk; its digests and its base in every zone come out of it.

source -> copy -> the zones that are written -> commit -> clones in their file systems' others
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Protocol

from pipeline.data.copying import CopyResult, Known, copy
from pipeline.data.extents import data_bytes
from pipeline.data.manifest import ManifestWriter, manifest_of
from pipeline.data.targets import Target
from pipeline.errors import GalleriaError, SourceChanged, VerificationFailed
from pipeline.ports import (
    BaseStaging,
    Chain,
    Files,
    Images,
    Progress,
    StoredBase,
    TransferStats,
    Zone,
)
from pipeline.sources.ingest import Disk
from pipeline.storage.parents import related
from pipeline.storage.placement import Parents, usable_base
from pipeline.storage.reflink_groups import (
    Groups,
    cloned_from_other_zone,
    grouped,
    in_parallel,
    with_taken,
)
from pipeline.storage.soundness import RECHECK_AFTER, checked_base, problem_of


@dataclass(frozen=True, slots=True)
class StoredDisk:
    """One disk after conversion, and what it took."""

    lun: int | None
    virtual_size: int
    result: CopyResult

    @property
    def digest(self) -> str:
        return self.result.root


@dataclass(slots=True)
class Stored:
    """`bases` by zone (its `sink_name`) and LUN, for the zones that hold every disk; `failures`
    for the others."""

    disks: list[StoredDisk] = field(default_factory=list)
    bases: dict[str, dict[int | None, StoredBase]] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)

    @property
    def digests(self) -> dict[int | None, str]:
        return {disk.lun: disk.digest for disk in self.disks}

    def content(self) -> list[Disk]:
        """The disks as a zone holds them."""
        bases = next(iter(self.bases.values()))
        return [Disk(disk.lun, bases[disk.lun].chain, disk.virtual_size) for disk in self.disks]

    def drop(self, zone: str, error: Exception) -> None:
        """A zone that fails, fails alone; when none is left its error is everybody's."""
        self.failures.setdefault(zone, error)
        self.bases.pop(zone, None)
        if not self.bases:
            raise next(iter(self.failures.values()))


class HeldStill(Protocol):
    """What is told of source files that are held still: a part of `Pin`."""

    @property
    def detects_changes(self) -> bool: ...
    def page_cached(self, chain: Chain) -> Chain: ...
    def unchanged(self) -> bool: ...
    def verify(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ImmutableBases:
    """Bases: they do not change. Not `detects_changes`, as one may have rotted: what is taken from
    one is read where it is stored."""

    detects_changes: bool = False

    def page_cached(self, chain: Chain) -> Chain:
        return chain

    def unchanged(self) -> bool:
        return True

    def verify(self) -> None:
        """Nothing to ask."""


Failures = Mapping[str, Exception]  # by zone (its `sink_name`)

# by LUN, a base of which a disk's lowest layers consist, and the first of these layers
Below = Mapping[int | None, tuple[StoredBase, int]]


@dataclass(frozen=True, slots=True)
class Conversion:
    """What the conversion of every disk has in common. Of `zones` (by `sink_name`) on one file
    system that clones files one is written and the others are its clones, but for those in
    `independent`. What lies in the bases of `below` is not read where zones have it. Zones with
    `failures` have failed before anything is stored. `renewed` are the zones and LUNs whose bases
    turned out to be rotten, with the parents that are sound: they are written anew."""

    zones: Mapping[str, Zone]
    parents: Parents
    held: HeldStill = ImmutableBases()
    independent: Collection[str] = ()
    below: Below = field(default_factory=dict)
    failures: Failures = field(default_factory=dict)
    renewed: dict[tuple[str, int | None], Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Means:
    """What disks are stored with: `work` is a directory for what is thrown away afterwards,
    `advance` is told the bytes that are dealt with, and `moved` at the end what a disk took."""

    images: Images
    files: Files
    progress: Progress
    work: Path
    advance: Callable[[int], None] = lambda _: None
    moved: Callable[[TransferStats], None] = lambda _: None
    recheck_after: timedelta = RECHECK_AFTER


def convert(disks: Sequence[Disk], conversion: Conversion, means: Means) -> Stored:
    """Store every disk in every zone. Whether the source held still is asked after the last read of
    a disk and before anything of it becomes visible."""
    stored = begun(conversion)
    for disk in disks:
        result = _store(disk, stored, conversion, means, alone=False)
        # zones that could not take anything over, or hold a rotten base, are written themselves
        if lacking(disk, stored):
            again = _store(disk, stored, conversion, means, alone=True)
            result = _together(disk, result, again)
        stored.disks.append(StoredDisk(disk.lun, disk.virtual_size, result))
    return stored


def begun(conversion: Conversion) -> Stored:
    """What is stored before anything is: nothing, in the zones that have not failed."""
    stored = Stored(bases={name: {} for name in conversion.zones})
    for name in conversion.zones:
        if name in conversion.failures:
            stored.drop(name, conversion.failures[name])
    return stored


def hash_disk(disk: Disk, manifest: Path, means: Means) -> CopyResult:
    """Only the digests: the same loop, with nowhere to write to."""
    name = disk.name if disk.facts is None else disk.facts.path.name
    with (
        means.images.open(disk.chain, free=disk.free) as source,
        means.progress.stage(f"hash {name}", data_bytes(source.extents())) as meter,
        means.files.create(manifest) as out,
    ):
        return copy(source, [], ManifestWriter(out, source.virtual_size), advance=meter.advance)


def lacking(disk: Disk, stored: Stored) -> list[str]:
    """The zones that have nothing of a disk yet, and have not failed."""
    return [name for name, bases in stored.bases.items() if disk.lun not in bases]


def _store(
    disk: Disk, stored: Stored, conversion: Conversion, means: Means, *, alone: bool
) -> CopyResult:
    """Store a disk in the zones that lack it, `alone` each by itself. When somebody begins to write
    to files that were read instead of their clones, what was written is thrown away, and the clones
    are read."""
    page_cached = replace(disk, chain=conversion.held.page_cached(disk.chain))
    written = _written(page_cached, stored, conversion, means, alone=alone) or _written(
        disk, stored, conversion, means, alone=alone
    )
    if written is None:
        raise SourceChanged(f"the clones of the source of {disk.name} changed")
    return _hand_on(disk, *written, stored, means)


def _written(
    disk: Disk, stored: Stored, conversion: Conversion, means: Means, *, alone: bool
) -> tuple[CopyResult, Groups, Mapping[str, Zone]] | None:
    """One read of a disk, into the zones that are written; None, with nothing stored, when what was
    read does not count."""
    with ExitStack() as stack:
        source = stack.enter_context(means.images.open(disk.chain, free=disk.free))
        names = lacking(disk, stored)
        zones = {name: conversion.zones[name] for name in names}
        wanted = conversion.parents.get(disk.lun, ())
        parents = related(source, wanted, tuple(zones.values()), means.files)
        groups = grouped(zones, parents, names if alone else conversion.independent)
        stagings = _stage(disk, list(groups), conversion, parents, stored, means, stack)
        targets = _targets(stagings, conversion, means, stack)
        manifest = means.work / f"{disk.name}.manifest"
        total = data_bytes(source.extents())
        with means.progress.stage(f"convert {disk.name}", total) as meter:

            def moved(amount: int) -> None:
                meter.advance(amount)
                means.advance(amount)

            known = _known(disk, conversion, means, stack)
            with means.files.create(manifest) as out:
                result = copy(
                    source,
                    targets,
                    ManifestWriter(out, source.virtual_size),
                    advance=moved,
                    detects_changes=conversion.held.detects_changes,
                    known=known,
                )
        conversion.held.verify()
        if any(layer.original for layer in disk.chain) and not conversion.held.unchanged():
            return None
        for name, error in result.failures.items():
            stored.drop(name, error)
        _set_rotten_aside(disk, stagings, result.root, stored, conversion, means)
        _commit(disk, stagings, result.root, manifest, stored, conversion)
    return result, groups, zones


def _together(disk: Disk, result: CopyResult, again: CopyResult) -> CopyResult:
    """What two reads of one disk came to."""
    if result.root != again.root:
        raise SourceChanged(
            f"the source of {disk.name} changed between two reads",
            hint="publish again while nobody writes to it",
        )
    stats, more = result.stats, again.stats
    return replace(
        result,
        failures={**result.failures, **again.failures},
        stats=replace(
            stats,
            read=stats.read + more.read,
            written={**stats.written, **more.written},
            kept={**stats.kept, **more.kept},
            cloned={**stats.cloned, **more.cloned},
        ),
    )


def _stage(
    disk: Disk,
    names: Sequence[str],
    conversion: Conversion,
    parents: Sequence[str],
    stored: Stored,
    means: Means,
    stack: ExitStack,
) -> dict[str, BaseStaging]:
    stagings = {}
    for name in names:
        try:
            mine = conversion.renewed.get((name, disk.lun), parents)
            zone = conversion.zones[name]
            mine = _sound_from(mine, zone, means)
            staging = zone.stage_base(disk.virtual_size, mine)
        except (OSError, GalleriaError) as error:
            stored.drop(name, error)
            continue
        stack.callback(staging.abort)
        stagings[name] = staging
    return stagings


def _sound_from(parents: Sequence[str], zone: Zone, means: Means) -> Sequence[str]:
    """Those of `parents` from the first on that a zone holds and that is sound: what is kept of it
    is not read again."""
    for index, digest in enumerate(parents):
        if usable_base(zone, digest) and checked_base(zone, digest, means, reused=True):
            return parents[index:]
    return ()


def _targets(
    stagings: Mapping[str, BaseStaging], conversion: Conversion, means: Means, stack: ExitStack
) -> list[Target]:
    targets = []
    for name, staging in stagings.items():
        parent = None
        if staging.parent is not None:
            parent = stack.enter_context(manifest_of(staging.parent, means.files))
        reuses = name not in conversion.independent
        targets.append(Target(name, staging.sink, parent, reuses))
    return targets


def _known(disk: Disk, conversion: Conversion, means: Means, stack: ExitStack) -> Known | None:
    """What the manifest of a base says of the disk's layers."""
    if disk.lun not in conversion.below:
        return None
    base, layer = conversion.below[disk.lun]
    if base.virtual_size != disk.virtual_size:
        return None
    try:
        reader = stack.enter_context(manifest_of(base, means.files))
        reader.verify(base.digest)
    except VerificationFailed:  # all of the disk is read
        return None
    return Known(reader, layer)


def bases_below(disks: Sequence[Disk], parents: Parents, zone: Zone, means: Means) -> Below:
    """The bases of a zone that disks depend on, among those that new bases start from, if they are
    sound."""
    found: dict[int | None, tuple[StoredBase, int]] = {}
    for disk in disks:
        for digest in parents.get(disk.lun, ()):
            base = usable_base(zone, digest)
            layer = 0 if base is None else len(disk.chain) - len(base.chain)
            if base is None or layer <= 0 or disk.chain[layer:] != base.chain:
                continue
            if checked_base(zone, digest, means, reused=True):
                found.setdefault(disk.lun, (base, layer))
    return found


def _set_rotten_aside(
    disk: Disk,
    stagings: dict[str, BaseStaging],
    digest: str,
    stored: Stored,
    conversion: Conversion,
    means: Means,
) -> None:
    """A zone may hold a base of this very content. One that does not read as its name says is
    written anew: what was staged may be a clone of it, or of what it was made from, and is dropped
    then."""
    for name in [name for name in stagings if name in stored.bases]:
        zone, key = conversion.zones[name], (name, disk.lun)
        if key in conversion.renewed:
            continue
        base = _held_already(zone, digest, stored.bases[name])
        if base is None or not problem_of(base, zone, means):
            continue
        conversion.renewed[key] = _sound_parent(base, zone, means)
        if stagings[name].parent is not None:
            stagings.pop(name).abort()


def _sound_parent(base: StoredBase, zone: Zone, means: Means) -> Sequence[str]:
    """What a delta has to be made of again, so that overlays on it find it under its name."""
    if base.method != "delta" or base.parent is None:
        return ()
    parent = usable_base(zone, base.parent)
    if parent is None or problem_of(parent, zone, means):
        return ()
    return (parent.digest,)


def _held_already(
    zone: Zone, digest: str, stored: Mapping[int | None, StoredBase]
) -> StoredBase | None:
    """A base of this content that a zone holds, but not from this conversion (`stored`)."""
    if any(base.digest == digest for base in stored.values()):
        return None
    with suppress(OSError, GalleriaError):  # a record that is damaged is replaced at once
        return zone.find_base(digest)
    return None


def _commit(
    disk: Disk,
    stagings: Mapping[str, BaseStaging],
    digest: str,
    manifest: Path,
    stored: Stored,
    conversion: Conversion,
) -> None:
    """Flushing is what takes time here: every zone's file system on its own."""
    made = in_parallel(
        {
            name: partial(
                staging.commit, digest, manifest, replace=(name, disk.lun) in conversion.renewed
            )
            for name, staging in stagings.items()
            if name in stored.bases
        }
    )
    for name, base in made.items():
        if isinstance(base, Exception):
            stored.drop(name, base)
        else:
            stored.bases[name][disk.lun] = base


def _hand_on(
    disk: Disk,
    result: CopyResult,
    groups: Groups,
    zones: Mapping[str, Zone],
    stored: Stored,
    means: Means,
) -> CopyResult:
    """Give the other zones what those have that were written."""
    made = {
        name: stored.bases[name][disk.lun]
        for name in groups
        if disk.lun in stored.bases.get(name, ())
    }
    taken = cloned_from_other_zone(groups, made, zones, means)
    for name, base in taken.items():
        if isinstance(base, Exception):
            stored.drop(name, base)
        else:
            stored.bases[name][disk.lun] = base
    return replace(result, stats=with_taken(result.stats, groups, taken))
