"""What changes the catalog. A `Writer` is one transaction on one connection."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import Connection, Table, Update, and_, bindparam, delete, insert, select, update

from adapters.catalog import tables as t
from adapters.catalog.access import AccessChanges
from adapters.catalog.conditions import IS_GALLERY, gallery_keys
from adapters.catalog.queries import Reader
from adapters.catalog.resources import ResourceChanges
from adapters.catalog.runs import RunChanges
from adapters.catalog.versions import VersionChanges
from pipeline.gallery import rules
from pipeline.gallery.documents import encode
from pipeline.model import (
    Channel,
    Deployment,
    Gallery,
    ImageDefinition,
    ResourceGroup,
    ScaleSet,
    Subscription,
    Tenant,
)
from pipeline.model.names import DefinitionName, GalleryName
from pipeline.model.scrubs import ScrubRecord
from pipeline.model.spelling import region_key
from pipeline.ports.catalog import CatalogWriter

_GALLERY_ID = select(t.galleries.c.id).where(IS_GALLERY)


class Writer(Reader, VersionChanges, AccessChanges, ResourceChanges, RunChanges):
    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._known = {}

    def put_gallery(self, gallery: Gallery) -> None:
        name = gallery.name
        where = {
            "subscription_key": name.subscription.lower(),
            "resource_group_key": name.resource_group.lower(),
            "name_key": name.name.lower(),
        }
        values = {"document": encode(gallery), "region_key": region_key(gallery.location)}
        self._put(t.galleries, where, values)

    def delete_gallery(self, name: GalleryName) -> None:
        self._connection.execute(delete(t.galleries).where(IS_GALLERY), gallery_keys(name))
        self.forget_roles(name.arm_id)

    def put_definition(self, definition: ImageDefinition) -> None:
        parent = definition.name.gallery
        gallery_id = self._connection.scalar(_GALLERY_ID, gallery_keys(parent))
        where = {
            "gallery_id": rules.parent(gallery_id, parent),
            "name_key": definition.name.name.lower(),
        }
        publisher, offer, sku = definition.identifier.key
        values = {"publisher_key": publisher, "offer_key": offer, "sku_key": sku}
        values["region_key"] = region_key(definition.location)
        self._put(t.definitions, where, values | {"document": encode(definition)})

    def delete_definition(self, name: DefinitionName) -> None:
        row = self._definition_row(name)
        if row is not None:
            self._connection.execute(delete(t.definitions).where(t.definitions.c.id == row.id))
            self.forget_roles(name.arm_id)

    def put_channel(self, channel: Channel) -> None:
        row = self._definition_row(channel.definition)
        identity = rules.parent(row, channel.definition).id
        where = {"definition_id": identity, "name_key": channel.name.lower()}
        self._put(t.channels, where, {"document": encode(channel)})

    def delete_channel(self, channel: Channel) -> None:
        row = self._definition_row(channel.definition)
        if row is not None:
            c = t.channels.c
            condition = and_(c.definition_id == row.id, c.name_key == channel.name.lower())
            self._connection.execute(delete(t.channels).where(condition))

    def put_tenant(self, tenant: Tenant) -> None:
        self._put(t.tenants, {"tenant_key": tenant.id}, {"document": encode(tenant)})

    def delete_tenant(self, tenant: Tenant) -> None:
        mine = t.tenants.c.tenant_key == tenant.id
        self._connection.execute(delete(t.tenants).where(mine))

    def put_subscription(self, subscription: Subscription) -> None:
        where = {"subscription_key": subscription.id.lower()}
        self._put(t.subscriptions, where, {"document": encode(subscription)})

    def delete_subscription(self, subscription: Subscription) -> None:
        mine = t.subscriptions.c.subscription_key == subscription.id.lower()
        self._connection.execute(delete(t.subscriptions).where(mine))
        self.forget_roles(subscription.arm_id)

    def put_resource_group(self, group: ResourceGroup) -> None:
        where = {
            "subscription_key": group.subscription.lower(),
            "name_key": group.name.lower(),
        }
        self._put(t.resource_groups, where, {"document": encode(group)})

    def delete_resource_group(self, group: ResourceGroup) -> None:
        c = t.resource_groups.c
        condition = and_(
            c.subscription_key == group.subscription.lower(), c.name_key == group.name.lower()
        )
        self._connection.execute(delete(t.resource_groups).where(condition))
        self.forget_roles(group.arm_id)

    def put_deployment(self, deployment: Deployment) -> None:
        where = {"name": deployment.name, "directory": deployment.directory}
        values = {"version_uid": deployment.version_uid, "document": encode(deployment)}
        self._put(t.deployments, where, values)

    def delete_deployment(self, deployment: Deployment) -> None:
        c = t.deployments.c
        one = and_(c.name == deployment.name, c.directory == deployment.directory)
        self._connection.execute(delete(t.deployments).where(one))

    def put_scale_set(self, scale_set: ScaleSet) -> None:
        self._put(t.scale_sets, {"name": scale_set.name}, {"document": encode(scale_set)})

    def delete_scale_set(self, scale_set: ScaleSet) -> None:
        self._connection.execute(delete(t.scale_sets).where(t.scale_sets.c.name == scale_set.name))

    def put_scrub(self, record: ScrubRecord) -> None:
        where = {"zone": record.zone, "subject": record.subject}
        self._put(t.scrubs, where, {"document": encode(record)})

    def delete_scrub(self, zone: str, subject: str) -> None:
        c = t.scrubs.c
        one = and_(c.zone == zone, c.subject == subject)
        self._connection.execute(delete(t.scrubs).where(one))

    def _put(self, table: Table, where: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Insert or update. Writers are alone, so nothing comes between the two."""
        keys = {f"is_{name}": value for name, value in where.items()}
        changed = self._connection.execute(_change(table, tuple(where)), {**keys, **values})
        if changed.rowcount == 0:
            self._connection.execute(insert(table), {**where, **values})


@cache
def _change(table: Table, names: tuple[str, ...]) -> Update:
    return update(table).where(*(table.c[name] == bindparam(f"is_{name}") for name in names))


_: type[CatalogWriter] = Writer
