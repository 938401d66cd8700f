"""Compressed files, read as what they hold: by a program of the distribution, in the sandbox.

It sees no file but the one on its standard input, and has bounded memory; what comes out is read
forwards only, and never longer than its reader allows.
"""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Protocol

from adapters.formats.window import quoted
from adapters.process import command
from adapters.process.sandbox import Sandbox
from pipeline.errors import UnsafeImage

# a dictionary of 2 GiB is the largest that zstd --long and xz have use for
LIMITS = command.Limits(address_space=4 << 30)
PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "gzip": ("gzip", "-dc"),
    "bzip2": ("bzip2", "-dc"),
    "xz": ("xz", "-dc", "--memlimit-decompress=3GiB"),
    "zstd": ("zstd", "-dcq", "--long=31"),
    "lz4": ("lz4", "-dcq"),
}
MAGICS = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
)
SKIPPABLE = b"\x2a\x4d\x18"  # after one byte: a zstd frame without content, as pzstd begins with
PIECE = 1 << 20


class Bytes(Protocol):
    """What an archive is read from; plain files and `Stream` alike. Seeks go forwards."""

    def read(self, size: int, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


def compression_of(head: bytes) -> str:
    """How a file is compressed, by its first bytes; empty when it is not."""
    if head[1:4] == SKIPPABLE and 0x50 <= head[0] <= 0x5F:
        return "zstd"
    return next((name for magic, name in MAGICS if head.startswith(magic)), "")


class Stream:
    """What a program writes. Raises UnsafeImage at its end when the program was not content."""

    def __init__(self, process: "subprocess.Popen[bytes]", errors: IO[bytes]) -> None:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        self._process = process
        self._file = process.stdout
        self._errors = errors
        self._position = 0

    def read(self, size: int, /) -> bytes:
        """Exactly `size` bytes, or those that are left."""
        data = self._file.read(size)
        self._position += len(data)
        if len(data) < size and self._process.wait():
            text = os.pread(self._errors.fileno(), 500, 0).strip()
            raise UnsafeImage(f"its compressed data is damaged: {quoted(text, 300)}")
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if whence or offset < self._position:
            raise ValueError("a stream is read forwards")
        while self._position < offset and self.read(min(PIECE, offset - self._position)):
            pass
        return self._position

    def tell(self) -> int:
        return self._position


@contextlib.contextmanager
def decompressed(path: Path, compression: str, sandbox: Sandbox) -> Iterator[Stream]:
    """The content of a compressed file, for the length of a `with`."""
    argv = sandbox.wrap(PROGRAMS[compression], limits=LIMITS)
    with (
        path.open("rb") as packed,
        tempfile.TemporaryFile() as errors,
        command.spawn(argv, stdin=packed, stderr=errors, grouped=True) as process,
    ):
        yield Stream(process, errors)
