"""The in-memory double of disks, snapshots and managed images."""

from dataclasses import dataclass, field

from pipeline.model.resource_names import ResourceKind, ResourceName
from pipeline.model.resources import Resource


@dataclass
class ResourceState:
    resource_map: dict[ResourceName, Resource] = field(default_factory=dict)


class ResourceView:
    _resources: ResourceState

    def resource(self, name: ResourceName) -> Resource | None:
        return self._resources.resource_map.get(name)

    def resources(self, kind: ResourceKind) -> list[Resource]:
        found = (item for name, item in self._resources.resource_map.items() if name.kind is kind)
        return sorted(found, key=lambda item: item.id.lower())

    def put_resource(self, resource: Resource) -> None:
        self._resources.resource_map[resource.name] = resource

    def delete_resource(self, name: ResourceName) -> None:
        self._resources.resource_map.pop(name, None)
