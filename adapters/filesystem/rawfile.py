"""Raw files: complete positional reads and writes, and their holes."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import NotFound, StageFailed, UnsafeImage
from pipeline.ports.extents import Extent, Kind

DIRECT_BLOCK = 4096  # the largest logical block that disks have


def open_readonly(path: Path) -> int:
    """A descriptor of a regular file."""
    try:
        # not blocking: a FIFO would wait for its writer
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UnsafeImage(f"{str(path)!r} is not a regular file")
    return fd


def read_exactly(fd: int, buf: memoryview, offset: int) -> None:
    """Fill `buf`, or raise: every pread may be short."""
    done = 0
    while done < len(buf):
        count = os.preadv(fd, [buf[done:]], offset + done)
        if not count:
            raise StageFailed(f"the file ends at byte {offset + done}: it shrank while it was read")
        done += count


def forget(fd: int) -> None:
    """Drop what the page cache holds of a file, so that its medium is read next."""
    os.fsync(fd)  # only clean pages are dropped
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def open_direct(fd: int) -> int:
    """Another descriptor of a file, that reads past the page cache where the file system can."""
    name = f"/proc/self/fd/{fd}"
    try:
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC)


def read_direct(fd: int, buf: memoryview, offset: int) -> bool:
    """Fill `buf` by a descriptor of `open_direct`. False when that is not possible, because place,
    length or buffer are not aligned: the ends of a file and of odd extents."""
    if offset % DIRECT_BLOCK or len(buf) % DIRECT_BLOCK:
        return False
    try:
        read_exactly(fd, buf, offset)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def write_exactly(fd: int, buf: memoryview, offset: int) -> None:
    """Write all of `buf`, or raise: every pwrite may be short."""
    done = 0
    while done < len(buf):
        done += os.pwritev(fd, [buf[done:]], offset + done)


def extents(fd: int, size: int) -> Iterator[Extent]:
    """The data and the holes of [0, size), by SEEK_DATA and SEEK_HOLE (lseek(2)).

    A file system that knows no holes says that all is data. The file position is used: not for
    descriptors that someone else seeks on.
    """
    position = 0
    while position < size:
        try:
            data = min(size, os.lseek(fd, position, os.SEEK_DATA))
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            data = size
        if data > position:
            yield Extent(position, data - position, Kind.ZERO)
        if data < size:
            hole = min(size, os.lseek(fd, data, os.SEEK_HOLE))
            yield Extent(data, hole - data, Kind.DATA, offset=data)
            data = hole
        position = data
