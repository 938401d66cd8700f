"""The one loop over a disk's bytes: read once, hash, and write what differs to every target.

    source -> `reading`, on N threads: read, hash | compare, write to each target
                 |
                 +-> in order: the manifest

What is known to be zero or free is never written over a sink that reads as zero. Only BLAKE3
decides that a leaf need not be written.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from threading import Lock

from pipeline.data.chunks import LEAF
from pipeline.data.extents import Range
from pipeline.data.manifest import Cursor, ManifestReader, ManifestWriter
from pipeline.data.reading import (
    REQUEST_SIZE,
    THREADS,
    Leaves,
    Work,
    in_order,
    load,
    plan,
)
from pipeline.errors import GalleriaError
from pipeline.ports import Sink, Source, TransferStats

# A zero run over a parent is handled in pieces, so that its list of ranges stays small.
ZERO_LEAVES = (1 << 30) // LEAF


@dataclass(frozen=True, slots=True)
class Target:
    """Where a copy of the disk goes.

    `parent` is the manifest of what the sink reads as now (None: zeros): verified, and in a file of
    its own, as it is read while the disk is.
    """

    name: str
    sink: Sink
    parent: ManifestReader | None = None


@dataclass(frozen=True, slots=True)
class CopyResult:
    """`failures`: the error of each target that was dropped; its sink holds an unknown part."""

    root: str
    stats: TransferStats
    failures: dict[str, Exception] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Old:
    """What a sink holds in a work's leaves: their BLAKE3 (None: zero), or, for a work that is all
    zero, the ranges that are not."""

    leaves: tuple[bytes | None, ...] = ()
    ranges: tuple[Range, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A work, and for each target what its sink reads as now."""

    work: Work
    olds: tuple[Old, ...]


def copy(
    source: Source,
    targets: Sequence[Target],
    manifest: ManifestWriter,
    *,
    threads: int = THREADS,
    request_size: int = REQUEST_SIZE,
    advance: Callable[[int], None] = lambda _: None,
) -> CopyResult:
    """Read `source` once; bring every target's sink to its content; write its manifest.

    Without targets it only hashes. A target whose sink raises OSError or GalleriaError is dropped
    and reported; the first of these errors is raised when none is left. Errors of the source are
    raised. `advance` is told the bytes read from the source as they are dealt with (their total is
    `extents.data_bytes`). Sinks are neither flushed nor closed.
    """
    writers = [_Writer(target) for target in targets]
    failures: dict[str, Exception] = {}
    read = zero = 0

    def transfer(task: Task, buf: memoryview) -> Leaves:
        leaves = load(source, task.work, buf)
        for writer, old in zip(writers, task.olds, strict=True):
            writer.bring(task.work, leaves, old, buf)
        return leaves

    tasks = _tasks(plan(source, request_size), writers)
    with closing(in_order(tasks, transfer, threads, request_size)) as results:
        for task, leaves in results:
            work = task.work
            for writer in writers:
                if writer.error is not None:
                    failures.setdefault(writer.target.name, writer.error)
            if writers and len(failures) == len(writers):
                raise next(iter(failures.values()))
            zero += _enter(manifest, work, leaves)
            if work.parts:
                amount = sum(part.length for part in work.parts)
                read += amount
                advance(amount)
    stats = TransferStats(
        source.virtual_size,
        read,
        zero,
        written={writer.target.name: writer.written for writer in writers},
        kept={writer.target.name: writer.kept for writer in writers},
    )
    return CopyResult(manifest.finish(), stats, failures)


def verify(
    source: Source,
    manifest: ManifestReader,
    *,
    threads: int = THREADS,
    request_size: int = REQUEST_SIZE,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Range, ...]:
    """Read all data of `source` and compare both digests of every leaf with the manifest.

    Returns the ranges of bytes that are not what the manifest says, adjacent ones joined. Raises
    VerificationFailed if the manifest is itself damaged.
    """
    if source.virtual_size != manifest.virtual_size:
        low, high = sorted((source.virtual_size, manifest.virtual_size))
        start = low // LEAF * LEAF
        return (Range(start, high - start),)
    expected = Cursor(manifest)
    bad: list[Range] = []

    def perform(work: Work, buf: memoryview) -> Leaves:
        return load(source, work, buf)

    with closing(in_order(plan(source, request_size), perform, threads, request_size)) as results:
        for work, leaves in results:
            for area in _unexpected(work, leaves, expected):
                _join(bad, area)
            if work.parts:
                advance(sum(part.length for part in work.parts))
    manifest.verify()
    return tuple(bad)


