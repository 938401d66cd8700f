"""The other readers of an image that has to be agreed upon: oslo.utils, libvhdi and qemu.

Each gives the virtual size that it reads (None: it does not know), or raises a GalleriaError.
"""

import importlib
import io
import logging
import os
import struct
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import pyvhdi

from adapters.formats import qcow2, vmdk
from adapters.images import chains
from adapters.images.maps import Maps
from adapters.process import command
from adapters.process.sandbox import Sandbox
from adapters.qemu import img
from pipeline.data.extents import SECTOR
from pipeline.errors import CommandFailed, UnsafeImage
from pipeline.ports import ImageFormat, Layer
from pipeline.ports.extents import Kind

if TYPE_CHECKING:
    from oslo_utils.imageutils import format_inspector

# Headers, region tables and metadata lie here in every format; the data that follows says nothing
# to oslo.utils, whose inspectors eat a stream from its beginning.
STREAM_BYTES = 8 << 20
CHUNK = 64 << 10
# a partition table or an ISO 9660 tree is what a raw disk may well hold
RAW_NAMES = {"raw", "gpt", "iso"}

# libvhdi is a C library that has not been hardened for long: it runs in the sandbox, from its one
# file, under the distribution's Python (the module has the stable ABI)
LIBVHDI = """
import sys, importlib.machinery, importlib.util
loader = importlib.machinery.ExtensionFileLoader("pyvhdi", sys.argv[1])
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("pyvhdi", loader))
loader.exec_module(module)
image = module.file()
try:
    with open(sys.argv[2], "rb") as stream:
        image.open_file_object(stream)
        print(image.get_media_size())
        image.close()
except OSError as error:
    sys.exit(str(error)[:1000])
"""

# what it finds is in its exceptions; its log would put the same on the user's terminal
logging.getLogger("oslo_utils.imageutils.format_inspector").setLevel(logging.CRITICAL)


class Reader(Protocol):
    """`has_backing`: the image is a layer whose header names, as was declared, one below it."""

    def __call__(
        self, fd: int, layer: Layer, sandbox: Sandbox, *, has_backing: bool
    ) -> int | None: ...


def oslo(fd: int, layer: Layer, sandbox: Sandbox, *, has_backing: bool) -> int | None:
    """oslo.utils' format inspectors: pure Python, so in this process."""
    inspectors = _format_inspector()
    with open(os.dup(fd), "rb") as stream:  # noqa: PTH123 - a descriptor
        stream.seek(0)
        content = stream.read(STREAM_BYTES)
        # some formats have a footer; what lies between is never looked at
        stream.seek(max(stream.tell(), os.fstat(fd).st_size - CHUNK))
        content += stream.read(CHUNK)
    wrapper = inspectors.InspectWrapper(io.BytesIO(_for_oslo(content, layer.format)))
    try:
        while wrapper.read(CHUNK):
            pass
        wrapper.close()
        found = {inspector.NAME: inspector for inspector in wrapper.formats or ()}
        # it knows no fixed VHD: that has its only header at the end
        names = set(found) - RAW_NAMES
        expected = set() if not names and layer.format is ImageFormat.VHD else {layer.format.value}
        if names != expected - RAW_NAMES:
            raise UnsafeImage(f"it sees {sorted(found)} and not {layer.format.value}")
        for name in names:
            _safety_check(found[name], layer, has_backing=has_backing)
            return int(found[name].virtual_size)
    except UnsafeImage:
        raise
    except Exception as error:  # its parsers raise whatever a hostile header makes them
        raise UnsafeImage(f"{type(error).__name__}: {str(error)[:300]!a}") from None
    return None


def _for_oslo(content: bytes, format: ImageFormat) -> bytes:
    """A copy without what it is known to misread, which galleria's parser has looked at."""
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


