"""What a zone's file system can do, found by trying, and how it is best written."""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from adapters.filesystem import calls, durable


class Writing(StrEnum):
    """How the data of new files is written; what is in them is the same.

    CACHED: through the page cache, on the disk by the final flush. BEHIND: the disk begins with a
    range as soon as it is written, and its pages are freed a little later: the cache keeps what
    others have there, and the same few pages, which the processor has at hand, serve again and
    again. ALLOCATED: that, and blocks are asked for before. DIRECT: without the page cache
    (O_DIRECT).
    """

    CACHED = "cached"
    BEHIND = "behind"
    ALLOCATED = "allocated"
    DIRECT = "direct"


# What was the fastest way, by the name of the file system: that can't be found out by a quick try.
# Measured on two cores (757 MiB of data, both digests, flush; medians of several runs, seconds):
#              CACHED   BEHIND   ALLOCATED   DIRECT   qemu-img convert, without digests
#     xfs       1.10     0.35      0.53       0.68      0.53 to 1.84
#     ext4      2.37     0.72      0.69       0.90      0.64 to 1.07
#     btrfs     1.39     2.25      2.38       1.46      1.30 to 1.42
BEST = {"btrfs": Writing.CACHED, "xfs": Writing.BEHIND, "ext4": Writing.ALLOCATED}


@dataclass(frozen=True, slots=True)
class ZoneProfile:
    """What a directory's file system can do, and how it is best written."""

    reflink: bool
    punch_hole: bool
    no_replace: bool
    directory_sync: bool
    writing: Writing = Writing.BEHIND

    @staticmethod
    def of(record: Mapping[str, Any]) -> "ZoneProfile":
        """From a zone's record; an older one says nothing of writing. Raises TypeError, ValueError
        and KeyError when it is none."""
        writing = Writing(record.get("writing", Writing.BEHIND))
        return ZoneProfile(**{**record, "writing": writing})


def probe(directory: Path) -> ZoneProfile:
    """Find out by trying, in temporary files that are gone afterwards."""
    names = [directory / f".galleria-probe-{secrets.token_hex(8)}" for _ in range(2)]
    one, two = names
    try:
        durable.fill(one, os.urandom(1 << 16))
        durable.fill(two, b"")
        with one.open("r+b") as file:
            punch = calls.punch_hole(file.fileno(), 4096, 4096)
        return ZoneProfile(
            reflink=calls.clone(one, two),
            punch_hole=punch,
            no_replace=_keeps_names(one, two),
            directory_sync=_syncs(directory),
            writing=BEST.get(calls.kind(directory), Writing.BEHIND),
        )
    finally:
        for name in names:
            name.unlink(missing_ok=True)


def _keeps_names(one: Path, two: Path) -> bool:
    try:
        durable.rename_new(one, two)
    except FileExistsError:
        return True
    except OSError:
        return False
    return False


def _syncs(directory: Path) -> bool:
    try:
        durable.sync_directory(directory)
    except OSError:
        return False
    return True
