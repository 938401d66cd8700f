"""Raw files as sinks."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from adapters import durable, filesystem, rawfile
from pipeline.data.extents import Range
from pipeline.ports import Sink

_ZEROS = bytes(1 << 20)


@dataclass(frozen=True, slots=True)
class Writing:
    """How a raw file is written; none of it changes what is in it. `behind`: the disk begins with a
    range as soon as it is written, not at the flush; `allocate`: blocks are asked for first."""

    behind: bool = True
    allocate: bool = False


class RawSink:
    """A raw file of exactly `virtual_size` bytes. Safe from many threads: no call seeks.

    A new file reads as zero without occupying space; an existing one keeps its content, cut or
    lengthened with zeros.
    """

    def __init__(self, path: Path, virtual_size: int, writing: Writing | None = None) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o644)
        self._virtual_size = virtual_size
        self._writing = writing or Writing()
        self._strangers: set[int] = set()  # devices whose files can't share blocks with this one
        try:
            os.ftruncate(self._fd, virtual_size)
            self._block = os.fstatvfs(self._fd).f_frsize
        except BaseException:
            os.close(self._fd)
            raise

    def write(self, buf: memoryview, offset: int) -> None:
        self._check(len(buf), offset)
        if self._writing.allocate and buf:
            filesystem.allocate(self._fd, offset, len(buf))
        rawfile.write_exactly(self._fd, buf, offset)
        if self._writing.behind:
            filesystem.write_back(self._fd, offset, len(buf))

    def zero(self, length: int, offset: int) -> None:
        """Punch a hole; write zeros where the file system can't."""
        self._check(length, offset)
        if not length or filesystem.punch_hole(self._fd, offset, length):
            return
        while length:
            piece = memoryview(_ZEROS)[: min(length, len(_ZEROS))]
            self.write(piece, offset)
            length, offset = length - len(piece), offset + len(piece)

    def share(self, file: int, area: Range, offset: int) -> Range | None:
        """Clone the whole blocks of the range (FICLONERANGE, which flushes the other file first).
        After a refusal no other file of that device is tried."""
        self._check(area.length, offset)
        device = os.fstat(file).st_dev
        shift = area.start - offset
        if device in self._strangers or shift % self._block:
            return None
        start = -(-offset // self._block) * self._block
        end = (offset + area.length) // self._block * self._block
        if start >= end:
            return None
        if filesystem.clone_range(file, self._fd, Range(start + shift, end - start), start):
            return Range(start, end - start)
        self._strangers.add(device)
        return None

    def read_into(self, buf: memoryview, offset: int) -> None:
        self._check(len(buf), offset)
        rawfile.read_exactly(self._fd, buf, offset)

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
