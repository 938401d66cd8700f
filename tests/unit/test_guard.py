"""What stands before the gallery: each operation is decided, the unseen is not there, refusals and
changes are recorded once."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.deploying import scale_sets
from pipeline.deploying.release import release
from pipeline.errors import (
    AuthorizationFailed,
    Conflict,
    GalleriaError,
    InvalidParameter,
    NotFound,
    Refused,
)
from pipeline.gallery.access.grants import parse_scope
from pipeline.gallery.access.subjects import Access
from pipeline.gallery.access.views import SharedTo
from pipeline.gallery.audit import verify
from pipeline.gallery.audited import AuditedCatalog
from pipeline.gallery.service import GalleryService
from pipeline.gallery.services import Services
from pipeline.jobs.replicate import zone_record
from pipeline.model import (
    Deployment,
    HyperVGeneration,
    Identifier,
    ImageShape,
    ImageVersion,
    OsState,
    OsType,
    RegionStatus,
    ReplicationState,
    ScaleSet,
    SharingPermissions,
)
from pipeline.model.access import Identity, Principal, PrincipalKind, Role
from pipeline.model.audit import AuditFilter
from pipeline.model.garbage import AT_ONCE
from pipeline.model.names import (
    DEFAULT_SUBSCRIPTION,
    DEFAULT_TENANT,
    DefinitionName,
    GalleryName,
    VersionName,
    VersionNumber,
    parse_definition,
    parse_gallery,
    parse_version,
)
from pipeline.model.sharing import Community
from tests.memory_catalog import MemoryCatalog
from tests.operations import actions
from tests.samples import NOW, definition, disk, request, services

CORP, WEB, DB = parse_gallery("corp"), parse_definition("corp/web"), parse_definition("corp/db")
V100 = parse_version("corp/web/1.0.0")
SUB = "11111111-1111-1111-1111-111111111111"
TENANT, OTHER = "aaaaaaaa-0000-0000-0000-000000000001", "bbbbbbbb-0000-0000-0000-000000000002"
AWAY = GalleryName("away", subscription=SUB)
ABOUT = Community("https://x.example", "a@x.example", "eula", "contoso")
UNIQUE = f"/SharedGalleries/{DEFAULT_SUBSCRIPTION}-CORP"


class World:
    """corp with web (1.0.0, 1.1.0) and db; secret with vault; away in another tenant."""

    def __init__(self) -> None:
        self.catalog = MemoryCatalog()
        self.owner = self.be(None)
        service = self.owner.gallery
        service.create_tenant(TENANT, "Fabrikam")
        service.create_subscription(SUB, tenant=TENANT)
        for name in (CORP, parse_gallery("secret"), AWAY):
            service.create_gallery(name, "eu", description="ours", tags={"a": "b"})
        for text in ("corp/web", "corp/db", "secret/vault"):
            service.create_definition(definition(text))
        service.create_definition(replace(definition(), name=DefinitionName(AWAY, "web")))
        for text in ("corp/web/1.0.0", "corp/web/1.1.0", "secret/vault/1.0.0"):
            publish(self.owner, text)
        for person in ("alice", "bob"):
            self.owner.grants.put_principal(Principal(person))

    def be(self, name: str | None) -> Services:
        return services(catalog=self.catalog, principal=name)

    def give(self, role: Role, scope: str, name: str = "alice") -> Services:
        """`name`, with this role as well."""
        self.owner.grants.assign(name, role, scope)
        return self.be(name)

    def record(self) -> list[tuple[str, str, bool]]:
        with self.catalog.read() as reader:
            found = [entry.content for entry in reader.audit()]
            verify(reader.audit(), reader.audit_head())
        return [(item["action"], item["object"], item["allowed"]) for item in found]


def publish(ask: Services, text: str) -> ImageVersion:
    version = ask.gallery.begin_version(request(text))
    version = ask.records.record_contents(version, [disk()], {})
    for region in ("eu", "us"):
        done = RegionStatus(region, ReplicationState.COMPLETED, 100)
        version = ask.records.set_regions(version, done)
    return ask.records.finish_version(version)


@pytest.fixture
def world() -> World:
    return World()


def test_every_operation_names_an_action() -> None:
    """Who adds one that does not is told here, whatever else would have found it."""
    assert [name for name, found in actions().items() if not found] == []
    assert len(actions()) > 75  # they are found


def test_an_operation_that_names_none_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def unguarded(self: GalleryService) -> list[object]:
        return [self]

    monkeypatch.setattr(GalleryService, "unguarded", unguarded, raising=False)
    assert actions()["GalleryService.unguarded"] == set()


def test_operations_reach_the_catalog_through_access_alone(world: World) -> None:
    """Whatever an operation holds, no catalog is among it."""
    catalogs = (AuditedCatalog, MemoryCatalog)
    for service in (world.owner.gallery, world.owner.resources, world.owner.grants):
        assert [name for name, value in vars(service).items() if isinstance(value, catalogs)] == []


def test_arguments_may_be_named(world: World) -> None:
    assert world.owner.gallery.get_gallery(name=CORP).name == CORP
    assert world.owner.gallery.get_version(name=V100).name == V100
    with pytest.raises(NotFound):
        world.be("alice").gallery.get_gallery(name=CORP)


# --- the unseen and the forbidden -----------------------------------------------------------------

_PUBLISH = request("corp/web/9.0.0", target_regions=())
ACTS: dict[str, Callable[[GalleryService], Any]] = {
    "create_gallery": lambda g: g.create_gallery(CORP, "eu"),
    "get_gallery": lambda g: g.get_gallery(CORP),
    "delete_gallery": lambda g: g.delete_gallery(CORP),
    "list_definitions": lambda g: g.list_definitions(CORP),
    "create_definition": lambda g: g.create_definition(definition("corp/new")),
    "get_definition": lambda g: g.get_definition(WEB),
    "delete_definition": lambda g: g.delete_definition(DB),
    "list_versions": lambda g: g.list_versions(WEB),
    "get_version": lambda g: g.get_version(V100),
    "report": lambda g: g.report(V100),
    "resolve": lambda g: g.resolve("corp/web/latest", "eu"),
    "begin_version": lambda g: g.begin_version(_PUBLISH),
    "try_version": lambda g: g.try_version(_PUBLISH),
    "begin_replication": lambda g: g.begin_replication(V100),
    "begin_delete": lambda g: g.begin_delete(V100),
    "record_deployments": lambda g: g.record_deployments(V100, [deployment("vm1")]),
}
READS = {"get_definition", "list_definitions", "list_versions", "get_version", "report", "resolve"}
READS |= {"record_deployments"}


def deployment(name: str, version: VersionName = V100) -> Deployment:
    return Deployment(name, "/out", version, "u", "eu", NOW)


@pytest.mark.parametrize("act", ACTS)
def test_to_a_stranger_there_is_nothing(world: World, act: str) -> None:
    before = world.record()
    with pytest.raises(NotFound) as seen:
        ACTS[act](world.be("alice").gallery)
    assert len(world.record()) == len(before) + 1
    assert world.record()[-1][2] is False
    # and it looks the same where there is nothing
    empty = World()
    with empty.catalog.write() as writer:
        writer._state.galleries.clear()  # type: ignore[attr-defined]
        writer._state.definitions.clear()  # type: ignore[attr-defined]
        writer._state.versions.clear()  # type: ignore[attr-defined]
    with pytest.raises(NotFound) as unseen:
        ACTS[act](empty.be("alice").gallery)
    assert (unseen.value.message, unseen.value.hint, unseen.value.reason) == (
        seen.value.message,
        seen.value.hint,
        seen.value.reason,
    )


@pytest.mark.parametrize("act", ACTS)
def test_a_reader_reads_and_is_refused_the_rest(world: World, act: str) -> None:
    reader = world.give(Role.READER, "corp").gallery
    before = len(world.record())
    if act in READS | {"get_gallery"}:
        ACTS[act](reader)
        assert all(allowed for *_, allowed in world.record()[before:])
        return
    with pytest.raises(AuthorizationFailed, match="client 'alice' does not have authorization"):
        ACTS[act](reader)
    assert [allowed for *_, allowed in world.record()[before:]] == [False]


@pytest.mark.parametrize("act", ACTS)
def test_who_may_publish_may_do_all_but_share(world: World, act: str) -> None:
    publisher = world.give(Role.ARTIFACTS_PUBLISHER, "corp").gallery
    if act == "delete_gallery":
        with pytest.raises(Conflict):  # allowed, and refused by the rule
            ACTS[act](publisher)
    else:
        ACTS[act](publisher)


def test_lists_show_what_may_be_seen(world: World) -> None:
    assert world.be("alice").gallery.list_galleries() == []
    alice = world.give(Role.IMAGE_READER, "corp/web")
    (corp,) = alice.gallery.list_galleries()
    assert (corp.name, corp.description, corp.tags) == (CORP, "", {})
    assert [item.name for item in alice.gallery.list_definitions(CORP)] == [WEB]
    with pytest.raises(AuthorizationFailed):
        alice.gallery.get_gallery(CORP)
    with pytest.raises(NotFound, match="'corp/db' was not found"):
        alice.gallery.get_definition(DB)
    alice = world.give(Role.READER, "secret")
    assert [str(item.name) for item in alice.gallery.list_galleries()] == ["corp", "secret"]
    assert [item.description for item in alice.gallery.list_galleries()] == ["", "ours"]
    assert len(world.owner.gallery.list_galleries()) == 3
    assert [item.id for item in alice.gallery.list_subscriptions()] == [DEFAULT_SUBSCRIPTION]


def test_deployments_of_what_is_not_seen_are_hidden_but_not_from_the_jobs(world: World) -> None:
    with world.catalog.write() as writer:
        writer.put_deployment(deployment("vm1"))
        writer.put_deployment(deployment("vm2", parse_version("secret/vault/1.0.0")))
    alice = world.give(Role.READER, "corp")
    assert [item.name for item in alice.gallery.list_deployments()] == ["vm1"]
    assert len(alice.records.deployments()) == 2  # else their bases would be collected
    owner, vault = world.owner.gallery, parse_version("secret/vault/1.0.0")
    assert [i.name for i in owner.list_deployments(definition=vault.definition)] == ["vm2"]
    uid = deployment("vm1").version_uid
    assert [item.name for item in alice.gallery.list_deployments(version_uid=uid)] == ["vm1"]
    assert alice.gallery.list_deployments(definition=vault.definition) == []
    assert alice.gallery.list_deployments(version_uid="another life") == []


def test_a_vm_is_given_up_by_who_made_it(world: World) -> None:
    owner, alice = world.owner.gallery, world.give(Role.READER, "corp").gallery
    share(world, tenants=[OTHER])
    world.owner.grants.put_principal(Principal("bob", tenant=OTHER))
    bob = world.be("bob")
    owner.record_deployments(V100, [deployment("hers")])
    alice.record_deployments(V100, [replace(deployment("mine"), deployed_by="bob")])
    with pytest.raises(NotFound):
        bob.gallery.record_deployments(V100, [deployment("his")])
    bob.gallery.resolve(f"{UNIQUE}/Images/web/Versions/1.0.0")
    bob.gallery.record_deployments(V100, [deployment("his")])
    assert [(item.name, item.deployed_by) for item in owner.list_deployments()] == [
        ("hers", ""),
        ("his", "bob"),
        ("mine", "alice"),
    ]
    assert [item.name for item in bob.gallery.list_deployments()] == ["his"]
    hers, his, mine = owner.list_deployments()
    with pytest.raises(AuthorizationFailed, match="disks/delete"):
        alice.forget_deployments([mine, his])
    with pytest.raises(NotFound):
        bob.gallery.forget_deployments([hers])
    assert len(owner.list_deployments()) == 3
    alice.forget_deployments([mine])
    world.be("bob").gallery.forget_deployments([his])
    owner.forget_deployments([hers])
    assert owner.list_deployments() == []


def test_a_conflict_does_not_name_what_is_not_seen(world: World) -> None:
    alice = world.give(Role.CONTRIBUTOR, "corp/web")
    taken = world.owner.gallery.get_definition(DB).identifier
    with pytest.raises(Conflict) as found:
        alice.gallery.update_definition(WEB, lambda old: replace(old, identifier=taken))
    assert "db" not in found.value.message + found.value.hint
    group = f"/subscriptions/{DEFAULT_SUBSCRIPTION}/resourceGroups/galleria"
    bob = world.give(Role.CONTRIBUTOR, f"{group}2", "bob")
    world.owner.gallery.create_resource_group(DEFAULT_SUBSCRIPTION, "galleria2", "eu")
    with pytest.raises(Conflict) as twin:
        bob.gallery.create_gallery(GalleryName("corp", resource_group="galleria2"), "eu")
    assert "galleria" not in twin.value.message + twin.value.hint


def test_roles_reach_across_tenants_only_to_members(world: World) -> None:
    with pytest.raises(AuthorizationFailed, match="current tenant is not authorized") as found:
        world.give(Role.READER, AWAY.arm_id).gallery.get_gallery(AWAY)
    assert found.value.reason == "LinkedAuthorizationFailed"
    assert world.be("alice").gallery.list_galleries() == []
    world.owner.grants.put_principal(Principal("alice", guest_of=(TENANT,)))
    assert world.be("alice").gallery.get_gallery(AWAY).name == AWAY
    assert [item.name for item in world.be("alice").gallery.list_galleries()] == [AWAY]


def test_groups_in_groups(world: World) -> None:
    grants = world.owner.grants
    grants.put_principal(Principal("inner", PrincipalKind.GROUP, members=("ALICE",)))
    grants.put_principal(Principal("outer", PrincipalKind.GROUP, members=("inner",)))
    grants.put_principal(Principal("inner", PrincipalKind.GROUP, members=("alice", "outer")))
    grants.assign("outer", Role.READER, "corp")
    assert world.be("alice").gallery.get_gallery(CORP)
    with pytest.raises(NotFound):
        world.be("bob").gallery.get_gallery(CORP)
    for name in ("outer", "nobody"):
        with pytest.raises(NotFound, match="There is no user or service principal"):
            world.be(name).gallery.get_gallery(CORP)


def test_a_gallery_made_again_is_another_one(world: World) -> None:
    assert world.give(Role.READER, "secret", "bob").gallery.list_galleries()
    service = world.owner.gallery
    version = service.begin_delete(parse_version("secret/vault/1.0.0"))
    world.owner.records.finish_delete(version)
    service.delete_definition(parse_definition("secret/vault"))
    service.delete_gallery(parse_gallery("secret"))
    service.create_gallery(parse_gallery("secret"), "eu")
    assert world.be("bob").gallery.list_galleries() == []


# --- roles and principals -------------------------------------------------------------------------


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.OWNER])
def test_only_owners_give_roles(world: World, role: Role) -> None:
    alice = world.give(role, "corp")
    with pytest.raises(AuthorizationFailed):
        alice.grants.assign("alice", Role.OWNER, "corp")
    with pytest.raises(AuthorizationFailed):
        alice.grants.unassign("alice", role, "corp")
    with pytest.raises(AuthorizationFailed):
        alice.grants.put_principal(Principal("mallory"))


def test_an_owner_gives_roles_in_what_it_owns_alone(world: World) -> None:
    alice = world.give(Role.OWNER, "corp")
    alice.grants.assign("bob", Role.READER, "corp/web")
    assert [item.principal for item in alice.grants.assignments("corp/web")] == ["alice", "bob"]
    assert [item.scope for item in alice.grants.assignments(principal="BOB")] == [WEB.arm_id]
    assert alice.grants.assignments("corp", "bob") == []
    with pytest.raises(NotFound):  # what it may not see
        alice.grants.assign("alice", Role.OWNER, "secret")
    for scope in ("/", DEFAULT_SUBSCRIPTION):
        with pytest.raises(AuthorizationFailed):
            alice.grants.assign("alice", Role.OWNER, scope)
    alice.grants.unassign("BOB", Role.READER, "CORP/WEB")
    with pytest.raises(NotFound, match="does not have the role Reader"):
        alice.grants.unassign("bob", Role.READER, "corp/web")
    assert world.be("bob").grants.assignments() == []


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("/", "/"),
        (SUB.upper(), f"/subscriptions/{SUB}"),
        (f"/subscriptions/{SUB}", f"/subscriptions/{SUB}"),
        (f"/subscriptions/{SUB}/resourceGroups/a.b", f"/subscriptions/{SUB}/resourceGroups/a.b"),
        ("corp", CORP.arm_id),
        (CORP.arm_id, CORP.arm_id),
        ("corp/web", WEB.arm_id),
        (WEB.arm_id, WEB.arm_id),
    ],
)
def test_scopes(text: str, id: str) -> None:
    assert parse_scope(text) == id


@pytest.mark.parametrize(
    "text",
    [
        *("", "corp/web/1.0.0", V100.arm_id, "/x", "//", "/subscriptions/x", "corp/", "a-b"),
        f"/subscriptions/{SUB}/",
        f"/subscriptions/{SUB}/resourceGroups",
        f"/subscriptions/{SUB}/groups/a",
    ],
)
def test_what_is_no_scope(text: str) -> None:
    with pytest.raises(InvalidParameter):
        parse_scope(text)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "operator:root", "a\u202eb", "a\nb", "x" * 257])
def test_what_no_principal_is_called(world: World, name: str) -> None:
    with pytest.raises(GalleriaError, match="principal name"):
        world.owner.grants.put_principal(Principal(name))


def test_principals_and_roles_must_make_sense(world: World) -> None:
    grants = world.owner.grants
    for principal, error, text in (
        (Principal("x", tenant="y"), InvalidParameter, "tenant .* 'y'"),
        (Principal("x", subscriptions=("y",)), InvalidParameter, "subscription .* 'y'"),
        (Principal("x", members=("alice",)), InvalidParameter, "Only a group"),
        (Principal("x", PrincipalKind.GROUP, members=("nobody",)), NotFound, "'nobody'"),
        (Principal("alice", PrincipalKind.SERVICE_PRINCIPAL), Conflict, "can't become"),
    ):
        with pytest.raises(error, match=text):
            grants.put_principal(principal)
    for name, scope in (("nobody", "corp"), ("alice", "none"), ("alice", "corp/none")):
        with pytest.raises(NotFound):
            grants.assign(name, Role.READER, scope)
    assert [item.name for item in grants.principals()] == ["alice", "bob"]
    grants.delete_principal("BOB")
    with pytest.raises(NotFound):
        grants.delete_principal("bob")


# --- shares ---------------------------------------------------------------------------------------


def share(world: World, *, subscriptions: list[str] = [], tenants: list[str] = []) -> None:  # noqa: B006
    world.owner.grants.set_permissions(CORP, SharingPermissions.GROUPS)
    world.owner.grants.share_with(CORP, subscriptions, tenants)


@pytest.mark.parametrize("through", ["subscription", "group", "role", "tenant", "guest"])
def test_a_direct_share_is_seen_and_used_by_its_name_alone(world: World, through: str) -> None:
    share(world, subscriptions=[SUB], tenants=[OTHER])
    grants = world.owner.grants
    if through == "subscription":
        grants.put_principal(Principal("alice", subscriptions=(SUB.upper(),)))
    elif through == "group":
        devs = Principal("devs", PrincipalKind.GROUP, subscriptions=(SUB,), members=("alice",))
        grants.put_principal(devs)
    elif through == "role":
        grants.assign("alice", Role.IMAGE_READER, AWAY.arm_id)
    elif through == "tenant":
        grants.put_principal(Principal("alice", tenant=OTHER))
    else:
        grants.put_principal(Principal("alice", guest_of=(OTHER,)))
    alice = world.be("alice")
    kind = SharingPermissions.GROUPS
    assert [item.reference.id for item in alice.views.galleries(kind)] == [UNIQUE]
    assert [item.name.name for item in alice.views.definitions(UNIQUE)] == ["db", "web"]
    assert alice.views.galleries(kind, location="us") == []
    by_tenant = alice.views.galleries(kind, location="EU", through=SharedTo.TENANT)
    by_subscription = alice.views.galleries(kind, through=SharedTo.SUBSCRIPTION)
    assert (len(by_tenant), len(by_subscription)) == (
        (1, 0) if through in ("tenant", "guest") else (0, 1)
    )
    versions = alice.views.versions(f"{UNIQUE}/Images/web")
    assert [str(item.number) for item in versions] == ["1.1.0", "1.0.0"]
    for act in ("get_gallery", "get_definition", "list_versions", "get_version", "resolve"):
        with pytest.raises(NotFound):
            ACTS[act](alice.gallery)
    found = alice.gallery.resolve(f"{UNIQUE}/Images/web/Versions/1.0.0", "us")
    assert found.name == V100
    # the job goes on with what it resolved
    assert alice.gallery.get_definition(WEB).name == WEB
    assert alice.gallery.get_version(V100).name == V100
    for act in ("get_gallery", "begin_delete", "begin_version", "create_definition"):
        with pytest.raises(NotFound):
            ACTS[act](alice.gallery)
    with pytest.raises(NotFound):
        alice.gallery.get_definition(DB)
    bob = world.be("bob")
    assert bob.views.galleries(kind) == []
    for text in (UNIQUE, f"{UNIQUE}/Images/web", f"{UNIQUE}/Images/web/Versions/latest"):
        with pytest.raises(NotFound, match=f"^The resource '{UNIQUE}' was not found"):
            bob.views.definitions(text)
        with pytest.raises(NotFound, match=f"^The resource '{UNIQUE}' was not found"):
            bob.gallery.resolve(text)


def test_a_gallery_that_is_not_shared_looks_like_one_that_is_not_there(world: World) -> None:
    alice = world.be("alice")
    for name in (f"{DEFAULT_SUBSCRIPTION}-CORP", f"{SUB}-NONE"):
        with pytest.raises(NotFound, match=f"^The resource '/SharedGalleries/{name}' was not"):
            alice.gallery.resolve(f"/SharedGalleries/{name}/Images/web/Versions/latest")
    assert [allowed for *_, allowed in world.record()[-2:]] == [False, False]


def test_everyone_uses_a_community_gallery_and_sees_the_latest(world: World) -> None:
    grants = world.owner.grants
    grants.set_permissions(CORP, SharingPermissions.COMMUNITY)
    public = grants.enable_community(CORP, ABOUT)
    id = f"/CommunityGalleries/{public.public_name}"
    bob = world.be("bob")
    (seen,) = bob.views.galleries(SharingPermissions.COMMUNITY)
    assert seen.reference.id == id
    page = bob.views.page(SharingPermissions.COMMUNITY, limit=1)
    assert (page.galleries, page.total, page.following) == ((seen,), 1, None)
    last = seen.reference.name.upper()
    assert bob.views.page(SharingPermissions.COMMUNITY, limit=1, after=last).galleries == ()
    grants.set_permissions(parse_gallery("secret"), SharingPermissions.COMMUNITY)
    grants.enable_community(parse_gallery("secret"), replace(ABOUT, public_name_prefix="zzz"))
    page = bob.views.page(SharingPermissions.COMMUNITY, limit=1)
    assert (page.galleries, page.total, page.following) == ((seen,), 2, seen.reference.name)
    rest = bob.views.page(SharingPermissions.COMMUNITY, limit=1, after=seen.reference.name)
    assert [item.reference.name[:4] for item in rest.galleries] == ["zzz-"]
    assert [str(item.number) for item in bob.views.versions(f"{id}/Images/web")] == ["1.1.0"]
    assert bob.gallery.resolve(f"{id}/Images/web").number == VersionNumber(1, 1, 0)
    assert bob.gallery.resolve(f"{id.upper()}/images/WEB/versions/1.0.0").name == V100
    with pytest.raises(NotFound) as missing:
        bob.gallery.resolve(f"{id}/Images/web/Versions/7.0.0", "eu")
    assert "corp" not in missing.value.message.replace(id, "")
    with pytest.raises(NotFound):
        bob.gallery.resolve(f"{UNIQUE}/Images/web")
    for text in ("corp/web/1.0.0", "corp/web/1.1.0"):
        gone = world.owner.gallery.begin_delete(parse_version(text))
        world.owner.records.finish_delete(gone)
    for name in (WEB, DB):
        world.owner.gallery.delete_definition(name)
    with pytest.raises(Conflict, match="has to be reset"):
        world.owner.gallery.delete_gallery(CORP)
    grants.reset(CORP)
    with pytest.raises(NotFound):
        bob.views.definitions(id)
    world.owner.gallery.delete_gallery(CORP)


def test_who_may_share(world: World) -> None:
    world.owner.grants.set_permissions(CORP, SharingPermissions.GROUPS)
    for role in Role:
        world.owner.grants.put_principal(Principal(role.name))
        user = world.give(role, "corp", role.name)
        if role in (Role.OWNER, Role.SHARING_ADMIN):
            assert user.grants.share_with(CORP, [SUB], []).subscriptions == (SUB,)
            user.grants.reset(CORP)
        else:
            with pytest.raises(AuthorizationFailed):
                user.grants.share_with(CORP, [SUB], [])


def test_what_a_gallery_holds_decides_what_it_can_become(world: World) -> None:
    grants, service = world.owner.grants, world.owner.gallery
    version = service.begin_version(request("corp/web/2.0.0", location="us"))
    done = RegionStatus("us", ReplicationState.COMPLETED, 100)
    world.owner.records.finish_version(world.owner.records.set_regions(version, done))
    for kind in (SharingPermissions.GROUPS, SharingPermissions.COMMUNITY):
        with pytest.raises(Refused, match="has its home in 'us'"):
            grants.set_permissions(CORP, kind)
    secret = parse_gallery("secret")
    grants.set_permissions(secret, SharingPermissions.COMMUNITY)
    with pytest.raises(Refused, match="has its home in 'us'"):
        service.begin_version(request("secret/vault/2.0.0", location="us"))
    made = definition("secret/new", location="us", identifier=Identifier("a", "b", "c"))
    with pytest.raises(Refused, match="has its home in 'us'"):
        service.create_definition(made)


# --- the record -----------------------------------------------------------------------------------


def test_who_reads_the_record(world: World) -> None:
    assert len(list(world.owner.grants.audit())) == len(world.record())
    assert world.owner.grants.verify_audit().seq == len(world.record())
    assert list(world.be("alice").grants.audit()) == []
    reader = world.give(Role.READER, "corp")
    seen = {str(entry.content["object"]) for entry in reader.grants.audit()}
    assert seen
    assert all(id.startswith(CORP.arm_id) for id in seen)
    with pytest.raises(AuthorizationFailed):
        reader.grants.verify_audit()


def test_the_record_is_asked_by_who_what_and_refusals(world: World) -> None:
    alice = world.give(Role.READER, "corp")
    with pytest.raises(AuthorizationFailed):
        alice.gallery.delete_gallery(CORP)

    def told(wanted: AuditFilter) -> list[tuple[str, str, bool]]:
        found = (entry.content for entry in world.owner.grants.audit(wanted))
        return [(item["actor"], item["object"], item["allowed"]) for item in found]

    refusal = ("alice", CORP.arm_id, False)
    assert told(AuditFilter(actor="ALICE")) == told(AuditFilter(denied=True)) == [refusal]
    inside = told(AuditFilter(object=CORP.arm_id.upper()))
    assert inside[0] == refusal
    assert len(inside) > 1
    assert all(f"{id}/".startswith(f"{CORP.arm_id}/") for _, id, _ in inside)
    assert told(AuditFilter(object=f"{CORP.arm_id}x")) == []
    assert told(AuditFilter("alice", CORP.arm_id, denied=True)) == [refusal]


def test_each_change_and_each_refusal_has_one_entry(world: World) -> None:
    alice = world.give(Role.ARTIFACTS_PUBLISHER, "corp")
    before = len(world.record())
    alice.gallery.begin_version(request("corp/web/3.0.0"))
    with pytest.raises(AuthorizationFailed):
        alice.grants.share_with(CORP, [SUB], [])
    alice.gallery.list_versions(WEB)
    name = parse_version("corp/web/3.0.0").arm_id
    assert world.record()[before:] == [
        ("Microsoft.Compute/galleries/images/versions/write", name, True),
        ("Microsoft.Compute/galleries/share/action", CORP.arm_id, False),
    ]


def test_the_operator_needs_no_look_into_the_catalog(world: World) -> None:
    class Shut(AuditedCatalog):
        def read(self) -> Any:
            raise AssertionError("read")

    identity = Identity("root@host")
    access = Access(Shut(world.catalog, identity.actor), identity)
    for scope in (CORP.arm_id, AWAY.arm_id, "/"):
        for action in {needed for found in actions().values() for needed in found}:
            if not action.value.startswith("Microsoft.Compute/locations/"):  # given by shares alone
                access.require(action, scope)


# --- tenants and scale sets -----------------------------------------------------------------------


def test_tenants_are_known_to_those_who_belong_to_them(world: World) -> None:
    world.owner.grants.put_principal(Principal("carol", tenant=TENANT))
    carol = world.be("carol").gallery
    assert [item.id for item in carol.list_tenants()] == [TENANT]
    assert carol.get_tenant(TENANT).display_name == "Fabrikam"
    alice = world.give(Role.CONTRIBUTOR, "corp").gallery
    with pytest.raises(NotFound) as there:
        alice.get_tenant(TENANT)
    with pytest.raises(NotFound) as nowhere:
        alice.get_tenant(SUB)
    assert there.value.message.replace(TENANT, SUB) == nowhere.value.message
    for act in (alice.create_tenant, alice.delete_tenant):
        with pytest.raises(AuthorizationFailed):
            act(TENANT)
    assert [item.id for item in world.owner.gallery.list_tenants()] == [DEFAULT_TENANT, TENANT]
    assert ("Microsoft.Resources/tenants/write", f"/tenants/{TENANT}", True) in world.record()


def scale_set(name: str = "set") -> ScaleSet:
    shape = ImageShape(OsType.LINUX, HyperVGeneration.V2, OsState.GENERALIZED)
    return ScaleSet(name, "corp/web", "eu", "/out", NOW, V100, shape)


def same(scale_set: ScaleSet) -> ScaleSet:
    return scale_set


def test_a_scale_set_is_of_who_made_it(world: World) -> None:
    bob = world.give(Role.READER, "corp", "bob")
    bob.gallery.create_scale_set(scale_set())
    assert [item.created_by for item in bob.gallery.list_scale_sets()] == ["bob"]
    alice = world.give(Role.READER, "corp")
    acts: list[Callable[[], object]] = [
        lambda: alice.gallery.change_scale_set(scale_set(), same),
        lambda: alice.gallery.delete_scale_set(scale_set()),
    ]
    for act in acts:
        with pytest.raises(AuthorizationFailed, match="virtualMachineScaleSets/"):
            act()
    world.give(Role.CONTRIBUTOR, "corp").gallery.change_scale_set(scale_set(), same)
    assert [item.created_by for item in bob.gallery.list_scale_sets()] == ["bob"]
    bob.gallery.delete_scale_set(scale_set())
    assert world.owner.gallery.list_scale_sets() == []


def test_a_scale_set_needs_its_image(world: World) -> None:
    with pytest.raises(NotFound):
        world.be("alice").gallery.create_scale_set(scale_set())


class Untouchable:
    """Machines of which nothing may be done; a test fails that does."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


