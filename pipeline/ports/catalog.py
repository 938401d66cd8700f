"""What the gallery needs from outside: where resources are kept.

`tests/contract/test_catalog.py` is the contract in full.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

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
from pipeline.ports.access_catalog import AccessReader, AccessWriter
from pipeline.ports.resource_catalog import ResourceReader, ResourceWriter
from pipeline.ports.run_catalog import RunReader, RunWriter


@dataclass(frozen=True, slots=True)
class Counts:
    """How much a subscription has in one region."""

    galleries: int
    definitions: int
    versions: int


class CatalogReader(AccessReader, ResourceReader, RunReader, Protocol):
    """One consistent view of the catalog. Names are found without regard to case; lists are in the
    order of names, versions newest first by number."""

    def gallery(self, name: GalleryName) -> Gallery | None: ...
    def gallery_in_subscription(self, name: GalleryName) -> Gallery | None:
        """The gallery of that name in whatever resource group of the subscription."""
        ...

    def galleries(self, subscription: str | None = None) -> list[Gallery]:
        """Of one subscription, or all."""
        ...

    def definition(self, name: DefinitionName) -> ImageDefinition | None: ...
    def definitions(self, gallery: GalleryName) -> list[ImageDefinition]: ...
    def definition_identified(
        self, gallery: GalleryName, identifier: Identifier
    ) -> ImageDefinition | None:
        """The definition of a gallery that has that publisher, offer and SKU."""
        ...

    def version(self, name: VersionName) -> ImageVersion | None: ...
    def versions(
        self,
        definition: DefinitionName,
        *,
        start: VersionNumber | None = None,
        ascending: bool = False,
        deleted: bool | None = False,
    ) -> Iterator[ImageVersion]:
        """Newest first, or (ascending) oldest first, beginning after number `start`; those that are
        not soft-deleted, those that are, or (None) both. Read piece by piece: stop early, and the
        rest is never read. Valid inside the `with`."""
        ...

    def versions_with(self, digests: Sequence[str]) -> list[ImageVersion]:
        """Those that have a disk with one of these digests."""
        ...

    def count_versions(self, definition: DefinitionName, *, deleted: bool | None = None) -> int: ...
    def counts(self, subscription: str, region: str) -> Counts:
        """For the limits of a subscription; `region` in any spelling."""
        ...

    def channels(self, definition: DefinitionName) -> list[Channel]: ...
    def tenants(self) -> list[Tenant]:
        """Those that were made; the default one needs no making."""
        ...

    def subscriptions(self) -> list[Subscription]:
        """Those that were made; the default one needs no making."""
        ...

    def resource_groups(self, subscription: str) -> list[ResourceGroup]: ...

    def report(self, name: VersionName) -> Mapping[str, Any] | None: ...
    def deployments(self) -> list[Deployment]: ...
    def scale_sets(self) -> list[ScaleSet]: ...
    def scrubs(self) -> list[ScrubRecord]:
        """What the last reading of each base and record in the zones showed."""
        ...


class CatalogWriter(CatalogReader, AccessWriter, ResourceWriter, RunWriter, Protocol):
    """A view that changes too. `put` makes the thing or replaces the one of the same name; a parent
    must exist. Deleting what is absent does nothing; deleting a parent of something is an error."""

    def put_gallery(self, gallery: Gallery) -> None: ...
    def delete_gallery(self, name: GalleryName) -> None: ...
    def put_definition(self, definition: ImageDefinition) -> None: ...
    def delete_definition(self, name: DefinitionName) -> None:
        """With its channels."""
        ...

    def put_version(self, version: ImageVersion) -> None: ...
    def delete_version(self, name: VersionName) -> None:
        """With its report."""
        ...

    def put_channel(self, channel: Channel) -> None: ...
    def delete_channel(self, channel: Channel) -> None: ...
    def put_tenant(self, tenant: Tenant) -> None: ...
    def delete_tenant(self, tenant: Tenant) -> None: ...
    def put_subscription(self, subscription: Subscription) -> None: ...
    def delete_subscription(self, subscription: Subscription) -> None: ...
    def put_resource_group(self, group: ResourceGroup) -> None: ...
    def delete_resource_group(self, group: ResourceGroup) -> None: ...
    def put_report(self, name: VersionName, report: Mapping[str, Any] | None) -> None:
        """None removes it."""
        ...

    def put_deployment(self, deployment: Deployment) -> None: ...
    def delete_deployment(self, deployment: Deployment) -> None: ...
    def put_scale_set(self, scale_set: ScaleSet) -> None: ...
    def delete_scale_set(self, scale_set: ScaleSet) -> None: ...
    def put_scrub(self, record: ScrubRecord) -> None: ...
    def delete_scrub(self, zone: str, subject: str) -> None: ...


@dataclass(frozen=True, slots=True)
class CatalogHealth:
    """What `check` found. `problems` empty means sound."""

    engine: str  # "SQLite 3.40.1"
    journal: str  # how commits are made durable
    schema: str
    problems: tuple[str, ...] = ()


class Catalog(Protocol):
    def read(self) -> AbstractContextManager[CatalogReader]: ...
    def write(self) -> AbstractContextManager[CatalogWriter]:
        """A transaction, alone among writers: all of it is durable when the `with` ends, or none of
        it when that raises."""
        ...

    def attend(self, run: str) -> AbstractContextManager[Callable[[], None]]:
        """Let others see that this process is there, for a run, until the `with` or the process
        ends. What it gives is to be called now and then: a lost connection is made again."""
        ...

    def check(self) -> CatalogHealth: ...
    def close(self) -> None: ...
