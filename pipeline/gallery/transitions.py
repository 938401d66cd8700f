"""How a version changes while it is published, replicated and deleted. Pure functions."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from pipeline.gallery import rules
from pipeline.model import (
    ImageVersion,
    ProvisioningState,
    RegionStatus,
    ReplicationState,
    TargetRegion,
    VersionRequest,
)
from pipeline.model.spelling import region_key

_NOT_FINISHED = "The work ended before this region was done."


def created(
    request: VersionRequest,
    location: str,
    targets: tuple[TargetRegion, ...],
    *,
    generalized: bool,
    uid: str,
    owner: str,
    now: datetime,
) -> ImageVersion:
    return ImageVersion(
        name=request.name,
        uid=uid,
        attempt=1,
        fingerprint=request.fingerprint,
        location=location,
        created=now,
        provisioning_state=ProvisioningState.CREATING,
        target_regions=targets,
        regions=tuple(RegionStatus(target.name) for target in targets),
        generalized=generalized,
        replica_count=request.replica_count,
        replication_mode=request.replication_mode,
        exclude_from_latest=request.exclude_from_latest,
        end_of_life_date=request.end_of_life_date,
        safety_profile=request.safety_profile,
        storage_account_type=rules.storage_type(request),
        storage_account_strategy=request.storage_account_strategy,
        security_profile=request.security_profile,
        tags=request.tags,
        owner=owner,
        owned_since=now,
    )


def taken_over(old: ImageVersion, fresh: ImageVersion) -> ImageVersion:
    """`fresh` in the place of `old`, whose owner died or failed. The uid stays, so that what the
    old attempt left in zones is found. What is Completed stays, with the disks that it consists of.
    """
    same = replace(fresh, uid=old.uid, attempt=old.attempt + 1)
    if not old.completed_regions:
        return same
    # of an unfinished update, the regions that it was to add are wanted still
    everything = old.provisioning_state is ProvisioningState.UPDATING
    kept = {t.key: t for t in old.target_regions if everything or old.is_completed_in(t.name)}
    wanted = {t.key: t for t in fresh.target_regions}
    targets = tuple((wanted | kept).values())
    return replace(
        same,
        created=old.created,
        generalized=old.generalized,
        replica_count=old.replica_count,
        target_regions=targets,
        regions=_statuses(old, targets),
        disks=old.disks,
        unverified=old.unverified,
        leaving=old.leaving,
        report_digest=old.report_digest,
        stats=old.stats,
        published_date=old.published_date,
    )


def region_changed(version: ImageVersion, status: RegionStatus, now: datetime) -> ImageVersion:
    """The version with one region's new status."""
    old = rules.existing(version.status(status.region), f"{version.name} in {status.region}")
    status = replace(status, region=old.region)
    first = status.state is ReplicationState.COMPLETED and version.published_date is None
    return replace(
        version,
        regions=tuple(status if item is old else item for item in version.regions),
        published_date=now if first else version.published_date,
    )


def replicating(
    version: ImageVersion, targets: Iterable[TargetRegion], owner: str, now: datetime
) -> ImageVersion:
    """The version with regions added, or asked for again; what is Completed stays."""
    changed = {target.key: target for target in targets}
    kept = tuple(changed.pop(target.key, target) for target in version.target_regions)
    return replace(
        version,
        attempt=version.attempt + 1,
        provisioning_state=ProvisioningState.UPDATING,
        target_regions=kept + tuple(changed.values()),
        regions=_statuses(version, kept + tuple(changed.values())),
        owner=owner,
        owned_since=now,
    )


def regions_differ(old: ImageVersion, new: ImageVersion) -> bool:
    """Whether something is to be done in zones: regions come or go, or other counts are wanted."""
    wanted = {target.key: new.replicas_in(target) for target in new.target_regions}
    made = {item.key: len(item.result.replicas) for item in old.regions if item.result.replicas}
    unequal = any(wanted.get(key, count) != count for key, count in made.items())
    unfinished = old.provisioning_state is ProvisioningState.UPDATING
    return _numbers(old) != _numbers(new) or unequal or unfinished or bool(old.leaving)


def _numbers(version: ImageVersion) -> dict[str, object]:
    """By region, its own replicas and the additional ones."""
    common = version.replica_count
    return {t.key: (t.own_count(common), t.additional_replica_sets) for t in version.target_regions}


def updating(
    version: ImageVersion, targets: tuple[TargetRegion, ...], owner: str, now: datetime
) -> ImageVersion:
    """The version with other regions: those that are removed can't be used from now on."""
    keys = {target.key for target in targets}
    gone = [target.name for target in version.target_regions if target.key not in keys]
    # one that comes back before its old data is gone must not lose what is made now
    leaving = tuple(name for name in version.leaving if region_key(name) not in keys)
    return replace(
        version,
        attempt=version.attempt + 1,
        provisioning_state=ProvisioningState.UPDATING,
        target_regions=targets,
        regions=_statuses(version, targets),
        leaving=(*leaving, *gone),
        owner=owner,
        owned_since=now,
    )


def finished(version: ImageVersion, details: str = "") -> ImageVersion:
    """No process works on it any more: Succeeded when every region is Completed, else Failed (and
    usable where it is Completed), as in Azure."""
    regions = tuple(
        s
        if s.state in (ReplicationState.COMPLETED, ReplicationState.FAILED)
        else replace(s, state=ReplicationState.FAILED, details=details or _NOT_FINISHED)
        for s in version.regions
    )
    complete = all(s.state is ReplicationState.COMPLETED for s in regions)
    return replace(
        version,
        regions=regions,
        provisioning_state=ProvisioningState.SUCCEEDED if complete else ProvisioningState.FAILED,
        owner=None,
        owned_since=None,
    )


def handed_over(version: ImageVersion) -> ImageVersion:
    """Usable where it is Completed, the rest left to the process that takes it next."""
    return replace(
        version, provisioning_state=ProvisioningState.UPDATING, owner=None, owned_since=None
    )


def deleting(version: ImageVersion, owner: str, now: datetime) -> ImageVersion:
    return replace(
        version,
        attempt=version.attempt + 1,
        provisioning_state=ProvisioningState.DELETING,
        owner=owner,
        owned_since=now,
    )


def _statuses(old: ImageVersion, targets: tuple[TargetRegion, ...]) -> tuple[RegionStatus, ...]:
    """The status of each target: what is Completed stays, the rest starts again."""
    return tuple(
        status
        if (status := old.status(target.name)) is not None and old.is_completed_in(target.name)
        else RegionStatus(target.name)
        for target in targets
    )
