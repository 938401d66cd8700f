"""Every stage alone, for CI steps and for looking at things: inspect, generalize, convert, hash,
snapshot, export."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.data.copying import CopyResult
from pipeline.data.extents import data_bytes
from pipeline.data.manifest import ManifestReader, Run
from pipeline.errors import NotFound, Refused, UnsafeImage
from pipeline.guest.checks import Evidence, evidence, windows_state
from pipeline.guest.profiles import Plan
from pipeline.guest.windows import arm
from pipeline.jobs import shallow
from pipeline.jobs.context import JobContext
from pipeline.jobs.prepare import clean
from pipeline.jobs.replicate import sound_donor
from pipeline.model import ImageVersion
from pipeline.model.descriptions import Description
from pipeline.model.disks import disk_name
from pipeline.model.sources import ArchiveSource, DiskSource
from pipeline.ports import Chain, GuestFacts, ImageFacts, ImageFormat, Zone
from pipeline.ports.extents import Range
from pipeline.sources.ingest import Disk, content_notes, inspect_disk, inspected, inspected_disk
from pipeline.sources.partitions import PartitionTable, read_partitions
from pipeline.sources.pin import pin_disks
from pipeline.storage.convert import hash_disk


@dataclass(frozen=True, slots=True)
class Inspection:
    """What `galleria inspect` shows. `partitions` is None for an unsafe file, which is not opened;
    `guest` and `evidence` are None when no appliance was asked for."""

    facts: ImageFacts
    partitions: PartitionTable | None = None
    guest: GuestFacts | None = None
    evidence: Evidence | None = None


def inspect_file(source: DiskSource, context: JobContext, *, deep: bool) -> Inspection:
    """Look at a file without changing or pinning it. `deep` starts an appliance for the guest."""
    with context.work.directory() as work, context.sources.unwrapped(source, work) as disk:
        return _inspect(disk, work, context, deep=deep)


@dataclass(frozen=True, slots=True)
class ArchivedDisk:
    """A disk in an archive: what it is called there, and the facts of it, unpacked."""

    lun: int | None
    name: str
    facts: ImageFacts


@dataclass(frozen=True, slots=True)
class ArchiveInspection:
    """A Vagrant box or an OVA: what its description says, and the disks of its machine."""

    source: ArchiveSource
    description: Description
    disks: tuple[ArchivedDisk, ...]


def inspect_archive(source: ArchiveSource, context: JobContext) -> ArchiveInspection:
    """Look at all that is in an archive; its disks are unpacked for it. Raises UnsafeImage for an
    archive that is no such one."""
    with context.work.directory() as work, context.sources.open(source, work) as supply:
        disks = [
            ArchivedDisk(disk.lun, disk.shown, inspected(disk, context.images)[0])
            for disk in supply.disks
        ]
        return ArchiveInspection(source, supply.description, tuple(disks))


def _inspect(source: DiskSource, work: Path, context: JobContext, *, deep: bool) -> Inspection:
    layers = inspected(source, context.images)
    facts = layers[0]
    unsafe = next((layer for layer in layers if layer.refusals), None)
    if unsafe is not None:
        return Inspection(unsafe)
    try:
        disk = inspected_disk(source, layers, context.images)
    except UnsafeImage as error:
        return Inspection(replace(facts, refusals=(error.message,)))
    with context.images.open(disk.chain) as content:
        partitions = read_partitions(content, facts.logical_sector_size)
        facts = replace(facts, notes=(*facts.notes, *content_notes(facts, content)))
    if not deep:
        return Inspection(facts, partitions)
    # the appliance sees the disk through an overlay: one explicit node tree for every format
    overlay = context.images.create_overlay(disk.chain, work / f"{disk.name}.qcow2")
    with (
        context.progress.stage("survey the guest"),
        context.guests.session([overlay], writable=False) as session,
    ):
        guest = session.inspect()
        found = evidence(session, guest)
    return Inspection(facts, partitions, guest, found)


@contextmanager
def pinned(source: DiskSource, context: JobContext) -> Iterator[tuple[Disk, Path]]:
    """One disk held still, and a work directory. Raises SourceChanged at the end when
    it did not hold still."""
    with context.work.directory() as work, context.sources.unwrapped(source, work) as found:
        disk = inspect_disk(found, context.images)
        with pin_disks([disk], work, context.pins) as (disks, pin):
            yield disks[0], work
            pin.verify()


def generalize_file(
    source: DiskSource, plan: Plan, path: Path, format: ImageFormat, context: JobContext
) -> dict[str, Any]:
    """Write a generalized copy of a disk; returns the report. The source is never written."""
    with pinned(source, context) as (disk, work):
        cleaned = clean((disk,), plan, work, context)
        (result,) = cleaned.disks
        write(result.chain, path, format, "", context, result.free)
    return dict(cleaned.report)


@dataclass(frozen=True, slots=True)
class Armed:
    """A Windows disk whose next boot runs Sysprep. `written` are the paths in the guest."""

    facts: GuestFacts
    written: tuple[str, ...]


def arm_file(
    source: DiskSource,
    unattend: bytes | None,
    path: Path,
    format: ImageFormat,
    context: JobContext,
    *,
    force: bool = False,
) -> Armed:
    """Write a copy of a specialized Windows disk that generalizes itself when it is booted.
    `unattend` is Sysprep's answer file; one without answers is made when it is None."""
    answers = None if unattend is None else arm.check_unattend(unattend)
    with pinned(source, context) as (disk, work):
        overlay = context.images.create_overlay(disk.chain, work / f"{disk.name}.qcow2")
        with (
            context.progress.stage("arm sysprep"),
            context.guests.session([overlay], writable=True) as session,
        ):
            facts = session.inspect()
            found = windows_state(session, facts)
            if found is None:
                raise Refused(
                    f"the guest is no Windows but {facts.os_type}",
                    hint="galleria generalize treats other guests without booting them",
                )
            arm.check(found, force=force)
            written = arm.arm(session.mount(), facts.architecture, answers)
        write(overlay, path, format, "", context)
    return Armed(facts, written)


