"""What the catalog is asked. A `Reader` is one transaction on one connection."""

from collections.abc import Mapping
from typing import Any, TypeVar

from sqlalchemy import Connection, FromClause, Select, Table, and_, bindparam, func, select

from adapters.catalog import tables as t
from adapters.catalog.access import AccessQueries
from adapters.catalog.conditions import (
    DEFINITIONS,
    IN_SUBSCRIPTION,
    IS_DEFINITION,
    IS_GALLERY,
    VERSIONS,
    definition_keys,
    gallery_keys,
)
from adapters.catalog.resources import ResourceQueries
from adapters.catalog.runs import RunQueries
from adapters.catalog.versions import VersionQueries
from pipeline.gallery.documents import decode
from pipeline.model import (
    Channel,
    Deployment,
    Gallery,
    Identifier,
    ImageDefinition,
    ResourceGroup,
    ScaleSet,
    Subscription,
    Tenant,
)
from pipeline.model.names import DefinitionName, GalleryName
from pipeline.model.scrubs import ScrubRecord
from pipeline.model.spelling import region_key
from pipeline.ports.catalog import CatalogReader, Counts

T = TypeVar("T")

_GALLERY = select(t.galleries.c.document)
_DEFINITION = select(t.definitions.c.id, t.definitions.c.document).select_from(DEFINITIONS)
_IDENTIFIED = and_(
    t.definitions.c.publisher_key == bindparam("publisher"),
    t.definitions.c.offer_key == bindparam("offer"),
    t.definitions.c.sku_key == bindparam("sku"),
)


def _owned(table: Table, source: FromClause) -> Any:
    """How many rows of a table a subscription has in a region."""
    owner = t.galleries.c.subscription_key == bindparam("in_subscription")
    here = table.c.region_key == bindparam("in_region")
    return select(func.count()).select_from(source).where(owner, here).scalar_subquery()


# one statement for every question that a publication asks: see `conditions`
_GALLERY_NAMED = _GALLERY.where(IS_GALLERY)
_GALLERY_IN_SUBSCRIPTION = _GALLERY.where(IN_SUBSCRIPTION)
_DEFINITION_NAMED = _DEFINITION.where(IS_DEFINITION)
_DEFINITIONS_OF = _DEFINITION.where(IS_GALLERY)
_DEFINITION_IDENTIFIED = _DEFINITION.where(IS_GALLERY, _IDENTIFIED)
_COUNTS = select(
    _owned(t.galleries, t.galleries),
    _owned(t.definitions, DEFINITIONS),
    _owned(t.versions, VERSIONS),
)
_CHANNELS = (
    select(t.channels.c.document).select_from(t.channels.join(DEFINITIONS)).where(IS_DEFINITION)
)


class Reader(VersionQueries, AccessQueries, ResourceQueries, RunQueries):
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def gallery(self, name: GalleryName) -> Gallery | None:
        return self._one(Gallery, _GALLERY_NAMED, gallery_keys(name))

    def gallery_in_subscription(self, name: GalleryName) -> Gallery | None:
        return self._one(Gallery, _GALLERY_IN_SUBSCRIPTION, gallery_keys(name))

    def galleries(self, subscription: str | None = None) -> list[Gallery]:
        query = select(t.galleries.c.document)
        if subscription is not None:
            query = query.where(t.galleries.c.subscription_key == subscription.lower())
        found = self._all(Gallery, query)
        return sorted(found, key=lambda item: item.name.name.lower())

    def definition(self, name: DefinitionName) -> ImageDefinition | None:
        row = self._definition_row(name)
        return None if row is None else decode(ImageDefinition, row.document)

    def definitions(self, gallery: GalleryName) -> list[ImageDefinition]:
        rows = self._connection.execute(_DEFINITIONS_OF, gallery_keys(gallery))
        found = [decode(ImageDefinition, row.document) for row in rows]
        # not ORDER BY: servers sort by their locale
        return sorted(found, key=lambda item: item.name.name.lower())

    def definition_identified(
        self, gallery: GalleryName, identifier: Identifier
    ) -> ImageDefinition | None:
        triple = dict(zip(("publisher", "offer", "sku"), identifier.key, strict=True))
        keys = {**gallery_keys(gallery), **triple}
        row = self._connection.execute(_DEFINITION_IDENTIFIED, keys).first()
        return None if row is None else decode(ImageDefinition, row.document)

    def counts(self, subscription: str, region: str) -> Counts:
        keys = {"in_subscription": subscription.lower(), "in_region": region_key(region)}
        return Counts(*self._connection.execute(_COUNTS, keys).one())

    def channels(self, definition: DefinitionName) -> list[Channel]:
        found = self._all(Channel, _CHANNELS, definition_keys(definition))
        return sorted(found, key=lambda item: item.name)

    def tenants(self) -> list[Tenant]:
        found = self._all(Tenant, select(t.tenants.c.document))
        return sorted(found, key=lambda item: item.id)

    def subscriptions(self) -> list[Subscription]:
        found = self._all(Subscription, select(t.subscriptions.c.document))
        return sorted(found, key=lambda item: item.id)

    def resource_groups(self, subscription: str) -> list[ResourceGroup]:
        c = t.resource_groups.c
        query = select(c.document).where(c.subscription_key == subscription.lower())
        return sorted(self._all(ResourceGroup, query), key=lambda item: item.name.lower())

    def deployments(self) -> list[Deployment]:
        found = self._all(Deployment, select(t.deployments.c.document))
        return sorted(found, key=lambda item: (item.name, item.directory))

    def scale_sets(self) -> list[ScaleSet]:
        found = self._all(ScaleSet, select(t.scale_sets.c.document))
        return sorted(found, key=lambda item: item.name)

    def scrubs(self) -> list[ScrubRecord]:
        found = self._all(ScrubRecord, select(t.scrubs.c.document))
        return sorted(found, key=lambda item: (item.zone, item.subject))

    def _one(self, kind: type[T], query: Select[Any], keys: Mapping[str, Any]) -> T | None:
        document = self._connection.scalar(query, keys)
        return None if document is None else decode(kind, document)

    def _all(
        self, kind: type[T], query: Select[Any], keys: Mapping[str, Any] | None = None
    ) -> list[T]:
        return [decode(kind, document) for document in self._connection.scalars(query, keys)]

    def _definition_row(self, name: DefinitionName) -> Any:
        return self._connection.execute(_DEFINITION_NAMED, definition_keys(name)).first()


_: type[CatalogReader] = Reader
