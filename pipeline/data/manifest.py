"""The manifest: the ordered chunk digests of one disk and its root, in one streamed file.

All integers are little-endian. One content has exactly one manifest, byte for byte.

    header    8s  b"gallmfst"
              u16 version (1)    u16 zero    u32 chunk length (262,144)    u64 virtual size
    runs      u8 1, u64 n                        n zero chunks
              u8 2, u64 n, n * (16s XXH3-128, 32s BLAKE3)   n chunks with data, n <= 4,096
    trailer   u8 0, 32s root, 32s BLAKE3 of every byte before this digest

Runs cover the disk in order; zero runs are as long as they can be, and so are data runs up to 4,096
chunks. A disk of 2 TiB with nothing in it has a manifest of 98 bytes. What the digests are is said
in `chunks`.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from blake3 import blake3

from pipeline.data.chunks import (
    BLAKE3_LENGTH,
    CHUNK_SIZE,
    XXH3_LENGTH,
    ChunkDigest,
    Tree,
    chunk_count,
    chunk_length,
    zero_chunk,
)
from pipeline.errors import VerificationFailed
from pipeline.ports import Files, StoredBase
from pipeline.ports.extents import Extent, Kind

MAGIC = b"gallmfst"
VERSION = 1
RUN_LEAVES = 4096

_HEADER = struct.Struct("<8sHHIQ")
_RUN = struct.Struct("<BQ")
_END, _ZERO, _DATA = 0, 1, 2
_ENTRY = XXH3_LENGTH + BLAKE3_LENGTH


@dataclass(frozen=True, slots=True)
class Run:
    """`count` chunks from chunk `first` on; `chunks` is None when all of them are zero."""

    first: int
    count: int
    chunks: tuple[ChunkDigest, ...] | None

    @property
    def end(self) -> int:
        return self.first + self.count


class ManifestWriter:
    """Writes a manifest to `file` (owned and made durable by the caller) as chunks arrive, in
    order."""

    def __init__(self, file: BinaryIO, virtual_size: int) -> None:
        self._file = file
        self._virtual_size = virtual_size
        self._hash = blake3()
        self._tree = Tree(virtual_size)
        self._zeros = 0
        self._chunks: list[ChunkDigest] = []
        self._put(_HEADER.pack(MAGIC, VERSION, 0, CHUNK_SIZE, virtual_size))

    @property
    def virtual_size(self) -> int:
        return self._virtual_size

    def add(self, chunk: ChunkDigest) -> None:
        """The digests of the next chunk."""
        zero = zero_chunk(chunk_length(self._tree.count, self._virtual_size))
        if chunk.blake3 == zero.blake3:
            self.add_zeros(1)
            return
        self._flush_zeros()
        self._tree.add(chunk.blake3)
        self._chunks.append(chunk)
        if len(self._chunks) == RUN_LEAVES:
            self._flush_chunks()

    def add_zeros(self, count: int) -> None:
        """The next `count` chunks are zero."""
        self._flush_chunks()
        self._tree.add_zeros(count)
        self._zeros += count

    def finish(self) -> str:
        """Write the trailer and return the root. Raises ValueError if chunks are missing."""
        root = self._tree.root()
        self._flush_zeros()
        self._flush_chunks()
        self._put(bytes([_END]) + bytes.fromhex(root))
        self._put(self._hash.digest())
        self._file.flush()
        return root

    def _flush_zeros(self) -> None:
        if self._zeros:
            self._put(_RUN.pack(_ZERO, self._zeros))
            self._zeros = 0

    def _flush_chunks(self) -> None:
        if self._chunks:
            self._put(_RUN.pack(_DATA, len(self._chunks)))
            self._put(b"".join(part for chunk in self._chunks for part in chunk))
            self._chunks.clear()

    def _put(self, content: bytes) -> None:
        self._hash.update(content)
        self._file.write(content)


class ManifestReader:
    """Reads a manifest from a seekable `file` (owned by the caller).

    Raises VerificationFailed on anything that is not a whole, unaltered manifest of a known
    version: what the header shows at once, the rest when `runs` has been read to its end.
    """

    def __init__(self, file: BinaryIO, *, name: str = "the manifest") -> None:
        self._file = file
        self._name = name
        file.seek(0)
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size or not head.startswith(MAGIC):
            raise self._bad("it has no manifest header")
        _, version, reserved, chunk, virtual_size = _HEADER.unpack(head)
        if version != VERSION or reserved:
            raise self._bad(f"it is of version {version}, this galleria reads version {VERSION}")
        if chunk != CHUNK_SIZE:
            raise self._bad(f"its chunks have {chunk} bytes instead of {CHUNK_SIZE}")
        self.virtual_size: int = virtual_size
        self._head = head
        self._root = ""

    def runs(self) -> Iterator[Run]:
        """Every run in order, then the checks of the trailer. Memory: one run."""
        self._file.seek(len(self._head))
        hasher = blake3(self._head)
        tree = Tree(self.virtual_size)
        expected = chunk_count(self.virtual_size)
        while (tag := self._take(1, hasher)[0]) != _END:
            count = int.from_bytes(self._take(8, hasher), "little")
            first = tree.count
            if not 0 < count <= expected - first:
                raise self._bad("a run goes beyond the end of the disk")
            if tag == _ZERO:
                tree.add_zeros(count)
                yield Run(first, count, None)
            elif tag == _DATA and count <= RUN_LEAVES:
                chunks = self._chunks(count, hasher)
                for chunk in chunks:
                    tree.add(chunk.blake3)
                yield Run(first, count, chunks)
            else:
                raise self._bad(f"it has a run of unknown kind {tag}")
        if tree.count != expected:
            raise self._bad(f"it holds {tree.count} chunks of {expected}")
        root = self._take(BLAKE3_LENGTH, hasher).hex()
        if self._file.read(BLAKE3_LENGTH + 1) != hasher.digest():
            raise self._bad("its own digest is wrong")
        if tree.root() != root:
            raise self._bad("its root is not the root of its chunks")
        self._root = root

    def verify(self, root: str | None = None) -> str:
        """Read it all; return its root, which must be `root` if that is given."""
        for _ in self.runs():
            continue
        if root is not None and self._root != root:
            raise self._bad(f"it describes disk {self._root}, not {root}")
        return self._root

    def _chunks(self, count: int, hasher: blake3) -> tuple[ChunkDigest, ...]:
        content = self._take(count * _ENTRY, hasher)
        return tuple(
            ChunkDigest(content[at : at + XXH3_LENGTH], content[at + XXH3_LENGTH : at + _ENTRY])
            for at in range(0, len(content), _ENTRY)
        )

    def _take(self, length: int, hasher: blake3) -> bytes:
        content = self._file.read(length)
        if len(content) != length:
            raise self._bad("it ends too early")
        hasher.update(content)
        return content

    def _bad(self, why: str) -> VerificationFailed:
        return VerificationFailed(
            f"{self._name} can't be used: {why}",
            hint="galleria verify names the good copies; replicate the version again from one",
        )


class Cursor:
    """Answers what the chunks of a manifest are, for questions that only go forward.

    Leaves beyond the disk's end are zero, as they are when its sink is made longer.
    """

    def __init__(self, manifest: ManifestReader) -> None:
        self._runs = manifest.runs()
        self._run: Run | None = Run(0, 0, None)  # before the first: nothing is read yet

    def chunk(self, index: int) -> ChunkDigest | None:
        """The digests of a chunk, None if it is zero. `index` must not go backwards."""
        run = self._seek(index)
        if run is None or run.chunks is None:
            return None
        return run.chunks[index - run.first]

    def data(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """The (first, count) of what is not zero among `count` chunks from `first` on."""
        position, end = first, first + count
        while position < end:
            run = self._seek(position)
            if run is None:
                return
            stop = min(run.end, end)
            if run.chunks is not None:
                yield position, stop - position
            position = stop

    def _seek(self, index: int) -> Run | None:
        while self._run is not None and self._run.end <= index:
            self._run = next(self._runs, None)
        return self._run


class ChunkTable:
    """The BLAKE3 digests of a manifest's chunks, for questions in any order: 32 bytes a chunk with
    data. Raises VerificationFailed unless the manifest is whole and describes disk `root`."""

    def __init__(self, manifest: ManifestReader, root: str) -> None:
        self.virtual_size = manifest.virtual_size
        self._firsts: list[int] = []
        self._runs: list[bytes | None] = []
        self._end = 0
        for run in manifest.runs():
            self._firsts.append(run.first)
            chunks = run.chunks
            self._runs.append(None if chunks is None else b"".join(c.blake3 for c in chunks))
            self._end = run.end
        manifest.verify(root)

    def blake3(self, index: int) -> bytes | None:
        """The digest of a chunk; None when it is zero."""
        at = bisect_right(self._firsts, index) - 1
        run = self._runs[at]
        if run is None:
            return None
        start = (index - self._firsts[at]) * BLAKE3_LENGTH
        return run[start : start + BLAKE3_LENGTH]

    def extents(self) -> Iterator[Extent]:
        """The disk as the manifest knows it: data that lies in no file, and zeros."""
        ends = [*self._firsts[1:], self._end]
        for first, end, run in zip(self._firsts, ends, self._runs, strict=True):
            start, stop = first * CHUNK_SIZE, min(end * CHUNK_SIZE, self.virtual_size)
            yield Extent(start, stop - start, Kind.ZERO if run is None else Kind.DATA)


@contextmanager
def manifest_of(base: StoredBase, files: Files) -> Iterator[ManifestReader]:
    """The manifest of a stored base."""
    with files.open(base.manifest) as file:
        yield ManifestReader(file, name=str(base.manifest))
