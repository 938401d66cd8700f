"""The boot check of a version: of one that is being published, before anything of it is visible,
and of one that is there, in a region.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import NotFound
from pipeline.guest.boot import SECONDS, Booted, BootTools, boot
from pipeline.jobs.context import JobContext
from pipeline.jobs.verify import replica_chain
from pipeline.model import HyperVGeneration, ImageVersion, OsType
from pipeline.ports import Zone
from pipeline.ports.boots import MachineKind
from pipeline.sources.ingest import Disk
from pipeline.storage.placement import usable_version


def boot_version(
    version: ImageVersion, region: str | None, context: JobContext, *, seconds: float = SECONDS
) -> Booted:
    """Boot a clone of a version's first replica in a region (default: the source region's)."""
    zone = _zone(version, region, context)
    replicas = zone.find_version(version.zone_key)
    if not replicas:
        raise NotFound(f"the zone {zone.path} has no replica of {version.name}")
    disks = []
    for child in replicas[0].disks:
        base = zone.find_base(child.digest) if child.digest else None
        if base is None:
            raise NotFound(
                f"the zone {zone.path} has no base of {version.name}",
                hint="a Shallow version has no bases: deploy it, and boot the VM",
            )
        disks.append(Disk(child.lun, replica_chain(child, base), child.virtual_size))
    nvram = zone.find_nvram(version.zone_key)
    check_bootable(version, nvram, context)
    with context.work.directory() as work:
        return boot_disks(version, disks, nvram, work, context, seconds=seconds)


def boot_disks(
    version: ImageVersion,
    disks: Sequence[Disk],
    nvram: bytes | None,
    work: Path,
    context: JobContext,
    *,
    seconds: float = SECONDS,
) -> Booted:
    """Boot clones of these disks as the machine that the definition describes."""
    tools = BootTools(context.boots, context.images, context.files, context.progress)
    kind, log = _kind(version, nvram, context), console_log(version, context)
    return boot(tools, kind, disks, work, log, seconds=seconds)


def check_bootable(version: ImageVersion, nvram: bytes | None, context: JobContext) -> None:
    """Raises EnvironmentMissing when this host can't boot what the definition describes: to be
    asked before any work is done."""
    context.boots.check(_kind(version, nvram, context))


def _kind(version: ImageVersion, nvram: bytes | None, context: JobContext) -> MachineKind:
    definition = context.gallery.get_definition(version.name.definition)
    return MachineKind(
        uefi=definition.hyper_v_generation is HyperVGeneration.V2,
        architecture=definition.architecture,
        windows=definition.os_type is OsType.WINDOWS,
        nvram=nvram,
    )


def console_log(version: ImageVersion, context: JobContext) -> Path:
    """Where the console of the last boot check of a version is kept."""
    return context.logs / f"boot-{version.zone_key}.log"


def _zone(version: ImageVersion, region: str | None, context: JobContext) -> Zone:
    for name in [region or version.location, *([] if region else version.completed_regions)]:
        for zone in context.zones.get(name, ()):
            if usable_version(zone, version.zone_key) is not None:
                return zone
    raise NotFound(
        f"no zone of {region or 'any region'} on this host holds {version.name}",
        hint="galleria show names the regions that it is in",
    )
