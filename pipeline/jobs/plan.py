"""Plan: what a publish would do, and what is already there. Nothing is published: a URL is
downloaded into the cache, an archive unpacked into the work directory."""

from collections.abc import Iterable, Set
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from pipeline.data.extents import data_bytes
from pipeline.errors import NotFound
from pipeline.gallery import rules
from pipeline.gallery.service import GalleryService
from pipeline.guest.profiles import Plan
from pipeline.jobs.context import JobContext
from pipeline.jobs.prepare import (
    Checked,
    PublishRequest,
    check_publish,
    effective_plan,
    fingerprinted,
)
from pipeline.jobs.replicate import placed
from pipeline.model import ImageVersion, ProvisioningState
from pipeline.model.disks import disk_name
from pipeline.model.images import QEMU_FORMATS
from pipeline.model.names import DefinitionName, VersionName, VersionNumber, parse_number
from pipeline.model.sources import QemuSource, VmSource
from pipeline.ports import ImageFormat
from pipeline.ports.machines import MachineFacts
from pipeline.ports.sources import Supply
from pipeline.sources.ingest import file_name
from pipeline.sources.supply import supplied
from pipeline.storage.placement import Parents, has_parent

FIRST_NUMBER = VersionNumber(1, 0, 0)
# of versions that the same request is done with, or goes on with
_OWN = (ProvisioningState.CREATING, ProvisioningState.FAILED, ProvisioningState.SUCCEEDED)


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

    def document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "path": str(self.path),
            "format": self.format.value,
            "virtualSize": self.virtual_size,
            "dataBytes": self.data_bytes,
        }


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

    def document(self) -> dict[str, Any]:
        return {
            "region": self.region,
            "replicas": self.replicas,
            "zones": [str(zone) for zone in self.zones],
            "freeBytes": self.free_bytes,
            "reflink": self.reflink,
            "startsFrom": self.starts_from,
            "done": self.done,
        }


@dataclass(frozen=True, slots=True)
class Preview:
    """`generalized`: what the version is to be; `operations` are those that make it so, None when
    nothing is done to the guest. `source` is a version that is to be made first: its disks are not
    known yet."""

    name: VersionName
    action: Action
    generalized: bool
    operations: tuple[str, ...] | None
    disks: tuple[DiskPreview, ...]
    regions: tuple[RegionPreview, ...]
    source: VersionName | None = None

    def document(self) -> dict[str, Any]:
        """As JSON data."""
        found: dict[str, Any] = {
            "version": self.name.arm_id,
            "action": self.action.value,
            "generalized": self.generalized,
            "operations": self.operations or (),
            "disks": [item.document() for item in self.disks],
            "regions": [item.document() for item in self.regions],
        }
        if self.source is not None:
            found["source"] = self.source.arm_id
        return found


def preview(request: PublishRequest, context: JobContext) -> Preview:
    """Check everything that `publish` checks before it reads. Raises what it would raise."""
    version, action = trial(request, context)
    return preview_of(version, action, request, context)


def preview_of(
    version: ImageVersion, action: Action, request: PublishRequest, context: JobContext
) -> Preview:
    """What becomes of the sources of a version that `trial` found."""
    if live := running(request, context):
        disks = _running(*live, version, request)
        plan = effective_plan(version, request, Supply(()))
        parents = context.gallery.parents_of(version.name)
        return _preview(version, action, plan, disks, parents, context)
    with (
        context.work.directory() as work,
        supplied(request.sources, work, context.sources) as supply,
    ):
        return shown(version, action, check_publish(version, supply, request, context), context)


def preview_after(source: Preview, request: PublishRequest, context: JobContext) -> Preview:
    """What becomes of a version that `source`, which is not made yet, is the source of."""
    old = find_version(request.version.name, context.gallery)
    fingerprint = request.version.fingerprint
    action = judge(old, fingerprint, context.gallery)
    version = context.gallery.try_version(request.version)
    plan = effective_plan(version, request, Supply((), generalized=source.generalized))
    parents = context.gallery.parents_of(version.name)
    return replace(_preview(version, action, plan, (), parents, context), source=source.name)


