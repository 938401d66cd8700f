"""What is shown of versions, and what is answered besides what is stored."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from pipeline.errors import NotFound
from pipeline.gallery import answers
from pipeline.gallery.services import Services
from pipeline.jobs.show import bill_of_materials, deployments_of, list_versions, show_version
from pipeline.model import (
    Channel,
    Deployment,
    ReplicationMode,
    SharingPermissions,
    SourceFile,
    StorageAccountType,
    TargetRegion,
)
from pipeline.model.names import parse_definition, parse_gallery, parse_number
from pipeline.model.sharing import Community, Sharing
from pipeline.ports import Pins, Zone
from tests.memory_catalog import MemoryCatalog
from tests.samples import NOW, definition, disk, gallery, services, version

CORP, WEB = parse_gallery("corp"), parse_definition("corp/web")
FILE = SourceFile("/srv/web.vhd", "vpc", 1, 1, 1, 1)
OLD, NEW = version("corp/web/1.0.0", disks=(disk(),)), version("corp/web/1.1.0", disks=(disk(),))


class FullZone:
    """A zone in which each version occupies 7 bytes."""

    def allocated_bytes(self, keys: Sequence[str]) -> int:
        return 7 * len(keys)


class ChangedPins:
    def changes(self, _file: SourceFile) -> list[str]:
        return ["length"]


ZONES: Any = {"eu": (FullZone(), FullZone()), "us": (FullZone(),)}
PINS = cast(Pins, ChangedPins())
_ = Zone


def deployment(name: str, item: Any) -> Deployment:
    return Deployment(name, f"/vms/{name}", item.name, item.uid, "eu", NOW)


@pytest.fixture
def ask() -> Services:
    """corp/web with two versions, the older one prod, and corp/db with one."""
    catalog = MemoryCatalog()
    with catalog.write() as writer:
        writer.put_gallery(gallery())
        writer.put_definition(definition())
        writer.put_definition(definition("corp/db"))
        for item in (OLD, NEW, version("corp/db/3.0.0", disks=(disk(),))):
            writer.put_version(item)
        writer.put_channel(Channel(WEB, "prod", parse_number("1.0.0"), NOW))
        writer.put_deployment(deployment("a", OLD))
        writer.put_deployment(deployment("b", NEW))
        writer.put_deployment(deployment("c", version("corp/db/3.0.0")))
    return services(catalog=catalog)


def test_versions_are_listed_with_what_means_them(ask: Services) -> None:
    found = list_versions("corp/web", ask.gallery)
    listed = [(str(item.version.number), item.is_latest, item.channels) for item in found.versions]
    assert listed == [("1.1.0", True, ()), ("1.0.0", False, ("prod",))]
    assert found.total == 2
    assert found.versions[0].document()["isLatest"] is True
    assert len(list_versions("corp", ask.gallery).versions) == 3
    assert len(list_versions(None, ask.gallery).versions) == 3
    assert list_versions(None, ask.gallery, subscription=f"{'9' * 8}-{'9' * 4}").versions == ()
    page = list_versions("corp/web", ask.gallery, limit=1, before=parse_number("1.1.0"))
    assert [str(item.version.number) for item in page.versions] == ["1.0.0"]
    assert page.versions[0].is_latest is False
    assert page.total == 2
    assert list_versions("corp/web", ask.gallery, deleted=True).total == 0


def test_a_version_is_shown_with_what_belongs_to_it(ask: Services) -> None:
    found = show_version(OLD, ask.gallery, ZONES, lambda: PINS)
    assert found.channels == ("prod",)
    assert found.allocated == {"eu": 14, "us": 7}
    assert [item.name for item in found.deployments] == ["a"]
    assert found.source_changes == {}  # only a Shallow version depends on its sources
    document = found.document()
    assert document["version"]["name"] == OLD.name.arm_id
    assert document["definition"]["provisioningState"] == "Succeeded"
    assert document["allocatedBytes"] == {"eu": 14, "us": 7}
    assert document["generalizeReport"] is None
    shallow = replace(
        OLD,
        replication_mode=ReplicationMode.SHALLOW,
        disks=(replace(disk(), source=replace(disk().source, files=(FILE,))),),
    )
    changed = show_version(shallow, ask.gallery, ZONES, lambda: PINS).source_changes
    assert changed == {"/srv/web.vhd": ["length"]}


def test_vms_are_those_of_all_of_a_definition_or_of_a_version(ask: Services) -> None:
    def names(reference: str | None) -> list[str]:
        return [item.name for item in deployments_of(reference, ask.gallery)]

    assert names(None) == ["a", "b", "c"]
    assert names("CORP/web") == ["a", "b"]
    assert names("corp/web/latest") == ["b"]
    assert names("corp/web@prod") == ["a"]
    with pytest.raises(NotFound):
        names("corp/none")


def test_a_version_without_a_look_into_its_guest_has_no_bill_of_materials(ask: Services) -> None:
    with pytest.raises(NotFound, match="has no bill of materials"):
        bill_of_materials(OLD, ask.gallery)


def test_an_edge_zone_is_one_of_its_region() -> None:
    target = TargetRegion("eu/paris", None, StorageAccountType.PREMIUM_LRS)
    assert answers.edge_zone(version(replica_count=3), target) == {
        "name": "eu",
        "extendedLocation": {"name": "paris", "type": "EdgeZone"},
        "extendedLocationReplicaCount": 3,
        "storageAccountType": "Premium_LRS",
    }


def test_a_vm_of_a_shared_version_tells_no_other_name() -> None:
    made = deployment("a", OLD)
    assert answers.deployment(made)["version"] == OLD.name.arm_id
    hidden = answers.deployment(replace(made, image="/CommunityGalleries/x/Images/web"))
    assert "corp" not in str(hidden)
    assert OLD.uid not in str(hidden)


def test_a_gallery_is_known_by_how_it_is_shared() -> None:
    private = Sharing(CORP, SharingPermissions.PRIVATE)
    assert answers.sharing(private)["identifier"] == {}
    assert "sharingStatus" not in answers.sharing(private)
    tenant = "aaaaaaaa-0000-0000-0000-000000000001"
    direct = Sharing(CORP, SharingPermissions.GROUPS, tenants=(tenant,))
    document = answers.sharing(direct)
    assert document["identifier"]["uniqueId"].startswith("/SharedGalleries/")
    assert document["sharingProfile"]["groups"] == [{"type": "AADTenants", "ids": (tenant,)}]
    about = Community("https://x.example", "a@x.example", "eula", "contoso", "contoso-1")
    public = Sharing(CORP, SharingPermissions.COMMUNITY, community=about)
    assert answers.sharing(public)["identifier"] == {"uniqueId": "/CommunityGalleries/contoso-1"}
    assert answers.shared_ids(public) == ("", "/CommunityGalleries/contoso-1")


def test_whoever_has_a_shared_version_is_told_nothing_of_sources_and_places() -> None:
    document = answers.shared_version(OLD, "/CommunityGalleries/x/Images/web")
    assert document["uniqueId"] == "/CommunityGalleries/x/Images/web/Versions/1.0.0"
    assert "web.vhdx" not in str(document)
    assert "corp" not in str(document)
    made = answers.shared_definition(definition(tags={"a": "b"}), "/CommunityGalleries/x")
    assert made["name"] == "web"
    assert not {"tags", "created", "description"} & set(made)
