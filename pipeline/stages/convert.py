"""Convert: one read of each disk; its digests and its base in every zone come out of it."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.copying import CopyResult, Target, copy
from pipeline.data.extents import data_bytes
from pipeline.data.manifest import ManifestReader, ManifestWriter
from pipeline.errors import GalleriaError
from pipeline.placement import Parents
from pipeline.ports import BaseStaging, Images, Progress, Source, StoredBase, Zone
from pipeline.stages.ingest import Disk


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


def convert(
    disks: Sequence[Disk],
    zones: Mapping[str, Zone],
    parents: Parents,
    work: Path,
    still: Callable[[], None],
    images: Images,
    progress: Progress,
    advance: Callable[[int], None] = lambda _: None,
) -> Stored:
    """Store every disk in every zone. `still` raises when the source did not hold still: it is
    asked after the last read of a disk and before anything of it becomes visible. `advance` is told
    the bytes that were read."""
    stored = Stored(bases={name: {} for name in zones})
    for disk in disks:
        with ExitStack() as stack:
            stagings = _stage(disk, zones, parents.get(disk.lun, ()), stored, stack)
            source = stack.enter_context(images.open(disk.chain, free=disk.free))
            manifest = work / f"{disk.name}.manifest"
            result = _copy(disk, source, stagings, manifest, stack, progress, advance)
            still()
            for name, error in result.failures.items():
                stored.drop(name, error)
            _commit(disk, stagings, result.root, manifest, stored)
            stored.disks.append(StoredDisk(disk.lun, disk.virtual_size, result))
    return stored


def hash_disk(disk: Disk, manifest: Path, images: Images, progress: Progress) -> CopyResult:
    """Only the digests: the same loop, with nowhere to write to."""
    with ExitStack() as stack:
        source = stack.enter_context(images.open(disk.chain, free=disk.free))
        return _copy(disk, source, {}, manifest, stack, progress, lambda _: None)


def _stage(
    disk: Disk,
    zones: Mapping[str, Zone],
    parents: Sequence[str],
    stored: Stored,
    stack: ExitStack,
) -> dict[str, BaseStaging]:
    stagings = {}
    for name in list(stored.bases):
        try:
            staging = zones[name].stage_base(disk.virtual_size, parents)
        except (OSError, GalleriaError) as error:
            stored.drop(name, error)
            continue
        stack.callback(staging.abort)
        stagings[name] = staging
    return stagings


def _copy(
    disk: Disk,
    source: Source,
    stagings: Mapping[str, BaseStaging],
    manifest: Path,
    stack: ExitStack,
    progress: Progress,
    advance: Callable[[int], None],
) -> CopyResult:
    targets = []
    for name, staging in stagings.items():
        parent = None
        if staging.parent is not None:
            file = stack.enter_context(staging.parent.manifest.open("rb"))
            parent = ManifestReader(file, name=str(staging.parent.manifest))
        targets.append(Target(name, staging.sink, parent))
    verb = "convert" if targets else "hash"
    total = data_bytes(source.extents())
    with manifest.open("wb") as out, progress.stage(f"{verb} {disk.name}", total) as meter:
        writer = ManifestWriter(out, source.virtual_size)

        def moved(amount: int) -> None:
            meter.advance(amount)
            advance(amount)

        return copy(source, targets, writer, advance=moved)


def _commit(
    disk: Disk,
    stagings: Mapping[str, BaseStaging],
    digest: str,
    manifest: Path,
    stored: Stored,
) -> None:
    """Flushing is what takes time here: every zone's file system on its own."""
    living = [name for name in stagings if name in stored.bases]
    with ThreadPoolExecutor(max(1, len(living)), thread_name_prefix="commit") as pool:
        commits = {n: pool.submit(stagings[n].commit, digest, manifest) for n in living}
    for name, commit in commits.items():
        error = commit.exception()
        if error is None:
            stored.bases[name][disk.lun] = commit.result()
        elif isinstance(error, OSError | GalleriaError):
            stored.drop(name, error)
        else:
            raise error
