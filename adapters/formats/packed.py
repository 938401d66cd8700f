"""Where the compressed clusters of a qcow2 and the grains of a streamOptimized VMDK lie (qemu's map
says only which parts of a disk are compressed).

Nothing is kept: each question reads its few table entries again, within the bounds of the file, so
memory does not grow with the disk.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from adapters.formats import qcow2, vmdk
from adapters.formats.window import Window, be32, be64
from pipeline.data.extents import SECTOR
from pipeline.errors import UnsafeImage
from pipeline.model.images import ImageFormat


class Codec(IntEnum):
    """How a cluster is compressed; the numbers are those of `adapters/images/inflater.py`."""

    DEFLATE = 0  # a bare RFC 1951 stream
    ZLIB = 1  # RFC 1950
    ZSTD = 2  # one RFC 8878 frame


@dataclass(frozen=True, slots=True)
class Packed:
    """A cluster at `start` of the disk: at most `length` bytes at `offset` of its file, that
    inflate to at least `size` bytes and at most to the layout's unit."""

    start: int
    size: int
    offset: int
    length: int


class PackedLayout(Protocol):
    """The tables of one image. `unit`: the bytes of a whole cluster."""

    @property
    def unit(self) -> int: ...
    @property
    def codec(self) -> Codec: ...
    def clusters(self, start: int, end: int) -> Iterator[Packed]:
        """The clusters that [start, end) lies in, in order. Raises UnsafeImage for one that is not
        compressed, or not within the file."""
        ...


def layout(window: Window, format: ImageFormat) -> PackedLayout:
    """The layout of a file that its parser has taken. Raises UnsafeImage when its format has no
    compressed clusters."""
    if format is ImageFormat.QCOW2:
        return Qcow2Clusters(window)
    if format is ImageFormat.VMDK:
        return VmdkGrains(window)
    raise UnsafeImage(f"the map of the disk gives no place for data of its {format.value} layer")


class Qcow2Clusters:
    """L1 and L2 tables; a compressed cluster's entry holds its place and length (qcow2.txt,
    "Compressed Clusters Descriptor")."""

    COMPRESSED = 1 << 62

    def __init__(self, window: Window) -> None:
        head = window.read(0, qcow2.V2_HEADER, "the qcow2 header")
        self._window = window
        self._bits = be32(head, 20)
        if not 9 <= self._bits <= 21:
            raise _changed()
        self._l1, self._l1_entries = be64(head, 40), be32(head, 36)
        extended, self.codec = self._features(window, be32(head, 4))
        self._entry = 16 if extended else 8
        self.unit = 1 << self._bits
        self._per_table = self.unit // self._entry

    @staticmethod
    def _features(window: Window, version: int) -> tuple[bool, Codec]:
        if version == 2:
            return False, Codec.DEFLATE
        head = window.read(0, qcow2.V3_HEADER + 1, "the qcow2 version 3 header")
        bits = be64(head, 72)
        packed = Codec.ZSTD if bits & qcow2.COMPRESSION else Codec.DEFLATE
        return bool(bits & qcow2.EXTENDED_L2), packed

    def clusters(self, start: int, end: int) -> Iterator[Packed]:
        position = start // self.unit * self.unit
        while position < end:
            table, first = divmod(position // self.unit, self._per_table)
            wanted = -(-(end - position) // self.unit)
            count = min(self._per_table - first, wanted)
            place = self._table(table) + first * self._entry
            entries = self._window.read(place, count * self._entry, "a cluster table (L2)")
            for at in range(0, len(entries), self._entry):
                yield self._packed(position, be64(entries, at))
                position += self.unit

    def _table(self, index: int) -> int:
        if index >= self._l1_entries:
            raise UnsafeImage("its cluster table (L1) is too short for its size")
        entry = self._window.read(self._l1 + 8 * index, 8, "the cluster table (L1)")
        place = be64(entry, 0) & qcow2.OFFSET_MASK
        if not place:
            raise _elsewhere(index * self._per_table * self.unit)
        return place

    def _packed(self, position: int, entry: int) -> Packed:
        if not entry & self.COMPRESSED:
            raise _elsewhere(position)
        shift = 62 - (self._bits - 8)
        offset = entry & ((1 << shift) - 1)
        sectors = (entry & (self.COMPRESSED - 1)) >> shift
        # whole sectors, of which the first may be shared, and the last cut by the file's end
        length = (sectors + 1) * SECTOR - offset % SECTOR
        length = min(length, self._window.size - offset)
        if length <= 0:
            raise _outside(position)
        return Packed(position, self.unit, offset, length)


class VmdkGrains:
    """Grain directory and tables; a compressed grain begins with a marker that tells its place on
    the disk and its length (Virtual Disk Format 5.0, 6.1)."""

    MARKER = struct.Struct("<QI")
    codec = Codec.ZLIB

    def __init__(self, window: Window) -> None:
        header = vmdk.read_header(window)
        self._window = window
        self._size = header.capacity * SECTOR
        self._directory = header.directory * SECTOR
        self._entries = header.entries
        self.unit = header.grain * SECTOR
        if not vmdk.sane(header):
            raise _changed()

    def clusters(self, start: int, end: int) -> Iterator[Packed]:
        position = start // self.unit * self.unit
        while position < end:
            table, first = divmod(position // self.unit, self._entries)
            count = min(self._entries - first, -(-(end - position) // self.unit))
            place = self._table(table, position) + 4 * first
            entries = self._window.read(place, 4 * count, "a grain table")
            for (sector,) in struct.iter_unpack("<I", entries):
                yield self._packed(position, sector * SECTOR)
                position += self.unit

    def _table(self, index: int, position: int) -> int:
        entry = self._window.read(self._directory + 4 * index, 4, "the grain directory")
        place = int.from_bytes(entry, "little") * SECTOR
        if not place:
            raise _elsewhere(position)
        return place

    def _packed(self, position: int, place: int) -> Packed:
        if place <= SECTOR or position >= self._size:  # 0 is not allocated, 1 a grain of zeros
            raise _elsewhere(position)
        marker = self._window.read(place, self.MARKER.size, "a compressed grain")
        sector, length = self.MARKER.unpack(marker)
        if sector * SECTOR != position:
            raise UnsafeImage(
                f"the grain of byte {position} is marked as that of another byte: it is damaged"
            )
        offset = place + self.MARKER.size
        # as qemu has it: deflate makes nothing twice as long
        if not 0 < length <= 2 * self.unit or not self._window.holds(offset, length):
            raise _outside(position)
        return Packed(position, min(self.unit, self._size - position), offset, length)


def _changed() -> UnsafeImage:
    return UnsafeImage("its header changed since it was inspected")


def _elsewhere(position: int) -> UnsafeImage:
    return UnsafeImage(
        f"the map of the disk and its tables disagree on the data at byte {position}"
    )


def _outside(position: int) -> UnsafeImage:
    return UnsafeImage(
        f"the compressed data of byte {position} lies outside of the file: it is truncated or "
        "damaged"
    )
