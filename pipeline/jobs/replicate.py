"""Replication: regions of a version made from the bases of one that has them, and what keeps zones
in order meanwhile."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.errors import (
    GalleriaError,
    NotFound,
    PartiallyReplicated,
    VerificationFailed,
    undone_by,
)
from pipeline.gallery.documents import encode
from pipeline.gallery.service.taken import TakenVersion
from pipeline.jobs.context import JobContext
from pipeline.jobs.garbage import collect_removed, garbage_collect
from pipeline.jobs.retry import DELAYS, pause, transient
from pipeline.jobs.running import running, when_free
from pipeline.jobs.shallow import is_shallow
from pipeline.jobs.timing import Record
from pipeline.model import ImageVersion, ReplicationState, TargetRegion
from pipeline.model.names import VersionName
from pipeline.model.runs import RunKind
from pipeline.ports import VersionRecord, Zone
from pipeline.sources.ingest import Disk
from pipeline.storage.commit import (
    Outcome,
    donated,
    record_failures,
    replicate,
    replicate_from_donor,
)
from pipeline.storage.convert import Stored
from pipeline.storage.placement import (
    Parents,
    Places,
    Zones,
    every_zone,
    place,
    sink_name,
    sinks,
    usable_base,
    usable_version,
)
from pipeline.storage.soundness import check_base
from pipeline.storage.space import measure
from pipeline.storage.status import RegionMeter


def replicate_version(
    name: VersionName, targets: Sequence[TargetRegion], context: JobContext, *, retry: bool = False
) -> ImageVersion:
    """Add regions to a published version, or make failed ones again: from a region that has it,
    never from the source. `retry` tries transient errors again, with exponential backoff."""
    wanted = {"version": name.arm_id, "targetRegions": encode(targets), "retry": retry}
    with (
        running(context, RunKind.REPLICATE, name.arm_id, wanted) as context,
        context.work.directory() as work,
    ):
        version = when_free(lambda: context.gallery.begin_replication(name, targets), context)
        with given_back(version, context):
            version = replicate_missing(version, work, context, DELAYS if retry else ())
            finished = context.records.finish_version(version)
        raise_if_partial(finished)
        return finished


def replicate_missing(
    version: TakenVersion, work: Path, context: JobContext, delays: Sequence[float] = ()
) -> TakenVersion:
    """Every region of an owned version that is not Completed, from the bases of one that is.
    Regions that fail for a passing reason are tried again after each of `delays` (seconds)."""
    missing = [t.name for t in version.target_regions if not version.is_completed_in(t.name)]
    lost = lost_regions(version, context)
    places = placed(version, [*missing, *lost], context)
    waits = iter(delays)
    with held(sinks(places), context):
        while places:
            outcome = replicate_once(version, places, work, context)
            again = {name: error for name, error in outcome.errors.items() if transient(error)}
            delay = next(waits, None) if again else None
            if delay is None:
                return require_some(outcome, places)
            version = record_failures(outcome.version, outcome.errors, context.records)
            pause(delay, again, context)
            places = {name: places[name] for name in again}
    return version


def lost_regions(version: ImageVersion, context: JobContext) -> list[str]:
    """The regions that the catalog calls Completed, and in which a zone that should hold the
    version has nothing of it: its disk was replaced, say. A zone that can't be looked at has not
    lost anything."""
    found: list[str] = []
    if is_shallow(version):
        return found
    for region in version.completed_regions:
        zones = context.zones.get(region, ())
        if any(zone.unusable for zone in zones) or version.target(region) is None:
            continue
        with suppress(GalleriaError):
            (placements,) = placed(version, [region], context).values()
            if any(_lacks(placement.zone, version.zone_key) for placement in placements):
                found.append(region)
    return found


def _lacks(zone: Zone, key: str) -> bool:
    try:
        return zone.find_version(key) is None
    except OSError:
        return False
    except GalleriaError:  # what is there can't be used: it is made anew
        return True


def replicate_once(
    version: TakenVersion, places: Places, work: Path, context: JobContext
) -> Outcome:
    """One attempt at these regions, in one read of a donor's bases."""
    try:
        donor, stored = from_any_donor(version, places, work, context)
        record = zone_record(version, context, donor.find_nvram(version.zone_key))
        return replicate(version, record, stored, places, context.records)
    except (OSError, GalleriaError) as error:
        if not transient(error):
            raise
        return Outcome(version, dict.fromkeys(places, error))


