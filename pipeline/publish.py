"""THE MAIN JOB: a VM's disks in; a generalized, hashed, versioned image with replicas in regions
out.

Read `publish` first: it is the whole product on one screen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.jobs import shallow
from pipeline.jobs.agree import agree, partition_table
from pipeline.jobs.boot_check import boot_disks, boot_stored, check_bootable
from pipeline.jobs.context import JobContext, recorded
from pipeline.jobs.prepare import PublishPolicy, prepare
from pipeline.jobs.replicate import (
    complete,
    given_back,
    held,
    placed,
    region_meter,
    replicate_missing,
    settled,
    zone_record,
)
from pipeline.jobs.request import PublishRequest, check_limits, confirm, described, ready
from pipeline.jobs.timing import Record
from pipeline.model import DiskProvenance, ImageDisk, ImageVersion, ReplicationState
from pipeline.ports.sources import Supply
from pipeline.sources.ingest import Disk, ingest
from pipeline.sources.pin import snapshot
from pipeline.sources.supply import supplied
from pipeline.storage.commit import replicate
from pipeline.storage.convert import Stored
from pipeline.storage.placement import sinks
from pipeline.storage.store import store


def publish(request: PublishRequest, context: JobContext) -> ImageVersion:
    """Publish a version. Every rule is checked before a byte is read; the source is never written;
    a region is Completed or not there. Raises PartiallyReplicated when only some regions are."""
    context, record = recorded(context)
    with context.work.directory() as work:
        version = context.gallery.begin_version(described(request, context.sources))
        with given_back(version, context):
            context.begun(version)
            if version.completed_regions:  # an earlier run ended after that: no source needed
                version = replicate_missing(version, work, context)
            else:
                with supplied(request.sources, work, context.sources) as supply:
                    version = make(version, supply, request, work, context)
            version = conclude(version, context, record)
    return complete(version)


def make(
    version: ImageVersion, supply: Supply, request: PublishRequest, work: Path, context: JobContext
) -> ImageVersion:
    """The stages, in order."""
    agree(version, supply.description, request.version.source, context.gallery)
    with context.timed("inspect"):
        sources = ingest(supply.disks, context.images)
    check_limits(version, sources, request, context)
    if shallow.is_shallow(version):
        return make_shallow(version, supply, sources, request, work, context)
    with (
        ready(version, supply, sources, request, work, context) as found,
        held(sinks(found.places), context, found.material.known.values()),
    ):
        with context.timed("store"):
            advance = region_meter(version, found.places, found.disks, context)
            stored = store(
                found.material, work, advance, context.zones, context.images, context.progress
            )
            for disk in stored.disks:
                context.moved("store", disk.result.stats)
        report, nvram = found.report, supply.description.nvram
        if request.boot_check:
            report = boot_stored(version, stored, nvram, report, work, context)
        parts = cached(stored_disks(sources, supply, stored), supply, request)
        version = describe(version, parts, report, found.unverified, context)
        with context.timed("replicate"):
            record = zone_record(version, context, nvram)
            outcome = replicate(version, record, stored, found.places, context.gallery)
        return settled(outcome, found.places)


def make_shallow(
    version: ImageVersion,
    supply: Supply,
    sources: Sequence[Disk],
    request: PublishRequest,
    work: Path,
    context: JobContext,
) -> ImageVersion:
    """The stages without a copy: what the replica leans on is the source itself."""
    shallow.check_lasting(request.sources)
    files = shallow.fingerprints(sources, context.pins)
    nvram = supply.description.nvram
    if request.boot_check:
        check_bootable(version, nvram, context)
    with snapshot(sources, work, context.pins) as (disks, pin):
        table = partition_table(disks, context.images)
        confirm(version, table, {}, supply, request, context)
        places = placed(version, [version.location], context)
        plan = request.plan if version.generalized else None
        definition = context.gallery.get_definition(version.name.definition)
        policy = PublishPolicy(definition, request.force, request.validate)
        disks, report = prepare(disks, table, plan, supply, policy, work, context)
        shallow.zero_free(disks, context.images)
        unverified = confirm(version, table, report, supply, request, context)
        if request.boot_check:
            booted = boot_disks(version, disks, nvram, work, context)
            report = {**report, "boot": booted.document()}
        pin.verify()
        shallow.check_still(files, context.pins)
        with held(sinks(places), context):
            parts = cached(shallow.image_disks(sources, files), supply, request)
            version = describe(version, parts, report, unverified, context)
            record = zone_record(version, context, nvram)
            disks_on_source = shallow.shallow_disks(sources, disks, edited=plan is not None)
            status = shallow.publish_shallow(
                record, disks_on_source, places[version.location][0].zone
            )
            return context.gallery.set_regions(version, status)


def stored_disks(sources: Sequence[Disk], supply: Supply, stored: Stored) -> list[ImageDisk]:
    origins = {
        disk.lun: DiskProvenance(str(top.path), top.format.value, supply.origins.get(disk.lun))
        for disk in sources
        for top in disk.chain[:1]
    }
    return [
        ImageDisk(disk.lun, disk.digest, disk.virtual_size, origins[disk.lun])
        for disk in stored.disks
    ]


def cached(disks: Sequence[ImageDisk], supply: Supply, request: PublishRequest) -> list[ImageDisk]:
    """The disks with the host caching that VMs made from them are to have: what is asked for, or
    else what they had in the version that they come from."""
    wanted = {**supply.description.host_caching, **request.version.host_caching}
    return [replace(disk, host_caching=wanted.get(disk.lun)) for disk in disks]


def describe(
    version: ImageVersion,
    disks: Sequence[ImageDisk],
    report: Mapping[str, Any],
    unverified: tuple[str, ...],
    context: JobContext,
) -> ImageVersion:
    """Record what the version consists of, before anything of it is visible."""
    if unverified:
        context.progress.warn(
            f"{version.name}: nothing shows whether these are as the definition says: "
            f"{', '.join(unverified)}"
        )
    return context.gallery.record_contents(version, disks, report, unverified)


def conclude(version: ImageVersion, context: JobContext, record: Record) -> ImageVersion:
    """End the publication, or leave the regions that were not tried to a background process; and
    where the time went."""
    stats = record.document()
    if all(status.state is not ReplicationState.UNKNOWN for status in version.regions):
        return context.gallery.finish_version(version, stats)
    version = context.gallery.hand_over(version, stats)
    context.later(version)
    return version
