"""VMDK, monolithicSparse and streamOptimized: one file with its descriptor inside.

Source: VMware, "Virtual Disk Format 5.0" (2011); limits: qemu's block/vmdk.c. Little endian.
"""

import itertools
import re
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from adapters.formats.window import TABLE_LIMIT, Findings, Parent, Window, power_of_two, quoted
from pipeline.data.extents import SECTOR
from pipeline.errors import UnsafeImage
from pipeline.model.images import ImageFormat

MAGIC = b"KDMV"
HEADER_SIZE = 512
_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
NEWLINES = b"\n \r\n"  # broken by a transfer in text mode
# header flags: newline check, redundant table, zeroed grains, compressed, markers
KNOWN_FLAGS = 1 | 2 | 4 | 1 << 16 | 1 << 17
COMPRESSED, MARKERS = 1 << 16, 1 << 17
DEFLATE = 1
AT_END = 0xFFFFFFFFFFFFFFFF  # the grain directory's place is in the footer
DESCRIPTOR_LIMIT = 1 << 20
# two million grains, 128 GiB of disk, of usual size: what can be looked at in a second or two
GRAIN_TABLES_LIMIT = 8 << 20
NO_CID = "ffffffff"
FOOTER_MARKER = struct.Struct("<QII")

SUBFORMATS = {"monolithicsparse": "monolithicSparse", "streamoptimized": "streamOptimized"}
KNOWN_KEYS = {
    *("version", "encoding", "cid", "parentcid", "createtype", "isnativesnapshot"),
    *("longcontentid", "parentfilenamehint", "digesttype"),
}
# another key is let pass, unless it may name a file, or say that the content is not what it seems
TELLING = re.compile(r"path|file|hint|uri|url|key|crypt|filter|parent|device")
# qemu's block/vmdk.c reads so much of a descriptor, whatever its header says
RUN_ON = 20 * SECTOR
_SETTING = re.compile(r'([A-Za-z][A-Za-z0-9_.]*)\s*=\s*("[^"\n]*"|[A-Za-z0-9_.+-]*)')
_EXTENT = re.compile(
    r'(RW|RDONLY|NOACCESS)\s+(\d{1,19})\s+([A-Z]+)(?:\s+"([^"\n]*)"(?:\s+(\d{1,19}))?)?'
)
# of Windows in several countries: what VMware writes names in
ENCODINGS = {
    *("utf-8", "windows-1252", "windows-1250", "windows-1251", "gbk", "gb2312", "gb18030"),
    *("big5", "shift_jis", "euc-jp", "euc-kr", "iso-8859-1", "iso-8859-2", "windows-949"),
}
_QUOTED = re.compile(r'"[^"\n]*"')


@dataclass(frozen=True, slots=True)
class ExtentLine:
    """A part of a disk, as a descriptor names it; in sectors. `kind` is FLAT, SPARSE, ..."""

    sectors: int
    kind: str
    name: str
    offset: int


@dataclass(frozen=True, slots=True)
class Descriptor:
    """The text of a VMDK. Its bytes are kept as characters of the same numbers: what they spell is
    a matter of `encoding`, and of names alone."""

    settings: dict[str, str]
    extents: tuple[ExtentLine, ...]

    @property
    def createtype(self) -> str:
        return self.settings.get("createtype", "")


@dataclass(frozen=True, slots=True)
class Header:
    """The sparse extent header; places and sizes in sectors of 512 bytes."""

    version: int
    flags: int
    capacity: int
    grain: int
    descriptor: int
    descriptor_sectors: int
    entries: int
    directory: int
    newlines: bytes
    compression: int


def parse(window: Window, findings: Findings) -> None:
    header = _header(window, 0)
    findings.virtual_size = header.capacity * SECTOR
    if not 1 <= header.version <= 3:
        raise UnsafeImage(f"it has an unknown VMDK version {header.version}")
    if not header.capacity:
        # qemu would then follow the embedded descriptor to any file that it names
        raise UnsafeImage("its header declares no capacity: its extents would be elsewhere")
    unknown = header.flags & ~KNOWN_FLAGS
    findings.refuse_unless(not unknown, f"it has unknown feature flags {unknown:#x}")
    findings.refuse_unless(
        not header.flags & 1 or header.newlines == NEWLINES,
        "it was damaged by a transfer in text mode",
    )
    compressed = bool(header.flags & COMPRESSED)
    findings.refuse_unless(
        header.compression == (DEFLATE if compressed else 0),
        f"it has an unknown compression {header.compression}",
    )
    createtype = _descriptor(window, findings, header)
    findings.variant = createtype
    findings.refuse_unless(
        compressed == (createtype == "streamOptimized"),
        "its header and its descriptor disagree on the subformat",
    )
    findings.refuse_unless(
        not compressed or bool(header.flags & MARKERS), "its compressed grains have no markers"
    )
    _tables(window, findings, _with_directory(window, header), overlap_matters=not compressed)


