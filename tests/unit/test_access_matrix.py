"""Every cell of who may do what, against tables that were written by hand from Azure's role
definitions and sharing rules, and share nothing with the function that decides."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pytest

from pipeline.errors import AuthorizationFailed, NotFound
from pipeline.gallery.access.decide import Subject, Target, decide, sees
from pipeline.gallery.rules.agreement import SourceFacts
from pipeline.gallery.rules.retention import Retention
from pipeline.gallery.services import Services
from pipeline.model import (
    Deployment,
    HyperVGeneration,
    ImageShape,
    ImageVersion,
    OsState,
    OsType,
    RegionStatus,
    ReplicationState,
    ScaleSet,
    SharingPermissions,
    SourceProperties,
)
from pipeline.model.access import Action, Assignment, Principal, Role
from pipeline.model.names import (
    DEFAULT_SUBSCRIPTION,
    DEFAULT_TENANT,
    DefinitionName,
    GalleryName,
    VersionName,
    parse_definition,
    parse_gallery,
    parse_version,
)
from pipeline.model.resource_names import ResourceKind, ResourceName
from pipeline.model.resources import Disk, ManagedImage, Snapshot
from pipeline.model.runs import Run, RunKind
from pipeline.model.sharing import Community, Sharing
from pipeline.resources.lineage import Family, of_version
from tests import samples
from tests.memory_catalog import MemoryCatalog
from tests.operations import actions

# O Owner, C Contributor, R Reader, S Compute Gallery Sharing Admin, P Compute Gallery Artifacts
# Publisher, I Compute Gallery Image Reader, A Storage Account Contributor: who has the action.
ROLE_ACTIONS = """
Microsoft.Compute/galleries/read                                O C R - P - -
Microsoft.Compute/galleries/write                               O C - - P - -
Microsoft.Compute/galleries/delete                              O C - - P - -
Microsoft.Compute/galleries/share/action                        O - - S - - -
Microsoft.Compute/galleries/images/read                         O C R - P I -
Microsoft.Compute/galleries/images/write                        O C - - P - -
Microsoft.Compute/galleries/images/delete                       O C - - P - -
Microsoft.Compute/galleries/images/versions/read                O C R - P I -
Microsoft.Compute/galleries/images/versions/write               O C - - P - -
Microsoft.Compute/galleries/images/versions/delete              O C - - P - -
Microsoft.Compute/virtualMachines/write                         O C - - P - -
Microsoft.Compute/disks/read                                    O C R - - - -
Microsoft.Compute/disks/write                                   O C - - P - -
Microsoft.Compute/disks/delete                                  O C - - - - -
Microsoft.Compute/snapshots/read                                O C R - - - -
Microsoft.Compute/snapshots/write                               O C - - - - -
Microsoft.Compute/snapshots/delete                              O C - - - - -
Microsoft.Compute/images/read                                   O C R - P - -
Microsoft.Compute/images/write                                  O C - - P - -
Microsoft.Compute/images/delete                                 O C - - P - -
Microsoft.Compute/virtualMachineScaleSets/write                 O C - - - - -
Microsoft.Compute/virtualMachineScaleSets/delete                O C - - - - -
Microsoft.Storage/storageAccounts/listKeys/action               O C - - - - A
Microsoft.Resources/tenants/read                                O C R - - - -
Microsoft.Resources/tenants/write                               O - - - - - -
Microsoft.Resources/subscriptions/read                          O C R - - - -
Microsoft.Resources/subscriptions/write                         O - - - - - -
Microsoft.Resources/subscriptions/resourceGroups/read           O C R - P - A
Microsoft.Resources/subscriptions/resourceGroups/write          O C - - - - -
Microsoft.Resources/subscriptions/resourceGroups/delete         O C - - - - -
Microsoft.Authorization/roleAssignments/read                    O C R - P - A
Microsoft.Authorization/roleAssignments/write                   O - - - - - -
Microsoft.Authorization/roleAssignments/delete                  O - - - - - -
Microsoft.Authorization/principals/read                         O C R - P - A
Microsoft.Authorization/principals/write                        O - - - - - -
Microsoft.Authorization/principals/delete                       O - - - - - -
Microsoft.Insights/eventtypes/values/read                       O C R - - - -
Galleria/audit/cut/action                                       O - - - - - -
Galleria/catalogs/rebuild/action                                O - - - - - -
Galleria/catalogs/backup/action                                 O - - - - - -
Galleria/catalogs/check/action                                  O - - - - - -
Galleria/catalogs/restore/action                                O - - - - - -
Galleria/metrics/read                                           O C R - - - -
Galleria/garbage/collect/action                                 O - - - - - -
Galleria/zones/adopt/action                                     O - - - - - -
Galleria/runs/read                                              O C R - - - -
Galleria/runs/write                                             O C - - - - -
Galleria/zones/scrub/action                                     O - - - - - -
Galleria/zones/repair/action                                    O - - - - - -
"""
COLUMNS = {
    "Owner": 0,
    "Contributor": 1,
    "Reader": 2,
    "Compute Gallery Sharing Admin": 3,
    "Compute Gallery Artifacts Publisher": 4,
    "Compute Gallery Image Reader": 5,
    "Storage Account Contributor": 6,
}

SUB, OTHER = "11111111-1111-1111-1111-111111111111", "99999999-9999-9999-9999-999999999999"
HOME, AWAY = "aaaaaaaa-0000-0000-0000-000000000001", "bbbbbbbb-0000-0000-0000-000000000002"
GROUP = f"/subscriptions/{SUB}/resourceGroups/rg"
GALLERY = f"{GROUP}/providers/Microsoft.Compute/galleries/corp"
TARGETS = {
    "gallery": GALLERY,
    "definition": f"{GALLERY}/images/web",
    "version": f"{GALLERY}/images/web/versions/1.0.0",
}
# Where a role is assigned: does it reach the gallery, the definition web, its version 1.0.0? Then
# whether its holder may know of each (of a gallery also who has a part of it).
SCOPES = """
/                                                       Y Y Y   Y Y Y
subscription                                            Y Y Y   Y Y Y
SUBSCRIPTION                                            Y Y Y   Y Y Y
resource group                                          Y Y Y   Y Y Y
gallery                                                 Y Y Y   Y Y Y
definition                                              - Y Y   Y Y Y
other subscription                                      - - -   - - -
other resource group                                    - - -   - - -
resource group of a longer name                         - - -   - - -
other gallery                                           - - -   - - -
gallery of a longer name                                - - -   - - -
other definition                                        - - -   Y - -
definition of a longer name                             - - -   Y - -
"""
SCOPE_IDS = {
    "/": "/",
    "subscription": f"/subscriptions/{SUB}",
    "SUBSCRIPTION": f"/SUBSCRIPTIONS/{SUB.upper()}",
    "resource group": GROUP,
    "gallery": GALLERY,
    "definition": f"{GALLERY}/images/web",
    "other subscription": f"/subscriptions/{OTHER}",
    "other resource group": f"/subscriptions/{SUB}/resourceGroups/r",
    "resource group of a longer name": f"{GROUP}2",
    "other gallery": f"{GROUP}/providers/Microsoft.Compute/galleries/cor",
    "gallery of a longer name": f"{GALLERY}2",
    "other definition": f"{GALLERY}/images/we",
    "definition of a longer name": f"{GALLERY}/images/web2",
}

# What the profile of the gallery says, and who of four gets a direct view (D) or a community view
# (C): a user of the subscription, a member of the tenant, a guest of the tenant, a stranger.
SHARES = """
no profile                      - - - -
private                         - - - -
private with old groups         - - - -
private with old public name    - - - -
groups of nobody                - - - -
groups of the subscription      D - - -
groups of the tenant            - D D -
groups of others                - - - -
groups with old public name     - - - -
community enabled               C C C C
community not enabled           - - - -
community with old groups       - - - -
"""
PRIVATE, GROUPS, COMMUNITY = SharingPermissions
NAME = parse_gallery(GALLERY)
INFO = Community("https://x.example", "a@x.example", "eula", "corp")
PUBLIC = Community("https://x.example", "a@x.example", "eula", "corp", f"corp-{OTHER}")
PROFILES: dict[str, Sharing | None] = {
    "no profile": None,
    "private": Sharing(NAME, PRIVATE),
    "private with old groups": Sharing(NAME, PRIVATE, (OTHER,), (AWAY,)),
    "private with old public name": Sharing(NAME, PRIVATE, community=PUBLIC),
    "groups of nobody": Sharing(NAME, GROUPS),
    "groups of the subscription": Sharing(NAME, GROUPS, (OTHER,)),
    "groups of the tenant": Sharing(NAME, GROUPS, (), (AWAY,)),
    "groups of others": Sharing(NAME, GROUPS, (SUB,), (SUB,)),
    "groups with old public name": Sharing(NAME, GROUPS, community=PUBLIC),
    "community enabled": Sharing(NAME, COMMUNITY, community=PUBLIC),
    "community not enabled": Sharing(NAME, COMMUNITY, community=INFO),
    "community with old groups": Sharing(NAME, COMMUNITY, (OTHER,), (AWAY,), INFO),
}
DIRECT_VIEWS = {
    "Microsoft.Compute/locations/sharedGalleries/read",
    "Microsoft.Compute/locations/sharedGalleries/images/read",
    "Microsoft.Compute/locations/sharedGalleries/images/versions/read",
}
COMMUNITY_VIEWS = {
    "Microsoft.Compute/locations/communityGalleries/read",
    "Microsoft.Compute/locations/communityGalleries/images/read",
    "Microsoft.Compute/locations/communityGalleries/images/versions/read",
}
# Who asks: the tenants that it belongs to (the gallery is in HOME), and its subscriptions.
SUBJECTS = {
    "of the home tenant, user of the other subscription": ({HOME}, {OTHER}),
    "of the home tenant and guest of the other one": ({HOME, AWAY}, set()),
    "of the other tenant alone": ({AWAY}, set()),
    "stranger in the home tenant": ({HOME}, set()),
}
SHARE_COLUMN = dict(zip(SUBJECTS, (0, 2, 1, 3), strict=True))
IN_HOME = {name: HOME in tenants for name, (tenants, _) in SUBJECTS.items()}


def rows(text: str, width: int) -> Iterator[tuple[str, list[str]]]:
    for line in text.strip().splitlines():
        words = line.split()
        yield " ".join(words[:-width]), words[-width:]


ALLOWED = {
    action: {role: marks[column] != "-" for role, column in COLUMNS.items()}
    for action, marks in rows(ROLE_ACTIONS, 7)
}
REACH = {scope: marks for scope, marks in rows(SCOPES, 6)}
VIEWS = {share: marks for share, marks in rows(SHARES, 4)}


def test_the_tables_name_everything() -> None:
    assert set(ALLOWED) | DIRECT_VIEWS | COMMUNITY_VIEWS == {action.value for action in Action}
    assert set(COLUMNS) == {role.value for role in Role}
    assert set(REACH) == set(SCOPE_IDS)
    assert set(VIEWS) == set(PROFILES)


def subject(name: str, *identities: str) -> Subject:
    tenants, subscriptions = SUBJECTS[name]
    return Subject(
        "alice",
        frozenset({"alice", *identities}),
        frozenset(tenants),
        frozenset(subscriptions),
    )


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.name)
def test_every_cell(role: Role) -> None:
    """Role x action x scope x share x tenant relation x target."""
    wrong = []
    cells = 0
    for scope, share, who in itertools.product(SCOPE_IDS, PROFILES, SUBJECTS):
        profile = PROFILES[share]
        shares = {} if profile is None else {GALLERY.lower(): profile}
        held = [Assignment("Alice", role, SCOPE_IDS[scope])]
        asking = subject(who)
        for column, (target, id) in enumerate(TARGETS.items()):
            reached = REACH[scope][column] == "Y" and (scope == "/" or IN_HOME[who])
            for action in Action:
                name = action.value
                if name in DIRECT_VIEWS:
                    expected = VIEWS[share][SHARE_COLUMN[who]] == "D"
                elif name in COMMUNITY_VIEWS:
                    expected = VIEWS[share][SHARE_COLUMN[who]] == "C"
                else:
                    expected = reached and ALLOWED[name][role.value]
                found = decide(asking, action, Target(id, HOME), held, shares)
                cells += 1
                if found.allowed is not expected or bool(found.code) is found.allowed:
                    wrong.append((scope, share, who, target, name, found))
    assert cells == 13 * 12 * 4 * 3 * 55
    assert wrong[:5] == []


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.name)
def test_who_may_know_of_what(role: Role) -> None:
    for scope, who in itertools.product(SCOPE_IDS, SUBJECTS):
        held = [Assignment("alice", role, SCOPE_IDS[scope])]
        for column, id in enumerate(TARGETS.values()):
            expected = REACH[scope][3 + column] == "Y" and (scope == "/" or IN_HOME[who])
            assert sees(subject(who), Target(id, HOME), held) is expected, (scope, who, id)


def test_without_a_role_nothing_is_allowed() -> None:
    for share, who, action in itertools.product(PROFILES, SUBJECTS, Action):
        profile = PROFILES[share]
        shares = {} if profile is None else {GALLERY.lower(): profile}
        others = [
            Assignment(name, role, scope)
            for name in ("bob", "alic", "alice2", "operator:alice")
            for role in Role
            for scope in SCOPE_IDS.values()
        ]
        for id in TARGETS.values():
            found = decide(subject(who), action, Target(id, HOME), others, shares)
            view = VIEWS[share][SHARE_COLUMN[who]]
            expected = (view == "D" and action.value in DIRECT_VIEWS) or (
                view == "C" and action.value in COMMUNITY_VIEWS
            )
            assert found.allowed is expected, (share, who, action)
        assert not sees(subject(who), Target(GALLERY, HOME), others)


def test_a_group_gives_its_members_what_it_has() -> None:
    held = [Assignment("Devs", Role.READER, GALLERY)]
    target = Target(TARGETS["version"], HOME)
    who = "stranger in the home tenant"
    assert decide(subject(who, "devs"), Action.VERSION_READ, target, held, {}).allowed
    assert not decide(subject(who, "ops"), Action.VERSION_READ, target, held, {}).allowed


def test_the_codes_and_reasons_of_refusals() -> None:
    held = [Assignment("alice", Role.READER, GALLERY)]
    target = Target(GALLERY, HOME)
    stranger = subject("stranger in the home tenant")
    no = decide(stranger, Action.GALLERY_WRITE, target, held, {})
    assert (no.code, no.reason) == (
        "AuthorizationFailed",
        "no role of 'alice' allows Microsoft.Compute/galleries/write there",
    )
    away = decide(subject("of the other tenant alone"), Action.GALLERY_READ, target, held, {})
    assert (away.code, away.reason) == (
        "LinkedAuthorizationFailed",
        f"'alice' does not belong to the tenant {HOME}",
    )
    yes = decide(stranger, Action.GALLERY_READ, target, held, {})
    assert yes.reason == f"Reader of 'alice' at {GALLERY}"


# --- every operation that reads, over a gallery that is full --------------------------------------

# To those who have no role on it, what is there is as what is not: they get the same words. Who:
# a stranger, the owner of another subscription in another tenant, the owner of another gallery.
OUTSIDERS = ("stranger", "foreigner", "neighbour")
LAB = "33333333-3333-3333-3333-333333333333"


@dataclass(frozen=True)
class Names:
    """What is asked for: all of it is there, or none."""

    gallery: str
    subscription: str
    tenant: str
    uid: str

    @property
    def name(self) -> GalleryName:
        return parse_gallery(self.gallery)

    @property
    def definition(self) -> DefinitionName:
        return parse_definition(f"{self.gallery}/web")

    @property
    def version(self) -> VersionName:
        return parse_version(f"{self.gallery}/web/1.0.0")

    def resource(self, kind: ResourceKind) -> ResourceName:
        return ResourceName(kind, self.gallery)

    @property
    def record(self) -> ImageVersion:
        return samples.version(f"{self.gallery}/web/1.0.0", uid=self.uid)


THERE = Names("corp", LAB, HOME, "1" * 32)
NOWHERE = Names("none", "44444444-4444-4444-4444-444444444444", OTHER, "2" * 32)
CALLS: dict[str, Callable[[Services, Names], object]] = {
    "GalleryService.get_tenant": lambda ask, at: ask.gallery.get_tenant(at.tenant),
    "GalleryService.get_subscription": lambda ask, at: ask.gallery.get_subscription(
        at.subscription
    ),
    "GalleryService.list_resource_groups": lambda ask, at: ask.gallery.list_resource_groups(
        at.subscription
    ),
    "GalleryService.get_resource_group": lambda ask, at: ask.gallery.get_resource_group(
        at.subscription, "galleria"
    ),
    "GalleryService.get_gallery": lambda ask, at: ask.gallery.get_gallery(at.name),
    "GalleryService.list_definitions": lambda ask, at: ask.gallery.list_definitions(at.name),
    "GalleryService.get_definition": lambda ask, at: ask.gallery.get_definition(at.definition),
    "GalleryService.list_versions": lambda ask, at: ask.gallery.list_versions(at.definition),
    "GalleryService.count_versions": lambda ask, at: ask.gallery.count_versions(at.definition),
    "GalleryService.latest_version": lambda ask, at: ask.gallery.latest_version(at.definition),
    "GalleryService.list_channels": lambda ask, at: ask.gallery.list_channels(at.definition),
    "GalleryService.expired": lambda ask, at: ask.gallery.expired(at.definition),
    "GalleryService.retention": lambda ask, at: ask.gallery.retention(at.definition, Retention(1)),
    "GalleryService.get_version": lambda ask, at: ask.gallery.get_version(at.version),
    "GalleryService.report": lambda ask, at: ask.gallery.report(at.version),
    "GalleryService.parents_of": lambda ask, at: ask.gallery.parents_of(at.version),
    "GalleryService.check_in_the_bin": lambda ask, at: ask.gallery.check_in_the_bin(at.version),
    "GalleryService.degraded": lambda ask, at: ask.gallery.degraded(at.definition, [at.record]),
    "GalleryService.cautions": lambda ask, at: ask.gallery.cautions(at.record),
    "GalleryService.holder": lambda ask, at: ask.gallery.holder(at.record),
    "GalleryService.is_interrupted": lambda ask, at: ask.gallery.is_interrupted(at.record),
    "GalleryService.check_source": lambda ask, at: ask.gallery.check_source(
        at.record, SourceFacts(), SourceProperties()
    ),
    "GalleryService.resolve": lambda ask, at: ask.gallery.resolve(f"{at.gallery}/web/1.0.0"),
    "GalleryService.own_version": lambda ask, at: ask.gallery.own_version(
        f"{at.gallery}/web/1.0.0"
    ),
    "GalleryService.resolve latest": lambda ask, at: ask.gallery.resolve(f"{at.gallery}/web", "eu"),
    "GalleryService.resolve channel": lambda ask, at: ask.gallery.resolve(f"{at.gallery}/web@prod"),
    "GalleryService.resolve shared": lambda ask, at: ask.gallery.resolve(
        f"/SharedGalleries/{DEFAULT_SUBSCRIPTION}-{at.gallery.upper()}/Images/web"
    ),
    "GalleryService.get_scale_set": lambda ask, at: ask.gallery.get_scale_set(at.gallery),
    "GalleryService.record_deployments": lambda ask, at: ask.gallery.record_deployments(
        at.version, []
    ),
    "GalleryService.take_deployments": lambda ask, at: ask.gallery.take_deployments(
        at.version, [], "request"
    ),
    "GalleryService.finish_deployments": lambda ask, at: ask.gallery.finish_deployments(
        at.version, []
    ),
    "GalleryService.leave_deployments": lambda ask, at: ask.gallery.leave_deployments(
        at.version, []
    ),
    "GalleryService.create_scale_set": lambda ask, at: ask.gallery.create_scale_set(
        scale_set(at.version, "another")
    ),
    "ResourceService.get disk": lambda ask, at: ask.resources.get(at.resource(ResourceKind.DISK)),
    "ResourceService.get snapshot": lambda ask, at: ask.resources.get(
        at.resource(ResourceKind.SNAPSHOT)
    ),
    "ResourceService.get image": lambda ask, at: ask.resources.get(at.resource(ResourceKind.IMAGE)),
    "ResourceService.use disk": lambda ask, at: ask.resources.use(at.resource(ResourceKind.DISK)),
    "ResourceService.use image": lambda ask, at: ask.resources.use(at.resource(ResourceKind.IMAGE)),
    "Grants.sharing": lambda ask, at: ask.grants.sharing(at.name),
    "SharedViews.gallery": lambda ask, at: ask.views.gallery(shared_id(at)),
    "SharedViews.definitions": lambda ask, at: ask.views.definitions(shared_id(at)),
    "SharedViews.definition": lambda ask, at: ask.views.definition(f"{shared_id(at)}/Images/web"),
    "SharedViews.versions": lambda ask, at: ask.views.versions(f"{shared_id(at)}/Images/web"),
}
# What a list is for them: empty, but for what is their own.
LISTS: dict[str, Callable[[Services], Iterable[object]]] = {
    "GalleryService.list_tenants": lambda ask: ask.gallery.list_tenants(),
    "GalleryService.list_subscriptions": lambda ask: ask.gallery.list_subscriptions(),
    "GalleryService.list_galleries": lambda ask: ask.gallery.list_galleries(),
    "GalleryService.list_deployments": lambda ask: ask.gallery.list_deployments(),
    "GalleryService.list_scale_sets": lambda ask: ask.gallery.list_scale_sets(),
    "ResourceService.of_kind": lambda ask: [
        item for kind in ResourceKind for item in ask.resources.of_kind(kind)
    ],
    "RunService.list_runs": lambda ask: ask.runs.list_runs(),
    "Grants.assignments": lambda ask: ask.grants.assignments(),
    "Grants.audit": lambda ask: (str(item.content["object"]) for item in ask.grants.audit()),
    "SharedViews.galleries": lambda ask: ask.views.galleries(GROUPS),
    "SharedViews.page": lambda ask: ask.views.page(GROUPS, limit=9).galleries,
}
# Everybody knows that there is something of the kind; who may not read it is told so.
REFUSED: dict[str, Callable[[Services], object]] = {
    "RunService.get_run": lambda ask: ask.runs.get_run("aaa"),
    "RunService.find_run": lambda ask: ask.runs.find_run("aaa"),
    "Grants.principals": lambda ask: ask.grants.principals(),
    "Grants.credentials": lambda ask: ask.grants.credentials("stranger"),
    "Grants.check_metrics": lambda ask: ask.grants.check_metrics(),
    "Grants.verify_audit": lambda ask: ask.grants.verify_audit(),
}


def shared_id(at: Names) -> str:
    return f"/SharedGalleries/{DEFAULT_SUBSCRIPTION}-{at.gallery.upper()}"


def scale_set(version: VersionName, name: str) -> ScaleSet:
    shape = ImageShape(OsType.LINUX, HyperVGeneration.V2, OsState.GENERALIZED)
    return ScaleSet(name, str(version), "eu", "/out", samples.NOW, version, shape)


@pytest.fixture
def full() -> MemoryCatalog:
    """One of everything, in the default tenant; and what the outsiders have of their own."""
    catalog = MemoryCatalog()
    ask = samples.services(catalog=catalog)
    for tenant, subscription in ((AWAY, OTHER), (HOME, LAB)):
        ask.gallery.create_tenant(tenant)
        ask.gallery.create_subscription(subscription, tenant=tenant)
    for name in ("corp", "own"):
        ask.gallery.create_gallery(parse_gallery(name), "eu")
        ask.gallery.create_definition(samples.definition(f"{name}/web"))
    ask.gallery.create_gallery(GalleryName("away", OTHER), "eu")
    version = ask.gallery.begin_version(samples.request("corp/web/1.0.0"))
    version = ask.records.record_contents(version, [samples.disk()], {"secret": 1})
    for region in ("eu", "us"):
        done = RegionStatus(region, ReplicationState.COMPLETED, 100)
        version = ask.records.set_regions(version, done)
    ask.records.finish_version(version)
    ask.gallery.promote(version.name, "prod")
    with catalog.write() as writer:
        writer.put_run(Run("aaa", RunKind.PUBLISH, version.name.arm_id, samples.NOW))
    vm = Deployment("vm", "/out/vm", version.name, version.uid, "eu", samples.NOW)
    ask.gallery.record_deployments(version.name, [vm])
    ask.gallery.create_scale_set(scale_set(version.name, "corp"))
    for kind, made in ((ResourceKind.DISK, Disk), (ResourceKind.SNAPSHOT, Snapshot)):
        begun = ask.resources.begin(made(THERE.resource(kind).arm_id, "eu", samples.NOW, ""))
        ask.records.finish_resource(begun)
    image = ManagedImage(THERE.resource(ResourceKind.IMAGE).arm_id, "eu", samples.NOW, "")
    ask.records.finish_resource(ask.resources.begin(image))
    for principal in ("stranger", "foreigner", "neighbour"):
        tenant = AWAY if principal == "foreigner" else DEFAULT_TENANT
        ask.grants.put_principal(Principal(principal, tenant=tenant))
    ask.grants.assign("foreigner", Role.OWNER, OTHER)
    ask.grants.assign("neighbour", Role.OWNER, "own")
    return catalog


def test_every_read_is_in_the_tables() -> None:
    """Those that only look are told by their actions; a new one has to be added."""
    reads = {
        name
        for name, found in actions().items()
        if all(action.value.endswith("/read") for action in found)
    }
    listed = {name.split(" ")[0] for name in (*CALLS, *LISTS, *REFUSED)}
    assert reads - listed == {"SharedViews.resolve"}  # by way of GalleryService.resolve
    assert listed - reads == {"ResourceService.use"}  # of disks it takes the right to write


@pytest.mark.parametrize("who", OUTSIDERS)
@pytest.mark.parametrize("call", CALLS)
def test_what_is_there_is_as_what_is_not(full: MemoryCatalog, call: str, who: str) -> None:
    def asked(at: Names) -> tuple[str, ...]:
        ask = samples.services(catalog=full, principal=who)
        with full.read() as reader:
            before = reader.audit_head().seq
        with pytest.raises(NotFound) as caught:
            CALLS[call](ask, at)
        with full.read() as reader:
            refusals = reader.audit_head().seq - before
        error = caught.value
        texts = (error.message, error.plain, error.hint, error.reason, str(error.named))
        words = [str(refusals), *texts]
        for value in (at.gallery, at.subscription, at.tenant):
            words = [word.replace(value, "X").replace(value.upper(), "X") for word in words]
        return tuple(words)

    there, nowhere = asked(THERE), asked(NOWHERE)
    assert there[1:] == nowhere[1:]
    assert there[0] == "1"  # the attempt is on record
    CALLS[call](samples.services(catalog=full), THERE) if call not in _NOT_SHARED else None


_NOT_SHARED = {
    "GalleryService.resolve shared",
    "GalleryService.check_in_the_bin",
    *(name for name in CALLS if name.startswith("SharedViews")),
}


@pytest.mark.parametrize("who", OUTSIDERS)
def test_lists_hold_what_is_ones_own(full: MemoryCatalog, who: str) -> None:
    ask = samples.services(catalog=full, principal=who)
    found = {name: [str(item) for item in listed(ask)] for name, listed in LISTS.items()}
    own = {
        "stranger": {"GalleryService.list_tenants"},
        "foreigner": {
            *("GalleryService.list_tenants", "GalleryService.list_subscriptions"),
            *("GalleryService.list_galleries", "Grants.assignments", "Grants.audit"),
        },
        "neighbour": {
            *("GalleryService.list_tenants", "GalleryService.list_subscriptions"),
            *("GalleryService.list_galleries", "Grants.assignments", "Grants.audit"),
        },
    }
    assert {name for name, items in found.items() if items} == own[who]
    told = " ".join(item for items in found.values() for item in items)
    assert "corp" not in told
    assert LAB not in told
    everything = samples.services(catalog=full)
    assert all(list(listed(everything)) for name, listed in LISTS.items() if "Views" not in name)


@pytest.mark.parametrize("who", OUTSIDERS)
@pytest.mark.parametrize("call", REFUSED)
def test_what_is_for_the_owner_of_everything(full: MemoryCatalog, call: str, who: str) -> None:
    with pytest.raises((NotFound, AuthorizationFailed)):
        REFUSED[call](samples.services(catalog=full, principal=who))
    REFUSED[call](samples.services(catalog=full))


@pytest.mark.parametrize("who", OUTSIDERS)
def test_lineage_ends_where_sight_does(full: MemoryCatalog, who: str) -> None:
    ask = samples.services(catalog=full, principal=who)
    owner = samples.services(catalog=full)
    thing = of_version(owner.gallery.get_version(THERE.version))
    assert Family(owner.gallery, owner.resources).of(thing).copies == {None: ()}
    assert Family(ask.gallery, ask.resources).of(thing).copies == {None: ()}
