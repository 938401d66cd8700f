"""VMDKs in parts: a descriptor, and the files that it names; each part says where its bytes lie.

    FLAT, VMFS     NAME-flat.vmdk, NAME-f001.vmdk     the bytes themselves
    SPARSE         NAME-s001.vmdk                     grain tables (Virtual Disk Format 5.0)
    VMFSSPARSE     NAME-delta.vmdk of ESX             grain tables after a header COWD
    SESPARSE       NAME-sesparse.vmdk of ESXi         grain tables of 64-bit entries
    ZERO           none

The layouts of the last three but one are those of qemu's block/vmdk.c. Nothing here opens a file:
the caller gives every part by its name.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adapters.formats import vmdk
from adapters.formats.layering import Allocation, Piece
from adapters.formats.window import Findings, Window, power_of_two, quoted
from pipeline.data.extents import SECTOR
from pipeline.errors import UnsafeImage
from pipeline.model.images import ImageFormat

TYPES = {
    *("monolithicflat", "twogbmaxextentflat", "twogbmaxextentsparse", "2gbmaxextentflat"),
    *("2gbmaxextentsparse", "vmfs", "vmfsthin", "vmfssparse", "sesparse", "custom"),
}
FLAT_KINDS, SPARSE_KINDS = {"FLAT", "VMFS"}, {"SPARSE", "VMFSSPARSE", "SESPARSE"}
EXTENTS = 1024


@dataclass(frozen=True, slots=True)
class Part:
    """A run of a disk, in bytes, and the file that it is kept in (empty: it is zero). `offset` is
    where a flat one begins in its file."""

    start: int
    length: int
    kind: str
    name: str
    offset: int


@dataclass(frozen=True, slots=True)
class Parts:
    """What a descriptor says. `parent` is the identifier of the disk below (empty: there is none),
    `parent_name` its file, `identifier` what children call this one."""

    parts: tuple[Part, ...]
    createtype: str
    identifier: str
    parent: str
    parent_name: str

    @property
    def virtual_size(self) -> int:
        return sum(part.length for part in self.parts)


def is_descriptor(head: bytes) -> bool:
    """Whether a file begins as a descriptor of its own."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return text.startswith(b"#") and b"createtype" in text and b"version" in text


def read_parts(data: bytes) -> Parts:
    """Read the text of a descriptor. Raises UnsafeImage for one that is not understood whole."""
    if len(data) > vmdk.DESCRIPTOR_LIMIT:
        raise UnsafeImage("its descriptor is larger than 1 MiB")
    findings = Findings(ImageFormat.VMDK)
    found = vmdk.read_descriptor(data.removeprefix(b"\xef\xbb\xbf").partition(b"\0")[0], findings)
    vmdk.check_keys(findings, found.settings)
    if findings.refusals:
        raise UnsafeImage("; ".join(findings.refusals))
    if found.createtype.lower() not in TYPES:
        raise UnsafeImage(
            f"its subformat {quoted(found.createtype.encode())} is none that galleria knows of a "
            "disk in several files"
        )
    if not 0 < len(found.extents) <= EXTENTS:
        raise UnsafeImage(f"its descriptor has {len(found.extents)} extents")
    parts, start = [], 0
    for extent in found.extents:
        if extent.kind not in FLAT_KINDS | SPARSE_KINDS | {"ZERO"}:
            raise UnsafeImage(f"it has an extent of the kind {extent.kind}: a device of its host?")
        name = _name(extent.name, found.settings.get("encoding", ""))
        if (extent.kind == "ZERO") == bool(name) or extent.sectors <= 0:
            raise UnsafeImage(f"its extent {quoted(name.encode())} is not allowed in VMDK")
        length = extent.sectors * SECTOR
        parts.append(Part(start, length, extent.kind, name, extent.offset * SECTOR))
        start += length
    settings = found.settings
    parent = settings.get("parentcid", vmdk.NO_CID).lower()
    return Parts(
        tuple(parts),
        found.createtype,
        settings.get("cid", "").lower(),
        "" if parent == vmdk.NO_CID else parent,
        _name(settings.get("parentfilenamehint", ""), settings.get("encoding", ""), path=True),
    )


