"""VHD, fixed, dynamic and differencing: inspection, and where a chain's bytes lie (qemu reads no
differencing VHD). Source: Microsoft's VHD specification 1.0 (see adapters/vhd.py)."""

import bisect
import itertools
import uuid
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adapters.formats import vhd_footer
from adapters.formats.layering import Allocation, Piece, sectors
from adapters.formats.window import (
    TABLE_LIMIT,
    Findings,
    Parent,
    Window,
    be32,
    be64,
    power_of_two,
    used_blocks,
)
from pipeline.data.extents import SECTOR
from pipeline.errors import UnsafeImage
from pipeline.model.images import ImageFormat

HEADER_SIZE = 1024
HEADER_COOKIE = b"cxsparse"
UNUSED = 0xFFFFFFFF
NOWHERE = 0xFFFFFFFFFFFFFFFF
LOCATORS, LOCATOR_SIZE = 8, 24
# of Windows, absolute and relative, in UTF-16 little endian; others have long been out of use
LOCATOR_CODES = {b"W2ku", b"W2ru"}
LOCATOR_LIMIT = 64 << 10


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a VHD keeps its payload: the sector of each block, or for a fixed one no table."""

    window: Window
    virtual_size: int
    block_size: int = 0
    blocks: "array[int] | None" = None
    differencing: bool = False

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        """Cover [start, end) in order. The bitmaps of a disk without a parent say nothing: what is
        in a block counts, as qemu has it."""
        if self.blocks is None:
            yield Piece(start, end, Allocation.ALLOCATED, start)
            return
        bitmap = bitmap_length(self.block_size)
        while start < end:
            index = start // self.block_size
            base = index * self.block_size
            until = min(end, base + self.block_size)
            place = self.blocks[index] * SECTOR
            if self.blocks[index] == UNUSED:
                yield Piece(start, until, Allocation.UNALLOCATED)
            elif self.differencing:
                bits = self.window.read(place, bitmap, "a sector bitmap")
                yield from sectors(bits, base, start, until, place + bitmap, low_first=False)
            else:
                yield Piece(start, until, Allocation.ALLOCATED, place + bitmap + start - base)
            start = until


def parse(window: Window, findings: Findings) -> None:
    layout(window, findings)


def layout(window: Window, findings: Findings) -> Layout:
    """Parse all of it. Raises UnsafeImage when there is no sense in going on."""
    tail = window.read(
        window.size - vhd_footer.FOOTER_SIZE, vhd_footer.FOOTER_SIZE, "the VHD footer"
    )
    try:
        footer = vhd_footer.parse(tail)
    except ValueError as error:
        raise UnsafeImage(f"{error}: it is truncated or damaged") from None
    findings.virtual_size = footer.current_size
    findings.refuse_unless(
        footer.version == vhd_footer.VERSION, f"it has an unknown VHD version {footer.version:#x}"
    )
    findings.refuse_unless(
        footer.current_size % SECTOR == 0,
        f"its Current Size of {footer.current_size} bytes is not whole sectors of 512",
    )
    if footer.geometry != vhd_footer.LARGEST_GEOMETRY and (
        footer.geometry_size != footer.current_size
    ):
        findings.notes.append(
            f"its CHS geometry says {footer.geometry_size} bytes; Current Size counts"
        )
    if footer.saved_state:
        findings.notes.append("its virtual machine was suspended when it was written")
    findings.identifier = str(footer.identifier)
    if footer.disk_type == vhd_footer.DiskType.FIXED.value:
        _fixed(window, findings, footer)
        return Layout(window, footer.current_size)
    if footer.disk_type == vhd_footer.DiskType.DYNAMIC.value:
        findings.variant = "dynamic"
    elif footer.disk_type == vhd_footer.DiskType.DIFFERENCING.value:
        findings.variant = "differencing"
        findings.references.append("it is a differencing VHD: it depends on a parent disk")
    else:
        raise UnsafeImage(f"it has an unknown VHD disk type {footer.disk_type}")
    return _dynamic(window, findings, footer, tail)


def _fixed(window: Window, findings: Findings, footer: vhd_footer.Footer) -> None:
    findings.variant = "fixed"
    allocation = window.size - vhd_footer.FOOTER_SIZE
    findings.refuse_unless(
        footer.current_size == allocation,
        f"its footer says {footer.current_size} bytes, but the file holds {allocation}",
    )
    findings.refuse_unless(
        footer.data_offset == NOWHERE, "it is fixed, but its footer points to a dynamic header"
    )
    start = window.read(0, min(8, allocation), "the first sector")
    # qemu looks there first and would read the same file as a dynamic disk
    findings.refuse_unless(
        start != vhd_footer.COOKIE, "its footer is fixed, but it begins as a dynamic VHD"
    )


def _dynamic(window: Window, findings: Findings, footer: vhd_footer.Footer, tail: bytes) -> Layout:
    head = window.read(0, vhd_footer.FOOTER_SIZE, "the copy of the VHD footer")
    # readers differ in which of the two they take
    findings.refuse_unless(head == tail, "its footer and the copy at its beginning differ")
    header = window.read(footer.data_offset, HEADER_SIZE, "the dynamic disk header")
    if not header.startswith(HEADER_COOKIE):
        raise UnsafeImage("its dynamic disk header has no cookie `cxsparse`")
    findings.refuse_unless(
        be32(header, 36) == vhd_footer.checksum(header, 36),
        "the checksum of its dynamic disk header is wrong",
    )
    findings.refuse_unless(
        be32(header, 24) == vhd_footer.VERSION, "its dynamic disk header has an unknown version"
    )
    findings.refuse_unless(be64(header, 8) == NOWHERE, "its dynamic disk header points further on")
    locators = header[576 : 576 + LOCATORS * LOCATOR_SIZE]
    differencing = footer.disk_type == vhd_footer.DiskType.DIFFERENCING.value
    if differencing:
        findings.parent = _parent(window, header, locators)
    elif any(header[40:56]) or any(locators):
        findings.refusals.append(
            "it is a dynamic VHD, but names a parent disk as a differencing one does"
        )
    table, entries, block = be64(header, 16), be32(header, 28), be32(header, 32)
    if not power_of_two(block, SECTOR, 256 << 20):
        raise UnsafeImage(f"its block size of {block} bytes is not allowed in VHD")
    findings.refuse_unless(
        entries * block >= footer.current_size, "its block table is too short for its size"
    )
    blocks = _check_blocks(window, findings, table, entries, block)
    taken = (
        (0, vhd_footer.FOOTER_SIZE),
        (footer.data_offset, HEADER_SIZE),
        (table, entries * 4),
        (window.size - vhd_footer.FOOTER_SIZE, vhd_footer.FOOTER_SIZE),
    )
    _check_apart(findings, blocks, bitmap_length(block) + block, taken)
    return Layout(window, footer.current_size, block, blocks, differencing)


def _parent(window: Window, header: bytes, locators: bytes) -> Parent:
    """What the dynamic disk header says of the parent: its unique id and its name. The parent's
    time stamp is no help: a copy of a file has another."""
    names = [header[64:576].decode("utf-16-be", "replace").split("\0")[0]]
    for start in range(0, len(locators), LOCATOR_SIZE):
        code, length = locators[start : start + 4], be32(locators, start + 8)
        if code in LOCATOR_CODES and 0 < length <= LOCATOR_LIMIT:
            path = window.read(be64(locators, start + 16), length, "a parent locator")
            names.append(path.decode("utf-16-le", "replace").split("\0")[0])
    identifier = str(uuid.UUID(bytes=header[40:56]))
    return Parent(tuple(filter(None, names)), (identifier,), ImageFormat.VHD)


def _check_apart(
    findings: Findings, blocks: "array[int]", length: int, taken: Sequence[tuple[int, int]]
) -> None:
    """Refuse a block that lies over a header or the table: its data is what the disk is read by."""
    used = sorted(entry * SECTOR for entry in blocks if entry != UNUSED)
    for start, size in taken:
        # the first one that ends behind the start; it must not begin before the end
        index = bisect.bisect_right(used, start - length)
        findings.refuse_unless(
            index == len(used) or used[index] >= start + size,
            "its block table has a block that lies over a header, the table or the footer",
        )


def bitmap_length(block: int) -> int:
    """A block begins with its sector bitmap, padded to whole sectors."""
    return -(-block // SECTOR // 8 // SECTOR) * SECTOR


def _check_blocks(
    window: Window, findings: Findings, table: int, entries: int, block: int
) -> "array[int]":
    if entries * 4 > TABLE_LIMIT:
        raise UnsafeImage(f"its block table has {entries} entries: too many")
    blocks = array("I", window.read(table, entries * 4, "the block table"))
    blocks.byteswap()
    used = used_blocks(entry for entry in blocks if entry != UNUSED)
    bitmap = bitmap_length(block)
    findings.refuse_unless(
        all(window.holds(entry * SECTOR, bitmap + block) for entry in used),
        "its block table points outside of the file: it is truncated or damaged",
    )
    used.sort()
    step = (bitmap + block) // SECTOR
    overlap = any(after - before < step for before, after in itertools.pairwise(used))
    findings.refuse_unless(not overlap, "its block table has blocks that overlap")
    return blocks