def from_any_donor(
    version: TakenVersion, places: Places, work: Path, context: JobContext
) -> tuple[Zone, Stored]:
    """The bases of a version in more zones, from the first zone whose own are what was published.
    Raises the first error when none is."""
    donors = find_donors(version, context.zones)
    first: VerificationFailed | None = None
    for donor in donors:
        try:
            advance = region_meter(version, places, donated(version, donor), context)
            means = context.storing("replicate", work, advance)
            return donor, replicate_from_donor(version, places, donor, means)
        except VerificationFailed as error:
            context.progress.warn(f"{error}; another zone is tried")
            first = first or error
    raise first or no_donor(version)


def require_some(outcome: Outcome, places: Places) -> TakenVersion:
    """The version, if anything became of these regions. Raises the first error if nothing did."""
    if places and len(outcome.errors) == len(places):
        raise next(iter(outcome.errors.values()))
    return outcome.version


def placed(
    version: ImageVersion,
    regions: Iterable[str],
    context: JobContext,
    parents: Parents | None = None,
) -> Places:
    """Where an owned version is stored, or is to be, in these of its regions: if it can be where
    one of `parents` is (None: an older version)."""
    return place(
        [target for name in regions if (target := version.target(name)) is not None],
        context.gallery.parents_of(version.name) if parents is None else parents,
        context.zones,
        replica_count=version.replica_count,
        key=version.zone_key,
        zrs_same_filesystem=context.zrs_same_filesystem,
    )


def region_meter(
    version: TakenVersion, places: Places, disks: Sequence[Disk], context: JobContext
) -> Callable[[int], None]:
    """What is told the bytes that these regions get."""
    total = sum(measure(disks, context.images).values())
    return RegionMeter(version, tuple(places), total, context.records).advance


def zone_record(version: ImageVersion, context: JobContext, nvram: bytes | None) -> VersionRecord:
    """What each zone keeps beside the bytes: enough to rebuild the catalog from."""
    definition = context.gallery.get_definition(version.name.definition)
    document = {
        "gallery": encode(context.records.gallery(version)),
        "definition": encode(definition),
        "version": encode(replace(version, owner=None, owned_since=None)),
        "report": context.gallery.report(version.name),
    }
    return VersionRecord(version.zone_key, document, nvram)


def conclude(version: TakenVersion, context: JobContext, record: Record) -> ImageVersion:
    """End a publication, or leave the regions that were not tried to a background process; and
    where the time went."""
    stats = record.document()
    if all(status.state is not ReplicationState.UNKNOWN for status in version.regions):
        return context.records.finish_version(version, stats)
    handed = context.records.hand_over(version, stats)
    wanted = {"version": handed.name.arm_id, "retry": True}
    context.later(context.runs.leave(RunKind.REPLICATE, handed.name.arm_id, wanted))
    return handed


def raise_if_partial(version: ImageVersion) -> None:
    """Raise PartiallyReplicated, naming the regions that failed, if any did. It is called outside
    of `given_back`: what is Completed stays, and there is nothing to undo."""
    failed = [s for s in version.regions if s.state is ReplicationState.FAILED]
    if not failed:
        return
    details = "; ".join(f"{status.region}: {status.details}" for status in failed)
    raise PartiallyReplicated(
        f"{version.name} is usable in {', '.join(version.completed_regions)}, "
        f"but failed in {details}",
        hint=f"galleria replicate {version.name} makes the failed regions again, and only those",
    )


def find_donor(version: ImageVersion, zones: Zones) -> Zone:
    """A zone that holds the version, the best one."""
    for zone in find_donors(version, zones):
        return zone
    raise no_donor(version)


