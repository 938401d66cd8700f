"""A VMDK in parts, put together: one new raw file, with holes, that holds what the guest sees.

The parts are those that the descriptor names, found among the files that the user gave; no name
leads out of these.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.filesystem import rawfile
from adapters.formats.layering import Allocation, Piece
from adapters.formats.vmdk_parts import Part, PartMap, Parts, read_parts
from adapters.formats.window import Window, quoted
from adapters.sources.sparse import PIECE, write_sparse
from pipeline.errors import NotFound, UnsafeImage

Finder = Callable[[str], Path | None]  # the file of a part, by the name that a descriptor has


@dataclass(frozen=True, slots=True)
class Described:
    """A descriptor, what messages call it, and how the files beside it are found."""

    path: Path
    shown: str
    find: Finder

    def parts(self) -> Parts:
        try:
            with self.path.open("rb") as file:
                return read_parts(file.read((1 << 20) + 1))
        except UnsafeImage as error:
            raise UnsafeImage(f"{self.shown} is refused: {error.message}") from None

    def file(self, part: Part) -> Path:
        found = self.find(part.name)
        if found is None:
            raise NotFound(
                f"{self.shown} is the descriptor of a VMDK in parts, and its part "
                f"{quoted(part.name.encode())} is not to be found",
                hint="put the parts beside it, or name their directory with --extents-from DIR",
            )
        return found


def beside(directory: Path) -> Finder:
    """The regular files of a directory, by name; links lead elsewhere and are not followed."""

    def find(name: str) -> Path | None:
        path = directory / name
        return (
            path if path.parent == directory and path.is_file() and not path.is_symlink() else None
        )

    return find


def files_of(described: Sequence[Described]) -> list[Path]:
    """Every file of a disk in parts."""
    return [
        path
        for item in described
        for path in (item.path, *(item.file(part) for part in item.parts().parts if part.name))
    ]


def assemble(described: Sequence[Described], target: Path) -> None:
    """Write the disk of a chain of descriptors, the top first. Raises UnsafeImage when they do not
    fit together."""
    chain = [item.parts() for item in described]
    _check_chain(described, chain)
    with contextlib.ExitStack() as stack:
        layers = [_Layer(item, parts, stack) for item, parts in zip(described, chain, strict=True)]
        size = chain[0].virtual_size
        write_sparse(_content(layers, 0, 0, size), size, target)


def _check_chain(described: Sequence[Described], chain: Sequence[Parts]) -> None:
    for depth, parts in enumerate(chain):
        shown = described[depth].shown
        below = chain[depth + 1] if depth + 1 < len(chain) else None
        if below is None and parts.parent:
            raise UnsafeImage(
                f"{shown} is a delta over another disk, {quoted(parts.parent_name.encode())}",
                hint="name that one's descriptor with --backing FILE",
            )
        if below is not None and not parts.parent:
            raise UnsafeImage(f"{shown} depends on no other disk, but one was declared below it")
        if below is not None and parts.parent != below.identifier:
            raise UnsafeImage(
                f"{shown} means a parent with the CID {parts.parent}, and "
                f"{described[depth + 1].shown} has {below.identifier}: another disk, or one that "
                "was written to since"
            )
        if below is not None and parts.virtual_size != below.virtual_size:
            raise UnsafeImage(f"{shown} and the disk below it are not of one length")


class _Layer:
    """The open parts of one descriptor."""

    def __init__(self, item: Described, parts: Parts, stack: contextlib.ExitStack) -> None:
        self._parts: list[tuple[Part, int, PartMap | None]] = []
        for part in parts.parts:
            if not part.name:
                self._parts.append((part, -1, None))
                continue
            fd = rawfile.open_readonly(item.file(part))
            stack.callback(os.close, fd)
            try:
                found = PartMap(part, Window(fd))
            except UnsafeImage as error:
                name = quoted(part.name.encode())
                raise UnsafeImage(f"{item.shown}: its part {name}: {error.message}") from None
            self._parts.append((part, fd, found))

    def runs(self, start: int, end: int) -> Iterator[tuple[Piece, int]]:
        """What holds [start, end), in order, and the file of each."""
        for part, fd, found in self._parts:
            if part.start >= end or part.start + part.length <= start:
                continue
            whole = Piece(part.start, part.start + part.length, Allocation.ZERO)
            for piece in found.pieces(start, end) if found else (whole,):
                first, last = max(piece.start, start), min(piece.end, end)
                if first < last:
                    yield (
                        Piece(first, last, piece.allocation, piece.offset + first - piece.start),
                        fd,
                    )


def _content(
    layers: Sequence[_Layer], depth: int, start: int, end: int
) -> Iterator[tuple[int, bytes]]:
    """The data of [start, end): what a layer does not hold, the one below it does."""
    for piece, fd in _merged(layers[depth].runs(start, end)):
        if piece.allocation is Allocation.ALLOCATED:
            yield from _data(fd, piece)
        elif piece.allocation is Allocation.UNALLOCATED and depth + 1 < len(layers):
            yield from _content(layers, depth + 1, piece.start, piece.end)


def _merged(runs: Iterator[tuple[Piece, int]]) -> Iterator[tuple[Piece, int]]:
    """Neighbours as one: a layer below is not asked about every grain."""
    pending: tuple[Piece, int] | None = None
    for piece, fd in runs:
        if pending is not None:
            before, file = pending
            same = before.allocation is piece.allocation and file == fd
            follows = before.offset + before.end - before.start == piece.offset
            if same and (follows or piece.allocation is not Allocation.ALLOCATED):
                pending = (Piece(before.start, piece.end, before.allocation, before.offset), fd)
                continue
            yield pending
        pending = (piece, fd)
    if pending is not None:
        yield pending


def _data(fd: int, piece: Piece) -> Iterator[tuple[int, bytes]]:
    """Bytes of a file by their places on the disk; its holes are passed over."""
    length = piece.end - piece.start
    position = piece.offset
    end = piece.offset + length
    while position < end:
        try:
            position = os.lseek(fd, position, os.SEEK_DATA)
        except OSError:  # nothing but holes from here on
            return
        count = min(PIECE, end - position)
        if count <= 0:
            return
        buffer = bytearray(count)
        rawfile.read_exactly(fd, memoryview(buffer), position)
        yield piece.start + position - piece.offset, bytes(buffer)
        position += count
