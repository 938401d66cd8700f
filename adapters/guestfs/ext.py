"""ext2/3/4 as generalizing must leave it: the same bytes each time, and nothing in free inodes.

A mount writes times and counters into the superblock, the journal's sequence number moves, changed
inodes carry the time of the run, and new ones a random generation. All of it is put to what follows
from the source alone. Layout: kernel.org, Documentation/filesystems/ext4, "Super Block", "Inode
Table", "Journal (jbd2)", "Checksums".
"""

import re
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from pipeline.data.extents import SECTOR
from pipeline.ports.extents import Range

Read = Callable[[int, int], bytes]  # offset in the file system, length
Write = Callable[[int, bytes], None]

SUPERBLOCK, LENGTH = 1024, 1024
HAS_JOURNAL = 0x4  # of compat
METADATA_CSUM, CSUM_SEED = 0x400, 0x2000  # of ro_compat, of incompat
# (offset, length) in the superblock: mtime, wtime, mount count, last check, the path where it was
# last mounted, kilobytes written, and the high bytes of times
VOLATILE = ((0x2C, 4), (0x30, 4), (0x34, 2), (0x40, 4), (0x88, 64), (0x178, 8), (0x274, 4))
JOURNAL_MAGIC = 0xC03B3998
JOURNAL_CSUM = 0x18  # of its incompat: checksums of version 2 or 3
# More than any session commits: an old record, whose number would fit, must never be replayed
SEQUENCE_STEP = 1 << 20
EXTENTS_MAGIC = 0xF30A
EXTENTS_FLAG, DIRECTORY, FORMAT = 0x80000, 0x4000, 0xF000
PAIR = re.compile(r"(\d+)(?:-(\d+))?")

_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ (0x82F63B78 if _byte & 1 else 0)
    _TABLE.append(_byte)


def crc32c(seed: int, data: bytes | bytearray) -> int:
    """As the kernel has it: no inversion at either end."""
    for byte in data:
        seed = _TABLE[(seed ^ byte) & 0xFF] ^ seed >> 8
    return seed


@dataclass(frozen=True, slots=True)
class Before:
    """What a file system said before the session touched it; `journal` is the block of its
    journal's superblock in bytes from the start, None where it has not recognized."""

    superblock: bytes
    journal: int | None = None
    sequence: int = 0

    @property
    def time(self) -> int:
        """Seconds since 1970 of its last write: what changed inodes are dated with."""
        (low,) = struct.unpack_from("<I", self.superblock, 0x30)
        return int(low)

    @property
    def has_journal(self) -> bool:
        return bool(_u32(self.superblock, 0x5C) & HAS_JOURNAL)

    @property
    def block(self) -> int:
        (power,) = struct.unpack_from("<I", self.superblock, 0x18)
        return 1024 << int(power)


def remember(read: Read) -> Before:
    """To be asked before the first mount: even a read-only one replays the journal."""
    superblock = read(SUPERBLOCK, LENGTH)
    before = Before(superblock)
    # the copy of the journal's inode, where the superblock says that it is one
    if superblock[0xFD] != 1 or not any(superblock[0x10C:0x14C]):
        return before
    first = _first_block(superblock[0x10C : 0x10C + 60], read, before.block)
    if first is None:
        return before
    journal = read(first * before.block, LENGTH)
    magic, _, _ = struct.unpack_from(">III", journal)
    if magic != JOURNAL_MAGIC:
        return before
    (sequence,) = struct.unpack_from(">I", journal, 0x18)
    return Before(superblock, first * before.block, sequence)


def _first_block(map_: bytes, read: Read, block: int) -> int | None:
    """The block with the start of a file, by the 60 bytes of an inode that map it."""
    node = map_
    for _ in range(6):  # no tree is deeper
        magic, count, _, depth = struct.unpack_from("<HHHH", node)
        if magic != EXTENTS_MAGIC:
            (first,) = struct.unpack_from("<I", map_)
            return int(first) or None
        if not count:
            return None
        if depth == 0:
            high, low = struct.unpack_from("<HI", node, 12 + 6)
            return int(high) << 32 | int(low)
        low, high = struct.unpack_from("<IH", node, 12 + 4)
        node = read((int(high) << 32 | int(low)) * block, block)
    return None


