"""What an NTFS volume says of itself, read from its own records: whether it was closed cleanly, and
which clusters are free. Nothing is mounted for it: mounting is what changes it.

Layout: Linux-NTFS project's documentation (flatcap.github.io/linux-ntfs), and for $LogFile
logfile.h of ntfs-3g. Only what is bounded is read; a record that does not make sense is Unsure.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from adapters.guestfs.blocks import Unsure

MFT_RECORDS = {"logfile": 2, "volume": 3, "bitmap": 6}
VOLUME_INFORMATION, DATA, END = 0x70, 0x80, 0xFFFFFFFF
DIRTY = 0x0001
CLEAN = 0x0002  # of a restart area: the volume was unmounted after everything was written
NO_CLIENT = 0xFFFF
UPDATE_SEQUENCE = 512  # bytes protected by one entry, whatever the sectors are
PAGE = 4096
LARGEST_VOLUME = 1 << 58  # bytes: 2 to the 32 clusters of the largest size, and more
LARGEST_BITMAP = 1 << 30  # bytes: 32 TiB in clusters of 4 KiB

Read = Callable[[int, int], bytes]  # offset in the volume, length


@dataclass(frozen=True, slots=True)
class Attribute:
    """A data attribute: bytes in the record itself, or runs of (offset in the volume or None for
    a hole, length), of which `length` bytes count."""

    content: bytes
    runs: tuple[tuple[int | None, int], ...]
    length: int


class Volume:
    """An NTFS volume behind a function that reads it. Raises Unsure for what is none."""

    def __init__(self, read: Read) -> None:
        self._read = read
        boot = read(0, 512)
        if len(boot) < 512 or boot[3:11] != b"NTFS    ":
            raise Unsure("its boot sector is none of NTFS")
        sector, per_cluster = struct.unpack_from("<HB", boot, 11)
        # a power of two above 128 sectors is written as a negative exponent
        count = per_cluster if per_cluster <= 128 else 1 << (256 - per_cluster)
        self.cluster = sector * count
        (record,) = struct.unpack_from("<b", boot, 0x40)
        self.record = record * self.cluster if record > 0 else 1 << -record
        sectors, mft = struct.unpack_from("<QQ", boot, 0x28)
        if sector not in (512, 1024, 2048, 4096) or self.record not in (1024, 4096):
            raise Unsure("its boot sector is none of NTFS")
        if not 512 <= self.cluster <= 2 << 20 or self.cluster & (self.cluster - 1):
            raise Unsure(f"its clusters have {self.cluster} bytes")
        self.length = sectors * sector
        self._mft = mft * self.cluster

    def is_dirty(self) -> bool:
        """Whether Windows wants to check it (chkdsk) at its next start."""
        content = self._attribute("volume", VOLUME_INFORMATION).content
        if len(content) < 12:
            raise Unsure("its $Volume is damaged")
        return bool(struct.unpack_from("<H", content, 10)[0] & DIRTY)

    def has_journal(self) -> bool:
        """Whether $LogFile holds changes that Windows has not made in the volume yet. One that is
        all ones is empty; else its newer restart page says."""
        found = self._attribute("logfile", DATA)
        pages = [self._part(found, start, PAGE) for start in (0, PAGE)]
        if all(page == b"\xff" * PAGE for page in pages):
            return False
        areas = [area for area in map(_restart_area, pages) if area is not None]
        if not areas:
            return True  # neither empty nor closed: nothing that could be called clean
        _, flags, client = max(areas)
        return client != NO_CLIENT and not flags & CLEAN

    def bitmap(self) -> bytes:
        """The contents of $Bitmap: bit n, lowest first, is set when cluster n is in use."""
        found = self._attribute("bitmap", DATA)
        if found.length > LARGEST_BITMAP:
            raise Unsure(f"its $Bitmap has {found.length} bytes")
        return self._part(found, 0, found.length)

    def _part(self, attribute: Attribute, start: int, length: int) -> bytes:
        """Bytes [start, start + length) of an attribute."""
        if not attribute.runs:
            return attribute.content[start : start + length]
        parts, at = [], 0
        for offset, size in attribute.runs:
            first, last = max(start, at), min(start + length, at + size)
            if first < last:
                size_here = last - first
                parts.append(
                    bytes(size_here)
                    if offset is None
                    else self._whole(offset + first - at, size_here)
                )
            at += size
        return b"".join(parts)

    def _whole(self, offset: int, length: int) -> bytes:
        if offset + length > min(self.length, LARGEST_VOLUME):
            raise Unsure("one of its records lies outside of it")
        content = self._read(offset, length)
        if len(content) != length:
            raise Unsure("it is longer than its device")
        return content

    def _attribute(self, name: str, kind: int) -> Attribute:
        """The unnamed attribute of a kind in one of the first records."""
        record = self._fixed(self._whole(self._mft + MFT_RECORDS[name] * self.record, self.record))
        for at, found in _attributes(record):
            if found == kind and record[at + 9] == 0:
                return _decode(record, at, self.cluster)
        raise Unsure(f"its ${name} has no attribute 0x{kind:x} in its first record")

    def _fixed(self, raw: bytes) -> bytes:
        """A record with the last two bytes of each 512 put back from its update sequence."""
        if raw[:4] != b"FILE":
            raise Unsure("a record of its MFT is damaged")
        return _put_back(raw)


def _put_back(raw: bytes) -> bytes:
    start, count = struct.unpack_from("<HH", raw, 4)
    if count != len(raw) // UPDATE_SEQUENCE + 1 or start + 2 * count > UPDATE_SEQUENCE - 2:
        raise Unsure("the update sequence of one of its records is damaged")
    fixed = bytearray(raw)
    for index in range(1, count):
        end = index * UPDATE_SEQUENCE
        if raw[end - 2 : end] != raw[start : start + 2]:
            raise Unsure("one of its records was not written to its end")
        fixed[end - 2 : end] = raw[start + 2 * index : start + 2 * index + 2]
    return bytes(fixed)


def _attributes(record: bytes) -> Iterator[tuple[int, int]]:
    (at,) = struct.unpack_from("<H", record, 0x14)
    while at + 24 <= len(record):
        kind, length = struct.unpack_from("<II", record, at)
        if kind == END:
            return
        if length < 24 or at + length > len(record):
            raise Unsure("an attribute of one of its records is damaged")
        yield at, kind
        at += length


def _decode(record: bytes, at: int, cluster: int) -> Attribute:
    (length,) = struct.unpack_from("<I", record, at + 4)
    if record[at + 8] == 0:  # resident
        size, offset = struct.unpack_from("<IH", record, at + 16)
        if offset + size > length:
            raise Unsure("an attribute of one of its records is damaged")
        return Attribute(record[at + offset : at + offset + size], (), size)
    if length < 64:
        raise Unsure("an attribute of one of its records is damaged")
    (offset,) = struct.unpack_from("<H", record, at + 32)
    (size,) = struct.unpack_from("<Q", record, at + 48)
    runs = tuple(_runs(record[at + offset : at + length], cluster))
    if sum(count for _, count in runs) < size:
        raise Unsure("the runs of one of its records are damaged, or go on in another record")
    return Attribute(b"", runs, size)


def _runs(packed: bytes, cluster: int) -> Iterator[tuple[int | None, int]]:
    """Mapping pairs: a byte with the lengths of two numbers, the number of clusters, and the
    signed distance from the run before; without a distance it is a hole."""
    at, where = 0, 0
    while at < len(packed) and packed[at]:
        of_count, of_distance = packed[at] & 15, packed[at] >> 4
        middle = at + 1 + of_count
        end = middle + of_distance
        if not of_count or end > len(packed):
            raise Unsure("the runs of one of its records are damaged")
        count = int.from_bytes(packed[at + 1 : middle], "little")
        if of_distance:
            where += int.from_bytes(packed[middle:end], "little", signed=True)
            if where < 0:
                raise Unsure("the runs of one of its records are damaged")
            yield where * cluster, count * cluster
        else:
            yield None, count * cluster
        at = end


def _restart_area(page: bytes) -> tuple[int, int, int] | None:
    """Sequence number, flags and first client in use of a restart page of $LogFile."""
    if page[:4] != b"RSTR":
        return None
    try:
        fixed = _put_back(page)
    except Unsure:
        return None  # torn: the other page counts
    (start,) = struct.unpack_from("<H", fixed, 0x18)
    if start + 16 > len(fixed):
        return None
    number, _, _, client, flags = struct.unpack_from("<QHHHH", fixed, start)
    return number, flags, client
