"""Ingest without copying: data becomes part of a sink by reusing the blocks of the source's file.

    extent of the source -> the first sink that can reuse it has its blocks -> its bytes, to hash

Only data is reused, never what is free or known to be zero; what is not whole blocks, or lies in no
file, is left to be written.
"""

from collections.abc import Sequence
from typing import Protocol

from pipeline.ports import Source
from pipeline.ports.extents import Extent, Range


class ReusingSink(Protocol):
    """A sink; after an error, which it keeps to itself, it can neither of these."""

    def reuse_extents(self, file: int, area: Range, offset: int) -> Range | None: ...
    def read_into(self, buf: memoryview, offset: int) -> bool: ...


class Reuse:
    """The reading of one work: what is read is given to a sink first, if one can.

    Not more than one, and what it has is what is read, unless the source is `detects_changes`: a
    source that is written to meanwhile may give every sink something else.
    """

    def __init__(
        self, source: Source, sinks: Sequence[ReusingSink], *, detects_changes: bool
    ) -> None:
        self._source = source
        self._sinks = sinks
        self._detects_changes = detects_changes
        self._reused: list[tuple[ReusingSink, Range]] = []

    def of(self, sink: ReusingSink) -> list[Range]:
        """What of the work this one has."""
        return [area for found, area in self._reused if found is sink]

    def read_into(self, buf: memoryview, extent: Extent) -> None:
        """Fill `buf` with an extent."""
        sink, area = self._reuse(extent)
        if sink is None or self._detects_changes:
            self._source.read_into(buf, extent)
            return
        for start, end in ((extent.start, area.start), (area.end, extent.end)):
            if start < end:
                self._read(buf, extent, start, end)
        middle = buf[area.start - extent.start : area.end - extent.start]
        if not sink.read_into(middle, area.start):
            self._read(buf, extent, area.start, area.end)

    def _read(self, buf: memoryview, extent: Extent, start: int, end: int) -> None:
        part = buf[start - extent.start : end - extent.start]
        self._source.read_into(part, extent.part(start, end))

    def _reuse(self, extent: Extent) -> tuple[ReusingSink | None, Range]:
        none = Range(extent.start, 0)
        if extent.offset is None:
            return None, none
        file = self._source.file(extent.layer)
        if file is None:
            return None, none
        for sink in self._sinks:
            area = sink.reuse_extents(file, Range(extent.offset, extent.length), extent.start)
            if area is not None:
                self._reused.append((sink, area))
                return sink, area
        return None, none
