"""Galleries as those see them with whom they are shared: under another name, read-only, and only
what is meant for others."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from pipeline.errors import InvalidParameter, NotFound
from pipeline.gallery import rules
from pipeline.gallery.access.decide import gallery_key
from pipeline.gallery.access.shared_ids import (
    SharedReference,
    by_unique_name,
    parse_shared,
    unique_name,
)
from pipeline.gallery.access.subjects import Access
from pipeline.gallery.audited import AuditedCatalog
from pipeline.gallery.latest import latest, usable
from pipeline.model import Gallery, ImageDefinition, ImageVersion, SharingPermissions
from pipeline.model.access import Action
from pipeline.model.names import DefinitionName, Reference
from pipeline.model.sharing import Sharing
from pipeline.model.spelling import region_key
from pipeline.ports.catalog import CatalogReader

_GALLERY = {
    SharingPermissions.GROUPS: Action.SHARED_GALLERY_READ,
    SharingPermissions.COMMUNITY: Action.COMMUNITY_GALLERY_READ,
}
_DEFINITION = {
    SharingPermissions.GROUPS: Action.SHARED_DEFINITION_READ,
    SharingPermissions.COMMUNITY: Action.COMMUNITY_DEFINITION_READ,
}
_VERSION = {
    SharingPermissions.GROUPS: Action.SHARED_VERSION_READ,
    SharingPermissions.COMMUNITY: Action.COMMUNITY_VERSION_READ,
}


class SharedTo(Enum):
    """With what of the subject's something is shared."""

    TENANT = "tenant"
    SUBSCRIPTION = "subscription"


@dataclass(frozen=True, slots=True)
class SharedGallery:
    """A gallery under its shared name: the unique name, or the public one."""

    reference: SharedReference
    gallery: Gallery
    sharing: Sharing


@dataclass(frozen=True, slots=True)
class SharedPage:
    """Some of many galleries. `total` counts these and all that come after them; `following` is the
    name after which the next page begins, None of the last one."""

    galleries: tuple[SharedGallery, ...]
    total: int
    following: str | None


class SharedViews:
    """What is shared with one subject."""

    def __init__(self, catalog: AuditedCatalog, access: Access) -> None:
        self._catalog = catalog
        self._access = access

    def galleries(
        self,
        kind: SharingPermissions,
        *,
        location: str | None = None,
        through: SharedTo | None = None,
    ) -> list[SharedGallery]:
        """Those that are shared with the subject directly, or with everyone, in the order of their
        shared names; of one `location`, or shared with its tenants or subscriptions alone."""
        with self._catalog.read() as catalog:
            found = []
            for sharing in catalog.sharings():
                shares = {sharing.gallery.key: sharing}
                id = sharing.gallery.arm_id
                gallery = catalog.gallery(sharing.gallery)
                if (
                    gallery
                    and self._access.decide(_GALLERY[kind], id, shares).allowed
                    and (location is None or region_key(gallery.location) == region_key(location))
                    and (through is None or self._reached(sharing, through))
                ):
                    found.append(SharedGallery(_reference(sharing, kind), gallery, sharing))
        return sorted(found, key=lambda item: item.reference.name.lower())

    def page(
        self,
        kind: SharingPermissions,
        *,
        limit: int,
        after: str = "",
        location: str | None = None,
    ) -> SharedPage:
        """At most `limit` of those galleries, whose shared names come after a name."""
        found = self.galleries(kind, location=location)
        rest = [item for item in found if item.reference.name.lower() > after.lower()]
        more = len(rest) > limit
        page = tuple(rest[:limit])
        return SharedPage(page, len(rest), page[-1].reference.name if more else None)

    def _reached(self, sharing: Sharing, through: SharedTo) -> bool:
        subject = self._access.subject
        if through is SharedTo.TENANT:
            return bool(subject.tenants.intersection(sharing.tenants))
        return bool(subject.subscriptions.intersection(sharing.subscriptions))

    def gallery(self, text: str) -> SharedGallery:
        """The gallery that a shared id names, or is in."""
        wanted = parse_shared(text)
        with self._catalog.read() as catalog:
            sharing = _find(catalog, wanted)
            gallery = None if sharing is None else catalog.gallery(sharing.gallery)
        if sharing is None or gallery is None:
            self._hide(wanted)
        self._require(_GALLERY[wanted.kind], wanted, sharing)
        return SharedGallery(wanted, gallery, sharing)

    def definitions(self, text: str) -> list[ImageDefinition]:
        shared = self.gallery(text)
        with self._catalog.read() as catalog:
            return catalog.definitions(shared.gallery.name)

    def definition(self, text: str) -> ImageDefinition:
        shared = self.gallery(text)
        self._require(_DEFINITION[shared.reference.kind], shared.reference, shared.sharing)
        if shared.reference.definition is None:
            raise InvalidParameter(
                f"The shared id {text!r} names no image definition.",
                hint=f"{shared.reference.id}/Images/DEFINITION",
            )
        name = DefinitionName(shared.gallery.name, shared.reference.definition)
        with self._catalog.read() as catalog:
            return rules.existing(catalog.definition(name), text)

    def versions(self, text: str) -> list[ImageVersion]:
        """Newest first, those that can be used; of a community gallery the latest alone."""
        definition = self.definition(text)
        kind = parse_shared(text).kind
        with self._catalog.read() as catalog:
            if kind is SharingPermissions.COMMUNITY:
                newest = latest(catalog.versions(definition.name))
                return [] if newest is None else [newest]
            return [item for item in catalog.versions(definition.name) if usable(item)]

    def resolve(
        self, text: str, find: Callable[[CatalogReader, Reference], ImageVersion]
    ) -> ImageVersion:
        """The version that a shared id names; `find` looks up the real one. From then on, what is
        resolved may be read by the job that resolved it. Errors name the shared id alone."""
        shared = self.gallery(text)
        definition = self.definition(text)
        self._require(_VERSION[shared.reference.kind], shared.reference, shared.sharing)
        try:
            with self._catalog.read() as catalog:
                version = find(catalog, Reference(definition.name, shared.reference.number))
        except NotFound as error:
            raise NotFound(
                f"There is no image version that can be used for '{text}'.",
                hint="it is there only in the regions that its publisher chose",
                code=error.reason,
            ) from None
        self._access.view(definition.name)
        return version

    def _require(self, action: Action, wanted: SharedReference, sharing: Sharing) -> None:
        id = sharing.gallery.arm_id
        decision = self._access.decide(action, id, {gallery_key(id): sharing})
        if not decision.allowed:
            self._hide(wanted, action, decision.reason)

    def _hide(
        self, wanted: SharedReference, action: Action | None = None, reason: str = ""
    ) -> NoReturn:
        """What is not shared with the subject is not there, whether it is or not."""
        action = action or _GALLERY[wanted.kind]
        self._access.record(action, wanted.id, reason or "no such gallery, or not shared")
        raise NotFound(f"The resource '{wanted.id}' was not found.", code="ResourceNotFound")


def _reference(sharing: Sharing, kind: SharingPermissions) -> SharedReference:
    if kind is SharingPermissions.COMMUNITY and sharing.community is not None:
        return SharedReference(kind, sharing.community.public_name)
    return SharedReference(kind, unique_name(sharing.gallery))


def _find(catalog: CatalogReader, wanted: SharedReference) -> Sharing | None:
    if wanted.kind is SharingPermissions.COMMUNITY:
        return catalog.sharing_by_public_name(wanted.name)
    gallery = catalog.gallery_in_subscription(by_unique_name(wanted.name))
    return None if gallery is None else catalog.sharing(gallery.name)
