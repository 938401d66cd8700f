"""VHDX, dynamic, fixed and differencing: inspection. Where its payload lies is in `vhdx_blocks`.

Source: Microsoft, [MS-VHDX] "Virtual Hard Disk v2 (VHDX) File Format"; little endian throughout.
"""

import itertools
import struct
import uuid
from array import array

from adapters.formats.crc32c import crc32c
from adapters.formats.vhdx_blocks import (
    BITMAP_BLOCK,
    BITMAP_PRESENT,
    FULLY_PRESENT,
    MIB,
    PARTIALLY_PRESENT,
    READ_AS_ZERO,
    Layout,
)
from adapters.formats.window import (
    TABLE_LIMIT,
    Findings,
    Parent,
    Window,
    le16,
    le32,
    le64,
    power_of_two,
)
from pipeline.data.extents import SECTOR
from pipeline.errors import UnsafeImage
from pipeline.model.images import ImageFormat

MAGIC = b"vhdxfile"
HEADERS = (64 << 10, 128 << 10)
HEADER_SIZE = 4096
REGION_TABLES = (192 << 10, 256 << 10)
TABLE_SIZE = 64 << 10
ENTRY_LIMIT = 2047
NO_LOG = bytes(16)

BAT = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
FILE_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
VIRTUAL_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
LOGICAL_SECTOR = uuid.UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")
PHYSICAL_SECTOR = uuid.UUID("cda348c7-445d-4471-9cc9-e9885251c556")
DISK_ID = uuid.UUID("beca12ab-b2e6-4523-93ef-c309e000c746")
PARENT_LOCATOR = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
KNOWN_ITEMS = {
    FILE_PARAMETERS,
    VIRTUAL_SIZE,
    LOGICAL_SECTOR,
    PHYSICAL_SECTOR,
    DISK_ID,
    PARENT_LOCATOR,
}
ITEM_REQUIRED = 4
KEEPS_BLOCKS, HAS_PARENT = 1, 2

# parent locator, MS-VHDX 2.6.2.6
LOCATOR_TYPE = uuid.UUID("b04aefb7-d19e-4a81-b789-25b8e9445913")
LOCATOR_LIMIT = 64
LINKAGES = ("parent_linkage", "parent_linkage2")
PATHS = ("relative_path", "absolute_win32_path", "volume_path")


def parse(window: Window, findings: Findings) -> None:
    layout(window, findings)


def layout(window: Window, findings: Findings) -> Layout:
    """Parse all of it. Raises UnsafeImage when there is no sense in going on."""
    header = _header(window)
    findings.refuse_unless(
        header[48:64] == NO_LOG,
        "its log was not replayed (it was not closed cleanly): readers disagree on its content; "
        "attach and detach it once where it comes from",
    )
    findings.refuse_unless(le16(header, 66) == 1, "it has an unknown VHDX version")
    findings.refuse_unless(le16(header, 64) == 0, "its log has an unknown version")
    regions = _regions(window)
    items = _metadata(window, *regions[METADATA])
    block_size, flags = struct.unpack("<II", items[FILE_PARAMETERS][:8])
    findings.variant = "fixed" if flags & KEEPS_BLOCKS else "dynamic"
    findings.refuse_unless(not flags & ~3, f"it has unknown file parameters {flags:#x}")
    if flags & HAS_PARENT or PARENT_LOCATOR in items:
        findings.variant = "differencing"
        findings.references.append("it is a differencing VHDX: it depends on a parent disk")
        if flags & HAS_PARENT and PARENT_LOCATOR in items:
            findings.parent = _parent(items[PARENT_LOCATOR])
    # the data write GUID: changes with the first write to the disk's content after an opening
    findings.identifier = str(uuid.UUID(bytes_le=header[32:48]))
    size, sector = le64(items[VIRTUAL_SIZE], 0), le32(items[LOGICAL_SECTOR], 0)
    findings.virtual_size, findings.logical_sector_size = size, sector
    if sector not in (512, 4096):
        raise UnsafeImage(f"its logical sectors have {sector} bytes: VHDX allows 512 and 4096")
    findings.refuse_unless(
        sector == SECTOR,
        "its logical sectors have 4096 bytes (4Kn), which qemu can't open as VHDX; convert it to "
        "512e where it comes from",
    )
    if not power_of_two(block_size, MIB, 256 * MIB):
        raise UnsafeImage(f"its block size of {block_size} bytes is not allowed in VHDX")
    if size % sector or size > 64 << 40:
        raise UnsafeImage(f"its virtual size of {size} bytes is not allowed in VHDX")
    return _blocks(window, findings, regions[BAT], size, block_size, sector)


