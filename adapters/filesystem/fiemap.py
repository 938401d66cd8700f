"""Where the blocks of files are, by FIEMAP: what they have in common, what they occupy together.

Numbers are from linux/fiemap.h and linux/fs.h (x86 and arm64 have the same).
"""

import fcntl
import os
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from adapters.filesystem import calls

_FS_IOC_FIEMAP = 0xC020660B
_FS_IOC_FSGETXATTR = 0x801C581F
_FS_XFLAG_REALTIME = 1
_FLAG_SYNC = 1
_LAST = 1
# unknown location, not allocated yet, or inline in metadata: no blocks of its own can be named
_UNPLACED = 0x2 | 0x4 | 0x200
# the only ones that go with plain blocks: last, merged, shared. Compressed, encrypted, unaligned or
# unwritten ones have another content than their blocks.
_PLAIN = _LAST | 0x1000 | 0x2000
_BATCH = 1024
_HEAD = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQQQIIII")

# A file in more pieces is not compared with another: they take 24 bytes each.
MAX_PIECES = 1 << 19
_NOWHERE = (1 << 64) - 1
# On others a block number may be that of one of several devices.
ONE_DEVICE = {"xfs", "btrfs"}


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a file that lie together. `plain` when its blocks hold them as they are read."""

    start: int
    length: int
    physical: int
    flags: int

    @property
    def plain(self) -> bool:
        return not self.flags & ~_PLAIN


def pieces(fd: int) -> Iterator[Piece]:
    """Of a file, in order, after all of it is on the disk. Raises OSError, EOPNOTSUPP where there
    is no FIEMAP."""
    position = 0
    while True:
        head = _HEAD.pack(position, (1 << 64) - 1 - position, _FLAG_SYNC, 0, _BATCH, 0)
        answer = bytearray(head + bytes(_BATCH * _EXTENT.size))
        fcntl.ioctl(fd, _FS_IOC_FIEMAP, answer)
        found = _HEAD.unpack_from(answer)[3]
        body = memoryview(answer)[_HEAD.size : _HEAD.size + found * _EXTENT.size]
        for start, physical, length, _, _, flags, *_ in _EXTENT.iter_unpack(body):
            yield Piece(start, length, physical, flags)
            position = start + length
            if flags & _LAST:
                return
        if not found:
            return


# --- what files have in common -------------------------------------------------------------------


Run = tuple[int, int, int]  # offset into a range, length, physical offset


def block_map(path: Path, fd: int) -> "BlockMap | None":
    """Where the blocks of an open file on the file system of `path` are, now. None where that can't
    be known, or one number may be that of two blocks."""
    try:
        if calls.kind(path) not in ONE_DEVICE or _realtime(fd):
            return None
        return BlockMap(fd)
    except OSError as error:
        if error.errno in calls.CANNOT:
            return None
        raise
    except _TooManyPieces:
        return None


def _realtime(fd: int) -> bool:
    """Whether a file's blocks are on the second device that an XFS may have."""
    flags = struct.unpack_from("=I", fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, bytes(28)))[0]
    return bool(flags & _FS_XFLAG_REALTIME)


class _TooManyPieces(Exception):
    pass


class BlockMap:
    """The pieces of a file, to be looked up."""

    def __init__(self, fd: int) -> None:
        self._starts, self._lengths, self._physical = array("Q"), array("Q"), array("Q")
        for piece in pieces(fd):
            if len(self._starts) == MAX_PIECES:
                raise _TooManyPieces
            self._starts.append(piece.start)
            self._lengths.append(piece.length)
            self._physical.append(piece.physical if piece.plain else _NOWHERE)

    def runs(self, start: int, length: int) -> list[Run] | None:
        """Where the blocks of a range are, in runs that are as long as they can be, without what is
        a hole; None if there is anything else in it than holes and plain blocks."""
        found: list[Run] = []
        end = start + length
        for index in range(max(0, bisect_right(self._starts, start) - 1), len(self._starts)):
            begin = self._starts[index]
            if begin >= end:
                break
            first, last = max(begin, start), min(begin + self._lengths[index], end)
            if first >= last:
                continue
            if self._physical[index] == _NOWHERE:
                return None
            size, physical = last - first, self._physical[index] + first - begin
            if found and _goes_on(found[-1], first - start, physical):
                offset, before, at = found.pop()
                found.append((offset, before + size, at))
            else:
                found.append((first - start, size, physical))
        return found


def _goes_on(run: Run, offset: int, physical: int) -> bool:
    start, length, at = run
    return (start + length, at + length) == (offset, physical)


# --- space ---------------------------------------------------------------------------------------


def allocated_bytes(paths: Iterable[Path]) -> int:
    """What files of one file system occupy together, shared blocks counted once.

    Where FIEMAP is missing each file counts by its blocks. Compressed extents count uncompressed;
    a file that is removed meanwhile counts nothing.
    """
    blocks: list[tuple[int, int]] = []
    unplaced = 0
    for path in paths:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            placed, rest = _blocks(fd)
        finally:
            os.close(fd)
        blocks += placed
        unplaced += rest
    return unplaced + _covered(blocks)


def _blocks(fd: int) -> tuple[list[tuple[int, int]], int]:
    """The physical extents of a file, and the bytes of it that have no place of their own."""
    try:
        found = list(pieces(fd))
    except OSError as error:
        if error.errno not in calls.CANNOT:
            raise
        return [], os.fstat(fd).st_blocks * 512
    placed = [(piece.physical, piece.length) for piece in found if not piece.flags & _UNPLACED]
    return placed, sum(piece.length for piece in found if piece.flags & _UNPLACED)


def _covered(blocks: list[tuple[int, int]]) -> int:
    total = end = 0
    for start, length in sorted(blocks):
        stop = start + length
        if stop > end:
            total += stop - max(start, end)
            end = stop
    return total
