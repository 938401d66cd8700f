"""Moving a GPT's backup header to the end of a disk that has grown.

Source: UEFI specification 2.10, section 5.3 (GUID Partition Table); little endian.
"""

import os
import struct
import zlib

from adapters.filesystem.rawfile import write_exactly
from pipeline.data.extents import SECTOR

SIGNATURE = b"EFI PART"
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
# 16 KiB is the least; more than 1 MiB of entries is no partition table
ENTRIES_LIMIT = 1 << 20
PROTECTIVE = 0xEE


def move_backup(fd: int, old_size: int, new_size: int) -> bool:
    """Put the backup of a valid GPT at the end of `new_size` bytes; False when there was none.

    The primary header gets the new place and the new last usable sector, the protective MBR the
    new length. A table that is not valid and complete is left alone.
    """
    header = _read(fd, SECTOR, SECTOR)
    fields = list(_HEADER.unpack_from(header))
    signature, length, checksum = fields[0], fields[2], fields[3]
    if signature != SIGNATURE or not _HEADER.size <= length <= SECTOR:
        return False
    if _checksum(header, length) != checksum:
        return False
    entries_sector, count, entry_size, entries_checksum = fields[10:14]
    entries_length = count * entry_size
    if fields[6] != old_size // SECTOR - 1 or not 0 < entries_length <= ENTRIES_LIMIT:
        return False
    entries = _read(fd, entries_sector * SECTOR, entries_length)
    if zlib.crc32(entries) != entries_checksum:
        return False
    entries_sectors = -(-entries_length // SECTOR)
    last = new_size // SECTOR - 1
    # the old backup first: the new one may overlap it; its entries only where no partition can be
    old_last = old_size // SECTOR - 1
    stale = 1 + (entries_sectors if fields[8] < old_last - entries_sectors else 0)
    _write(fd, old_size - stale * SECTOR, bytes(stale * SECTOR))
    _write(fd, (last - entries_sectors) * SECTOR, entries)
    last_usable = last - entries_sectors - 1
    _write_header(
        fd, header, here=last, other=1, usable=last_usable, entries=last - entries_sectors
    )
    _write_header(fd, header, here=1, other=last, usable=last_usable, entries=entries_sector)
    _protective(fd, old_size, new_size)
    return True


def _write_header(
    fd: int, template: bytes, *, here: int, other: int, usable: int, entries: int
) -> None:
    length = struct.unpack_from("<I", template, 12)[0]
    header = bytearray(template)
    struct.pack_into("<QQ", header, 24, here, other)
    struct.pack_into("<Q", header, 48, usable)
    struct.pack_into("<Q", header, 72, entries)
    struct.pack_into("<I", header, 16, _checksum(bytes(header), length))
    _write(fd, here * SECTOR, bytes(header))


def _checksum(header: bytes, length: int) -> int:
    return zlib.crc32(header[:16] + bytes(4) + header[20:length])


def _protective(fd: int, old_size: int, new_size: int) -> None:
    """The one protective partition spans the disk, or has the largest length that fits."""
    sector = bytearray(_read(fd, 0, SECTOR))
    for at in range(446, 510, 16):
        sectors = struct.unpack_from("<I", sector, at + 12)[0]
        if sector[at + 4] == PROTECTIVE and sectors == old_size // SECTOR - 1:
            struct.pack_into("<I", sector, at + 12, min(new_size // SECTOR - 1, 0xFFFFFFFF))
            _write(fd, 0, bytes(sector))


def _read(fd: int, offset: int, length: int) -> bytes:
    return os.pread(fd, length, offset).ljust(length, b"\0")


def _write(fd: int, offset: int, data: bytes) -> None:
    write_exactly(fd, memoryview(data), offset)
