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
from pipeline.jobs.context import Ports, recorded
from pipeline.jobs.prepare import Guarding, prepare
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
from pipeline.model import DiskSource as Origin
from pipeline.model import ImageDisk, ImageVersion, ReplicationState
from pipeline.ports.sources import Supply
from pipeline.sources.ingest import Disk, ingest
from pipeline.sources.pin import snapshot
from pipeline.sources.supply import supplied
from pipeline.storage.commit import replicate
from pipeline.storage.convert import Stored
from pipeline.storage.placement import sinks
from pipeline.storage.store import store


def publish(request: PublishRequest, ports: Ports) -> ImageVersion:
    """Publish a version. Every rule is checked before a byte is read; the source is never written;
    a region is Completed or not there. Raises PartiallyReplicated when only some regions are."""
    ports, record = recorded(ports)
    with ports.work.directory() as work:
        version = ports.gallery.begin_version(described(request, ports.sources))
        with given_back(version, ports):
            ports.begun(version)
            if version.completed_regions:  # an earlier run ended after that: no source needed
                version = replicate_missing(version, work, ports)
            else:
                with supplied(request.sources, work, ports.sources) as supply:
                    version = make(version, supply, request, work, ports)
            version = conclude(version, ports, record)
    return complete(version)


def make(
    version: ImageVersion, supply: Supply, request: PublishRequest, work: Path, ports: Ports
) -> ImageVersion:
    """The stages, in order."""
    agree(version, supply.description, request.version.source, ports.gallery)
    with ports.timed("inspect"):
        sources = ingest(supply.disks, ports.images)
    check_limits(version, sources, request, ports)
    if shallow.is_shallow(version):
        return make_shallow(version, supply, sources, request, work, ports)
    with (
        ready(version, supply, sources, request, work, ports) as found,
        held(sinks(found.places), ports, found.material.known.values()),
    ):
        with ports.timed("store"):
            advance = region_meter(version, found.places, found.disks, ports)
            stored = store(found.material, work, advance, ports.zones, ports.images, ports.progress)
            for disk in stored.disks:
                ports.moved("store", disk.result.stats)
        report, nvram = found.report, supply.description.nvram
        if request.boot_check:
            report = boot_stored(version, stored, nvram, report, work, ports)
        parts = cached(stored_disks(sources, supply, stored), supply, request)
        version = describe(version, parts, report, found.unverified, ports)
        with ports.timed("replicate"):
            record = zone_record(version, ports, nvram)
            outcome = replicate(version, record, stored, found.places, ports.gallery)
        return settled(outcome, found.places)


def make_shallow(
    version: ImageVersion,
    supply: Supply,
    sources: Sequence[Disk],
    request: PublishRequest,
    work: Path,
    ports: Ports,
) -> ImageVersion:
    """The stages without a copy: what the replica leans on is the source itself."""
    shallow.check_lasting(request.sources)
    files = shallow.fingerprints(sources, ports.pins)
    nvram = supply.description.nvram
    if request.boot_check:
        check_bootable(version, nvram, ports)
    with snapshot(sources, work, ports.pins) as (disks, pin):
        table = partition_table(disks, ports.images)
        confirm(version, table, {}, supply, request, ports)
        places = placed(version, [version.location], ports)
        plan = request.plan if version.generalized else None
        definition = ports.gallery.get_definition(version.name.definition)
        guarding = Guarding(definition, request.force, request.validate)
        disks, report = prepare(disks, table, plan, supply, guarding, work, ports)
        shallow.zero_free(disks, ports.images)
        unverified = confirm(version, table, report, supply, request, ports)
        if request.boot_check:
            booted = boot_disks(version, disks, nvram, work, ports)
            report = {**report, "boot": booted.document()}
        pin.verify()
        shallow.check_still(files, ports.pins)
        with held(sinks(places), ports):
            parts = cached(shallow.image_disks(sources, files), supply, request)
            version = describe(version, parts, report, unverified, ports)
            record = zone_record(version, ports, nvram)
            leaning = shallow.leaning_disks(sources, disks, edited=plan is not None)
            status = shallow.publish_leaning(record, leaning, places[version.location][0].zone)
            return ports.gallery.set_regions(version, status)


def stored_disks(sources: Sequence[Disk], supply: Supply, stored: Stored) -> list[ImageDisk]:
    origins = {
        disk.lun: Origin(str(top.path), top.format.value, supply.origins.get(disk.lun))
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
    ports: Ports,
) -> ImageVersion:
    """Record what the version consists of, before anything of it is visible."""
    if unverified:
        ports.progress.warn(
            f"{version.name}: nothing shows whether these are as the definition says: "
            f"{', '.join(unverified)}"
        )
    return ports.gallery.record_contents(version, disks, report, unverified)


def conclude(version: ImageVersion, ports: Ports, record: Record) -> ImageVersion:
    """End the publication, or leave the regions that were not tried to a background process; and
    where the time went."""
    stats = record.document()
    if all(status.state is not ReplicationState.UNKNOWN for status in version.regions):
        return ports.gallery.finish_version(version, stats)
    version = ports.gallery.hand_over(version, stats)
    ports.later(version)
    return version
