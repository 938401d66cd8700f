"""Where the bytes of a disk go: what each target's sink holds, and what has to be written to it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

from pipeline.data.chunks import CHUNK_SIZE
from pipeline.data.extents import common, join, without
from pipeline.data.manifest import Cursor, ManifestReader
from pipeline.data.reading import ChunkDigests, Work
from pipeline.errors import GalleriaError
from pipeline.ports import Sink, Source
from pipeline.ports.extents import Range


@dataclass(frozen=True, slots=True)
class Target:
    """Where a copy of the disk goes.

    `parent` is the manifest of what the sink reads as now (None: zeros): verified, and in a file of
    its own, as it is read while the disk is. `reuses_extents`: without a parent, the sink may have
    blocks in common with the source's files.
    """

    name: str
    sink: Sink
    parent: ManifestReader | None = None
    reuses_extents: bool = False


@dataclass(frozen=True, slots=True)
class Old:
    """What a sink holds in a work's chunks: their digests, or, for a work that is all zero, the
    ranges that are not."""

    chunks: ChunkDigests = ()
    ranges: tuple[Range, ...] = ()


class Writer:
    """Brings one target's sink to the source's content; drops the target at its first error."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.parent = Cursor(target.parent) if target.parent else None
        self.written = self.kept = self.cloned = 0
        self.error: Exception | None = None
        self._lock = Lock()

    def old(self, work: Work) -> Old:
        """What the sink reads as now; asked in the order of the disk."""
        if self.parent is None or self.error is not None:
            return Old()
        try:
            if not work.parts:
                return Old(ranges=tuple(filled(work, self.parent)))
            chunks = tuple(self.parent.chunk(work.first + index) for index in range(work.count))
        except (OSError, GalleriaError) as error:
            self._drop(error)
            return Old()
        return Old(chunks)

    def holds(self, work: Work, source: Source) -> bool:
        """Whether the sink has, of all that is in a work, the very blocks that the source has: what
        the sink's parent is known to be there, the source is."""
        parent = self.target.parent
        if parent is None or self.error is not None:
            return False
        if parent.virtual_size != source.virtual_size:  # the last chunk may be another one
            return False
        sink, position = self.target.sink, work.start
        for part in work.parts:
            file = source.file(part.layer)
            if part.offset is None or file is None:
                return False
            gap = Range(position, part.start - position)
            if gap.length and not sink.holds(None, gap, gap.start):
                return False
            if not sink.holds(file, Range(part.offset, part.length), part.start):
                return False
            position = part.end
        rest = Range(position, work.start + work.length - position)
        return not rest.length or sink.holds(None, rest, rest.start)

    def reuse_extents(self, file: int, area: Range, offset: int) -> Range | None:
        """`Sink.reuse_extents` of its sink."""
        if self.error is not None:
            return None
        try:
            return self.target.sink.reuse_extents(file, area, offset)
        except (OSError, GalleriaError) as error:
            self._drop(error)
            return None

    def read_into(self, buf: memoryview, offset: int) -> bool:
        """`Sink.read_into` of its sink; False when that failed."""
        try:
            self.target.sink.read_into(buf, offset)
        except (OSError, GalleriaError) as error:
            self._drop(error)
            return False
        return True

    def bring(
        self,
        work: Work,
        chunks: ChunkDigests,
        old: Old,
        buf: memoryview,
        reused: Sequence[Range] = (),
    ) -> None:
        """Make the sink what was read; `reused` ranges of the work it has already."""
        if self.error is not None:
            return
        try:
            for area in old.ranges:
                self.target.sink.zero(area.length, area.start)
            if reused:
                self._complete(work, chunks, buf, reused)
            elif work.parts:
                self._differences(work, chunks, old, buf)
        except (OSError, GalleriaError) as error:
            self._drop(error)

    def _drop(self, error: Exception) -> None:
        with self._lock:
            self.error = self.error or error

    def _differences(self, work: Work, chunks: ChunkDigests, old: Old, buf: memoryview) -> None:
        """Write the chunks that differ, neighbours in one call."""
        changed: list[Range] = []
        cleared: list[Range] = []
        kept = 0
        befores = old.chunks or (None,) * len(chunks)
        for area, chunk, before in zip(work.areas(), chunks, befores, strict=True):
            if chunk is None:
                if before is not None:
                    join(cleared, area)
            elif before is not None and chunk.blake3 == before.blake3:
                kept += area.length
            else:
                join(changed, area)
        self._write(work, changed, cleared, buf)
        with self._lock:
            self.kept += kept

    def _complete(
        self, work: Work, chunks: ChunkDigests, buf: memoryview, reused: Sequence[Range]
    ) -> None:
        """Write what is not reused, and let go of what is and turned out to be zero."""
        zero = [area for area, chunk in zip(work.areas(), chunks, strict=True) if chunk is None]
        rest = without([Range(part.start, part.length) for part in work.parts], reused)
        self._write(work, without(rest, zero), common(reused, zero), buf)
        with self._lock:
            self.cloned += sum(area.length for area in without(reused, zero))

    def _write(
        self, work: Work, changed: Sequence[Range], cleared: Sequence[Range], buf: memoryview
    ) -> None:
        for area in changed:
            at = area.start - work.start
            self.target.sink.write(buf[at : at + area.length], area.start)
        for area in cleared:
            self.target.sink.zero(area.length, area.start)
        with self._lock:
            self.written += sum(area.length for area in changed)


def filled(work: Work, manifest: Cursor) -> Iterator[Range]:
    """The ranges of a work where a manifest has data."""
    end = work.start + work.length
    for first, count in manifest.data(work.first, work.count):
        yield Range(first * CHUNK_SIZE, min(count * CHUNK_SIZE, end - first * CHUNK_SIZE))
