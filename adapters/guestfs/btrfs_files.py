"""What the files and trees of a btrfs have, and what of it was preallocated and never written: what
was deleted before still lies there, and is read as zeros by nobody but the file system.

Layout: "On-disk Format" of btrfs.readthedocs.io (kernel: include/uapi/linux/btrfs_tree.h). Little
endian. Each block of a tree is read once, whichever snapshots share it.
"""

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from adapters.guestfs.blocks import Unsure, merge
from pipeline.ports.extents import Range

Read = Callable[[int, int], bytes]
SUPERBLOCK, SUPERBLOCK_LENGTH = 64 << 10, 4096
MAGIC = b"_BHRfS_M"
ARRAY, ARRAY_LENGTH = 811, 2048  # of system chunks, in the superblock
FSID = slice(32, 48)  # of the superblock and of each block of a tree
METADATA_UUID = 1 << 10  # of incompat: blocks have another id, at 571
UNKNOWN = 0xF << 12  # zoned, the second extent tree, RAID stripe tree and what came later
STRIPED = 0x7D8  # of a chunk's type: all profiles but single and DUP
HEADER = struct.Struct("<48xQ40xIB")  # its address, how many items, its level
KEY = struct.Struct("<QBQ")
ITEM = struct.Struct("<QBQII")  # key; where its data begins behind the header, its length
POINTER = struct.Struct("<QBQQQ")  # key; the address of a block, its generation
CHUNK = struct.Struct("<QQQQIIIHH")
STRIPE = struct.Struct("<QQ16x")
ROOT = struct.Struct("<176xQ32xI17xBB")  # address; how often it is named; its level
FILE = struct.Struct("<20xBQQQQ")  # kind; the extent's address and length; the part: offset, length
EXTENT_DATA, ROOT_ITEM, CHUNK_ITEM = 108, 132, 228
REGULAR, PREALLOCATED = 1, 2
DEEPEST = 7


@dataclass(slots=True)
class Found:
    """Ranges in bytes from the start of the file system. `used` is what files and trees have,
    `unwritten` what of it was preallocated and nothing was written to."""

    used: list[Range] = field(default_factory=list)
    unwritten: list[Range] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Chunk:
    start: int
    length: int
    places: tuple[int, ...]  # of each copy


def files(read: Read) -> Found:
    """Raises Unsure for what is not understood."""
    return _Volume(read).found()


