"""Preview: what a publish would do, and what is already there. Nothing is published: a URL is
downloaded into the cache, an archive unpacked into the work directory."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

from pipeline.data.extents import data_bytes
from pipeline.errors import NotFound
from pipeline.gallery import rules
from pipeline.gallery.service import GalleryService
from pipeline.jobs.context import JobContext
from pipeline.jobs.request import PublishRequest, described
from pipeline.model import (
    ImageDefinition,
    ImageVersion,
    OsState,
    ProvisioningState,
    Region,
    TargetRegion,
    VersionRequest,
)
from pipeline.model.names import DefinitionName, VersionName, VersionNumber, parse_number
from pipeline.model.sources import QemuSource
from pipeline.ports import ImageFormat
from pipeline.sources.ingest import disk_name, ingest
from pipeline.sources.supply import supplied
from pipeline.storage.placement import has_parent, place, storage_types

# by the names that QEMU has for them; what else a machine reads has no format
MACHINE_FORMATS = {"vpc": ImageFormat.VHD, **{item.value: item for item in ImageFormat}}

FIRST_NUMBER = VersionNumber(1, 0, 0)


class Action(Enum):
    """What the publish would be: a new version, the rest of an interrupted one, or nothing."""

    PUBLISH = "publish"
    CONTINUE = "continue"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class DiskPreview:
    """`data_bytes` have to be read; what the guest's file systems call free is still in them."""

    name: str
    path: Path
    format: ImageFormat
    virtual_size: int
    data_bytes: int


@dataclass(frozen=True, slots=True)
class RegionPreview:
    """Where a region's replicas would be; `free_bytes` of the fullest zone. `starts_from` says
    whether older versions' bases are there to start from; `done` that the region is Completed."""

    region: str
    replicas: int
    zones: tuple[Path, ...]
    free_bytes: int
    reflink: bool
    starts_from: bool
    done: bool


@dataclass(frozen=True, slots=True)
class Preview:
    name: VersionName
    action: Action
    generalized: bool
    disks: tuple[DiskPreview, ...]
    regions: tuple[RegionPreview, ...]


def preview(request: PublishRequest, context: JobContext) -> Preview:
    """Check everything that `publish` checks before it writes. Raises what it would raise."""
    wanted = described(request, context.sources)
    definition = context.gallery.get_definition(wanted.name.definition)
    targets = _targets(wanted, definition, context)
    old = find_version(wanted.name, context.gallery)
    live = running(request)
    action = judge(old, wanted.fingerprint, context.gallery)
    disks = _running(live, wanted, context) if live else _opened(request, wanted, context)
    generalized = definition.os_state is OsState.GENERALIZED and wanted.generalize is not False
    regions = _regions(wanted, targets, old, context)
    return Preview(wanted.name, action, generalized, disks, regions)


def running(request: PublishRequest) -> QemuSource | None:
    """The machine that a version would be captured from: a trial leaves it alone."""
    return next((item for item in request.sources if isinstance(item, QemuSource)), None)


def _running(
    source: QemuSource, wanted: VersionRequest, context: JobContext
) -> tuple[DiskPreview, ...]:
    """A running machine's disks, by its own account."""
    facts = context.sources.look(source)
    rules.caching(wanted.host_caching, [disk.lun for disk in facts.disks])
    found = []
    for disk in facts.disks:
        name, size = disk_name(disk.lun), disk.virtual_size
        rules.disk_limit(size, wanted.replication_mode, name)
        format = MACHINE_FORMATS.get(disk.format, ImageFormat.RAW)
        found.append(DiskPreview(name, source.socket, format, size, min(disk.data_bytes, size)))
    return tuple(found)


def _opened(
    request: PublishRequest, wanted: VersionRequest, context: JobContext
) -> tuple[DiskPreview, ...]:
    disks = []
    with (
        context.work.directory() as work,
        supplied(request.sources, work, context.sources) as supply,
    ):
        found = ingest(supply.disks, context.images)
        rules.caching(wanted.host_caching, [disk.lun for disk in found])
        for disk in found:
            rules.disk_limit(disk.virtual_size, wanted.replication_mode, disk.name)
            with context.images.open(disk.chain) as source:
                amount = data_bytes(source.extents())
            top = disk.chain[0]
            disks.append(DiskPreview(disk.name, top.path, top.format, disk.virtual_size, amount))
    return tuple(disks)


def judge(old: ImageVersion | None, fingerprint: str, gallery: GalleryService) -> Action:
    """What publishing over `old` would be; raises Conflict when its number is taken."""
    if old is None:
        return Action.PUBLISH
    if old.provisioning_state is ProvisioningState.SUCCEEDED and old.fingerprint == fingerprint:
        return Action.NOTHING
    busy = old.owner is not None and not gallery.is_interrupted(old)
    rules.number_free(old, fingerprint, owner_alive=busy)
    return Action.CONTINUE


def find_version(name: VersionName, gallery: GalleryService) -> ImageVersion | None:
    try:
        return gallery.get_version(name)
    except NotFound:
        return None


def next_patch(
    definition: DefinitionName, fingerprint: str, versions: Iterable[ImageVersion]
) -> VersionName:
    """The number after the highest of `versions` (newest first); the highest itself when it was
    left unfinished by the same request, which then continues."""
    highest = next(iter(versions), None)
    if highest is None:
        return VersionName(definition, FIRST_NUMBER)
    unfinished = highest.provisioning_state in (
        ProvisioningState.CREATING,
        ProvisioningState.FAILED,
    )
    if unfinished and highest.fingerprint == fingerprint:
        return highest.name
    number = replace(highest.number, patch=highest.number.patch + 1)
    return VersionName(definition, parse_number(str(number)))


def _targets(
    wanted: VersionRequest, definition: ImageDefinition, context: JobContext
) -> tuple[TargetRegion, ...]:
    rules.version_request(wanted, definition, datetime.now(UTC))
    known = [
        Region(name, storage_types([zone.premium for zone in zones]))
        for name, zones in context.zones.items()
    ]
    location = rules.known_region(wanted.location or definition.location, known)
    return rules.targets(
        wanted.target_regions,
        location,
        known,
        wanted.replication_mode,
        kind=rules.storage_type(wanted),
        strategy=wanted.storage_account_strategy,
        common=wanted.replica_count,
    )


def _regions(
    wanted: VersionRequest,
    targets: tuple[TargetRegion, ...],
    old: ImageVersion | None,
    context: JobContext,
) -> tuple[RegionPreview, ...]:
    parents = context.gallery.parents_of(wanted.name)
    places = place(
        targets,
        parents,
        context.zones,
        replica_count=wanted.replica_count,
        key="" if old is None else old.zone_key,
        zrs_same_filesystem=context.zrs_same_filesystem,
    )
    return tuple(
        RegionPreview(
            region,
            sum(share.replicas for share in shares),
            tuple(share.zone.path for share in shares),
            min(share.zone.free_bytes() for share in shares),
            all(share.zone.reflink for share in shares),
            all(has_parent(share.zone, parents) for share in shares),
            old is not None and old.is_completed_in(region),
        )
        for region, shares in places.items()
    )
