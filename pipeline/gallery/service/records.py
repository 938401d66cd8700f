"""VMs and scale sets that were made from versions. They are of who made them, and shown to who may
read the version."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.errors import Conflict, NotFound
from pipeline.gallery.access.subjects import Made
from pipeline.gallery.service.base import Operations
from pipeline.model import Deployment, ScaleSet
from pipeline.model.access import Action
from pipeline.model.names import VersionName


class Records(Operations):
    def record_deployments(
        self, version: VersionName, deployments: Sequence[Deployment]
    ) -> list[Deployment]:
        """VMs that the caller makes from a version: all of them, or none. Refuses names that other
        VMs have in the same directory."""
        made = [replace(item, deployed_by=self._access.principal) for item in deployments]
        with self._access.write(Action.VERSION_READ, version) as (catalog, changes):
            known = {(item.name, item.directory) for item in catalog.deployments()}
            for item in made:
                if (item.name, item.directory) in known:
                    raise Conflict(
                        f"The VM '{item.name}' in {item.directory} is deployed already.",
                        hint="galleria deployed release gives it up",
                    )
                changes.put_deployment(item)
        return made

    def check_releasable(self, deployments: Sequence[Deployment]) -> None:
        """Refuse unless the caller may give up these VMs: to be asked before their disks go."""
        self._access.require(Action.DISK_DELETE, *map(_vm, deployments))

    def forget_deployments(self, deployments: Sequence[Deployment]) -> None:
        """VMs that are gone."""
        vms = map(_vm, deployments)
        with self._access.write(Action.DISK_DELETE, *vms) as (_, changes):
            for item in deployments:
                changes.delete_deployment(item)

    def list_deployments(self) -> list[Deployment]:
        """Those that the caller made, or whose version it may read."""
        found = self._access.visible(
            Action.VERSION_READ, lambda catalog: catalog.deployments(), _vm
        )
        return list(found)

    def create_scale_set(self, scale_set: ScaleSet) -> ScaleSet:
        """Make a scale set of a version that the caller may read."""
        made = replace(scale_set, created_by=self._access.principal)
        with self._access.write(Action.VERSION_READ, scale_set.version) as (catalog, changes):
            if any(item.name == made.name for item in catalog.scale_sets()):
                raise Conflict(f"The scale set '{made.name}' exists already.")
            changes.put_scale_set(made)
        return made

    def check_scale_set_writable(self, scale_set: ScaleSet) -> None:
        """Refuse unless the caller may change it: to be asked before VMs come or go."""
        self._access.require(Action.SCALE_SET_WRITE, _set(scale_set))

    def update_scale_set(self, scale_set: ScaleSet) -> None:
        """Change the one that is there; the caller may read the version that its image means."""
        old = self.get_scale_set(scale_set.name)
        self._access.require(Action.VERSION_READ, scale_set.version)
        with self._access.write(Action.SCALE_SET_WRITE, _set(old)) as (_, changes):
            changes.put_scale_set(replace(scale_set, created_by=old.created_by))

    def get_scale_set(self, name: str) -> ScaleSet:
        """One that the caller made, or whose version it may read."""
        found = self._access.one(
            Action.VERSION_READ,
            lambda catalog: next((i for i in catalog.scale_sets() if i.name == name), None),
            _set,
        )
        if found is None:
            raise NotFound(f"There is no scale set '{name}'.", hint="galleria scale-set list")
        return found

    def list_scale_sets(self) -> list[ScaleSet]:
        """Those that the caller made, or whose version it may read."""
        found = self._access.visible(
            Action.VERSION_READ, lambda catalog: catalog.scale_sets(), _set
        )
        return list(found)

    def check_scale_set_deletable(self, scale_set: ScaleSet) -> None:
        """Refuse unless the caller may delete it: to be asked before its VMs go."""
        self._access.require(Action.SCALE_SET_DELETE, _set(scale_set))

    def delete_scale_set(self, scale_set: ScaleSet) -> None:
        """Forget a scale set that has no VMs any more."""
        old = self.get_scale_set(scale_set.name)
        with self._access.write(Action.SCALE_SET_DELETE, _set(old)) as (catalog, changes):
            if any(item.scale_set == old.name for item in catalog.deployments()):
                raise Conflict(f"The scale set '{old.name}' has VMs.")
            changes.delete_scale_set(old)


def _vm(item: Deployment) -> Made:
    return Made(item.name, item.deployed_by, item.version)


def _set(item: ScaleSet) -> Made:
    return Made(item.name, item.created_by, item.version)
