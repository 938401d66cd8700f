"""VDI, dynamic and fixed. Source: qemu's block/vdi.c, VirtualBox's VDICore.h; little endian."""

import itertools
from array import array

from adapters.formats.window import (
    TABLE_LIMIT,
    Findings,
    Window,
    le32,
    le64,
    power_of_two,
    used_blocks,
)
from pipeline.data.extents import SECTOR
from pipeline.errors import UnsafeImage

SIGNATURE = b"\x7f\x10\xda\xbe"  # at byte 64
HEADER_SIZE = 512
VERSION = 0x00010001
TYPES = {1: "dynamic", 2: "fixed", 3: "undo", 4: "differencing"}
DISCARDED = 0xFFFFFFFE  # that, and 0xFFFFFFFF for "never allocated", are no blocks


def parse(window: Window, findings: Findings) -> None:
    head = window.read(0, HEADER_SIZE, "the VDI header")
    version, kind = le32(head, 68), le32(head, 76)
    if version != VERSION:
        raise UnsafeImage(f"it is a VDI of version {version:#x}: galleria reads 1.1")
    findings.variant = TYPES.get(kind, "unknown")
    findings.virtual_size = le64(head, 368)
    if kind == 4 or any(head[424:440]) or any(head[440:456]):
        findings.references.append("it is a differencing VDI: it depends on a parent disk")
    elif kind not in (1, 2):
        raise UnsafeImage(f"its VDI type is {kind} ({findings.variant}): galleria reads 1 and 2")
    findings.refuse_unless(le32(head, 360) == SECTOR, "its sectors do not have 512 bytes")
    findings.refuse_unless(
        findings.virtual_size % SECTOR == 0,
        f"its virtual size of {findings.virtual_size} bytes is not whole sectors of 512",
    )
    block, extra, blocks = le32(head, 376), le32(head, 380), le32(head, 384)
    if not power_of_two(block, 1 << 20, 1 << 20):
        raise UnsafeImage(f"its block size of {block} bytes is not the 1 MiB that VDI has")
    findings.refuse_unless(extra == 0, "its blocks have extra data, which galleria does not read")
    findings.refuse_unless(
        blocks * block >= findings.virtual_size, "its block map is too short for its size"
    )
    _check_blocks(window, findings, head, blocks, block)


def _check_blocks(window: Window, findings: Findings, head: bytes, blocks: int, block: int) -> None:
    map_offset, data_offset, allocated = le32(head, 340), le32(head, 344), le32(head, 388)
    if blocks * 4 > TABLE_LIMIT:
        raise UnsafeImage(f"its block map has {blocks} entries: too many")
    findings.refuse_unless(
        map_offset % SECTOR == 0 and data_offset % SECTOR == 0 and map_offset >= HEADER_SIZE,
        "its block map or its data is misaligned, or lies in the header",
    )
    entries = array("I", window.read(map_offset, blocks * 4, "the block map"))
    findings.refuse_unless(
        data_offset >= map_offset + blocks * 4, "its data overlaps its block map"
    )
    used = used_blocks(entry for entry in entries if entry < DISCARDED)
    findings.refuse_unless(
        all(entry < allocated for entry in used)
        and all(window.holds(data_offset + entry * block, block) for entry in used),
        "its block map points outside of the file: it is truncated or damaged",
    )
    used.sort()
    twice = any(one == other for one, other in itertools.pairwise(used))
    findings.refuse_unless(not twice, "its block map has a block twice")
