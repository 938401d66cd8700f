"""Snapshots of all disks of a machine: of one that runs, at one point in time."""

from dataclasses import replace
from functools import partial

from pipeline.jobs.context import JobContext
from pipeline.jobs.running import running, when_free
from pipeline.model import Origin
from pipeline.model.disks import disk_name
from pipeline.model.resource_names import ResourceName
from pipeline.model.resources import CreateOption, CreationData, Snapshot
from pipeline.model.runs import RunKind
from pipeline.model.sources import AnySource, DiskKinds, QemuSource
from pipeline.ports.machines import Capture, CaptureRequest, DiskPlan, MachineDisk, MachineFacts
from pipeline.ports.sources import Supply
from pipeline.resources.opening import chain_files, sound_base, tell
from pipeline.resources.snapshots import Properties, blank, create_snapshot, digests, family_id
from pipeline.resources.storing import Intake, home, store_resource, taken_back
from pipeline.storage.placement import Parents
from pipeline.storage.soundness import checked_base


def create_snapshots(
    name: ResourceName,
    source: AnySource,
    properties: Properties,
    context: JobContext,
    *,
    incremental: bool = False,
) -> list[Snapshot]:
    """Keep one point in time of whatever a user names. Of a VM that does not run: a snapshot for
    each of its disks, named as those of a running one."""
    if isinstance(source, DiskKinds):
        return [create_snapshot(name, source, properties, context, incremental=incremental)]
    if isinstance(source, QemuSource):
        return create_machine_snapshots(name, source, properties, context, incremental=incremental)
    with context.work.directory() as work, context.sources.open(source, work) as supply:
        return [
            create_snapshot(
                suffixed(name, disk.lun), disk, properties, context, incremental=incremental
            )
            for disk in supply.disks
        ]


def create_machine_snapshots(
    name: ResourceName,
    source: QemuSource,
    properties: Properties,
    context: JobContext,
    *,
    incremental: bool = False,
) -> list[Snapshot]:
    """Keep one point in time of all disks of a running VM: a snapshot each, the OS disk's under
    `name`, the others' with their LUN behind it. Incremental ones read from the VM what was
    written since the last that was kept of it."""
    context.resources.require_machine()
    facts = context.machines.facts(source.socket)
    with running(context, RunKind.SNAPSHOT, name.arm_id) as context:
        return captured_disks(name, source, facts, properties, context, incremental=incremental)


def captured_disks(
    name: ResourceName,
    source: QemuSource,
    facts: MachineFacts,
    properties: Properties,
    context: JobContext,
    *,
    incremental: bool,
) -> list[Snapshot]:
    """The snapshots of all disks of a machine."""
    begun: list[Snapshot] = []
    with taken_back(begun, context):
        for disk in facts.disks:  # one by one: a name that is taken gives the others back
            creation = CreationData(
                CreateOption.IMPORT,
                source_uri=str(source.socket.absolute()),
                source_unique_id=machine_id(facts, source),
                lun=disk.lun,
            )
            snapshot = replace(
                blank(Snapshot, suffixed(name, disk.lun), properties),
                creation_data=creation,
                incremental=incremental,
                machine_disk=disk.name,
            )
            begun.append(when_free(partial(context.resources.begin, snapshot), context))
        mark = begun[0].unique_id
        last = [
            previous(disk, snapshot, context) if incremental else None
            for disk, snapshot in zip(facts.disks, begun, strict=True)
        ]
        request = CaptureRequest(
            source.socket,
            mark,
            tuple(
                plan(disk, older, snapshot, context)
                for disk, older, snapshot in zip(facts.disks, last, begun, strict=True)
            ),
            source.agent,
            remember=incremental,
        )
        with context.machines.capture(request, context.progress) as capture:
            tell(capture.stall.seconds, capture.stall.reason, context.progress)
            made = [
                captured(capture, number, older, replace(snapshot, capture_mark=mark), context)
                for number, (snapshot, older) in enumerate(zip(begun, last, strict=True))
            ]
            finished = [context.records.finish_resource(snapshot) for snapshot in made]
            capture.keep()
        return finished


def captured(
    capture: Capture,
    number: int,
    older: Snapshot | None,
    snapshot: Snapshot,
    context: JobContext,
) -> Snapshot:
    """Store one captured disk. What was read from the VM is what counts as read."""
    item = capture.disks[number]
    origin = Origin("virtualMachine", snapshot.creation_data.source_uri, lun=item.disk.lun)
    supply = Supply((chain_files(item.chain, None),), origins={None: origin})
    family = [older] if older is not None else []
    parents: Parents = {None: digests(family)}
    snapshot = replace(snapshot, incremental_snapshot_family_id=family_id(snapshot, family))
    with context.work.directory() as work:  # stages name files by the disk's LUN
        made = store_resource(snapshot, Intake(supply, parents), work, context)
    return replace(made, bytes_read=item.transferred)


def suffixed(name: ResourceName, lun: int | None) -> ResourceName:
    return name if lun is None else replace(name, name=f"{name.name}-{disk_name(lun)}")


def machine_id(facts: MachineFacts, source: QemuSource) -> str:
    return facts.uuid or str(source.socket.absolute())


def plan(
    disk: MachineDisk, older: Snapshot | None, snapshot: Snapshot, context: JobContext
) -> DiskPlan:
    if older is None:
        return DiskPlan(disk.name)
    base = sound_base(older.contents[0].digest, context.zones, older.id, context)
    return DiskPlan(disk.name, older.capture_mark, base.chain)


def previous(disk: MachineDisk, snapshot: Snapshot, context: JobContext) -> Snapshot | None:
    """The newest snapshot since which the machine knows all changes, if its content is here."""
    for item in context.records.snapshots():
        if item.capture_mark not in disk.marks or item.machine_disk != disk.name:
            continue
        if item.disk_size_bytes != disk.virtual_size:
            continue
        zone = home(snapshot.location, {None: digests([item])}, "", context)
        if checked_base(zone, item.contents[0].digest, context, reused=True) is not None:
            return item
    return None
