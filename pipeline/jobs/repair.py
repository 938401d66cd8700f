"""Repair: make what a scrub found bad again, of what is sound elsewhere.

bases       written anew, chunk by chunk, of any zone that has them sound, or the source's file
versions    record and replicas are made anew; what a region has lost is replicated to it
VMs         an overlay that names its base by another path than it has gets the right one

What is bad goes to quarantine. Nothing is made of anything that is not proven by its digest; what
can't be repaired is told, and stays.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import GalleriaError, NotFound, PartiallyReplicated
from pipeline.gallery.documents import resource_document
from pipeline.jobs.context import JobContext
from pipeline.jobs.replicate import replicate_version, zone_record
from pipeline.jobs.running import running
from pipeline.jobs.scrub import (
    Bad,
    Scrubbed,
    ScrubRequest,
    Stored,
    digests_of,
    is_shallow,
    replica_count,
    scrub,
)
from pipeline.jobs.verify import Check, VerifyResult, remember
from pipeline.model import ImageVersion
from pipeline.model.runs import RunKind
from pipeline.ports import Chain, Layer, VersionRecord, Zone
from pipeline.ports.extents import Range
from pipeline.storage.placement import every_zone
from pipeline.storage.repair import Unrepairable, repair_base

FILE = "vhd"  # the kind of origin that is a file of this host


@dataclass(frozen=True, slots=True)
class Repaired:
    """What became of something bad: why it could not be repaired (empty: it was), and the ranges of
    a base that nothing has."""

    bad: Bad
    problem: str = ""
    lost: tuple[Range, ...] = ()


def scrubbed(
    request: ScrubRequest, context: JobContext, *, repair: bool
) -> tuple[Scrubbed, list[Repaired]]:
    """Read what the request names, and repair what is bad if that is asked for."""
    kind = RunKind.REPAIR if repair else RunKind.SCRUB
    name = "" if request.scope is None else request.scope.arm_id
    with running(context, kind, name) as context, context.work.directory() as work:
        if not repair:
            return scrub(request, context), []
        mending = _Mending(context, work)
        return scrub(request, context, mending), mending.done


class _Mending:
    """Repairs one bad thing after another."""

    def __init__(self, context: JobContext, work: Path) -> None:
        self._context = context
        self._work = work
        self._items: dict[tuple[Path, str], Repaired] = {}
        self.done: list[Repaired] = []

    def __call__(self, bad: Bad) -> bool:
        if bad.disk is not None:
            made = _repair_disk(bad, self._context)
        elif bad.item is not None:  # its record and all replicas are made together
            key = bad.zone.path, bad.subject
            known = self._items.get(key)
            made = replace(known, bad=bad) if known else _repair_item(bad, self._context)
            self._items[key] = made
        else:
            made = _repair_base(bad, self._work, self._context)
        self.done.append(made)
        return not made.problem


# --- bases ----------------------------------------------------------------------------------------


def _repair_base(bad: Bad, work: Path, context: JobContext) -> Repaired:
    zone, digest = bad.zone, bad.result.digest
    others = [other for other in every_zone(context.zones) if other is not zone]
    try:
        repair_base(
            zone,
            digest,
            [other for other in others if not other.unusable],
            list(_sources(digest, context)),
            context.storing("repair", work),
        )
    except Unrepairable as error:
        return Repaired(bad, error.message, error.lost or bad.result.bad)
    except (OSError, GalleriaError) as error:
        return Repaired(bad, str(error), bad.result.bad)
    sound = VerifyResult(zone.region, bad.result.subject, bad.result.path, digest)
    remember(zone, bad.subject, sound, context)
    return Repaired(bad)


def _sources(digest: str, context: JobContext) -> Iterable[Chain]:
    """The files that a base was made from, where they are files of this host that need no other.
    They may have changed: each chunk is proven."""
    paths = {
        disk.source.path
        for version in context.records.versions()
        for disk in version.disks
        if disk.digest == digest and (disk.source.origin is None or disk.source.origin.kind == FILE)
    }
    paths |= {
        content.origin.id
        for resource in context.records.resources()
        for content in resource.contents
        if content.digest == digest and content.origin.kind == FILE
    }
    for path in sorted(path for path in paths if path.startswith("/")):
        with suppress(OSError, GalleriaError):
            facts = context.images.inspect(Path(path))
            if not facts.refusals:
                yield (Layer(facts.path, facts.format),)


# --- versions, snapshots, images, disks -----------------------------------------------------------


def _repair_item(bad: Bad, context: JobContext) -> Repaired:
    item, zone = bad.item, bad.zone
    if item is None:
        raise ValueError("there is nothing to repair")
    try:
        if is_shallow(item):
            raise NotFound(
                "a version in replication mode Shallow is an overlay alone: publish it again"
            )
        if bad.missing and isinstance(item, ImageVersion):
            with suppress(PartiallyReplicated):  # other regions are not this one's matter
                replicate_version(item.name, (), context)
        else:
            zone.restore_version(_record(item, zone, context), digests_of(item), _count(item, zone))
        problem = _still_bad(item, zone, context)
    except (OSError, GalleriaError) as error:
        problem = str(error)
    if not problem:
        place = zone.version_directory(item.zone_key)
        remember(zone, bad.subject, VerifyResult(zone.region, "record", place, ""), context)
    return Repaired(bad, problem)


def _record(item: Stored, zone: Zone, context: JobContext) -> VersionRecord:
    """What a zone keeps beside the bytes, as the catalog has it. The firmware's variables are in
    the zones alone."""
    if not isinstance(item, ImageVersion):
        return VersionRecord(item.zone_key, resource_document(item))
    for other in (zone, *every_zone(context.zones)):
        with suppress(OSError, GalleriaError):
            if other.find_version(item.zone_key) is not None:
                return zone_record(item, context, other.find_nvram(item.zone_key))
    return zone_record(item, context, zone.nvram_remains(item.zone_key))


def _count(item: Stored, zone: Zone) -> int:
    known = replica_count(zone, item)
    if known is not None or not isinstance(item, ImageVersion):
        return known or 0
    target = item.target(zone.region)
    return 1 if target is None else item.replicas_in(target)


def _still_bad(item: Stored, zone: Zone, context: JobContext) -> str:
    """Why what was made again is not as it must be."""
    replicas = zone.find_version(item.zone_key)
    if replicas is None:
        return "it is still not in the zone"
    bases = {
        lun: base
        for lun, digest in digests_of(item).items()
        if (base := zone.find_base(digest)) is not None
    }
    if len(bases) < len(digests_of(item)):
        return "a base of it is missing"
    for result in Check(context).replicas(zone, replicas, bases):
        if not result.sound:
            return f"{result.subject}: {result.problem or 'its content differs'}"
    return ""


# --- disks of VMs ---------------------------------------------------------------------------------


def _repair_disk(bad: Bad, context: JobContext) -> Repaired:
    disk, zone = bad.disk, bad.zone
    if disk is None:
        raise ValueError("there is nothing to repair")
    try:
        problem = zone.deployed_problem(disk)  # it may have been its base's alone
        if problem and disk.digest:
            zone.relink(disk)
            problem = zone.deployed_problem(disk)
    except (OSError, GalleriaError) as error:
        problem = str(error)
    if not problem:
        sound = VerifyResult(zone.region, bad.result.subject, bad.result.path, "")
        remember(zone, bad.subject, sound, context)
    return Repaired(bad, problem)
