"""A disk image in a wrapping, taken out of it: compressed (NAME.raw.xz, NAME.qcow2.zst), the one
disk of an archive (disk.raw in a tar.gz, NAME.vhd in a zip), or a VMDK in parts.

What comes out is one new file in the work directory, inspected like any other. Limits: data at most
400 times what was compressed, zeros, which become holes, far more.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from adapters.formats.vmdk_parts import is_descriptor
from adapters.process.sandbox import Sandbox
from adapters.sources.archive import LENGTH_LIMIT, PIECE, RATIO, ZIP
from adapters.sources.compression import HEAD, compression_of, head_of
from adapters.sources.parts import Described, Finder, assemble, beside
from adapters.sources.sparse import data_in, write_sparse
from adapters.sources.streams import Stream, decompressed
from adapters.sources.unpacking import only_disk
from pipeline.errors import UnsafeImage

# zeros are holes and cost time alone: so much may be made of nothing, and so much of each byte
ZEROS, ZEROS_RATIO = 64 << 30, 20_000
DATA = 64 << 20


def wrapping_of(head: bytes) -> str:
    """How a file that begins so wraps a disk: gzip, zip, tar, parts, ...; empty when it does not,
    as far as can be told."""
    if compression := compression_of(head):
        return compression
    if head.startswith(ZIP):
        return "zip"
    if head[257:262] == b"ustar":
        return "tar"
    return "parts" if is_descriptor(head) else ""


def unwrap(path: Path, shown: str, into: Path, sandbox: Sandbox) -> tuple[Path, str]:
    """The one disk that a compressed file or an archive holds, in a new file in `into`, and the
    name that messages should call it by."""
    try:
        return _unwrap(path, shown, into, sandbox)
    except UnsafeImage as error:
        if shown in error.message:
            raise
        raise UnsafeImage(f"{shown} is refused: {error.message}", hint=error.hint) from None


def _unwrap(path: Path, shown: str, into: Path, sandbox: Sandbox) -> tuple[Path, str]:
    compression = compression_of(head_of(path))
    if compression:
        with decompressed(path, compression, sandbox) as stream:
            head = stream.read(HEAD)
            if head[257:262] != b"ustar":
                target = into / "unpacked"
                expand(head, stream, path.stat().st_size, target)
                return target, shown
    found, name = only_disk(path, shown, into, sandbox)
    return found, f"{shown}: {name}"


def expand(head: bytes, stream: Stream, packed: int, target: Path) -> None:
    """Write what a stream holds, after its `head`; `packed` is the length of the file."""
    if wrapping_of(head) not in ("", "parts"):
        raise UnsafeImage("what is in it is compressed or packed once more", hint="unpack it first")

    def pieces() -> Iterator[tuple[int, bytes]]:
        position, data = 0, 0
        piece = head
        while piece:
            data += sum(len(part) for _, part in data_in(piece))
            if data > DATA + RATIO * packed:
                raise UnsafeImage(
                    f"it unpacks to more than {RATIO} times the {packed} bytes of the file"
                )
            if position > min(LENGTH_LIMIT, ZEROS + ZEROS_RATIO * packed):
                raise UnsafeImage(f"it unpacks to {position} bytes or more, of {packed}")
            yield position, piece
            position += len(piece)
            piece = stream.read(PIECE)

    write_sparse(pieces(), None, target)


def put_together(described: Sequence[Described], held: Mapping[Path, Path], into: Path) -> Path:
    """A VMDK in parts, and those that it is a delta over, as one new raw file in `into`. Every file
    is read from where `held` says that it is held still."""

    def finder(item: Described) -> Finder:
        def find(name: str) -> Path | None:
            path = item.find(name)
            return None if path is None else held[path]

        return find

    target = into / "joined"
    assemble([Described(held[item.path], item.shown, finder(item)) for item in described], target)
    return target


def described(layers: Sequence[tuple[Path, str]], extents_from: Path | None) -> list[Described]:
    """The descriptors of a chain, the top first. Their parts lie beside each, or all of them in
    `extents_from`."""

    def finder(path: Path) -> Finder:
        return beside(path.parent if extents_from is None else extents_from)

    return [Described(path, shown, finder(path)) for path, shown in layers]
