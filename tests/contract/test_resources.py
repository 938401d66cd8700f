"""Disks, snapshots and managed images in a catalog: the contract, and the operations on it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.catalog import open_catalog
from pipeline.errors import AuthorizationFailed, Conflict, InvalidParameter, NotFound
from pipeline.gallery.services import Services
from pipeline.model import Origin, ProvisioningState, Region
from pipeline.model.access import Action, Principal, Role
from pipeline.model.resource_names import ResourceKind, ResourceName, parse_resource, resource_of
from pipeline.model.resources import (
    Content,
    CreateOption,
    CreationData,
    Disk,
    DiskFile,
    ManagedImage,
    Resource,
    Snapshot,
)
from pipeline.ports.catalog import Catalog
from tests.memory_catalog import MemoryCatalog
from tests.samples import die, services

NOW = datetime(2026, 11, 23, tzinfo=UTC)
DIGEST = "ab" * 32


@pytest.fixture(params=["memory", "sqlite"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    made = (
        MemoryCatalog()
        if request.param == "memory"
        else open_catalog(f"sqlite:///{tmp_path}/catalog.db")
    )
    yield made
    made.close()


def named(name: str, kind: ResourceKind = ResourceKind.SNAPSHOT) -> ResourceName:
    return ResourceName(kind, name)


def snapshot(name: str = "web", location: str = "eu") -> Snapshot:
    return Snapshot(named(name).arm_id, location, NOW, "")


CONTENT = Content(None, DIGEST, 1 << 30, Origin("file", "/srv/web.qcow2"))
RESOURCES: tuple[Resource, ...] = (
    Snapshot(
        named("a").arm_id,
        "eu",
        NOW,
        "1" * 32,
        contents=(CONTENT,),
        creation_data=CreationData(CreateOption.COPY, source_resource_id="/x", lun=3),
        incremental=True,
        incremental_snapshot_family_id="f" * 32,
    ),
    Disk(
        named("a", ResourceKind.DISK).arm_id,
        "eu",
        NOW,
        "2" * 32,
        disk_size=1 << 20,
        file=DiskFile("/srv/a.raw", "raw"),
    ),
    ManagedImage(named("a", ResourceKind.IMAGE).arm_id, "eu", NOW, "3" * 32, tags={"ü": "1"}),
)


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda item: type(item).__name__)
def test_what_is_put_is_found_by_any_case(catalog: Catalog, resource: Resource) -> None:
    with catalog.write() as writer:
        assert writer.resource(resource.name) is None
        writer.put_resource(resource)
        changed = replace(resource, completion_percent=40)
        writer.put_resource(changed)
    with catalog.read() as reader:
        upper = ResourceName(resource.name.kind, "A", resource_group="GALLERIA")
        assert reader.resource(upper) == changed
        assert reader.resources(resource.name.kind) == [changed]
        others = [kind for kind in ResourceKind if kind is not resource.name.kind]
        assert [reader.resources(kind) for kind in others] == [[], []]
    with catalog.write() as writer:
        writer.delete_resource(upper)
        writer.delete_resource(upper)
        assert writer.resource(upper) is None


def test_lists_are_in_the_order_of_names(catalog: Catalog) -> None:
    with catalog.write() as writer:
        for number, name in enumerate(("b", "C", "a")):
            writer.put_resource(replace(snapshot(name), unique_id=f"{number:032}"))
    with catalog.read() as reader:
        found = [item.name.name for item in reader.resources(ResourceKind.SNAPSHOT)]
    assert found == ["a", "b", "C"]


def service(catalog: Catalog, principal: str | None = None) -> Services:
    return services(catalog=catalog, principal=principal, regions=[Region("EU West")])


def test_a_resource_is_made_once(catalog: Catalog) -> None:
    made = service(catalog)
    begun = made.resources.begin(snapshot(location="euwest"))
    assert begun.location == "EU West"
    assert len(begun.unique_id) == 32
    with pytest.raises(Conflict, match="can't be used yet"):
        made.resources.use(begun.name)
    another = service(catalog)
    with pytest.raises(Conflict, match="being made by another"):
        another.resources.begin(snapshot(location="euwest"))
    done = made.records.finish_resource(replace(begun, contents=(CONTENT,)))
    assert done.provisioning_state is ProvisioningState.SUCCEEDED
    assert made.resources.use(begun.name) == done
    assert made.records.snapshots() == [done]
    with pytest.raises(Conflict, match="exists already"):
        made.resources.begin(snapshot(location="euwest"))


def test_what_a_dead_process_began_is_gone_on_with(catalog: Catalog) -> None:
    made = service(catalog)
    first = made.resources.begin(snapshot(location="euwest"))
    die(made)
    second = made.resources.begin(snapshot(location="euwest"))
    assert second.unique_id == first.unique_id
    with pytest.raises(Conflict, match="taken over"):
        made.records.finish_resource(first)
    made.records.finish_resource(second)


def test_deleting_takes_the_name_away_at_the_end(catalog: Catalog) -> None:
    made = service(catalog)
    begun = made.resources.begin(snapshot(location="euwest"))
    another = service(catalog)
    with pytest.raises(Conflict, match="worked on"):
        another.resources.begin_delete(begun.name)
    made.records.finish_resource(begun)
    going = made.resources.begin_delete(begun.name)
    assert going.provisioning_state is ProvisioningState.DELETING
    with pytest.raises(Conflict, match="Deleting"):
        made.resources.use(begun.name)
    made.records.forget_resource(going)
    with pytest.raises(NotFound):
        made.resources.get(begun.name)
    with pytest.raises(NotFound):
        made.resources.begin_delete(begun.name)


def test_using_a_snapshot_takes_the_right_to_write_it(catalog: Catalog) -> None:
    owner = service(catalog)
    begun = owner.resources.begin(snapshot(location="euwest"))
    done = owner.records.finish_resource(begun)
    group = done.id.partition("/providers/")[0]
    for name, role in (("reader", Role.READER), ("owner", Role.OWNER), ("nobody", None)):
        owner.grants.put_principal(Principal(name))
        if role is not None:
            owner.grants.assign(name, role, group)
    reader, writer, nobody = (
        service(catalog, name).resources for name in ("reader", "owner", "nobody")
    )
    assert [who.get(done.name) for who in (reader, writer)] == [done, done]
    assert writer.use(done.name) == done
    with pytest.raises(AuthorizationFailed, match=Action.SNAPSHOT_WRITE.value):
        reader.use(done.name)
    with pytest.raises(NotFound, match=f"{ResourceKind.IMAGE.value}/x"):  # reading is enough
        reader.use(named("x", ResourceKind.IMAGE))
    assert reader.of_kind(ResourceKind.SNAPSHOT) == [done]
    assert nobody.of_kind(ResourceKind.SNAPSHOT) == []


def test_what_nobody_works_on_is_nobodys_to_change(catalog: Catalog) -> None:
    made = service(catalog)
    done = made.records.finish_resource(made.resources.begin(snapshot(location="euwest")))
    for change in (
        made.records.change_resource,
        made.records.finish_resource,
        made.records.forget_resource,
    ):
        with pytest.raises(Conflict, match="taken over"):
            change(done)
    assert made.resources.get(done.name) == done


@pytest.mark.parametrize("kind", list(ResourceKind))
def test_names_and_ids(kind: ResourceKind) -> None:
    name = ResourceName(kind, "Web_1")
    assert parse_resource("Web_1", kind) == name
    assert parse_resource(name.arm_id.upper(), kind) == name
    assert resource_of(name.arm_id) == name
    assert str(name) == "Web_1"
    other = ResourceName(kind, "web", "1" * 8 + "-1111-1111-1111-" + "1" * 12, "rg")
    assert str(other) == other.arm_id
    wrong = next(item for item in ResourceKind if item is not kind)
    with pytest.raises(InvalidParameter):
        parse_resource(name.arm_id, wrong)
    for bad in ("", "-a", "a-", "a/b", "ü", "a" * 81):
        with pytest.raises(InvalidParameter):
            ResourceName(kind, bad)
    assert resource_of("/srv/disk.raw") is None
