"""Who else is at a file: processes that have it open for writing, and qemu's image locks."""

import fcntl
import os
import struct
from pathlib import Path

# qemu, block/file-posix.c: a user of an image locks byte 100 + n for each permission n that it
# uses, and byte 200 + n for each that it does not share. Permissions: 0 consistent read, 1 write,
# 2 write unchanged, 3 resize. So these bytes are locked by who writes, or lets nobody read.
_QEMU_BYTES = {101: "writes to it", 103: "may resize it", 200: "lets nobody else read it"}
_FLOCK = struct.Struct("hhqqixxxx")
_WRITING = os.O_WRONLY | os.O_RDWR


def qemu_lock(fd: int) -> str:
    """What qemu's locks on an image say against reading it; empty when nothing does."""
    for position, meaning in _QEMU_BYTES.items():
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, position, 1, 0)
        kind = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
        if kind != fcntl.F_UNLCK:
            return meaning
    return ""


def writers(path: Path) -> list[str]:
    """The processes that have a file open for writing, as far as the caller may see: "name (pid
    N)"."""
    wanted = path.stat()
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and _writes(process, (wanted.st_dev, wanted.st_ino)):
            found.append(f"{_name(process)} (pid {process.name})")
    return found


def _writes(process: Path, wanted: tuple[int, int]) -> bool:
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:
        return False  # it ended, or belongs to somebody else
    for descriptor in descriptors:
        try:
            facts = descriptor.stat()
            if (facts.st_dev, facts.st_ino) != wanted:
                continue
            lines = (process / "fdinfo" / descriptor.name).read_text().splitlines()
        except OSError:
            continue  # closed meanwhile
        flags = next((line.split()[1] for line in lines if line.startswith("flags:")), "0")
        if int(flags, 8) & _WRITING:
            return True
    return False


def _name(process: Path) -> str:
    try:
        return repr((process / "comm").read_text().strip())[1:-1]
    except OSError:
        return "a process"
