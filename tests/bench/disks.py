"""File systems to measure on: made afresh in one file that stands for the one disk.

The file is written once with zeros, so that no block of it is new to the host's file system; loop
devices on it use direct I/O where the host's file system can, so that nothing is cached twice, and
nothing is discarded.
"""

import contextlib
import ctypes
import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 1 << 20
MAKE = {
    "xfs": ("mkfs.xfs", "-q", "-f", "-K", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q", "-f", "-K"),
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"),
}
# no thread of the file system's own works beside what is measured
OPTIONS = {"xfs": "nodiscard", "btrfs": "nodiscard", "ext4": "nodiscard,noinit_itable"}

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 1 << 14, 1 << 18  # linux/sched.h, linux/mount.h

_libc = ctypes.CDLL(None, use_errno=True)


def private_mounts() -> None:
    """Give this process and its children mounts of their own. Nobody else's namespace then holds
    what is mounted here, and all of it goes with this process, however that ends."""
    for failed in (
        _libc.unshare(CLONE_NEWNS),
        _libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None),
    ):
        if failed:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), "a mount namespace")


def flush(directory: Path) -> None:
    """Everything of the directory's file system is on its disk: what `sync -f` does."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        if _libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(directory))
    finally:
        os.close(fd)


def used(directory: Path) -> int:
    """Bytes that the file system says are used, when all is on its disk."""
    flush(directory)
    facts = os.statvfs(directory)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize


@contextmanager
def one_disk(path: Path, length: int) -> Iterator[Path]:
    """A file of `length` bytes that are all allocated, for one process at a time; one that is there
    is taken."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        zeros = bytes(4 * MIB)
        while file.tell() < length:  # an unfinished one is gone on with
            file.write(zeros)
        os.fsync(file.fileno())
        yield path


class Volumes:
    """File systems of one kind on equal parts of a disk, mounted below `place`."""

    def __init__(self, kind: str, devices: list[str], place: Path) -> None:
        self.kind = kind
        self._devices = devices
        self.paths = [place / f"{kind}-{number}" for number in range(len(devices))]
        self._mounted: list[Path] = []

    @property
    def path(self) -> Path:
        return self.paths[0]

    def renew(self) -> None:
        """Empty file systems."""
        self.unmount()
        for device, path in zip(self._devices, self.paths, strict=True):
            path.mkdir(exist_ok=True)
            _run(*MAKE[self.kind], device)
            _run("mount", "-o", OPTIONS[self.kind], device, str(path))
            self._mounted.append(path)

    def flush(self) -> None:
        for path in self._mounted:
            flush(path)

    def unmount(self) -> None:
        while self._mounted:
            _run("umount", str(self._mounted[-1]))
            self._mounted.pop()


@contextmanager
def volumes(kind: str, disk: Path, place: Path, count: int = 1) -> Iterator[Volumes]:
    """`count` file systems on one disk, for the length of a `with`."""
    length = disk.stat().st_size // count // MIB * MIB
    with contextlib.ExitStack() as stack:
        devices = [stack.enter_context(_loop(disk, n * length, length)) for n in range(count)]
        found = Volumes(kind, devices, place)
        stack.callback(found.unmount)
        found.renew()
        yield found


@contextmanager
def _loop(disk: Path, offset: int, length: int) -> Iterator[str]:
    argv = ["losetup", "--find", "--show", f"--offset={offset}", f"--sizelimit={length}"]
    done = subprocess.run(
        [*argv, "--direct-io=on", str(disk)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:  # the host's file system has no direct I/O
        done = subprocess.run([*argv, str(disk)], capture_output=True, text=True, check=True)
    device = done.stdout.strip()
    try:
        yield device
    finally:
        _run("losetup", "--detach", device)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(argv)}: {done.stderr}")
