"""Every cell of who may do what, against tables that were written by hand from Azure's role
definitions and sharing rules, and share nothing with the function that decides."""

import itertools
from collections.abc import Iterator

import pytest

from pipeline.gallery.access.decide import Subject, Target, decide, sees
from pipeline.model import SharingPermissions
from pipeline.model.access import Action, Assignment, Role
from pipeline.model.names import parse_gallery
from pipeline.model.sharing import Community, Sharing

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
    assert cells == 13 * 12 * 4 * 3 * 43
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
