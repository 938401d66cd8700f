"""Sharing a gallery beyond roles: with whole subscriptions and tenants, or with everyone.

Pure: what a sharing profile may become, and what a shared gallery may hold. Facts and limits are
those of Azure Compute Gallery's direct shared galleries and community galleries.
"""

import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pipeline.errors import Conflict, InvalidParameter, NotFound, Refused
from pipeline.gallery.rules import features
from pipeline.model import Gallery, ImageDefinition, SharingPermissions
from pipeline.model.sharing import Community, Sharing
from pipeline.model.spelling import check_subscription, check_tenant, region_key

MAX_SUBSCRIPTIONS = 30
MAX_TENANTS = 5

_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")
_URI = re.compile(r"https?://[^\s/]+\S*")
_PREFIX = re.compile(r"[A-Za-z0-9]{1,40}")
_EULA_LENGTH = 2048


# --- what a profile may become ------------------------------------------------------------------


def add(sharing: Sharing, subscriptions: Iterable[str], tenants: Iterable[str]) -> Sharing:
    """Share with more subscriptions and tenants; those that have it already count once."""
    _expect(sharing, SharingPermissions.GROUPS, "be shared with subscriptions and tenants")
    more = _checked(subscriptions, tenants)
    _some(*more)
    result = replace(
        sharing,
        subscriptions=tuple(dict.fromkeys((*sharing.subscriptions, *more[0]))),
        tenants=tuple(dict.fromkeys((*sharing.tenants, *more[1]))),
    )
    for found, limit, what in (
        (result.subscriptions, MAX_SUBSCRIPTIONS, "subscriptions"),
        (result.tenants, MAX_TENANTS, "tenants"),
    ):
        if len(found) > limit:
            raise InvalidParameter(
                f"The gallery '{sharing.gallery}' can be shared with {limit} {what} at most: this "
                f"would make {len(found)}."
            )
    return result


def remove(sharing: Sharing, subscriptions: Iterable[str], tenants: Iterable[str]) -> Sharing:
    """Stop sharing with some. One with whom it is not shared is an error: a mistyped id must not
    look revoked."""
    _expect(sharing, SharingPermissions.GROUPS, "be shared with subscriptions and tenants")
    gone = _checked(subscriptions, tenants)
    _some(*gone)
    for wanted, there in zip(gone, (sharing.subscriptions, sharing.tenants), strict=True):
        for item in wanted:
            if item not in there:
                raise NotFound(
                    f"The gallery '{sharing.gallery}' is not shared with '{item}'.",
                    hint="galleria share show lists with whom it is shared",
                )
    return replace(
        sharing,
        subscriptions=tuple(item for item in sharing.subscriptions if item not in gone[0]),
        tenants=tuple(item for item in sharing.tenants if item not in gone[1]),
    )


def reset(sharing: Sharing) -> Sharing:
    """Shared with nobody, public for nobody. A community gallery gets another public name when it
    is enabled again."""
    community = sharing.community and replace(sharing.community, public_name="")
    return replace(sharing, subscriptions=(), tenants=(), community=community)


def describe(sharing: Sharing, community: Community) -> Sharing:
    """Say how a community gallery presents itself; only while it is not public."""
    _expect(sharing, SharingPermissions.COMMUNITY, "be a community gallery")
    for what, value, pattern, form in (
        ("publicNamePrefix", community.public_name_prefix, _PREFIX, "1 to 40 letters and digits"),
        ("publisherContact", community.publisher_contact, _EMAIL, "an e-mail address"),
        ("publisherUri", community.publisher_uri, _URI, "an http or https URI"),
    ):
        if not pattern.fullmatch(value):
            raise InvalidParameter(
                f"The value {value!r} of property 'communityGalleryInfo.{what}' is not valid: "
                f"expected {form}.",
                plain=f"{what}: {value!r} is not {form}",
            )
    length = len(community.eula.strip())
    if not 0 < length <= _EULA_LENGTH:
        raise InvalidParameter(
            "The property 'communityGalleryInfo.eula' is not valid: expected a text or a URI of "
            f"1 to {_EULA_LENGTH} characters.",
            plain=f"eula: it has {length} characters, a text or a URI of 1 to {_EULA_LENGTH} is "
            "needed",
        )
    if sharing.is_public:
        raise Conflict(
            f"The gallery '{sharing.gallery}' is public: what it says of itself can't be changed.",
            hint="galleria share reset makes it private again",
            code="OperationNotAllowed",
        )
    return replace(sharing, community=replace(community, public_name=""))