def superblock(before: bytes, after: bytes) -> bytes:
    """`after` with the fields that every mount changes as they were before."""
    made = bytearray(after)
    for start, length in VOLATILE:
        made[start : start + length] = before[start : start + length]
    if _u32(after, 0x64) & METADATA_CSUM:
        struct.pack_into("<I", made, 0x3FC, crc32c(0xFFFFFFFF, made[:0x3FC]))
    return bytes(made)


def journal(sequence: int, after: bytes) -> bytes:
    """The journal's superblock after a clean unmount, with a sequence number that follows from
    the one before (`sequence`)."""
    made = bytearray(after)
    struct.pack_into(">I", made, 0x18, (sequence + SEQUENCE_STEP) & 0xFFFFFFFF)
    struct.pack_into(">I", made, 0x58, 0)  # s_head, where the next commit would go on
    (features,) = struct.unpack_from(">I", made, 0x28)
    if features & JOURNAL_CSUM:
        struct.pack_into(">I", made, 0xFC, 0)
        struct.pack_into(">I", made, 0xFC, crc32c(0xFFFFFFFF, made))
    return bytes(made)


@dataclass(frozen=True, slots=True)
class Tables:
    """Where the inodes of a file system lie, and which are free, as dumpe2fs(8) says."""

    block: int
    inode: int  # bytes of one
    per_group: int
    groups: tuple[int, ...]  # first block of each group's inode table
    free: tuple[tuple[int, int], ...]  # runs of inode numbers, both ends included
    reserved: int  # below it, inodes have their own rules

    def where(self, number: int) -> int:
        group, index = divmod(number - 1, self.per_group)
        return self.groups[group] * self.block + index * self.inode


def tables(dumpe2fs: str) -> Tables:
    fields = dict(re.findall(r"^([A-Z][\w ]*):[ \t]+(.*)$", dumpe2fs, re.MULTILINE))
    free = []
    for line in re.findall(r"^  Free inodes: (.*)$", dumpe2fs, re.MULTILINE):
        free += [(int(first), int(last or first)) for first, last in PAIR.findall(line)]
    starts = re.findall(r"^  Inode table at (\d+)-", dumpe2fs, re.MULTILINE)
    return Tables(
        int(fields["Block size"]),
        int(fields.get("Inode size", "128")),
        int(fields["Inodes per group"]),
        tuple(map(int, starts)),
        tuple(free),
        int(fields.get("First inode", "11")),
    )


