"""Subscriptions and resource groups. The default subscription, and in each subscription the
default resource group, are there without being made."""

from collections.abc import Mapping
from datetime import UTC, datetime

from pipeline.gallery import rules
from pipeline.gallery.catalog import CatalogReader
from pipeline.gallery.model import ResourceGroup, Subscription
from pipeline.gallery.names import (
    DEFAULT_RESOURCE_GROUP,
    DEFAULT_SUBSCRIPTION,
    DEFAULT_TENANT,
    GalleryName,
    check_resource_group,
    check_subscription,
)
from pipeline.gallery.service.base import Operations

DEFAULT = Subscription(DEFAULT_SUBSCRIPTION, "default", datetime(2026, 1, 1, tzinfo=UTC))


class Scopes(Operations):
    def create_subscription(
        self, identity: str, display_name: str = "", tenant: str = DEFAULT_TENANT
    ) -> Subscription:
        """Make a subscription, or change the name of one; its tenant stays."""
        identity, tenant = check_subscription(identity), check_subscription(tenant)
        with self._catalog.write() as catalog:
            old = _subscription(catalog, identity)
            made = Subscription(
                identity,
                display_name or (old.display_name if old else identity),
                old.created if old else self._clock(),
                tenant,
            )
            rules.subscription_put(made, old)
            catalog.put_subscription(made)
            return made

    def list_subscriptions(self) -> list[Subscription]:
        with self._catalog.read() as catalog:
            made = catalog.subscriptions()
        default = [] if any(item.id == DEFAULT.id for item in made) else [DEFAULT]
        return default + made

    def delete_subscription(self, identity: str) -> None:
        """One that has no galleries and no resource groups."""
        with self._catalog.write() as catalog:
            found = rules.known_subscription(_subscription(catalog, identity), identity)
            nested = [item.arm_id for item in catalog.resource_groups(found.id)]
            nested += [item.name.arm_id for item in catalog.galleries(found.id)]
            rules.deletable(found.arm_id, nested)
            catalog.delete_subscription(found)

    def create_resource_group(
        self,
        subscription: str,
        name: str,
        location: str,
        tags: Mapping[str, str] | None = None,
    ) -> ResourceGroup:
        """Make a resource group, or change the tags of one."""
        region = rules.known_region(
            location, self._regions, kind="resourceGroups", provider="Microsoft.Resources"
        )
        check_resource_group(name)
        with self._catalog.write() as catalog:
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
            catalog.put_resource_group(group)
            return group

    def list_resource_groups(self, subscription: str) -> list[ResourceGroup]:
        """Those that were made."""
        with self._catalog.read() as catalog:
            rules.known_subscription(_subscription(catalog, subscription), subscription)
            return catalog.resource_groups(subscription)

    def delete_resource_group(self, subscription: str, name: str) -> None:
        """One that has no galleries."""
        with self._catalog.write() as catalog:
            group = rules.known_resource_group(_resource_group(catalog, subscription, name), name)
            nested = [
                item.name.arm_id
                for item in catalog.galleries(group.subscription)
                if item.name.resource_group.lower() == name.lower()
            ]
            rules.deletable(group.arm_id, nested)
            catalog.delete_resource_group(group)


def check_scope(catalog: CatalogReader, name: GalleryName) -> None:
    """Whether a gallery's subscription and resource group are there."""
    subscription, group = name.subscription, name.resource_group
    rules.known_subscription(_subscription(catalog, subscription), subscription)
    if group.lower() != DEFAULT_RESOURCE_GROUP:
        rules.known_resource_group(_resource_group(catalog, subscription, group), group)


def _subscription(catalog: CatalogReader, identity: str) -> Subscription | None:
    found = (item for item in catalog.subscriptions() if item.id == identity.lower())
    return next(found, DEFAULT if identity == DEFAULT_SUBSCRIPTION else None)


def _resource_group(catalog: CatalogReader, subscription: str, name: str) -> ResourceGroup | None:
    groups = catalog.resource_groups(subscription)
    return next((item for item in groups if item.name.lower() == name.lower()), None)
