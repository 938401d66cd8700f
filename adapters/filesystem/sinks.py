"""Raw files as sinks."""

import ctypes
import errno
import os
import threading
from collections import deque
from pathlib import Path

from adapters.filesystem import calls, durable, fiemap, rawfile
from adapters.filesystem.profile import Writing
from pipeline.ports import Sink
from pipeline.ports.extents import Range

# Writes (of a request, 1 MiB, at most) that may be on their way to the disk. Measured: 8 to 128 are
# the same.
BEHIND = 32
_ZEROS = bytes(1 << 20)
_DIRECT_ALIGNMENT = 4096  # offsets, lengths and memory; no disk has larger sectors


class RawSink:
    """A raw file of exactly `virtual_size` bytes. Safe from many threads: no call seeks.

    A new file reads as zero without occupying space; an existing one keeps its content, cut or
    lengthened with zeros.
    """

    def __init__(self, path: Path, virtual_size: int, writing: Writing = Writing.BEHIND) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._path = path
        self._fd = os.open(path, flags, 0o600)
        self._direct = -1
        self._virtual_size = virtual_size
        self._writing = writing
        self._behind: deque[Range] = deque()  # what the disk has begun to write, oldest first
        self._lock = threading.Lock()
        self._maps: dict[int, fiemap.BlockMap | None] = {}  # by descriptor
        self._strangers: set[int] = set()  # devices whose files can't share blocks with this one
        try:
            os.ftruncate(self._fd, virtual_size)
            self._block = os.fstatvfs(self._fd).f_frsize
            if writing is Writing.DIRECT:
                self._direct = _open_direct(path)
        except BaseException:
            os.close(self._fd)
            raise

    def write(self, buf: memoryview, offset: int) -> None:
        self._check(len(buf), offset)
        if self._direct >= 0 and not (offset | len(buf)) % _DIRECT_ALIGNMENT and _aligned(buf):
            rawfile.write_exactly(self._direct, buf, offset)
            return
        if self._writing is Writing.ALLOCATED and buf:
            calls.allocate(self._fd, offset, len(buf))
        rawfile.write_exactly(self._fd, buf, offset)
        if self._writing is not Writing.CACHED:
            calls.write_back(self._fd, offset, len(buf))
            self._let_go(Range(offset, len(buf)))

    def _let_go(self, latest: Range) -> None:
        """Wait for the oldest ranges that are being written, so that few are."""
        done = []
        with self._lock:
            self._behind.append(latest)
            while len(self._behind) > BEHIND:
                done.append(self._behind.popleft())
        for area in done:
            calls.let_go(self._fd, area.start, area.length)

    def zero(self, length: int, offset: int) -> None:
        """Punch a hole; write zeros where the file system can't."""
        self._check(length, offset)
        if not length or calls.punch_hole(self._fd, offset, length):
            return
        while length:
            piece = memoryview(_ZEROS)[: min(length, len(_ZEROS))]
            self.write(piece, offset)
            length, offset = length - len(piece), offset + len(piece)

    def reuse_extents(self, file: int, area: Range, offset: int) -> Range | None:
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
        if calls.clone_range(file, self._fd, Range(start + shift, end - start), start):
            return Range(start, end - start)
        self._strangers.add(device)
        return None

    def holds(self, file: int | None, area: Range, offset: int) -> bool:
        """By FIEMAP, of the sink as it was at the first question."""
        self._check(area.length, offset)
        runs = self._runs(self._fd, offset, area.length)
        if runs is None:
            return False
        return runs == ([] if file is None else self._runs(file, area.start, area.length))

    def _runs(self, file: int, start: int, length: int) -> list[fiemap.Run] | None:
        blocks = self._blocks_of(file)
        return None if blocks is None else blocks.runs(start, length)

    def _blocks_of(self, file: int) -> fiemap.BlockMap | None:
        if file not in self._maps:
            beside = os.fstat(file).st_dev == os.fstat(self._fd).st_dev
            self._maps[file] = fiemap.block_map(self._path, file) if beside else None
        return self._maps[file]

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
        if self._direct >= 0:
            direct, self._direct = self._direct, -1
            os.close(direct)

    def _check(self, length: int, offset: int) -> None:
        if self._fd < 0:
            raise OSError(errno.EBADF, "the sink is closed")
        if offset < 0 or offset + length > self._virtual_size:
            raise ValueError(f"{length} bytes at {offset} in a disk of {self._virtual_size} bytes")


def _open_direct(path: Path) -> int:
    """A second descriptor for writes that pass by the page cache; -1 where there are none."""
    try:
        return os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return -1


def _aligned(buf: memoryview) -> bool:
    """Whether memory can be written directly. (Only of memory that may be written to is the address
    told: that is what the buffers of a copy are.)"""
    if buf.readonly:
        return False
    return ctypes.addressof(ctypes.c_char.from_buffer(buf)) % _DIRECT_ALIGNMENT == 0


_: type[Sink] = RawSink
