"""Commit: copy-on-write replicas of stored bases; a region is Completed or it is not there."""

from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.errors import GalleriaError, NotFound, VerificationFailed, undone_by
from pipeline.gallery.service.taken import JobRecords, TakenVersion
from pipeline.model import ImageVersion, RegionResult, RegionStatus, ReplicationState
from pipeline.ports import Replica, VersionRecord, Zone
from pipeline.sources.ingest import Disk
from pipeline.storage.convert import Conversion, Means, Stored, convert
from pipeline.storage.placement import Placement, Places, independent, sink_name, sinks

Made = Sequence[tuple[Zone, tuple[Replica, ...]]]  # a region's replicas, by zone


@dataclass(frozen=True, slots=True)
class Outcome:
    """`errors` by region, of those that are not Completed."""

    version: TakenVersion
    errors: Mapping[str, Exception]


def replicate(
    version: TakenVersion,
    record: VersionRecord,
    stored: Stored,
    places: Places,
    records: JobRecords,
) -> Outcome:
    """Commit the replicas of every region that holds the bases, each on its own, and record at once
    that it can be used; those that are ready at the same time, in one change. When all failed
    nothing is recorded of it: the caller has the errors."""
    errors = region_errors(stored, places)
    living = {region: placements for region, placements in places.items() if region not in errors}
    with ThreadPoolExecutor(max(1, len(living)), thread_name_prefix="replicate") as pool:
        jobs = {
            pool.submit(publish_region, record, stored.digests, placements): region
            for region, placements in living.items()
        }
        while jobs:
            completed = []
            for job in wait(jobs, return_when=FIRST_COMPLETED).done:
                region, problem = jobs.pop(job), job.exception()
                if isinstance(problem, OSError | GalleriaError):
                    errors[region] = problem
                    continue
                result = region_result(stored, job.result())
                status = RegionStatus(region, ReplicationState.COMPLETED, 100, result=result)
                completed.append(status)
            if completed:
                version = records.set_regions(version, *completed)
    if errors and len(errors) < len(places):
        version = record_failures(version, errors, records)
    return Outcome(version, errors)


def record_failures(
    version: TakenVersion, errors: Mapping[str, Exception], records: JobRecords
) -> TakenVersion:
    failed = ReplicationState.FAILED
    statuses = (RegionStatus(name, failed, details=str(error)) for name, error in errors.items())
    return records.set_regions(version, *statuses)


def region_errors(stored: Stored, places: Places) -> dict[str, Exception]:
    """The regions in which a zone does not hold every base; one is enough to fail it."""
    errors: dict[str, Exception] = {}
    for region, placements in places.items():
        for placement in placements:
            error = stored.failures.get(sink_name(placement.zone))
            if error is not None:
                errors.setdefault(region, error)
    return errors


def publish_region(
    record: VersionRecord, digests: Mapping[int | None, str], placements: Sequence[Placement]
) -> Made:
    """All zones of a region, or none."""
    made: list[tuple[Zone, tuple[Replica, ...]]] = []
    with ExitStack() as undo:
        for placement in placements:
            made.append(
                (placement.zone, placement.zone.publish(record, digests, placement.replicas))
            )
            undo.enter_context(undone_by(partial(placement.zone.remove_version, record.key)))
    return made


def replicate_from_donor(
    version: ImageVersion, places: Places, donor: Zone, means: Means
) -> Stored:
    """Bring the bases of a published version to more zones, from the bases of one that has them.

    The source is not needed any more; what arrives must have the digest that was published.
    """
    parents = {disk.lun: (disk.digest,) for disk in version.disks}
    conversion = Conversion(sinks(places), parents, independent=independent(places))
    stored = convert(donated(version, donor), conversion, means)
    for expected, made in zip(version.disks, stored.disks, strict=True):
        if made.digest != expected.digest:
            raise VerificationFailed(
                f"{donor.path}: the base of {version.name} reads as {made.digest}, "
                f"it was published as {expected.digest}",
                hint="galleria verify names the regions that are sound",
            )
    return stored


def donated(version: ImageVersion, donor: Zone) -> list[Disk]:
    """The disks of a version, as a zone that holds it has them."""
    disks = []
    for disk in version.disks:
        base = donor.find_base(disk.digest)
        if base is None:
            raise NotFound(
                f"{donor.path} does not hold base {disk.digest} of {version.name}",
                hint="galleria verify shows which regions are sound",
            )
        disks.append(Disk(disk.lun, base.chain, base.virtual_size))
    return disks


def region_result(stored: Stored, made: Made) -> RegionResult:
    """What was done for one region, in bytes of the guest's disks."""
    names = [sink_name(zone) for zone, _ in made]
    stats = [disk.result.stats for disk in stored.disks]
    return RegionResult(
        replicas=replica_documents(made),
        methods=tuple(
            stored.bases[name][disk.lun].method for name in names for disk in stored.disks
        ),
        bytes_read=sum(item.read for item in stats),
        bytes_written=sum(item.written.get(name, 0) for item in stats for name in names),
        bytes_shared=sum(
            kind.get(name, 0)
            for item in stats
            for kind in (item.kept, item.cloned)
            for name in names
        ),
    )


def replica_documents(made: Made) -> tuple[dict[str, Any], ...]:
    """A region's replicas, numbered through its zones."""
    found = [(zone, replica) for zone, replicas in made for replica in replicas]
    return tuple(
        {"index": index, "zone": zone.name, "disks": disk_documents(replica)}
        for index, (zone, replica) in enumerate(found)
    )


def disk_documents(replica: Replica) -> list[dict[str, Any]]:
    return [
        {
            "lun": disk.lun,
            "path": str(disk.path),
            "format": disk.format.value,
            "method": disk.method,
            "digest": disk.digest,
            "virtualSize": disk.virtual_size,
        }
        for disk in replica.disks
    ]
