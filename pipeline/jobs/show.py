"""Show: versions with all that is known of them, and lists of them. Only the catalog, the zones and
the sources of Shallow versions are looked at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import NotFound
from pipeline.gallery import answers
from pipeline.gallery.documents import encode, without_inventory
from pipeline.gallery.service import GalleryService
from pipeline.gallery.validations import ValidationsProfile, validations
from pipeline.model import Deployment, ImageDefinition, ImageVersion, ReplicationMode
from pipeline.model.names import (
    DefinitionName,
    VersionNumber,
    is_definition,
    names_definition,
    parse_definition,
    parse_gallery,
)
from pipeline.model.scrubs import ScrubRecord
from pipeline.ports import Pins
from pipeline.storage.placement import Zones


@dataclass(frozen=True, slots=True)
class ListedVersion:
    """A version, whether `latest` means it, the channels that do, and the regions in which
    something of it was bad when it was last read."""

    version: ImageVersion
    is_latest: bool
    channels: tuple[str, ...]
    degraded: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        found = {**encode(self.version), "isLatest": self.is_latest}
        return {**found, "degradedRegions": self.degraded} if self.degraded else found


@dataclass(frozen=True, slots=True)
class Listing:
    """Some of `total` versions."""

    versions: tuple[ListedVersion, ...]
    total: int


def list_versions(
    name: str | None,
    gallery: GalleryService,
    *,
    subscription: str | None = None,
    limit: int | None = None,
    before: VersionNumber | None = None,
    deleted: bool = False,
) -> Listing:
    """The versions of a definition or a gallery, newest first; without a name those of all
    galleries of a subscription, or of all. Of each definition at most `limit`, those below number
    `before`; or its soft-deleted ones."""
    listed: list[ListedVersion] = []
    total = 0
    for definition in _definitions(name, gallery, subscription):
        found = gallery.list_versions(definition, limit=limit, before=before, deleted=deleted)
        total += gallery.count_versions(definition, deleted=deleted)
        newest = None if deleted or not found else gallery.latest_version(definition)
        channels = gallery.list_channels(definition) if found else []
        degraded = gallery.degraded(definition, found) if found else {}
        listed += [
            ListedVersion(
                version,
                newest is not None and newest.number == version.number,
                tuple(item.name for item in channels if item.version == version.number),
                tuple(sorted({record.region for record in degraded.get(version.uid, ())})),
            )
            for version in found
        ]
    return Listing(tuple(listed), total)


def _definitions(
    name: str | None, gallery: GalleryService, subscription: str | None
) -> list[DefinitionName]:
    if name is not None and is_definition(name):
        return [parse_definition(name)]
    galleries = (
        [parse_gallery(name)]
        if name
        else [item.name for item in gallery.list_galleries(subscription)]
    )
    return [item.name for each in galleries for item in gallery.list_definitions(each)]


def deployments_of(reference: str | None, gallery: GalleryService) -> list[Deployment]:
    """The VMs that were made: all, those of a definition's versions, or those of one version."""
    if reference is None:
        return gallery.list_deployments()
    if names_definition(reference):
        name = gallery.get_definition(parse_definition(reference)).name
        return gallery.list_deployments(definition=name)
    return gallery.list_deployments(version_uid=gallery.resolve(reference).uid)


@dataclass(frozen=True, slots=True)
class ShownVersion:
    """A version and what belongs to it. `report` is of generalizing; `allocated` is by region,
    `source_changes` by file. `interrupted`: its process is gone, and it is not done."""

    version: ImageVersion
    definition: ImageDefinition
    report: Mapping[str, Any] | None
    validations: ValidationsProfile
    interrupted: bool
    channels: tuple[str, ...]
    cautions: tuple[str, ...]
    allocated: Mapping[str, int]
    source_changes: Mapping[str, list[str]]
    deployments: tuple[Deployment, ...]
    degraded: tuple[ScrubRecord, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON data."""
        version = self.version
        return {
            "version": encode(version),
            "definition": answers.settled(self.definition),
            "aggregatedState": version.aggregated_state.value,
            "interrupted": self.interrupted,
            "channels": self.channels,
            "cautions": self.cautions,
            "degraded": encode(self.degraded),
            "allocatedBytes": self.allocated,
            "deployments": encode(self.deployments),
            "sourceChanges": self.source_changes,
            "targetExtendedLocations": [
                answers.edge_zone(version, item) for item in version.edge_zones
            ],
            "validationsProfile": encode(self.validations),
            "generalizeReport": without_inventory(self.report),
        }


def show_version(
    version: ImageVersion, gallery: GalleryService, zones: Zones, pins: Callable[[], Pins]
) -> ShownVersion:
    """Gather what is known of a version. Pins are made for a Shallow one alone."""
    definition = gallery.get_definition(version.name.definition)
    report = gallery.report(version.name)
    channels = gallery.list_channels(definition.name)
    shallow = version.replication_mode is ReplicationMode.SHALLOW
    return ShownVersion(
        version,
        definition,
        report,
        validations(version, definition, report),
        gallery.is_interrupted(version),
        tuple(item.name for item in channels if item.version == version.number),
        tuple(gallery.cautions(version)),
        {
            # shared blocks once, and the parents of a delta too
            status.region: sum(
                zone.allocated_bytes([version.zone_key]) for zone in zones.get(status.region, ())
            )
            for status in version.regions
        },
        _source_changes(version, pins) if shallow else {},
        tuple(gallery.list_deployments(version_uid=version.uid)),
        tuple(gallery.degraded(definition.name, [version]).get(version.uid, ())),
    )


def _source_changes(version: ImageVersion, pins: Callable[[], Pins]) -> Mapping[str, list[str]]:
    from pipeline.jobs.shallow import source_changes  # few versions need what it loads

    return source_changes(version, pins())


def bill_of_materials(version: ImageVersion, gallery: GalleryService) -> Mapping[str, Any]:
    """A version's packages in CycloneDX, as they were when it was published. Raises NotFound when
    its guest could not be looked into."""
    report = gallery.report(version.name) or {}
    document: Mapping[str, Any] | None = report.get("inventory", {}).get("sbom")
    if document is None:
        raise NotFound(
            f"{version.name} has no bill of materials",
            hint="galleria show --report says why its guest could not be looked into",
        )
    return document
