"""Writing a disk as one stand-alone file: complete and durable under its name, or nothing.

The file is made in a private directory beside its target (all that qemu sees of it), checked by
our own parser, synced, and renamed to a name that must be new.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from adapters.filesystem import rawfile
from adapters.filesystem.outputs import committed
from adapters.formats import vhd_footer
from adapters.images import gpt, inspect, source
from adapters.images.inspect import Policy
from adapters.process import command
from adapters.process.sandbox import Sandbox
from adapters.qemu import img
from pipeline.errors import (
    InvalidParameter,
    StageFailed,
    VerificationFailed,
)
from pipeline.ports import Chain, ImageFormat, Source
from pipeline.ports.extents import Kind

BUFFER = 1 << 20
# headers, block maps and sector bitmaps of any format, per disk and per byte of data
OVERHEAD_FIXED, OVERHEAD_SHARE = 64 << 20, 16

# (format, subformat) -> qemu's options and whether clusters are compressed
RECIPES: Mapping[tuple[ImageFormat, str], tuple[tuple[str, ...], bool]] = {
    # without force_size qemu rounds the length up to a CHS geometry
    (ImageFormat.VHD, "dynamic"): (("subformat=dynamic", "force_size=on"), False),
    (ImageFormat.VHDX, ""): (("subformat=dynamic",), False),
    (ImageFormat.VHDX, "dynamic"): (("subformat=dynamic",), False),
    (ImageFormat.VHDX, "fixed"): (("subformat=fixed",), False),
    (ImageFormat.QCOW2, ""): (("compat=1.1",), False),
    (ImageFormat.QCOW2, "zlib"): (("compat=1.1", "compression_type=zlib"), True),
    (ImageFormat.QCOW2, "zstd"): (("compat=1.1", "compression_type=zstd"), True),
    (ImageFormat.VMDK, ""): (("subformat=monolithicSparse",), False),
    (ImageFormat.VMDK, "monolithicSparse"): (("subformat=monolithicSparse",), False),
    (ImageFormat.VMDK, "streamOptimized"): (("subformat=streamOptimized",), False),
    (ImageFormat.VDI, ""): (("static=off",), False),
    (ImageFormat.VDI, "dynamic"): (("static=off",), False),
    (ImageFormat.VDI, "fixed"): (("static=on",), False),
}


def unknown_subformat(format: ImageFormat, subformat: str) -> NoReturn:
    known = {name for kind, name in RECIPES if kind is format and name}
    # fixed ones are written by galleria itself
    known |= {ImageFormat.VHD: {"fixed"}}.get(format, set())
    raise InvalidParameter(
        f"{format.value} has no subformat {subformat!r}",
        hint=f"one of: {', '.join(sorted(known))}" if known else "it has none",
    )


def convert(
    sandbox: Sandbox,
    policy: Policy,
    chain: Chain,
    path: Path,
    format: ImageFormat,
    subformat: str = "",
) -> None:
    """Write a disk (or the top layer's snapshot) by qemu-img."""
    recipe = RECIPES.get((format, subformat))
    if recipe is None:
        unknown_subformat(format, subformat)
    options, compressed = recipe
    size = source.virtual_size(chain, policy)
    limits = command.Limits(
        address_space=img.WORKING.address_space,
        # what was inspected bounds what may be written: a bomb ends here
        file_size=size + size // OVERHEAD_SHARE + OVERHEAD_FIXED,
    )
    with committed(path, [layer.path for layer in chain]) as temporary:
        img.convert(
            sandbox,
            chain,
            temporary,
            format.qemu_name,
            options=options,
            compressed=compressed,
            limits=limits,
        )
        _verify(temporary, format, size, policy)


def _verify(path: Path, format: ImageFormat, size: int, policy: Policy) -> None:
    """Inspect the output again: what was written is what was asked for."""
    fd = rawfile.open_readonly(path)
    try:
        findings = inspect.inspect_as(fd, format, policy)
    finally:
        os.close(fd)
    problems = findings.refusals + findings.references
    if findings.virtual_size != size:
        problems.append(f"it has {findings.virtual_size} bytes instead of {size}")
    if problems:
        raise VerificationFailed(f"the {format.value} that was written is wrong: {problems[0]}")


def write_plain(disk: Source, chain: Chain, path: Path, *, footer: bool) -> None:
    """Write the disk that a chain is, as a raw file or with `footer` as a fixed VHD, sparsely; one
    read of it."""
    size = disk.virtual_size
    length = -(-size // vhd_footer.MIB) * vhd_footer.MIB if footer else size
    with committed(path, [layer.path for layer in chain]) as temporary:
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, length)
            _copy(disk, fd)
            if length != size:
                gpt.move_backup(fd, size, length)
            if footer:
                rawfile.write_exactly(fd, memoryview(vhd_footer.make_fixed(length)), length)
        finally:
            os.close(fd)
        if footer and (problems := _footer_problems(temporary, length)):
            raise VerificationFailed(f"the VHD that was written is wrong: {problems}")


def _footer_problems(path: Path, length: int) -> str:
    with path.open("rb") as file:
        file.seek(-vhd_footer.FOOTER_SIZE, os.SEEK_END)
        try:
            written = vhd_footer.parse(file.read())
        except ValueError as error:
            return str(error)
    right = (vhd_footer.DiskType.FIXED.value, length, path.stat().st_size - vhd_footer.FOOTER_SIZE)
    found = (written.disk_type, written.current_size, written.current_size)
    return "" if found == right else f"its footer says {found}, not {right}"


def _copy(disk: Source, fd: int) -> None:
    buffer, zeros = memoryview(bytearray(BUFFER)), bytearray(BUFFER)
    position = 0
    for extent in disk.extents():
        position = extent.end
        if extent.kind is not Kind.DATA:
            continue
        for start in range(extent.start, extent.end, BUFFER):
            piece = extent.part(start, min(start + BUFFER, extent.end))
            part = buffer[: piece.length]
            disk.read_into(part, piece)
            # some sources (VHDX blocks, preallocated disks) hold long runs of zeros; a bytearray
            # compares by memcmp, a memoryview item by item
            if zeros[: piece.length] != part:
                rawfile.write_exactly(fd, part, start)
    if position != disk.virtual_size:
        raise StageFailed(f"the extents of the disk end at {position} of {disk.virtual_size} bytes")
