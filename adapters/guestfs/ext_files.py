"""The blocks that the files of an ext2/3/4 have, by their inodes: those in use, and those that were
allocated and never written (fallocate), where what was deleted before still lies.

Layout: kernel.org, Documentation/filesystems/ext4, "Inode Table", "Extent Tree", "Block map".
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from adapters.guestfs.accounts import Damaged
from adapters.guestfs.ext import EXTENTS_FLAG, EXTENTS_MAGIC, FORMAT, Read, Tables, Write, signed
from pipeline.ports.extents import Range

READ_PART = 1 << 20
INLINE_FLAG = 0x10000000
INDEXED_FLAG = 0x1000
STRANGE_NAMES = 0x40000800  # encrypted, or without regard to case: entries have more in them
LONGEST_ENTRY = 32768
TAIL = b"\0\0\0\0\x0c\0\0\xde"  # of a block with a checksum: an entry of no file
REGULAR, DIRECTORY, LINK = 0x8000, 0x4000, 0xA000
ROOT = 2
UNWRITTEN = 32768  # a longer extent is one of so many blocks less, unwritten
DEEPEST = 5


@dataclass(slots=True)
class Files:
    """In bytes from the start of the file system."""

    used: list[Range] = field(default_factory=list)
    unwritten: list[Range] = field(default_factory=list)
    directories: list["Directory"] = field(default_factory=list)
    trees: set[int] = field(default_factory=set)  # blocks that map others: each does so once


@dataclass(slots=True)
class Directory:
    """A directory that is no tree's leaf alone: `blocks` are numbers, the first one's first."""

    number: int
    inode: bytes
    blocks: list[int] = field(default_factory=list)

    @property
    def indexed(self) -> bool:
        return bool(struct.unpack_from("<I", self.inode, 0x20)[0] & INDEXED_FLAG)


def clear_names(found: Files, block: int, seed: int | None, read: Read, write: Write) -> None:
    """Zero what removed names left in directories; `seed` is that of the checksums, if any."""
    if block > LONGEST_ENTRY:  # the lengths of entries have another spelling
        return
    for directory in found.directories:
        for position, number in enumerate(directory.blocks):
            if directory.indexed and position == 0:
                continue  # the root of its index
            content = read(number * block, block)
            made = without_names(content, signed=seed is not None)
            if made == content:
                continue
            if seed is not None:
                made = signed(made, directory.inode, directory.number, seed)
            write(number * block, made)


def without_names(content: bytes, *, signed: bool) -> bytes:
    """A directory's block with zeros between its entries. One that is not understood, as those of
    an index, stays as it is."""
    end = len(content)
    if signed:
        if content[-12:-4] != TAIL:
            return content
        end -= 12
    made, at = bytearray(content), 0
    while at < end:
        inode, length, name = struct.unpack_from("<IHB", content, at)
        used = at + 8 + (name if inode else 0)
        if length < 8 or length % 4 or at + length > end or used > at + length:
            return content
        if not inode and length == len(content):
            return content  # a node of an index
        made[used : at + length] = bytes(at + length - used)
        at += length
    return bytes(made)


def files(tables: Tables, read: Read, count: int) -> Files:
    """What every inode in use has. `count` is the number of inodes."""
    found = Files()
    found.used += (
        Range(first * tables.block, tables.per_group * tables.inode) for first in tables.groups
    )
    for number, inode in _inodes(tables, read, count):
        if number >= tables.reserved or number == ROOT:
            _Mapped(number, tables.block, read, found).add(inode)
    return found


def _inodes(tables: Tables, read: Read, count: int) -> Iterator[tuple[int, bytes]]:
    """Every inode in use, with its number."""
    at = 1
    for first, last in (*tables.free, (count + 1, count + 1)):
        while at < first:
            # neighbours in one group's table are read together
            group_end = ((at - 1) // tables.per_group + 1) * tables.per_group
            end = min(first - 1, group_end, at + READ_PART // tables.inode - 1)
            content = read(tables.where(at), (end - at + 1) * tables.inode)
            for index in range(end - at + 1):
                yield at + index, content[index * tables.inode :][: tables.inode]
            at = end + 1
        at = max(at, last + 1)


@dataclass(slots=True)
class _Mapped:
    """One inode's blocks."""

    number: int
    block: int
    read: Read
    found: Files
    directory: Directory | None = None  # whose blocks are told

    def add(self, inode: bytes) -> None:
        (mode,) = struct.unpack_from("<H", inode, 0)
        kind = mode & FORMAT
        (flags,) = struct.unpack_from("<I", inode, 0x20)
        (low,) = struct.unpack_from("<I", inode, 0x68)
        (high,) = struct.unpack_from("<H", inode, 0x76)
        own = 0  # sectors, of 512 bytes, that are no content
        if attributes := high << 32 | low:
            self._use(attributes, 1)
            own = self.block // 512
        (size,) = struct.unpack_from("<I", inode, 4)
        (sectors,) = struct.unpack_from("<I", inode, 0x1C)
        if kind not in (REGULAR, DIRECTORY, LINK) or flags & INLINE_FLAG:
            return
        map_ = inode[0x28 : 0x28 + 60]
        if kind == DIRECTORY and not flags & STRANGE_NAMES:
            self.directory = Directory(self.number, inode)
            self.found.directories.append(self.directory)
        if flags & EXTENTS_FLAG:
            self._tree(map_, DEEPEST)
        elif not (kind == LINK and size < len(map_) and sectors == own):
            self._pointers(map_)

    def _use(self, first: int, count: int) -> None:
        used, start = self.found.used, first * self.block
        if used[-1].end == start:
            used[-1] = Range(used[-1].start, used[-1].length + count * self.block)
        else:
            used.append(Range(start, count * self.block))

    def _told(self, first: int, length: int) -> None:
        if self.directory is not None:
            self.directory.blocks += range(first, first + length)

    def _tree(self, node: bytes, deepest: int) -> None:
        magic, count, _, depth = struct.unpack_from("<HHHH", node)
        if magic != EXTENTS_MAGIC or depth > deepest or 12 * (count + 1) > len(node):
            raise Damaged(f"the extents of its inode {self.number} can't be read")
        for at in range(12, 12 * (count + 1), 12):
            if depth:
                low, high = struct.unpack_from("<IH", node, at + 4)
                child = high << 32 | low
                self._tree(self._node(child), depth - 1)
                continue
            length, high, low = struct.unpack_from("<HHI", node, at + 4)
            first = high << 32 | low
            unwritten = length > UNWRITTEN
            length -= UNWRITTEN * unwritten
            self._use(first, length)
            self._told(first, length)
            if unwritten:
                self.found.unwritten.append(Range(first * self.block, length * self.block))

    def _node(self, block: int) -> bytes:
        """A block that maps others."""
        if block in self.found.trees:
            raise Damaged(
                f"its inode {self.number} has a block that maps others, and so has one more"
            )
        self.found.trees.add(block)
        self._use(block, 1)
        return self.read(block * self.block, self.block)

    def _pointers(self, map_: bytes) -> None:
        direct = struct.unpack_from("<15I", map_)
        for first in direct[:12]:
            if first:
                self._use(first, 1)
                self._told(first, 1)
        for depth, first in enumerate(direct[12:], 1):
            self._indirect(first, depth)

    def _indirect(self, first: int, depth: int) -> None:
        if not first:
            return
        for (item,) in struct.iter_unpack("<I", self._node(first)):
            if item and depth > 1:
                self._indirect(item, depth - 1)
            elif item:
                self._use(item, 1)
                self._told(item, 1)
