"""The contract of catalogs for access control and the audit record; and the audited catalog over
each of them."""

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from adapters.catalog import open_catalog
from adapters.catalog.sql import SqlCatalog
from pipeline.errors import Conflict, GalleriaError, NotFound, VerificationFailed
from pipeline.gallery.access.grants import Grants
from pipeline.gallery.access.views import SharedViews
from pipeline.gallery.audit import append, verify
from pipeline.gallery.audited import AuditedCatalog
from pipeline.model import Channel, ResourceGroup, SharingPermissions, SharingProfile, Subscription
from pipeline.model.access import Assignment, Principal, PrincipalKind, Role
from pipeline.model.audit import Actor, AuditEntry, AuditHead, Event
from pipeline.model.names import GalleryName, parse_definition, parse_gallery
from pipeline.model.sharing import Community, Sharing
from pipeline.ports.catalog import Catalog
from tests.samples import NOW, definition, gallery, services, version

CORP, WEB = parse_gallery("corp"), parse_definition("corp/web")
S, T = "11111111-2222-3333-4444-555555555555", "66666666-2222-3333-4444-555555555555"
ACTOR = Actor("alice", "root@build1", "r1")
PUBLIC = Community("https://x.example", "a@x.example", "eula", "Corp", f"Corp-{S}")


def entries(catalog: Catalog) -> list[AuditEntry]:
    with catalog.read() as reader:
        return list(reader.audit())


def sound(catalog: Catalog) -> AuditHead:
    with catalog.read() as reader:
        return verify(reader.audit(), reader.audit_head(), base=reader.audit_base())


# --- principals and roles -------------------------------------------------------------------------


def test_nothing_is_there_at_first(catalog: Catalog) -> None:
    with catalog.read() as reader:
        assert reader.principal("alice") is None
        assert reader.principals() == []
        assert reader.assignments() == []
        assert reader.sharing(CORP) is None
        assert reader.sharings() == []
        assert reader.sharing_by_public_name("") is None
        assert reader.audit_head() == AuditHead()
        assert list(reader.audit()) == []


def test_principals_come_back_whole_and_in_any_case(catalog: Catalog) -> None:
    alice = Principal("Alice@x.example", PrincipalKind.USER, T, (S,), (T, S))
    devs = Principal("devs", PrincipalKind.GROUP, members=("alice@X.example", "bob"))
    with catalog.write() as writer:
        for item in (devs, alice, Principal("bob")):
            writer.put_principal(item)
    with catalog.read() as reader:
        assert reader.principals() == [alice, Principal("bob"), devs]
        assert reader.principal("aLICE@x.example") == alice
    with catalog.write() as writer:
        writer.put_principal(replace(alice, tenant=S))
        assert writer.principal("alice@x.example") == replace(alice, tenant=S)
        assert len(writer.principals()) == 3


def test_a_principal_goes_with_its_roles_and_memberships(catalog: Catalog) -> None:
    with catalog.write() as writer:
        writer.put_principal(Principal("Alice"))
        writer.put_principal(Principal("devs", PrincipalKind.GROUP, members=("bob", "ALICE")))
        writer.put_assignment(Assignment("Alice", Role.OWNER, "/"))
        writer.put_assignment(Assignment("alice2", Role.OWNER, "/"))
        writer.delete_principal("alice")
        writer.delete_principal("nobody")
    with catalog.read() as reader:
        assert reader.principal("Alice") is None
        assert [item.members for item in reader.principals()] == [("bob",)]
        assert [item.principal for item in reader.assignments()] == ["alice2"]


def test_a_role_is_there_once(catalog: Catalog) -> None:
    held = Assignment("alice", Role.READER, CORP.arm_id)
    with catalog.write() as writer:
        writer.put_assignment(held)
        writer.put_assignment(Assignment("ALICE", Role.READER, CORP.arm_id.upper()))
        writer.put_assignment(Assignment("alice", Role.OWNER, CORP.arm_id))
        assert len(writer.assignments()) == 2
        writer.delete_assignment(held)
        writer.delete_assignment(held)
        assert [item.role for item in writer.assignments()] == [Role.OWNER]