def _parent(item: bytes) -> Parent:
    """A table of keys and values, both UTF-16 little endian: the parent's data write GUID (its
    present one, and the one it had before), and paths to it."""
    if len(item) < 20 or uuid.UUID(bytes_le=item[:16]) != LOCATOR_TYPE:
        raise UnsafeImage("its parent locator is of an unknown type")
    count = le16(item, 18)
    if count > LOCATOR_LIMIT or 20 + 12 * count > len(item):
        raise UnsafeImage("its parent locator has too many entries")
    found: dict[str, str] = {}
    for index in range(count):
        places = struct.unpack_from("<IIHH", item, 20 + 12 * index)
        key, value = (
            _text(item, offset, length)
            for offset, length in ((places[0], places[2]), (places[1], places[3]))
        )
        if key in found:
            raise UnsafeImage("its parent locator has a key twice")
        found[key] = value
    identifiers = []
    for key in LINKAGES:
        if key in found:
            try:
                identifiers.append(str(uuid.UUID(found[key])))
            except ValueError:
                raise UnsafeImage("its parent locator has a linkage that is no GUID") from None
    if not identifiers:
        raise UnsafeImage("its parent locator does not say which disk the parent is")
    names = tuple(found[key] for key in PATHS if found.get(key))
    return Parent(names, tuple(identifiers), ImageFormat.VHDX)


def _text(item: bytes, offset: int, length: int) -> str:
    if offset + length > len(item) or length % 2:
        raise UnsafeImage("an entry of its parent locator lies outside of it")
    return item[offset : offset + length].decode("utf-16-le", "replace")


def _header(window: Window) -> bytes:
    """The current one of the two headers: valid, and with the larger sequence number."""
    valid = []
    for offset in HEADERS:
        data = window.read(offset, HEADER_SIZE, "a VHDX header")
        if data.startswith(b"head") and le32(data, 4) == crc32c(data):
            valid.append(data)
    if not valid:
        raise UnsafeImage("neither of its two VHDX headers is valid")
    return max(valid, key=lambda data: le64(data, 8))


def _regions(window: Window) -> dict[uuid.UUID, tuple[int, int]]:
    """Offset and length of the two known regions; the copies of the table must not disagree."""
    tables = []
    for offset in REGION_TABLES:
        data = window.read(offset, TABLE_SIZE, "a VHDX region table")
        if data.startswith(b"regi") and le32(data, 4) == crc32c(data):
            tables.append(data)
    if not tables:
        raise UnsafeImage("neither of its two region tables is valid")
    if len(set(tables)) > 1:
        raise UnsafeImage("its two region tables differ")
    table, regions = tables[0], {}
    if le32(table, 8) > ENTRY_LIMIT:
        raise UnsafeImage("its region table has too many entries")
    for index in range(le32(table, 8)):
        raw, offset, length, required = struct.unpack_from("<16sQII", table, 16 + 32 * index)
        kind = uuid.UUID(bytes_le=raw)
        if kind in regions:
            raise UnsafeImage("its region table has a region twice")
        if kind not in (BAT, METADATA):
            if required & 1:
                raise UnsafeImage(f"it has a required region of an unknown kind, {kind}")
            continue
        if offset < MIB or offset % MIB or not length or not window.holds(offset, length):
            raise UnsafeImage("one of its regions lies outside of the file: it is truncated")
        regions[kind] = (offset, length)
    if len(regions) != 2:
        raise UnsafeImage("its region table lacks the block table or the metadata")
    (first, length), (second, _) = sorted(regions.values())
    if first + length > second:
        raise UnsafeImage("its regions overlap")
    return regions


