"""Deploy: copy-on-write disks for a new VM, made from one of a version's replicas."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import Conflict, NotFound
from pipeline.gallery.model import DeployedDisk, Deployment, ImageVersion
from pipeline.gallery.service import GalleryService
from pipeline.ports import Replica, Zone

NVRAM = "nvram.fd"  # beside the disks: the variables of the source's UEFI firmware


def deploy(
    version: ImageVersion,
    region: str,
    name: str,
    directory: Path,
    zones: Sequence[Zone],
    gallery: GalleryService,
) -> Deployment:
    """Make the disks of VM `name` in `directory`/`name`. The replicas are taken in turn."""
    zone, replicas = find_replicas(version, region, zones)
    target = directory / name
    if target.exists():
        raise Conflict(
            f"{target} exists already", hint="choose another --name, or remove the directory"
        )
    used = sum(
        1
        for other in gallery.list_deployments()
        if other.version_uid == version.uid and other.region == zone.region
    )
    directory.mkdir(parents=True, exist_ok=True)
    (disks,) = zone.deploy(replicas[used % len(replicas)], [target.absolute()])
    nvram = zone.find_nvram(version.zone_key)
    if nvram is not None:
        (target / NVRAM).write_bytes(nvram)
    deployment = Deployment(
        name=name,
        directory=str(target.absolute()),
        version=version.name,
        version_uid=version.uid,
        region=zone.region,
        created=datetime.now(UTC),
        disks=tuple(
            DeployedDisk(disk.lun, str(disk.path.absolute()), disk.format.value, disk.digest)
            for disk in disks
        ),
    )
    gallery.record_deployment(deployment)
    return deployment


def find_replicas(
    version: ImageVersion, region: str, zones: Sequence[Zone]
) -> tuple[Zone, tuple[Replica, ...]]:
    """The zone of a region that holds a version, and its replicas there."""
    for zone in zones:
        replicas = zone.find_version(version.zone_key)
        if replicas:
            return zone, replicas
    places = ", ".join(version.completed_regions) or "no region yet"
    raise NotFound(
        f"{version.name} is not available in region {region}",
        hint=f"it is available in: {places}; galleria replicate brings it to another region",
    )
