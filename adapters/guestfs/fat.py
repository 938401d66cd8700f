"""What a FAT16 or FAT32 has beside its files: bytes behind the end of a file in its last cluster,
names of removed files, what its directories, its tables and its last cluster leave over.

Layout: Microsoft, FAT: General Overview of On-Disk Format, 1.03.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from adapters.guestfs.accounts import Damaged
from pipeline.ports.extents import Range

Read = Callable[[int, int], bytes]
ENTRY = 32
END, REMOVED = 0x00, 0xE5
LONG_NAME, LABEL, DIRECTORY = 0x0F, 0x08, 0x10
MOST_DIRECTORIES = 1 << 16


@dataclass(frozen=True, slots=True)
class Layout:
    """In bytes from the start; clusters have numbers from 2."""

    cluster: int
    data: int
    count: int
    table: int
    table_length: int
    tables: int
    wide: bool  # FAT32
    root: Range  # of FAT16
    root_cluster: int
    end: int

    @staticmethod
    def of(boot: bytes) -> "Layout":
        sector, per_cluster, reserved, tables, roots = struct.unpack_from("<HBHBH", boot, 11)
        total = struct.unpack_from("<H", boot, 19)[0] or struct.unpack_from("<I", boot, 32)[0]
        length = struct.unpack_from("<H", boot, 22)[0] or struct.unpack_from("<I", boot, 36)[0]
        table, start = reserved * sector, (reserved + tables * length) * sector
        data = start + -(-roots * ENTRY // sector) * sector
        cluster = sector * per_cluster
        count = (total * sector - data) // cluster
        wide = count >= 65525
        (root,) = struct.unpack_from("<I", boot, 44)
        return Layout(
            cluster, data, count, table, length * sector, tables, wide,
            Range(start, roots * ENTRY), root if wide else 0, total * sector,
        )  # fmt: skip

    def where(self, cluster: int) -> int:
        return self.data + (cluster - 2) * self.cluster


@dataclass(slots=True)
class Volume:
    """Raises Damaged where a file's clusters are called free, or are another file's, too."""

    read: Read
    layout: Layout
    _table: bytes = b""
    _seen: set[int] = field(default_factory=set)

    @staticmethod
    def opened(read: Read) -> "Volume":
        layout = Layout.of(read(0, 512))
        return Volume(read, layout, read(layout.table, layout.table_length))

    def leftovers(self, length: int) -> Iterator[Range]:
        """What to zero; `length` is the device's."""
        layout = self.layout
        width = 4 if layout.wide else 2
        used = (layout.count + 2) * width
        for index in range(layout.tables):
            start = layout.table + index * layout.table_length
            yield Range(start + used, layout.table_length - used)
        end = layout.where(layout.count + 2)
        yield Range(end, max(length, layout.end) - end)
        yield from self._directories()

    def _directories(self) -> Iterator[Range]:
        root = self._chain(self.layout.root_cluster) if self.layout.wide else [self.layout.root]
        waiting = [root]
        for number, places in enumerate(waiting):
            if number > MOST_DIRECTORIES:
                raise Damaged("it has more directories than can be looked into")
            entries = self._entries(places)
            for at, raw in entries:
                if raw[0] == END:
                    yield Range(at, ENTRY)
                    yield from (Range(rest, ENTRY) for rest, _ in entries)
                elif raw[0] == REMOVED:
                    yield Range(at + 1, ENTRY - 1)
                elif raw[11] & 0x3F != LONG_NAME and not raw[11] & LABEL and raw[:1] != b".":
                    first = struct.unpack_from("<H", raw, 26)[0]
                    if self.layout.wide:
                        first |= struct.unpack_from("<H", raw, 20)[0] << 16
                    if raw[11] & DIRECTORY:
                        waiting.append(self._chain(first))
                    else:
                        yield from self._tail(first, struct.unpack_from("<I", raw, 28)[0])

    def _entries(self, places: list[Range]) -> Iterator[tuple[int, bytes]]:
        for place in places:
            content = self.read(place.start, place.length)
            for at in range(0, len(content), ENTRY):
                yield place.start + at, content[at : at + ENTRY]

    def _tail(self, first: int, size: int) -> Iterator[Range]:
        places = self._chain(first) if first else []
        if sum(place.length for place in places) < size:
            raise Damaged(f"a file of {size} bytes has clusters for fewer")
        for place in places:
            inside = min(size, place.length)
            size -= inside
            if inside < place.length:
                yield Range(place.start + inside, place.length - inside)

    def _chain(self, cluster: int) -> list[Range]:
        """Where the clusters lie that follow each other from this one."""
        places: list[Range] = []
        last = 0x0FFFFFF8 if self.layout.wide else 0xFFF8
        while cluster < last:
            if not 2 <= cluster < self.layout.count + 2:
                raise Damaged("a file goes on in a cluster that there is not, or that is free")
            if cluster in self._seen:
                raise Damaged("two files have the same cluster")
            self._seen.add(cluster)
            places.append(Range(self.layout.where(cluster), self.layout.cluster))
            cluster = self._next(cluster)
        return places

    def _next(self, cluster: int) -> int:
        if self.layout.wide:
            return int(struct.unpack_from("<I", self._table, 4 * cluster)[0]) & 0x0FFFFFFF
        return int(struct.unpack_from("<H", self._table, 2 * cluster)[0])
