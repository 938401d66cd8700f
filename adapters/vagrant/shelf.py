"""Boxes that were made to be downloaded: each once, the oldest going when there are too many.

DIRECTORY/<version's uid>-<provider>-<recipe>/lock   held by who makes the box, or removes it
                                              box    the box
                                              sha256 its digest, in hexadecimal
"""

import contextlib
import fcntl
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from adapters.filesystem import durable
from adapters.vagrant.catalog import Make, sha256
from pipeline.errors import NotFound
from pipeline.model import ImageVersion
from pipeline.ports.boxes import Provider

RECIPE = 1  # what boxes are like: one more makes all of them anew
_NAME = re.compile(r"[0-9a-f-]{8,64}-[a-z]+-[0-9]+")
_SUM = re.compile(r"[0-9a-f]{64}")


class Shelf:
    """`limit`: bytes of boxes that are kept; the one that was asked for last always is."""

    def __init__(self, directory: Path, limit: int, make: Make) -> None:
        self._directory = directory
        self._limit = limit
        self._make = make
        self._one_at_a_time = threading.Lock()  # an appliance takes a core and a GiB

    def checksum(self, version: ImageVersion, provider: Provider) -> str | None:
        """The SHA-256 of a box; None while it is not made."""
        place = self._place(version, provider)
        try:
            found = (place / "sha256").read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return None
        return found if _SUM.fullmatch(found) and (place / "box").is_file() else None

    def box(self, version: ImageVersion, provider: Provider) -> Path:
        """The box, made now if it is not there. Whoever asks meanwhile waits for the same one."""
        place = self._place(version, provider)
        place.mkdir(parents=True, exist_ok=True)
        path = place / "box"
        with self._one_at_a_time, _locked(place):
            if self.checksum(version, provider) is None:
                for left in place.iterdir():  # of a run that was killed
                    if left.name != "lock":
                        shutil.rmtree(left) if left.is_dir() else left.unlink()
                self._make(version, provider, path)
                durable.write_file(place / "sha256", sha256(path).encode())
            os.utime(path)
        self._make_room(place)
        return path

    def _place(self, version: ImageVersion, provider: Provider) -> Path:
        name = f"{version.uid}-{provider.value}-{RECIPE}"
        if not _NAME.fullmatch(name):
            raise NotFound(f"{version.name} has no box")
        return self._directory / name

    def _make_room(self, wanted: Path) -> None:
        """Remove the boxes that nobody asked for for longest. What is being made stays."""
        found = []
        for place in self._directory.iterdir():
            if _NAME.fullmatch(place.name) and place != wanted:
                with contextlib.suppress(OSError):
                    stat = (place / "box").stat()
                    found.append((stat.st_mtime, stat.st_size, place))
        total = (wanted / "box").stat().st_size + sum(size for _, size, _ in found)
        for _, size, place in sorted(found):
            if total <= self._limit:
                return
            with contextlib.suppress(BlockingIOError), _locked(place, wait=False):
                durable.remove_tree(place)
                total -= size


@contextlib.contextmanager
def _locked(place: Path, *, wait: bool = True) -> Iterator[None]:
    with (place / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
