"""Vagrant boxes and OVAs, opened: what was unpacked of them in the sandbox, as the disks and the
description of one machine."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from adapters.process.sandbox import Sandbox
from adapters.sources.archive import DISK_SUFFIXES, checked_name, find_in
from adapters.sources.compression import compression_of, head_of
from adapters.sources.machines import Disk
from adapters.sources.parts import Described, assemble
from adapters.sources.sparse import PIECE, write_sparse
from adapters.sources.streams import decompressed
from adapters.sources.unpacking import made, senseless, text, unpacked
from adapters.sources.wrapped import expand, wrapping_of
from pipeline.data.extents import SECTOR
from pipeline.errors import DescriptionInvalid, InvalidParameter, UnsafeImage
from pipeline.model.descriptions import Description
from pipeline.model.images import ImageFormat
from pipeline.model.sources import ArchiveSource, DiskSource
from pipeline.ports.sources import Supply

BLANK_LIMIT = 64 << 40  # of an empty disk, whose length costs nothing to claim
XML_HEADS = (b"<?xml", b"<Envelope", b"<ovf:Envelope")


def open_archive(
    source: ArchiveSource, archive: Path | Mapping[str, Path], into: Path, sandbox: Sandbox
) -> Supply:
    """Unpack into the private directory `into`, verify, and say what the machine is. `archive` is
    where it is read from; of one that is a directory, its files by their names."""
    shown = source.shown
    head = head_of(archive) if isinstance(archive, Path) else b""
    if head.lstrip(b"\xef\xbb\xbf \r\n").startswith(XML_HEADS):
        raise InvalidParameter(
            f"{shown} is an OVF descriptor alone, without its disks",
            hint="pack it with its disks: tar -cf NAME.ova NAME.ovf NAME.mf NAME-disk1.vmdk",
        )
    try:
        asked = json.dumps([source.machine, source.configuration])
        answer = unpacked(archive, into, sandbox, source.form.value, asked)
        return _supply(source, answer, into, sandbox)
    except UnsafeImage as error:
        raise UnsafeImage(f"{shown!a} is refused: {error.message}", hint=error.hint) from None


class _Machine:
    """An unpacked archive, and the disks of its machine as they are made of what was in it."""

    def __init__(
        self, source: ArchiveSource, files: Mapping[str, Path], into: Path, box: Sandbox
    ) -> None:
        self._source = source
        self._files = files
        self._into = into
        self._sandbox = box
        self._used: set[str] = set()
        self._made = 0

    def disk(self, number: int, disk: Disk) -> DiskSource:
        """A disk as an image file: unpacked and put together where it has to be. What was put
        together is a raw disk, and known to be."""
        shown = f"{self._source.path.name}: {disk.name}"
        lun = None if number == 0 else number - 1
        if not disk.members:
            blank = self._blank(disk.capacity or 0)
            return DiskSource(lun, blank, declared=ImageFormat.RAW, name=shown)
        self._used.update(disk.members)
        path = self._file(disk.members)
        if compression := compression_of(head_of(path)):
            target = self._new()
            with decompressed(path, compression, self._sandbox) as stream:
                expand(stream.read(4096), stream, path.stat().st_size, target)
            path = target
        declared = disk.declared
        if wrapping_of(head_of(path)) == "parts":
            path, declared = self._joined(path, disk.name, shown), ImageFormat.RAW
        return DiskSource(lun, path, declared=declared, virtual_size=disk.capacity, name=shown)

    def refuse_others(self, described: Sequence[str]) -> None:
        """A disk that nothing describes is not what the user believes to publish."""
        for name in self._files:
            known = name in self._used or name in described or name.startswith("include/")
            if not known and name.lower().endswith(DISK_SUFFIXES):
                raise DescriptionInvalid(f"the archive holds {name!a}, which it does not describe")

    def _file(self, members: Sequence[str]) -> Path:
        """One file of members, one after the other."""
        files = [self._files[name] for name in members]
        if len(files) == 1:
            return files[0]
        target = self._new()
        write_sparse(_pieces(files), sum(path.stat().st_size for path in files), target)
        for path in files:
            path.unlink()
        return target

    def _joined(self, path: Path, name: str, shown: str) -> Path:
        """A VMDK in parts, of which `path` is the descriptor."""
        folder = PurePosixPath(name).parent

        def find(part: str) -> Path | None:
            found = find_in(self._files, part, str(folder).removeprefix("."))
            if found is not None:
                self._used.add(found)
            return None if found is None else self._files[found]

        target = self._new()
        assemble([Described(path, shown, find)], target)
        return target

    def _blank(self, capacity: int) -> Path:
        """An empty disk."""
        size = -(-capacity // SECTOR) * SECTOR
        if size > BLANK_LIMIT:
            raise DescriptionInvalid(f"the OVF has an empty disk of {capacity} bytes")
        target = self._new()
        write_sparse((), size, target)
        return target

    def _new(self) -> Path:
        self._made += 1
        return self._into / f"made-{self._made}"


def _supply(
    source: ArchiveSource, answer: Mapping[str, Any], into: Path, sandbox: Sandbox
) -> Supply:
    try:
        files = {
            checked_name(text(name)): made(into, text(leaf))
            for name, leaf in answer["files"].items()
        }
        disks = [_disk(spelled) for spelled in answer["disks"]]
        about = [None if word is None else text(word) for word in answer["description"]]
        described = [text(name) for name in answer["described"]]
        used = {name for disk in disks for name in disk.members}
        if not disks or not used <= set(files):
            raise ValueError("there is no such machine")
        generation, architecture, controller, os_type = about
        description = Description(generation, architecture, controller, os_type)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise senseless(error) from None
    machine = _Machine(source, files, into, sandbox)
    found = tuple(machine.disk(number, disk) for number, disk in enumerate(disks))
    machine.refuse_others(described)
    return Supply(found, description, lasting=False)


def _disk(spelled: Mapping[str, Any]) -> Disk:
    declared, capacity = spelled["declared"], spelled["capacity"]
    return Disk(
        text(spelled["name"]),
        tuple(text(name) for name in spelled["members"]),
        None if declared is None else ImageFormat(declared),
        None if capacity is None else int(capacity),
    )


def _pieces(files: Sequence[Path]) -> Iterator[tuple[int, bytes]]:
    position = 0
    for path in files:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                yield position, piece
                position += len(piece)
