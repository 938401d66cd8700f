"""What may be deleted, undeleted and removed for good."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from pipeline.errors import Conflict
from pipeline.model import Channel, ImageVersion, ProvisioningState, SoftDeletePolicy, SoftDeletion


def blocked(version: ImageVersion, now: datetime) -> bool:
    """Whether its safety profile keeps it until an end of life that is still to come."""
    end = version.end_of_life_date
    return (
        version.safety_profile.block_deletion_before_end_of_life and end is not None and end > now
    )


def version_deletable(version: ImageVersion, now: datetime) -> None:
    end = version.end_of_life_date
    if end is not None and blocked(version, now):
        raise Conflict(
            f"The gallery image version '{version.name}' can't be deleted before its end of life "
            f"{end.isoformat()}.",
            plain=f"{version.name} can't be deleted before its end of life, {end:%Y-%m-%d}",
            hint="set blockDeletionBeforeEndOfLife to false, or the end of life to a moment from "
            "now, and delete it when that has passed",
            code="DeleteGalleryImageVersionBlockedBeforeEndOfLife",
        )


def not_promoted(version: ImageVersion, channels: Sequence[Channel]) -> None:
    """A channel must lead somewhere."""
    names = [channel.name for channel in channels if channel.version == version.number]
    if names:
        raise Conflict(
            f"The image version '{version.name}' is what channel {', '.join(names)} means.",
            hint="promote another version first, or remove the channel with --remove",
            code="VersionInUse",
        )


def to_the_bin(version: ImageVersion, policy: SoftDeletePolicy) -> bool:
    """Whether deleting it now keeps it for a while: what nobody can use is not worth keeping."""
    return (
        policy.is_soft_delete_enabled
        and version.soft_deleted is None
        and bool(version.completed_regions)
        and version.provisioning_state is not ProvisioningState.DELETING
    )


def soft_deletion(policy: SoftDeletePolicy, now: datetime) -> SoftDeletion:
    end = now + timedelta(days=policy.retention_period_in_days)
    return SoftDeletion(now, end, end + timedelta(days=policy.grace_period_in_days))


def soft_deleted(version: ImageVersion) -> SoftDeletion:
    if version.soft_deleted is None:
        raise Conflict(
            f"The image version '{version.name}' is not soft-deleted.",
            hint="galleria list --deleted shows those that are",
        )
    return version.soft_deleted


def in_the_bin(version: ImageVersion, now: datetime) -> SoftDeletion:
    """Its deletion, if it can still be undone."""
    deletion = soft_deleted(version)
    if deletion.hard_deletion_target_time <= now:
        raise Conflict(
            f"The image version '{version.name}' was to be removed for good at "
            f"{deletion.hard_deletion_target_time.isoformat()}."
        )
    return deletion


def not_deleted(version: ImageVersion) -> None:
    if version.soft_deleted is not None:
        raise Conflict(
            f"Operation 'Update Gallery Image Version' is not allowed on '{version.name}'; since "
            "it is soft-deleted.",
            hint="galleria version undelete brings it back",
            code="OperationNotAllowed",
        )


def deleted_already(version: ImageVersion) -> Conflict:
    return Conflict(
        f"The image version '{version.name}' is soft-deleted already.",
        hint="galleria version purge removes it for good",
        code="OperationNotAllowed",
    )
