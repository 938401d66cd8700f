"""The operations on disks, snapshots and managed images: each in one transaction."""

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from pipeline.errors import AuthorizationFailed, Conflict, NotFound
from pipeline.gallery import rules
from pipeline.gallery.access.subjects import Access
from pipeline.gallery.audited import RESOURCE_DELETE as DELETE
from pipeline.gallery.audited import RESOURCE_WRITE as WRITE
from pipeline.gallery.audited import Changes
from pipeline.gallery.service.running import JobRuns
from pipeline.model import ProvisioningState, Region, StorageAccountType
from pipeline.model.access import Action
from pipeline.model.clock import utc_now
from pipeline.model.resource_names import ResourceKind, ResourceName
from pipeline.model.resources import Disk, Resource, Snapshot
from pipeline.model.spelling import region_key
from pipeline.ports.catalog import CatalogReader

R = TypeVar("R", bound=Resource)

READ = {
    ResourceKind.DISK: Action.DISK_READ,
    ResourceKind.SNAPSHOT: Action.SNAPSHOT_READ,
    ResourceKind.IMAGE: Action.MANAGED_IMAGE_READ,
}
USE = WRITE | {ResourceKind.IMAGE: Action.MANAGED_IMAGE_READ}


class ResourceService:
    """All that is asked of the catalog about these resources, by one identity."""

    def __init__(
        self,
        access: Access,
        runs: JobRuns,
        regions: Iterable[Region],
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._access = access
        self._runs = runs
        self._regions = tuple(regions)
        self._clock = clock

    def get(self, name: ResourceName) -> Resource:
        with self._access.read(READ[name.kind], name.arm_id) as catalog:
            return rules.existing(catalog.resource(name), name.arm_id)

    def use(self, name: ResourceName) -> Resource:
        """The resource, to make a version (or another resource) from: of disks and snapshots that
        takes the right to write them, of managed images to read them."""
        with self._access.read(USE[name.kind], name.arm_id) as catalog:
            found = rules.existing(catalog.resource(name), name.arm_id)
        if found.provisioning_state is not ProvisioningState.SUCCEEDED:
            raise Conflict(
                f"The {name.kind.noun} '{name}' is {found.provisioning_state.value}: it can't be "
                "used yet.",
                hint="the command that makes it continues when it is given again",
            )
        return found

    def require_machine(self) -> None:
        """Raise unless the caller may use machines that this host has, or descriptions of some."""
        self._require_host(Action.VM_WRITE, "Microsoft.Compute/virtualMachines")

    def require_storage(self) -> None:
        """Raise unless the caller may use this host's files, and have it download some."""
        self._require_host(Action.STORAGE_KEYS, "Microsoft.Storage/storageAccounts")

    def _require_host(self, action: Action, kind: str) -> None:
        """That there is a host is no secret: who may not use it is told so."""
        group = ResourceName(ResourceKind.DISK, "host").arm_id.partition("/providers/")[0]
        id = f"{group}/providers/{kind}/host"
        try:
            self._access.require(action, id)
        except NotFound as error:
            if error.reason != "ResourceNotFound":
                raise
            raise AuthorizationFailed(
                f"A source of this kind needs the right to '{action.value}' over scope '{id}'.",
                hint=f"a role that has it, given at {group}: galleria role definitions",
            ) from None

    def of_kind(self, kind: ResourceKind) -> list[Resource]:
        """Those that the caller may read."""
        found = self._access.visible(
            READ[kind], lambda catalog: catalog.resources(kind), lambda item: item.id
        )
        return list(found)

    def check_storage(self, name: ResourceName, region: str, kind: StorageAccountType) -> None:
        """Raise InvalidParameter when no zone of the region has the storage that a resource which
        the caller is to make needs."""
        self._access.require(WRITE[name.kind], name.arm_id)
        rules.offered(rules.known_region(region, self._regions), kind)

    def begin(self, resource: R) -> R:
        """Take the name. What a killed process left under it is taken over: its `unique_id` and
        creation time stay, so that what it did is found. Raises Conflict when the name is taken."""
        name = resource.name
        with self._access.write(WRITE[name.kind], name.arm_id) as (catalog, changes):
            location = rules.known_region(resource.location, self._regions).name
            old = catalog.resource(name)
            taken = old is not None and old.provisioning_state is not ProvisioningState.CREATING
            if taken:
                raise Conflict(
                    f"The {name.kind.noun} '{name}' exists already.",
                    hint="choose another name, or delete it first",
                )
            if old is not None:
                self._take(catalog, changes, old, "being made")
            made = replace(
                resource,
                location=location,
                time_created=self._clock() if old is None else old.time_created,
                unique_id=uuid.uuid4().hex if old is None else old.unique_id,
                owner=self._runs.id,
            )
            changes.put_resource(made)
            return made

    def set_tags(
        self, name: ResourceName, tags: Mapping[str, str], location: str | None = None
    ) -> Resource:
        """Change the tags of one that is there. `location`, if given, has to be its own."""
        with self._access.write(WRITE[name.kind], name.arm_id) as (catalog, changes):
            found = rules.existing(catalog.resource(name), name.arm_id)
            if location is not None and region_key(location) != region_key(found.location):
                raise Conflict(
                    f"The resource '{name}' already exists in location '{found.location}'. A "
                    f"resource with the same name cannot be created in location '{location}'.",
                    code="InvalidResourceLocation",
                )
            changed = replace(found, tags=tags)
            changes.put_resource(changed)
            return changed

    def begin_delete(self, name: ResourceName) -> Resource:
        """From now on it can't be used, and what zones hold of it may go."""
        with self._access.write(DELETE[name.kind], name.arm_id) as (catalog, changes):
            found = rules.existing(catalog.resource(name), name.arm_id)
            self._take(catalog, changes, found, "being worked on")
            found = replace(
                found,
                provisioning_state=ProvisioningState.DELETING,
                owner=self._runs.id,
            )
            changes.put_resource(found)
            return found

    def _take(
        self,
        catalog: CatalogReader,
        changes: Changes,
        resource: Resource,
        doing: str,
    ) -> None:
        """What another run has left of it is this one's from now on; refuses while that goes on."""
        held = self._runs.holder(catalog, resource.owner)
        if held is not None:
            name = resource.name
            raise rules.in_use(
                held,
                f"The {name.kind.noun} '{name}' is {doing} by another process, {held.run.who}.",
            )
        self._runs.take(catalog, changes, resource.owner)


def as_disk(resource: Resource) -> Disk:
    assert isinstance(resource, Disk)  # noqa: S101 - a name's kind is its class
    return resource


def as_snapshot(resource: Resource) -> Snapshot:
    assert isinstance(resource, Snapshot)  # noqa: S101
    return resource
