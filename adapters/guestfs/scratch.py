"""Scratch directories of appliances, that a killed run does not leave behind for good."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def directory(home: Path) -> Iterator[Path]:
    """A private directory below `home`, removed at the end; what killed processes left there is
    removed first. A lock on the directory, which dies with its process, says that it is in use."""
    home.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        gate = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(gate, fcntl.LOCK_EX)  # between mkdir and its lock nobody may sweep
            _sweep(home)
            path = Path(tempfile.mkdtemp(dir=home))
            held = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, held)
            stack.callback(shutil.rmtree, path)  # before the lock is let go
            fcntl.flock(held, fcntl.LOCK_EX)
        finally:
            os.close(gate)
        yield path


def _sweep(home: Path) -> None:
    for left in home.iterdir():
        try:
            descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # its session has just ended
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
        except BlockingIOError:
            continue  # in use
        finally:
            os.close(descriptor)
