"""The one loop over a disk's bytes: read once, hash, and write what differs to every target.

    source -> `reading`, on N threads: read, hash | compare, write to each target
                 |
                 +-> in order: the manifest

What is known to be zero or free is never written over a sink that reads as zero. Only BLAKE3
decides that a chunk need not be written. A sink on the source's own file system may get the blocks
of the source's file instead of a copy of its bytes (`reuse`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from pipeline.data.chunks import CHUNK_SIZE
from pipeline.data.extents import join
from pipeline.data.manifest import Cursor, ManifestReader, ManifestWriter
from pipeline.data.reading import (
    REQUEST_SIZE,
    THREADS,
    ChunkDigests,
    Work,
    in_order,
    load,
    plan,
)
from pipeline.data.reuse import Reuse
from pipeline.data.targets import Old, Target, Writer, filled
from pipeline.ports import Source, TransferStats
from pipeline.ports.extents import Range

# A zero run over a parent is handled in pieces, so that its list of ranges stays small.
ZERO_CHUNKS = (1 << 30) // CHUNK_SIZE


@dataclass(frozen=True, slots=True)
class CopyResult:
    """`failures`: the error of each target that was dropped; its sink holds an unknown part."""

    root: str
    stats: TransferStats
    failures: dict[str, Exception] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Known:
    """What of a source need not be read: the bytes of its layers from `layer` on are those of a
    base, with this manifest."""

    manifest: ManifestReader
    layer: int


@dataclass(frozen=True, slots=True)
class Task:
    """A work, and for each target what its sink reads as now; `chunks` are its digests if they are
    known without reading it, and every target has them already."""

    work: Work
    olds: tuple[Old, ...]
    chunks: ChunkDigests | None = None

    @property
    def settled(self) -> bool:
        """Whether nothing is to be read, and nothing to be written."""
        if self.work.parts:
            return self.chunks is not None
        return not any(old.ranges for old in self.olds)


def copy(
    source: Source,
    targets: Sequence[Target],
    manifest: ManifestWriter,
    *,
    threads: int = THREADS,
    request_size: int = REQUEST_SIZE,
    advance: Callable[[int], None] = lambda _: None,
    detects_changes: bool = False,
    known: Known | None = None,
) -> CopyResult:
    """Read `source` once; bring every target's sink to its content; write its manifest.

    What a sink reuses of the source's file is read from the sink: what was hashed is what is
    stored. Of a `detects_changes` source, which the caller can tell did not change in the
    meantime, it is read from the source, whose pages may be in memory; the two are the same then.

    What is `known` is not read where every target holds it, and neither is what a target's parent
    has in common with the source's files: blocks that both have, on a file system that clones.

    Without targets it only hashes. A target whose sink raises OSError or GalleriaError is dropped
    and reported; the first of these errors is raised when none is left. Errors of the source are
    raised. `advance` is told the bytes of the source's data as they are dealt with (their total is
    `extents.data_bytes`). Sinks are neither flushed nor closed.
    """
    writers = [Writer(target) for target in targets]
    failures: dict[str, Exception] = {}
    read = zero = 0

    sinks = [writer for writer in writers if writer.target.reuses_extents and writer.parent is None]

    def transfer(task: Task, buf: memoryview) -> ChunkDigests:
        reuse = Reuse(source, sinks, detects_changes=detects_changes) if sinks else None
        chunks = task.chunks
        if chunks is None:
            chunks = load((reuse or source).read_into, task.work, buf)
        for writer, old in zip(writers, task.olds, strict=True):
            writer.bring(task.work, chunks, old, buf, reuse.of(writer) if reuse else ())
        return chunks

    tasks = _tasks(plan(source, request_size), source, writers, known)
    results = in_order(tasks, transfer, threads, request_size, lambda task: task.settled)
    with closing(results):
        for task, chunks in results:
            work = task.work
            for writer in writers:
                if writer.error is not None:
                    failures.setdefault(writer.target.name, writer.error)
            if writers and len(failures) == len(writers):
                raise next(iter(failures.values()))
            zero += _enter(manifest, work, chunks)
            if work.parts:
                amount = sum(part.length for part in work.parts)
                read += amount if task.chunks is None else 0
                advance(amount)
    stats = TransferStats(
        source.virtual_size,
        read,
        zero,
        written={writer.target.name: writer.written for writer in writers},
        kept={writer.target.name: writer.kept for writer in writers},
        cloned={writer.target.name: writer.cloned for writer in writers},
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
    """Read all data of `source` and compare both digests of every chunk with the manifest.

    Returns the ranges of bytes that are not what the manifest says, adjacent ones joined. Raises
    VerificationFailed if the manifest is itself damaged.
    """
    if source.virtual_size != manifest.virtual_size:
        low, high = sorted((source.virtual_size, manifest.virtual_size))
        start = low // CHUNK_SIZE * CHUNK_SIZE
        return (Range(start, high - start),)
    expected = Cursor(manifest)
    bad: list[Range] = []

    def perform(work: Work, buf: memoryview) -> ChunkDigests:
        return load(source.read_into, work, buf)

    with closing(in_order(plan(source, request_size), perform, threads, request_size)) as results:
        for work, chunks in results:
            for area in _unexpected(work, chunks, expected):
                join(bad, area)
            if work.parts:
                advance(sum(part.length for part in work.parts))
    manifest.verify()
    return tuple(bad)


def _unexpected(work: Work, chunks: ChunkDigests, expected: Cursor) -> Iterator[Range]:
    """The chunks of a work that are not what the manifest says."""
    if not work.parts:
        yield from filled(work, expected)
        return
    for index, chunk in enumerate(chunks):
        if chunk != expected.chunk(work.first + index):
            yield Range(
                work.start + index * CHUNK_SIZE, min(CHUNK_SIZE, work.length - index * CHUNK_SIZE)
            )


def _tasks(
    works: Iterable[Work], source: Source, writers: Sequence[Writer], known: Known | None
) -> Iterator[Task]:
    """Tell each work what every target's sink reads as now, and whether it has to be read."""
    cursor = Cursor(known.manifest) if known is not None else None
    over_parent = any(writer.parent is not None for writer in writers)
    step = ZERO_CHUNKS * CHUNK_SIZE
    for work in works:
        pieces = [work]
        if over_parent and not work.parts:
            end = work.start + work.length
            starts = range(work.start, end, step)
            pieces = [Work(start, min(step, end - start), ()) for start in starts]
        for piece in pieces:
            olds = tuple(writer.old(piece) for writer in writers)
            found: ChunkDigests | None = None
            if known is not None and cursor is not None and _lies_in(piece, known.layer):
                found = tuple(cursor.chunk(piece.first + index) for index in range(piece.count))
            elif piece.parts:
                holders = (
                    old
                    for writer, old in zip(writers, olds, strict=True)
                    if writer.holds(piece, source)
                )
                found = next((old.chunks for old in holders), None)
            everywhere = found is not None and all(old.chunks == found for old in olds)
            yield Task(piece, olds, found if everywhere else None)


def _lies_in(work: Work, layer: int) -> bool:
    """Whether all bytes of a work lie in a chain's layers from `layer` on. What reads as zero may
    have been made so by a layer above."""
    whole = sum(part.length for part in work.parts) == work.length
    return whole and all(part.layer >= layer for part in work.parts)


def _enter(manifest: ManifestWriter, work: Work, chunks: ChunkDigests) -> int:
    """Add a work's chunks to the manifest; the bytes of them that are zero."""
    if not work.parts:
        manifest.add_zeros(work.count)
        return work.length
    zero = 0
    for index, chunk in enumerate(chunks):
        if chunk is None:
            manifest.add_zeros(1)
            zero += min(CHUNK_SIZE, work.length - index * CHUNK_SIZE)
        else:
            manifest.add(chunk)
    return zero