def enable_community(sharing: Sharing, unique: uuid.UUID) -> Sharing:
    """Make it public, under its prefix and `unique`. One that is public stays as it is."""
    _expect(sharing, SharingPermissions.COMMUNITY, "be a community gallery")
    if sharing.community is None:
        raise InvalidParameter(
            f"The gallery '{sharing.gallery}' does not name its publisher yet.",
            hint="give --publisher-uri, --publisher-email, --eula and --public-name-prefix",
        )
    if sharing.is_public:
        return sharing
    name = f"{sharing.community.public_name_prefix}-{unique}"
    return replace(sharing, community=replace(sharing.community, public_name=name))


def change_permissions(sharing: Sharing, permissions: SharingPermissions) -> Sharing:
    """What kind of gallery it is; only while it is shared with nobody."""
    if permissions is not sharing.permissions and sharing.is_shared:
        raise Conflict(
            f"The gallery '{sharing.gallery}' is shared ({sharing.permissions.value}): its "
            "permissions can't be changed.",
            hint="galleria share reset first",
            code="OperationNotAllowed",
        )
    return replace(sharing, permissions=permissions)


def deletable(sharing: Sharing | None) -> None:
    """A public gallery is taken back before it is deleted: others rely on it."""
    if sharing is not None and sharing.is_public:
        raise Conflict(
            f"The gallery '{sharing.gallery}' is a community gallery: it has to be reset before it "
            "is deleted.",
            hint=f"galleria share reset {sharing.gallery}",
            code="OperationNotAllowed",
        )


def _expect(sharing: Sharing, wanted: SharingPermissions, what: str) -> None:
    if sharing.permissions is not wanted:
        raise Conflict(
            f"The gallery '{sharing.gallery}' can't {what}: its permissions are "
            f"{sharing.permissions.value}, not {wanted.value}.",
            hint=f"galleria share set-permissions {sharing.gallery} {wanted.value}",
            code="OperationNotAllowed",
        )


def _checked(
    subscriptions: Iterable[str], tenants: Iterable[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(map(check_subscription, subscriptions)), tuple(map(check_tenant, tenants))


def _some(subscriptions: Sequence[str], tenants: Sequence[str]) -> None:
    if not subscriptions and not tenants:
        raise InvalidParameter(
            "Neither a subscription nor a tenant is given.",
            hint="give --subscription-ids, --tenant-ids or both",
        )


# --- what a shared gallery may hold -------------------------------------------------------------


def may_hold_definition(
    permissions: SharingPermissions, gallery: Gallery, definition: ImageDefinition
) -> None:
    """Refuse what only a private gallery may hold."""
    if permissions is SharingPermissions.PRIVATE:
        return
    security = features.security_type(definition)
    if security in features.PRIVATE_ONLY:
        raise Refused(
            f"The image definition '{definition.name}' has SecurityType {security}: only a Private "
            f"gallery may hold it, and '{gallery.name}' is to be {permissions.value}."
        )
    if permissions is SharingPermissions.COMMUNITY:
        _home(definition.name, definition.location, gallery, permissions)
        if definition.purchase_plan is not None:
            raise Refused(
                f"The image definition '{definition.name}' has a purchase plan: a community "
                "gallery can't hold images with one."
            )


def may_hold_version(
    permissions: SharingPermissions, gallery: Gallery, name: object, location: str
) -> None:
    """A shared version has its home in its gallery's region."""
    if permissions is not SharingPermissions.PRIVATE:
        _home(name, location, gallery, permissions)


def _home(name: object, location: str, gallery: Gallery, permissions: SharingPermissions) -> None:
    if region_key(location) != region_key(gallery.location):
        raise Refused(
            f"'{name}' has its home in '{location}', and its gallery '{gallery.name}' in "
            f"'{gallery.location}': in a {permissions.value} gallery both must be the same.",
            hint="publish it with the gallery's region as --location, and replicate it to others",
        )
