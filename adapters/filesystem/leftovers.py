"""Remove what is old, or more than is to be kept, from a directory of galleria's own.

A directory is used by its descriptor: nobody can put another one in its place meanwhile. Only what
has galleria's kind of name, and belongs to a trusted user, is ever removed.
"""

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from adapters.filesystem import durable
from pipeline.errors import Refused
from pipeline.model.garbage import HOUR, Collected, Freed, Garbage, Keep, Kept

YOUNG = HOUR  # what was used since then stays, however much there is


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in a directory: a file, a tree, or what several files are together. `used` is when
    it was last used; `remove` returns why it stays after all."""

    name: str
    size: int
    used: float
    remove: Callable[[], str]


def size_of(path: Path) -> int:
    """The bytes that a file, or all files of a directory, occupy; no link is followed."""
    total = 0
    with contextlib.suppress(OSError):
        found = path.lstat()
        total = found.st_blocks * 512
        if stat.S_ISDIR(found.st_mode):
            total += sum(size_of(item) for item in path.iterdir())
    return total


@contextlib.contextmanager
def named(root: Path, pattern: re.Pattern[str], *, trees: bool = False) -> Iterator[list[Entry]]:
    """The files (with `trees`, the directories) of galleria's in a directory, which is held: they
    are removed as they are. An untrusted directory, and one that is not there, has none."""
    try:
        held, trusted = durable.open_root(root)
    except (OSError, Refused):
        yield []
        return
    try:
        device = os.fstat(held).st_dev
        found = []
        for path in sorted(Path(f"/proc/self/fd/{held}").iterdir()):
            with contextlib.suppress(OSError):
                facts = path.lstat()
                fits = stat.S_ISDIR(facts.st_mode) if trees else stat.S_ISREG(facts.st_mode)
                ours = facts.st_uid in trusted and facts.st_dev == device
                if ours and fits and pattern.fullmatch(path.name):
                    used = max(facts.st_mtime, facts.st_ctime) if trees else facts.st_mtime
                    found.append(Entry(path.name, size_of(path), used, partial(_remove, path)))
        yield found
    finally:
        os.close(held)


def _remove(path: Path) -> str:
    durable.remove_tree(path)
    return ""


def collect(
    place: str,
    kind: Garbage,
    entries: Sequence[Entry],
    age: int | None,
    size: int | None,
    keep: Keep,
) -> Collected:
    """Remove what was not used for `age` seconds; then the oldest, until there are `size` bytes."""
    now = time.time()
    found = sorted(entries, key=lambda item: item.used)
    total = sum(item.size for item in found)
    freed: list[Freed] = []
    kept: list[Kept] = []
    stay = 0
    for item in found:
        idle = now - item.used
        old = age is not None and idle > age
        much = size is not None and total > size and idle > YOUNG
        if not (old or much) or len(freed) >= keep.limit:
            stay += 1
            continue
        try:
            why = "" if keep.dry_run else item.remove()
        except OSError as error:
            why = str(error)
        if why:
            kept.append(Kept(kind, item.name, why))
            continue
        total -= item.size
        freed.append(Freed(kind, item.name, item.size))
    if stay:
        kept.append(Kept(kind, f"{stay} of {len(found)}", "not old enough"))
    return Collected(place, tuple(freed), tuple(kept))


def stale(place: Path, kind: Garbage, keep: Keep) -> Collected:
    """Remove the staging directories below `place` whose owners are dead."""
    found = {path.name: size_of(path) for path in durable.sweep(place, dry_run=True)}
    gone = set(found) if keep.dry_run else {path.name for path in durable.sweep(place)}
    freed = tuple(Freed(kind, name, found.get(name, 0)) for name in sorted(gone))
    kept = (Kept(kind, name, "it can't be removed") for name in sorted(set(found) - gone))
    return Collected(str(place), freed, tuple(kept))
