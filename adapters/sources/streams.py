"""Compressed files, read as what they hold: by a program of the distribution, in the sandbox.

It sees no file but the one on its standard input, and has bounded memory; what comes out is read
forwards only, and never longer than its reader allows.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from adapters.formats.window import quoted
from adapters.process import command
from adapters.process.sandbox import Sandbox
from pipeline.errors import UnsafeImage

# a dictionary of 2 GiB is the largest that zstd --long and xz have use for
LIMITS = command.Limits(address_space=4 << 30)
CUT = (-signal.SIGPIPE, 128 + signal.SIGPIPE)  # nobody read on
PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "gzip": ("gzip", "-dc"),
    "bzip2": ("bzip2", "-dc"),
    "xz": ("xz", "-dc", "--memlimit-decompress=3GiB"),
    "zstd": ("zstd", "-dcq", "--long=31"),
    "lz4": ("lz4", "-dcq"),
}


class Stream:
    """What a program writes. Raises UnsafeImage at its end when the program was not content."""

    def __init__(self, process: "subprocess.Popen[bytes]", errors: IO[bytes]) -> None:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        self._process = process
        self._file = process.stdout
        self._errors = errors

    def read(self, size: int, /) -> bytes:
        """Exactly `size` bytes, or those that are left."""
        data = self._file.read(size)
        if len(data) < size and self._process.wait():
            raise self._damaged()
        return data

    @contextlib.contextmanager
    def lent(self) -> Iterator[IO[bytes]]:
        """What the program writes, for another program to read, to its end; then as `read`. A
        reader that ended before does not make it a failure."""
        try:
            yield self._file
        finally:
            self._file.close()
            if self._process.wait() not in (0, *CUT):
                raise self._damaged() from None

    def _damaged(self) -> UnsafeImage:
        text = os.pread(self._errors.fileno(), 500, 0).strip()
        return UnsafeImage(f"its compressed data is damaged: {quoted(text, 300)}")


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