def job_context(ask: Services) -> Any:
    zones: dict[str, Any] = {}
    return SimpleNamespace(
        gallery=ask.gallery,
        records=ask.records,
        runs=ask.job_runs,
        zones=zones,
        leftovers=lambda _: [],
        keep=AT_ONCE,
    )


def test_nothing_goes_of_a_vm_that_one_may_not_release(world: World) -> None:
    """Refused before its directory is removed, and not only before its record is."""
    world.owner.gallery.record_deployments(V100, [deployment("hers")])
    alice = world.give(Role.READER, "corp")
    (hers,) = alice.gallery.list_deployments()
    for keep_disks in (False, True):
        with pytest.raises(AuthorizationFailed, match="disks/delete"):
            release([hers], cast(Any, Untouchable()), job_context(alice), keep_disks=keep_disks)
    assert len(world.owner.gallery.list_deployments()) == 1


def test_nothing_is_made_or_removed_in_somebody_else_s_scale_set(world: World) -> None:
    made = world.owner.gallery.create_scale_set(scale_set())
    with world.owner.gallery.scaling(made):
        vm = replace(deployment("set-1"), scale_set=made.name)
        world.owner.gallery.record_deployments(V100, [vm])
    alice = job_context(world.give(Role.READER, "corp"))
    seen, machines = alice.gallery.get_scale_set(made.name), cast(Any, Untouchable())
    for count in (0, 1, 2):
        with pytest.raises(AuthorizationFailed, match="virtualMachineScaleSets/write"):
            scale_sets.scale(seen, count, machines, alice)
    with pytest.raises(AuthorizationFailed, match="virtualMachineScaleSets/delete"):
        scale_sets.delete(seen, machines, alice)
    assert world.owner.gallery.list_scale_sets() == [made]


