"""Agree: what a source's own description says, and what its disks show, has to be what the
definition promises."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.gallery.rules import features
from pipeline.gallery.rules.agreement import SourceFacts
from pipeline.gallery.service import GalleryService
from pipeline.model import (
    Architecture,
    HyperVGeneration,
    ImageDefinition,
    ImageVersion,
    OsState,
    OsType,
    SourceProperties,
)
from pipeline.model.descriptions import Description
from pipeline.ports import Images
from pipeline.sources.ingest import Disk, file_name, refuse_large_sectors
from pipeline.sources.partitions import BIOS_BOOT, ESP, PartitionTable, read_partitions


def agree(
    version: ImageVersion,
    description: Description,
    declared: SourceProperties,
    gallery: GalleryService,
) -> None:
    """Raise InvalidParameter for a property that the description of the machine contradicts.
    `declared` is what the publisher said of it; what the description says comes first."""
    source = known(description, declared)
    features.capture(gallery.get_definition(version.name.definition), source, version.name)
    gallery.check_source(version, facts_of(description), source)


def known(description: Description, declared: SourceProperties) -> SourceProperties:
    """What is known of the machine. A purchase plan goes with all that is made from its image."""
    network = description.accelerated_network
    return SourceProperties(
        description.controller or declared.disk_controller_type,
        declared.accelerated_network if network is None else network,
        description.purchase_plan or declared.purchase_plan,
    )


def facts_of(description: Description) -> SourceFacts:
    """The description in the gallery's terms."""
    generation, architecture = description.generation, description.architecture
    return SourceFacts(
        os_type=None if description.os_type is None else OsType(description.os_type),
        generations=frozenset(() if generation is None else (HyperVGeneration(generation),)),
        architecture=None if architecture is None else Architecture(architecture),
    )


@dataclass(frozen=True, slots=True)
class PublishPolicy:
    """What the guest of a version has to be: what the definition says, unless `force`, which
    records that it is not; what `description` and `declared` say of the machine; and, with
    `azure`, what passes the checks for Azure."""

    version: ImageVersion
    definition: ImageDefinition
    description: Description
    declared: SourceProperties
    force: bool = False
    azure: bool = False


def agree_with_disks(
    policy: PublishPolicy,
    table: PartitionTable,
    report: Mapping[str, Any],
    gallery: GalleryService,
) -> tuple[str, ...]:
    """The definition's properties that neither the disks nor their description could confirm.
    Raises InvalidParameter for one that the disks contradict. `report` is that of generalizing;
    empty before that, when only the partition table is known."""
    version, description = policy.version, policy.description
    source = known(description, policy.declared)
    described = gallery.check_source(version, facts_of(description), source)
    seen = gallery.check_source(version, disk_facts(table, report), source)
    return tuple(name for name in seen if name in described)


def partition_table(disks: Sequence[Disk], images: Images) -> PartitionTable:
    """The OS disk's. Raises Refused for a disk whose table counts in sectors of 4096 bytes."""
    tables = []
    for disk in disks:
        with images.open(disk.chain) as content:
            tables.append(read_partitions(content))
        refuse_large_sectors(file_name(disk), tables[-1].sector_size)
    return tables[0]


def disk_facts(table: PartitionTable, report: Mapping[str, Any]) -> SourceFacts:
    """What the OS disk shows: its partition table, and what generalizing found in the guest."""
    guest = report.get("guest", {})
    return SourceFacts(
        os_type=_OS_TYPES.get(guest.get("os_type", "")),
        generations=generations(table),
        architecture=_ARCHITECTURES.get(guest.get("architecture", "")),
        os_state=_state(report),
    )


def _state(report: Mapping[str, Any]) -> OsState | None:
    """What was done to the guest, or else what a look at it showed. A forced contradiction is no
    confirmation."""
    check = report.get("check", {})
    if check.get("forced"):
        return None
    shown = report.get("generalized") or check.get("verdict") == "generalized"
    return OsState.GENERALIZED if shown else None


def generations(table: PartitionTable) -> frozenset[HyperVGeneration]:
    """The firmware that a disk boots with: both, if it has what each of them needs. Boot code in
    the first sector of a disk with an EFI system partition may be there or not, so that an MBR
    disk with one counts as both."""
    kinds = {partition.kind for partition in table.partitions}
    if table.scheme == "gpt":
        found = {
            HyperVGeneration.V2: str(ESP) in kinds,
            HyperVGeneration.V1: str(BIOS_BOOT) in kinds,
        }
        return frozenset(generation for generation, there in found.items() if there)
    if table.generation == "V2":
        return frozenset(HyperVGeneration)
    return frozenset({HyperVGeneration.V1} if table.generation == "V1" else ())


_OS_TYPES = {"linux": OsType.LINUX, "windows": OsType.WINDOWS}
_ARCHITECTURES = {
    **dict.fromkeys(("x86_64", "amd64", "i386", "i486", "i586", "i686"), Architecture.X64),
    **dict.fromkeys(("aarch64", "arm64"), Architecture.ARM64),
}
