"""VMs and scale sets that were made from versions."""

from collections.abc import Sequence

from pipeline.errors import Conflict, NotFound
from pipeline.gallery.service.base import Operations
from pipeline.model import Deployment, ScaleSet
from pipeline.model.names import VersionName


class Records(Operations):
    def record_deployments(self, version: VersionName, deployments: Sequence[Deployment]) -> None:
        """VMs that are made from a version: all of them, or none. Refuses names that other VMs
        have in the same directory."""
        with self._catalog.write() as catalog:
            known = {(item.name, item.directory) for item in catalog.deployments()}
            for item in deployments:
                if (item.name, item.directory) in known:
                    raise Conflict(
                        f"The VM '{item.name}' in {item.directory} is deployed already.",
                        hint="galleria deployed release gives it up",
                    )
                catalog.put_deployment(item)

    def forget_deployments(self, version: VersionName, deployments: Sequence[Deployment]) -> None:
        """VMs that are gone."""
        with self._catalog.write() as catalog:
            for item in deployments:
                catalog.delete_deployment(item)

    def list_deployments(self) -> list[Deployment]:
        with self._catalog.read() as catalog:
            return catalog.deployments()

    def put_scale_set(self, version: VersionName, scale_set: ScaleSet, *, new: bool) -> None:
        """Make a scale set, or change the one that is there; `version` is what its image means."""
        with self._catalog.write() as catalog:
            exists = any(item.name == scale_set.name for item in catalog.scale_sets())
            if new and exists:
                raise Conflict(f"The scale set '{scale_set.name}' exists already.")
            if not new and not exists:
                raise NotFound(f"There is no scale set '{scale_set.name}'.")
            catalog.put_scale_set(scale_set)

    def list_scale_sets(self) -> list[ScaleSet]:
        with self._catalog.read() as catalog:
            return catalog.scale_sets()

    def delete_scale_set(self, version: VersionName, scale_set: ScaleSet) -> None:
        """Forget a scale set that has no VMs any more."""
        with self._catalog.write() as catalog:
            if any(item.scale_set == scale_set.name for item in catalog.deployments()):
                raise Conflict(f"The scale set '{scale_set.name}' has VMs.")
            catalog.delete_scale_set(scale_set)
