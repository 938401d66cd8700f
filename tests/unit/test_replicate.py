"""What replication records of regions, and when."""

import errno
import threading
from pathlib import Path
from typing import cast

import pytest

from pipeline.errors import NoSpace
from pipeline.gallery.service.taken import JobRecords, TakenVersion
from pipeline.model import ImageVersion, RegionStatus, ReplicationState
from pipeline.ports import Replica, VersionRecord, Zone
from pipeline.storage.commit import publish_region, replicate
from pipeline.storage.convert import Stored
from pipeline.storage.placement import Placement
from tests import samples

DEADLINE = 20.0  # seconds; what waits that long has met the fault that is looked for


class Gallery:
    """Notes the regions of each change; the first one lets `waiting` zones go on."""

    def __init__(self) -> None:
        self.changes: list[dict[str, ReplicationState]] = []
        self.recorded = threading.Event()

    def set_regions(self, version: ImageVersion, *statuses: RegionStatus) -> ImageVersion:
        self.changes.append({status.region: status.state for status in statuses})
        self.recorded.set()
        return version


class FakeZone:
    def __init__(
        self,
        name: str,
        after: threading.Event | None = None,
        error: Exception | None = None,
        *,
        stuck: bool = False,
    ) -> None:
        self.name, self.path = name, Path(name)
        self._after, self._error, self._stuck = after, error, stuck
        self.removed: list[str] = []

    def publish(self, *_: object) -> tuple[Replica, ...]:
        if self._after is not None:
            assert self._after.wait(DEADLINE)
        if self._error is not None:
            raise self._error
        return ()

    def remove_version(self, key: str) -> None:
        self.removed.append(key)
        if self._stuck:
            raise OSError(errno.EIO, "the zone is gone")


def outcome(gallery: Gallery, **zones: FakeZone) -> dict[str, Exception]:
    places = {name: (Placement(cast(Zone, zone), 1),) for name, zone in zones.items()}
    version, record = TakenVersion(samples.version()), VersionRecord("k", {})
    found = replicate(version, record, Stored(), places, cast(JobRecords, gallery))
    return dict(found.errors)


def test_a_region_is_recorded_before_slower_ones_are_ready() -> None:
    gallery = Gallery()
    slow = {name: FakeZone(name, gallery.recorded) for name in ("us", "asia")}
    assert outcome(gallery, eu=FakeZone("eu"), **slow) == {}
    assert gallery.changes[0] == {"eu": ReplicationState.COMPLETED}
    rest = [name for change in gallery.changes[1:] for name in change]
    assert sorted(rest) == ["asia", "us"]


def test_failures_are_recorded_together_at_the_end() -> None:
    gallery, error = Gallery(), NoSpace("full")
    broken = {name: FakeZone(name, error=error) for name in ("us", "asia")}
    errors = outcome(gallery, eu=FakeZone("eu"), **broken)
    assert errors == {"us": error, "asia": error}
    failed = ReplicationState.FAILED
    assert gallery.changes == [
        {"eu": ReplicationState.COMPLETED},
        {"us": failed, "asia": failed},
    ]


def test_nothing_is_recorded_when_every_region_failed() -> None:
    gallery = Gallery()
    assert set(outcome(gallery, eu=FakeZone("eu", error=OSError("x")))) == {"eu"}
    assert gallery.changes == []


def test_the_error_of_a_region_is_the_first_and_every_zone_is_undone() -> None:
    """That a zone can't take its replicas back does not hide why it should."""
    error = NoSpace("full")
    zones = [FakeZone("a"), FakeZone("b", stuck=True), FakeZone("c", error=error)]
    placements = [Placement(cast(Zone, zone), 1) for zone in zones]
    with pytest.raises(NoSpace) as caught:
        publish_region(VersionRecord("k", {}), {}, placements)
    assert caught.value is error
    assert [zone.removed for zone in zones] == [["k"], ["k"], []]