def sound_donor(version: ImageVersion, context: JobContext) -> Zone:
    """A zone that holds the version, and whose bases are sound: they were read not long ago, or are
    now. Raises the first error when there is none."""
    first: OSError | GalleriaError | None = None
    for zone in find_donors(version, context.zones):
        try:
            digests = {disk.digest for disk in version.disks if disk.digest}
            if all(check_base(zone, digest, context, reused=True) for digest in digests):
                return zone
        except (OSError, GalleriaError) as error:
            first = first or error
    raise first or no_donor(version)


def find_donors(version: ImageVersion, zones: Zones) -> list[Zone]:
    """The zones that hold the version: first those whose bases are all there and as they were, of
    them those of its source region."""
    holding = [
        zone
        for region in sorted(version.completed_regions, key=lambda name: name != version.location)
        for zone in zones.get(region, ())
        if usable_version(zone, version.zone_key) is not None
    ]

    def doubtful(zone: Zone) -> bool:
        return any(disk.digest and not usable_base(zone, disk.digest) for disk in version.disks)

    return sorted(holding, key=doubtful)


def no_donor(version: ImageVersion) -> NotFound:
    regions = ", ".join(version.completed_regions) or "no region"
    return NotFound(
        f"no zone on this host holds {version.name}",
        hint=f"the catalog says it is Completed in {regions}: galleria doctor shows the zones",
    )


@contextmanager
def held(
    zones: Mapping[str, Zone], context: JobContext, keep: Iterable[str] = ()
) -> Iterator[None]:
    """Zones in which bases are safe until versions use them. What killed runs left is removed
    first, but for the bases `keep`, and what this one stored in vain at the end."""
    garbage_collect(zones, context, keep)
    with undone_by(partial(garbage_collect, zones, context, quiet=True)), ExitStack() as stack:
        for zone in zones.values():
            with suppress(OSError):  # it fails alone, when something is to be stored in it
                stack.enter_context(zone.hold())
        yield
    garbage_collect(zones, context, quiet=True)


def remove_stored(
    key: str, zones: Mapping[str, Zone], regions: Collection[str], context: JobContext
) -> None:
    """Take what zones keep under a key away, and the bases that nobody else needs. A zone that
    fails fails alone: the error of one of `regions` is raised when the others are done; elsewhere
    there is nothing of it."""
    errors: list[OSError | GalleriaError] = []
    for zone in zones.values():
        try:
            zone.remove_version(key)
        except (OSError, GalleriaError) as error:
            errors += [error] * (zone.region in regions)
    collect_removed(zones, context)
    if errors:
        raise errors[0]


@contextmanager
def given_back(version: TakenVersion, context: JobContext) -> Iterator[None]:
    """A publication that fails before its first region is Completed leaves its number free, and
    nothing in the zones."""
    try:
        yield
    except BaseException as error:
        # when another process has taken the version over meanwhile, it is no longer ours to end;
        # what can't be undone now is undone by the run that takes it over: the first error counts
        with suppress(GalleriaError, OSError):
            undo(version, context)
        with suppress(GalleriaError, OSError):
            context.records.abandon_version(version, str(error) or type(error).__name__)
        raise


def remove_other(version: TakenVersion, context: JobContext) -> None:
    """Take away what a run that was killed, or overtaken, has left in zones under the number of a
    version that is Completed nowhere, if it was made from other sources or with another plan."""
    if version.attempt == 1 or version.completed_regions:
        return
    for zone in every_zone(context.zones):
        with suppress(GalleriaError, OSError):  # what is to be written there says what is wrong
            document = zone.find_document(version.zone_key)
            left = None if document is None else document["version"].get("fingerprint")
            if left not in (None, version.fingerprint):
                zone.remove_version(version.zone_key)


def undo(version: ImageVersion, context: JobContext) -> None:
    """Take away what zones hold of a version that is Completed nowhere."""
    current = context.gallery.get_version(version.name)
    if current.attempt != version.attempt or current.completed_regions:
        return
    zones = {sink_name(zone): zone for zones in context.zones.values() for zone in zones}
    for zone in zones.values():
        with suppress(GalleriaError, OSError):  # what stays there is taken over by the next run
            zone.remove_version(version.zone_key)
    garbage_collect(zones, context, quiet=True)
