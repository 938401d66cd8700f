"""Where a VHDX keeps its payload: its block allocation table (qemu's map does not tell).

Source: Microsoft, [MS-VHDX] "Virtual Hard Disk v2 (VHDX) File Format".
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace

from adapters.formats.layering import Allocation, Piece, sectors
from adapters.formats.window import Window
from pipeline.data.extents import SECTOR
from pipeline.errors import UnsafeImage
from pipeline.ports.extents import Extent, Kind

MIB = 1 << 20

# payload block states, MS-VHDX 2.5.1.1; the first four read as zero in a disk without a parent
NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, FULLY_PRESENT, PARTIALLY_PRESENT = 0, 1, 2, 3, 6, 7
READ_AS_ZERO = {NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED}
BITMAP_PRESENT = 6
BITMAP_BLOCK = MIB  # bytes of one sector bitmap block, 2.5.1.2


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a VHDX keeps its payload: one entry of `blocks` per block of the virtual disk.

    `bitmaps` (of a differencing disk) has one entry for every `chunk` blocks: where it is told
    which sectors of a partially present block are there.
    """

    virtual_size: int
    block_size: int
    blocks: "array[int]"
    window: Window
    bitmaps: "array[int] | None" = None
    chunk: int = 1

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        """Cover [start, end) in order: what lies here, is zero, or is the parent's."""
        while start < end:
            index = start // self.block_size
            base = index * self.block_size
            until = min(end, base + self.block_size)
            entry = self.blocks[index]
            place, state = (entry >> 20) * MIB, entry & 7
            if state == FULLY_PRESENT:
                yield Piece(start, until, Allocation.ALLOCATED, place + start - base)
            elif state == PARTIALLY_PRESENT:
                bits = self._bits(index)
                yield from sectors(bits, base, start, until, place, low_first=True)
            else:
                yield Piece(
                    start,
                    until,
                    Allocation.UNALLOCATED if state == NOT_PRESENT else Allocation.ZERO,
                )
            start = until

    def _bits(self, index: int) -> bytes:
        """The part of its chunk's sector bitmap that is about one block."""
        entry = self.bitmaps[index // self.chunk] if self.bitmaps is not None else 0
        if entry & 7 != BITMAP_PRESENT:
            raise UnsafeImage("a partially present block has no sector bitmap")
        length = self.block_size // SECTOR // 8
        start = (entry >> 20) * MIB + index % self.chunk * length
        return self.window.read(start, length, "a sector bitmap")

    def extents(self) -> Iterator[Extent]:
        """Cover [0, virtual_size) in order; neighbours in the file become one extent."""
        return self.extents_between(0, self.virtual_size, 0)

    def extents_between(self, start: int, end: int, layer: int) -> Iterator[Extent]:
        """Cover [start, end) in order; what lies past the disk's own end is zero."""
        pending: Extent | None = None
        while start < end:
            extent = self._piece(start, end, layer)
            start = extent.end
            if pending is not None and _adjoins(pending, extent):
                pending = replace(pending, length=pending.length + extent.length)
                continue
            if pending is not None:
                yield pending
            pending = extent
        if pending is not None:
            yield pending

    def _piece(self, start: int, end: int, layer: int) -> Extent:
        """From `start` to the end of its block, or to `end`."""
        if start >= self.virtual_size:
            return Extent(start, end - start, Kind.ZERO)
        index, inside = divmod(start, self.block_size)
        length = min(self.block_size - inside, self.virtual_size - start, end - start)
        entry = self.blocks[index]
        if entry & 7 != FULLY_PRESENT:
            return Extent(start, length, Kind.ZERO)
        return Extent(start, length, Kind.DATA, layer, (entry >> 20) * MIB + inside)


def _adjoins(before: Extent, after: Extent) -> bool:
    if before.kind is not after.kind:
        return False
    return before.offset is None or before.offset + before.length == after.offset
