"""The operations on disks, snapshots and managed images: each in one transaction."""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import TypeVar, cast

from pipeline.errors import AuthorizationFailed, Conflict, NotFound
from pipeline.gallery import rules
from pipeline.model import ProvisioningState, Region, StorageAccountType
from pipeline.model.access import Action
from pipeline.model.clock import utc_now
from pipeline.model.resource_names import ResourceKind, ResourceName
from pipeline.model.resources import Disk, Resource, Snapshot
from pipeline.ports.catalog import Catalog
from pipeline.ports.owners import Owners

R = TypeVar("R", bound=Resource)

READ = {
    ResourceKind.DISK: Action.DISK_READ,
    ResourceKind.SNAPSHOT: Action.SNAPSHOT_READ,
    ResourceKind.IMAGE: Action.MANAGED_IMAGE_READ,
}
WRITE = {
    ResourceKind.DISK: Action.DISK_WRITE,
    ResourceKind.SNAPSHOT: Action.SNAPSHOT_WRITE,
    ResourceKind.IMAGE: Action.MANAGED_IMAGE_WRITE,
}
DELETE = {
    ResourceKind.DISK: Action.DISK_DELETE,
    ResourceKind.SNAPSHOT: Action.SNAPSHOT_DELETE,
    ResourceKind.IMAGE: Action.MANAGED_IMAGE_DELETE,
}

_UNFINISHED = (ProvisioningState.CREATING, ProvisioningState.DELETING)


def _anybody(_action: Action, _id: str) -> None:
    return


def _everything(_action: Action, _id: str) -> bool:
    return True


class ResourceService:
    """All that is asked of the catalog about these resources. `require` raises when the caller may
    not do an action on an id; `may` tells it."""

    def __init__(
        self,
        catalog: Catalog,
        owners: Owners,
        regions: Iterable[Region],
        *,
        require: Callable[[Action, str], None] = _anybody,
        may: Callable[[Action, str], bool] = _everything,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._catalog = catalog
        self._owners = owners
        self._regions = tuple(regions)
        self._require = require
        self._may = may
        self._clock = clock

    def get(self, name: ResourceName) -> Resource:
        self._require(READ[name.kind], name.arm_id)
        with self._catalog.read() as catalog:
            return rules.existing(catalog.resource(name), name.arm_id)

    def use(self, name: ResourceName) -> Resource:
        """The resource, to make a version (or another resource) from: of disks and snapshots that
        takes the right to write them, of managed images to read them."""
        needed = READ if name.kind is ResourceKind.IMAGE else WRITE
        self._require(needed[name.kind], name.arm_id)
        with self._catalog.read() as catalog:
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
            self._require(action, id)
        except NotFound as error:
            if error.reason != "ResourceNotFound":
                raise
            raise AuthorizationFailed(
                f"A source of this kind needs the right to '{action.value}' over scope '{id}'.",
                hint=f"a role that has it, given at {group}: galleria role definitions",
            ) from None

    def of_kind(self, kind: ResourceKind) -> list[Resource]:
        """Those that the caller may read."""
        with self._catalog.read() as catalog:
            found = catalog.resources(kind)
        return [item for item in found if self._may(READ[kind], item.id)]

    def region(self, name: str) -> str:
        """A region, in the configuration's spelling."""
        return rules.known_region(name, self._regions).name

    def check_offered(self, region: str, kind: StorageAccountType) -> None:
        """Raise InvalidParameter when no zone of the region has that storage."""
        rules.offered(rules.known_region(region, self._regions), kind)

    def begin(self, resource: R) -> R:
        """Take the name. What a killed process left under it is taken over: its `unique_id` and
        creation time stay, so that what it did is found. Raises Conflict when the name is taken."""
        name = resource.name
        self._require(WRITE[name.kind], name.arm_id)
        location = self.region(resource.location)
        with self._catalog.write() as catalog:
            old = catalog.resource(name)
            taken = old is not None and old.provisioning_state is not ProvisioningState.CREATING
            if old is not None and (taken or self._busy(old)):
                raise Conflict(
                    f"The {name.kind.noun} '{name}' exists already."
                    if taken
                    else f"The {name.kind.noun} '{name}' is being made by another process.",
                    hint="choose another name, or delete it first",
                )
            made = replace(
                resource,
                location=location,
                time_created=self._clock() if old is None else old.time_created,
                unique_id=uuid.uuid4().hex if old is None else old.unique_id,
                owner=self._owners.current(),
            )
            catalog.put_resource(made)
            return made

    def change(self, resource: R) -> R:
        """Record what the process that makes it has done."""
        return self._replace(resource, resource)

    def finish(self, resource: R) -> R:
        """From now on it can be used."""
        done = replace(
            resource,
            provisioning_state=ProvisioningState.SUCCEEDED,
            completion_percent=100,
            owner=None,
        )
        return self._replace(resource, done)

    def begin_delete(self, name: ResourceName) -> Resource:
        """From now on it can't be used, and what zones hold of it may go."""
        self._require(DELETE[name.kind], name.arm_id)
        with self._catalog.write() as catalog:
            found = rules.existing(catalog.resource(name), name.arm_id)
            if self._busy(found):
                raise Conflict(
                    f"The {name.kind.noun} '{name}' is being worked on by another process.",
                    hint="wait until it has ended",
                )
            found = replace(
                found,
                provisioning_state=ProvisioningState.DELETING,
                owner=self._owners.current(),
            )
            catalog.put_resource(found)
            return found

    def forget(self, resource: Resource) -> None:
        """The end of a deletion, or of a resource that could not be made."""
        with self._catalog.write() as catalog:
            self._mine(catalog.resource(resource.name), resource)
            catalog.delete_resource(resource.name)

    def snapshots(self) -> list[Snapshot]:
        """Every usable one, newest first, whoever may read it: what a new one can start from."""
        with self._catalog.read() as catalog:
            found = cast(list[Snapshot], catalog.resources(ResourceKind.SNAPSHOT))
        usable = [s for s in found if s.provisioning_state is ProvisioningState.SUCCEEDED]
        return sorted(usable, key=lambda item: item.time_created, reverse=True)

    def everything(self) -> list[Resource]:
        """All resources, whoever may read them: for lineage and for collecting garbage."""
        with self._catalog.read() as catalog:
            return [item for kind in ResourceKind for item in catalog.resources(kind)]

    def interrupted(self, resource: Resource) -> bool:
        """Whether it is unfinished and nobody works on it."""
        return resource.provisioning_state in _UNFINISHED and not self._busy(resource)

    def _busy(self, resource: Resource) -> bool:
        return resource.owner is not None and self._owners.alive(resource.owner)

    def _replace(self, resource: Resource, changed: R) -> R:
        with self._catalog.write() as catalog:
            self._mine(catalog.resource(resource.name), resource)
            catalog.put_resource(changed)
            return changed

    def _mine(self, current: Resource | None, resource: Resource) -> None:
        name = resource.name
        if current is None or current.unique_id != resource.unique_id:
            raise NotFound(f"The {name.kind.noun} '{name}' was deleted meanwhile.")
        if current.owner != resource.owner:
            raise Conflict(f"The {name.kind.noun} '{name}' was taken over by another process.")


def as_disk(resource: Resource) -> Disk:
    assert isinstance(resource, Disk)  # noqa: S101 - a name's kind is its class
    return resource


def as_snapshot(resource: Resource) -> Snapshot:
    assert isinstance(resource, Snapshot)  # noqa: S101
    return resource
