"""What the headers and tables of one open image file say: galleria's own parsers, and oslo.utils'.

It runs in the sandbox (`adapters.images.looking`) when a file is inspected for the first time, so
it imports little.
"""

import importlib
import io
import logging
import os
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from adapters.formats import Findings, Window, qcow2, raw, vdi, vhd, vhdx, vmdk
from adapters.formats.window import Few
from pipeline.data.extents import SECTOR
from pipeline.errors import UnsafeImage
from pipeline.model.images import ImageFormat

if TYPE_CHECKING:
    from oslo_utils.imageutils import format_inspector

# Headers, region tables and metadata lie here in every format; the data that follows says nothing
# to oslo.utils, whose inspectors eat a stream from its beginning.
STREAM_BYTES = 8 << 20
CHUNK = 64 << 10
# a partition table or an ISO 9660 tree is what a raw disk may well hold
RAW_NAMES = {"raw", "gpt", "iso"}
PARSERS: Mapping[ImageFormat, Callable[[Window, Findings], None]] = {
    ImageFormat.RAW: raw.parse,
    ImageFormat.QCOW2: qcow2.parse,
    ImageFormat.VHD: vhd.parse,
    ImageFormat.VHDX: vhdx.parse,
    ImageFormat.VMDK: vmdk.parse,
    ImageFormat.VDI: vdi.parse,
}
# what adapters.formats.raw calls the formats that galleria reads
CLAIMS = {
    "a qcow or qcow2 image": ImageFormat.QCOW2,
    "a VHDX image": ImageFormat.VHDX,
    "a dynamic VHD image": ImageFormat.VHD,
    "a fixed VHD image": ImageFormat.VHD,
    "a VMDK image": ImageFormat.VMDK,
    "a VDI image": ImageFormat.VDI,
}

# what it finds is in its exceptions; its log would put the same on the user's terminal
logging.getLogger("oslo_utils.imageutils.format_inspector").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits of what is taken in. `ratio`: bytes of data of the disk per byte of the file; zlib
    reaches a thousand on zeros, which no writer compresses; real systems stay below ten."""

    virtual_size: int = 32 << 40
    ratio: int = 400


def detect_format(window: Window) -> tuple[ImageFormat, list[str]]:
    """The format that claims a file, and why that is in doubt. Nothing known: raw."""
    claims = raw.lookalikes(window)
    formats = list(dict.fromkeys(CLAIMS[claim] for claim in claims if claim in CLAIMS))
    others = [claim for claim in claims if claim not in CLAIMS]
    if not formats:
        return ImageFormat.RAW, []
    if len(formats) > 1 or others:
        return formats[0], [f"it looks like several things at once: {', '.join(claims)}"]
    return formats[0], []


def inspect_as(fd: int, format: ImageFormat, policy: Policy) -> Findings:
    """Parse an open file as one format; what stops the parser is one more refusal."""
    findings = Findings(format)
    try:
        PARSERS[format](Window(fd), findings)
        findings.refuse_unless(findings.virtual_size > 0, "its virtual size is zero")
    except UnsafeImage as error:
        findings.refusals.append(error.message)
    findings.refuse_unless(
        findings.virtual_size <= policy.virtual_size,
        f"its virtual size of {findings.virtual_size} bytes is over the limit of "
        f"{policy.virtual_size}",
    )
    return findings


def oslo(fd: int, format: ImageFormat, *, has_backing: bool) -> int | None:
    """The virtual size that oslo.utils' format inspectors read, None where they know none.
    `has_backing`: the image is a layer whose header names, as was declared, one below it. Raises
    UnsafeImage where they see another format, or no safe one."""
    inspectors = _format_inspector()
    with open(os.dup(fd), "rb") as stream:  # noqa: PTH123 - a descriptor
        stream.seek(0)
        content = stream.read(STREAM_BYTES)
        # some formats have a footer; what lies between is never looked at
        stream.seek(max(stream.tell(), os.fstat(fd).st_size - CHUNK))
        content += stream.read(CHUNK)
    wrapper = inspectors.InspectWrapper(io.BytesIO(_for_oslo(content, format)))
    try:
        while wrapper.read(CHUNK):
            pass
        wrapper.close()
        found = {inspector.NAME: inspector for inspector in wrapper.formats or ()}
        # it knows no fixed VHD: that has its only header at the end
        names = set(found) - RAW_NAMES
        expected = set() if not names and format is ImageFormat.VHD else {format.value}
        if names != expected - RAW_NAMES:
            raise UnsafeImage(f"it sees {sorted(found)} and not {format.value}")
        for name in names:
            _safety_check(found[name], format, has_backing=has_backing)
            return int(found[name].virtual_size)
    except UnsafeImage:
        raise
    except Exception as error:  # its parsers raise whatever a hostile header makes them
        raise UnsafeImage(f"{type(error).__name__}: {str(error)[:300]!a}") from None
    return None


def _for_oslo(content: bytes, format: ImageFormat) -> bytes:
    """Without what it is known to misread, which galleria's parser has looked at."""
    if format not in (ImageFormat.QCOW2, ImageFormat.VMDK):
        return content
    data = bytearray(content)
    if format is ImageFormat.QCOW2 and data[4:8] == b"\0\0\0\2":
        # it looks for the feature bits of version 3 where version 2 has header extensions
        data[qcow2.V2_HEADER : qcow2.V3_HEADER] = bytes(qcow2.V3_HEADER - qcow2.V2_HEADER)
    if format is ImageFormat.VMDK and data.startswith(vmdk.MAGIC):
        # it takes a descriptor for ASCII, and the last line for whole, wherever the sectors end
        start, count = struct.unpack_from("<QQ", data, 28)
        start, end = start * SECTOR, (start + count) * SECTOR
        text, nul, rest = bytes(data[start:end]).partition(b"\0")
        if not nul:
            text = text[: text.rfind(b"\n") + 1].ljust(len(text), b"\0")
        text = bytes(byte if byte < 0x80 else 0x3F for byte in text)
        data[start:end] = text + nul + rest
    return bytes(data)


