"""Disks: writable copy-on-write children of a base, for a VM to use.

A disk's file lies in a directory of its own below the zone that keeps its base (on the same file
system, so that it can be a clone), or where the user says. The base stays as long as the disk does.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipeline.data.extents import SECTOR
from pipeline.errors import Conflict, InvalidParameter, undone_by
from pipeline.gallery import rules
from pipeline.gallery.documents import resource_document
from pipeline.gallery.service.resources import as_disk
from pipeline.jobs.context import JobContext
from pipeline.jobs.running import running, when_free
from pipeline.jobs.shallow import refuse_needed
from pipeline.model.resource_names import ResourceName
from pipeline.model.resources import (
    CreateOption,
    CreationData,
    Disk,
    DiskFile,
    DiskState,
    Resource,
)
from pipeline.model.runs import RunKind
from pipeline.model.sources import DiskKinds, VersionSource
from pipeline.ports import Layer, Replica, ReplicaDisk, StoredBase, VersionRecord
from pipeline.ports.sources import Supply
from pipeline.resources.opening import disk_files, find_base, known_as
from pipeline.resources.snapshots import Properties, at_os, blank, creation_of
from pipeline.resources.storing import (
    Intake,
    home,
    remove,
    store_resource,
    taken_back,
)
from pipeline.storage.placement import every_zone
from pipeline.storage.soundness import check_base

LIMIT = 32 << 40  # bytes, Azure's largest managed disk is 32,767 GiB


@dataclass(frozen=True, slots=True)
class VersionDisk:
    """One disk of a version: `lun` None is the OS disk."""

    reference: str
    lun: int | None = None


DiskOrigin = DiskKinds | VersionDisk | None  # None: an empty disk


def create_disk(
    name: ResourceName,
    source: DiskOrigin,
    properties: Properties,
    context: JobContext,
    *,
    virtual_size: int = 0,
    directory: Path | None = None,
) -> Disk:
    """Make a disk from a file, another disk, a snapshot or a version's disk; or an empty one of
    `virtual_size` bytes. `directory` (made) is where its file is to be."""
    wanted = wanted_disk(name, source, properties, context, virtual_size, directory)
    with running(context, RunKind.DISK, name.arm_id) as context:
        left = next((item for item in context.records.resources() if item.name == name), None)
        begun = when_free(lambda: context.resources.begin(wanted), context)
        return made_from(begun, source, left, context)


def wanted_disk(
    name: ResourceName,
    source: DiskOrigin,
    properties: Properties,
    context: JobContext,
    virtual_size: int = 0,
    directory: Path | None = None,
) -> Disk:
    """The disk that is to be made, if its source is there and may be used."""
    if (source is None) != bool(virtual_size):
        raise InvalidParameter(
            "an empty disk needs a size, and any other has that of its source",
            hint="give --size-gb without a source, or a source without --size-gb",
        )
    if virtual_size % SECTOR or virtual_size > LIMIT:
        raise InvalidParameter(f"a disk can't have {virtual_size} bytes")
    return replace(
        blank(Disk, name, properties),
        creation_data=origin_of(source, context),
        disk_size=virtual_size,
        directory=str(directory.absolute()) if directory else "",
    )


def made_from(begun: Disk, source: DiskOrigin, left: Resource | None, context: JobContext) -> Disk:
    """A disk that has been begun, with the content of its source; `left` is what an earlier run
    began under its name."""
    zones, directories = every_zone(context.zones), context.disks
    if isinstance(left, Disk):  # what a killed run began under the name, perhaps elsewhere
        directories.forget_unfinished(left, zones)
    undo = partial(directories.forget_unfinished, begun, zones)
    with taken_back([begun], context), undone_by(undo):
        directories.check_new(begun)
        made = empty(begun, context) if source is None else filled_from(begun, source, context)
        finished = context.records.finish_resource(made)
    directories.recorded(finished)
    return finished


def origin_of(source: DiskOrigin, context: JobContext) -> CreationData:
    if source is None:
        return CreationData(CreateOption.EMPTY)
    if isinstance(source, VersionDisk):
        version = context.gallery.resolve(source.reference)
        return CreationData(
            CreateOption.FROM_IMAGE,
            gallery_image_reference=known_as(version, source.reference),
            source_unique_id=version.uid,
            lun=source.lun,
        )
    context.sources.identity(source)
    return creation_of(source, context)


def empty(disk: Disk, context: JobContext) -> Disk:
    """A sparse raw file: all zeros, and no base."""
    zone = home(disk.location, {}, disk.zone_key, context)
    path = context.disks.create_empty(context.disks.begin(disk, zone), disk.disk_size)
    zone.publish(VersionRecord(disk.zone_key, resource_document(disk)), {}, 0)
    return replace(disk, file=DiskFile(str(context.disks.commit(path, disk)), "raw"))


def filled_from(disk: Disk, source: DiskKinds | VersionDisk, context: JobContext) -> Disk:
    whole = VersionSource(source.reference) if isinstance(source, VersionDisk) else source
    with context.work.directory() as work, context.sources.open(whole, work) as supply:
        one = only(supply, source) if isinstance(source, VersionDisk) else at_os(supply)
        stored = store_resource(disk, Intake(one), work, context)
    (content,) = stored.contents
    zone = home(disk.location, {None: (content.digest,)}, disk.zone_key, context)
    base = check_base(zone, content.digest, context) or find_base(
        content.digest, context.zones, disk.id
    )
    target = context.disks.begin(disk, zone)
    ((made,),) = zone.deploy(Replica(0, (pattern(base),)), [target])
    return replace(
        stored,
        disk_size=content.virtual_size,
        file=DiskFile(str(context.disks.commit(made.path, disk)), made.format.value),
    )


def only(supply: Supply, source: VersionDisk) -> Supply:
    """One disk of a version."""
    lun = source.lun
    for disk in supply.disks:
        if disk.lun == lun:
            origin = supply.origins[lun]
            return replace(supply, disks=(replace(disk, lun=None),), origins={None: origin})
    raise rules.no_disk(source.reference, (disk.lun for disk in supply.disks), lun)


def pattern(base: StoredBase) -> ReplicaDisk:
    """A base as the disk of a replica, to be deployed."""
    top = base.chain[0]
    return ReplicaDisk(None, top.path, top.format, "base", base.digest, base.virtual_size)


def state_of(disk: Disk, context: JobContext) -> DiskState:
    """Whether something has the disk's file open for writing."""
    if disk.file is None:
        return DiskState.UNATTACHED
    files = disk_files(disk, None, context.zones)
    top = Layer(files.path, files.declared) if files.declared else None
    if top is None:
        return DiskState.UNATTACHED
    with context.work.directory() as work:
        try:
            with context.pins.pin([(top,)], work):
                return DiskState.UNATTACHED
        except Conflict:
            return DiskState.ATTACHED


def delete_disk(name: ResourceName, context: JobContext) -> None:
    """Delete a disk with its file. Raises Conflict while a VM uses it."""
    check_unused(name, context)
    with running(context, RunKind.DELETE, name.arm_id) as context:
        going = as_disk(when_free(lambda: context.resources.begin_delete(name), context))
        remove(going, context, lambda: discard(going, context))


def check_unused(name: ResourceName, context: JobContext) -> None:
    """Refuse a disk that a VM uses, or a Shallow version is made of."""
    disk = as_disk(context.resources.get(name))
    if context.disks.exists(disk) and state_of(disk, context) is DiskState.ATTACHED:
        raise Conflict(
            f"The disk '{name}' is in use: its file is open for writing.",
            hint="stop the virtual machine that uses it",
        )
    if disk.file is not None:
        refuse_needed([Path(disk.file.path)], context.zones, f"The disk '{name}'")


def discard(disk: Disk, context: JobContext) -> None:
    if disk.file is None:
        context.disks.forget_unfinished(disk, every_zone(context.zones))
    else:
        context.disks.remove(disk)
