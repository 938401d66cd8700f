"""Ingest without copying: data becomes part of a sink by sharing the blocks of the source's file.

    extent of the source -> the first sink that can share it has its blocks -> its bytes, to hash

Only data is shared, never what is free or known to be zero; what is not whole blocks, or lies in no
file, is left to be written.
"""

from collections.abc import Sequence
from typing import Protocol

from pipeline.ports import Source
from pipeline.ports.extents import Extent, Range


class Sharer(Protocol):
    """A sink; after an error, which it keeps to itself, it can neither of these."""

    def share(self, file: int, area: Range, offset: int) -> Range | None: ...
    def read_into(self, buf: memoryview, offset: int) -> bool: ...


class Sharing:
    """The reading of one work: what is read is shared with a sink first, if one can.

    Not more than one, and what it has is what is read, unless the source is `detects_changes`: a
    source that is written to meanwhile may give every sink something else.
    """

    def __init__(self, source: Source, sharers: Sequence[Sharer], *, detects_changes: bool) -> None:
        self._source = source
        self._sharers = sharers
        self._detects_changes = detects_changes
        self._shared: list[tuple[Sharer, Range]] = []

    def of(self, sharer: Sharer) -> list[Range]:
        """What of the work this one has."""
        return [area for found, area in self._shared if found is sharer]

    def read_into(self, buf: memoryview, extent: Extent) -> None:
        """Fill `buf` with an extent."""
        sharer, area = self._share(extent)
        if sharer is None or self._detects_changes:
            self._source.read_into(buf, extent)
            return
        for start, end in ((extent.start, area.start), (area.end, extent.end)):
            if start < end:
                self._read(buf, extent, start, end)
        middle = buf[area.start - extent.start : area.end - extent.start]
        if not sharer.read_into(middle, area.start):
            self._read(buf, extent, area.start, area.end)

    def _read(self, buf: memoryview, extent: Extent, start: int, end: int) -> None:
        part = buf[start - extent.start : end - extent.start]
        self._source.read_into(part, extent.part(start, end))

    def _share(self, extent: Extent) -> tuple[Sharer | None, Range]:
        none = Range(extent.start, 0)
        if extent.offset is None:
            return None, none
        file = self._source.file(extent.layer)
        if file is None:
            return None, none
        for sharer in self._sharers:
            area = sharer.share(file, Range(extent.offset, extent.length), extent.start)
            if area is not None:
                self._shared.append((sharer, area))
                return sharer, area
        return None, none
