"""Immutable files and names: what is complete in a zone is neither written, removed nor renamed by
mistake, whoever tries (chattr +i, where rights and file system allow).

Files of bases and versions have the attribute, and so have the directories `bases` and `versions`:
no name in them can be given or taken, but while galleria itself does it.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from adapters.filesystem import calls

STOPPED = 3.0  # seconds


@contextlib.contextmanager
def names(directory: Path, *, immutable: bool = False) -> Iterator[None]:
    """Give and take names in `bases` or `versions` for the length of a `with`, one process at a
    time. Afterwards the directory is immutable if it was, or is to be (`immutable`)."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _wait_for(fd)
        guarded = calls.is_immutable(fd)
        if guarded:
            calls.set_immutable(directory, on=False)
        try:
            yield
        finally:
            if guarded or immutable:
                calls.set_immutable(directory, on=True)
    finally:
        os.close(fd)


def _wait_for(fd: int) -> None:
    """Take the lock of a directory. Who holds it does so for a few calls: one that does it for
    longer was stopped, and is not waited for. Its names fail when it wakes: another one has its
    staging by then."""
    deadline = time.monotonic() + STOPPED
    while time.monotonic() < deadline:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
        else:
            return


def freeze(directory: Path, *, on: bool, but: str = "") -> None:
    """Make all files below a directory immutable, or lift that; not those of the name `but`."""
    for path in sorted(directory.rglob("*")):
        if path.name != but and path.is_file() and not path.is_symlink():
            calls.set_immutable(path, on=on)


@contextlib.contextmanager
def thawed(directory: Path, record: Path) -> Iterator[None]:
    """Change the files below a directory for the length of a `with`. Afterwards they are immutable
    if `record`, one of them, was."""
    frozen = _is_frozen(record)
    if frozen:
        freeze(directory, on=False)
    try:
        yield
    finally:
        if frozen:
            freeze(directory, on=True)


def _is_frozen(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return calls.is_immutable(fd)
    finally:
        os.close(fd)