def _name(text: str, encoding: str, *, path: bool = False) -> str:
    """The name of a file in the encoding that the descriptor tells; never of another directory."""
    name = vmdk.spelled(text, encoding)
    if not path and (set("/\\:") & set(name) or name in (".", "..") or not _printable(name)):
        raise UnsafeImage(
            f"its extent names another place, {quoted(name.encode())}: only files beside it are "
            "taken"
        )
    return name


def _printable(name: str) -> bool:
    return name.isprintable() or not name


class PartMap:
    """Where the bytes of one part lie in its file."""

    _grains: "_Hosted | _Cowd | _SeSparse"

    def __init__(self, part: Part, window: Window) -> None:
        self._part = part
        self._window = window
        if part.kind in FLAT_KINDS:
            if not window.holds(part.offset, part.length):
                raise UnsafeImage(
                    f"it has {window.size} bytes, and the descriptor says {part.length} from byte "
                    f"{part.offset} on: it is truncated"
                )
            return
        head = window.read(0, SECTOR, "the header")
        if head.startswith(vmdk.MAGIC):
            self._grains = _Hosted(window)
        elif head.startswith(b"COWD"):
            self._grains = _Cowd(window, head)
        elif head.startswith(_SeSparse.MAGIC):
            self._grains = _SeSparse(window, head)
        else:
            raise UnsafeImage("it does not begin as a sparse part of a VMDK")
        if self._grains.capacity != part.length:
            raise UnsafeImage(
                f"it is of {self._grains.capacity} bytes, and the descriptor says {part.length}"
            )

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        """At least [start, end) of the disk, from a table's beginning on, and in order."""
        part = self._part
        if part.kind in FLAT_KINDS:
            yield Piece(part.start, part.start + part.length, Allocation.ALLOCATED, part.offset)
            return
        unit = self._grains.unit
        first = max(0, start - part.start) // (unit * self._grains.per_table)
        position = first * unit * self._grains.per_table
        last = min(part.length, end - part.start)
        for state, offset in self._grains.entries(first):
            if position >= last:
                return
            length = min(unit, part.length - position)
            if state is Allocation.ALLOCATED and not self._window.holds(offset, length):
                raise UnsafeImage("its grain tables point outside of it: it is truncated")
            place = part.start + position
            yield Piece(place, place + length, state, offset)
            position += length
        if position < last:
            raise UnsafeImage("its grain tables are too short")


class _Grains:
    """Grain directory and tables of 32-bit entries, in sectors."""

    unit: int
    capacity: int
    zeros: Sequence[int] = ()

    def __init__(self, window: Window, directory: int, count: int, per_table: int) -> None:
        self._window = window
        self.per_table = per_table
        if count * per_table * self.unit < self.capacity or count > 1 << 20:
            raise UnsafeImage("its grain directory does not fit its virtual size")
        self._directory = window.read(directory * SECTOR, count * 4, "the grain directory")

    def entries(self, first: int) -> Iterator[tuple[Allocation, int]]:
        for (table,) in struct.iter_unpack("<I", self._directory[4 * first :]):
            if not table:
                yield from ((Allocation.UNALLOCATED, 0) for _ in range(self.per_table))
                continue
            data = self._window.read(table * SECTOR, self.per_table * 4, "a grain table")
            for (grain,) in struct.iter_unpack("<I", data):
                if not grain:
                    yield Allocation.UNALLOCATED, 0
                elif grain in self.zeros:
                    yield Allocation.ZERO, 0
                else:
                    yield Allocation.ALLOCATED, grain * SECTOR


