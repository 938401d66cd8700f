"""Snapshots: an immutable point in time of a disk or of a file.

Incremental ones of one source are a family. Each is a base that starts from the one before: a clone
with the changed chunks written where the file system can clone, a delta with only them elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from pipeline.errors import NotFound
from pipeline.gallery.service.resources import as_disk, as_snapshot
from pipeline.jobs.context import JobContext
from pipeline.jobs.running import running, when_free
from pipeline.jobs.shallow import refuse_needed_key
from pipeline.model import Architecture, HyperVGeneration, Origin, OsType, PurchasePlan
from pipeline.model.clock import utc_now
from pipeline.model.resource_names import ResourceKind, ResourceName, parse_resource
from pipeline.model.resources import (
    Content,
    CreateOption,
    CreationData,
    DiskControllerTypes,
    Resource,
    Snapshot,
    SupportedCapabilities,
)
from pipeline.model.runs import RunKind
from pipeline.model.sources import DiskKinds, SnapshotSource, StoredDiskSource
from pipeline.ports import ImageFormat
from pipeline.ports.sources import Supply
from pipeline.resources.opening import label_of, sound_base
from pipeline.resources.storing import Intake, home, remove, store_resource, taken_back
from pipeline.storage.placement import Parents

R = TypeVar("R", bound=Resource)

FAMILY = 16  # members of a family that a new one may start from


@dataclass(frozen=True, slots=True)
class Properties:
    """What a person may say of a disk's content; None: what is found out."""

    location: str
    os_type: OsType | None = None
    hyper_v_generation: HyperVGeneration | None = None
    architecture: Architecture | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    accelerated_network: bool | None = None
    disk_controller_types: DiskControllerTypes | None = None
    purchase_plan: PurchasePlan | None = None

    @property
    def capabilities(self) -> SupportedCapabilities:
        return SupportedCapabilities(
            self.architecture, self.accelerated_network, self.disk_controller_types
        )


def blank(kind: type[R], name: ResourceName, properties: Properties) -> R:
    """A resource to begin with."""
    return kind(
        name.arm_id,
        properties.location,
        utc_now(),
        "",
        os_type=properties.os_type,
        hyper_v_generation=properties.hyper_v_generation,
        supported_capabilities=properties.capabilities,
        purchase_plan=properties.purchase_plan,
        tags=properties.tags,
    )


def create_snapshot(
    name: ResourceName,
    source: DiskKinds,
    properties: Properties,
    context: JobContext,
    *,
    incremental: bool = False,
) -> Snapshot:
    """Keep one point in time of a disk or a file."""
    wanted = wanted_snapshot(name, source, properties, context, incremental=incremental)
    with running(context, RunKind.SNAPSHOT, name.arm_id) as context:
        begun = when_free(lambda: context.resources.begin(wanted), context)
        return made_from(begun, source, context)


def wanted_snapshot(
    name: ResourceName,
    source: DiskKinds,
    properties: Properties,
    context: JobContext,
    *,
    incremental: bool = False,
) -> Snapshot:
    """The snapshot that is to be made, if its source is there and may be used."""
    context.sources.identity(source)
    creation = creation_of(source, context)
    return replace(
        blank(Snapshot, name, properties), creation_data=creation, incremental=incremental
    )


def made_from(begun: Snapshot, source: DiskKinds, context: JobContext) -> Snapshot:
    """A snapshot that has been begun, with the content of its source."""
    creation, incremental = begun.creation_data, begun.incremental
    with taken_back([begun], context), context.work.directory() as work:
        family = relatives(creation, context) if incremental else []
        begun = replace(begun, incremental_snapshot_family_id=family_id(begun, family))
        with context.sources.open(source, work) as supply:
            parents: Parents = {None: starts(family, begun, source, context)}
            made = store_resource(begun, Intake(at_os(supply), parents), work, context)
        return context.records.finish_resource(made)


def creation_of(source: DiskKinds, context: JobContext) -> CreationData:
    """How a disk or snapshot that is made from this came to be."""
    match source:
        case StoredDiskSource():
            disk = context.resources.get(parse_resource(source.id, ResourceKind.DISK))
            return CreationData(
                CreateOption.COPY, source_resource_id=disk.id, source_unique_id=disk.unique_id
            )
        case SnapshotSource():
            found = context.resources.get(parse_resource(source.id, ResourceKind.SNAPSHOT))
            return CreationData(
                CreateOption.COPY, source_resource_id=found.id, source_unique_id=found.unique_id
            )
        case _:
            return CreationData(CreateOption.IMPORT, source_uri=label_of(source))


def relatives(creation: CreationData, context: JobContext) -> list[Snapshot]:
    """The incremental snapshots of the same source, newest first."""

    def key(item: CreationData) -> tuple[str, str, str]:
        return item.source_resource_id.lower(), item.source_unique_id, item.source_uri

    found = [item for item in context.records.snapshots() if item.incremental]
    return [item for item in found if key(item.creation_data) == key(creation)][:FAMILY]


def family_id(snapshot: Snapshot, family: Sequence[Snapshot]) -> str:
    return family[0].incremental_snapshot_family_id if family else snapshot.unique_id


def digests(family: Sequence[Snapshot]) -> tuple[str, ...]:
    return tuple(content.digest for item in family for content in item.contents)


def starts(
    family: Sequence[Snapshot], snapshot: Snapshot, source: DiskKinds, context: JobContext
) -> tuple[str, ...]:
    """What the new base may start from: its family, then what the disk itself was made from.

    A full snapshot stands alone: it starts from another base only where that is a clone, which
    needs nothing of it any more.
    """
    found = digests(family)
    if isinstance(source, StoredDiskSource):
        disk = as_disk(context.resources.get(parse_resource(source.id, ResourceKind.DISK)))
        found += tuple(content.digest for content in disk.contents)
    zone = home(snapshot.location, {None: found}, "", context)
    return found if snapshot.incremental or zone.reflink else ()


def at_os(supply: Supply) -> Supply:
    """The one disk of a supply in the place of the OS disk: a snapshot has no LUN."""
    (disk,) = supply.disks
    origins: dict[int | None, Origin] = {None: supply.origins[disk.lun]}
    return replace(supply, disks=(replace(disk, lun=None),), origins=origins)


def content_of(resource: Resource) -> Content:
    (content,) = resource.contents
    return content


def export_snapshot(
    name: ResourceName, path: Path, format: ImageFormat, subformat: str, context: JobContext
) -> None:
    """Write a snapshot as one stand-alone file."""
    snapshot = as_snapshot(context.resources.use(name))
    base = sound_base(content_of(snapshot).digest, context.zones, snapshot.id, context)
    with context.progress.stage(f"write {path.name}"):
        context.images.export(base.chain, path, format, subformat=subformat)


def check_unneeded(name: ResourceName, context: JobContext) -> None:
    """Refuse what a Shallow version is made of."""
    if name.kind is ResourceKind.DISK:
        raise NotFound(f"{name} is a disk")
    key = context.resources.get(name).zone_key
    refuse_needed_key(key, context.zones, f"'{name}'")


def delete_resource(name: ResourceName, context: JobContext) -> None:
    """Delete a snapshot or a managed image. What was made from it keeps what it needs."""
    check_unneeded(name, context)
    with running(context, RunKind.DELETE, name.arm_id) as context:
        going = when_free(lambda: context.resources.begin_delete(name), context)
        remove(going, context)
