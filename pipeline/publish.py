"""THE MAIN JOB: a VM's disks in; a generalized, hashed, versioned image with replicas in regions
out.

Read `publish` first: it is the whole product on one screen.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from blake3 import blake3

from pipeline.errors import Conflict, GalleriaError, NotFound, PartiallyReplicated
from pipeline.gallery.documents import encode
from pipeline.gallery.model import DiskSource as Origin
from pipeline.gallery.model import (
    ImageDisk,
    ImageVersion,
    ReplicationState,
    TargetRegion,
    VersionRequest,
)
from pipeline.gallery.names import VersionName
from pipeline.gallery.service import GalleryService
from pipeline.guest.partitions import PartitionTable
from pipeline.guest.profiles import Plan
from pipeline.placement import Places, Zones, place, sinks
from pipeline.ports import GuestHost, Images, Pins, Progress, VersionRecord, Work, Zone
from pipeline.preflight import check_space, measure
from pipeline.retry import DELAYS, pause, transient
from pipeline.sources import AnySource, Sources, Supply, check_combination, data_luns, supplied
from pipeline.stages.agree import agree, agree_with_disks, partition_table
from pipeline.stages.convert import Stored, convert
from pipeline.stages.generalize import generalize
from pipeline.stages.ingest import Disk, ingest
from pipeline.stages.look import admit, untouched
from pipeline.stages.replicate import (
    Outcome,
    donated,
    record_failures,
    replicate,
    replicate_from_donor,
)
from pipeline.stages.snapshot import snapshot
from pipeline.stages.status import RegionMeter


class Wait(Enum):
    """When publish returns: usable in the source region, or complete everywhere. With NONE its
    caller has put it in the background, where it goes on to the end."""

    FIRST = "first"
    ALL = "all"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """`plan` None leaves the guest as it is. `preflight` False goes on without estimating space.
    `force` takes a guest that is not what the definition says, and records it."""

    version: VersionRequest
    sources: tuple[AnySource, ...]
    plan: Plan | None
    wait: Wait = Wait.ALL
    preflight: bool = True
    force: bool = False


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything that the jobs need from outside. `later` replicates a version in the background;
    `begun` is told of a version when its rules have passed and its number is taken."""

    gallery: GalleryService
    sources: Sources
    images: Images
    pins: Pins
    guests: GuestHost
    zones: Zones
    work: Work
    progress: Progress
    later: Callable[[ImageVersion], None]
    begun: Callable[[ImageVersion], None] = lambda _: None
    zrs_same_filesystem: bool = False


def publish(request: PublishRequest, ports: Ports) -> ImageVersion:
    """Publish a version. Every rule is checked before a byte is read; the source is never written;
    a region is Completed or not there. Raises PartiallyReplicated when only some regions are."""
    with ports.work.directory() as work:
        version = ports.gallery.begin_version(described(request, ports.sources))
        with given_back(version, ports):
            ports.begun(version)
            if version.completed_regions:  # an earlier run ended after that: no source needed
                version = replicate_missing(version, work, ports)
            else:
                with supplied(request.sources, work, ports.sources) as supply:
                    version = make(version, supply, request, work, ports)
            version = conclude(version, ports)
    return complete(version)


def make(
    version: ImageVersion, supply: Supply, request: PublishRequest, work: Path, ports: Ports
) -> ImageVersion:
    """The stages, in order."""
    agree(version, supply.description, request.version.source, ports.gallery)
    sources = ingest(supply.disks, ports.images)
    check_limits(version, sources, ports)
    with snapshot(sources, work, ports.pins) as (disks, pin):
        table = partition_table(disks[0], ports.images)
        confirm(version, table, {}, supply, request, ports)
        parents = ports.gallery.parents_of(version.name)
        places = placed(version, first_regions(version, request.wait), ports)
        zones = sinks(places)
        if request.preflight:
            amounts = measure(disks, ports.images)
            check_space(amounts, tuple(zones.values()), parents, ports.work)
        plan = request.plan if version.generalized else None
        disks, report = clean(disks, plan, work, ports)
        definition = ports.gallery.get_definition(version.name.definition)
        report = admit(report, definition.os_state, force=request.force)
        unverified = confirm(version, table, report, supply, request, ports)
        with held(zones, ports):
            advance = region_meter(version, places, disks, ports)
            stored = convert(
                disks, zones, parents, work, pin.verify, ports.images, ports.progress, advance
            )
            version = describe(version, sources, stored, report, unverified, ports)
            record = zone_record(version, ports, supply.description.nvram)
            outcome = replicate(version, record, stored, places, ports.gallery)
            return settled(outcome, places)


