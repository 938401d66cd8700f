"""Runs of bytes of a disk, and what is known of them before they are read."""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What is known about a run of bytes before it is read."""

    DATA = "data"
    ZERO = "zero"
    FREE = "free"  # the guest's own file system reports it free: free space reads as zeros


@dataclass(frozen=True, slots=True)
class Range:
    """A run of bytes [start, start + length) of a disk."""

    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes of one disk.

    `offset` is where the run lies in the file of chain layer `layer` (0 is the top), or None when
    only the format's reader can produce the bytes (compressed clusters).
    """

    start: int
    length: int
    kind: Kind
    layer: int = 0
    offset: int | None = None

    @property
    def end(self) -> int:
        return self.start + self.length

    def part(self, start: int, end: int) -> "Extent":
        """The piece of this extent that lies in [start, end); both bounds must be inside it."""
        offset = None if self.offset is None else self.offset + (start - self.start)
        return Extent(start, end - start, self.kind, self.layer, offset)
