"""What may be changed of a version that is published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from pipeline.errors import Conflict, InvalidParameter, NotFound
from pipeline.gallery.rules.regions import (
    known_region,
    replica_count,
    source_region_targeted,
    targets,
)
from pipeline.gallery.rules.resources import end_of_life
from pipeline.model import (
    AdditionalReplicaSet,
    ImageVersion,
    Region,
    ReplicationMode,
    StorageAccountType,
    TargetRegion,
)
from pipeline.model.spelling import region_key


@dataclass(frozen=True, slots=True)
class VersionChange:
    """What is to be changed; None, or nothing, leaves a property as it is.

    `target_regions` is the whole new list, and what it leaves out is removed; so are
    `target_edge_zones`; `add` adds regions or changes their counts, and `remove` takes some away by
    name.
    """

    target_regions: tuple[TargetRegion, ...] | None = None
    target_edge_zones: tuple[TargetRegion, ...] | None = None
    add: tuple[TargetRegion, ...] = ()
    remove: tuple[str, ...] = ()
    replica_count: int | None = None
    exclude_from_latest: bool | None = None
    exclude_in: Mapping[str, bool] = field(default_factory=dict)
    end_of_life_date: datetime | None = None
    forget_end_of_life: bool = False
    allow_deletion_of_replicated_locations: bool | None = None
    block_deletion_before_end_of_life: bool | None = None
    tags: Mapping[str, str] | None = None


def changed_properties(version: ImageVersion, change: VersionChange, now: datetime) -> ImageVersion:
    """The version with everything but its regions changed."""
    replica_count(change.replica_count, "publishingProfile.replicaCount")
    end = change.end_of_life_date
    if end != version.end_of_life_date:
        end_of_life(end, now)
    safety = version.safety_profile
    allow = change.allow_deletion_of_replicated_locations
    block = change.block_deletion_before_end_of_life
    if allow is not None:
        safety = replace(safety, allow_deletion_of_replicated_locations=allow)
    if block is not None:
        safety = replace(safety, block_deletion_before_end_of_life=block)
    exclude = change.exclude_from_latest
    kept_end = None if change.forget_end_of_life else version.end_of_life_date
    return replace(
        version,
        replica_count=change.replica_count or version.replica_count,
        exclude_from_latest=version.exclude_from_latest if exclude is None else exclude,
        end_of_life_date=end or kept_end,
        safety_profile=safety,
        tags=version.tags if change.tags is None else change.tags,
    )


def changed_targets(
    version: ImageVersion, change: VersionChange, regions: Sequence[Region]
) -> tuple[TargetRegion, ...]:
    """The version's target regions after a change, each checked."""
    location = known_region(version.location, regions)
    wanted = {target.key: target for target in version.target_regions}
    listed = _listed(version, change)
    if listed is not None:
        replaced = _checked(version, listed, location, regions)
        left_out = [target.name for target in wanted.values() if target.key not in _keys(replaced)]
        _may_leave(version, left_out, by_name=False)
        wanted = {target.key: target for target in replaced}
    for target in change.add:
        old = wanted.get(target.key)
        exclude = target.exclude_from_latest or (old is not None and old.exclude_from_latest)
        wanted[target.key] = replace(kept(version, target), exclude_from_latest=exclude)
    _may_leave(version, change.remove, by_name=True)
    for (
        name
    ) in change.remove:  # one that has left already is no mistake: the command may come twice
        wanted.pop(region_key(known_region(name, regions, edge_zones=True).name), None)
    source_region_targeted(tuple(wanted.values()), location)
    for name, exclude in change.exclude_in.items():
        found = wanted.get(region_key(name))
        if found is None:
            raise NotFound(f"'{name}' is not among the target regions of '{version.name}'.")
        wanted[found.key] = replace(found, exclude_from_latest=exclude)
    result = _checked(version, tuple(wanted.values()), location, regions)
    _one_stays(version, result)
    return result


def _listed(version: ImageVersion, change: VersionChange) -> list[TargetRegion] | None:
    """The whole new list, if one is given: of the regions, of the edge zones, or of both."""
    regions, edge_zones = change.target_regions, change.target_edge_zones
    if regions is None and edge_zones is None:
        return None
    if regions is None:
        regions = tuple(item for item in version.target_regions if not item.is_edge_zone)
    edges = version.edge_zones if edge_zones is None else edge_zones
    return [kept(version, target) for target in (*regions, *edges)]