def test_what_is_deleted_takes_the_roles_at_it_and_below(catalog: Catalog) -> None:
    kept = ["/", f"/subscriptions/{S}", f"{CORP.arm_id}2", f"{CORP.arm_id}2/images/web"]
    at_web = WEB.arm_id
    with catalog.write() as writer:
        writer.put_gallery(gallery())
        writer.put_definition(definition())
        for scope in (*kept, CORP.arm_id, at_web, at_web.upper(), f"{at_web}2"):
            writer.put_assignment(Assignment("alice", Role.READER, scope))
        writer.delete_definition(WEB)
        left = {item.scope for item in writer.assignments()}
        assert left == {*kept, CORP.arm_id, f"{at_web}2"}
        writer.delete_gallery(CORP)
        assert {item.scope for item in writer.assignments()} == set(kept)


def test_scopes_that_are_deleted_take_their_roles_too(catalog: Catalog) -> None:
    subscription, group = Subscription(S, "lab", NOW), ResourceGroup(S, "rg", "eu", NOW)
    with catalog.write() as writer:
        writer.put_subscription(subscription)
        writer.put_resource_group(group)
        for scope in ("/", subscription.arm_id, group.arm_id, f"{group.arm_id}2"):
            writer.put_assignment(Assignment("alice", Role.READER, scope))
        writer.delete_resource_group(group)
        left = {item.scope for item in writer.assignments()}
        assert left == {"/", subscription.arm_id, f"{group.arm_id}2"}
        writer.delete_subscription(subscription)
        assert [item.scope for item in writer.assignments()] == ["/"]


def test_a_wildcard_in_a_name_is_no_wildcard(catalog: Catalog) -> None:
    near = parse_gallery("axb")
    with catalog.write() as writer:
        writer.put_gallery(gallery("a_b"))
        writer.put_assignment(Assignment("alice", Role.READER, f"{near.arm_id}/images/web"))
        writer.delete_gallery(parse_gallery("a_b"))
        assert len(writer.assignments()) == 1


# --- shares ---------------------------------------------------------------------------------------


def test_a_profile_is_the_gallerys(catalog: Catalog) -> None:
    elsewhere = GalleryName("Corp", subscription=S)
    shared = Sharing(CORP, SharingPermissions.GROUPS, (S, T), (T,))
    profile = SharingProfile(SharingPermissions.GROUPS)
    with catalog.write() as writer:
        writer.put_gallery(gallery(sharing_profile=profile))
        writer.put_gallery(replace(gallery(), name=elsewhere))
        assert writer.sharing(CORP) == Sharing(CORP, SharingPermissions.GROUPS)
        assert writer.sharings() == []
        writer.put_sharing(shared)
    with catalog.read() as reader:
        assert reader.sharing(parse_gallery("CORP")) == shared
        assert reader.sharing(elsewhere) == Sharing(elsewhere)
        assert reader.sharing(GalleryName("corp", resource_group="x")) is None
        assert reader.sharings() == [shared]
    with catalog.write() as writer:
        writer.put_gallery(gallery())  # the permissions are the gallery's, whatever was shared
        assert writer.sharings() == [replace(shared, permissions=SharingPermissions.PRIVATE)]
        writer.delete_gallery(CORP)
        writer.put_gallery(gallery(sharing_profile=profile))
        assert writer.sharing(CORP) == Sharing(CORP, SharingPermissions.GROUPS)
        assert writer.sharings() == []


def test_a_gallery_keeps_its_profile_when_it_changes(catalog: Catalog) -> None:
    shared = Sharing(CORP, SharingPermissions.PRIVATE, (S,))
    with catalog.write() as writer:
        writer.put_gallery(gallery())
        writer.put_sharing(shared)
        writer.put_gallery(gallery(description="new"))
        assert writer.sharing(CORP) == shared


def test_public_names(catalog: Catalog) -> None:
    other = parse_gallery("other")
    with catalog.write() as writer:
        for name in ("corp", "other"):
            writer.put_gallery(gallery(name))
            writer.put_sharing(Sharing(parse_gallery(name)))
        writer.put_sharing(Sharing(CORP, community=PUBLIC))
        writer.put_sharing(Sharing(other, community=replace(PUBLIC, public_name="")))
    with catalog.read() as reader:
        found = reader.sharing_by_public_name(f"CORP-{S.upper()}")
        assert found is not None
        assert found.gallery == CORP
        assert reader.sharing_by_public_name("corp") is None
        assert reader.sharing_by_public_name("") is None


