"""The power goes at a durable step of a publish, and what was not yet on the disk is lost.

ext4 and XFS are shut down without their log being written (`xfs_io -x -c shutdown`); btrfs has no
such call: what its disk holds at that moment is cloned, and mounted instead. Afterwards the file
system is sound, what was acknowledged is all there, and the same command finishes the job.
"""

import contextlib
import os
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from adapters.filesystem import calls as fs
from pipeline.model import ProvisioningState
from pipeline.model.names import parse_definition
from tests.conftest import missing
from tests.crash.test_publish import check_visible
from tests.crash.world import DIED, Step, World, in_child_with
from tests.system.conftest import KINDS, MAKE, Mount, loop_mounted, settle

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(3600)]

MOST = 1000  # more durable steps than a publish has
BOUNDED = (2, 9, 24, 41, 54)  # those that every run of the suite tries
SIZE = 512  # MiB: the work directory is on it, too
CHECK = {
    "xfs": ["xfs_repair", "-n"],
    "ext4": ["e2fsck", "-fn"],
    "btrfs": ["btrfs", "check", "--readonly"],
}


class Disk:
    """A file system in a file that can lose its power: `mounted()` is one time with power."""

    def __init__(self, kind: str, image: Path) -> None:
        self.kind, self.image = kind, image
        self.directory = image.with_suffix(".mnt")
        self._last = image.with_suffix(".last")  # of btrfs: what the disk held when the power went
        with image.open("wb") as file:
            file.truncate(SIZE << 20)
        subprocess.run([*MAKE[kind], str(image)], check=True, stdout=subprocess.DEVNULL)

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        with loop_mounted(self.image, at=self.directory):
            yield self.directory
        if self._last.exists():
            self._last.replace(self.image)

    def cut(self) -> None:
        """Nothing that is written from now on gets to the disk."""
        if self.kind == "btrfs":
            assert fs.clone(self.image, self._last)
        else:
            shutdown = ["xfs_io", "-x", "-c", "shutdown", str(self.directory)]
            subprocess.run(shutdown, check=True, stdout=subprocess.DEVNULL)

    def check(self) -> None:
        """That the file system's own checker finds nothing wrong (unmounted, its log replayed)."""
        done = subprocess.run([*CHECK[self.kind], str(self.image)], capture_output=True, text=True)
        assert done.returncode == 0, (done.stdout, done.stderr)


def cut_at(disk: Disk, k: int) -> Step:
    calls = iter(range(1, k + 1))
    alone = threading.Lock()  # regions are written by threads: the first one cuts

    def step(_name: str) -> None:
        with alone:
            if next(calls, k) == k:
                disk.cut()
                os._exit(DIED)

    return step


def check_catalog(world: World) -> None:
    with contextlib.closing(sqlite3.connect(world.config.catalog.removeprefix("sqlite:///"))) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def succeeded(world: World) -> set[str]:
    with world.app() as app:
        versions = app.gallery.list_versions(parse_definition("corp/web"))
        done = ProvisioningState.SUCCEEDED
        return {str(each.name.number) for each in versions if each.provisioning_state is done}


@pytest.mark.parametrize(
    "tried", [BOUNDED, pytest.param(range(1, MOST), marks=pytest.mark.nightly)], ids=len
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_power_goes(
    tmp_path: Path,
    mount: Mount,
    require: Callable[..., None],
    kind: str,
    tried: Sequence[int],
) -> None:
    require("xfs_io", CHECK[kind][0], MAKE[kind][0])
    if os.geteuid() != 0:
        missing("only root can mount file systems")
    below = mount("xfs", size_mib=1536)  # clones files at once, and whole
    cuts = 0
    for k in tried:
        disk = Disk(kind, below / f"{k}.img")
        with disk.mounted() as directory:
            world = World(directory)
            world.publish("1.0.0")
            settle(directory)  # the source is not galleria's to write
            status = in_child_with(partial(world.publish, "2.0.0"), cut_at(disk, k))
        if status == 0:
            break
        assert status == DIED, f"step {k}"
        cuts += 1
        with disk.mounted():
            check_catalog(world)
            assert succeeded(world) >= {"1.0.0"}
            check_visible(world)
            if "2.0.0" not in succeeded(world):
                world.publish("2.0.0")
            assert succeeded(world) == {"1.0.0", "2.0.0"}
            check_visible(world)
            check_catalog(world)
        disk.check()
        disk.image.unlink()
    assert cuts == len(tried) or (status == 0 and cuts > 50)
