"""What tells a file, as it now is, from another."""

import os
import stat
from pathlib import Path

from blake3 import blake3

from pipeline.gallery import rules
from pipeline.model.sources import DiskSource

SAMPLES = 32  # pieces of a file that are looked at, the first and the last among them
SAMPLE = 16 << 10  # bytes


def file_identity(path: Path) -> tuple[object, ...]:
    """What changes when a file is written to or replaced, and is the same after a reboot, after a
    remount and on another host that has the file: its length, when its content was changed, and
    samples of that. Raises NotFound."""
    try:
        found = path.stat()
    except OSError as error:
        why = error.strerror or "it can't be read"
        gone = isinstance(error, FileNotFoundError)
        raise rules.source_missing(path, why, gone=gone) from error
    try:
        length, samples = _samples(path)
    except OSError:  # whoever opens it says why
        length, samples = found.st_size, ""
    changed = 0 if stat.S_ISBLK(found.st_mode) else found.st_mtime_ns
    return (length, changed, samples)


def _samples(path: Path) -> tuple[int, str]:
    """The length of a file or device, and a digest of evenly spaced pieces of it."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        length = os.lseek(fd, 0, os.SEEK_END)
        digest = blake3()
        last = max(0, length - SAMPLE)
        for position in sorted({last * number // (SAMPLES - 1) for number in range(SAMPLES)}):
            digest.update(os.pread(fd, SAMPLE, position))
        return length, digest.hexdigest()
    finally:
        os.close(fd)


def disk_identity(disk: DiskSource) -> tuple[object, ...]:
    """As `file_identity`, for every layer of a disk."""
    files = tuple(file_identity(layer.path) for layer in disk.layers)
    return (disk.lun, disk.internal_snapshot, *files)
