"""Convert: one read of each disk; its digests and its base in every zone come out of it.

source -> copy -> the zones that are written -> commit -> clones in their file systems' others
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from pipeline.data.copying import CopyResult, copy
from pipeline.data.extents import data_bytes
from pipeline.data.manifest import ManifestReader, ManifestWriter
from pipeline.data.targets import Target
from pipeline.errors import GalleriaError, SourceChanged
from pipeline.placement import Parents, has_parent
from pipeline.ports import BaseStaging, Chain, Images, Progress, Source, StoredBase, Zone
from pipeline.stages.ingest import Disk

T = TypeVar("T")


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

    def drop(self, zone: str, error: Exception) -> None:
        """A zone that fails, fails alone; when none is left its error is everybody's."""
        self.failures.setdefault(zone, error)
        self.bases.pop(zone, None)
        if not self.bases:
            raise next(iter(self.failures.values()))


class Held(Protocol):
    """What is told of source files that are held still: a part of `Pin`."""

    @property
    def steady(self) -> bool: ...
    def warm(self, chain: Chain) -> Chain: ...
    def undisturbed(self) -> bool: ...
    def verify(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Stationary:
    """Bases: they do not change. Not `steady`, as one may have rotted: what is taken from one is
    read where it is stored."""

    steady: bool = False

    def warm(self, chain: Chain) -> Chain:
        return chain

    def undisturbed(self) -> bool:
        return True

    def verify(self) -> None:
        """Nothing to ask."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the conversion of every disk has in common."""

    zones: Mapping[str, Zone]
    parents: Parents
    work: Path
    held: Held
    images: Images
    progress: Progress
    advance: Callable[[int], None]
    independent: Collection[str]


def convert(
    disks: Sequence[Disk],
    zones: Mapping[str, Zone],
    parents: Parents,
    work: Path,
    held: Held,
    images: Images,
    progress: Progress,
    advance: Callable[[int], None] = lambda _: None,
    *,
    independent: Collection[str] = (),
) -> Stored:
    """Store every disk in every zone. Of zones on one file system that clones files one is written
    and the others are its clones, but for those in `independent`. Whether the source held still is
    asked after the last read of a disk and before anything of it becomes visible. `advance` is told
    the bytes that were read."""
    stored = Stored(bases={name: {} for name in zones})
    job = Job(zones, parents, work, held, images, progress, advance, independent)
    for disk in disks:
        result = _store(disk, _groups(disk, list(stored.bases), job), stored, job)
        # zones that could not have a clone are written themselves
        if lacking := [name for name, bases in stored.bases.items() if disk.lun not in bases]:
            again = _store(disk, {name: [] for name in lacking}, stored, job)
            result = _together(disk, result, again)
        stored.disks.append(StoredDisk(disk.lun, disk.virtual_size, result))
    return stored


def hash_disk(disk: Disk, manifest: Path, images: Images, progress: Progress) -> CopyResult:
    """Only the digests: the same loop, with nowhere to write to."""
    with ExitStack() as stack:
        source = stack.enter_context(images.open(disk.chain, free=disk.free))
        name = disk.name if disk.facts is None else disk.facts.path.name
        with progress.stage(f"hash {name}", data_bytes(source.extents())) as meter:
            return _copied(source, [], manifest, meter.advance, steady=False)


def _groups(disk: Disk, names: Sequence[str], job: Job) -> dict[str, list[str]]:
    """The zones that are written, one with a base to start from if there is one, and those that
    take over what it gets."""
    groups: dict[str, list[str]] = {}
    parents = job.parents.get(disk.lun, ())
    for name in names:
        groups.setdefault(_alike(name, parents, job), []).append(name)
    found = {}
    for members in groups.values():
        leader = max(members, key=lambda name: has_parent(job.zones[name], {disk.lun: parents}))
        found[leader] = [name for name in members if name != leader]
    return found


def _alike(name: str, parents: Sequence[str], job: Job) -> str:
    """What zones have in common that can take over each other's new base."""
    zone = job.zones[name]
    if name in job.independent:
        return name
    if zone.reflink:
        return zone.file_system
    parent = zone.delta_parent(parents)
    return name if parent is None else f"on {parent}"


def _store(disk: Disk, groups: Mapping[str, Sequence[str]], stored: Stored, job: Job) -> CopyResult:
    """Store a disk in these zones. When somebody begins to write to files that were read instead of
    their clones, what was written is thrown away, and the clones are read."""
    warm = replace(disk, chain=job.held.warm(disk.chain))
    result = _written(warm, groups, stored, job) or _written(disk, groups, stored, job)
    if result is None:
        raise SourceChanged(f"the clones of the source of {disk.name} changed")
    return _handed_on(disk, groups, result, stored, job)


def _written(
    disk: Disk, groups: Mapping[str, Sequence[str]], stored: Stored, job: Job
) -> CopyResult | None:
    """One read of a disk, into the zones that are written; None, with nothing stored, when what was
    read does not count."""
    with ExitStack() as stack:
        parents = job.parents.get(disk.lun, ())
        stagings = _stage(disk, list(groups), job.zones, parents, stored, stack)
        source = stack.enter_context(job.images.open(disk.chain, free=disk.free))
        targets = _targets(stagings, job, stack)
        manifest = job.work / f"{disk.name}.manifest"
        total = data_bytes(source.extents())
        with job.progress.stage(f"convert {disk.name}", total) as meter:

            def moved(amount: int) -> None:
                meter.advance(amount)
                job.advance(amount)

            result = _copied(source, targets, manifest, moved, steady=job.held.steady)
        job.held.verify()
        if any(layer.original for layer in disk.chain) and not job.held.undisturbed():
            return None
        for name, error in result.failures.items():
            stored.drop(name, error)
        _commit(disk, stagings, result.root, manifest, stored)
    return result


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
    zones: Mapping[str, Zone],
    parents: Sequence[str],
    stored: Stored,
    stack: ExitStack,
) -> dict[str, BaseStaging]:
    stagings = {}
    for name in names:
        try:
            staging = zones[name].stage_base(disk.virtual_size, parents)
        except (OSError, GalleriaError) as error:
            stored.drop(name, error)
            continue
        stack.callback(staging.abort)
        stagings[name] = staging
    return stagings


