"""Where the bytes of a disk lie that is made of several files: each layer says what it holds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from pipeline.data.extents import SECTOR
from pipeline.ports.extents import Extent, Kind


class Allocation(Enum):
    """What a layer says of a run of bytes."""

    ALLOCATED = "here"
    ZERO = "zero"
    UNALLOCATED = "below"


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of bytes of a disk; `offset` is its place in the layer's file when it is there."""

    start: int
    end: int
    allocation: Allocation
    offset: int = 0


class Layered(Protocol):
    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        """Cover [start, end) in order."""
        ...


def combine(layers: Sequence[Layered], start: int, end: int, depth: int = 0) -> Iterator[Extent]:
    """The extents of [start, end): what one layer does not hold, the one below it does. Below the
    bottom everything is zero."""
    for piece in merged(layers[depth].pieces(start, end)):
        length = piece.end - piece.start
        if piece.allocation is Allocation.ALLOCATED:
            yield Extent(piece.start, length, Kind.DATA, depth, piece.offset)
        elif piece.allocation is Allocation.UNALLOCATED and depth + 1 < len(layers):
            yield from combine(layers, piece.start, piece.end, depth + 1)
        else:
            yield Extent(piece.start, length, Kind.ZERO)


def merged(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Neighbours, in the disk and in the file, as one."""
    pending: Piece | None = None
    for piece in pieces:
        if pending is not None and _adjoins(pending, piece):
            pending = Piece(pending.start, piece.end, pending.allocation, pending.offset)
            continue
        if pending is not None:
            yield pending
        pending = piece
    if pending is not None:
        yield pending


def _adjoins(before: Piece, after: Piece) -> bool:
    if before.allocation is not after.allocation:
        return False
    return (
        before.allocation is not Allocation.ALLOCATED
        or before.offset + before.end - before.start == after.offset
    )


def sectors(
    bits: bytes, base: int, start: int, end: int, offset: int, *, low_first: bool
) -> Iterator[Piece]:
    """The part [start, end) of a block that begins at `base` of the disk and `offset` of the file;
    a set bit of `bits` is a sector that is there, `low_first` says how the bits of a byte count."""
    position = start
    while position < end:
        sector = (position - base) // SECTOR
        byte = bits[sector >> 3]
        if byte in (0x00, 0xFF):
            present, count = byte == 0xFF, 8 - (sector & 7)
        else:
            shift = sector & 7 if low_first else 7 - (sector & 7)
            present, count = bool(byte >> shift & 1), 1
        until = min(end, base + (sector + count) * SECTOR)
        yield Piece(
            position,
            until,
            Allocation.ALLOCATED if present else Allocation.UNALLOCATED,
            offset + position - base,
        )
        position = until
