"""qcow2, versions 2 and 3. Source: qemu's docs/interop/qcow2.txt; limits: qemu's block/qcow2.h."""

import os
import struct
from array import array
from dataclasses import replace
from typing import BinaryIO

from adapters.formats.window import Findings, Parent, Window, be32, be64, quoted
from pipeline.data.extents import SECTOR
from pipeline.errors import UnsafeImage
from pipeline.model.images import QEMU_FORMATS

MAGIC = b"QFI\xfb"
V2_HEADER = 72
V3_HEADER = 104

DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = (1 << bit for bit in range(5))
KNOWN_INCOMPATIBLE = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2
AUTOCLEAR_RAW_DATA = 2
COMPRESSIONS = {0: "zlib", 1: "zstd"}
ENCRYPTIONS = {1: "AES", 2: "LUKS"}

END, BACKING_FORMAT = 0, 0xE2792ACA
FEATURE_NAMES, BITMAPS, ENCRYPTION, DATA_FILE_NAME = 0x6803F857, 0x23852875, 0x0537BE77, 0x44415441
KNOWN_EXTENSIONS = {END, BACKING_FORMAT, FEATURE_NAMES, BITMAPS, ENCRYPTION, DATA_FILE_NAME}

# qemu takes 65536 snapshots; a disk that people keep has a handful
SNAPSHOT_LIMIT = 1000
SNAPSHOT_TABLE_LIMIT = 1 << 20
REFTABLE_LIMIT = 8 << 20
L1_LIMIT = 32 << 20
# of all its cluster tables (L1): 64 TiB of data at 64 KiB a cluster, 4 TiB at 4 KiB
TABLES_LIMIT = 1 << 20
EXTENSIONS_LIMIT = 64  # header extensions; five are known
CLUSTER_LIMIT = 2 << 20  # a backing name lies in the first cluster
NAME_LIMIT = 1023
OFFSET_MASK = 0x00FFFFFFFFFFFE00


def backing_name(file: BinaryIO) -> str:
    """The backing file's name in the header of a qcow2, as it stands there; empty when it has none.
    Nothing else is looked at."""
    head = file.read(V2_HEADER)
    if not head.startswith(MAGIC) or len(head) < V2_HEADER:
        return ""
    offset, length = be64(head, 8), be32(head, 16)
    if not offset or offset > CLUSTER_LIMIT or length > NAME_LIMIT:
        return ""
    file.seek(offset)
    return os.fsdecode(file.read(length))


def parse(window: Window, findings: Findings) -> None:
    head = window.read(0, V2_HEADER, "the qcow2 header")
    version = be32(head, 4)
    if version not in (2, 3):
        raise UnsafeImage(f"it is a qcow image of version {version}: galleria reads 2 and 3")
    cluster_bits = be32(head, 20)
    if not 9 <= cluster_bits <= 21:
        raise UnsafeImage(f"its cluster size of 2^{cluster_bits} bytes is not allowed in qcow2")
    cluster = 1 << cluster_bits
    findings.virtual_size = be64(head, 24)
    incompatible, length, words = _version3(window, findings, version, cluster)
    findings.variant = " ".join([f"v{version}", *words])
    _references(window, findings, head, cluster)
    method = be32(head, 32)
    findings.refuse_unless(
        method == 0, f"it is encrypted ({ENCRYPTIONS.get(method, f'unknown method {method}')})"
    )
    findings.refuse_unless(
        findings.virtual_size % SECTOR == 0,
        f"its virtual size of {findings.virtual_size} bytes is not whole sectors of 512",
    )
    _extensions(window, findings, length, min(cluster, _end_of_extensions(head)))
    tables = _ClusterTables(window, findings, cluster)
    _tables(window, findings, head, tables, extended=bool(incompatible & EXTENDED_L2))
    _snapshots(window, findings, head, tables)


