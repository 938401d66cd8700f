"""What the catalog is asked. A `Reader` is one transaction on one connection."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import (
    Connection,
    FromClause,
    Select,
    Table,
    and_,
    func,
    select,
)

from adapters.catalog import tables as t
from adapters.catalog.access import AccessQueries
from adapters.catalog.conditions import (
    beyond,
    find_definition,
    find_version,
    in_subscription,
    is_definition,
    is_gallery,
)
from adapters.catalog.resources import ResourceQueries
from pipeline.gallery.catalog import CatalogReader, Counts
from pipeline.gallery.documents import decode
from pipeline.gallery.model import (
    Channel,
    Deployment,
    Gallery,
    Identifier,
    ImageDefinition,
    ImageVersion,
    ResourceGroup,
    ScaleSet,
    Subscription,
    Tenant,
)
from pipeline.gallery.names import (
    DefinitionName,
    GalleryName,
    VersionName,
    VersionNumber,
    region_key,
)

T = TypeVar("T")

PAGE = 100  # versions that are fetched at a time, after the first


class Reader(AccessQueries, ResourceQueries):
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def gallery(self, name: GalleryName) -> Gallery | None:
        return self._one(Gallery, select(t.galleries.c.document).where(is_gallery(name)))

    def gallery_in_subscription(self, name: GalleryName) -> Gallery | None:
        return self._one(Gallery, select(t.galleries.c.document).where(in_subscription(name)))

    def galleries(self, subscription: str | None = None) -> list[Gallery]:
        query = select(t.galleries.c.document)
        if subscription is not None:
            query = query.where(t.galleries.c.subscription_key == subscription.lower())
        found = self._all(Gallery, query)
        return sorted(found, key=lambda item: item.name.name.lower())

    def definition(self, name: DefinitionName) -> ImageDefinition | None:
        found = self._connection.execute(find_definition(name)).first()
        return None if found is None else decode(ImageDefinition, found.document)

    def definitions(self, gallery: GalleryName) -> list[ImageDefinition]:
        query = select(t.definitions.c.document).select_from(t.definitions.join(t.galleries))
        query = query.where(is_gallery(gallery))
        # not ORDER BY: servers sort by their locale
        return sorted(self._all(ImageDefinition, query), key=lambda item: item.name.name.lower())

    def definition_identified(
        self, gallery: GalleryName, identifier: Identifier
    ) -> ImageDefinition | None:
        c = t.definitions.c
        query = select(c.document).select_from(t.definitions.join(t.galleries))
        publisher, offer, sku = identifier.key
        triple = and_(c.publisher_key == publisher, c.offer_key == offer, c.sku_key == sku)
        return self._one(ImageDefinition, query.where(is_gallery(gallery), triple))

    def version(self, name: VersionName) -> ImageVersion | None:
        rows = self._connection.execute(find_version(name)).all()
        return next(iter(self._assemble(rows)), None)

    def versions(
        self,
        definition: DefinitionName,
        *,
        start: VersionNumber | None = None,
        ascending: bool = False,
        deleted: bool | None = False,
    ) -> Iterator[ImageVersion]:
        found = self._connection.execute(find_definition(definition)).first()
        if found is None:
            return
        c = t.versions.c
        key = (c.major, c.minor, c.patch)
        query = select(c.id, c.document, *key).where(c.definition_id == found.id)
        if deleted is not None:
            query = query.where(c.soft_deleted == deleted)
        query = query.order_by(*(column.asc() if ascending else column.desc() for column in key))
        last = None if start is None else (start.major, start.minor, start.patch)
        size = 1  # `latest` mostly needs one
        while True:
            page = query if last is None else query.where(beyond(last, ascending=ascending))
            rows = self._connection.execute(page.limit(size)).all()
            yield from self._assemble(rows)
            if len(rows) < size:
                return
            last = (rows[-1].major, rows[-1].minor, rows[-1].patch)
            size = PAGE

    def count_versions(self, definition: DefinitionName, *, deleted: bool | None = None) -> int:
        query = select(func.count()).select_from(t.versions.join(t.definitions).join(t.galleries))
        query = query.where(is_definition(definition))
        if deleted is not None:
            query = query.where(t.versions.c.soft_deleted == deleted)
        return int(self._scalar(query))

    def counts(self, subscription: str, region: str) -> Counts:
        owned = t.galleries.c.subscription_key == subscription.lower()
        definitions = t.definitions.join(t.galleries)

        def count(table: Table, source: FromClause) -> int:
            here = table.c.region_key == region_key(region)
            return int(self._scalar(select(func.count()).select_from(source).where(owned, here)))

        return Counts(
            count(t.galleries, t.galleries),
            count(t.definitions, definitions),
            count(t.versions, t.versions.join(definitions)),
        )

    def channels(self, definition: DefinitionName) -> list[Channel]:
        query = select(t.channels.c.document).select_from(
            t.channels.join(t.definitions).join(t.galleries)
        )
        found = self._all(Channel, query.where(is_definition(definition)))
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

    def report(self, name: VersionName) -> Mapping[str, Any] | None:
        identity = self._version_id(name)
        query = select(t.version_reports.c.document)
        return self._document(query.where(t.version_reports.c.version_id == identity))

    def step(self, key: str) -> Mapping[str, Any] | None:
        return self._document(select(t.steps.c.output).where(t.steps.c.key == key))

    def deployments(self) -> list[Deployment]:
        found = self._all(Deployment, select(t.deployments.c.document))
        return sorted(found, key=lambda item: (item.name, item.directory))

    def scale_sets(self) -> list[ScaleSet]:
        found = self._all(ScaleSet, select(t.scale_sets.c.document))
        return sorted(found, key=lambda item: item.name)

    def _one(self, kind: type[T], query: Select[Any]) -> T | None:
        document = self._scalar(query)
        return None if document is None else decode(kind, document)

    def _all(self, kind: type[T], query: Select[Any]) -> list[T]:
        return [decode(kind, document) for document in self._connection.scalars(query)]

    def _scalar(self, query: Select[Any]) -> Any:
        return self._connection.scalar(query)

    def _document(self, query: Select[Any]) -> Mapping[str, Any] | None:
        document: Mapping[str, Any] | None = self._connection.scalar(query)
        return document

    def _version_id(self, name: VersionName) -> int | None:
        row = self._connection.execute(find_version(name)).first()
        return None if row is None else int(row.id)

    def _assemble(self, rows: Sequence[Any]) -> Iterator[ImageVersion]:
        """Versions of rows (id, document), with their regions and disks: two queries for all."""
        regions = self._parts(t.version_regions, rows)
        disks = self._parts(t.version_disks, rows)
        for row in rows:
            document = dict(row.document)
            document["targetRegions"] = [part.target for part in regions.get(row.id, ())]
            document["regions"] = [part.status for part in regions.get(row.id, ())]
            document["disks"] = [part.document for part in disks.get(row.id, ())]
            yield decode(ImageVersion, document)

    def _parts(self, table: Table, rows: Sequence[Any]) -> dict[int, list[Any]]:
        owner = table.c.version_id
        query = select(table).where(owner.in_([row.id for row in rows]))
        found: dict[int, list[Any]] = {}
        for part in self._connection.execute(query.order_by(owner, table.c.position)):
            found.setdefault(part.version_id, []).append(part)
        return found


_: type[CatalogReader] = Reader
