"""System calls that fail, one at a time, while versions are published, changed and deleted.

Whatever fails: it is told in one sentence with a stable status, what is visible is whole, and the
same command finishes the job. Nothing else makes galleria's own writes and those of SQLite, qemu
and the sandbox fail alike.
"""

import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from adapters.cli import EXIT_STATUSES
from pipeline.errors import NotFound
from pipeline.jobs.garbage import collect_all
from pipeline.model.names import parse_definition
from tests.crash.test_changes import check_usable, delete, update
from tests.crash.test_publish import again, check_finished, check_visible
from tests.crash.world import World
from tests.failures.injection import Fault, under

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
]

# What a disk answers: it is broken, it is full, the file may not grow, a signal came meanwhile; and
# what a process may not have any more: files, memory.
FAULTS = (
    ("fsync", "EIO"),
    ("fdatasync", "EIO"),
    ("write", "ENOSPC"),
    ("write", "EIO"),
    ("pwrite64", "ENOSPC"),
    ("pwrite64", "EFBIG"),
    ("pwrite64", "EINTR"),
    ("ftruncate", "ENOSPC"),
    ("rename", "EIO"),
    ("renameat2", "ENOSPC"),
    ("mkdir", "ENOSPC"),
    ("unlinkat", "EIO"),
    ("copy_file_range", "ENOSPC"),
    ("ioctl", "EIO"),
    ("openat", "EMFILE"),
    ("openat", "ENOSPC"),
)
MOST = 60_000  # strace counts no further
BOUNDED = (1, 3, 7, 18, 47, 123)  # those that every run of the suite tries
WEB = parse_definition("corp/web")

# What a job does not do: clone (nor does the file system of the tests), or make a file.
UNCALLED = {
    *((name, "copy_file_range") for name in ("publish", "update", "delete")),
    *(("delete", call) for call in ("ftruncate", "ioctl", "rename")),
}

Job = Callable[[World], object]


def publish(world: World) -> None:
    world.publish("1.0.0")


def after_publishing(world: World) -> None:
    check_visible(world)
    again(world)
    check_finished(world)


def after_updating(world: World) -> None:
    check_usable(world)
    update(world)
    check_usable(world)
    with world.app() as app:
        (version,) = app.gallery.list_versions(WEB)
    assert version.completed_regions == ("eu",)


def after_deleting(world: World) -> None:
    with contextlib.suppress(NotFound):  # it was done already
        delete(world)
    with world.app() as app:
        assert app.gallery.list_versions(WEB) == []
        collect_all(app.context, replace(app.context.keep, unused=0))
    for region in ("eu", "us"):
        zone = world.config.regions[region][0].path
        assert [*(zone / "bases").iterdir(), *(zone / "versions").iterdir()] == []
    assert [path for path in world.debris() if "/staging/" in path] == []


# What a job does, and what does it again and says that it is done.
JOBS: dict[str, tuple[Job, Job]] = {
    "publish": (publish, after_publishing),
    "update": (update, after_updating),
    "delete": (delete, after_deleting),
}


@pytest.mark.parametrize(
    "tried", [BOUNDED, pytest.param(range(1, MOST), marks=pytest.mark.nightly)], ids=len
)
@pytest.mark.parametrize(("call", "error"), FAULTS)
@pytest.mark.parametrize("name", JOBS)
def test_a_call_that_fails(
    tmp_path: Path, name: str, call: str, error: str, tried: Sequence[int]
) -> None:
    job, finish = JOBS[name]
    live, kept = tmp_path / "live", tmp_path / "kept"
    live.mkdir()
    world = World(live)
    if job is not publish:
        world.publish("1.0.0")
    shutil.copytree(live, kept, symlinks=True)
    failed = 0
    for when in tried:
        outcome = under(Fault(call, error, when), partial(job, world), tmp_path / "strace")
        if not outcome.failed:
            break
        failed += 1
        try:
            assert outcome.status in EXIT_STATUSES
            assert not outcome.message.startswith("unexpected ")
            finish(world)
        except Exception as wrong:
            wrong.add_note(f"{call} {error} {when}: {outcome}")
            raise
        shutil.rmtree(live)
        shutil.copytree(kept, live, symlinks=True)
    assert failed or (name, call) in UNCALLED
