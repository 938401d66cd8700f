"""Store: the content of disks, snapshots and managed images, as bases in a zone of their region.

The same stages as a publish, in the same order; what a version's replicas are there, a record in
the zone is here: it keeps the bases, and enough to rebuild the catalog from.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from pipeline.errors import EnvironmentMissing, GalleriaError
from pipeline.gallery import rules
from pipeline.gallery.documents import resource_document
from pipeline.guest.profiles import Plan
from pipeline.jobs.context import JobContext
from pipeline.jobs.prepare import Checked, prepared
from pipeline.jobs.replicate import held, remove_stored
from pipeline.model import Architecture, HyperVGeneration, Origin, OsType, TargetRegion
from pipeline.model.descriptions import Description
from pipeline.model.resources import (
    Content,
    DiskControllerTypes,
    ManagedImage,
    Resource,
    SupportedCapabilities,
)
from pipeline.ports import VersionRecord, Zone
from pipeline.ports.sources import Supply
from pipeline.sources.ingest import Disk, ingest
from pipeline.sources.partitions import read_partitions
from pipeline.storage.convert import Stored, bases_below
from pipeline.storage.placement import Parents, choose_zone, place
from pipeline.storage.space import measure
from pipeline.storage.store import Destination, store

R = TypeVar("R", bound=Resource)

STEPS = 5  # how often a resource's completion is recorded


@dataclass(frozen=True, slots=True)
class Intake:
    """What a resource is made of. A new base starts from the first of `parents` that its zone
    holds; `plan` generalizes the guest, None leaves it as it is."""

    supply: Supply
    parents: Parents = field(default_factory=dict)
    plan: Plan | None = None


def store_resource(resource: R, intake: Intake, work: Path, context: JobContext) -> R:
    """Store every disk of a resource that is being made; it is ready to be finished. What is in a
    zone already, and is to stay as it is, is not read. Each of its zones gets it, or it is not
    made."""
    checked = check_resource(resource, intake, context)
    goal, supply = checked.destination, checked.supply
    resource = annotated(resource, supply.description, checked.disks[0], context)
    with prepared(checked, work, context) as ready:
        if isinstance(resource, ManagedImage):
            resource = replace(resource, report=ready.report)
        with held(goal.zones, context, goal.known.values()):
            material = ready.material
            if checked.plan is None:
                zone = next(iter(goal.zones.values()))
                means = context.storing("store", work)
                below = bases_below(checked.disks, goal.parents, zone, means)
                material = replace(material, below=below)
            advance = Completion(resource, material.disks, context).advance
            stored = store(material, context.zones, context.storing("store", work, advance))
            for error in stored.failures.values():
                raise error
            resource = filled(resource, stored, supply)
            record = VersionRecord(resource.zone_key, resource_document(resource))
            for zone in goal.zones.values():
                zone.publish(record, stored.digests, 0)
    return resource


def check_resource(resource: Resource, intake: Intake, context: JobContext) -> Checked:
    """Check the sources of a resource, and decide what becomes of them."""
    supply = intake.supply
    plan = None if supply.generalized else intake.plan
    known = supply.stored if plan is None else {}
    parents = {lun: (digest,) for lun, digest in known.items()} or intake.parents
    places = place(
        [TargetRegion(resource.location, storage_account_type=resource.storage)],
        parents,
        context.zones,
        key=resource.zone_key,
        zrs_same_filesystem=context.zrs_same_filesystem,
    )
    disks = ingest(supply.disks, context.images)
    whole = isinstance(resource, ManagedImage)
    if whole:
        for disk in disks:
            rules.image_disk_limit(disk.virtual_size, disk.name)
    return Checked(supply, disks, plan, Destination(places, parents, known), survey=whole)


def home(region: str, parents: Parents, key: str, context: JobContext) -> Zone:
    """The zone of a region that keeps a resource."""
    zones = context.zones.get(region, ())
    if not zones:
        raise EnvironmentMissing(
            f"region {region} has no zone on this host",
            hint="galleria doctor says which of its directories can't be used, and why",
        )
    zone = choose_zone(region, parents, zones, key=key)
    zone.check_writable()
    return zone


def filled(resource: R, stored: Stored, supply: Supply) -> R:
    """With what was stored."""
    stats = [disk.result.stats for disk in stored.disks]
    kept = isinstance(resource, ManagedImage)
    caching = supply.description.host_caching if kept else {}
    return replace(
        resource,
        contents=tuple(
            Content(
                disk.lun,
                disk.digest,
                disk.virtual_size,
                supply.origins.get(disk.lun, Origin("vhd", "")),
                caching.get(disk.lun),
            )
            for disk in stored.disks
        ),
        bytes_read=sum(item.read for item in stats),
        bytes_written=sum(sum(item.written.values()) for item in stats),
    )


def annotated(resource: R, description: Description, disk: Disk, context: JobContext) -> R:
    """With what the source's description says of the guest, else its partition table."""
    generation = description.generation
    if generation is None and resource.hyper_v_generation is None:
        with context.images.open(disk.chain) as content:
            found = read_partitions(content, 512).generation
        generation = found if found in ("V1", "V2") else None
    os_type = description.os_type
    return replace(
        resource,
        hyper_v_generation=resource.hyper_v_generation
        or (HyperVGeneration(generation) if generation else None),
        os_type=resource.os_type or (OsType(os_type) if os_type else None),
        supported_capabilities=_capabilities(resource.supported_capabilities, description),
        purchase_plan=resource.purchase_plan or description.purchase_plan,
    )


def _capabilities(said: SupportedCapabilities, description: Description) -> SupportedCapabilities:
    """What was said of the resource, completed by what is known of its source."""
    architecture, controller = description.architecture, description.controller
    network = said.accelerated_network
    return SupportedCapabilities(
        said.architecture or (Architecture(architecture) if architecture else None),
        description.accelerated_network if network is None else network,
        said.disk_controller_types or (DiskControllerTypes(controller) if controller else None),
    )


class Completion:
    """Records how far a resource is, a few times."""

    def __init__(self, resource: Resource, disks: Sequence[Disk], context: JobContext) -> None:
        self._resource = resource
        self._records = context.records
        self._total = max(1, sum(measure(disks, context.images).values()))
        self._done = self._told = 0

    def advance(self, amount: int) -> None:
        self._done += amount
        step = min(STEPS - 1, self._done * STEPS // self._total)
        if step > self._told:
            self._told = step
            percent = step * 100 // STEPS
            self._records.change_resource(replace(self._resource, completion_percent=percent))


@contextmanager
def taken_back(resources: Sequence[Resource], context: JobContext) -> Iterator[None]:
    """What can't be made leaves its name free, and nothing in the zones."""
    try:
        yield
    except BaseException:
        for resource in resources:
            # the first error counts; what stays is taken over with the name by the next run
            with suppress(GalleriaError, OSError):
                context.records.check_taken(resource)  # else it is another run's by now
                remove_content(resource, context)
                context.records.forget_resource(resource)
        raise


def remove_content(resource: Resource, context: JobContext) -> None:
    """Take away what zones keep of a resource, and the bases that nobody else needs."""
    zones = {str(zone.path): zone for places in context.zones.values() for zone in places}
    remove_stored(resource.zone_key, zones, [resource.location], context)


def remove(
    resource: Resource, context: JobContext, before: Callable[[], None] = lambda: None
) -> None:
    """Delete a resource that `begin_delete` has marked; `before` takes its own files away."""
    before()
    remove_content(resource, context)
    context.records.forget_resource(resource)
