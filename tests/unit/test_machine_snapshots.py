"""Snapshots of all disks of a running machine: all of them, or none."""

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import Conflict
from pipeline.gallery.model import Region, StorageAccountType
from pipeline.machines import MachineDisk, MachineFacts
from pipeline.resources.capturing import create_machine_snapshots
from pipeline.resources.names import ResourceKind, parse_resource
from pipeline.resources.service import ResourceService
from pipeline.resources.snapshots import Properties, blank
from pipeline.sources import QemuSource
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
    keeper.resources.finish(keeper.resources.begin(blank(other, properties)))
    with pytest.raises(Conflict, match="exists already"):
        create_machine_snapshots(name, QemuSource(Path("q")), properties, keeper)
    assert [item.name for item in keeper.resources.everything()] == [other]