def free_inodes(found: Tables) -> Iterator[Range]:
    """Their slots: a small file may lie in one whole (inline_data), its times in any."""
    for first, last in found.free:
        while first <= last:  # a run may go on in the next group
            end = min(last, ((first - 1) // found.per_group + 1) * found.per_group)
            yield Range(found.where(first), (end - first + 1) * found.inode)
            first = end + 1


def partial(slots: Iterable[Range]) -> list[Range]:
    """Those ends of free runs that share a sector with an inode in use: only whole sectors can be
    called free."""
    ends = []
    for slot in slots:
        head = min(-slot.start % SECTOR, slot.length)
        tail = slot.end % SECTOR if slot.length > head else 0
        ends += [Range(slot.start, head)] if head else []
        ends += [Range(slot.end - tail, tail)] if tail else []
    return ends


def clear(ends: Iterable[Range], read: Read, write: Write) -> None:
    """Zero what is left in the ends of free runs."""
    for end in ends:
        if any(read(end.start, end.length)):
            write(end.start, bytes(end.length))


def date_inodes(
    before: Before,
    found: Tables,
    touched: Collection[int],
    created: Collection[int],
    read: Read,
    write: Write,
) -> None:
    """Give inodes that the session changed the time of the source's last write, and those that it
    made a generation that is not random (with the checksums that depend on it)."""
    seed = checksum_seed(before.superblock)
    free = set()
    for first, last in found.free:
        free |= {number for number in touched if first <= number <= last}
    for number in sorted(set(touched) - free):
        at = found.where(number)
        raw = read(at, found.inode)
        new = number in created
        made = dated(raw, before.time, new=new)
        if seed is not None:
            made = with_checksum(made, number, seed)
        if made != raw:
            write(at, made)
        if new and seed is not None and _u16(made, 0) & FORMAT == DIRECTORY:
            _sign_directory(made, number, seed, found.block, read, write)


def dated(inode: bytes, time: int, *, new: bool) -> bytes:
    """An inode with ctime and mtime set; of a new one also atime, crtime and generation 0."""
    made = bytearray(inode)
    extra = _u16(inode, 0x80) if len(inode) > 128 else 0
    # (seconds, nanoseconds and epoch bits); the latter only where the inode has room for them
    fields = [(0x0C, 0x84), (0x10, 0x88)]  # ctime, mtime
    if new:
        fields += [(0x08, 0x8C), (0x90, 0x94)]  # atime, crtime
        struct.pack_into("<I", made, 0x64, 0)
    for seconds, fraction in fields:
        if seconds < 128 or seconds + 4 <= 128 + extra:
            struct.pack_into("<I", made, seconds, time)
        if fraction + 4 <= 128 + extra:
            struct.pack_into("<I", made, fraction, 0)
    return bytes(made)


def with_checksum(inode: bytes, number: int, seed: int) -> bytes:
    made = bytearray(inode)
    extra = _u16(inode, 0x80) if len(inode) > 128 else 0
    struct.pack_into("<H", made, 0x7C, 0)
    if extra >= 4:
        struct.pack_into("<H", made, 0x82, 0)
    checksum = crc32c(_inode_seed(made, number, seed), made)
    struct.pack_into("<H", made, 0x7C, checksum & 0xFFFF)
    if extra >= 4:
        struct.pack_into("<H", made, 0x82, checksum >> 16)
    return bytes(made)


def _sign_directory(
    inode: bytes, number: int, seed: int, block: int, read: Read, write: Write
) -> None:
    """A directory's blocks are signed with the generation of its inode. A new one has one block."""
    if not _u32(inode, 0x20) & EXTENTS_FLAG or _u32(inode, 0x04) != block:
        return
    first = _first_block(inode[0x28 : 0x28 + 60], read, block)
    if first is None:
        return
    content = read(first * block, block)
    # a dirent that is none (ext4_dir_entry_tail): inode 0, length 12, type 0xDE
    if content[-12:-4] != b"\0\0\0\0\x0c\0\0\xde":
        return
    write(first * block, signed(content, inode, number, seed))


def signed(content: bytes, inode: bytes, number: int, seed: int) -> bytes:
    """A block of a directory with its checksum."""
    made = bytearray(content)
    checksum = crc32c(_inode_seed(inode, number, seed), made[:-12])
    struct.pack_into("<I", made, len(made) - 4, checksum)
    return bytes(made)


def _inode_seed(inode: bytes | bytearray, number: int, seed: int) -> int:
    return crc32c(crc32c(seed, struct.pack("<I", number)), bytes(inode[0x64:0x68]))


def checksum_seed(superblock: bytes) -> int | None:
    """What the file system's checksums begin with; None when it has none."""
    if not _u32(superblock, 0x64) & METADATA_CSUM:
        return None
    if _u32(superblock, 0x60) & CSUM_SEED:
        return _u32(superblock, 0x270)
    return crc32c(0xFFFFFFFF, superblock[0x68:0x78])


def _u16(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<H", data, at)[0])


def _u32(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])
