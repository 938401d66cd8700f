"""Snapshots of all disks of a running machine: all of them, or none; and which error is told."""

from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.errors import Conflict, undone_by
from pipeline.jobs.replicate import held
from pipeline.model import Region, StorageAccountType
from pipeline.model.garbage import AT_ONCE, Collected
from pipeline.model.resource_names import ResourceKind, parse_resource
from pipeline.model.resources import Snapshot
from pipeline.model.sources import QemuSource
from pipeline.ports import Zone
from pipeline.ports.machines import MachineDisk, MachineFacts
from pipeline.resources.capturing import create_machine_snapshots
from pipeline.resources.snapshots import Properties, blank
from pipeline.resources.storing import taken_back
from tests.samples import services

DISKS = tuple(MachineDisk(f"disk{lun}", lun, 1 << 20, 0, "raw", True) for lun in (None, 0, 1))


@pytest.fixture
def context() -> Any:
    regions = (Region("eu", (StorageAccountType.STANDARD_LRS,)),)

    made = services(regions=regions)

    @contextmanager
    def directory() -> Any:
        yield Path("work")

    return SimpleNamespace(
        runs=SimpleNamespace(current=object()),  # within a run
        zones={},
        gallery=made.gallery,
        work=SimpleNamespace(directory=directory),
        resources=made.resources,
        records=made.records,
        machines=SimpleNamespace(facts=lambda _: MachineFacts("u", "web", True, DISKS)),
        leftovers=lambda _: [],
        keep=AT_ONCE,
    )


def test_a_name_that_is_taken_leaves_the_others_free(context: Any) -> None:
    name = parse_resource("web", ResourceKind.SNAPSHOT)
    other = parse_resource("web-data-1", ResourceKind.SNAPSHOT)
    properties = Properties("eu")
    context.records.finish_resource(context.resources.begin(blank(Snapshot, other, properties)))
    with pytest.raises(Conflict, match="exists already"):
        create_machine_snapshots(name, QemuSource(Path("q")), properties, context)
    assert [item.name for item in context.records.resources()] == [other]


def test_the_first_error_counts(context: Any) -> None:
    """A disk that fails, say, fails the undoing, too: what it says then is no news."""

    def fails(_: str) -> None:
        raise OSError("the zone can't be written any more")

    zone = SimpleNamespace(
        path=Path("eu"), region="eu", remove_version=fails, backing_files=lambda *, strict: set()
    )
    zone.garbage_collect = lambda _needed, _files, _keep: Collected("eu")
    context.zones = {"eu": (zone,)}
    begun = context.resources.begin(
        blank(Snapshot, parse_resource("web", ResourceKind.SNAPSHOT), Properties("eu"))
    )
    with pytest.raises(Conflict, match="first"), taken_back([begun], context):
        raise Conflict("first")
    with pytest.raises(Conflict, match="first"), undone_by(lambda: fails("")):
        raise Conflict("first")


def test_zones_are_held_until_the_first_error(context: Any) -> None:
    collected: list[object] = []

    def garbage_collect(needed: object, _files: object, _keep: object) -> None:
        collected.append(needed)
        if len(collected) > 1:
            raise OSError("the zone can't be written any more")

    zone = SimpleNamespace(
        path=Path("eu"),
        garbage_collect=garbage_collect,
        backing_files=lambda *, strict: set(),
        hold=lambda: nullcontext(),
    )
    context.zones = {"eu": (zone,)}
    with pytest.raises(Conflict, match="first"), held({"eu": cast(Zone, zone)}, context):
        raise Conflict("first")
    assert len(collected) == 2