def trial(request: PublishRequest, context: JobContext) -> tuple[ImageVersion, Action]:
    """The version that a publish would begin with, or that is there, and what it would be."""
    wanted = fingerprinted(request, context.sources)
    old = find_version(wanted.name, context.gallery)
    action = judge(old, wanted.fingerprint, context.gallery)
    if old is not None and action is Action.NOTHING:
        return old, action
    return context.gallery.try_version(wanted), action


def shown(version: ImageVersion, action: Action, checked: Checked, context: JobContext) -> Preview:
    """What the sources of a version that passed every check are to become."""
    disks = []
    for disk in checked.disks:
        with context.images.open(disk.chain) as source:
            amount = data_bytes(source.extents())
        top = disk.chain[0]
        disks.append(
            DiskPreview(disk.name, Path(file_name(disk)), top.format, disk.virtual_size, amount)
        )
    parents = checked.destination.parents
    return _preview(version, action, checked.plan, tuple(disks), parents, context)


def _preview(
    version: ImageVersion,
    action: Action,
    plan: Plan | None,
    disks: tuple[DiskPreview, ...],
    parents: Parents,
    context: JobContext,
) -> Preview:
    regions = _regions(version, parents, context)
    names = None if plan is None else tuple(operation.name for operation in plan.operations)
    return Preview(version.name, action, version.generalized, names, disks, regions)


def running(request: PublishRequest, context: JobContext) -> tuple[Path, MachineFacts] | None:
    """The machine that a version would be captured from, if there is one: a trial leaves it
    alone."""
    for source in request.sources:
        if isinstance(source, QemuSource | VmSource):
            facts = context.sources.machine_facts(source)
            named = source.socket if isinstance(source, QemuSource) else Path(source.name)
            return None if facts is None else (named, facts)
    return None


def _running(
    named: Path, facts: MachineFacts, version: ImageVersion, request: PublishRequest
) -> tuple[DiskPreview, ...]:
    """A running machine's disks, by its own account."""
    rules.caching(request.version.host_caching, [disk.lun for disk in facts.disks])
    found = []
    for disk in facts.disks:
        name, size = disk_name(disk.lun), disk.virtual_size
        rules.disk_limit(size, version.replication_mode, name)
        format = QEMU_FORMATS.get(disk.format, ImageFormat.RAW)  # what else it reads has no format
        found.append(DiskPreview(name, named, format, size, min(disk.data_bytes, size)))
    return tuple(found)


def judge(old: ImageVersion | None, fingerprint: str, gallery: GalleryService) -> Action:
    """What publishing over `old` would be; raises Conflict when its number is taken."""
    if old is None:
        return Action.PUBLISH
    if old.provisioning_state is ProvisioningState.SUCCEEDED and old.fingerprint == fingerprint:
        return Action.NOTHING
    rules.number_free(old, fingerprint, gallery.holder(old))
    return Action.CONTINUE


def find_version(name: VersionName, gallery: GalleryService) -> ImageVersion | None:
    try:
        return gallery.get_version(name)
    except NotFound:
        return None


def next_patch(
    definition: DefinitionName,
    fingerprint: str,
    versions: Iterable[ImageVersion],
    others: Set[str] = frozenset(),
) -> VersionName:
    """The number after the highest of `versions` (newest first). Or that of the newest itself, when
    it was published by the same request, or left unfinished: then there is nothing to do, or to go
    on with. Newer ones by requests of `others` do not count."""
    highest: ImageVersion | None = None
    for version in versions:
        highest = highest or version
        if version.fingerprint == fingerprint and version.provisioning_state in _OWN:
            return version.name
        if version.fingerprint not in others:
            break
    if highest is None:
        return VersionName(definition, FIRST_NUMBER)
    number = replace(highest.number, patch=highest.number.patch + 1)
    return VersionName(definition, parse_number(str(number)))


def _regions(
    version: ImageVersion, parents: Parents, context: JobContext
) -> tuple[RegionPreview, ...]:
    names = [target.name for target in version.target_regions]
    return tuple(
        RegionPreview(
            region,
            sum(placement.replicas for placement in placements),
            tuple(placement.zone.path for placement in placements),
            min(placement.zone.free_bytes() for placement in placements),
            all(placement.zone.reflink for placement in placements),
            all(has_parent(placement.zone, parents) for placement in placements),
            version.is_completed_in(region),
        )
        for region, placements in placed(version, names, context, parents).items()
    )
