"""Real file systems for system tests: loop mounts that are always taken down again."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import missing

KINDS = ("xfs", "btrfs", "ext4")
REFLINK = {"xfs", "btrfs"}
MAKE = {
    "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"],
    "btrfs": ["mkfs.btrfs", "-q"],
    "ext4": ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
}
XFS_MINIMUM = 300  # MiB; mkfs.xfs refuses less
BUSY = 10.0  # seconds

Mount = Callable[..., Path]


@contextlib.contextmanager
def mounted(kind: str, image: Path, directory: Path, size_mib: int) -> Iterator[Path]:
    """A new file system of `size_mib` MiB in `image`, mounted at `directory`."""
    with image.open("wb") as file:
        file.truncate(max(size_mib, XFS_MINIMUM if kind == "xfs" else 0) << 20)
    subprocess.run([*MAKE[kind], str(image)], check=True, stdout=subprocess.DEVNULL)
    with loop_mounted(image, at=directory):
        yield directory
    image.unlink()


@contextlib.contextmanager
def loop_mounted(image: Path, options: str = "loop", *, at: Path | None = None) -> Iterator[Path]:
    """The file system in `image`, mounted beside it or `at` a directory that is made for it."""
    directory = at or image.with_suffix(".mnt")
    directory.mkdir()
    # the loop device goes with the mount (autoclear), even if that is lazy
    subprocess.run(["mount", "-o", options, str(image), str(directory)], check=True)
    try:
        yield directory
    finally:
        unmount(directory)
        directory.rmdir()


def unmount(directory: Path) -> None:
    """Unmount, when the tools of a process that was killed have ended; at last without waiting."""
    deadline = time.monotonic() + BUSY
    while subprocess.run(["umount", str(directory)], stderr=subprocess.DEVNULL).returncode:
        if time.monotonic() > deadline:
            subprocess.run(["umount", "--lazy", str(directory)], check=True)
            return
        time.sleep(0.1)


def settle(directory: Path) -> None:
    """Write a file system to its disk: not all of the host's, which may take long."""
    subprocess.run(["sync", "-f", str(directory)], check=True)


def used(directory: Path) -> int:
    """What a file system itself says is used, in bytes, when all is on the disk."""
    settle(directory)
    facts = os.statvfs(directory)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize


@pytest.fixture
def mount(tmp_path: Path, require: Callable[..., None]) -> Iterator[Mount]:
    """`mount(kind, size_mib=...)` makes and mounts a file system for the length of the test."""
    if os.geteuid() != 0:
        missing("only root can mount file systems")
    with contextlib.ExitStack() as stack:
        count = 0

        def make(kind: str, *, size_mib: int = 512) -> Path:
            nonlocal count
            require(MAKE[kind][0])
            count += 1
            image, directory = tmp_path / f"{kind}-{count}.img", tmp_path / f"{kind}-{count}"
            return stack.enter_context(mounted(kind, image, directory, size_mib))

        yield make


@pytest.fixture(params=KINDS)
def filesystem_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def filesystem(filesystem_kind: str, mount: Mount) -> Callable[..., Path]:
    """`filesystem(size_mib=...)`: a mounted file system; the test runs on XFS, btrfs and ext4."""

    def make(*, size_mib: int = 512) -> Path:
        return mount(filesystem_kind, size_mib=size_mib)

    return make
