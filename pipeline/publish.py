"""THE MAIN JOB: a VM's disks in; a generalized, hashed, versioned image with replicas in regions
out.

Read this first: it is the whole product on one screen.
"""

from pathlib import Path

from pipeline.gallery.service.taken import TakenVersion
from pipeline.jobs.contents import describe, shallow_disks
from pipeline.jobs.context import JobContext, recorded
from pipeline.jobs.prepare import (
    Prepared,
    PublishRequest,
    boot_checked,
    check_publish,
    check_still,
    described,
    prepared,
)
from pipeline.jobs.replicate import (
    complete,
    conclude,
    given_back,
    held,
    region_meter,
    remove_other,
    replicate_missing,
    require_some,
    zone_record,
)
from pipeline.jobs.running import running, when_free
from pipeline.jobs.shallow import is_shallow, publish_shallow
from pipeline.model import ImageVersion
from pipeline.model.runs import RunKind
from pipeline.sources.supply import supplied
from pipeline.storage.commit import replicate
from pipeline.storage.store import store


def publish(request: PublishRequest, context: JobContext) -> ImageVersion:
    """Publish a version. Every rule is checked before a byte is read; the source is never written;
    a region is Completed or not there. Raises PartiallyReplicated when only some regions are."""
    context, record = recorded(context)
    asked = described(request, context.sources)
    name = asked.name.arm_id
    with (
        running(context, RunKind.PUBLISH, name, {"version": name}, asked.fingerprint) as context,
        context.work.directory() as work,
    ):
        version = when_free(lambda: context.gallery.begin_version(asked), context)
        with given_back(version, context):
            context.begun(version)
            if version.completed_regions:  # an earlier run ended after that: no source needed
                version = replicate_missing(version, work, context)
            else:
                remove_other(version, context)
                version = make(version, request, work, context)
            concluded = conclude(version, context, record)
        return complete(concluded)


def make(
    version: TakenVersion, request: PublishRequest, work: Path, context: JobContext
) -> TakenVersion:
    """Make the version's first regions from its sources."""
    with supplied(request.sources, work, context.sources) as supply:
        checked = check_publish(version, supply, request, context)
        goal = checked.destination
        with (
            prepared(checked, work, context) as ready,
            held(goal.zones, context, goal.known.values()),
        ):
            keep = link if is_shallow(version) else copy
            return keep(version, ready, work, context)


def copy(version: TakenVersion, ready: Prepared, work: Path, context: JobContext) -> TakenVersion:
    """Full: store the bytes in zones of every region, and make replicas of what is stored."""
    places = ready.checked.destination.places
    with context.timed("store"):
        advance = region_meter(version, places, ready.disks, context)
        means = context.storing("store", work, advance)
        stored = store(ready.material, context.zones, means)
    report = boot_checked(version, ready, stored.content(), work, context)
    version = describe(version, ready, report, context, stored.digests)
    with context.timed("replicate"):
        record = zone_record(version, context, ready.nvram)
        outcome = replicate(version, record, stored, places, context.records)
    return require_some(outcome, places)


def link(version: TakenVersion, ready: Prepared, work: Path, context: JobContext) -> TakenVersion:
    """Shallow: store nothing; the one replica is an overlay on the source's own files."""
    zone = ready.checked.destination.places[version.location][0].zone
    report = boot_checked(version, ready, ready.disks, work, context)
    check_still(ready, context)
    version = describe(version, ready, report, context)
    record = zone_record(version, context, ready.nvram)
    status = publish_shallow(record, shallow_disks(ready), zone)
    return context.records.set_regions(version, status)
