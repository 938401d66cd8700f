"""What the files of an XFS were given and never written (fallocate): what was deleted before still
lies there, and is read as zeros by nobody but the file system.

Layout: XFS Filesystem Disk Structures (kernel.org), "Superblock", "Inode B+trees", "On-disk Inode",
"Data Extents". Big endian.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from adapters.guestfs.blocks import Unsure
from adapters.guestfs.ext import crc32c
from pipeline.ports.extents import Range

Read = Callable[[int, int], bytes]
SUPERBLOCK, SECTOR_MAX = 512, 32768
REGULAR, DIRECTORY, FORMAT = 0x8000, 0x4000, 0xF000
EXTENTS, BTREE = 2, 3  # of an inode's fork
# of directories: where entries begin, by what a block begins with
HEADERS = {b"XDB3": 64, b"XDD3": 64, b"XD2B": 16, b"XD2D": 16}
WITH_LEAF, SIGNED = (b"XDB3", b"XD2B"), (b"XDB3", b"XDD3")
UNUSED = 0xFFFF
CHUNK = 64  # inodes of a record of the inode tree
FILE_TYPES, SPARSE = 0x1, 0x2  # of incompat
OLD_FILE_TYPES = 0x200  # of features2
DEEPEST = 9


@dataclass(frozen=True, slots=True)
class Geometry:
    block: int
    sector: int
    inode: int
    group_blocks: int
    groups: int
    group_shift: int  # of a block's number, whose low bits count within its group
    inode_shift: int  # of an inode's number, whose low bits count within its block
    checksums: bool
    incompat: int
    directory: int  # bytes of a directory's block
    types: bool  # whether entries of directories have a byte with the file's type

    @staticmethod
    def of(raw: bytes) -> "Geometry":
        (incompat,) = struct.unpack_from(">I", raw, 216)
        (version,) = struct.unpack_from(">H", raw, 100)
        block, sector, inode = (
            *struct.unpack_from(">I", raw, 4),
            *struct.unpack_from(">HH", raw, 102),
        )
        if raw[:4] != b"XFSB" or not 512 <= block <= 65536 or not 256 <= inode <= 2048:
            raise Unsure("its superblock can't be read")
        group_blocks, groups = struct.unpack_from(">II", raw, 84)
        checksums = version & 0xF == 5
        (features,) = struct.unpack_from(">I", raw, 200)
        types = bool(incompat & FILE_TYPES if checksums else features & OLD_FILE_TYPES)
        return Geometry(
            block, sector, inode, group_blocks, groups, raw[124], raw[123], checksums,
            incompat if checksums else 0, block << raw[192], types,
        )  # fmt: skip

    def where(self, group: int, block: int) -> int:
        return (group * self.group_blocks + block) * self.block


def without_names(content: bytes, *, types: bool) -> bytes:
    """A directory's block with zeros in what is unused between its entries. One that is not
    understood, as those of an index, stays as it is."""
    magic = content[:4]
    if magic not in HEADERS:
        return content
    made, at, end = bytearray(content), HEADERS[magic], len(content)
    if magic in WITH_LEAF:  # a short directory: its index lies at the end
        count, _ = struct.unpack_from(">II", content, end - 8)
        end -= 8 + 8 * count
    while at < end:
        tag, length = struct.unpack_from(">HH", content, at)
        if tag == UNUSED:
            if length < 8 or length % 8 or at + length > end:
                return content
            made[at + 4 : at + length - 2] = bytes(length - 6)
        else:
            name = content[at + 8]
            length = -(-(8 + 1 + name + types + 2) // 8) * 8
        at += length
    if at != end:
        return content
    if magic in SIGNED:
        made[4:8] = bytes(4)
        struct.pack_into("<I", made, 4, crc32c(0xFFFFFFFF, made) ^ 0xFFFFFFFF)
    return bytes(made)


class Volume:
    def __init__(self, read: Read) -> None:
        self._read = read
        self._geometry = Geometry.of(read(0, SUPERBLOCK))
        self._seen: set[int] = set()  # blocks of trees: each is in one

    def extents(self) -> Iterator[tuple[Range, bool, bool]]:
        """Of each regular file and directory, in bytes from the start of the file system; whether
        it was never written; and whether it is a directory's."""
        for group in range(self._geometry.groups):
            for start, used in self._chunks(group):
                yield from self._of_chunk(group, start, used)

    def names(self, extent: Range) -> Iterator[tuple[int, bytes]]:
        """The blocks of a directory's extent in which removed names lie, without them."""
        size = self._geometry.directory
        for at in range(extent.start, extent.end - size + 1, size):
            content = self._read(at, size)
            made = without_names(content, types=self._geometry.types)
            if made != content:
                yield at, made

    def _chunks(self, group: int) -> Iterator[tuple[int, int]]:
        """The first inode of each chunk, by its number in the group, and which are in use."""
        header = self._read(self._geometry.where(group, 0) + 2 * self._geometry.sector, 64)
        if header[:4] != b"XAGI":
            raise Unsure(f"the inodes of its group {group} can't be found")
        root, level = struct.unpack_from(">II", header, 20)
        for record in self._tree(group, root, level, (b"IAB3", b"IABT"), short=True):
            start, count, free = struct.unpack(">IIQ", record)
            holes = count >> 16 if self._geometry.incompat & SPARSE else 0
            there = ~free & (1 << CHUNK) - 1
            for bit in range(16):  # of the mask of holes: four inodes each
                if holes >> bit & 1:
                    there &= ~(0xF << 4 * bit)
            yield start, there

    def _of_chunk(self, group: int, start: int, used: int) -> Iterator[tuple[Range, bool, bool]]:
        geometry = self._geometry
        block, within = start >> geometry.inode_shift, start & (1 << geometry.inode_shift) - 1
        content = self._read(
            geometry.where(group, block) + within * geometry.inode, CHUNK * geometry.inode
        )
        for index in range(CHUNK):
            if used >> index & 1:
                yield from self._of_inode(content[index * geometry.inode :][: geometry.inode])

    def _of_inode(self, raw: bytes) -> Iterator[tuple[Range, bool, bool]]:
        magic, mode, version, format = struct.unpack_from(">2sHBB", raw)
        if magic != b"IN" or mode & FORMAT not in (REGULAR, DIRECTORY):
            return
        core = 176 if version == 3 else 100
        fork = raw[82] * 8 or self._geometry.inode - core
        data = raw[core : core + fork]
        if format == EXTENTS:
            (count,) = struct.unpack_from(">I", raw, 76)
            if version == 3 and struct.unpack_from(">Q", raw, 120)[0] & 0x10:
                (count,) = struct.unpack_from(">Q", raw, 24)  # large counters
            if 16 * count > len(data):
                raise Unsure("an inode has more extents than there is room for")
            records: Iterator[bytes] = (data[at : at + 16] for at in range(0, 16 * count, 16))
        elif format == BTREE:
            records = self._root(data)
        else:
            return
        for record in records:
            high, low = struct.unpack(">QQ", record)
            first = (high & 0x1FF) << 43 | low >> 21
            found = Range(self._byte(first), (low & 0x1FFFFF) * self._geometry.block)
            yield found, bool(high >> 63), mode & FORMAT == DIRECTORY

    def _byte(self, block: int) -> int:
        shift = self._geometry.group_shift
        return self._geometry.where(block >> shift, block & (1 << shift) - 1)

    def _root(self, data: bytes) -> Iterator[bytes]:
        level, count = struct.unpack_from(">HH", data)
        pointers = 4 + (len(data) - 4) // 16 * 8
        if not level or level > DEEPEST or pointers + 8 * count > len(data):
            raise Unsure("the tree of an inode's extents can't be read")
        for index in range(count):
            (child,) = struct.unpack_from(">Q", data, pointers + 8 * index)
            yield from self._below(self._byte(child), level - 1, (b"BMA3", b"BMAP"), None)

    def _tree(
        self, group: int, block: int, levels: int, magic: tuple[bytes, bytes], *, short: bool
    ) -> Iterator[bytes]:
        if not 0 < levels <= DEEPEST:
            raise Unsure("a tree of its inodes can't be read")
        yield from self._below(
            self._geometry.where(group, block), levels - 1, magic, group if short else None
        )

    def _below(
        self, at: int, level: int, magics: tuple[bytes, bytes], group: int | None
    ) -> Iterator[bytes]:
        """Records of 16 bytes below a block of a tree: with keys and pointers of 4 bytes within a
        group, of 8 elsewhere."""
        raw = self._read(at, self._geometry.block)
        magic, found, count = struct.unpack_from(">4sHH", raw)
        if magic not in magics or found != level or at in self._seen:
            raise Unsure("a block of one of its trees is damaged")
        self._seen.add(at)
        width = 8 if group is None else 4
        new = magic == magics[0]
        start = (72 if new else 24) if group is None else (56 if new else 16)
        if level == 0:
            if start + 16 * count > len(raw):
                raise Unsure("a block of one of its trees is damaged")
            yield from (raw[start + 16 * i : start + 16 * i + 16] for i in range(count))
            return
        pointers = start + (len(raw) - start) // (2 * width) * width
        if pointers + width * count > len(raw):
            raise Unsure("a block of one of its trees is damaged")
        for index in range(count):
            child = int.from_bytes(raw[pointers + width * index :][:width], "big")
            place = self._byte(child) if group is None else self._geometry.where(group, child)
            yield from self._below(place, level - 1, magics, group)