class _Luks(ModuleType):
    """oslo.utils' module that decrypts, imported when its inspector of LUKS has a use for it: it
    needs cryptography. Where that is missing the program ends, as an exception would be taken for
    a format that does not match."""

    LUKSHeader = dict[str, Any]  # what the inspector's annotations name

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(importlib.import_module(self.__name__), name)
        except ImportError as error:
            raise SystemExit(f"oslo.utils' inspector of LUKS can't run: {error}") from None


@cache
def _format_inspector() -> ModuleType:
    """oslo.utils' module of that name, by itself, and only when an image is read: the package
    around it compiles the 150 patterns of `strutils`, which takes 0.1 s."""
    import oslo_utils

    package = ModuleType("oslo_utils.imageutils")
    package.__path__ = [str(Path(path) / "imageutils") for path in oslo_utils.__path__]
    vars(package)["_luks"] = _Luks("oslo_utils.imageutils._luks")
    sys.modules[package.__name__] = package
    try:
        return importlib.import_module("oslo_utils.imageutils.format_inspector")
    finally:
        del sys.modules[package.__name__]


def _safety_check(
    inspector: "format_inspector.FileInspector", format: ImageFormat, *, has_backing: bool
) -> None:
    try:
        inspector.safety_check()
    except _format_inspector().SafetyCheckFailed as error:
        # it has not heard of extended_l2 yet; galleria's parser has looked at every feature bit
        known = {"unknown_features"} if format is ImageFormat.QCOW2 else set()
        failures = set(error.failures) - known - ({"backing_file"} if has_backing else set())
        if failures:
            raise UnsafeImage(f"its safety checks fail: {sorted(failures)}") from None


def spelled(findings: Findings) -> dict[str, Any]:
    """Findings as JSON has them; `adapters.images.looking` makes them again."""

    def few(sentences: Few) -> dict[str, Any]:
        return {"told": list(sentences), "more": sentences.more}

    parent = findings.parent
    return {
        "variant": findings.variant,
        "virtual_size": findings.virtual_size,
        "logical_sector_size": findings.logical_sector_size,
        "snapshots": findings.snapshots,
        "references": few(findings.references),
        "refusals": few(findings.refusals),
        "notes": few(findings.notes),
        "identifier": findings.identifier,
        "unread": findings.unread,
        "parent": None
        if parent is None
        else {
            "names": parent.names,
            "identifiers": parent.identifiers,
            "format": None if parent.format is None else parent.format.value,
        },
    }
