"""Replicate: copy-on-write replicas of stored bases; a region is Completed or it is not there."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from pipeline.errors import GalleriaError, NotFound, VerificationFailed
from pipeline.gallery.model import ImageVersion, RegionResult, RegionStatus, ReplicationState
from pipeline.gallery.service import GalleryService
from pipeline.ports import Images, Progress, Replica, VersionRecord, Zone
from pipeline.stages.convert import Stored, convert
from pipeline.stages.ingest import Disk

Zones = Mapping[str, tuple[Zone, ...]]


def replicate(
    version: ImageVersion,
    document: Mapping[str, Any],
    stored: Stored,
    zones: Mapping[str, Zone],
    gallery: GalleryService,
) -> ImageVersion:
    """Commit the replicas of every region that holds the bases, each on its own, and record what
    became of each; when all of `zones` failed, raises. `document` is what a zone keeps to rebuild
    the catalog from."""
    record = VersionRecord(version.zone_key, document)
    digests = {disk.lun: disk.digest for disk in stored.disks}
    errors = dict(stored.failures)
    with ThreadPoolExecutor(max(1, len(stored.bases)), thread_name_prefix="replicate") as pool:
        jobs = {
            pool.submit(zones[name].publish, record, digests, replica_count(version, name)): name
            for name in stored.bases
        }
        for job in as_completed(jobs):
            region, problem = jobs[job], job.exception()
            if isinstance(problem, OSError | GalleriaError):
                errors[region] = problem
                continue
            result = region_result(region, stored, job.result())
            status = RegionStatus(region, ReplicationState.COMPLETED, 100, result=result)
            version = gallery.set_region(version, status)
    if len(errors) == len(zones):
        raise next(iter(errors.values()))
    for region, error in errors.items():
        status = RegionStatus(region, ReplicationState.FAILED, details=str(error))
        version = gallery.set_region(version, status)
    return version


def replicate_from_donor(
    version: ImageVersion,
    zones: Mapping[str, Zone],
    donor: Zone,
    work: Path,
    images: Images,
    progress: Progress,
) -> Stored:
    """Bring the bases of a published version to more zones, from the bases of one that has them.

    The source is not needed any more; what arrives must have the digest that was published.
    """
    disks = []
    for disk in version.disks:
        base = donor.find_base(disk.digest)
        if base is None:
            raise NotFound(
                f"{donor.path} does not hold base {disk.digest} of {version.name}",
                hint="galleria verify shows which regions are sound",
            )
        disks.append(Disk(disk.lun, base.chain, base.virtual_size))
    parents = {disk.lun: (disk.digest,) for disk in version.disks}
    stored = convert(disks, zones, parents, work, lambda: None, images, progress)
    for expected, made in zip(version.disks, stored.disks, strict=True):
        if made.digest != expected.digest:
            raise VerificationFailed(
                f"{donor.path}: the base of {version.name} reads as {made.digest}, "
                f"it was published as {expected.digest}",
                hint="galleria verify names the regions that are sound",
            )
    return stored


def replica_count(version: ImageVersion, region: str) -> int:
    target = version.target(region)
    return 1 if target is None else version.replicas_in(target)


def region_result(region: str, stored: Stored, replicas: tuple[Replica, ...]) -> RegionResult:
    """What was done for one region, in bytes of the guest's disks."""
    bases = stored.bases[region]
    stats = [disk.result.stats for disk in stored.disks]
    return RegionResult(
        replicas=tuple(replica_document(replica) for replica in replicas),
        methods=tuple(bases[disk.lun].method for disk in stored.disks),
        bytes_read=sum(item.read for item in stats),
        bytes_written=sum(item.written.get(region, 0) for item in stats),
        bytes_shared=sum(item.kept.get(region, 0) for item in stats),
    )


def replica_document(replica: Replica) -> dict[str, Any]:
    disks = [
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
    return {"index": replica.index, "disks": disks}
