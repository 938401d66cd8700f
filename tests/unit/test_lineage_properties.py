"""What goes with content through all its copies: purchase plan, disk controllers, network."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.errors import InvalidParameter
from pipeline.gallery.documents import decode, encode
from pipeline.jobs.agree import agree, known
from pipeline.jobs.prepare import PublishRequest, host_caching
from pipeline.model import Architecture, Feature, HostCaching, PurchasePlan, SourceProperties
from pipeline.model.descriptions import Description
from pipeline.model.resource_names import ResourceKind, parse_resource
from pipeline.model.resources import DiskControllerTypes, Snapshot, SupportedCapabilities
from pipeline.model.sources import DiskSource, SnapshotSource
from pipeline.ports.sources import Supply
from pipeline.resources.opening import described
from pipeline.resources.storing import annotated
from pipeline.sources.supply import supplied
from tests.samples import NOW, definition, request, services

PLAN, OTHER = PurchasePlan("plan", "Contoso", "web"), PurchasePlan("p", "Fabrikam", "db")
OS = DiskSource(None, Path("os"))
SNAPSHOT = Snapshot(
    parse_resource("s1", ResourceKind.SNAPSHOT).arm_id,
    "eu",
    NOW,
    "u",
    supported_capabilities=SupportedCapabilities(Architecture.X64, False, DiskControllerTypes.NVME),
    purchase_plan=PLAN,
)


def test_a_resource_says_where_it_comes_from() -> None:
    found = described(Supply((OS,)), SNAPSHOT).description
    assert (found.controller, found.accelerated_network, found.purchase_plan) == (
        "NVMe",
        False,
        PLAN,
    )
    assert decode(Snapshot, encode(SNAPSHOT)) == SNAPSHOT
    assert encode(SNAPSHOT)["supportedCapabilities"] == {
        "architecture": "x64",
        "acceleratedNetwork": False,
        "diskControllerTypes": "NVMe",
    }


def test_a_disk_that_works_with_both_controllers_needs_neither() -> None:
    both = SupportedCapabilities(disk_controller_types=DiskControllerTypes.BOTH)
    supply = described(Supply((OS,)), replace(SNAPSHOT, supported_capabilities=both))
    assert supply.description.controller is None


def test_a_copy_has_what_its_source_has_unless_more_is_said() -> None:
    bare = replace(SNAPSHOT, supported_capabilities=SupportedCapabilities(), purchase_plan=None)
    source = replace(described(Supply((OS,)), SNAPSHOT).description, generation="V2")
    unused = cast(Any, None)
    copy = annotated(bare, source, unused, unused)
    assert (copy.supported_capabilities, copy.purchase_plan) == (
        SNAPSHOT.supported_capabilities,
        PLAN,
    )
    said = SupportedCapabilities(None, True, DiskControllerTypes.SCSI)
    copy = annotated(replace(bare, supported_capabilities=said), source, unused, unused)
    assert copy.supported_capabilities == SupportedCapabilities(
        Architecture.X64, True, DiskControllerTypes.SCSI
    )


class Several:
    """Sources of which the data disk's has a plan."""

    def open(self, source: DiskSource | SnapshotSource, work: Path) -> Any:
        plan = PLAN if source.lun == 0 else None
        disk = replace(OS, lun=source.lun)
        return nullcontext(Supply((disk,), Description(generation="V2", purchase_plan=plan)))


def test_of_several_sources_the_plan_is_kept(tmp_path: Path) -> None:
    wanted = (SnapshotSource(None, "a"), SnapshotSource(0, "b"))
    with supplied(wanted, tmp_path, cast(Any, Several())) as supply:
        assert supply.description == Description(purchase_plan=PLAN)


def test_lineage_comes_before_what_a_publisher_says() -> None:
    declared = SourceProperties("SCSI", True, OTHER)
    assert known(Description(), declared) == declared
    told = Description(controller="NVMe", accelerated_network=False, purchase_plan=PLAN)
    assert known(told, declared) == SourceProperties("NVMe", False, PLAN)


def test_a_plan_goes_into_definitions_that_have_it() -> None:
    service = services()
    service.gallery.create_gallery(definition().name.gallery, "eu")
    features = (Feature("DiskControllerTypes", "SCSI,NVMe"),)
    service.gallery.create_definition(definition(purchase_plan=PLAN, features=features))
    version = service.gallery.begin_version(request())
    agree(
        version,
        Description(controller="NVMe", purchase_plan=PLAN),
        SourceProperties(),
        service.gallery,
    )
    with pytest.raises(InvalidParameter, match="has a different plan"):
        agree(
            version,
            Description(purchase_plan=OTHER),
            SourceProperties(None, None, PLAN),
            service.gallery,
        )


def test_a_copy_of_a_version_keeps_its_host_caching() -> None:
    had = {None: HostCaching.READ_ONLY, 0: HostCaching.READ_WRITE}
    supply = Supply((OS,), Description(host_caching=had))
    wanted = PublishRequest(request(host_caching={0: HostCaching.NONE}), (), None)
    found = host_caching(supply, wanted)
    assert {lun: found.get(lun) for lun in (None, 0, 1)} == {
        None: HostCaching.READ_ONLY,
        0: HostCaching.NONE,
        1: None,
    }
