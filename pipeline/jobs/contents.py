"""Contents: what a version consists of, as the catalog and its zones record it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pipeline.gallery.service.taken import TakenVersion
from pipeline.jobs.context import JobContext
from pipeline.jobs.prepare import Prepared
from pipeline.model import DiskProvenance, ImageDisk
from pipeline.ports import ShallowDisk
from pipeline.sources.ingest import file_name

NOTHING_STORED: Mapping[int | None, str] = MappingProxyType({})


def record_contents(
    version: TakenVersion,
    ready: Prepared,
    report: Mapping[str, Any],
    context: JobContext,
    digests: Mapping[int | None, str] = NOTHING_STORED,
) -> TakenVersion:
    """Record what the version consists of, before anything of it is visible."""
    if ready.unverified:
        context.progress.warn(
            f"{version.name}: could not verify from the disk: {', '.join(ready.unverified)}"
        )
    disks = image_disks(ready, digests)
    return context.records.record_contents(version, disks, report, ready.unverified)


def image_disks(ready: Prepared, digests: Mapping[int | None, str]) -> list[ImageDisk]:
    """The disks with where they come from, and the host caching that VMs made from them get."""
    checked = ready.checked
    found = []
    for disk in checked.disks:
        top, origin = disk.chain[0], checked.supply.origins.get(disk.lun)
        files = checked.files.get(disk.lun, ())
        source = DiskProvenance(file_name(disk), top.format.value, origin, files)
        digest, caching = digests.get(disk.lun, ""), checked.caching.get(disk.lun)
        found.append(ImageDisk(disk.lun, digest, disk.virtual_size, source, caching))
    return found


def shallow_disks(ready: Prepared) -> list[ShallowDisk]:
    """The disks as a zone takes them: the source's own files, under the edits if there are any."""
    edited = ready.checked.plan is not None
    return [
        ShallowDisk(
            source.lun,
            source.chain,
            source.virtual_size,
            disk.chain[0].path if edited else None,
        )
        for source, disk in zip(ready.checked.disks, ready.disks, strict=True)
    ]
