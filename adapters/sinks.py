"""Raw files as sinks."""

import errno
import os
from pathlib import Path

from adapters import durable, filesystem
from pipeline.ports import Sink

_ZEROS = bytes(1 << 20)


class RawSink:
    """A raw file of exactly `virtual_size` bytes. Safe from many threads: no call seeks.

    A new file reads as zero without occupying space; an existing one keeps its content, cut or
    lengthened with zeros.
    """

    def __init__(self, path: Path, virtual_size: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o644)
        self._virtual_size = virtual_size
        try:
            os.ftruncate(self._fd, virtual_size)
        except BaseException:
            os.close(self._fd)
            raise

    def write(self, buf: memoryview, offset: int) -> None:
        self._check(len(buf), offset)
        while buf:
            done = os.pwrite(self._fd, buf, offset)
            buf, offset = buf[done:], offset + done

    def zero(self, length: int, offset: int) -> None:
        """Punch a hole; write zeros where the file system can't."""
        self._check(length, offset)
        if not length or filesystem.punch_hole(self._fd, offset, length):
            return
        while length:
            piece = memoryview(_ZEROS)[: min(length, len(_ZEROS))]
            self.write(piece, offset)
            length, offset = length - len(piece), offset + len(piece)

    def flush(self) -> None:
        durable.sync_file(self._fd)

    def close(self) -> None:
        """Safe to call twice. Does not make anything durable: that is `flush`."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _check(self, length: int, offset: int) -> None:
        if self._fd < 0:
            raise OSError(errno.EBADF, "the sink is closed")
        if offset < 0 or offset + length > self._virtual_size:
            raise ValueError(f"{length} bytes at {offset} in a disk of {self._virtual_size} bytes")


_: type[Sink] = RawSink
