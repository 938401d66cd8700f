"""Shallow versions: no copy. Their one replica is an overlay on the source's own files.

The files are pinned by a fingerprint when the version is published, and watched: when one of them
is not what it was, nothing is deployed any more. galleria itself does not delete them. Where the
guest is generalized the overlay holds the edits, and zeros over what its file systems call free:
the guest does not see it, but it is still in the source.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pipeline.errors import Conflict, GalleriaError, Refused, SourceChanged
from pipeline.model import (
    ImageVersion,
    RegionResult,
    RegionStatus,
    ReplicationMode,
    ReplicationState,
    SourceFile,
)
from pipeline.ports import (
    Chain,
    ImageFormat,
    Images,
    Layer,
    Pins,
    ShallowDisk,
    VersionRecord,
    Zone,
)
from pipeline.ports.sources import Supply
from pipeline.sources.ingest import Disk
from pipeline.storage.commit import replica_documents
from pipeline.storage.placement import Zones, every_zone

Fingerprints = Mapping[int | None, tuple[SourceFile, ...]]  # by LUN, top layer first


def is_shallow(version: ImageVersion) -> bool:
    return version.replication_mode is ReplicationMode.SHALLOW


def check_lasting(supply: Supply) -> None:
    """A shallow version depends on files that stay where they are."""
    if not supply.lasting:
        raise Refused(
            "A version in replication mode Shallow depends on the files of its source, and what "
            "is downloaded or unpacked does not stay.",
            hint="publish it in mode Full, or give the disk file itself",
        )


def fingerprints(disks: Sequence[Disk], pins: Pins) -> Fingerprints:
    """What the files of the disks are now. Raises Refused for what can't be depended on."""
    found = {}
    for disk in disks:
        if disk.chain[0].internal_snapshot is not None:
            raise Refused(
                f"{disk.chain[0].path}: a version can't depend on an internal snapshot in "
                "replication mode Shallow",
                hint="publish it in mode Full",
            )
        found[disk.lun] = tuple(pins.fingerprint(layer) for layer in disk.chain)
    return found


def check_still(files: Fingerprints, pins: Pins) -> None:
    """Raise SourceChanged when a file is not what it was when this run began."""
    for file in (file for listed in files.values() for file in listed):
        changes = pins.changes(file)
        if changes:
            raise SourceChanged(
                f"the source file {file.path} changed meanwhile: {', '.join(changes)}",
                hint="nothing was published; publish again while nobody writes to it",
            )


def zero_free(disks: Sequence[Disk], images: Images) -> None:
    """Let what a generalized guest does not use read as zero, in the overlays: there is no copy
    in which it could be left out."""
    for disk in disks:
        if disk.free:
            images.zero(disk.chain, disk.free)


def publish_shallow(
    record: VersionRecord, disks: Sequence[ShallowDisk], zone: Zone
) -> RegionStatus:
    """Make the one replica; its region's status."""
    made = zone.publish_shallow(record, disks)
    result = RegionResult(
        replicas=replica_documents([(zone, made)]), methods=tuple("shallow" for _ in disks)
    )
    return RegionStatus(zone.region, ReplicationState.COMPLETED, 100, result=result)


# --- afterwards ----------------------------------------------------------------------------------


def source_changes(version: ImageVersion, pins: Pins) -> dict[str, list[str]]:
    """By path, what changed of the files that a version depends on."""
    found = {}
    for disk in version.disks:
        for file in disk.source.files:
            changes = pins.changes(file)
            if changes:
                found[file.path] = changes
    return found


def check_sources(version: ImageVersion, pins: Pins, image: str = "") -> None:
    """Refuse a version whose sources are not what was published. Who knows it by the shared name
    `image` is told no other, nor where its publisher's files are."""
    changed = source_changes(version, pins)
    if changed and image:
        raise Conflict(
            f"The source that {image} depends on has changed since it was published.",
            hint="only its publisher can bring it back",
            code=SourceChanged.code,
        )
    if changed:
        details = "; ".join(f"{path}: {', '.join(what)}" for path, what in changed.items())
        raise Conflict(
            f"The source that {version.name} depends on has changed since it was published: "
            f"{details}.",
            hint="a version in mode Shallow needs its source unchanged: bring it back, or publish "
            "a new version",
            code=SourceChanged.code,
        )


def replica_chain(version: ImageVersion, lun: int | None, zone: Zone) -> Chain:
    """The layers of a disk: its overlay in the zone, and the source's files below it."""
    (replica,) = zone.find_version(version.zone_key) or ()
    (overlay,) = (disk for disk in replica.disks if disk.lun == lun)
    (source,) = (disk.source for disk in version.disks if disk.lun == lun)
    below = (Layer(Path(file.path), ImageFormat(file.format)) for file in source.files)
    return (Layer(overlay.path, overlay.format), *below)


def needed_files(zones: Zones, *, strict: bool = False) -> set[Path]:
    """Every file that a shallow version in any zone of this host depends on. A zone or a record
    that can't be read tells of none; `strict` raises its error."""
    found: set[Path] = set()
    for zone in every_zone(zones):
        try:
            found |= zone.backing_files(strict=strict)
        except (OSError, GalleriaError):
            if strict:
                raise
    return found


def refuse_needed(paths: Iterable[Path], zones: Zones, what: str) -> None:
    """Refuse to delete files or directories in which a shallow version's source lies."""
    needed = needed_files(zones)
    for path in paths:
        for file in needed:
            if file == path or file.is_relative_to(path):
                raise Refused(
                    f"{what} can't be deleted: a version in replication mode Shallow depends on "
                    f"{file}",
                    hint="delete that version first",
                )


def refuse_needed_key(key: str, zones: Zones, what: str) -> None:
    """The same for what zones keep under a key, of a version or a snapshot."""
    refuse_needed([zone.version_directory(key) for zone in every_zone(zones)], zones, what)
