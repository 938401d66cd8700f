"""THE MAIN JOB: a VM's disks in; a generalized, hashed, versioned image with replicas in regions
out.

Read `publish` first: it is the whole product on one screen.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from blake3 import blake3

from pipeline import shallow
from pipeline.bootcheck import boot_disks, boot_stored, check_bootable
from pipeline.gallery import rules
from pipeline.gallery.model import DiskSource as Origin
from pipeline.gallery.model import ImageDisk, ImageVersion, ReplicationState, VersionRequest
from pipeline.guest.partitions import PartitionTable
from pipeline.guest.profiles import Plan
from pipeline.outside import Ports, recorded
from pipeline.placement import Parents, Places, sinks
from pipeline.preparation import Guarding, prepare, start
from pipeline.replication import (
    complete,
    given_back,
    held,
    placed,
    region_meter,
    replicate_missing,
    settled,
    zone_record,
)
from pipeline.sources import AnySource, Sources, Supply, check_combination, data_luns, supplied
from pipeline.stages.agree import agree, agree_with_disks, partition_table
from pipeline.stages.convert import Stored
from pipeline.stages.ingest import Disk, ingest
from pipeline.stages.replicate import replicate
from pipeline.stages.snapshot import snapshot
from pipeline.stages.store import Material, check_room, store
from pipeline.timing import Record


class Wait(Enum):
    """When publish returns: usable in the source region, or complete everywhere. With NONE its
    caller has put it in the background, where it goes on to the end."""

    FIRST = "first"
    ALL = "all"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """`plan` None leaves the guest as it is. `preflight` False goes on without estimating space.
    `force` takes a guest that is not what the definition says, and records it. `boot_check` boots
    what was stored before it becomes visible; `validate` takes only what Azure would."""

    version: VersionRequest
    sources: tuple[AnySource, ...]
    plan: Plan | None
    wait: Wait = Wait.ALL
    preflight: bool = True
    force: bool = False
    boot_check: bool = False
    validate: bool = False


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
            stored = store(found.material, work, advance, ports)
        report, nvram = found.report, supply.description.nvram
        if request.boot_check:
            report = boot_stored(version, stored, nvram, report, work, ports)
        parts = cached(stored_disks(sources, supply, stored), supply, request)
        version = describe(version, parts, report, found.unverified, ports)
        with ports.timed("replicate"):
            record = zone_record(version, ports, nvram)
            outcome = replicate(version, record, stored, found.places, ports.gallery)
        return settled(outcome, found.places)


@dataclass(frozen=True, slots=True)
class Ready:
    """What is known before the first byte of a version is stored. `unverified` is what nothing
    shows to be as the definition says."""

    material: Material
    report: Mapping[str, Any]
    unverified: tuple[str, ...]

    @property
    def disks(self) -> tuple[Disk, ...]:
        return self.material.disks

    @property
    def places(self) -> Places:
        return self.material.places


@contextmanager
def ready(
    version: ImageVersion,
    supply: Supply,
    sources: tuple[Disk, ...],
    request: PublishRequest,
    work: Path,
    ports: Ports,
) -> Iterator[Ready]:
    """Everything up to the first byte that is stored: the sources held still, every check made, the
    guest generalized on an overlay. A dry run ends here."""
    plan = request.plan if version.generalized and not supply.generalized else None
    with snapshot(sources, work, ports.pins) as (disks, pin), ExitStack() as stack:
        if request.boot_check:
            check_bootable(version, supply.description.nvram, ports)
        # the appliance boots while everything else is looked at
        started = None if plan is None else start(disks, work, ports, stack)
        table = partition_table(disks, ports.images)
        confirm(version, table, {}, supply, request, ports)
        known = supply.stored if plan is None else {}
        parents: Parents = {lun: (digest,) for lun, digest in known.items()}
        parents = parents or ports.gallery.parents_of(version.name)
        places = placed(version, first_regions(version, request.wait), ports, parents)
        material = Material(disks, pin, known, parents, places)
        if request.preflight:
            with ports.timed("estimate space"):
                check_room(material, ports)
        definition = ports.gallery.get_definition(version.name.definition)
        guarding = Guarding(definition, request.force, request.validate)
        disks, report = prepare(disks, table, plan, supply, guarding, work, ports, started=started)
        unverified = confirm(version, table, report, supply, request, ports)
        yield Ready(replace(material, disks=disks), report, unverified)


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
    own = (policy.remove_paths, policy.truncate_paths)
    scripts = tuple((script.name, script.text) for script in policy.scripts)
    return (plan.profile, names, *users, policy.force, own, scripts)


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


def check_limits(
    version: ImageVersion, disks: Sequence[Disk], request: PublishRequest, ports: Ports
) -> None:
    rules.caching(request.version.host_caching, [disk.lun for disk in disks])
    for disk in disks:
        ports.gallery.check_disk(version, disk.virtual_size, disk.name)


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
