"""The queries of disks, snapshots and managed images."""

from sqlalchemy import Connection, and_, delete, insert, select
from sqlalchemy.sql import ColumnElement

from adapters.catalog.resource_tables import resources
from pipeline.gallery.documents import decode, encode
from pipeline.model.resource_names import ResourceKind, ResourceName
from pipeline.model.resources import KINDS, Resource
from pipeline.ports.resource_catalog import ResourceReader, ResourceWriter


class ResourceQueries:
    _connection: Connection

    def resource(self, name: ResourceName) -> Resource | None:
        query = select(resources.c.document).where(_is(name))
        document = self._connection.scalar(query)
        return None if document is None else decode(KINDS[name.kind], document)

    def resources(self, kind: ResourceKind) -> list[Resource]:
        query = select(resources.c.document).where(resources.c.kind == kind.value)
        found = [decode(KINDS[kind], document) for document in self._connection.scalars(query)]
        return sorted(found, key=lambda item: item.id.lower())


class ResourceChanges(ResourceQueries):
    def put_resource(self, resource: Resource) -> None:
        name = resource.name
        self.delete_resource(name)
        self._connection.execute(
            insert(resources).values(
                kind=name.kind.value,
                subscription_key=name.subscription.lower(),
                resource_group_key=name.resource_group.lower(),
                name_key=name.name.lower(),
                unique_id=resource.unique_id,
                document=encode(resource),
            )
        )

    def delete_resource(self, name: ResourceName) -> None:
        self._connection.execute(delete(resources).where(_is(name)))


def _is(name: ResourceName) -> ColumnElement[bool]:
    c = resources.c
    return and_(
        c.kind == name.kind.value,
        c.subscription_key == name.subscription.lower(),
        c.resource_group_key == name.resource_group.lower(),
        c.name_key == name.name.lower(),
    )


_reader: type[ResourceReader] = ResourceQueries
_writer: type[ResourceWriter] = ResourceChanges