class _Hosted(_Grains):
    def __init__(self, window: Window) -> None:
        header = vmdk.read_header(window)
        if header.flags & (vmdk.COMPRESSED | vmdk.MARKERS) or header.flags & ~vmdk.KNOWN_FLAGS:
            raise UnsafeImage("it is compressed, or has unknown feature flags")
        if not vmdk.sane(header) or not 1 <= header.version <= 3:
            raise UnsafeImage("the sizes of its grains and tables are not allowed in VMDK")
        self.unit, self.capacity = header.grain * SECTOR, header.capacity * SECTOR
        self.zeros = (1,)
        span = header.grain * header.entries
        count = -(-header.capacity // span)
        super().__init__(window, header.directory, count, header.entries)


class _Cowd(_Grains):
    """VMDK3Header of qemu; its tables have 4096 entries."""

    def __init__(self, window: Window, head: bytes) -> None:
        version, _, capacity, grain, directory, count = struct.unpack_from("<6I", head, 4)
        if version != 1 or not power_of_two(grain, 1, 1 << 15):
            raise UnsafeImage("its header COWD is of an unknown version, or its grains are")
        self.unit, self.capacity = grain * SECTOR, capacity * SECTOR
        super().__init__(window, directory, count, 4096)


class _SeSparse:
    """VMDKSESparseConstHeader of qemu: sizes and places in sectors of 512 bytes."""

    MAGIC = struct.pack("<Q", 0xCAFEBABE)
    VOLATILE = 0xCAFECAFE
    VERSION = 0x200000001
    GRAIN, TABLE = 8, 64
    per_table = TABLE * SECTOR // 8

    def __init__(self, window: Window, head: bytes) -> None:
        fields = struct.unpack_from("<26Q", head)
        version, capacity, grain, table = fields[1:5]
        if (version, grain, table) != (self.VERSION, self.GRAIN, self.TABLE) or fields[5]:
            raise UnsafeImage("its seSparse header has an unknown version, sizes or flags")
        magic, _, _, replay = struct.unpack(
            "<4Q", window.read(fields[10] * SECTOR, 32, "the volatile header")
        )
        if magic != self.VOLATILE or replay:
            raise UnsafeImage("its journal was not replayed: it was not closed cleanly")
        self.unit, self.capacity = grain * SECTOR, capacity * SECTOR
        self._window = window
        self._tables, self._grains = fields[18], fields[24]
        count = -(-capacity // (grain * self.per_table))
        if count * 8 > fields[17] * SECTOR:
            raise UnsafeImage("its grain directory does not fit its virtual size")
        self._directory = window.read(fields[16] * SECTOR, count * 8, "the grain directory")

    def entries(self, first: int) -> Iterator[tuple[Allocation, int]]:
        for (table,) in struct.iter_unpack("<Q", self._directory[8 * first :]):
            if not table:
                yield from ((Allocation.UNALLOCATED, 0) for _ in range(self.per_table))
                continue
            if table >> 32 != 0x10000000:
                raise UnsafeImage("its grain directory has an entry of an unknown kind")
            place = (self._tables + (table & 0xFFFFFFFF) * self.TABLE) * SECTOR
            data = self._window.read(place, self.TABLE * SECTOR, "a grain table")
            for (entry,) in struct.iter_unpack("<Q", data):
                yield self._grain(entry)

    def _grain(self, entry: int) -> tuple[Allocation, int]:
        kind = entry >> 60
        if not entry:
            return Allocation.UNALLOCATED, 0
        if kind in (1, 2):  # given back by the guest, or zeros
            return Allocation.ZERO, 0
        if kind != 3:
            raise UnsafeImage("its grain tables have an entry of an unknown kind")
        number = (entry & 0x0FFF000000000000) >> 48 | (entry & 0x0000FFFFFFFFFFFF) << 12
        return Allocation.ALLOCATED, (self._grains + number * self.GRAIN) * SECTOR