def test_only_a_gallery_has_a_profile(catalog: Catalog) -> None:
    with pytest.raises(NotFound), catalog.write() as writer:
        writer.put_sharing(Sharing(CORP))


# --- the record -----------------------------------------------------------------------------------


def test_the_record_grows_and_is_read_both_ways(catalog: Catalog) -> None:
    count = 1100  # more than two pages
    with catalog.write() as writer:
        head = writer.audit_head()
        for index in range(count):
            head = writer.append_audit(append(head, Event("a", f"/{index}\u202e"), ACTOR, NOW))
    with catalog.read() as reader:
        assert reader.audit_head() == head
        found = list(reader.audit())
        assert [entry.seq for entry in found] == list(range(1, count + 1))
        assert list(reader.audit(newest_first=True)) == found[::-1]
        assert next(reader.audit(newest_first=True)).content["object"] == f"/{count - 1}\u202e"
    assert sound(catalog) == head


def test_what_does_not_fit_is_refused(catalog: Catalog) -> None:
    entry = append(AuditHead(1, "0" * 64), Event("a", "/x"), ACTOR, NOW)
    with pytest.raises(Conflict, match="does not fit"), catalog.write() as writer:
        writer.append_audit(entry)


def tamper(catalog: SqlCatalog, *statements: str) -> None:
    with catalog._transaction(write=True) as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def disarm(url: str) -> tuple[str, ...]:
    """As the owner of the database can."""
    if url.startswith("sqlite"):
        return ("DROP TRIGGER audit_update", "DROP TRIGGER audit_delete")
    return ("DROP TRIGGER audit_change ON audit", "DROP TRIGGER audit_cut ON audit")


@pytest.fixture
def recorded(url: str) -> Iterator[SqlCatalog]:
    """Five entries."""
    with contextlib.closing(open_catalog(url)) as catalog:
        audited = AuditedCatalog(catalog, ACTOR, lambda: NOW)
        for name in ("a", "b", "c", "d", "e"):
            with audited.write() as (_, writer):
                writer.put_gallery(gallery(name))
        yield catalog


TAMPERING = {
    "an edit": "UPDATE audit SET entry = replace(entry, 'alice', 'bobby') WHERE seq = 3",
    "another hash": "UPDATE audit SET hash = 'f' || substr(hash, 2) || '' WHERE seq = 4",
    "a removal": "DELETE FROM audit WHERE seq = 2",
    "the beginning cut off": "DELETE FROM audit WHERE seq <= 2",
    "the end cut off": "DELETE FROM audit WHERE seq >= 4",
    "all of it": "DELETE FROM audit",
    "a move": "UPDATE audit SET seq = 9 WHERE seq = 2",
}


@pytest.mark.parametrize("statement", TAMPERING.values(), ids=TAMPERING)
def test_the_database_refuses_changes_of_the_record(recorded: SqlCatalog, statement: str) -> None:
    with pytest.raises(GalleriaError, match="append-only"):
        tamper(recorded, statement)
    assert sound(recorded).seq == 5


@pytest.mark.parametrize("statement", TAMPERING.values(), ids=TAMPERING)
def test_what_its_owner_forces_on_it_is_found(
    recorded: SqlCatalog, url: str, statement: str
) -> None:
    if "'f' ||" in statement:  # whatever it begins with, it becomes another one
        before = next(entry.hash for entry in entries(recorded) if entry.seq == 4)
        statement = statement.replace("'f'", "'0'" if before.startswith("f") else "'f'")
    tamper(recorded, *disarm(url), statement)
    with pytest.raises(VerificationFailed, match="The audit record is broken: entry"):
        sound(recorded)
    assert "The audit record is broken: entry" in recorded.check().problems[0]  # doctor asks this


