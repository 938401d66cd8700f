"""Dry runs: what a disk or a version is, and what a job would do to it, with nothing changed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.azure.validate import validate
from pipeline.guest.findings import Finding
from pipeline.guest.profiles import Plan
from pipeline.guest.survey import Survey, survey
from pipeline.jobs.context import JobContext
from pipeline.jobs.files import pinned
from pipeline.jobs.plan import Action, Preview, preview, running, shown, trial
from pipeline.jobs.prepare import (
    PublishRequest,
    check_publish,
    check_still,
    clean,
    prepared,
    report_with_boot,
)
from pipeline.jobs.replicate import find_donor
from pipeline.model import ImageVersion
from pipeline.model.sources import DiskSource
from pipeline.ports import ImageFormat
from pipeline.sources.ingest import Disk, inspect_disk
from pipeline.sources.supply import supplied
from pipeline.storage.commit import donated


@contextmanager
def file_disks(source: DiskSource, context: JobContext) -> Iterator[list[Disk]]:
    """The disk of a file, where it is unpacked as long as the `with`."""
    with context.work.directory() as work, context.sources.unwrapped(source, work) as found:
        yield [inspect_disk(found, context.images)]


def version_disks(version: ImageVersion, context: JobContext) -> list[Disk]:
    """A version's disks, OS disk first, as a zone holds them."""
    return list(donated(version, find_donor(version, context.zones)))


def check(disks: Sequence[Disk], context: JobContext) -> Survey:
    """Whether the guest on these disks is generalized, with the evidence; they are only read."""
    with context.work.directory() as work:
        return survey(context.guests, context.images, disks, work, context.progress, listed=False)


def validate_file(
    source: DiskSource, footer: Callable[[Path], Sequence[str]], context: JobContext
) -> tuple[Finding, ...]:
    """Azure's checklist for a file that is to be uploaded. `footer` says what is wrong with a VHD's
    footer."""
    with context.work.directory() as work, context.sources.unwrapped(source, work) as found:
        disk = inspect_disk(found, context.images)
        problems = footer(found.path) if disk.chain[0].format is ImageFormat.VHD else ()
        return validate(
            disk,
            context.guests,
            context.images,
            work,
            context.progress,
            file=disk.facts,
            footer_problems=problems,
        )


def validate_version(version: ImageVersion, context: JobContext) -> tuple[Finding, ...]:
    """Azure's checklist for a version's OS disk, against what its definition declares."""
    definition = context.gallery.get_definition(version.name.definition)
    (disk, *_) = version_disks(version, context)
    with context.work.directory() as work:
        return validate(
            disk, context.guests, context.images, work, context.progress, definition=definition
        )


def try_generalize(source: DiskSource, plan: Plan, context: JobContext) -> dict[str, Any]:
    """The report of generalizing a disk: it is done, on an overlay that is thrown away."""
    with pinned(source, context) as (disk, work):
        return dict(clean((disk,), plan, work, context).report)


def try_publish(request: PublishRequest, context: JobContext) -> tuple[Preview, Mapping[str, Any]]:
    """What publishing would do, and the report that the version would have: all of it is done but
    to store what came of it. No number is taken, and nothing is kept but a boot check's console. A
    machine that runs is not captured, so there is no report of it."""
    version, action = trial(request, context)
    if action is Action.NOTHING:
        return preview(request, context), context.gallery.report(version.name) or {}
    if running(request, context):
        context.progress.warn("the running machine is not touched: its guest was not tried")
        return preview(request, context), {}
    with (
        context.work.directory() as work,
        supplied(request.sources, work, context.sources) as supply,
    ):
        checked = check_publish(version, supply, request, context)
        found = shown(version, action, checked, context)
        with prepared(checked, work, context) as ready:
            report = report_with_boot(version, ready, ready.disks, work, context)
            check_still(ready, context)
    return found, report
