"""What a sharing profile may become, what a shared gallery may hold, and shared names."""

import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest

from pipeline.errors import Conflict, GalleriaError, InvalidParameter, NotFound, Refused
from pipeline.gallery.access import shared_ids, sharing
from pipeline.gallery.access.shared_ids import SharedReference
from pipeline.model import Feature, PurchasePlan, SharingPermissions
from pipeline.model.names import GalleryName, VersionNumber, parse_gallery
from pipeline.model.sharing import Community, Sharing
from tests.samples import definition, gallery

CORP = parse_gallery("corp")
PRIVATE, GROUPS, COMMUNITY = SharingPermissions
GROUP = Sharing(CORP, GROUPS)
ABOUT = Community("https://contoso.example/x", "images@contoso.example", "Be nice.", "contoso1")
OPEN = Sharing(CORP, COMMUNITY, community=ABOUT)
UNIQUE = uuid.UUID("12345678-1234-1234-1234-123456789abc")


def guids(count: int, first: int = 0) -> list[str]:
    return [str(uuid.UUID(int=number)) for number in range(first, first + count)]


# --- direct -------------------------------------------------------------------------------------


def test_sharing_with_some_and_more() -> None:
    one, two, three = guids(3)
    first = sharing.add(GROUP, [one.upper()], [three])
    assert (first.subscriptions, first.tenants, first.is_shared) == ((one,), (three,), True)
    both = sharing.add(first, [one, two], [])
    assert (both.subscriptions, both.tenants) == ((one, two), (three,))
    assert sharing.remove(both, [one], [three.upper()]) == replace(GROUP, subscriptions=(two,))
    assert sharing.reset(both) == GROUP
    assert not GROUP.is_shared


@pytest.mark.parametrize(("count", "limit", "what"), [(30, 30, 0), (5, 5, 1)])
def test_the_limits(count: int, limit: int, what: int) -> None:
    given: list[list[str]] = [[], []]
    given[what] = guids(count)
    full = sharing.add(GROUP, *given)
    assert sharing.add(full, *given) == full
    given[what] = guids(1, first=count)
    with pytest.raises(InvalidParameter, match=f"{limit} .* at most: this would make {limit + 1}"):
        sharing.add(full, *given)


REFUSED: dict[str, tuple[Callable[[], object], type[GalleriaError], str]] = {
    "a private gallery": (
        lambda: sharing.add(Sharing(CORP), guids(1), []),
        Conflict,
        "its permissions are Private, not Groups",
    ),
    "a community gallery": (lambda: sharing.add(OPEN, guids(1), []), Conflict, "are Community"),
    "nobody": (lambda: sharing.add(GROUP, [], []), InvalidParameter, "Neither a subscription"),
    "nobody less": (lambda: sharing.remove(GROUP, [], []), InvalidParameter, "Neither"),
    "no GUID": (lambda: sharing.add(GROUP, ["x"], []), InvalidParameter, "subscription .* 'x'"),
    "no tenant": (lambda: sharing.add(GROUP, [], ["*"]), InvalidParameter, "tenant .* '\\*'"),
    "one it is not shared with": (
        lambda: sharing.remove(sharing.add(GROUP, guids(1), []), guids(1, 7), []),
        NotFound,
        "is not shared with '00000000-0000-0000-0000-000000000007'",
    ),
    "a subscription as a tenant": (
        lambda: sharing.remove(sharing.add(GROUP, guids(1), []), [], guids(1)),
        NotFound,
        "is not shared with",
    ),
    "community of a group gallery": (
        lambda: sharing.enable_community(GROUP, UNIQUE),
        Conflict,
        "its permissions are Groups, not Community",
    ),
    "community without a publisher": (
        lambda: sharing.enable_community(Sharing(CORP, COMMUNITY), UNIQUE),
        InvalidParameter,
        "does not name its publisher",
    ),
    "another kind while it is shared": (
        lambda: sharing.change_permissions(sharing.add(GROUP, guids(1), []), PRIVATE),
        Conflict,
        "is shared",
    ),
    "private while it is public": (
        lambda: sharing.change_permissions(sharing.enable_community(OPEN, UNIQUE), PRIVATE),
        Conflict,
        "is shared",
    ),
    "another publisher while it is public": (
        lambda: sharing.describe(sharing.enable_community(OPEN, UNIQUE), ABOUT),
        Conflict,
        "is public",
    ),
    "deleting it while it is public": (
        lambda: sharing.deletable(sharing.enable_community(OPEN, UNIQUE)),
        Conflict,
        "has to be reset before it is deleted",
    ),
}


@pytest.mark.parametrize(("act", "error", "said"), REFUSED.values(), ids=REFUSED)
def test_refusals(act: Callable[[], object], error: type[GalleriaError], said: str) -> None:
    with pytest.raises(error, match=said):
        act()


# --- community ----------------------------------------------------------------------------------


def test_the_life_of_a_community_gallery() -> None:
    described = sharing.describe(Sharing(CORP, COMMUNITY), ABOUT)
    assert not described.is_public
    public = sharing.enable_community(described, UNIQUE)
    assert public.public_name == f"contoso1-{UNIQUE}"
    assert sharing.enable_community(public, uuid.uuid4()) == public
    sharing.deletable(sharing.reset(public))
    again = sharing.enable_community(sharing.reset(public), uuid.UUID(int=1))
    assert again.public_name == f"contoso1-{uuid.UUID(int=1)}"
    assert sharing.change_permissions(sharing.reset(public), PRIVATE).permissions is PRIVATE
    sharing.deletable(None)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("public_name_prefix", ""),
        ("public_name_prefix", "a-b"),
        ("public_name_prefix", "a" * 41),
        ("public_name_prefix", "ä"),
        ("publisher_contact", "images"),
        ("publisher_contact", "a@b"),
        ("publisher_contact", "a b@x.example"),
        ("publisher_uri", "ftp://x.example"),
        ("publisher_uri", "javascript:alert(1)"),
        ("publisher_uri", "https://"),
        ("eula", " "),
        ("eula", "x" * 2049),
    ],
)
def test_what_a_publisher_may_not_say(member: str, value: str) -> None:
    with pytest.raises(InvalidParameter, match="communityGalleryInfo") as caught:
        sharing.describe(OPEN, replace(ABOUT, **{member: value}))
    assert "communityGalleryInfo" not in caught.value.plain


