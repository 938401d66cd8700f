"""What these resources need of a catalog: a part of `pipeline.ports.catalog`."""

from typing import Protocol

from pipeline.model.resource_names import ResourceKind, ResourceName
from pipeline.model.resources import Resource


class ResourceReader(Protocol):
    """Names are found without regard to case; lists are in the order of names."""

    def resource(self, name: ResourceName) -> Resource | None: ...
    def resources(self, kind: ResourceKind) -> list[Resource]: ...


class ResourceWriter(ResourceReader, Protocol):
    def put_resource(self, resource: Resource) -> None: ...
    def delete_resource(self, name: ResourceName) -> None: ...