def read_header(window: Window) -> Header:
    """The header, with the place of the grain directory. Raises UnsafeImage."""
    return _with_directory(window, _header(window, 0))


def _with_directory(window: Window, header: Header) -> Header:
    return _footer(window, header) if header.directory == AT_END else header


def _header(window: Window, offset: int) -> Header:
    fields = _HEADER.unpack_from(window.read(offset, HEADER_SIZE, "the VMDK header"))
    if fields[0] != MAGIC:
        raise UnsafeImage("its VMDK header or footer has no magic KDMV")
    return Header(
        version=fields[1],
        flags=fields[2],
        capacity=fields[3],
        grain=fields[4],
        descriptor=fields[5],
        descriptor_sectors=fields[6],
        entries=fields[7],
        directory=fields[9],
        newlines=fields[12],
        compression=fields[13],
    )


def _footer(window: Window, header: Header) -> Header:
    """The footer of a stream: a marker, a copy of the header with the directory's place, an end."""
    at = window.size - 3 * SECTOR
    sectors, size, kind = FOOTER_MARKER.unpack_from(window.read(at, SECTOR, "the VMDK footer"))
    if (sectors, size, kind) != (1, 0, 3) or any(window.read(at + 2 * SECTOR, SECTOR, "the end")):
        raise UnsafeImage("its footer is not at its end: it is truncated or damaged")
    footer = _header(window, at + SECTOR)
    same = ("version", "flags", "capacity", "grain", "entries", "compression")
    if any(getattr(footer, name) != getattr(header, name) for name in same):
        raise UnsafeImage("its header and its footer disagree")
    return footer


def _descriptor(window: Window, findings: Findings, header: Header) -> str:
    length = header.descriptor_sectors * SECTOR
    if header.descriptor and not 0 < length <= DESCRIPTOR_LIMIT:
        raise UnsafeImage("its header names no descriptor of a possible length")
    place = header.descriptor * SECTOR
    data = descriptor_text(window, place, length) if place else b""
    if not data.strip():
        findings.unread = True
        raise UnsafeImage(
            "it has no descriptor inside: it is a part of a disk in several files "
            "(NAME-s001.vmdk); name the descriptor, NAME.vmdk"
        )
    found = read_descriptor(data, findings)
    _check_settings(findings, found.settings)
    for extent in found.extents:
        if extent.kind != "SPARSE" or extent.offset:
            shown = f"{extent.kind} {quoted(extent.name.encode())}"
            findings.refusals.append(f"its descriptor has a line that is not allowed: {shown}")
    findings.refuse_unless(
        [extent.sectors for extent in found.extents] == [header.capacity],
        "its descriptor does not describe exactly the one extent that is in the file",
    )
    for extent in found.extents:
        # the name is that of the file itself, at the time it was made, and never followed
        name = spelled(extent.name, found.settings.get("encoding", ""))
        findings.refuse_unless(
            not set("/\\:") & set(name),
            f"its extent names another place, {quoted(name.encode())}",
        )
    return SUBFORMATS.get(found.createtype.lower(), "unknown")


def spelled(text: str, encoding: str) -> str:
    """A name of a descriptor in the encoding that this tells."""
    content = text.encode("latin-1")
    known = encoding.lower() in ENCODINGS
    for candidate in ((encoding,) if known else ()) + ("utf-8",):
        try:
            return content.decode(candidate)
        except (UnicodeDecodeError, LookupError):
            continue
    return content.decode("windows-1252", "replace")


def descriptor_text(window: Window, offset: int, length: int) -> bytes:
    """The text of an embedded descriptor. It ends at the first NUL, as for qemu, which writes a
    shorter CID over a longer one and leaves the end of the old text behind that of the new; a
    writer that appends a line may run over the end of its sectors."""
    data, end, _ = window.read(offset, length, "the VMDK descriptor").partition(b"\0")
    if not end and length < RUN_ON:
        more = min(RUN_ON - length, window.size - offset - length)
        text = window.read(offset + length, more, "the VMDK descriptor").partition(b"\0")[0]
        if text.translate(None, b"\r\n\t").decode("latin-1").isprintable():
            data += text
    return data


