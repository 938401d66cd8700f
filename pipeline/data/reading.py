"""Reading a disk once, in order, on a few threads: what to read, and the digests of what was read.

    source.extents() -> works of a few whole chunks -> N threads: read, hash, and what `perform`
                                                       adds -> a bounded window -> in order

Memory is one page-aligned buffer for each thread and the window's digests, whatever the disk's
length. What is known to be zero or free is never read.
"""

import mmap
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

from pipeline.data.chunks import CHUNK_SIZE, ChunkDigest, chunk_count, digest
from pipeline.errors import StageFailed
from pipeline.ports import Source
from pipeline.ports.extents import Extent, Kind, Range

REQUEST_SIZE = 1 << 20  # measured: best with two threads; 4 MiB and 256 KiB are no faster
THREADS = max(2, min(8, os.cpu_count() or 2))

# Works ahead of the first that is not done, most of them settled: a few hundred bytes each.
WINDOW = 1024
_ZEROS = bytes(CHUNK_SIZE)

Task = TypeVar("Task")
Read = Callable[[memoryview, Extent], None]
ChunkDigests = tuple[ChunkDigest | None, ...]  # the digests of a work's chunks, None for zero


@dataclass(frozen=True, slots=True)
class Work:
    """Whole chunks of the disk from `start` on. Without `parts` (what has to be read) all of them
    are zero."""

    start: int
    length: int
    parts: tuple[Extent, ...]

    @property
    def first(self) -> int:
        return self.start // CHUNK_SIZE

    @property
    def count(self) -> int:
        return chunk_count(self.length)

    def areas(self) -> Iterator[Range]:
        """Where its chunks lie on the disk."""
        end = self.start + self.length
        for start in range(self.start, end, CHUNK_SIZE):
            yield Range(start, min(CHUNK_SIZE, end - start))


def plan(source: Source, request_size: int = REQUEST_SIZE) -> Iterator[Work]:
    """Cut a source's extents into works of whole chunks, in order.

    Whole chunks that are known to be zero become works without parts; a chunk that is data only in
    places is read only there.
    """
    if request_size < CHUNK_SIZE or request_size % CHUNK_SIZE:
        raise ValueError(f"request_size {request_size} is not a multiple of {CHUNK_SIZE}")
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
        first = -(-extent.start // CHUNK_SIZE) * CHUNK_SIZE
        last = (
            extent.end
            if extent.end == source.virtual_size
            else extent.end // CHUNK_SIZE * CHUNK_SIZE
        )
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


def load(read_into: Read, work: Work, buf: memoryview) -> ChunkDigests:
    """Read a work's parts into `buf`, zeros between them; the digests of its chunks. `read_into` is
    that of a source."""
    if not work.parts:
        return ()
    position = work.start
    for part in work.parts:
        _blank(buf, position - work.start, part.start - work.start)
        read_into(buf[part.start - work.start : part.end - work.start], part)
        position = part.end
    _blank(buf, position - work.start, work.length)
    return tuple(
        digest(buf[at : min(at + CHUNK_SIZE, work.length)])
        for at in range(0, work.length, CHUNK_SIZE)
    )


def _blank(buf: memoryview, start: int, end: int) -> None:
    for at in range(start, end, CHUNK_SIZE):
        stop = min(at + CHUNK_SIZE, end)
        buf[at:stop] = _ZEROS[: stop - at]


def in_order(
    tasks: Iterable[Task],
    perform: Callable[[Task, memoryview], ChunkDigests],
    threads: int = THREADS,
    request_size: int = REQUEST_SIZE,
    settled: Callable[[Task], bool] = lambda _: False,
) -> Generator[tuple[Task, ChunkDigests], None, None]:
    """Perform tasks on threads, a bounded number ahead; yield their results in order.

    `perform` gets a buffer of `request_size` bytes for as long as it runs. A task that is `settled`
    needs none: it is performed here, and does not wait for a thread. When an error is raised, here
    or by the consumer (who has to close the generator), nothing new starts and every thread is
    joined.
    """
    buffers: SimpleQueue[memoryview] = SimpleQueue()
    for _ in range(threads):
        buffers.put(memoryview(mmap.mmap(-1, request_size)))  # page-aligned
    nothing = memoryview(b"")

    def one(task: Task) -> ChunkDigests:
        buf = buffers.get()
        try:
            return perform(task, buf)
        finally:
            buffers.put(buf)

    window: deque[tuple[Task, Future[ChunkDigests] | ChunkDigests]] = deque()
    running = 0
    pool = ThreadPoolExecutor(threads, thread_name_prefix="copy")
    try:
        for task in tasks:
            if settled(task):
                window.append((task, perform(task, nothing)))
            else:
                window.append((task, pool.submit(one, task)))
                running += 1
            while window and (running > 2 * threads + 1 or len(window) > WINDOW):
                done, chunks = window.popleft()
                if isinstance(chunks, Future):
                    running -= 1
                    chunks = chunks.result()
                yield done, chunks
        while window:
            done, chunks = window.popleft()
            yield done, chunks.result() if isinstance(chunks, Future) else chunks
    finally:
        pool.shutdown(cancel_futures=True)
