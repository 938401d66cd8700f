"""The one loop over a disk's bytes: read once, hash, and write what differs to every target.

    source.extents() -> works of a few whole leaves -> N threads: read, hash, compare, write
                                                          |
         manifest, in order  <----- a bounded window -----+

Memory is one page-aligned buffer for each thread and the window's digests, whatever the disk's
length. What is known to be zero or free is never read, and never written over a sink that reads as
zero. Only BLAKE3 decides that a leaf need not be written.
"""

import mmap
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Lock

from pipeline.data.chunks import LEAF, Leaf, digest, leaf_count
from pipeline.data.extents import Extent, Kind, Range
from pipeline.data.manifest import Cursor, ManifestReader, ManifestWriter
from pipeline.errors import GalleriaError, StageFailed
from pipeline.ports import Sink, Source, TransferStats

REQUEST_SIZE = 1 << 20  # measured: best with two threads; 4 MiB and 256 KiB are no faster
THREADS = max(2, min(8, os.cpu_count() or 2))
# A zero run over a parent is handled in pieces, so that its list of ranges stays small.
ZERO_LEAVES = (1 << 30) // LEAF

_ZEROS = bytes(LEAF)

Leaves = tuple[Leaf | None, ...]  # the digests of a work's leaves, None for zero


@dataclass(frozen=True, slots=True)
class Target:
    """Where a copy of the disk goes.

    `parent` is the manifest of what the sink reads as now (None: zeros), in a file of its own.
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
class Work:
    """Whole leaves of the disk from `start` on. Without `parts` (what has to be read) all of them
    are zero. `olds` has, for each target, what its sink reads as now."""

    start: int
    length: int
    parts: tuple[Extent, ...]
    olds: tuple["Old", ...] = ()

    @property
    def first(self) -> int:
        return self.start // LEAF

    @property
    def count(self) -> int:
        return leaf_count(self.length)


@dataclass(frozen=True, slots=True)
class Old:
    """What a sink holds in a work's leaves: their BLAKE3 (None: zero), or, for a work that is all
    zero, the ranges that are not."""

    leaves: tuple[bytes | None, ...] = ()
    ranges: tuple[Range, ...] = ()


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

    def transfer(work: Work, buf: memoryview) -> Leaves:
        leaves = _load(source, work, buf)
        for writer, old in zip(writers, work.olds, strict=True):
            writer.bring(work, leaves, old, buf)
        return leaves

    works = _with_olds(plan(source, request_size), writers)
    with closing(_in_order(works, transfer, threads, request_size)) as results:
        for work, leaves in results:
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

    def load(work: Work, buf: memoryview) -> Leaves:
        return _load(source, work, buf)

    with closing(_in_order(plan(source, request_size), load, threads, request_size)) as results:
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


def plan(source: Source, request_size: int = REQUEST_SIZE) -> Iterator[Work]:
    """Cut a source's extents into works of whole leaves, in order.

    Whole leaves that are known to be zero become works without parts; a leaf that is data only in
    places is read only there.
    """
    if request_size < LEAF or request_size % LEAF:
        raise ValueError(f"request_size {request_size} is not a multiple of {LEAF}")
    start = 0
    parts: list[Extent] = []
    for extent in _joined_zeros(source):
        if extent.kind is Kind.DATA:
            position = extent.start
            while position < extent.end:
                if position >= start + request_size:
                    yield Work(start, request_size, tuple(parts))
                    start, parts = start + request_size, []
                stop = min(extent.end, start + request_size)
                parts.append(extent.part(position, stop))
                position = stop
            continue
        first = -(-extent.start // LEAF) * LEAF
        last = extent.end if extent.end == source.virtual_size else extent.end // LEAF * LEAF
        if first < last:
            if parts:
                yield Work(start, first - start, tuple(parts))
            yield Work(first, last - first, ())
            start, parts = last, []
    if parts:
        yield Work(start, source.virtual_size - start, tuple(parts))


def _joined_zeros(source: Source) -> Iterator[Extent]:
    """The extents of a source, with neighbours that read as zero made one. They must cover the
    disk."""
    position = 0
    zeros: Extent | None = None
    for extent in source.extents():
        if extent.start != position or extent.length <= 0 or extent.end > source.virtual_size:
            raise StageFailed(
                f"the map of the source is wrong: {extent.length} bytes at {extent.start}, "
                f"expected to go on at {position} in a disk of {source.virtual_size} bytes"
            )
        position = extent.end
        if extent.kind is Kind.DATA:
            if zeros is not None:
                yield zeros
                zeros = None
            yield extent
        else:
            begin = extent.start if zeros is None else zeros.start
            zeros = Extent(begin, extent.end - begin, Kind.ZERO)
    if zeros is not None:
        yield zeros
    if position != source.virtual_size:
        raise StageFailed(
            f"the map of the source ends at {position} of {source.virtual_size} bytes"
        )


def _with_olds(works: Iterable[Work], writers: Sequence["_Writer"]) -> Iterator[Work]:
    """Tell each work what every target's sink reads as now."""
    over_parent = any(writer.parent is not None for writer in writers)
    for work in works:
        if work.parts or not over_parent:
            yield _known(work, writers)
            continue
        end = work.start + work.length
        for start in range(work.start, end, ZERO_LEAVES * LEAF):
            yield _known(Work(start, min(ZERO_LEAVES * LEAF, end - start), ()), writers)


def _known(work: Work, writers: Sequence["_Writer"]) -> Work:
    return Work(work.start, work.length, work.parts, tuple(w.old(work) for w in writers))


def _load(source: Source, work: Work, buf: memoryview) -> Leaves:
    """Read a work's parts into `buf`, zeros between them; the digests of its leaves."""
    if not work.parts:
        return ()
    position = work.start
    for part in work.parts:
        _blank(buf, position - work.start, part.start - work.start)
        source.read_into(buf[part.start - work.start : part.end - work.start], part)
        position = part.end
    _blank(buf, position - work.start, work.length)
    return tuple(
        digest(buf[at : min(at + LEAF, work.length)]) for at in range(0, work.length, LEAF)
    )


def _blank(buf: memoryview, start: int, end: int) -> None:
    for at in range(start, end, LEAF):
        stop = min(at + LEAF, end)
        buf[at:stop] = _ZEROS[: stop - at]


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


def _in_order(
    works: Iterable[Work],
    perform: Callable[[Work, memoryview], Leaves],
    threads: int,
    request_size: int,
) -> Generator[tuple[Work, Leaves], None, None]:
    """Perform works on threads, a bounded number ahead; yield their results in order.

    When an error is raised, here or by the consumer, nothing new starts and every thread is joined.
    """
    buffers: SimpleQueue[memoryview] = SimpleQueue()
    for _ in range(threads):
        buffers.put(memoryview(mmap.mmap(-1, request_size)))  # page-aligned

    def one(work: Work) -> Leaves:
        buf = buffers.get()
        try:
            return perform(work, buf)
        finally:
            buffers.put(buf)

    window: deque[tuple[Work, Future[Leaves]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="copy")
    try:
        for work in works:
            window.append((work, pool.submit(one, work)))
            if len(window) >= 2 * threads + 2:
                done, future = window.popleft()
                yield done, future.result()
        while window:
            done, future = window.popleft()
            yield done, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