def read_descriptor(data: bytes, findings: Findings) -> Descriptor:
    """Settings and extents. Refuses, in `findings`, every line that is neither: names, comments and
    other quoted texts are of any encoding, all else is ASCII."""
    text = data.decode("latin-1")
    settings: dict[str, str] = {}
    extents: list[ExtentLine] = []
    for line in re.split(r"[\r\n]+", text):
        line = line.strip(" \t")
        if not line or line.startswith("#"):
            continue
        if not _QUOTED.sub("", line).isascii():
            raise UnsafeImage("its descriptor is not plain text")
        if extent := _EXTENT.fullmatch(line):
            name, offset = extent[4] or "", int(extent[5] or 0)
            extents.append(ExtentLine(int(extent[2]), extent[3], name, offset))
        elif setting := _SETTING.fullmatch(line):
            key = setting[1].lower()
            # some writers append to the disk data base what it has already
            known = key not in settings or key.startswith("ddb.")
            findings.refuse_unless(known, f"its descriptor has {key!r} twice")
            settings[key] = setting[2].strip('"')
        else:
            shown = quoted(line.encode())
            findings.refusals.append(f"its descriptor has a line that is not allowed: {shown}")
    return Descriptor(settings, tuple(extents))


def _check_settings(findings: Findings, settings: dict[str, str]) -> None:
    createtype = settings.get("createtype", "")
    findings.refuse_unless(
        createtype.lower() in SUBFORMATS,
        f"its subformat {quoted(createtype.encode())} is not monolithicSparse or streamOptimized",
    )
    parent = settings.get("parentcid", NO_CID).lower()
    names = settings.get("parentfilenamehint")
    findings.identifier = settings.get("cid", "").lower()
    if parent != NO_CID:
        findings.references.append("its descriptor refers to a parent disk (parentCID)")
    if names is not None:
        name = quoted(names.encode())
        findings.references.append(f"its descriptor names a parent disk, {name}")
    if findings.references:
        findings.parent = Parent((names,) if names else (), (parent,), ImageFormat.VMDK)
    check_keys(findings, settings)


def check_keys(findings: Findings, settings: dict[str, str]) -> None:
    """Refuse keys that are not known and may mean something: another file, say."""
    for key, value in settings.items():
        if key in KNOWN_KEYS or key.startswith("ddb."):
            continue
        if TELLING.search(key) or set("/\\:") & set(value):
            findings.refusals.append(f"its descriptor has an unknown key {key!r}")
        else:
            findings.notes.append(f"its descriptor has an unknown key {key!r}")


def sane(header: Header) -> bool:
    """Whether its grains and tables are of sizes that VMDK allows."""
    return power_of_two(header.grain, 8, 1 << 15) and power_of_two(header.entries, 1, 512)


def _tables(window: Window, findings: Findings, header: Header, *, overlap_matters: bool) -> None:
    """Grain directory and tables; a compressed grain's length is known only to its reader."""
    if not sane(header):
        raise UnsafeImage(
            f"its grains of {header.grain} sectors or tables of {header.entries} entries are not "
            "allowed in VMDK"
        )
    span = header.grain * header.entries
    count = -(-header.capacity // span)
    if count * 4 > TABLE_LIMIT:
        raise UnsafeImage("its virtual size needs a grain directory that is too large")
    place = header.directory * SECTOR
    directory = array("I", window.read(place, count * 4, "the grain directory"))
    if count * header.entries * 4 > GRAIN_TABLES_LIMIT:
        findings.notes.append("its grain tables are too many to be looked at beforehand")
        return
    used = array("I")  # two million entries would be 80 MB as a list
    for table in directory:
        if table:
            grains = window.read(table * SECTOR, header.entries * 4, "a grain table")
            # 0 is not allocated, 1 a grain of zeros
            used.extend(grain for grain in array("I", grains) if grain > 1)
    # the last grain of a disk may be cut short, and a compressed one has any length
    findings.refuse_unless(
        not used or window.holds(max(used) * SECTOR, SECTOR),
        "its grain tables point outside of the file: it is truncated or damaged",
    )
    if used and not overlap_matters:
        # a compressed grain begins with its place on the disk and its length (section 6.1); only
        # the last one is looked at, for the others lie before it
        last = max(used) * SECTOR
        _, length = struct.unpack("<QI", window.read(last, 12, "a compressed grain"))
        findings.refuse_unless(
            window.holds(last + 12, length), "its last grain lies outside of the file: truncated"
        )
    step = header.grain if overlap_matters else 1
    findings.refuse_unless(
        # as most writers leave them, or in another order
        _apart(used, step) or _apart(sorted(used), step),
        "its grain tables have grains that overlap",
    )


def _apart(places: Sequence[int], step: int) -> bool:
    return all(after - before >= step for before, after in itertools.pairwise(places))
