"""THE MAIN JOB: a VM's disks in; a generalized, hashed, versioned image with replicas in regions
out.

Read this first: it is the whole product on one screen.
"""

from pathlib import Path

from pipeline.gallery.service.taken import TakenVersion
from pipeline.jobs.contents import record_contents, shallow_disks
from pipeline.jobs.context import JobContext, recorded
from pipeline.jobs.prepare import (
    Prepared,
    PublishRequest,
    check_publish,
    check_still,
    fingerprinted,
    prepared,
    report_with_boot,
)
from pipeline.jobs.replicate import (
    conclude,
    given_back,
    held,
    raise_if_partial,
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
    """Publish a version. Every rule is checked before a byte is stored (a boot check: before the
    version is visible); the source is never written; a region is Completed or not there. Raises
    PartiallyReplicated when only some regions are."""
    measured, record = recorded(context)
    asked = fingerprinted(request, context.sources)
    name = asked.name.arm_id
    with (
        running(measured, RunKind.PUBLISH, name, {"version": name}, asked.fingerprint) as job,
        job.work.directory() as work,
    ):
        version = when_free(lambda: job.gallery.begin_version(asked), job)
        with given_back(version, job):  # a failure before the first region frees the number
            job.begun(version)
            if version.completed_regions:
                # an earlier run made its first region: the others are copied from it
                version = replicate_missing(version, work, job)
            else:
                remove_other(version, job)  # what another source left in zones under this number
                version = make(version, request, work, job)
            concluded = conclude(version, job, record)
        raise_if_partial(concluded)  # out here: the regions that are Completed stay
        return concluded


def make(
    version: TakenVersion, request: PublishRequest, work: Path, context: JobContext
) -> TakenVersion:
    """Make the version's first regions from its sources: ingest (`check_publish`), pin and
    generalize (`prepared`), store and replicate (`copy`) or only link (`link`)."""
    with supplied(request.sources, work, context.sources) as supply:
        checked = check_publish(version, supply, request, context)
        goal = checked.destination
        with (
            prepared(checked, work, context) as ready,
            held(goal.zones, context, goal.known.values()),  # from gc, until versions use the bases
        ):
            finish = link if is_shallow(version) else copy
            return finish(version, ready, work, context)


def copy(version: TakenVersion, ready: Prepared, work: Path, context: JobContext) -> TakenVersion:
    """Full: store the bytes in zones of every region, and make replicas of what is stored."""
    places = ready.checked.destination.places
    with context.timed("store"):
        advance = region_meter(version, places, ready.disks, context)
        means = context.storing("store", work, advance)
        stored = store(ready.material, context.zones, means)
    report = report_with_boot(version, ready, stored.content(), work, context)
    version = record_contents(version, ready, report, context, stored.digests)
    with context.timed("replicate"):
        record = zone_record(version, context, ready.nvram)
        outcome = replicate(version, record, stored, places, context.records)
    return require_some(outcome, places)


def link(version: TakenVersion, ready: Prepared, work: Path, context: JobContext) -> TakenVersion:
    """Shallow: store nothing; the one replica is an overlay on the source's own files."""
    zone = ready.checked.destination.places[version.location][0].zone
    report = report_with_boot(version, ready, ready.disks, work, context)
    check_still(ready, context)
    version = record_contents(version, ready, report, context)
    record = zone_record(version, context, ready.nvram)
    status = publish_shallow(record, shallow_disks(ready), zone)
    return context.records.set_regions(version, status)