def test_old_entries_are_removed_and_the_rest_is_verified_as_before(url: str) -> None:
    moments = iter(NOW + timedelta(days=day) for day in range(100))
    with contextlib.closing(open_catalog(url)) as catalog:
        audited = AuditedCatalog(catalog, ACTOR, lambda: next(moments))
        heads = []
        for name in ("a", "b", "c", "d", "e"):
            with audited.write() as (_, writer):
                writer.put_gallery(gallery(name))
            heads.append(sound(catalog))
        assert audited.cut(NOW + timedelta(days=3)) == 3
        assert [entry.seq for entry in entries(catalog)] == [4, 5, 6]
        assert entries(catalog)[-1].content["details"].startswith("3 entries removed; ")
        head = sound(catalog)
        assert catalog.check().problems == ()
        with catalog.read() as reader:
            assert reader.audit_base() == heads[2]
            for known in heads[2:]:
                verify(reader.audit(), head, known, reader.audit_base())
            with pytest.raises(VerificationFailed, match="that of entry 2"):
                verify(reader.audit(), head, heads[1], reader.audit_base())
        assert audited.cut(NOW + timedelta(days=3)) == 0
        # more than was said can't be removed, nor another beginning be named
        with pytest.raises(GalleriaError, match="append-only"):
            tamper(catalog, "DELETE FROM audit WHERE seq = 4")
        tamper(catalog, "UPDATE audit_base SET seq = 4", "DELETE FROM audit WHERE seq = 4")
        with pytest.raises(VerificationFailed, match="The audit record is broken"):
            sound(catalog)


def test_a_beginning_that_nobody_made_is_found(recorded: SqlCatalog, url: str) -> None:
    hash = entries(recorded)[2].hash
    tamper(recorded, f"INSERT INTO audit_base VALUES (1, 3, '{hash}')")  # noqa: S608
    tamper(recorded, "DELETE FROM audit WHERE seq <= 3")
    with pytest.raises(VerificationFailed, match="no entry says who removed them"):
        sound(recorded)


# --- the audited catalog --------------------------------------------------------------------------


def actions(catalog: Catalog) -> list[tuple[str, str]]:
    return [(str(e.content["action"]), str(e.content["object"])) for e in entries(catalog)]


def test_each_change_has_one_entry(catalog: Catalog) -> None:
    audited = AuditedCatalog(catalog, ACTOR, lambda: NOW)
    one = version()
    steps = [
        ("Microsoft.Compute/galleries/write", CORP.arm_id),
        ("Microsoft.Compute/galleries/images/write", WEB.arm_id),
        ("Microsoft.Compute/galleries/images/versions/write", one.name.arm_id),
        ("Microsoft.Compute/galleries/images/channels/write", f"{WEB.arm_id}/channels/prod"),
        ("Microsoft.Compute/galleries/images/channels/delete", f"{WEB.arm_id}/channels/prod"),
        ("Microsoft.Compute/galleries/images/versions/delete", one.name.arm_id),
        ("Microsoft.Compute/galleries/share/action", CORP.arm_id),
        ("Microsoft.Authorization/principals/write", principal("alice")),
        ("Microsoft.Authorization/roleAssignments/write", CORP.arm_id),
        ("Microsoft.Authorization/roleAssignments/delete", CORP.arm_id),
        ("Microsoft.Authorization/principals/delete", principal("ALICE")),
        ("Microsoft.Compute/galleries/images/delete", WEB.arm_id),
        ("Microsoft.Compute/galleries/delete", CORP.arm_id),
    ]
    steps += [
        ("Microsoft.Resources/subscriptions/write", f"/subscriptions/{S}"),
        (
            "Microsoft.Resources/subscriptions/resourceGroups/delete",
            f"/subscriptions/{S}/resourceGroups/rg",
        ),
    ]
    role = Assignment("alice", Role.READER, CORP.arm_id)
    with audited.write() as (_, writer):
        writer.put_gallery(gallery())
    with audited.write() as (_, writer):
        writer.put_definition(definition())
    with audited.write() as (_, writer):
        writer.put_version(one)
        writer.put_report(one.name, {"changes": []})
    channel = Channel(WEB, "prod", one.number, NOW)
    with audited.write() as (_, writer):
        writer.put_channel(channel)
    with audited.write() as (_, writer):
        writer.delete_channel(channel)
    with audited.write() as (_, writer):
        writer.delete_version(one.name)
    with audited.write() as (_, writer):
        writer.put_sharing(Sharing(CORP))
    with audited.write() as (_, writer):
        writer.put_principal(Principal("alice"))
    with audited.write() as (_, writer):
        writer.put_assignment(role)
    with audited.write() as (_, writer):
        writer.delete_assignment(role)
    with audited.write() as (_, writer):
        writer.delete_principal("ALICE")
    with audited.write() as (_, writer):
        writer.delete_definition(WEB)
    with audited.write() as (_, writer):
        writer.delete_gallery(CORP)
    with audited.write() as (_, writer):
        writer.put_subscription(Subscription(S, "lab", NOW))
    with audited.write() as (_, writer):
        writer.delete_resource_group(ResourceGroup(S, "rg", "eu", NOW))
    assert actions(catalog) == steps
    assert sound(catalog).seq == len(steps)
    first = entries(catalog)[0].content
    assert (first["actor"], first["operator"], first["request"]) == ("alice", "root@build1", "r1")
    assert first["allowed"] is True