def test_what_can_t_be_placed_is_forgotten_by_who_may_only_deploy(world: World) -> None:
    """The maker's own records, though it has no role that deletes disks."""
    alice = world.give(Role.READER, "corp").gallery
    made = alice.record_deployments(V100, [deployment("mine")])
    assert [item.deployed_by for item in made] == ["alice"]
    alice.forget_deployments(made)
    assert world.owner.gallery.list_deployments() == []


def test_a_set_s_vms_are_counted_by_who_may_see_them(world: World) -> None:
    """Though the set is of an image that one sees, VMs of another one are not told of."""
    made = world.owner.gallery.create_scale_set(scale_set())
    vault = parse_version("secret/vault/1.0.0")
    hidden = replace(deployment("set-1", vault), scale_set=made.name)
    with world.catalog.write() as writer:
        writer.put_deployment(hidden)
    alice = world.give(Role.READER, "corp").gallery
    assert scale_sets.members(made, alice.list_deployments()) == []
    assert len(scale_sets.members(made, world.owner.gallery.list_deployments())) == 1


def test_the_name_of_an_unseen_set_is_told_to_nobody(world: World) -> None:
    made = world.owner.gallery.create_scale_set(scale_set())
    alice = world.be("alice").gallery
    before = len(world.record())
    with pytest.raises(NotFound) as there:
        alice.get_scale_set(made.name)
    assert [allowed for *_, allowed in world.record()[before:]] == [False]
    with pytest.raises(NotFound) as nowhere:
        alice.get_scale_set("other")
    assert there.value.message.replace("'set'", "'other'") == nowhere.value.message
    acts: list[Callable[[], object]] = [
        lambda: alice.change_scale_set(made, same),
        lambda: alice.delete_scale_set(made),
    ]
    for act in acts:
        with pytest.raises(NotFound, match="There is no scale set 'set'"):
            act()
    assert world.owner.gallery.get_scale_set(made.name) == made