# --- what it may hold -----------------------------------------------------------------------------

# kind: Private, Groups, Community; N: it may not hold that
HOLDS: dict[str, tuple[str, dict[str, str]]] = {
    "plain": ("Y Y Y", {}),
    "TrustedLaunchSupported": ("Y Y Y", {"security": "TrustedLaunchSupported"}),
    "ConfidentialVMSupported": ("Y Y Y", {"security": "ConfidentialVMSupported"}),
    "both supported": ("Y Y Y", {"security": "TrustedLaunchAndConfidentialVmSupported"}),
    "TrustedLaunch": ("Y N N", {"security": "TrustedLaunch"}),
    "ConfidentialVM": ("Y N N", {"security": "ConfidentialVM"}),
    "another region": ("Y Y N", {"location": "us"}),
    "the same region": ("Y Y Y", {"location": "E u"}),
    "a plan": ("Y Y N", {"plan": "yes"}),
}


@pytest.mark.parametrize("kind", list(SharingPermissions))
@pytest.mark.parametrize("what", HOLDS)
def test_definitions(what: str, kind: SharingPermissions) -> None:
    marks, given = HOLDS[what]
    security = given.get("security")
    held = definition(
        features=(Feature("SecurityType", str(security)),) if security else (),
        location=given.get("location", "eu"),
        purchase_plan=PurchasePlan("a", "b", "c") if given.get("plan") else None,
    )
    if marks.split()[list(SharingPermissions).index(kind)] == "Y":
        sharing.may_hold_definition(kind, gallery(), held)
    else:
        with pytest.raises(Refused, match="corp/web"):
            sharing.may_hold_definition(kind, gallery(), held)


@pytest.mark.parametrize("kind", list(SharingPermissions))
def test_versions_have_their_home_in_the_gallerys_region(kind: SharingPermissions) -> None:
    home = gallery(location="UK South")
    sharing.may_hold_version(kind, home, "corp/web/1.0.0", "uksouth")
    if kind is PRIVATE:
        sharing.may_hold_version(kind, home, "corp/web/1.0.0", "eu")
    else:
        with pytest.raises(Refused, match="its home in 'eu', and its gallery 'corp' in 'UK South'"):
            sharing.may_hold_version(kind, home, "corp/web/1.0.0", "eu")


# --- names ----------------------------------------------------------------------------------------

ZERO = "00000000-0000-0000-0000-000000000000"
PUBLIC = f"contoso1-{UNIQUE}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"/SharedGalleries/{ZERO}-CORP", SharedReference(GROUPS, f"{ZERO}-CORP")),
        (
            f"/sharedgalleries/{ZERO}-corp/IMAGES/Web",
            SharedReference(GROUPS, f"{ZERO}-corp", "Web"),
        ),
        (
            f"/SharedGalleries/{ZERO}-CORP/Images/web/Versions/1.10.0",
            SharedReference(GROUPS, f"{ZERO}-CORP", "web", VersionNumber(1, 10, 0)),
        ),
        (
            f"/CommunityGalleries/{PUBLIC}/Images/web/Versions/LATEST",
            SharedReference(COMMUNITY, PUBLIC, "web"),
        ),
    ],
)
def test_shared_ids(text: str, expected: SharedReference) -> None:
    assert shared_ids.is_shared_reference(text)
    assert shared_ids.parse_shared(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "/SharedGalleries",
        "/SharedGalleries/",
        "/SharedGalleries/corp",
        f"/SharedGalleries/{ZERO}",
        f"/SharedGalleries/{ZERO}-",
        f"/SharedGalleries/{ZERO}-a-b",
        f"/SharedGalleries/{ZERO}-corp/web",
        f"/SharedGalleries/{ZERO}-corp/Images",
        f"/SharedGalleries/{ZERO}-corp/Images/..",
        f"/SharedGalleries/{ZERO}-corp/Versions/web",
        f"/SharedGalleries/{ZERO}-corp/Images/web/Versions/1.0",
        f"/SharedGalleries/{ZERO}-corp/Images/web/Versions/1.0.0/x",
        "/CommunityGalleries/contoso",
        f"/CommunityGalleries/{UNIQUE}",
        f"/CommunityGalleries/a%-{UNIQUE}",
    ],
)
def test_what_is_no_shared_id(text: str) -> None:
    with pytest.raises(InvalidParameter):
        shared_ids.parse_shared(text)


def test_unique_names() -> None:
    name = GalleryName("Corp.1", subscription=str(UNIQUE).upper(), resource_group="rg")
    assert shared_ids.unique_name(name) == f"{UNIQUE}-CORP.1"
    found = shared_ids.by_unique_name(shared_ids.unique_name(name))
    assert (found.subscription, found.name) == (str(UNIQUE), "CORP.1")
    for text in ("corp", "corp/web", "/subscriptions/x", "", "/"):
        assert not shared_ids.is_shared_reference(text)
