"""What a parser gets (a bounded view of one open file) and what it leaves (its findings)."""

import itertools
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.data.extents import SECTOR
from pipeline.errors import UnsafeImage
from pipeline.model.images import ImageFormat

# The largest table of a sane disk: 32 MiB is qemu's own limit for a qcow2's L1, and the block
# table of a VHDX of 32 TiB with blocks of 8 MiB or more.
TABLE_LIMIT = 32 << 20
# All tables of one image. The largest that are read twice are a VHDX's of 32 MiB.
TABLES_LIMIT = 96 << 20
BLOCKS_LIMIT = 2 << 20  # blocks of data of a VHD or VDI: 2 TiB in blocks of 1 MiB
TOLD = 10  # refusals, references and notes of one image; of more than that their number


class Window:
    """Reads of one file, each inside it and of bounded length. The caller owns the descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size
        self._left = TABLES_LIMIT

    def read(self, offset: int, length: int, what: str) -> bytes:
        """Exactly `length` bytes. Raises UnsafeImage, naming `what`, when they are not there."""
        if length > TABLE_LIMIT:
            raise UnsafeImage(f"{what} has {length} bytes: too many")
        self._left -= max(0, length)
        if self._left < 0:
            raise UnsafeImage(f"its headers and tables have more than {TABLES_LIMIT >> 20} MiB")
        if not self.holds(offset, length):
            raise UnsafeImage(
                f"{what} (bytes {offset} to {offset + length}) lies outside of the file of "
                f"{self.size} bytes: it is truncated or damaged"
            )
        parts = []
        while length:
            part = os.pread(self.fd, length, offset)
            if not part:
                raise UnsafeImage(f"{what} could not be read whole: the file shrank")
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)

    def holds(self, offset: int, length: int) -> bool:
        return offset >= 0 and length >= 0 and offset + length <= self.size


class Few(list[str]):
    """Sentences, of which only the first are kept, and how many more there were."""

    more = 0

    def append(self, sentence: str) -> None:
        if len(self) < TOLD:
            super().append(sentence)
        else:
            self.more += 1

    def __iadd__(self, sentences: Iterable[str]) -> "Few":  # type: ignore[override,misc]
        for sentence in sentences:
            self.append(sentence)
        return self

    def told(self) -> tuple[str, ...]:
        """All that is to be said of them."""
        return (*self, *[f"and {self.more} more of that kind"] * bool(self.more))


@dataclass(frozen=True, slots=True)
class Parent:
    """What a header says of the file below: one of these names (paths of any system), one of these
    identifiers (none: the format has no such thing), and its format where that is told."""

    names: tuple[str, ...]
    identifiers: tuple[str, ...] = ()
    format: ImageFormat | None = None


@dataclass(slots=True)
class Findings:
    """What a parser has found so far.

    `references` are other files that the image depends on: refused unless a chain declares them.
    Every other reason not to touch the image is in `refusals`. `parent` says which file is meant,
    and `identifier` is what children of this one call it. `unread`: the refusals say only that it
    is no format of ours, or not whole without other files.
    """

    format: ImageFormat
    variant: str = ""
    virtual_size: int = 0
    logical_sector_size: int = SECTOR
    snapshots: list[str] = field(default_factory=list)
    references: Few = field(default_factory=Few)
    refusals: Few = field(default_factory=Few)
    notes: Few = field(default_factory=Few)
    parent: Parent | None = None
    identifier: str = ""
    unread: bool = False

    def refuse_unless(self, right: bool, reason: str) -> None:
        if not right:
            self.refusals.append(reason)


def used_blocks(entries: Iterable[int]) -> list[int]:
    """The entries of a block table that stand for data. Raises UnsafeImage for more than a disk of
    terabytes has: each costs memory."""
    used = list(itertools.islice(entries, BLOCKS_LIMIT + 1))
    if len(used) > BLOCKS_LIMIT:
        raise UnsafeImage(f"its block table has more than {BLOCKS_LIMIT} blocks of data")
    return used


def be32(data: bytes, offset: int) -> int:
    return int(struct.unpack_from(">I", data, offset)[0])


def be64(data: bytes, offset: int) -> int:
    return int(struct.unpack_from(">Q", data, offset)[0])


def le16(data: bytes, offset: int) -> int:
    return int(struct.unpack_from("<H", data, offset)[0])


def le32(data: bytes, offset: int) -> int:
    return int(struct.unpack_from("<I", data, offset)[0])


def le64(data: bytes, offset: int) -> int:
    return int(struct.unpack_from("<Q", data, offset)[0])


def power_of_two(value: int, low: int, high: int) -> bool:
    return low <= value <= high and value & (value - 1) == 0


def quoted(data: bytes, limit: int = 100) -> str:
    """A hostile string, made fit for a message."""
    return ascii(data[:limit].decode("utf-8", "replace"))
