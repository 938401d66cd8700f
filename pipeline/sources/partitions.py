"""The partition table of a disk and the firmware generation it boots with, read without an
appliance.

MBR: 64 bytes of entries at 0x1BE, signature 55 AA at 0x1FE. GPT: UEFI specification 2.10, chapter
5.3:
header at the second sector ("EFI PART"), entry array at the LBA it names. Everything is bounded: a
hostile table costs a few reads and an answer of "unknown".
"""

import struct
import uuid
import zlib
from dataclasses import dataclass

from pipeline.ports import Source
from pipeline.ports.extents import Extent, Kind

ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649")
MBR_ESP, MBR_PROTECTIVE = 0xEF, 0xEE
MAX_ENTRIES = 256
SIGNATURE = b"EFI PART"
HEADER = 92  # bytes of a GPT header that are defined
LARGE = 4096  # bytes of a sector of a 4Kn disk


@dataclass(frozen=True, slots=True)
class Partition:
    """`start` and `length` in bytes; `kind` is a GPT type GUID or an MBR type as 0x83."""

    number: int
    start: int
    length: int
    kind: str


@dataclass(frozen=True, slots=True)
class PartitionTable:
    """`scheme` is gpt, mbr or none; `generation` V1 (BIOS), V2 (UEFI) or unknown. `sector_size` is
    what the table counts in: a GPT's header lies at its second sector, of 512 or 4096 bytes.
    `needed` is the least length, in bytes, of the disk that the table was made for."""

    scheme: str
    generation: str
    partitions: tuple[Partition, ...] = ()
    sector_size: int = 512
    needed: int = 0


def read_partitions(source: Source, sector: int = 512) -> PartitionTable:
    """Raises OSError or GalleriaError only if the source itself can't be read."""
    if source.virtual_size < 2 * sector:
        return PartitionTable("none", "unknown")
    mbr = read(source, 0, sector)
    if mbr[510:512] != b"\x55\xaa":
        return PartitionTable("none", "unknown")
    entries = [struct.unpack_from("<B3xB3xII", mbr, 446 + 16 * index) for index in range(4)]
    if any(kind == MBR_PROTECTIVE for _, kind, _, _ in entries):
        return _gpt(source, sector)
    partitions = tuple(
        Partition(index + 1, first * sector, count * sector, f"0x{kind:02x}")
        for index, (flag, kind, first, count) in enumerate(entries)
        if kind and count and flag in (0x00, 0x80)
    )
    if not partitions:
        return PartitionTable("none", "unknown")
    needed = max(partition.start + partition.length for partition in partitions)
    if any(kind == MBR_ESP for _, kind, _, _ in entries):
        return PartitionTable("mbr", "V2", partitions, needed=needed)
    # boot code is what a BIOS runs; a data disk has none
    generation = "V1" if any(mbr[:440]) else "unknown"
    return PartitionTable("mbr", generation, partitions, needed=needed)


def _gpt(source: Source, sector: int) -> PartitionTable:
    header = read(source, sector, sector)
    if not header.startswith(SIGNATURE) and sector != LARGE <= source.virtual_size - LARGE:
        sector = LARGE
        header = read(source, sector, sector)
    if not header.startswith(SIGNATURE):
        return PartitionTable("gpt", "unknown")
    needed = _gpt_length(header, sector)
    array, count, length = struct.unpack_from("<QII", header, 72)
    if not 128 <= length <= 4096 or count > MAX_ENTRIES:
        return PartitionTable("gpt", "unknown", needed=needed)
    if array * sector + count * length > source.virtual_size:
        return PartitionTable("gpt", "unknown", needed=needed)
    raw = read(source, array * sector, count * length)
    partitions = []
    for index in range(count):
        kind_bytes, _, first, last = struct.unpack_from("<16s16sQQ", raw, index * length)
        if any(kind_bytes) and first <= last:
            kind = str(uuid.UUID(bytes_le=kind_bytes))
            span = (last - first + 1) * sector
            partitions.append(Partition(index + 1, first * sector, span, kind))
    kinds = {partition.kind for partition in partitions}
    generation = "V2" if str(ESP) in kinds else "V1" if str(BIOS_BOOT) in kinds else "unknown"
    return PartitionTable("gpt", generation, tuple(partitions), sector, needed)


def _gpt_length(header: bytes, sector: int) -> int:
    """The disk's length as a header says it whose checksum is right: up to its other copy, which
    lies in the last sector, and to the last sector that partitions may use."""
    (length, checksum) = struct.unpack_from("<II", header, 12)
    if not HEADER <= length <= len(header):
        return 0
    if zlib.crc32(header[:16] + bytes(4) + header[20:length]) != checksum:
        return 0
    (other, _, last_usable) = struct.unpack_from("<QQQ", header, 32)
    return int(max(other, last_usable) + 1) * sector


def read(source: Source, start: int, length: int) -> bytes:
    """Bytes [start, start + length) of the disk; extents that are not data read as zero."""
    buf = bytearray(length)
    end = start + length
    for extent in source.extents():
        if extent.start >= end:
            break
        if extent.kind is not Kind.DATA or extent.end <= start:
            continue
        part: Extent = extent.part(max(extent.start, start), min(extent.end, end))
        _read_aligned(source, extent, part, memoryview(buf)[part.start - start : part.end - start])
    return bytes(buf)


def _read_aligned(source: Source, whole: Extent, part: Extent, into: memoryview) -> None:
    """Sources are read in whole sectors: widen, then copy what was asked for."""
    first = max(whole.start, part.start - part.start % 512)
    last = min(whole.end, -(-part.end // 512) * 512)
    wide = bytearray(last - first)
    source.read_into(memoryview(wide), whole.part(first, last))
    into[:] = wide[part.start - first : part.end - first]