class _Volume:
    def __init__(self, read: Read) -> None:
        self._read = read
        raw = read(SUPERBLOCK, SUPERBLOCK_LENGTH)
        if raw[64:72] != MAGIC:
            raise Unsure("its superblock can't be read")
        self._root, self._chunk_root, log = struct.unpack_from("<QQQ", raw, 80)
        (devices,) = struct.unpack_from("<Q", raw, 136)
        (self._node,) = struct.unpack_from("<I", raw, 148)
        (incompat,) = struct.unpack_from("<Q", raw, 188)
        self._root_level, self._chunk_level = raw[198], raw[199]
        self._id = raw[571:587] if incompat & METADATA_UUID else raw[FSID]
        if not 4096 <= self._node <= 65536 or devices != 1 or log or incompat & UNKNOWN:
            raise Unsure("it has several devices, a log, or features that are not known")
        (length,) = struct.unpack_from("<I", raw, 160)
        self._chunks: list[_Chunk] = []
        self._starts: list[int] = []
        self._seen: set[int] = set()
        self._learn(_in_array(raw[ARRAY : ARRAY + min(length, ARRAY_LENGTH)]))

    def found(self) -> Found:
        found = Found()
        self._learn(
            (key, data)
            for key, data in self._items(self._chunk_root, self._chunk_level)
            if key[1] == CHUNK_ITEM
        )
        written: set[tuple[int, int]] = set()
        parts: dict[int, set[tuple[int, int]]] = {}  # preallocated, by their extent
        extents: set[tuple[int, int]] = set()
        for key, data in self._all():
            if key[1] != EXTENT_DATA or len(data) < FILE.size:
                continue  # what is shorter holds its content
            kind, address, length, offset, count = FILE.unpack_from(data)
            if not address or kind not in (REGULAR, PREALLOCATED):
                continue
            extents.add((address, length))
            if kind == REGULAR:
                written.add((address, length) if offset + count > length else
                            (address + offset, count))  # fmt: skip
            else:
                parts.setdefault(address, set()).add((address + offset, count))
        found.used += (place for extent in extents for place in self._places(*extent))
        found.used += (
            place for address in self._seen for place in self._places(address, self._node)
        )
        if parts:
            kept = merge(place for part in written for place in self._places(*part))
            empty = merge(
                place for few in parts.values() for part in few for place in self._places(*part)
            )
            found.unwritten += without(empty, kept)
        return found

    def _all(self) -> Iterator[tuple[tuple[int, int, int], bytes]]:
        """The items of all trees that a root names, besides those of chunks."""
        for key, data in list(self._items(self._root, self._root_level)):
            if key[1] != ROOT_ITEM:
                continue
            if len(data) < ROOT.size:
                raise Unsure("the root of one of its trees can't be read")
            address, references, _, level = ROOT.unpack_from(data)
            if references:  # else it is being removed, and parts of it may be gone
                yield from self._items(address, level)

    def _items(self, address: int, level: int) -> Iterator[tuple[tuple[int, int, int], bytes]]:
        if level > DEEPEST:
            raise Unsure("one of its trees is too deep")
        pending = [(address, level)]
        while pending:
            address, level = pending.pop()
            if address in self._seen:
                continue
            self._seen.add(address)
            raw, count = self._block(address, level)
            if level:
                pointers = (POINTER.unpack_from(raw, 101 + 33 * index) for index in range(count))
                pending += ((pointer[3], level - 1) for pointer in pointers)
                continue
            for index in range(count):
                first, kind, last, start, length = ITEM.unpack_from(raw, 101 + 25 * index)
                if 101 + start + length > len(raw):
                    raise Unsure("a block of one of its trees is damaged")
                yield (first, kind, last), raw[101 + start : 101 + start + length]

    def _block(self, address: int, level: int) -> tuple[bytes, int]:
        place = next(self._places(address, self._node))
        raw = self._read(place.start, place.length)
        if len(raw) < place.length:
            raise Unsure("a block of one of its trees lies behind the end")
        own, count, found = HEADER.unpack_from(raw)
        most = (self._node - 101) // (33 if level else 25)
        if own != address or found != level or count > most or raw[FSID] != self._id:
            raise Unsure("a block of one of its trees is damaged")
        return raw, count

    def _learn(self, chunks: Iterable[tuple[tuple[int, int, int], bytes]]) -> None:
        known = {chunk.start: chunk for chunk in self._chunks}
        for key, data in chunks:
            length, _, _, kind, _, _, _, stripes, _ = CHUNK.unpack_from(data)
            if kind & STRIPED:
                raise Unsure("it is striped")
            places = (STRIPE.unpack_from(data, CHUNK.size + 32 * n)[1] for n in range(stripes))
            known[key[2]] = _Chunk(key[2], length, tuple(places))
        self._chunks = sorted(known.values(), key=lambda chunk: chunk.start)
        self._starts = [chunk.start for chunk in self._chunks]

    def _places(self, start: int, length: int) -> Iterator[Range]:
        """Where on its device a range of btrfs's addresses lies, each copy."""
        index = bisect_right(self._starts, start) - 1
        chunk = self._chunks[index] if index >= 0 else None
        if chunk is None or start + length > chunk.start + chunk.length or not chunk.places:
            raise Unsure("an extent lies in no chunk")
        for place in chunk.places:
            yield Range(place + start - chunk.start, length)


def _in_array(raw: bytes) -> Iterator[tuple[tuple[int, int, int], bytes]]:
    at = 0
    while at + KEY.size + CHUNK.size <= len(raw):
        key = KEY.unpack_from(raw, at)
        stripes = CHUNK.unpack_from(raw, at + KEY.size)[7]
        length = CHUNK.size + STRIPE.size * stripes
        yield key, raw[at + KEY.size : at + KEY.size + length]
        at += KEY.size + length


def without(ranges: Iterable[Range], kept: Sequence[Range]) -> Iterator[Range]:
    """The parts of ranges that are in none of `kept`, which are sorted and merged."""
    starts = [item.start for item in kept]
    for item in ranges:
        at = item.start
        for other in kept[max(0, bisect_right(starts, at) - 1) :]:
            if other.start >= item.end:
                break
            if other.start > at:
                yield Range(at, other.start - at)
            at = max(at, other.end)
        if at < item.end:
            yield Range(at, item.end - at)