def _version3(
    window: Window, findings: Findings, version: int, cluster: int
) -> tuple[int, int, list[str]]:
    """The incompatible feature bits, the header length, and words for the variant."""
    if version == 2:
        return 0, V2_HEADER, ["zlib"]
    head = window.read(0, V3_HEADER, "the qcow2 version 3 header")
    incompatible, autoclear = be64(head, 72), be64(head, 88)
    refcount_order, length = be32(head, 96), be32(head, 100)
    unknown = incompatible & ~KNOWN_INCOMPATIBLE
    findings.refuse_unless(not unknown, f"it has unknown incompatible feature bits {unknown:#x}")
    findings.refuse_unless(not incompatible & CORRUPT, "it is marked corrupt")
    findings.refuse_unless(
        not incompatible & DATA_FILE and not autoclear & AUTOCLEAR_RAW_DATA,
        "it keeps its data in an external file",
    )
    if incompatible & DIRTY:
        findings.notes.append("it was not closed cleanly; its reference counts may be wrong")
    findings.refuse_unless(
        refcount_order <= 6, f"its reference counts of 2^{refcount_order} bits are not allowed"
    )
    if not V3_HEADER <= length <= cluster or length % 8:
        raise UnsafeImage(f"its header length of {length} bytes is not allowed in qcow2")
    kind = window.read(0, length, "the qcow2 header")[104] if length > V3_HEADER else 0
    findings.refuse_unless(kind in COMPRESSIONS, f"it has an unknown compression type {kind}")
    findings.refuse_unless(
        bool(kind) == bool(incompatible & COMPRESSION),
        "its compression type and its feature bits contradict each other",
    )
    words = [COMPRESSIONS.get(kind, "unknown")]
    if incompatible & EXTENDED_L2:
        words.append("extended_l2")
        findings.refuse_unless(cluster >= 1 << 14, "its clusters are too small for extended_l2")
    return incompatible, length, words


def _references(window: Window, findings: Findings, head: bytes, cluster: int) -> None:
    offset, length = be64(head, 8), be32(head, 16)
    if not offset and not length:
        return
    if not 0 < length <= NAME_LIMIT or offset + length > cluster:
        raise UnsafeImage("the name of its backing file lies outside of the first cluster")
    name = window.read(offset, length, "the backing file name")
    findings.references.append(f"it has a backing file, {quoted(name)}")
    findings.parent = Parent((name.decode("utf-8", "surrogateescape"),))


def _end_of_extensions(head: bytes) -> int:
    """The extensions end before the backing file name, which must follow them."""
    return be64(head, 8) or 1 << 20


def _extensions(window: Window, findings: Findings, position: int, end: int) -> None:
    end = min(end, window.size)
    for _ in range(EXTENSIONS_LIMIT):
        if position + 8 > end:
            return
        kind, length = struct.unpack(">II", window.read(position, 8, "a header extension"))
        if kind == END:
            return
        position += 8
        if position + length > end:
            raise UnsafeImage("a header extension lies outside of the first cluster")
        findings.refuse_unless(kind != ENCRYPTION, "it is encrypted (header extension)")
        if kind == BACKING_FORMAT:
            _backing_format(findings, window.read(position, length, "the backing format"))
        if kind == DATA_FILE_NAME:
            name = window.read(position, length, "the data file name")
            findings.refusals.append(f"it names an external data file, {quoted(name)}")
        if kind not in KNOWN_EXTENSIONS:
            findings.notes.append(f"it has an unknown header extension {kind:#010x}")
        position += (length + 7) & ~7
    raise UnsafeImage(f"it has more than {EXTENSIONS_LIMIT} header extensions")


def _backing_format(findings: Findings, driver: bytes) -> None:
    if findings.parent is None:
        return
    format = QEMU_FORMATS.get(driver.decode("latin-1"))
    findings.refuse_unless(
        format is not None, f"it has an unknown backing format, {quoted(driver)}"
    )
    findings.parent = replace(findings.parent, format=format)


