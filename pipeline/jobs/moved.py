"""A zone that was moved: what names its old directory names the new one."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import GalleriaError
from pipeline.gallery.service.taken import JobRecords
from pipeline.model import DeployedDisk
from pipeline.model.resources import Disk
from pipeline.ports import ImageFormat, Progress, Zone


def follow(zone: Zone, old: Path, records: JobRecords, progress: Progress) -> None:
    """Let the catalog, and the overlays of VMs and of managed disks, name a zone's directory. One
    that can't be changed now, as its VM runs, is told: galleria repair does it later."""
    records.zone_moved(str(old), str(zone.path))
    progress.note(f"the zone {old} is in {zone.path} now")
    for owner, disk in _overlays(zone, records):
        try:
            zone.relink(disk)
        except (OSError, GalleriaError) as error:
            progress.warn(f"{owner} still names {old}: {error}; galleria repair mends it")


def _overlays(zone: Zone, records: JobRecords) -> Iterator[tuple[str, DeployedDisk]]:
    """The disks that depend on a base of a zone by its path."""
    for vm in records.deployments():
        if (vm.region, vm.zone) == (zone.region, zone.name):
            for disk in vm.disks:
                if disk.format == ImageFormat.QCOW2.value and disk.digest:
                    yield f"the VM {vm.name}", disk
    for item in records.resources():
        if not isinstance(item, Disk) or item.file is None or not item.contents:
            continue
        if item.location == zone.region and item.file.format == ImageFormat.QCOW2.value:
            digest = item.contents[0].digest
            yield (
                f"the disk {item.name}",
                DeployedDisk(None, item.file.path, item.file.format, digest),
            )