def _unexpected(work: Work, leaves: Leaves, expected: Cursor) -> Iterator[Range]:
    """The leaves of a work that are not what the manifest says."""
    if not work.parts:
        yield from _filled(work, expected)
        return
    for index, leaf in enumerate(leaves):
        if leaf != expected.leaf(work.first + index):
            yield Range(work.start + index * LEAF, min(LEAF, work.length - index * LEAF))


def _filled(work: Work, manifest: Cursor) -> Iterator[Range]:
    """The ranges of a work where a manifest has data."""
    end = work.start + work.length
    for first, count in manifest.data(work.first, work.count):
        yield Range(first * LEAF, min(count * LEAF, end - first * LEAF))


def _tasks(works: Iterable[Work], writers: Sequence["_Writer"]) -> Iterator[Task]:
    """Tell each work what every target's sink reads as now."""
    over_parent = any(writer.parent is not None for writer in writers)
    step = ZERO_LEAVES * LEAF
    for work in works:
        pieces = [work]
        if over_parent and not work.parts:
            end = work.start + work.length
            starts = range(work.start, end, step)
            pieces = [Work(start, min(step, end - start), ()) for start in starts]
        for piece in pieces:
            yield Task(piece, tuple(writer.old(piece) for writer in writers))


def _enter(manifest: ManifestWriter, work: Work, leaves: Leaves) -> int:
    """Add a work's leaves to the manifest; the bytes of them that are zero."""
    if not work.parts:
        manifest.add_zeros(work.count)
        return work.length
    zero = 0
    for index, leaf in enumerate(leaves):
        if leaf is None:
            manifest.add_zeros(1)
            zero += min(LEAF, work.length - index * LEAF)
        else:
            manifest.add(leaf)
    return zero


class _Writer:
    """Brings one target's sink to the source's content; drops the target at its first error."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.parent = Cursor(target.parent) if target.parent else None
        self.written = self.kept = 0
        self.error: Exception | None = None
        self._lock = Lock()

    def old(self, work: Work) -> Old:
        """What the sink reads as now; asked in the order of the disk."""
        if self.parent is None or self.error is not None:
            return Old()
        try:
            if not work.parts:
                return Old(ranges=tuple(_filled(work, self.parent)))
            leaves = [self.parent.leaf(work.first + index) for index in range(work.count)]
        except (OSError, GalleriaError) as error:
            self._drop(error)
            return Old()
        return Old(leaves=tuple(leaf and leaf.blake3 for leaf in leaves))

    def bring(self, work: Work, leaves: Leaves, old: Old, buf: memoryview) -> None:
        if self.error is not None:
            return
        try:
            for area in old.ranges:
                self.target.sink.zero(area.length, area.start)
            written, kept = self._differences(work, leaves, old, buf)
        except (OSError, GalleriaError) as error:
            self._drop(error)
            return
        with self._lock:
            self.written += written
            self.kept += kept

    def _drop(self, error: Exception) -> None:
        with self._lock:
            self.error = self.error or error

    def _differences(
        self, work: Work, leaves: Leaves, old: Old, buf: memoryview
    ) -> tuple[int, int]:
        """Write the leaves that differ, neighbours in one call; the bytes written and kept."""
        changed: list[Range] = []
        cleared: list[Range] = []
        kept = 0
        befores = old.leaves or (None,) * len(leaves)
        for index, (leaf, before) in enumerate(zip(leaves, befores, strict=True)):
            area = Range(index * LEAF, min(LEAF, work.length - index * LEAF))
            if leaf is None:
                if before is not None:
                    _join(cleared, area)
            elif leaf.blake3 == before:
                kept += area.length
            else:
                _join(changed, area)
        for area in changed:
            self.target.sink.write(buf[area.start : area.end], work.start + area.start)
        for area in cleared:
            self.target.sink.zero(area.length, work.start + area.start)
        return sum(area.length for area in changed), kept


def _join(areas: list[Range], area: Range) -> None:
    """Append a range, made one with the last if it touches it."""
    if areas and areas[-1].end == area.start:
        areas[-1] = Range(areas[-1].start, areas[-1].length + area.length)
    else:
        areas.append(area)
