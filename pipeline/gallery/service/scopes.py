"""Tenants, subscriptions and resource groups. The default tenant and subscription, and in each
subscription the default resource group, are there without being made."""

from collections.abc import Mapping
from datetime import UTC, datetime

from pipeline.gallery import rules
from pipeline.gallery.access.subjects import OfTenant
from pipeline.gallery.service.base import Operations
from pipeline.model import ResourceGroup, Subscription, Tenant
from pipeline.model.access import ROOT, Action
from pipeline.model.names import (
    DEFAULT_RESOURCE_GROUP,
    DEFAULT_SUBSCRIPTION,
    DEFAULT_TENANT,
    GalleryName,
)
from pipeline.model.spelling import check_resource_group, check_subscription, check_tenant
from pipeline.ports.catalog import CatalogReader

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
DEFAULT = Subscription(DEFAULT_SUBSCRIPTION, "default", _EPOCH)
HOME = Tenant(DEFAULT_TENANT, "default", _EPOCH)


class Scopes(Operations):
    def create_tenant(self, identity: str, display_name: str = "") -> Tenant:
        """Make a tenant, or change the name of one."""
        with self._access.write(Action.TENANT_WRITE, ROOT) as (catalog, changes):
            identity = check_tenant(identity)
            old = _tenant(catalog, identity)
            name = display_name or (old.display_name if old else identity)
            made = Tenant(identity, name, old.created if old else self._clock())
            changes.put_tenant(made)
            return made

    def get_tenant(self, identity: str) -> Tenant:
        with self._access.read(Action.TENANT_READ, OfTenant(identity)) as catalog:
            return rules.known_tenant(_tenant(catalog, identity), identity)

    def list_tenants(self) -> list[Tenant]:
        """Those that the caller belongs to, or may read."""
        found = self._access.visible(Action.TENANT_READ, _tenants, lambda item: OfTenant(item.id))
        return list(found)

    def delete_tenant(self, identity: str) -> None:
        """One that has no subscriptions."""
        with self._access.write(Action.TENANT_WRITE, ROOT) as (catalog, changes):
            found = rules.known_tenant(_tenant(catalog, identity), identity)
            members = catalog.subscriptions()
            rules.deletable(found.arm_id, [s.arm_id for s in members if s.tenant == found.id])
            changes.delete_tenant(found)

    def get_subscription(self, identity: str) -> Subscription:
        """One that the caller may see something in."""
        id = f"/subscriptions/{identity}"
        if not self._access.sees(id):
            self._access.require(Action.SUBSCRIPTION_READ, id)
        found = self._access.visible(
            Action.SUBSCRIPTION_READ,
            lambda catalog: filter(None, [_subscription(catalog, identity)]),
            lambda item: item.arm_id,
            parts=True,
        )
        return rules.known_subscription(next(found, None), identity)

    def create_subscription(
        self, identity: str, display_name: str = "", tenant: str = DEFAULT_TENANT
    ) -> Subscription:
        """Make a subscription in a tenant, or change the name of one; its tenant stays."""
        with self._access.write(Action.SUBSCRIPTION_WRITE, ROOT) as (catalog, changes):
            identity, tenant = check_subscription(identity), check_tenant(tenant)
            rules.known_tenant(_tenant(catalog, tenant), tenant)
            old = _subscription(catalog, identity)
            made = Subscription(
                identity,
                display_name or (old.display_name if old else identity),
                old.created if old else self._clock(),
                tenant,
            )
            rules.subscription_put(made, old)
            changes.put_subscription(made)
            return made

    def list_subscriptions(self) -> list[Subscription]:
        """Those that the caller may see something in."""
        found = self._access.visible(
            Action.SUBSCRIPTION_READ,
            _subscriptions,
            lambda item: item.arm_id,
            parts=True,
        )
        return list(found)

    def delete_subscription(self, identity: str) -> None:
        """One that has no galleries and no resource groups."""
        with self._access.write(Action.SUBSCRIPTION_WRITE, ROOT) as (catalog, changes):
            found = rules.known_subscription(_subscription(catalog, identity), identity)
            nested = [item.arm_id for item in catalog.resource_groups(found.id)]
            nested += [item.name.arm_id for item in catalog.galleries(found.id)]
            rules.deletable(found.arm_id, nested)
            changes.delete_subscription(found)

    def create_resource_group(
        self,
        subscription: str,
        name: str,
        location: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ResourceGroup:
        """Make a resource group, without a location in the source region, or change the tags of
        one."""
        id = f"/subscriptions/{subscription}/resourceGroups/{name}"
        with self._access.write(Action.GROUP_WRITE, id) as (catalog, changes):
            region = rules.known_region(
                location or self._source_region,
                self._regions,
                kind="resourceGroups",
                provider="Microsoft.Resources",
            )
            check_resource_group(name)
            rules.known_subscription(_subscription(catalog, subscription), subscription)
            old = _resource_group(catalog, subscription, name)
            group = ResourceGroup(
                subscription.lower(),
                old.name if old else name,
                region.name,
                old.created if old else self._clock(),
                tags or {},
            )
            rules.resource_group_put(group, old)
            changes.put_resource_group(group)
            return group

    def get_resource_group(self, subscription: str, name: str) -> ResourceGroup:
        """One that was made, or the default one."""
        id = f"/subscriptions/{subscription}/resourceGroups/{name}"
        with self._access.read(Action.GROUP_READ, id) as catalog:
            rules.known_subscription(_subscription(catalog, subscription), subscription)
            found = _resource_group(catalog, subscription, name)
            if found is None and name.lower() == DEFAULT_RESOURCE_GROUP:
                home = self._source_region
                return ResourceGroup(subscription, DEFAULT_RESOURCE_GROUP, home, _EPOCH)
            return rules.known_resource_group(found, name)

    def list_resource_groups(self, subscription: str) -> list[ResourceGroup]:
        """Those that were made."""
        id = f"/subscriptions/{subscription}"
        with self._access.read(Action.GROUP_READ, id) as catalog:
            rules.known_subscription(_subscription(catalog, subscription), subscription)
            return catalog.resource_groups(subscription)

    def delete_resource_group(self, subscription: str, name: str) -> None:
        """One that has no galleries."""
        id = f"/subscriptions/{subscription}/resourceGroups/{name}"
        with self._access.write(Action.GROUP_DELETE, id) as (catalog, changes):
            group = rules.known_resource_group(_resource_group(catalog, subscription, name), name)
            nested = [
                item.name.arm_id
                for item in catalog.galleries(group.subscription)
                if item.name.resource_group.lower() == name.lower()
            ]
            rules.deletable(group.arm_id, nested)
            changes.delete_resource_group(group)


def check_scope(catalog: CatalogReader, name: GalleryName) -> None:
    """Whether a gallery's subscription and resource group are there."""
    subscription, group = name.subscription, name.resource_group
    rules.known_subscription(_subscription(catalog, subscription), subscription)
    if group.lower() != DEFAULT_RESOURCE_GROUP:
        rules.known_resource_group(_resource_group(catalog, subscription, group), group)


def _tenants(catalog: CatalogReader) -> list[Tenant]:
    made = catalog.tenants()
    return made if any(item.id == HOME.id for item in made) else [HOME, *made]


def _subscriptions(catalog: CatalogReader) -> list[Subscription]:
    made = catalog.subscriptions()
    return made if any(item.id == DEFAULT.id for item in made) else [DEFAULT, *made]


def _tenant(catalog: CatalogReader, identity: str) -> Tenant | None:
    found = (item for item in catalog.tenants() if item.id == identity.lower())
    return next(found, HOME if identity == DEFAULT_TENANT else None)


def _subscription(catalog: CatalogReader, identity: str) -> Subscription | None:
    found = (item for item in catalog.subscriptions() if item.id == identity.lower())
    return next(found, DEFAULT if identity == DEFAULT_SUBSCRIPTION else None)


def _resource_group(catalog: CatalogReader, subscription: str, name: str) -> ResourceGroup | None:
    groups = catalog.resource_groups(subscription)
    return next((item for item in groups if item.name.lower() == name.lower()), None)
