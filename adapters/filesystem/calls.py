"""What a file system can do, found by trying: clones, holes, immutable files.

Numbers are from linux/fs.h and linux/falloc.h (x86 and arm64 have the same).
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from pipeline.ports.extents import Range

_FICLONE = 0x40049409
_FICLONERANGE = 0x4020940D
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_IMMUTABLE_FL = 0x10
_PUNCH_HOLE = 0x2 | 0x1  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
_KEEP_SIZE = 0x1  # FALLOC_FL_KEEP_SIZE
_SYNC_WAIT_BEFORE, _SYNC_WRITE, _SYNC_WAIT_AFTER = 1, 2, 4  # linux/fs.h: SYNC_FILE_RANGE_*

# What "this file system, or this pair of files, can't" looks like; anything else is an error.
CANNOT = {
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EXDEV,
    errno.ETXTBSY,
}

_libc = ctypes.CDLL(None, use_errno=True)


# --- clones and holes ----------------------------------------------------------------------------


def clone(source: Path | int, target: Path) -> bool:
    """Make `target` (made if absent, else replaced in place) share all blocks of `source`, a path
    or a descriptor.

    False, with `target` empty, when the file system or the pair of files can't. The clone has no
    attributes of the source: it is writable even when that is immutable.
    """
    opened = (
        contextlib.nullcontext(source) if isinstance(source, int) else _opened(source, os.O_RDONLY)
    )
    with opened as reading, _opened(target, os.O_RDWR | os.O_CREAT) as fd:
        os.ftruncate(fd, 0)
        try:
            fcntl.ioctl(fd, _FICLONE, reading)
        except OSError as error:
            if error.errno in CANNOT:
                return False
            raise
        return True


def clone_range(source: int, target: int, area: Range, target_offset: int) -> bool:
    """Share blocks of one open file with another; False when they can't be shared (alignment too).

    A length of zero would mean "to the end of the file": it is refused.
    """
    if area.length <= 0:
        raise ValueError("an empty range can't be cloned")
    argument = struct.pack("=qQQQ", source, area.start, area.length, target_offset)
    try:
        fcntl.ioctl(target, _FICLONERANGE, argument)
    except OSError as error:
        if error.errno in CANNOT:
            return False
        raise
    return True


def punch_hole(fd: int, offset: int, length: int) -> bool:
    """Free the blocks of a range, which then reads as zero; False when the file system can't."""
    return _fallocate(fd, _PUNCH_HOLE, offset, length)


def allocate(fd: int, offset: int, length: int) -> bool:
    """Give a range its blocks before it is written; False when the file system can't. What is in it
    stays. (Not posix_fallocate: the C library writes zeros where the file system can't.)"""
    return _fallocate(fd, _KEEP_SIZE, offset, length)


def _fallocate(fd: int, mode: int, offset: int, length: int) -> bool:
    arguments = (fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length))
    while _libc.fallocate(*arguments) != 0:
        number = ctypes.get_errno()
        if number == errno.EINTR:
            continue
        if number in CANNOT:
            return False
        raise OSError(number, os.strerror(number))
    return True


def write_back(fd: int, offset: int, length: int) -> None:
    """Begin to write a range of the page cache to the disk, and do not wait for it
    (sync_file_range(2)). Nothing is durable by that: `fsync` is what says so, and what reports the
    errors of these writes. A file system that can't does nothing."""
    _sync_range(fd, offset, length, _SYNC_WRITE)


def let_go(fd: int, offset: int, length: int) -> None:
    """Wait until a range has left the page cache for the disk, and free its pages. Raises OSError
    when it could not be written: an `fsync` may not say so again. It is not durable yet."""
    _sync_range(fd, offset, length, _SYNC_WAIT_BEFORE | _SYNC_WRITE | _SYNC_WAIT_AFTER)
    os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


def _sync_range(fd: int, offset: int, length: int, flags: int) -> None:
    arguments = (fd, ctypes.c_int64(offset), ctypes.c_int64(length), flags)
    while _libc.sync_file_range(*arguments) != 0:
        number = ctypes.get_errno()
        if number == errno.EINTR:
            continue
        if number in (*CANNOT, errno.ESPIPE):
            return
        raise OSError(number, os.strerror(number))


# --- immutable files -----------------------------------------------------------------------------


def set_immutable(path: Path, *, on: bool) -> bool:
    """chattr +i or -i. False where the file system or the caller's rights do not allow it."""
    try:
        with _opened(path, os.O_RDONLY) as fd:
            flags = struct.unpack("=l", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(8))[:4])[0]
            wanted = flags | _FS_IMMUTABLE_FL if on else flags & ~_FS_IMMUTABLE_FL
            if wanted != flags:
                fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("=q", wanted))
    except OSError as error:
        if error.errno in (*CANNOT, errno.EPERM, errno.EACCES):
            return False
        raise
    return True


def is_immutable(fd: int) -> bool:
    """Whether an open file has chattr's +i; no where the file system knows no such thing."""
    try:
        found: int = struct.unpack("=l", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(8))[:4])[0]
    except OSError as error:
        if error.errno in (*CANNOT, errno.EPERM, errno.EACCES):
            return False
        raise
    return bool(found & _FS_IMMUTABLE_FL)


# --- space ---------------------------------------------------------------------------------------


def free_bytes(directory: Path) -> int:
    """What an ordinary user may still write on the directory's file system."""
    facts = os.statvfs(directory)
    return facts.f_bavail * facts.f_frsize


def identity(directory: Path) -> str:
    """What tells one file system from another: the block device under it, else its device number.

    Not the number alone: every subvolume of one btrfs has its own.
    """
    number = f"{os.major(directory.stat().st_dev)}:{os.minor(directory.stat().st_dev)}"
    _, source = _mounted(directory)
    return source if source.startswith("/") else number


def kind(directory: Path) -> str:
    """What the kernel calls the file system of a directory: xfs, btrfs, ext4."""
    return _mounted(directory)[0]


def _mounted(directory: Path) -> tuple[str, str]:
    """The type and the source of the mount that a directory is on."""
    directory = directory.resolve()
    best, found = Path("/"), ("", "")
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        place, _, rest = line.partition(b" - ")
        # proc_pid_mountinfo(5): the mount point is the fifth field; type and source begin `rest`
        point = Path(os.fsdecode(_unescape(place.split()[4])))
        if directory.is_relative_to(point) and len(point.parts) >= len(best.parts):
            kind, source = map(os.fsdecode, rest.split()[:2])
            best, found = point, (kind, source)
    return found


def _unescape(text: bytes) -> bytes:
    """Blanks and the like are octal in mountinfo."""
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text)


def same_device(one: Path, other: Path) -> bool:
    """Whether two paths are on one file system (btrfs subvolumes of one count as different)."""
    return one.stat().st_dev == other.stat().st_dev


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """A descriptor for the length of a `with`; never follows a link."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)
