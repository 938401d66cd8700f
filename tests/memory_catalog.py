"""The catalog's in-memory double: what `tests/contract/test_catalog.py` says, and no more."""

import contextlib
import copy
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.gallery import rules
from pipeline.gallery.latest import newest_first
from pipeline.model import (
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
from pipeline.model.names import DefinitionName, GalleryName, VersionName, VersionNumber
from pipeline.model.scrubs import ScrubRecord
from pipeline.model.spelling import region_key
from pipeline.ports.catalog import Catalog, CatalogHealth, CatalogReader, CatalogWriter, Counts
from tests.memory_access import AccessState, AccessView
from tests.memory_resources import ResourceState, ResourceView
from tests.memory_runs import RunRecords, RunView


@dataclass
class _State(AccessState, ResourceState, RunRecords):
    definitions: dict[DefinitionName, ImageDefinition] = field(default_factory=dict)
    versions: dict[VersionName, ImageVersion] = field(default_factory=dict)
    reports: dict[VersionName, Mapping[str, Any]] = field(default_factory=dict)
    deployments: dict[tuple[str, str], Deployment] = field(default_factory=dict)
    scale_sets: dict[str, ScaleSet] = field(default_factory=dict)
    scrubs: dict[tuple[str, str], ScrubRecord] = field(default_factory=dict)
    channel_map: dict[tuple[DefinitionName, str], Channel] = field(default_factory=dict)
    tenant_map: dict[str, Tenant] = field(default_factory=dict)
    subscription_map: dict[str, Subscription] = field(default_factory=dict)
    group_map: dict[tuple[str, str], ResourceGroup] = field(default_factory=dict)


class _View(AccessView, ResourceView, RunView):
    def __init__(self, state: _State) -> None:
        self._state = state
        self._access = state
        self._resources = state
        self._runs = state

    def gallery(self, name: GalleryName) -> Gallery | None:
        return self._state.galleries.get(name)

    def gallery_in_subscription(self, name: GalleryName) -> Gallery | None:
        wanted = (name.subscription.lower(), name.name.lower())
        for found, gallery in self._state.galleries.items():
            if (found.subscription.lower(), found.name.lower()) == wanted:
                return gallery
        return None

    def galleries(self, subscription: str | None = None) -> list[Gallery]:
        found = [
            item
            for item in self._state.galleries.values()
            if subscription in (None, item.name.subscription)
        ]
        return sorted(found, key=lambda item: item.name.name.lower())

    def definition(self, name: DefinitionName) -> ImageDefinition | None:
        return self._state.definitions.get(name)

    def definitions(self, gallery: GalleryName) -> list[ImageDefinition]:
        found = [d for d in self._state.definitions.values() if d.name.gallery == gallery]
        return sorted(found, key=lambda item: item.name.name.lower())

    def version(self, name: VersionName) -> ImageVersion | None:
        return self._state.versions.get(name)

    def definition_identified(
        self, gallery: GalleryName, identifier: Identifier
    ) -> ImageDefinition | None:
        for item in self.definitions(gallery):
            if item.identifier.key == identifier.key:
                return item
        return None

    def versions(
        self,
        definition: DefinitionName,
        *,
        start: VersionNumber | None = None,
        ascending: bool = False,
        deleted: bool | None = False,
    ) -> Iterator[ImageVersion]:
        found = newest_first(
            version
            for version in self._state.versions.values()
            if version.name.definition == definition
            and deleted in (None, version.soft_deleted is not None)
        )
        if ascending:
            found.reverse()
        for version in found:
            if start is None or (version.number > start if ascending else version.number < start):
                yield version

    def versions_with(self, digests: Sequence[str]) -> list[ImageVersion]:
        return [
            item
            for item in self._state.versions.values()
            if any(disk.digest in digests for disk in item.disks)
        ]

    def count_versions(self, definition: DefinitionName, *, deleted: bool | None = None) -> int:
        return len(list(self.versions(definition, deleted=deleted)))

    def counts(self, subscription: str, region: str) -> Counts:
        def count(found: Iterable[tuple[GalleryName, str]]) -> int:
            return sum(
                owner.subscription.lower() == subscription.lower()
                and region_key(location) == region_key(region)
                for owner, location in found
            )

        return Counts(
            count((item.name, item.location) for item in self._state.galleries.values()),
            count((i.name.gallery, i.location) for i in self._state.definitions.values()),
            count((i.name.definition.gallery, i.location) for i in self._state.versions.values()),
        )

    def channels(self, definition: DefinitionName) -> list[Channel]:
        found = [item for item in self._state.channel_map.values() if item.definition == definition]
        return sorted(found, key=lambda item: item.name)

    def tenants(self) -> list[Tenant]:
        return sorted(self._state.tenant_map.values(), key=lambda item: item.id)

    def subscriptions(self) -> list[Subscription]:
        return sorted(self._state.subscription_map.values(), key=lambda item: item.id)

    def resource_groups(self, subscription: str) -> list[ResourceGroup]:
        found = [
            item
            for item in self._state.group_map.values()
            if item.subscription.lower() == subscription.lower()
        ]
        return sorted(found, key=lambda item: item.name.lower())

    def report(self, name: VersionName) -> Mapping[str, Any] | None:
        return self._state.reports.get(name)

    def deployments(self) -> list[Deployment]:
        return sorted(
            self._state.deployments.values(), key=lambda item: (item.name, item.directory)
        )

    def scale_sets(self) -> list[ScaleSet]:
        return sorted(self._state.scale_sets.values(), key=lambda item: item.name)

    def scrubs(self) -> list[ScrubRecord]:
        return [self._state.scrubs[key] for key in sorted(self._state.scrubs)]

    def put_gallery(self, gallery: Gallery) -> None:
        self._state.galleries[gallery.name] = gallery

    def delete_gallery(self, name: GalleryName) -> None:
        rules.deletable(name, self.definitions(name))
        self._state.galleries.pop(name, None)
        self.forget_access(name.arm_id)

    def put_definition(self, definition: ImageDefinition) -> None:
        rules.parent(self.gallery(definition.name.gallery), definition.name.gallery)
        self._state.definitions[definition.name] = definition

    def delete_definition(self, name: DefinitionName) -> None:
        rules.deletable(name, list(self.versions(name, deleted=None)))
        self._state.definitions.pop(name, None)
        for channel in self.channels(name):
            self.delete_channel(channel)
        self.forget_access(name.arm_id)

    def put_version(self, version: ImageVersion) -> None:
        rules.parent(self.definition(version.name.definition), version.name.definition)
        self._state.versions[version.name] = version

    def delete_version(self, name: VersionName) -> None:
        self._state.versions.pop(name, None)
        self._state.reports.pop(name, None)

    def put_channel(self, channel: Channel) -> None:
        rules.parent(self.definition(channel.definition), channel.definition)
        self._state.channel_map[channel.definition, channel.name.lower()] = channel

    def delete_channel(self, channel: Channel) -> None:
        self._state.channel_map.pop((channel.definition, channel.name.lower()), None)

    def put_tenant(self, tenant: Tenant) -> None:
        self._state.tenant_map[tenant.id] = tenant

    def delete_tenant(self, tenant: Tenant) -> None:
        self._state.tenant_map.pop(tenant.id, None)

    def put_subscription(self, subscription: Subscription) -> None:
        self._state.subscription_map[subscription.id.lower()] = subscription

    def delete_subscription(self, subscription: Subscription) -> None:
        self._state.subscription_map.pop(subscription.id.lower(), None)
        self.forget_access(subscription.arm_id)

    def put_resource_group(self, group: ResourceGroup) -> None:
        self._state.group_map[group.subscription.lower(), group.name.lower()] = group

    def delete_resource_group(self, group: ResourceGroup) -> None:
        self._state.group_map.pop((group.subscription.lower(), group.name.lower()), None)
        self.forget_access(group.arm_id)

    def put_report(self, name: VersionName, report: Mapping[str, Any] | None) -> None:
        self._state.reports.pop(name, None)
        if report is not None:
            rules.parent(self.version(name), name)
            self._state.reports[name] = report

    def put_deployment(self, deployment: Deployment) -> None:
        self._state.deployments[deployment.name, deployment.directory] = deployment

    def delete_deployment(self, deployment: Deployment) -> None:
        self._state.deployments.pop((deployment.name, deployment.directory), None)

    def put_scale_set(self, scale_set: ScaleSet) -> None:
        self._state.scale_sets[scale_set.name] = scale_set

    def delete_scale_set(self, scale_set: ScaleSet) -> None:
        self._state.scale_sets.pop(scale_set.name, None)

    def put_scrub(self, record: ScrubRecord) -> None:
        self._state.scrubs[record.zone, record.subject] = record

    def delete_scrub(self, zone: str, subject: str) -> None:
        self._state.scrubs.pop((zone, subject), None)


class MemoryCatalog:
    """Transactions work on a copy, which takes the place of the original at their end."""

    def __init__(self) -> None:
        self.attending: set[str] = set()
        self._state = _State(attending=self.attending)
        self._writing = threading.Lock()

    @contextlib.contextmanager
    def read(self) -> Iterator[CatalogReader]:
        yield _View(self._state)

    @contextlib.contextmanager
    def write(self) -> Iterator[CatalogWriter]:
        with self._writing:
            state = _State(**{name: copy.copy(value) for name, value in vars(self._state).items()})
            state.attending = self.attending
            yield _View(state)
            self._state = state

    @contextlib.contextmanager
    def attend(self, run: str) -> Iterator[Callable[[], None]]:
        self.attending.add(run)
        try:
            yield lambda: None
        finally:
            self.attending.discard(run)

    def check(self) -> CatalogHealth:
        return CatalogHealth("memory", "none", "none")

    def close(self) -> None:
        self._state = _State()


_: type[Catalog] = MemoryCatalog
