"""A block device as a disk: copied out, sparsely, while the kernel lets nobody write to it.

Nothing holds a device still that may be written to: read leases are for files. A device that is
read-only, as a read-only LVM snapshot is, and that nothing on this host has mounted, stays as it
is.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from adapters.filesystem import rawfile
from adapters.sources.sparse import PIECE, write_sparse
from pipeline.errors import Refused

BLKROGET = 0x125E  # linux/fs.h


def copy(path: Path, into: Path) -> Path:
    """A new raw file in `into` with the content of a read-only block device. Raises Refused, with
    the commands that make one, for another."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_EXCL  # refused while it is mounted, or in use
    try:
        fd = os.open(path, flags)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise _writable(path, "is in use (mounted, or below another device)") from None
    try:
        (read_only,) = struct.unpack("i", fcntl.ioctl(fd, BLKROGET, bytes(4)))
        if not read_only:
            raise _writable(path, "may be written to")
        target = into / "device"
        write_sparse(_pieces(fd), os.lseek(fd, 0, os.SEEK_END), target)
        return target
    finally:
        os.close(fd)


def _pieces(fd: int) -> Iterator[tuple[int, bytes]]:
    size = os.lseek(fd, 0, os.SEEK_END)
    for position in range(0, size, PIECE):
        buffer = bytearray(min(PIECE, size - position))
        rawfile.read_exactly(fd, memoryview(buffer), position)
        yield position, bytes(buffer)


def _writable(path: Path, why: str) -> Refused:
    return Refused(
        f"{path} is a block device that {why}: nothing would hold it still while it is read",
        hint="name a read-only snapshot of it (lvcreate --snapshot --permission r --size 5G "
        f"--name SNAPSHOT VG/LV), or a copy made while nothing uses it (qemu-img convert -f raw "
        f"-O qcow2 {path} disk.qcow2)",
    )
