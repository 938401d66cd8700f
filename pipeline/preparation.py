"""Prepare: what is done to a guest before its disks are stored, and what is found out about it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.gallery.model import ImageDefinition
from pipeline.guest.partitions import PartitionTable
from pipeline.guest.profiles import Plan
from pipeline.outside import Ports
from pipeline.sources import Supply
from pipeline.stages.generalize import generalize
from pipeline.stages.ingest import Disk
from pipeline.stages.look import Look, admit, untouched
from pipeline.stages.validate import findings, insist


@dataclass(frozen=True, slots=True)
class Guarding:
    """What a guest has to pass. `force` takes one that is not what the definition says, and records
    it; `azure`: it has to pass the checks for Azure."""

    force: bool = False
    azure: bool = False


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Disks as they are to be stored. `report` is JSON; `seen` is the look that was taken."""

    disks: tuple[Disk, ...]
    report: Mapping[str, Any]
    seen: Look


def clean(
    disks: tuple[Disk, ...],
    plan: Plan | None,
    work: Path,
    ports: Ports,
    *,
    done: bool = False,
    azure: bool = False,
) -> Cleaned:
    """Generalize on private overlays, and take what the file systems call free for zero. Without a
    plan the guest is only looked at; `done`: without, because it has been before."""
    if plan is None:
        seen = untouched(disks, work, ports.guests, ports.images, ports.progress, azure=azure)
        return Cleaned(disks, {"generalized": done, **seen.document()}, seen)
    overlays = [
        ports.images.create_overlay(disk.chain, work / f"{disk.name}.qcow2") for disk in disks
    ]
    result = generalize(ports.guests, overlays, plan, ports.progress, azure=azure)
    cleaned = tuple(
        replace(disk, chain=chain, free=free)
        for disk, chain, free in zip(disks, overlays, result.free, strict=True)
    )
    return Cleaned(cleaned, {"generalized": True, **result.report}, result.seen)


def prepare(
    disks: tuple[Disk, ...],
    table: PartitionTable,
    plan: Plan | None,
    supply: Supply,
    definition: ImageDefinition,
    guarding: Guarding,
    work: Path,
    ports: Ports,
) -> tuple[tuple[Disk, ...], Mapping[str, Any]]:
    """The disks as they are to be stored, and the version's report. Raises Refused for a guest that
    is not what the definition declares, and StageFailed for one that Azure would not take.

    Disks that stay as they were stored are not looked at again: what was found then is still so."""
    if plan is None and supply.report and supply.stored and not guarding.azure:
        found = supply.report
    else:
        done = supply.generalized
        cleaned = clean(disks, plan, work, ports, done=done, azure=guarding.azure)
        disks, found = cleaned.disks, cleaned.report
        if guarding.azure:
            checks = findings(disks[0].virtual_size, table, cleaned.seen, definition)
            found = insist(checks, found, ports.progress)
    return disks, admit(found, definition.os_state, ports.progress, force=guarding.force)
