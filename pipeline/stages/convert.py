"""Convert: one read of each disk; its digests and its base in every region's zone come out of
it."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.copying import CopyResult, Target, copy
from pipeline.data.extents import data_bytes
from pipeline.data.manifest import ManifestReader, ManifestWriter
from pipeline.errors import GalleriaError
from pipeline.ports import BaseStaging, Images, Progress, Source, StoredBase, Zone
from pipeline.stages.ingest import Disk

Parents = Mapping[int | None, Sequence[str]]  # by LUN, root digests a new base may start from


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
    """`bases` by region and LUN, for the regions that hold every disk; `failures` for the
    others."""

    disks: list[StoredDisk] = field(default_factory=list)
    bases: dict[str, dict[int | None, StoredBase]] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)

    def drop(self, region: str, error: Exception) -> None:
        """A region that fails, fails alone; when none is left its error is everybody's."""
        self.failures.setdefault(region, error)
        self.bases.pop(region, None)
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
) -> Stored:
    """Store every disk in every region's zone. `still` raises when the source did not hold still:
    it is asked after the last read of a disk and before anything of it becomes visible."""
    stored = Stored(bases={region: {} for region in zones})
    for disk in disks:
        with ExitStack() as stack:
            stagings = _stage(disk, zones, parents.get(disk.lun, ()), stored, stack)
            source = stack.enter_context(images.open(disk.chain, free=disk.free))
            manifest = work / f"{disk.name}.manifest"
            result = _copy(disk, source, stagings, manifest, stack, progress)
            still()
            for region, error in result.failures.items():
                stored.drop(region, error)
            _commit(disk, stagings, result.root, manifest, stored)
            stored.disks.append(StoredDisk(disk.lun, disk.virtual_size, result))
    return stored


def hash_disk(disk: Disk, manifest: Path, images: Images, progress: Progress) -> CopyResult:
    """Only the digests: the same loop, with nowhere to write to."""
    with ExitStack() as stack:
        source = stack.enter_context(images.open(disk.chain, free=disk.free))
        return _copy(disk, source, {}, manifest, stack, progress)


def _stage(
    disk: Disk,
    zones: Mapping[str, Zone],
    parents: Sequence[str],
    stored: Stored,
    stack: ExitStack,
) -> dict[str, BaseStaging]:
    stagings = {}
    for region in list(stored.bases):
        try:
            staging = zones[region].stage_base(disk.virtual_size, parents)
        except (OSError, GalleriaError) as error:
            stored.drop(region, error)
            continue
        stack.callback(staging.abort)
        stagings[region] = staging
    return stagings


def _copy(
    disk: Disk,
    source: Source,
    stagings: Mapping[str, BaseStaging],
    manifest: Path,
    stack: ExitStack,
    progress: Progress,
) -> CopyResult:
    targets = []
    for region, staging in stagings.items():
        parent = None
        if staging.parent is not None:
            file = stack.enter_context(staging.parent.manifest.open("rb"))
            parent = ManifestReader(file, name=str(staging.parent.manifest))
        targets.append(Target(region, staging.sink, parent))
    verb = "convert" if targets else "hash"
    total = data_bytes(source.extents())
    with manifest.open("wb") as out, progress.stage(f"{verb} {disk.name}", total) as meter:
        writer = ManifestWriter(out, source.virtual_size)
        return copy(source, targets, writer, advance=meter.advance)


def _commit(
    disk: Disk,
    stagings: Mapping[str, BaseStaging],
    digest: str,
    manifest: Path,
    stored: Stored,
) -> None:
    """Flushing is what takes time here: every region's file system on its own."""
    living = [region for region in stagings if region in stored.bases]
    with ThreadPoolExecutor(max(1, len(living)), thread_name_prefix="commit") as pool:
        commits = {r: pool.submit(stagings[r].commit, digest, manifest) for r in living}
    for region, commit in commits.items():
        error = commit.exception()
        if error is None:
            stored.bases[region][disk.lun] = commit.result()
        elif isinstance(error, OSError | GalleriaError):
            stored.drop(region, error)
        else:
            raise error
