"""Healing: a disk put together from several copies of it, none of which has to be whole.

Each chunk is read from the first copy in which it is what the manifest says, by BLAKE3: no copy is
trusted, and one that can't be read there costs nothing.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from threading import Lock

from blake3 import blake3

from pipeline.data.chunks import CHUNK_SIZE
from pipeline.data.manifest import ChunkTable
from pipeline.errors import GalleriaError, StageFailed
from pipeline.ports import Source
from pipeline.ports.extents import Extent, Kind, Range


class HealedSource:
    """The disk that a manifest describes, read from `copies`, the likeliest first. `lost` are the
    chunks that none of them has; they read as zero, so that the root tells."""

    def __init__(self, table: ChunkTable, copies: Sequence[Source]) -> None:
        self._table = table
        self._copies = [_Copy(source) for source in copies]
        self._lost: list[Range] = []
        self._lock = Lock()

    @property
    def virtual_size(self) -> int:
        return self._table.virtual_size

    @property
    def lost(self) -> list[Range]:
        return sorted(self._lost, key=lambda area: area.start)

    def extents(self) -> Iterator[Extent]:
        return self._table.extents()

    def read_into(self, buf: memoryview, extent: Extent) -> None:
        for start in range(extent.start, extent.end, CHUNK_SIZE):
            end = min(start + CHUNK_SIZE, extent.end)
            self._chunk(buf[start - extent.start : end - extent.start], start)

    def _chunk(self, buf: memoryview, start: int) -> None:
        wanted = self._table.blake3(start // CHUNK_SIZE)
        for copy in self._copies:
            with suppress(OSError, GalleriaError):
                copy.read(buf, start)
                if blake3(buf).digest() == wanted:
                    return
        buf[:] = bytes(len(buf))
        with self._lock:
            self._lost.append(Range(start, len(buf)))

    def file(self, layer: int) -> int | None:
        return None

    def close(self) -> None:
        """Nothing: the copies belong to who opened them."""


class _Copy:
    """A source that is read anywhere."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._extents = tuple(source.extents())
        self._starts = [extent.start for extent in self._extents]

    def read(self, buf: memoryview, start: int) -> None:
        position, end = start, start + len(buf)
        if end > self._source.virtual_size:
            raise StageFailed(f"the copy ends at byte {self._source.virtual_size}")
        at = bisect_right(self._starts, start) - 1
        while position < end:
            extent = self._extents[at]
            stop = min(extent.end, end)
            piece = buf[position - start : stop - start]
            if extent.kind is Kind.DATA:
                self._source.read_into(piece, extent.part(position, stop))
            else:
                piece[:] = bytes(len(piece))
            position, at = stop, at + 1


_: type[Source] = HealedSource
