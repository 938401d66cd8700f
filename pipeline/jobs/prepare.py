"""Prepare: what is done to a guest before its disks are stored, and what is found out about it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.azure.guest import guest_findings
from pipeline.azure.validate import findings, require_passed
from pipeline.guest.generalize import generalize
from pipeline.guest.partitions import PartitionTable
from pipeline.guest.profiles import Plan
from pipeline.guest.survey import Look, check_os_state, untouched
from pipeline.jobs.context import JobContext
from pipeline.model import ImageDefinition
from pipeline.ports import Chain, GuestSession
from pipeline.ports.sources import Supply
from pipeline.sources.ingest import Disk


@dataclass(frozen=True, slots=True)
class PublishPolicy:
    """What a guest has to pass: it has to be what the definition says, unless `force`, which
    records that it is not; `azure`: it has to pass the checks for Azure."""

    definition: ImageDefinition
    force: bool = False
    azure: bool = False


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Disks as they are to be stored. `report` is JSON; `seen` is the look that was taken."""

    disks: tuple[Disk, ...]
    report: Mapping[str, Any]
    seen: Look


@dataclass(frozen=True, slots=True)
class Started:
    """A GuestHost whose one appliance is on its way already, on private overlays on disks. What is
    checked in the meantime may fail: then `stack` is left with that error, and nothing was done."""

    overlays: tuple[Chain, ...]
    appliance: GuestSession
    stack: ExitStack

    @contextmanager
    def session(self, _: Sequence[Chain], *, writable: bool) -> Iterator[GuestSession]:
        """Once, and on `overlays`, whatever is asked for."""
        with self.stack.pop_all():
            yield self.appliance


def start(disks: Sequence[Disk], work: Path, context: JobContext, stack: ExitStack) -> Started:
    overlays = tuple(
        context.images.create_overlay(disk.chain, work / f"{disk.name}.qcow2") for disk in disks
    )
    return Started(
        overlays, stack.enter_context(context.guests.session(overlays, writable=True)), stack
    )


def clean(
    disks: tuple[Disk, ...],
    plan: Plan | None,
    work: Path,
    context: JobContext,
    *,
    started: Started | None = None,
    done: bool = False,
    azure: bool = False,
) -> Cleaned:
    """Generalize on private overlays (those of `started`, if it was), and take what the file
    systems call free for zero. Without a plan the guest is only looked at; `done`: without, because
    it has been before."""
    check = guest_findings if azure else None
    if plan is None:
        seen = untouched(disks, work, context.guests, context.images, context.progress, check=check)
        return Cleaned(disks, {"generalized": done, **seen.document()}, seen)
    with ExitStack() as stack:
        begun = started or start(disks, work, context, stack)
        result = generalize(begun, begun.overlays, plan, context.progress, check=check)
    cleaned = tuple(
        replace(disk, chain=chain, free=free)
        for disk, chain, free in zip(disks, begun.overlays, result.free, strict=True)
    )
    return Cleaned(cleaned, {"generalized": True, **result.report}, result.seen)


def prepare(
    disks: tuple[Disk, ...],
    table: PartitionTable,
    plan: Plan | None,
    supply: Supply,
    policy: PublishPolicy,
    work: Path,
    context: JobContext,
    *,
    started: Started | None = None,
) -> tuple[tuple[Disk, ...], Mapping[str, Any]]:
    """The disks as they are to be stored, and the version's report. Raises Refused for a guest that
    is not what the definition declares, and StageFailed for one that Azure would not take.

    Disks that stay as they were stored are not looked at again: what was found then is still so."""
    if plan is None and supply.report and supply.stored and not policy.azure:
        found = supply.report
    else:
        done = supply.generalized
        azure = policy.azure
        cleaned = clean(disks, plan, work, context, started=started, done=done, azure=azure)
        disks, found = cleaned.disks, cleaned.report
        if policy.azure:
            checks = findings(disks[0].virtual_size, table, cleaned.seen, policy.definition)
            found = require_passed(checks, found, context.progress)
    return disks, check_os_state(
        found, policy.definition.os_state, context.progress, force=policy.force
    )