def _tables(
    window: Window, findings: Findings, head: bytes, tables: "_ClusterTables", *, extended: bool
) -> None:
    cluster = tables.cluster
    l1_entries, l1_offset = be32(head, 36), be64(head, 40)
    span = cluster * (cluster // (16 if extended else 8))
    needed = -(-findings.virtual_size // span)
    if needed * 8 > L1_LIMIT:
        raise UnsafeImage("its virtual size needs a larger cluster table than qcow2 allows")
    findings.refuse_unless(l1_entries >= needed, "its cluster table is too short for its size")
    tables.check(l1_offset, l1_entries, "the cluster table (L1)")
    offset, clusters = be64(head, 48), be32(head, 56)
    if clusters * cluster > REFTABLE_LIMIT:
        raise UnsafeImage("its reference count table is too long")
    findings.refuse_unless(
        clusters > 0 and offset % cluster == 0 and offset >= cluster,
        "its reference count table is misaligned, or lies in the header",
    )
    window.read(offset, clusters * cluster, "the reference count table")


class _ClusterTables:
    """The L1 tables of an image, its own and its snapshots': each is read once."""

    def __init__(self, window: Window, findings: Findings, cluster: int) -> None:
        self.cluster = cluster
        self._window = window
        self._findings = findings
        self._left = TABLES_LIMIT
        self._checked: set[tuple[int, int]] = set()

    def check(self, offset: int, entries: int, what: str) -> None:
        if (offset, entries) in self._checked:
            return
        self._checked.add((offset, entries))
        findings, cluster, window = self._findings, self.cluster, self._window
        if entries * 8 > L1_LIMIT:
            raise UnsafeImage(f"{what} has {entries} entries: too many")
        findings.refuse_unless(offset % cluster == 0, f"{what} is not aligned")
        findings.refuse_unless(not entries or offset >= cluster, f"{what} lies in the header")
        content = window.read(offset, entries * 8, what)
        if not content.strip(b"\0"):
            return
        table = array("Q", content)
        table.byteswap()
        self._left -= entries - table.count(0)
        if self._left < 0:
            raise UnsafeImage(f"its cluster tables have more than {TABLES_LIMIT} entries")
        seen = [entry & OFFSET_MASK for entry in table if entry & OFFSET_MASK]
        findings.refuse_unless(
            all(entry % cluster == 0 and window.holds(entry, cluster) for entry in seen),
            f"{what} points outside of the file: it is truncated or damaged",
        )
        findings.refuse_unless(len(set(seen)) == len(seen), f"{what} has an entry twice")


def _snapshots(window: Window, findings: Findings, head: bytes, tables: _ClusterTables) -> None:
    count, offset = be32(head, 60), be64(head, 64)
    if not count:
        return
    if count > SNAPSHOT_LIMIT:
        raise UnsafeImage(f"it has {count} snapshots: too many")
    findings.refuse_unless(offset % tables.cluster == 0, "its snapshot table is not aligned")
    start = offset
    for _ in range(count):
        if offset - start > SNAPSHOT_TABLE_LIMIT:
            raise UnsafeImage("its snapshot table is too long")
        fixed = window.read(offset, 40, "the snapshot table")
        id_length, name_length = struct.unpack_from(">HH", fixed, 12)
        extra_length = be32(fixed, 36)
        if extra_length > 1024:
            raise UnsafeImage("the extra data of a snapshot is too long")
        variable = window.read(
            offset + 40, extra_length + id_length + name_length, "the snapshot table"
        )
        size = be64(variable, 8) if extra_length >= 16 else findings.virtual_size
        tables.check(be64(fixed, 0), be32(fixed, 8), "a snapshot's table")
        _note_snapshot(findings, variable[extra_length + id_length :], size)
        offset += (40 + len(variable) + 7) & ~7


def _note_snapshot(findings: Findings, name: bytes, size: int) -> None:
    shown = quoted(name)
    if size != findings.virtual_size:
        findings.notes.append(f"its snapshot {shown} has another size and can't be selected")
        return
    try:
        text = name.decode()
    except UnicodeDecodeError:
        text = ""
    if not text.isprintable() or not text or text in findings.snapshots:
        findings.notes.append(f"its snapshot {shown} has no name that selects it")
        return
    findings.snapshots.append(text)