def _targets(stagings: Mapping[str, BaseStaging], job: Job, stack: ExitStack) -> list[Target]:
    targets = []
    for name, staging in stagings.items():
        parent = None
        if staging.parent is not None:
            file = stack.enter_context(staging.parent.manifest.open("rb"))
            parent = ManifestReader(file, name=str(staging.parent.manifest))
        shares = name not in job.independent
        targets.append(Target(name, staging.sink, parent, shares))
    return targets


def _copied(
    source: Source,
    targets: Sequence[Target],
    manifest: Path,
    advance: Callable[[int], None],
    *,
    steady: bool,
) -> CopyResult:
    with manifest.open("wb") as out:
        writer = ManifestWriter(out, source.virtual_size)
        return copy(source, targets, writer, advance=advance, steady=steady)


def _commit(
    disk: Disk,
    stagings: Mapping[str, BaseStaging],
    digest: str,
    manifest: Path,
    stored: Stored,
) -> None:
    """Flushing is what takes time here: every zone's file system on its own."""
    living = [name for name in stagings if name in stored.bases]
    made = in_parallel({n: partial(stagings[n].commit, digest, manifest) for n in living})
    for name, base in made.items():
        if isinstance(base, Exception):
            stored.drop(name, base)
        else:
            stored.bases[name][disk.lun] = base


def _handed_on(
    disk: Disk,
    groups: Mapping[str, Sequence[str]],
    result: CopyResult,
    stored: Stored,
    job: Job,
) -> CopyResult:
    """Give the others what those have that were written; what became of the disk's bytes there,
    too."""
    pairs = {
        name: leader for leader, names in groups.items() for name in names if leader in stored.bases
    }
    made = in_parallel(
        {
            name: partial(_taken_over, job.zones[name], stored.bases[leader][disk.lun])
            for name, leader in pairs.items()
        }
    )
    stats = result.stats
    written, kept, cloned = dict(stats.written), dict(stats.kept), dict(stats.cloned)
    for name, base in made.items():
        if isinstance(base, Exception):
            stored.drop(name, base)
        elif base is not None:
            stored.bases[name][disk.lun] = base
            leader = pairs[name]
            if base.method == "delta":
                written[name], kept[name] = stats.written[leader], stats.kept[leader]
            else:
                kinds = (stats.written, stats.kept, stats.cloned)
                cloned[name] = sum(kind.get(leader, 0) for kind in kinds)
    stats = replace(stats, written=written, kept=kept, cloned=cloned)
    return replace(result, stats=stats)


def _taken_over(zone: Zone, base: StoredBase) -> StoredBase | None:
    return zone.find_base(base.digest) or zone.take_over(base)


def in_parallel(
    calls: Mapping[str, Callable[[], T]],
) -> dict[str, T | OSError | GalleriaError]:
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