def _checked(
    version: ImageVersion,
    wanted: Sequence[TargetRegion],
    location: Region,
    regions: Sequence[Region],
) -> tuple[TargetRegion, ...]:
    return targets(
        wanted,
        location,
        regions,
        version.replication_mode,
        kind=version.storage_account_type,
        strategy=version.storage_account_strategy,
        common=version.replica_count,
    )


def _keys(wanted: Sequence[TargetRegion]) -> set[str]:
    return {target.key for target in wanted}


def kept(version: ImageVersion, target: TargetRegion) -> TargetRegion:
    """A region as it is asked for: what is kept where has been decided if it is there already, and
    only the numbers may change."""
    old = version.target(target.name)
    if old is None:
        return target
    if target.storage_account_type not in (None, old.storage_account_type):
        have = old.storage_account_type.value if old.storage_account_type else "none"
        raise InvalidParameter(
            f"Global storage account type does not match the storage account type in the existing "
            f"TargetRegion: '{old.name}'. Please specify '{have}'.",
            plain=f"region {old.name} keeps the version in {have}: that can't be changed",
            hint="remove the region and add it again to change it",
            code="PropertyChangeNotAllowed",
        )
    sets = target.additional_replica_sets or old.additional_replica_sets
    if _types(sets) != _types(old.additional_replica_sets):
        raise InvalidParameter(
            "Changing property 'galleryImageVersion.properties.publishingProfile.targetRegions."
            f"additionalReplicaSets' is not allowed for region '{old.name}'.",
            plain=f"the storage of the additional replicas in region {old.name} can't be changed",
            hint="only the number of replicas changes; remove the region and add it again for more",
            code="PropertyChangeNotAllowed",
        )
    return replace(
        target,
        storage_account_type=old.storage_account_type,
        additional_replica_sets=sets,
    )


def _types(sets: Sequence[AdditionalReplicaSet]) -> list[StorageAccountType]:
    return [item.storage_account_type for item in sets]


def _may_leave(version: ImageVersion, names: Sequence[str], *, by_name: bool) -> None:
    allowed = version.safety_profile.allow_deletion_of_replicated_locations
    if not names or allowed or (by_name and allowed is None):
        return
    listed = ", ".join(names)
    if by_name:
        hint = "--allow-replicated-location-deletion true allows it"
    else:
        hint = f"to remove it use --remove-region {names[0]}; to keep it, name it too"
    raise Conflict(
        f"The gallery image version '{version.name}' can't be removed from replicated locations "
        f"'{listed}': safetyProfile.allowDeletionOfReplicatedLocations is not true.",
        plain=f"{version.name} would leave {listed}, and it is protected against that",
        hint=hint,
        code="OperationNotAllowed",
    )


def _one_stays(version: ImageVersion, wanted: Sequence[TargetRegion]) -> None:
    if version.completed_regions and not any(version.is_completed_in(t.name) for t in wanted):
        raise Conflict(
            f"'{version.name}' is complete in {', '.join(version.completed_regions)} only: "
            "without that region there is nothing to replicate from.",
            hint="galleria replicate completes the other regions first",
        )
    if version.replication_mode is ReplicationMode.SHALLOW and len(wanted) != 1:
        raise InvalidParameter(f"'{version.name}' is Shallow: it exists in its source region only.")


def not_changeable(path: str) -> Conflict:
    """A property that a version has for life."""
    return Conflict(
        f"Changing property 'galleryImageVersion.properties.{path}' is not allowed.",
        plain=f"{path} of a version can't be changed",
        hint="publish another version",
        code="PropertyChangeNotAllowed",
    )


def new_data_disk() -> Conflict:
    return Conflict(
        "Adding new Data Disks or changing the LUN of a Data Disk in an existing Image is not "
        "allowed.",
        hint="publish another version",
        code="PropertyChangeNotAllowed",
    )


def same_location(version: ImageVersion, location: str) -> None:
    if region_key(location) != region_key(version.location):
        raise Conflict(
            f"The resource '{version.name}' already exists in location '{version.location}'. A "
            f"resource with the same name cannot be created in location '{location}'.",
            plain=f"{version.name} is in region {version.location}: it can't be moved to "
            f"{location}",
            code="InvalidResourceLocation",
        )
