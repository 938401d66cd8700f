"""Update: change a published version. Regions that it is to leave lose its replicas, others get as
many as are wanted, and new ones are made from the bases of a region that has them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pipeline.gallery.rules import VersionChange
from pipeline.gallery.service.taken import TakenVersion
from pipeline.jobs.context import JobContext
from pipeline.jobs.delete import remove_data
from pipeline.jobs.replicate import given_back, raise_if_partial, replicate_missing
from pipeline.jobs.running import running, when_free
from pipeline.model import ImageVersion, RegionStatus
from pipeline.model.names import VersionName
from pipeline.model.runs import RunKind
from pipeline.storage.commit import replica_documents
from pipeline.storage.placement import Placement, placed_again, usable_version


def update_version(name: VersionName, change: VersionChange, context: JobContext) -> ImageVersion:
    """Change what may be changed, and make it so in the zones. Raises PartiallyReplicated when a
    region failed; running it again goes on."""
    with running(context, RunKind.UPDATE, name.arm_id) as context:
        version = when_free(lambda: context.gallery.begin_update(name, change), context)
        if version.owner is None:  # nothing to do in the zones
            return version
        changed = updated(version, context)
        raise_if_partial(changed)
        return changed


def updated(version: TakenVersion, context: JobContext) -> ImageVersion:
    """Make the zones as a version that is being updated says."""
    with context.work.directory() as work, given_back(version, context):
        version = leave_regions(version, context)
        version = resize_regions(version, context)
        version = replicate_missing(version, work, context)
        return context.records.finish_version(version)


def leave_regions(version: TakenVersion, context: JobContext) -> TakenVersion:
    """Remove the data of regions that the version was taken out of."""
    for region in version.leaving:
        remove_data(version, [region], context)
        version = context.records.region_left(version, region)
    return version


def resize_regions(version: TakenVersion, context: JobContext) -> TakenVersion:
    """Give each Completed region the number of replicas that is wanted there."""
    for status in version.regions:
        target = version.target(status.region)
        if target is None or not version.is_completed_in(status.region):
            continue
        if (
            len(status.result.replicas) == version.replicas_in(target)
            and not target.additional_replica_sets
        ):
            continue
        zones = context.zones.get(status.region, ())
        holding = [zone for zone in zones if usable_version(zone, version.zone_key) is not None]
        placements = placed_again(target, version.replica_count, holding)
        if not _as_wanted(version, status, placements):
            version = context.records.set_regions(version, resize(version, status, placements))
    return version


def _as_wanted(
    version: ImageVersion, status: RegionStatus, placements: Sequence[Placement]
) -> bool:
    """Whether each zone has its number of replicas, and the catalog says so: a run that was killed
    may have left either behind."""
    recorded = Counter(replica["zone"] for replica in status.result.replicas)
    return all(
        recorded[placement.zone.name]
        == placement.replicas
        == len(placement.zone.find_version(version.zone_key) or ())
        for placement in placements
    )


def resize(
    version: ImageVersion, status: RegionStatus, placements: Sequence[Placement]
) -> RegionStatus:
    """The status of a region with other numbers of replicas in its zones."""
    made = [
        (placement.zone, placement.zone.set_replicas(version.zone_key, placement.replicas))
        for placement in placements
    ]
    result = replace(status.result, replicas=replica_documents(made))
    return replace(status, result=result)
