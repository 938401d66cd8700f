"""What a session changed in its guest, so that it can be dated alike in every run.

Blocks and inodes are given out in one order in every run; times and generations are not, and are
set when everything is unmounted (ext). For that it has to be known which inodes were changed.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from adapters.guestfs.devices import Devices
from adapters.guestfs.process import CallFailed, Helper
from adapters.guestfs.shell import quote, run_script
from adapters.guestfs.walk import Stat, is_directory
from pipeline.data.extents import SECTOR
from pipeline.ports.extents import Range

SYSROOT = "/sysroot"  # where the appliance mounts the guest
MAPPED_FILES = ("ext2", "ext3", "ext4", "xfs")  # what filefrag says is where it lies
HOLLOW_BLOCK = 4096
EXTENT = re.compile(r"^ *\d+: +(\d+)\.\. *\d+: +(\d+)\.\. *\d+: +(\d+):(?: +\d+:)?(.*)$", re.M)
UNPLACED = {"inline", "encoded", "delalloc", "unknown_loc", "not_aligned", "tail"}


@dataclass(slots=True)
class Changes:
    """`paths` are real; `inodes` are (device number, inode); `hollow` is how much of a file's start
    is kept; `mount_points` says which device is mounted where."""

    helper: Helper
    mount_points: Mapping[str, str]
    paths: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)
    inodes: set[tuple[int, int]] = field(default_factory=set)
    hollow: dict[str, int] = field(default_factory=dict)

    def changed(self, real: str, *, made: bool = False) -> None:
        self.paths.add(real)
        if made:
            self.made.add(real)
            self.paths.add(str(PurePosixPath(real).parent))

    def note_links(self, stats: Iterable[Stat]) -> None:
        """Before files are removed: those that have other names too, and so stay."""
        self.inodes |= {
            (stat["st_dev"], stat["st_ino"])
            for stat in stats
            if stat["st_nlink"] > 1 and not is_directory(stat)
        }

    def note_tree(self, real: str) -> None:
        """Before a whole directory is: the same."""
        output = run_script(
            self.helper,
            f"find {quote(SYSROOT + real)} ! -type d -links +1 -printf '%D %i\\n' || true",
        )
        rows = (line.split() for line in output.splitlines())
        self.inodes |= {(int(number), int(inode)) for number, inode in rows}

    def by_device(self) -> tuple[dict[str, set[int]], dict[str, set[int]]]:
        """Inodes that were changed, and those that were made, by device. What is mounted must still
        be."""
        devices = {
            self.helper.call("lstatns", point)["st_dev"]: name
            for point, name in self.mount_points.items()
        }
        touched: dict[str, set[int]] = {name: set() for name in self.mount_points.values()}
        created: dict[str, set[int]] = {name: set() for name in self.mount_points.values()}
        for number, inode in self.inodes:
            if number in devices:
                touched[devices[number]].add(inode)
        for path in sorted(self.paths):
            if any("\udc80" <= character <= "\udcff" for character in path):
                continue  # libguestfs's bindings want UTF-8; such a file keeps its own times
            try:
                stat = self.helper.call("lstatns", path)
            except CallFailed as error:
                if error.absent:  # changed first and removed later
                    continue
                raise
            if (name := devices.get(stat["st_dev"])) is not None:
                touched[name].add(stat["st_ino"])
                if path in self.made:
                    created[name].add(stat["st_ino"])
        return touched, created

    def hollows(self, found: Devices) -> dict[str, list[Range]]:
        """Where on their devices the contents lie that were given up. Where that can't be known
        they are zeroed now."""
        ranges: dict[str, list[Range]] = {}
        for path, keep in self.hollow.items():
            file = quote(SYSROOT + path)
            point = max(
                (p for p in self.mount_points if f"{path}/".startswith(f"{p.rstrip('/')}/")),
                key=len,
            )
            device = found.find(self.mount_points[point])
            if device is None or not device.pieces or device.kind not in MAPPED_FILES:
                run_script(
                    self.helper,
                    f"dd if=/dev/zero of={file} bs={HOLLOW_BLOCK} seek={keep // HOLLOW_BLOCK} "
                    f"count=$(( ($(stat -c %s {file}) - {keep}) / {HOLLOW_BLOCK} )) "
                    "conv=notrunc,fsync 2>/dev/null",
                )
                continue
            listing = run_script(self.helper, f"filefrag -v -b512 {file}")
            extents = _file_ranges(listing.decode(errors="replace"), keep)
            ranges.setdefault(device.name, []).extend(extents)
        return ranges


def _file_ranges(listing: str, keep: int) -> Iterator[Range]:
    """filefrag(8)'s table of extents in sectors, without the first `keep` bytes of the file."""
    for logical, physical, length, flags in EXTENT.findall(listing):
        if UNPLACED & set(flags.replace(" ", "").split(",")):
            continue
        skip = min(max(keep - int(logical) * SECTOR, 0), int(length) * SECTOR)
        if skip < int(length) * SECTOR:
            yield Range(int(physical) * SECTOR + skip, int(length) * SECTOR - skip)
