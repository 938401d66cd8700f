"""Boxes that were made to be downloaded: each once, the oldest going when there are too many.

DIRECTORY/<version's uid>-<provider>-<recipe>/lock   held by who makes the box, or removes it
                                              box    the box
                                              sha256 its digest, in hexadecimal; its time says when
                                                     the box was last asked for
"""

import contextlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from adapters.filesystem import durable, leftovers
from adapters.vagrant.catalog import Make, sha256
from pipeline.errors import NotFound
from pipeline.model import ImageVersion
from pipeline.model.garbage import AT_ONCE, Collected, Garbage, Keep
from pipeline.ports.boxes import Provider

RECIPE = 1  # what boxes are like: one more makes all of them anew
WAIT_SECONDS = 0.1
_NAME = re.compile(r"[0-9a-f-]{8,64}-[a-z]+-[0-9]+")
_SUM = re.compile(r"[0-9a-f]{64}")


class Shelf:
    """`limit`: bytes of boxes that are kept; what was asked for in the last hour is."""

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

    def box(self, version: ImageVersion, provider: Provider) -> tuple[Path, str]:
        """A box and its SHA-256, made now if it is not there. Whoever asks meanwhile waits for the
        same one; who asks for one that is there waits for nobody."""
        place = self._place(version, provider)
        digest = self.checksum(version, provider)
        if digest is None:
            with self._one_at_a_time, _held(place):
                digest = self.checksum(version, provider) or self._made(version, provider, place)
            collect_boxes(self._directory, AT_ONCE, size=self._limit)
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile: it is made again
            os.utime(place / "sha256")
        return place / "box", digest

    def _made(self, version: ImageVersion, provider: Provider, place: Path) -> str:
        for left in place.iterdir():  # of a run that was killed
            if left.name != "lock":
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        self._make(version, provider, place / "box")
        digest = sha256(place / "box")
        durable.write_file(place / "sha256", digest.encode())
        return digest

    def _place(self, version: ImageVersion, provider: Provider) -> Path:
        name = f"{version.uid}-{provider.value}-{RECIPE}"
        if not _NAME.fullmatch(name):
            raise NotFound(f"{version.name} has no box")
        return self._directory / name


def collect_boxes(
    directory: Path, keep: Keep, *, age: int | None = None, size: int | None = None
) -> Collected:
    """Remove boxes that nobody has asked for in a long time, or that are too much together."""
    with leftovers.named(directory, _NAME, trees=True) as found:
        boxes = [
            replace(
                item,
                used=_asked(directory / item.name, item.used),
                remove=partial(_forget, directory / item.name, item.remove),
            )
            for item in found
        ]
        return leftovers.collect(str(directory), Garbage.BOX, boxes, age, size, keep)


def _asked(place: Path, made: float) -> float:
    try:
        return (place / "sha256").stat().st_mtime
    except OSError:
        return made


def _forget(place: Path, remove: Callable[[], str]) -> str:
    fd = durable.lock(place / "lock", create=True)
    if fd is None:
        return "it is being made"
    try:
        return remove()
    finally:
        os.close(fd)


@contextlib.contextmanager
def _held(place: Path) -> Iterator[None]:
    """A place of a box for this process alone; waits for another one that makes or removes it."""
    fd = None
    while fd is None:
        with contextlib.suppress(FileNotFoundError):  # removed between the two
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = durable.lock(place / "lock", create=True)
        if fd is None:
            time.sleep(WAIT_SECONDS)
    try:
        yield
    finally:
        os.close(fd)
