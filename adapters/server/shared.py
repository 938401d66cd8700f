"""Sharing: with whom a gallery is shared, and galleries as those see them with whom they are."""

from collections.abc import Callable

from adapters.server.calls import Answer, Call, Operation, page
from pipeline.errors import InvalidParameter
from pipeline.gallery import rules
from pipeline.gallery.access.views import SharedGallery, SharedTo
from pipeline.gallery.arm import shared
from pipeline.gallery.arm.shared import GroupType, SharingOperation
from pipeline.model import SharingPermissions
from pipeline.model.names import parse_number
from pipeline.model.spelling import region_key

PLACES = {
    SharingPermissions.GROUPS: "SharedGalleries",
    SharingPermissions.COMMUNITY: "CommunityGalleries",
}


def share(call: Call) -> Answer:
    """Answered with what was asked, as Azure does."""
    wanted, grants = shared.read_sharing(call.body), call.session.grants
    groups = wanted.ids(GroupType.SUBSCRIPTIONS), wanted.ids(GroupType.TENANTS)
    match wanted.operation_type:
        case SharingOperation.ADD:
            grants.share_with(call.gallery, *groups)
        case SharingOperation.REMOVE:
            grants.unshare_with(call.gallery, *groups)
        case SharingOperation.RESET:
            grants.reset(call.gallery)
        case SharingOperation.ENABLE_COMMUNITY:
            grants.enable_community(call.gallery)
    return Answer(call.body)


def list_shared(call: Call) -> Answer:
    """Those of a region that are shared with the caller's subscriptions, or tenants."""
    to = call.query.get("sharedTo")
    if to is not None and to.lower() != SharedTo.TENANT.value:
        raise InvalidParameter(f"The value {to!r} of parameter sharedTo is not valid: 'tenant'.")
    found = call.session.views.galleries(
        SharingPermissions.GROUPS,
        location=call.path["location"],
        through=SharedTo.SUBSCRIPTION if to is None else SharedTo.TENANT,
    )
    return page(call, found, lambda item: item.reference.name.lower(), shared.gallery)


def query(call: Call) -> Answer:
    """The community galleries, as Resource Graph lists them."""
    wanted = shared.read_query(call.body)
    found = call.session.views.page(
        SharingPermissions.COMMUNITY,
        limit=wanted.top,
        after=wanted.after,
        location=wanted.location,
    )
    rows = [shared.row(item) for item in found.galleries]
    answer = {
        "totalRecords": found.total,
        "count": len(rows),
        "resultTruncated": "false" if found.following is None else "true",
        "facets": [],
        "data": rows,
    }
    if found.following is not None:
        answer["$skipToken"] = found.following
    return Answer(answer)


def views(kind: SharingPermissions) -> dict[str, Operation]:
    """What is seen of shared galleries of a kind, by the path below them."""

    def gallery(call: Call) -> Answer:
        return Answer(shared.gallery(_gallery(call)))

    def definitions(call: Call) -> Answer:
        found = _gallery(call)
        items = call.session.views.definitions(found.reference.id)
        return page(
            call, items, lambda item: item.name.key, lambda item: shared.definition(item, found)
        )

    def definition(call: Call) -> Answer:
        item = call.session.views.definition(_definition(call))
        return Answer(shared.definition(item, _gallery(call)))

    def versions(call: Call) -> Answer:
        found = _gallery(call)
        items = call.session.views.versions(_definition(call))
        ordered = sorted(items, key=lambda item: _key(str(item.number)))
        return page(
            call, ordered, lambda item: _key(str(item.number)), lambda i: shared.version(i, found)
        )

    def version(call: Call) -> Answer:
        item = call.session.gallery.resolve(f"{_definition(call)}/Versions/{call.path['version']}")
        return Answer(shared.version(item, _gallery(call)))

    def _gallery(call: Call) -> SharedGallery:
        found = call.session.views.gallery(f"/{PLACES[kind]}/{call.path['name']}")
        here = region_key(found.gallery.location) == region_key(call.path["location"])
        return rules.existing(found if here else None, found.reference.id)

    def _definition(call: Call) -> str:
        return f"{_gallery(call).reference.id}/Images/{call.path['definition']}"

    below: dict[str, Callable[[Call], Answer]] = {
        "": gallery,
        "/images": definitions,
        "/images/{definition}": definition,
        "/images/{definition}/versions": versions,
        "/images/{definition}/versions/{version}": version,
    }
    return below


def _key(number: str) -> str:
    """A version's number as a text that sorts as numbers do."""
    found = parse_number(number)
    return ".".join(f"{part:010d}" for part in (found.major, found.minor, found.patch))
