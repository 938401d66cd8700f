"""What a disk holds, looked at before it is taken: a disk that was cut, and what is no disk at all.

Only a contradiction counts. A disk that is longer than its partition table or its file system says
has grown, and is good; one that is shorter has lost its end. Whatever file format carries it, what
is read here is what the guest would see.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.ports import Source
from pipeline.sources.partitions import PartitionTable, read, read_partitions

HEAD = 4096
VOLUME_DESCRIPTOR, DESCRIPTOR_LENGTH = 32768, 2048  # ISO 9660 (ECMA-119), 8.4: sector 16
BTRFS_SUPERBLOCK = 65536


@dataclass(frozen=True, slots=True)
class Contents:
    """What was found. `optical` describes an image of a CD or DVD, `cut` says what of the disk is
    missing; both are empty on a good disk. `known` is whether its length has a witness: a partition
    table or a file system that fits."""

    optical: str = ""
    cut: str = ""
    known: bool = False


def read_contents(source: Source) -> Contents:
    """Raises OSError or GalleriaError only if the source itself can't be read."""
    size = source.virtual_size
    table = read_partitions(source)
    # a file system's boot sector ends as a partition table does, and its code may look like one
    if table.scheme == "none" or _is_boot_sector(read(source, 0, min(512, size))):
        name, needed = _file_system(source)
    else:
        name, needed = f"partition table ({table.scheme.upper()})", table.needed
    optical = _optical(source, table)
    if optical:
        return Contents(optical)
    if needed > size:
        return Contents(
            cut=f"its {name} is of a disk of {needed} bytes or more, and it has {size}: its end is "
            "missing"
        )
    return Contents(known=needed > 0)


def _optical(source: Source, table: PartitionTable) -> str:
    """The label of an ISO 9660 volume. A disk that once held one, and was partitioned since, is a
    disk: one of its partitions goes beyond the volume."""
    if source.virtual_size < VOLUME_DESCRIPTOR + DESCRIPTOR_LENGTH:
        return ""
    descriptor = read(source, VOLUME_DESCRIPTOR, DESCRIPTOR_LENGTH)
    if not descriptor.startswith(b"\x01CD001\x01"):
        return ""
    blocks, length = struct.unpack_from("<I", descriptor, 80)[0], descriptor[128:130]
    end = max(blocks * int.from_bytes(length, "little"), VOLUME_DESCRIPTOR + DESCRIPTOR_LENGTH)
    # a hybrid ISO has a table, too: its partitions are parts of the volume, but for small ones
    # that its writer appends
    if any(part.length > end and part.start + part.length > 2 * end for part in table.partitions):
        return ""
    label = "".join(chr(byte) for byte in descriptor[40:72] if 0x20 <= byte < 0x7F).strip()
    return f"an ISO 9660 image (the content of a CD or DVD), labelled {label!r}"


def _file_system(source: Source) -> tuple[str, int]:
    """The file system that fills a disk without a partition table, and how long it is."""
    head = read(source, 0, min(HEAD, source.virtual_size))
    for name, length in _lengths(head):
        if length:
            return name, length
    if source.virtual_size >= BTRFS_SUPERBLOCK + HEAD:
        block = read(source, BTRFS_SUPERBLOCK, HEAD)
        if block[64:72] == b"_BHRfS_M":
            # of this device: the file system may have several (btrfs_super_block.dev_item)
            return "file system (btrfs)", struct.unpack_from("<Q", block, 0xC9 + 8)[0]
    return "", 0


def _is_boot_sector(sector: bytes) -> bool:
    fat = sector[54:62].startswith(b"FAT") or sector[82:90] == b"FAT32   "
    return fat or sector[3:11] in (b"NTFS    ", b"EXFAT   ")


def _lengths(head: bytes) -> Iterator[tuple[str, int]]:
    for name, parse in FILE_SYSTEMS.items():
        try:
            length = parse(head)
        except (struct.error, IndexError):  # a disk of a sector or two
            continue
        # what is absurd was not written by a file system
        if 0 < length < 1 << 56:
            yield f"file system ({name})", length


def _ext(head: bytes) -> int:
    """ext2, ext3 and ext4: Documentation/filesystems/ext4/globals.rst (s_blocks_count, 64bit)."""
    if head[1080:1082] != b"\x53\xef":
        return 0
    low, shift = struct.unpack_from("<I", head, 1028)[0], struct.unpack_from("<I", head, 1048)[0]
    features = struct.unpack_from("<I", head, 1120)[0]
    high = struct.unpack_from("<I", head, 1360)[0] if features & 0x80 else 0
    return int(low | high << 32) << (10 + shift) if shift <= 6 else 0


def _xfs(head: bytes) -> int:
    """xfs_dsb: block size and number of data blocks, big endian."""
    if not head.startswith(b"XFSB"):
        return 0
    size, blocks = struct.unpack_from(">IQ", head, 4)
    return int(size * blocks)


def _ntfs(head: bytes) -> int:
    """Bytes of a sector and their number; the last sector, a copy of the first, is not counted."""
    if head[3:11] != b"NTFS    ":
        return 0
    size, count = struct.unpack_from("<H", head, 11)[0], struct.unpack_from("<Q", head, 40)[0]
    return int(size * count)


def _fat(head: bytes) -> int:
    """FAT12, FAT16 and FAT32: the sectors in 16 bits, or else in 32."""
    if not head[54:62].startswith(b"FAT") and head[82:90] != b"FAT32   ":
        return 0
    size, few = struct.unpack_from("<H", head, 11)[0], struct.unpack_from("<H", head, 19)[0]
    return int(size * (few or struct.unpack_from("<I", head, 32)[0]))


def _exfat(head: bytes) -> int:
    if head[3:11] != b"EXFAT   " or head[108] not in range(9, 13):
        return 0
    return int(struct.unpack_from("<Q", head, 72)[0]) << head[108]


def _lvm(head: bytes) -> int:
    """A physical volume: its label lies in one of the first four sectors, and says where the header
    with the device's length is (label_header and pv_header of LVM2)."""
    for start in range(0, 2048, 512):
        if head[start : start + 8] == b"LABELONE" and head[start + 24 : start + 32] == b"LVM2 001":
            place = start + struct.unpack_from("<I", head, start + 20)[0]
            return int(struct.unpack_from("<Q", head, place + 32)[0])
    return 0


FILE_SYSTEMS: dict[str, Callable[[bytes], int]] = {
    "ext": _ext,
    "XFS": _xfs,
    "NTFS": _ntfs,
    "FAT": _fat,
    "exFAT": _exfat,
    "LVM": _lvm,
}
