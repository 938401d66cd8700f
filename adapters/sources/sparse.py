"""Writing what comes out of archives and streams: to new files, with holes for zeros, and only
where there is room."""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from adapters.filesystem import rawfile
from pipeline.errors import NoSpace

HOLE = 64 << 10  # zeros of this length become a hole
SPARE = 64 << 20  # room that is left on the work directory's file system
PIECE = 1 << 20
LOOK = 256 << 20  # so much is written before the room is looked at again
_ZEROS = bytes(HOLE)


def refuse_small_room(directory: Path, length: int) -> None:
    """Raise NoSpace when `length` bytes do not go into a directory."""
    facts = os.statvfs(directory)
    free = facts.f_bavail * facts.f_frsize
    if length + SPARE > free:
        raise NoSpace(
            f"the archive holds a file of {length} bytes, and the work directory has room for "
            f"{free}",
            hint="make room there, or set another work directory in the configuration",
        )


def data_in(piece: bytes) -> Iterator[tuple[int, bytes]]:
    """The parts of a piece that are no holes, by their places in it."""
    for start in range(0, len(piece), HOLE):
        part = piece[start : start + HOLE]
        if part != _ZEROS[: len(part)]:
            yield start, part


def write_sparse(pieces: Iterable[tuple[int, bytes]], size: int | None, target: Path) -> int:
    """Write pieces by their places to a new file; what is not given, and runs of zeros, are holes.
    `size` None: it ends with the last piece. Returns how many bytes are no holes."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(target, flags, 0o600)
    written, looked, end = 0, 0, 0
    try:
        for position, piece in pieces:
            end = max(end, position + len(piece))
            for start, part in data_in(piece):
                rawfile.write_exactly(fd, memoryview(part), position + start)
                written += len(part)
            if written - looked > LOOK:
                refuse_small_room(target.parent, 0)
                looked = written
        os.ftruncate(fd, end if size is None else size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"no space left in the work directory {str(target.parent)!r}") from None
        raise
    finally:
        os.close(fd)
    return written