def test_who_publishes_one_definition_need_not_see_the_gallery(world: World) -> None:
    """The record that zones keep has the gallery in it; its publisher is shown none of that."""
    alice = world.give(Role.CONTRIBUTOR, "corp/web")
    version = alice.gallery.begin_version(request("corp/web/7.0.0"))
    with pytest.raises(AuthorizationFailed):
        alice.gallery.get_gallery(CORP)
    record = zone_record(version, job_context(alice), None)
    assert record.document["gallery"]["description"] == "ours"


def test_a_right_that_is_taken_away_while_a_version_is_published_is_missed(world: World) -> None:
    """Roles were read once, when the work began; a region can be used by the roles of its end."""
    alice = world.give(Role.CONTRIBUTOR, "corp")
    version = alice.gallery.begin_version(request("corp/web/2.0.0"))
    version = alice.records.record_contents(version, [disk()], {})
    half = RegionStatus("eu", ReplicationState.REPLICATING, 50)
    version = alice.records.set_regions(version, half)
    world.owner.grants.unassign("alice", Role.CONTRIBUTOR, "corp")
    done = RegionStatus("eu", ReplicationState.COMPLETED, 100)
    with pytest.raises((AuthorizationFailed, NotFound)):
        alice.records.set_regions(version, done)
    assert alice.records.abandon_version(version, "no right") is None
    with pytest.raises(NotFound):
        world.owner.gallery.get_version(parse_version("corp/web/2.0.0"))