def principal(name: str) -> str:
    return f"/providers/Microsoft.Authorization/principals/{name}"


def test_reading_and_mere_progress_are_not_recorded(catalog: Catalog) -> None:
    audited = AuditedCatalog(catalog, ACTOR)
    one = version()
    with catalog.write() as writer:
        writer.put_gallery(gallery())
        writer.put_definition(definition())
        writer.put_version(one)
    halfway = replace(one, regions=tuple(replace(r, progress=50) for r in one.regions))
    with audited.write() as (_, writer):
        writer.put_version(halfway)
    with audited.read() as reader:
        assert reader.version(one.name) == halfway
    assert entries(catalog) == []
    with audited.write() as (_, writer):
        writer.put_version(replace(halfway, tags={"a": "b"}))
    assert len(entries(catalog)) == 1


def test_a_change_that_fails_is_not_recorded_and_a_refusal_is(catalog: Catalog) -> None:
    audited = AuditedCatalog(catalog, ACTOR)
    with contextlib.suppress(ZeroDivisionError), audited.write() as (_, writer):
        writer.put_gallery(gallery())
        raise ZeroDivisionError
    assert entries(catalog) == []
    audited.record(Event("Microsoft.Compute/galleries/write", "/x", allowed=False, details="no"))
    (entry,) = entries(catalog)
    assert (entry.content["allowed"], entry.content["details"]) == (False, "no")


def test_a_record_that_can_not_be_written_undoes_the_change(catalog: Catalog) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    audited = AuditedCatalog(catalog, ACTOR, broken)  # type: ignore[arg-type]
    with contextlib.suppress(ZeroDivisionError), audited.write() as (_, writer):
        writer.put_gallery(gallery())
    with catalog.read() as reader:
        assert reader.galleries() == []


def test_writers_at_once_make_one_chain(catalog: Catalog) -> None:
    def work(name: str) -> None:
        audited = AuditedCatalog(catalog, Actor(name, name, name))
        for index in range(10):
            with audited.write() as (_, writer):
                writer.put_gallery(gallery(f"{name}{index}"))

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sound(catalog).seq == 30
    assert {re.sub(r"\d", "", str(e.content["actor"])) for e in entries(catalog)} == set("abc")


def test_roles_shares_and_views_over_every_catalog(catalog: Catalog) -> None:
    def be(name: str | None) -> tuple[Grants, SharedViews]:
        made = services(catalog=catalog, principal=name)
        return made.grants, made.views

    fine = version()
    with catalog.write() as writer:
        writer.put_gallery(gallery())
        writer.put_definition(definition())
        writer.put_version(fine)
    grants, _ = be(None)
    grants.put_principal(Principal("bob", tenant=T))
    grants.put_principal(Principal("alice"))
    grants.assign("ALICE", Role.SHARING_ADMIN, "corp")
    grants.set_permissions(CORP, SharingPermissions.GROUPS)
    be("alice")[0].share_with(CORP, [], [T])
    id = "/SharedGalleries/00000000-0000-0000-0000-000000000000-CORP/Images/web"
    assert be("bob")[1].versions(id) == [fine]
    with pytest.raises(NotFound):
        be("alice")[1].versions(id)
    be("alice")[0].reset(CORP)
    with pytest.raises(NotFound):
        be("bob")[1].versions(id)
    grants.set_permissions(CORP, SharingPermissions.COMMUNITY)
    public = be("alice")[0].enable_community(CORP, replace(PUBLIC, public_name=""))
    assert be("bob")[1].versions(f"/CommunityGalleries/{public.public_name}/Images/WEB") == [fine]
    assert [e.content["actor"] for e in entries(catalog) if not e.content["allowed"]] == [
        "alice",
        "bob",
    ]
    assert sound(catalog) == grants.verify_audit()
