"""Whether what a file system calls free is free by its files, too.

A bitmap says one thing, the inodes another: a damaged file system may call a live file's blocks
free. Dropping these would lose the file without a word, and letting the file system fill its free
space with zeros would, too. So the blocks that files have are compared with the free ones first.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from pipeline.errors import Refused
from pipeline.ports.extents import Range


class Damaged(Refused):
    """A file system that contradicts itself."""

    def __init__(self, what: str, *, device: str = "the file system") -> None:
        super().__init__(
            f"{device} is damaged: {what}",
            hint="repair it in its machine, or on a copy (e2fsck -f, xfs_repair, btrfs check, "
            "fsck.vfat, chkdsk), and publish that",
        )
        self.what = what


def check(used: Iterable[Range], free: Sequence[Range], end: int) -> None:
    """Raise Damaged when something in use is called free, or lies behind the end. `free` is sorted
    and merged."""
    starts = [item.start for item in free]
    for item in used:
        if item.end > end:
            raise Damaged(f"it has a file with a block at byte {item.start}, behind its end")
        at = bisect_right(starts, item.end - 1) - 1
        if at >= 0 and free[at].end > item.start:
            raise Damaged(
                f"it calls bytes free that a file has ({item.length} bytes at {item.start})"
            )