def _metadata(window: Window, offset: int, length: int) -> dict[uuid.UUID, bytes]:
    table = window.read(offset, TABLE_SIZE, "the VHDX metadata table")
    count = le16(table, 10)
    if not table.startswith(b"metadata") or count > ENTRY_LIMIT:
        raise UnsafeImage("its metadata table is not valid")
    items: dict[uuid.UUID, bytes] = {}
    for index in range(count):
        raw, start, size, flags = struct.unpack_from("<16sIII", table, 32 + 32 * index)
        kind = uuid.UUID(bytes_le=raw)
        if kind in items:
            raise UnsafeImage("its metadata has an item twice")
        if kind not in KNOWN_ITEMS:
            if flags & ITEM_REQUIRED:
                raise UnsafeImage(f"it has required metadata of an unknown kind, {kind}")
            continue
        if start < TABLE_SIZE or start + size > length or not 4 <= size <= MIB:
            raise UnsafeImage("a metadata item lies outside of the metadata region")
        items[kind] = window.read(offset + start, size, "a metadata item")
    for kind, size in ((FILE_PARAMETERS, 8), (VIRTUAL_SIZE, 8), (LOGICAL_SECTOR, 4)):
        if len(items.get(kind, b"")) < size:
            raise UnsafeImage("its metadata lacks a size, a sector size or the file parameters")
    return items


def _blocks(
    window: Window,
    findings: Findings,
    region: tuple[int, int],
    size: int,
    block_size: int,
    sector: int,
) -> Layout:
    """The block allocation table: entries of payload, and of sector bitmaps in between."""
    ratio = (1 << 23) * sector // block_size
    count = -(-size // block_size)
    differencing = bool(findings.references)
    if differencing:  # every chunk has its sector bitmap, also the last one
        entries = -(-count // ratio) * (ratio + 1)
    else:
        entries = count + max(0, count - 1) // ratio
    if entries * 8 > TABLE_LIMIT:
        raise UnsafeImage(f"its block table has {entries} entries: too many")
    if entries * 8 > region[1]:
        raise UnsafeImage("its block table is too short for its size")
    table = array("Q", window.read(region[0], entries * 8, "the block table"))
    blocks = array("Q")
    for start in range(0, entries, ratio + 1):
        blocks.extend(table[start : start + ratio])
    bitmaps = table[ratio :: ratio + 1] if differencing else None
    del blocks[count:]
    states = {entry & 7 for entry in blocks}
    known = READ_AS_ZERO | {FULLY_PRESENT}
    if differencing:
        known = known | {PARTIALLY_PRESENT}
    findings.refuse_unless(states <= known, "its block table has unknown or partial states")
    held = (FULLY_PRESENT, PARTIALLY_PRESENT)
    used = sorted(entry >> 20 for entry in blocks if entry & 7 in held)
    findings.refuse_unless(
        all(entry and window.holds(entry * MIB, block_size) for entry in used),
        "its block table points outside of the file: it is truncated or damaged",
    )
    step = block_size // MIB
    overlap = any(after - before < step for before, after in itertools.pairwise(used))
    findings.refuse_unless(not overlap, "its block table has blocks that overlap")
    used_bitmaps = [entry >> 20 for entry in bitmaps or () if entry & 7 == BITMAP_PRESENT]
    findings.refuse_unless(
        all(entry and window.holds(entry * MIB, BITMAP_BLOCK) for entry in used_bitmaps),
        "its block table points to sector bitmaps outside of the file: it is truncated or damaged",
    )
    return Layout(size, block_size, blocks, window, bitmaps, ratio)
