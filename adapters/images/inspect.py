"""What an image file really is, and whether it is safe: by its content, never by its name.

    look    magics at the head and the tail: exactly one format may claim the file; then our own
            strict parser: an allowlist; any doubt is a refusal
    agree   only if there is no refusal yet: oslo.utils, libvhdi and qemu must see the same format
            and the same virtual size

An inspector alone can be got round, so all of them run in the sandbox, and so does everything that
opens the image later. Chains that are declared from outside pass here layer by
layer: what a layer depends on is kept apart from its other refusals (`Findings.references`), and
has to be the layer that was declared below it.
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.filesystem import rawfile
from adapters.formats import Findings
from adapters.images import chains, looking, readers
from adapters.images.headers import Policy, detect_format, inspect_as
from adapters.images.maps import Maps
from adapters.process.sandbox import Sandbox
from pipeline.errors import GalleriaError, UnsafeImage
from pipeline.ports import ImageFacts, ImageFormat, Layer


@dataclass(frozen=True, slots=True)
class _File:
    """One layer's open file and what its parser found."""

    fd: int
    layer: Layer
    status: os.stat_result
    findings: Findings
    oslo: int | str | None  # the virtual size that oslo.utils reads, or why it does not


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
        files = [_look(path, declared, sandbox, policy, stack) for path, declared in layers]
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
                _agree(file, sandbox, policy, maps)
        return tuple(_facts(file) for file in files)


def _look(
    path: Path,
    declared: ImageFormat | None,
    sandbox: Sandbox,
    policy: Policy,
    stack: contextlib.ExitStack,
) -> _File:
    fd = rawfile.open_readonly(path)
    stack.callback(os.close, fd)
    status = os.fstat(fd)
    if not status.st_size:
        raise UnsafeImage(f"{str(path)!r} is empty", hint="was it copied or downloaded whole?")
    seen = looking.look(fd, sandbox, policy)
    format, doubts, findings = seen.format, seen.doubts, seen.findings
    findings.refusals[:0] = doubts
    if doubts or declared not in (None, format):
        findings.unread = False
    if declared is not None and declared is not format:
        findings.refusals.insert(0, f"it is declared as {declared.value}, but it is {format.value}")
    return _File(fd, Layer(path, format), status, findings, seen.oslo)


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


def _agree(file: _File, sandbox: Sandbox, policy: Policy, maps: Maps) -> None:
    """Ask the other readers, one after the other; the first contradiction ends it."""
    fd, layer, findings = file.fd, file.layer, file.findings
    if isinstance(file.oslo, str):
        findings.refusals.append(f"oslo.utils does not read it: {' '.join(file.oslo.split())}")
        return
    if not _same("oslo.utils", file.oslo, findings):
        return
    for name, reader in readers.READERS:
        try:
            size = reader(fd, layer, sandbox, has_backing=bool(findings.references))
        except GalleriaError as error:
            reason = " ".join(error.message.split())
            findings.refusals.append(f"{name} does not read it: {reason}")
            return
        if not _same(name, size, findings):
            return
    try:
        if not chains.read_by_us(layer.format, has_backing=bool(findings.references)):
            readers.check_amplification(fd, layer, findings.virtual_size, maps, policy.ratio)
    except GalleriaError as error:
        findings.refusals.append(error.message)


def _same(name: str, size: int | None, findings: Findings) -> bool:
    if size is None or size == findings.virtual_size:
        return True
    findings.refusals.append(
        f"{name} reads a virtual size of {size} bytes, and galleria {findings.virtual_size}"
    )
    return False


__all__ = ["Policy", "detect_format", "inspect", "inspect_as", "inspect_chain"]
