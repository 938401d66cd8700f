"""VHD, fixed and dynamic. Source: Microsoft's VHD specification 1.0 (see adapters/vhd.py)."""

import itertools
from array import array

from adapters import vhd
from adapters.formats.window import TABLE_LIMIT, Findings, Window, be32, be64, power_of_two
from pipeline.data.extents import SECTOR
from pipeline.errors import UnsafeImage

HEADER_SIZE = 1024
HEADER_COOKIE = b"cxsparse"
UNUSED = 0xFFFFFFFF
NOWHERE = 0xFFFFFFFFFFFFFFFF
LOCATORS, LOCATOR_SIZE = 8, 24


def parse(window: Window, findings: Findings) -> None:
    tail = window.read(window.size - vhd.FOOTER_SIZE, vhd.FOOTER_SIZE, "the VHD footer")
    try:
        footer = vhd.parse(tail)
    except ValueError as error:
        raise UnsafeImage(f"{error}: it is truncated or damaged") from None
    findings.virtual_size = footer.current_size
    findings.refuse_unless(
        footer.version == vhd.VERSION, f"it has an unknown VHD version {footer.version:#x}"
    )
    findings.refuse_unless(
        footer.current_size % SECTOR == 0,
        f"its Current Size of {footer.current_size} bytes is not whole sectors of 512",
    )
    if footer.geometry != vhd.LARGEST_GEOMETRY and (footer.geometry_size != footer.current_size):
        findings.notes.append(
            f"its CHS geometry says {footer.geometry_size} bytes; Current Size counts"
        )
    if footer.saved_state:
        findings.notes.append("its virtual machine was suspended when it was written")
    if footer.disk_type == vhd.DiskType.FIXED.value:
        _fixed(window, findings, footer)
    elif footer.disk_type == vhd.DiskType.DYNAMIC.value:
        findings.variant = "dynamic"
        _dynamic(window, findings, footer, tail)
    elif footer.disk_type == vhd.DiskType.DIFFERENCING.value:
        findings.variant = "differencing"
        findings.references.append("it is a differencing VHD: it leans on a parent disk")
    else:
        raise UnsafeImage(f"it has an unknown VHD disk type {footer.disk_type}")


def _fixed(window: Window, findings: Findings, footer: vhd.Footer) -> None:
    findings.variant = "fixed"
    held = window.size - vhd.FOOTER_SIZE
    findings.refuse_unless(
        footer.current_size == held,
        f"its footer says {footer.current_size} bytes, but the file holds {held}",
    )
    findings.refuse_unless(
        footer.data_offset == NOWHERE, "it is fixed, but its footer points to a dynamic header"
    )
    start = window.read(0, min(8, held), "the first sector")
    # qemu looks there first and would read the same file as a dynamic disk
    findings.refuse_unless(
        start != vhd.COOKIE, "its footer is fixed, but it begins as a dynamic VHD"
    )


def _dynamic(window: Window, findings: Findings, footer: vhd.Footer, tail: bytes) -> None:
    head = window.read(0, vhd.FOOTER_SIZE, "the copy of the VHD footer")
    # readers differ in which of the two they take
    findings.refuse_unless(head == tail, "its footer and the copy at its beginning differ")
    header = window.read(footer.data_offset, HEADER_SIZE, "the dynamic disk header")
    if not header.startswith(HEADER_COOKIE):
        raise UnsafeImage("its dynamic disk header has no cookie `cxsparse`")
    findings.refuse_unless(
        be32(header, 36) == vhd.checksum(header, 36),
        "the checksum of its dynamic disk header is wrong",
    )
    findings.refuse_unless(
        be32(header, 24) == vhd.VERSION, "its dynamic disk header has an unknown version"
    )
    findings.refuse_unless(be64(header, 8) == NOWHERE, "its dynamic disk header points further on")
    locators = header[576 : 576 + LOCATORS * LOCATOR_SIZE]
    if any(header[40:56]) or any(locators):
        findings.references.append("it is dynamic, but names a parent disk")
    table, entries, block = be64(header, 16), be32(header, 28), be32(header, 32)
    if not power_of_two(block, SECTOR, 256 << 20):
        raise UnsafeImage(f"its block size of {block} bytes is not what VHD allows")
    findings.refuse_unless(
        entries * block >= footer.current_size, "its block table is too short for its size"
    )
    _check_blocks(window, findings, table, entries, block)


def _check_blocks(window: Window, findings: Findings, table: int, entries: int, block: int) -> None:
    if entries * 4 > TABLE_LIMIT:
        raise UnsafeImage(f"its block table of {entries} entries is absurd")
    blocks = array("I", window.read(table, entries * 4, "the block table"))
    blocks.byteswap()
    used = [entry for entry in blocks if entry != UNUSED]
    # a block is its sector bitmap, padded to whole sectors, and its data
    bitmap = -(-block // SECTOR // 8 // SECTOR) * SECTOR
    findings.refuse_unless(
        all(window.holds(entry * SECTOR, bitmap + block) for entry in used),
        "its block table points outside of the file: it is truncated or damaged",
    )
    used.sort()
    step = (bitmap + block) // SECTOR
    overlap = any(after - before < step for before, after in itertools.pairwise(used))
    findings.refuse_unless(not overlap, "its block table has blocks that overlap")
