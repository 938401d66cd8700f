"""Cost: what a gallery's versions occupy and what was sent for them, and what sharing saved."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.gallery.service import GalleryService
from pipeline.model import ImageVersion, RegionResult
from pipeline.model.names import GalleryName
from pipeline.storage.placement import Zones


@dataclass(frozen=True, slots=True)
class RegionCost:
    """In bytes. `stored_logical` is what the replicas would take as full copies, as clouds bill
    them; `stored_real` what their files and bases occupy, shared blocks counted once.
    `sent_logical` is the content that came from the source region, `sent_real` what of it was
    not there already."""

    region: str
    versions: int
    replicas: int
    stored_logical: int
    stored_real: int
    sent_logical: int
    sent_real: int

    @property
    def saved(self) -> int:
        return self.stored_logical - self.stored_real

    def document(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "region": self.region,
            "versions": self.versions,
            "replicas": self.replicas,
            "storedLogicalBytes": self.stored_logical,
            "storedRealBytes": self.stored_real,
            "savedBytes": self.saved,
            "sentLogicalBytes": self.sent_logical,
            "sentRealBytes": self.sent_real,
        }


def gallery_cost(name: GalleryName, gallery: GalleryService, zones: Zones) -> list[RegionCost]:
    """What all versions of a gallery cost in each region, deleted ones that are kept included."""
    return cost(
        (
            version
            for definition in gallery.list_definitions(name)
            for deleted in (False, True)
            for version in gallery.list_versions(definition.name, deleted=deleted)
        ),
        zones,
    )


def cost(versions: Iterable[ImageVersion], zones: Zones) -> list[RegionCost]:
    """What these versions cost in each region of this host."""
    versions = list(versions)
    return [
        _region(region, [v for v in versions if v.is_completed_in(region)], zones)
        for region in zones
    ]


def _region(region: str, versions: list[ImageVersion], zones: Zones) -> RegionCost:
    results = [
        (version, status.result)
        for version in versions
        if (status := version.status(region)) is not None
    ]
    abroad = [result for version, result in results if not _is_source(version, region)]
    keys = [version.zone_key for version in versions]
    return RegionCost(
        region,
        len(versions),
        sum(len(result.replicas) for _, result in results),
        sum(_one_copy(version, result) * len(result.replicas) for version, result in results),
        sum(zone.allocated_bytes(keys) for zone in zones[region]) if keys else 0,
        sum(result.bytes_written + result.bytes_shared for result in abroad),
        sum(result.bytes_written for result in abroad),
    )


def _is_source(version: ImageVersion, region: str) -> bool:
    status = version.status(region)
    return status is not None and status.region == version.location


def _one_copy(version: ImageVersion, result: RegionResult) -> int:
    """The data of the version's disks, of which each of the region's zones has a base."""
    bases = len(result.methods) // max(1, len(version.disks))
    return (result.bytes_written + result.bytes_shared) // max(1, bases)