def convert_file(
    source: DiskSource, path: Path, format: ImageFormat, subformat: str, context: JobContext
) -> None:
    """Write a disk in another format: the same guest-visible bytes (a fixed VHD is padded)."""
    with pinned(source, context) as (disk, _):
        write(disk.chain, path, format, subformat, context)


def write(
    chain: Chain,
    path: Path,
    format: ImageFormat,
    subformat: str,
    context: JobContext,
    free: Sequence[Range] = (),
) -> None:
    """Write a chain as one file, and tell how much it was."""
    with context.images.open(chain, free=free) as content:
        total = data_bytes(content.extents())
    with context.progress.stage(f"write {path.name}", total) as meter:
        context.images.export(chain, path, format, subformat=subformat, free=free)
        meter.advance(total)


@contextmanager
def hash_file(
    source: DiskSource, context: JobContext
) -> Iterator[tuple[CopyResult, Iterator[Run]]]:
    """The digests of a disk: its root, and its chunks as the manifest's runs."""
    with pinned(source, context) as (disk, work):
        manifest = work / "manifest"
        result = hash_disk(disk, manifest, context.storing("hash", work))
        with context.files.open(manifest) as file:
            yield result, ManifestReader(file).runs()


def export_version(
    version: ImageVersion,
    lun: int | None,
    path: Path,
    format: ImageFormat,
    subformat: str,
    context: JobContext,
) -> None:
    """Write one disk of a version as a stand-alone file."""
    zone = sound_donor(version, context)
    write(disk_chain(version, lun, zone, context), path, format, subformat, context)


def disk_chain(version: ImageVersion, lun: int | None, zone: Zone, context: JobContext) -> Chain:
    """One disk of a version as a zone has it. Raises NotFound."""
    disk = next((disk for disk in version.disks if disk.lun == lun), None)
    if disk is None:
        luns = ", ".join(disk_name(disk.lun) for disk in version.disks)
        raise NotFound(f"{version.name} has no disk {disk_name(lun)}", hint=f"it has: {luns}")
    if shallow.is_shallow(version):
        shallow.check_sources(version, context.pins)
        return shallow.replica_chain(version, lun, zone)
    base = zone.find_base(disk.digest)
    if base is None:
        hint = "galleria verify"
        raise NotFound(f"the base {disk.digest} of {version.name} is gone", hint=hint)
    return base.chain