@cache
def _format_inspector() -> ModuleType:
    """oslo.utils' module of that name, by itself, and only when an image is read: the package
    around it compiles the 150 patterns of `strutils`, which takes 0.1 s."""
    import oslo_utils

    package = ModuleType("oslo_utils.imageutils")
    package.__path__ = [str(Path(path) / "imageutils") for path in oslo_utils.__path__]
    sys.modules[package.__name__] = package
    try:
        return importlib.import_module("oslo_utils.imageutils.format_inspector")
    finally:
        del sys.modules[package.__name__]


def _safety_check(
    inspector: "format_inspector.FileInspector", layer: Layer, *, has_backing: bool
) -> None:
    try:
        inspector.safety_check()
    except _format_inspector().SafetyCheckFailed as error:
        # it has not heard of extended_l2 yet; galleria's parser has looked at every feature bit
        known = {"unknown_features"} if layer.format is ImageFormat.QCOW2 else set()
        failures = set(error.failures) - known - ({"backing_file"} if has_backing else set())
        if failures:
            raise UnsafeImage(f"its safety checks fail: {sorted(failures)}") from None


def libvhdi(fd: int, layer: Layer, sandbox: Sandbox, *, has_backing: bool) -> int | None:
    if layer.format not in (ImageFormat.VHD, ImageFormat.VHDX):
        return None
    module = Path(pyvhdi.__file__)
    argv = ["python3", "-I", "-S", "-c", LIBVHDI, sandbox.name(module), sandbox.name(layer)]
    done = command.run(
        sandbox.wrap(argv, read=[module, layer], limits=command.INSPECTION), timeout=120
    )
    return int(done.stdout)


def qemu_img(fd: int, layer: Layer, sandbox: Sandbox, *, has_backing: bool) -> int | None:
    if chains.read_by_us(layer.format, has_backing=has_backing):
        return None
    # of a raw file it would read nothing; that somebody writes to it is noticed by its pin
    if layer.format is ImageFormat.RAW:
        return None
    try:
        answer = img.info(sandbox, (layer,))
    except CommandFailed as error:
        if "Is another process using the image" in error.stderr:
            raise UnsafeImage("another program has it open for writing (a running VM?)") from None
        raise
    backing = () if has_backing else ("backing-filename", "full-backing-filename")
    for key in (*backing, "encrypted"):
        if answer.get(key):
            raise UnsafeImage(f"it reports {key}")
    details = answer.get("format-specific", {}).get("data", {})
    if details.get("data-file") or details.get("corrupt"):
        raise UnsafeImage("it reports a data file or corruption")
    if answer.get("format") != layer.format.qemu_name:
        raise UnsafeImage(f"it reports the format {answer.get('format')!r}")
    return int(answer["virtual-size"])


READERS: tuple[tuple[str, Reader], ...] = (
    ("oslo.utils", oslo),
    ("libvhdi", libvhdi),
    ("qemu", qemu_img),
)


def check_amplification(fd: int, layer: Layer, virtual_size: int, maps: Maps, ratio: int) -> None:
    """Refuse a disk that unpacks to far more data than its file can honestly hold.

    Plain clusters can't be more than the file: some would be used twice. Compressed ones
    can, `ratio` times. A VHDX's block table has been checked for both by its parser, and a raw file
    has no table.
    """
    if layer.format in (ImageFormat.VHDX, ImageFormat.RAW):
        return
    plain = packed = 0
    file_size = layer.opened.stat().st_size
    with maps.of((layer,), [fd]) as output:
        for extent in img.parse_map(output, virtual_size):
            if extent.kind is not Kind.DATA:
                continue
            if extent.offset is None:
                packed += extent.length
            else:
                plain += extent.length
                if extent.offset + extent.length > file_size:
                    raise UnsafeImage(
                        "some of its data lies outside of the file: it is truncated or damaged"
                    )
    if plain > file_size:
        raise UnsafeImage(
            f"{plain} bytes of data are in a file of {file_size}: it uses some of them twice"
        )
    if packed > ratio * file_size:
        raise UnsafeImage(
            f"it unpacks to {packed} bytes, more than {ratio} times the {file_size} of the file"
        )
