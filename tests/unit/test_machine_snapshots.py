"""Snapshots of all disks of a running machine: all of them, or none; and which error is told."""

from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.errors import Conflict, undone_by
from pipeline.jobs.replicate import held
from pipeline.model import Region, StorageAccountType
from pipeline.model.resource_names import ResourceKind, parse_resource
from pipeline.model.resources import Snapshot
from pipeline.model.sources import QemuSource
from pipeline.ports import Zone
from pipeline.ports.machines import MachineDisk, MachineFacts
from pipeline.resources.capturing import create_machine_snapshots
from pipeline.resources.service import ResourceService
from pipeline.resources.snapshots import Properties, blank
from pipeline.resources.storing import taken_back
from tests.memory_catalog import MemoryCatalog
from tests.samples import FakeOwners

DISKS = tuple(MachineDisk(f"disk{lun}", lun, 1 << 20, 0, "raw", True) for lun in (None, 0, 1))


@pytest.fixture
def keeper() -> Any:
    regions = (Region("eu", (StorageAccountType.STANDARD_LRS,)),)

    @contextmanager
    def directory() -> Any:
        yield Path("work")

    return SimpleNamespace(
        ports=SimpleNamespace(
            zones={},
            gallery=SimpleNamespace(list_deployments=list),
            work=SimpleNamespace(directory=directory),
        ),
        resources=ResourceService(MemoryCatalog(), FakeOwners(), regions),
        machines=SimpleNamespace(look=lambda _: MachineFacts("u", "web", True, DISKS)),
    )


def test_a_name_that_is_taken_leaves_the_others_free(keeper: Any) -> None:
    name = parse_resource("web", ResourceKind.SNAPSHOT)
    other = parse_resource("web-data-1", ResourceKind.SNAPSHOT)
    properties = Properties("eu")
    keeper.resources.finish(keeper.resources.begin(blank(Snapshot, other, properties)))
    with pytest.raises(Conflict, match="exists already"):
        create_machine_snapshots(name, QemuSource(Path("q")), properties, keeper)
    assert [item.name for item in keeper.resources.everything()] == [other]


def test_the_first_error_counts(keeper: Any) -> None:
    """A disk that fails, say, fails the undoing, too: what it says then is no news."""

    def fails(_: str) -> None:
        raise OSError("the zone can't be written any more")

    keeper.ports.zones = {"eu": (SimpleNamespace(path=Path("eu"), remove_version=fails),)}
    begun = keeper.resources.begin(
        blank(Snapshot, parse_resource("web", ResourceKind.SNAPSHOT), Properties("eu"))
    )
    with pytest.raises(Conflict, match="first"), taken_back([begun], keeper):
        raise Conflict("first")
    with pytest.raises(Conflict, match="first"), undone_by(lambda: fails("")):
        raise Conflict("first")


def test_zones_are_held_until_the_first_error(keeper: Any) -> None:
    collected: list[object] = []

    def collect(keep: object, _files: object) -> None:
        collected.append(keep)
        if len(collected) > 1:
            raise OSError("the zone can't be written any more")

    zone = SimpleNamespace(
        path=Path("eu"), collect=collect, leans_on=lambda: [], hold=lambda: nullcontext()
    )
    keeper.ports.zones = {"eu": (zone,)}
    with pytest.raises(Conflict, match="first"), held({"eu": cast(Zone, zone)}, keeper.ports):
        raise Conflict("first")
    assert len(collected) == 2
