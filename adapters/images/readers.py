"""The other readers of an image that has to be agreed upon: libvhdi and qemu.

Each gives the virtual size that it reads (None: it does not know), or raises a GalleriaError.
"""

from pathlib import Path
from typing import Protocol

import pyvhdi

from adapters.images import chains
from adapters.images.maps import Maps
from adapters.process import command
from adapters.process.sandbox import Sandbox
from adapters.qemu import img
from pipeline.errors import CommandFailed, UnsafeImage
from pipeline.ports import ImageFormat, Layer
from pipeline.ports.extents import Kind

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


class Reader(Protocol):
    """`has_backing`: the image is a layer whose header names, as was declared, one below it."""

    def __call__(
        self, fd: int, layer: Layer, sandbox: Sandbox, *, has_backing: bool
    ) -> int | None: ...


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