def replicate_version(
    name: VersionName, targets: Sequence[TargetRegion], ports: Ports, *, retry: bool = False
) -> ImageVersion:
    """Add regions to a published version, or make failed ones again: from a region that has it,
    never from the source. `retry` goes on trying, ever more slowly, what may pass by itself."""
    with ports.work.directory() as work:
        version = ports.gallery.begin_replication(name, targets)
        with given_back(version, ports):
            version = replicate_missing(version, work, ports, DELAYS if retry else ())
            version = ports.gallery.finish_version(version)
    return complete(version)


def replicate_missing(
    version: ImageVersion, work: Path, ports: Ports, delays: Sequence[float] = ()
) -> ImageVersion:
    """Every region of an owned version that is not Completed, from the bases of one that is.
    Regions that fail for a passing reason are tried again after each of `delays` (seconds)."""
    missing = [t.name for t in version.target_regions if not version.is_completed_in(t.name)]
    places = placed(version, missing, ports)
    waits = iter(delays)
    with held(sinks(places), ports):
        while places:
            outcome = replicate_once(version, places, work, ports)
            again = {name: error for name, error in outcome.errors.items() if transient(error)}
            delay = next(waits, None) if again else None
            if delay is None:
                return settled(outcome, places)
            version = record_failures(outcome.version, outcome.errors, ports.gallery)
            pause(delay, again, ports.progress)
            places = {name: places[name] for name in again}
    return version


def replicate_once(version: ImageVersion, places: Places, work: Path, ports: Ports) -> Outcome:
    """One attempt at these regions, in one read of a donor's bases."""
    donor = find_donor(version, ports.zones)
    advance = region_meter(version, places, donated(version, donor), ports)
    try:
        stored = replicate_from_donor(
            version, places, donor, work, ports.images, ports.progress, advance
        )
        record = zone_record(version, ports, donor.find_nvram(version.zone_key))
        return replicate(version, record, stored, places, ports.gallery)
    except (OSError, GalleriaError) as error:
        if not transient(error):
            raise
        return Outcome(version, dict.fromkeys(places, error))


def settled(outcome: Outcome, places: Places) -> ImageVersion:
    """The version, if anything became of these regions. Raises the first error if nothing did."""
    if places and len(outcome.errors) == len(places):
        raise next(iter(outcome.errors.values()))
    return outcome.version


def placed(version: ImageVersion, regions: Iterable[str], ports: Ports) -> Places:
    """Where an owned version is stored, or is to be, in these of its regions."""
    return place(
        [target for name in regions if (target := version.target(name)) is not None],
        ports.gallery.parents_of(version.name),
        ports.zones,
        replica_count=version.replica_count,
        key=version.zone_key,
        zrs_same_filesystem=ports.zrs_same_filesystem,
    )


def region_meter(
    version: ImageVersion, places: Places, disks: Sequence[Disk], ports: Ports
) -> Callable[[int], None]:
    """What is told the bytes that these regions get."""
    total = sum(measure(disks, ports.images).values())
    return RegionMeter(version, tuple(places), total, ports.gallery).advance


def described(request: PublishRequest, sources: Sources) -> VersionRequest:
    """The request with what tells it from another one: a run that died is taken up again only for
    the same sources, unchanged, and the same plan."""
    check_combination(request.sources)
    digest = blake3()
    for source in request.sources:
        digest.update(repr(sources.identity(source)).encode())
    digest.update(repr(decisions(request.plan)).encode())
    return replace(request.version, fingerprint=digest.hexdigest(), luns=data_luns(request.sources))


def decisions(plan: Plan | None) -> tuple[object, ...]:
    """What a plan decides, in a form that is the same in every process (functions and the order of
    sets are not)."""
    if plan is None:
        return ()
    names = tuple(operation.name for operation in plan.operations)
    policy = plan.policy
    users = (policy.users.value, sorted(policy.remove_users), sorted(policy.keep_users))
    return (plan.profile, names, *users, policy.force)


def first_regions(version: ImageVersion, wait: Wait) -> list[str]:
    """The regions that this run makes; those that it does not wait for come from the first one."""
    if wait is Wait.FIRST:
        return [version.location]
    return [target.name for target in version.target_regions]


def confirm(
    version: ImageVersion,
    table: PartitionTable,
    report: Mapping[str, Any],
    supply: Supply,
    request: PublishRequest,
    ports: Ports,
) -> tuple[str, ...]:
    """Compare the definition with what is known of the OS disk; what could not be compared."""
    declared, description = request.version.source, supply.description
    return agree_with_disks(version, table, report, description, declared, ports.gallery)


def check_limits(version: ImageVersion, disks: Sequence[Disk], ports: Ports) -> None:
    for disk in disks:
        ports.gallery.check_disk(version, disk.virtual_size, disk.name)


