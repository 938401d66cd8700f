"""What is worth another attempt, and how far regions are while bytes flow."""

import errno
from typing import cast

import pytest

from pipeline.errors import Busy, CommandFailed, Conflict, NoSpace, VerificationFailed
from pipeline.gallery.service.taken import JobRecords, TakenVersion
from pipeline.jobs.retry import transient
from pipeline.model import RegionStatus, ReplicationState
from pipeline.storage.status import RegionMeter
from tests import samples


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "x"),
        OSError(errno.EBUSY, "x"),
        OSError(errno.ECONNRESET, "x"),
        TimeoutError(errno.ETIMEDOUT, "x"),
        Busy("the zone is being written to"),
        CommandFailed(["qemu-nbd"], 1, "Failed: Input/output error"),
        caused(VerificationFailed("x"), OSError(errno.EIO, "x")),
    ],
)
def test_it_may_pass(error: Exception) -> None:
    assert transient(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "x"),
        OSError(errno.EROFS, "x"),
        OSError(errno.EACCES, "x"),
        NoSpace("the zone is full"),
        caused(NoSpace("x"), OSError(errno.ENOSPC, "x")),
        Conflict("the zone holds another version"),
        VerificationFailed("x"),
        CommandFailed(["qemu-img"], 1, "No space left on device"),
    ],
)
def test_it_stays(error: Exception) -> None:
    assert not transient(error)


class Recorder:
    def __init__(self) -> None:
        self.seen: list[RegionStatus] = []
        self.changes = 0

    def set_regions(self, version: object, *statuses: RegionStatus) -> object:
        self.seen.extend(statuses)
        self.changes += 1
        return version


def test_progress_is_of_real_bytes_and_recorded_now_and_then() -> None:
    gallery, now = Recorder(), [0.0]
    version = TakenVersion(samples.version())
    meter = RegionMeter(
        version, ["eu", "us"], 1000, cast(JobRecords, gallery), clock=lambda: now[0]
    )
    assert [(s.region, s.state, s.progress) for s in gallery.seen] == [
        ("eu", ReplicationState.REPLICATING, 0),
        ("us", ReplicationState.REPLICATING, 0),
    ]
    for _ in range(100):
        meter.advance(5)  # half of it, in no time: nothing new for the catalog
    assert len(gallery.seen) == 2
    assert gallery.changes == 1  # each is a durable transaction
    now[0] = 1.5
    meter.advance(5)
    assert [s.progress for s in gallery.seen[2:]] == [50, 50]
    now[0] = 3.0
    meter.advance(1)
    assert len(gallery.seen) == 4  # less than a step
    meter.advance(494)
    assert [s.progress for s in gallery.seen[4:]] == [99, 99]  # 100 is for what can be used
