"""What an image file really is, and whether it is safe: by its content, never by its name.

    detect_format  magics at the head and the tail; exactly one format may claim the file
    parse          our own strict parser: an allowlist; any doubt is a refusal
    agree          only if there is no refusal yet: oslo.utils, libvhdi and qemu must see the same
                   format and the same virtual size

An inspector alone can be got round, so the last two readers run in the sandbox, and so does
everything that opens the image later. Chains that are declared from outside pass here layer by
layer: what a layer depends on is kept apart from its other refusals (`Findings.references`), and
has to be the layer that was declared below it.
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.filesystem import rawfile
from adapters.formats import PARSERS, Findings, Window
from adapters.formats.raw import lookalikes
from adapters.images import chains, readers
from adapters.images.maps import Maps
from adapters.process.sandbox import Sandbox
from pipeline.errors import GalleriaError, UnsafeImage
from pipeline.ports import ImageFacts, ImageFormat, Layer

# what adapters.formats.raw calls the formats that galleria reads
CLAIMS = {
    "a qcow or qcow2 image": ImageFormat.QCOW2,
    "a VHDX image": ImageFormat.VHDX,
    "a dynamic VHD image": ImageFormat.VHD,
    "a fixed VHD image": ImageFormat.VHD,
    "a VMDK image": ImageFormat.VMDK,
    "a VDI image": ImageFormat.VDI,
}


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits of what is taken in. `ratio`: bytes of data of the disk per byte of the file; zlib
    reaches a thousand on zeros, which no writer compresses; real systems stay below ten."""

    virtual_size: int = 32 << 40
    ratio: int = 400


def detect_format(window: Window) -> tuple[ImageFormat, list[str]]:
    """The format that claims a file, and why that is in doubt. Nothing known: raw."""
    claims = lookalikes(window)
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


@dataclass(frozen=True, slots=True)
class _File:
    """One layer's open file and what its parser found."""

    fd: int
    layer: Layer
    status: os.stat_result
    findings: Findings


def inspect(
    path: Path, sandbox: Sandbox, policy: Policy, maps: Maps, *, declared: ImageFormat | None = None
) -> ImageFacts:
    """Inspect one file. Raises NotFound, and UnsafeImage when it is no regular or an empty file."""
    return inspect_chain([(path, declared)], sandbox, policy, maps)[0]


def inspect_chain(
    layers: Sequence[tuple[Path, ImageFormat | None]],
    sandbox: Sandbox,
    policy: Policy,
    maps: Maps,
) -> tuple[ImageFacts, ...]:
    """Inspect every declared layer by itself, top first, and whether each means the next."""
    with contextlib.ExitStack() as stack:
        files = [_look(path, declared, policy, stack) for path, declared in layers]
        found = [(file.status.st_dev, file.status.st_ino) for file in files]
        for depth, file in enumerate(files):
            findings = file.findings
            if depth + 1 < len(files):
                below = files[depth + 1]
                findings.refusals += chains.problems(
                    findings, below.layer.path, below.findings, found, depth
                )
            elif findings.references:
                # a file that names others is not understood without them, and no more than that
                findings.unread = not findings.refusals
                findings.refusals += findings.references
            if not findings.refusals:
                _agree(file.fd, file.layer, findings, sandbox, policy, maps)
        return tuple(_facts(file) for file in files)


def _look(
    path: Path, declared: ImageFormat | None, policy: Policy, stack: contextlib.ExitStack
) -> _File:
    fd = rawfile.open_readonly(path)
    stack.callback(os.close, fd)
    status = os.fstat(fd)
    if not status.st_size:
        raise UnsafeImage(f"{str(path)!r} is empty", hint="was it copied or downloaded whole?")
    format, doubts = detect_format(Window(fd))
    findings = inspect_as(fd, format, policy)
    findings.refusals[:0] = doubts
    if doubts or declared not in (None, format):
        findings.unread = False
    if declared is not None and declared is not format:
        findings.refusals.insert(0, f"it is declared as {declared.value}, but it is {format.value}")
    return _File(fd, Layer(path, format), status, findings)


def _facts(file: _File) -> ImageFacts:
    findings = file.findings
    return ImageFacts(
        path=file.layer.path,
        format=file.layer.format,
        variant=findings.variant,
        virtual_size=findings.virtual_size,
        file_size=file.status.st_size,
        allocated_size=file.status.st_blocks * 512,
        logical_sector_size=findings.logical_sector_size,
        snapshots=tuple(findings.snapshots),
        refusals=findings.refusals.told(),
        notes=findings.notes.told(),
        unread=findings.unread,
    )


def _agree(
    fd: int, layer: Layer, findings: Findings, sandbox: Sandbox, policy: Policy, maps: Maps
) -> None:
    """Ask the other readers, one after the other; the first contradiction ends it."""
    for name, reader in readers.READERS:
        try:
            size = reader(fd, layer, sandbox, has_backing=bool(findings.references))
        except GalleriaError as error:
            reason = " ".join(error.message.split())
            findings.refusals.append(f"{name} does not read it: {reason}")
            return
        if size is not None and size != findings.virtual_size:
            findings.refusals.append(
                f"{name} reads a virtual size of {size} bytes, and galleria {findings.virtual_size}"
            )
            return
    try:
        if not chains.read_by_us(layer.format, has_backing=bool(findings.references)):
            readers.check_amplification(fd, layer, findings.virtual_size, maps, policy.ratio)
    except GalleriaError as error:
        findings.refusals.append(error.message)