def clean(
    disks: tuple[Disk, ...], plan: Plan | None, work: Path, ports: Ports
) -> tuple[tuple[Disk, ...], Mapping[str, Any]]:
    """Generalize on private overlays, and take what the file systems call free for zero. Without a
    plan the guest is only looked at."""
    if plan is None:
        seen = untouched(disks, work, ports.guests, ports.images, ports.progress)
        return disks, {"generalized": False, **seen}
    overlays = [
        ports.images.create_overlay(disk.chain, work / f"{disk.name}.qcow2") for disk in disks
    ]
    result = generalize(ports.guests, overlays, plan, ports.progress)
    cleaned = tuple(
        replace(disk, chain=chain, free=free)
        for disk, chain, free in zip(disks, overlays, result.free, strict=True)
    )
    return cleaned, {"generalized": True, **result.report}


def describe(
    version: ImageVersion,
    sources: Sequence[Disk],
    stored: Stored,
    report: Mapping[str, Any],
    unverified: tuple[str, ...],
    ports: Ports,
) -> ImageVersion:
    """Record what the version consists of, before anything of it is visible."""
    origins = {
        disk.lun: Origin(str(disk.chain[0].path), disk.chain[0].format.value) for disk in sources
    }
    disks = [
        ImageDisk(disk.lun, disk.digest, disk.virtual_size, origins[disk.lun])
        for disk in stored.disks
    ]
    version = ports.gallery.record_report(version, report)
    if unverified:
        ports.progress.warn(
            f"{version.name}: nothing shows whether these are as the definition says: "
            f"{', '.join(unverified)}"
        )
    return ports.gallery.record_disks(version, disks, unverified)


def zone_record(version: ImageVersion, ports: Ports, nvram: bytes | None) -> VersionRecord:
    """What each zone keeps beside the bytes: enough to rebuild the catalog from."""
    definition = ports.gallery.get_definition(version.name.definition)
    document = {
        "gallery": encode(ports.gallery.get_gallery(definition.name.gallery)),
        "definition": encode(definition),
        "version": encode(version),
        "report": ports.gallery.report(version.name),
    }
    return VersionRecord(version.zone_key, document, nvram)


def conclude(version: ImageVersion, ports: Ports) -> ImageVersion:
    """End the publication, or leave the regions that were not tried to a background process."""
    if all(status.state is not ReplicationState.UNKNOWN for status in version.regions):
        return ports.gallery.finish_version(version)
    version = ports.gallery.hand_over(version)
    ports.later(version)
    return version


def complete(version: ImageVersion) -> ImageVersion:
    """The version, if no region failed. Raises PartiallyReplicated naming those that did."""
    failed = [s for s in version.regions if s.state is ReplicationState.FAILED]
    if not failed:
        return version
    details = "; ".join(f"{status.region}: {status.details}" for status in failed)
    raise PartiallyReplicated(
        f"{version.name} is usable in {', '.join(version.completed_regions)}, "
        f"but failed in {details}",
        hint=f"galleria replicate {version.name} makes the failed regions again, and only those",
    )


def find_donor(version: ImageVersion, zones: Zones) -> Zone:
    """A zone that holds the version: of its source region if that is Completed, else of any."""
    regions = sorted(version.completed_regions, key=lambda name: name != version.location)
    for region in regions:
        for zone in zones.get(region, ()):
            if zone.find_version(version.zone_key) is not None:
                return zone
    raise NotFound(
        f"no zone on this host holds {version.name}",
        hint="the catalog says it is Completed in "
        f"{', '.join(regions) or 'no region'}: galleria doctor shows the zones",
    )


@contextmanager
def held(zones: Mapping[str, Zone], ports: Ports) -> Iterator[None]:
    """Zones in which bases are safe until versions use them. What killed runs left is removed
    first, and what this one stored in vain at the end."""
    collect(zones, ports)
    try:
        with ExitStack() as stack:
            for zone in zones.values():
                stack.enter_context(zone.hold())
            yield
    finally:
        collect(zones, ports)


def collect(zones: Mapping[str, Zone], ports: Ports) -> None:
    """Remove the bases that nobody needs; those of deployed disks stay."""
    keep = {disk.digest for item in ports.gallery.list_deployments() for disk in item.disks}
    for zone in zones.values():
        with suppress(Conflict):  # another job writes to the zone: the next run collects
            zone.collect(keep)


@contextmanager
def given_back(version: ImageVersion, ports: Ports) -> Iterator[None]:
    """A publication that fails before its first region is Completed leaves its number free, and
    nothing in the zones."""
    try:
        yield
    except BaseException as error:
        # when another process has taken the version over meanwhile, it is no longer ours to end
        with suppress(Conflict):
            undo(version, ports)
            ports.gallery.abandon_version(version, str(error) or type(error).__name__)
        raise


def undo(version: ImageVersion, ports: Ports) -> None:
    """Take away what zones hold of a version that is Completed nowhere."""
    current = ports.gallery.get_version(version.name)
    if current.attempt != version.attempt or current.completed_regions:
        return
    zones = {zone.name: zone for zones in ports.zones.values() for zone in zones}
    for zone in zones.values():
        zone.remove_version(version.zone_key)
    collect(zones, ports)
