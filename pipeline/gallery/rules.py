"""What may be created, changed and deleted. Pure: each function returns, or refuses with Azure's
code and the core of its message (troubleshooting guide of Azure Compute Gallery)."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from pipeline.errors import Conflict, InvalidParameter, NotFound, Refused
from pipeline.gallery.model import (
    Gallery,
    ImageDefinition,
    ImageVersion,
    OsState,
    ProvisioningState,
    Recommended,
    Region,
    ReplicationMode,
    StorageAccountType,
    TargetRegion,
    VersionRequest,
)
from pipeline.gallery.names import VersionName, check_identifier, region_key

T = TypeVar("T")

GIB = 1 << 30
MAX_REPLICAS = 100
MAX_DISK_GIB: Mapping[ReplicationMode, int] = {
    ReplicationMode.FULL: 2 * 1024,
    ReplicationMode.SHALLOW: 32 * 1024,
}


# --- regions ------------------------------------------------------------------------------------


def known_region(name: str, regions: Iterable[Region], *, kind: str = "galleries") -> Region:
    """The configured region of that name, in its configured spelling."""
    regions = tuple(regions)
    for region in regions:
        if region_key(region.name) == region_key(name):
            return region
    available = ", ".join(sorted(region.name for region in regions))
    raise InvalidParameter(
        f"The provided location {name!r} is not available for resource type "
        f"'Microsoft.Compute/{kind}'. List of available regions for the resource type is "
        f"'{available}'.",
        code="LocationNotAvailableForResourceType",
    )


def targets(
    wanted: Sequence[TargetRegion],
    location: Region,
    regions: Iterable[Region],
    mode: ReplicationMode = ReplicationMode.FULL,
) -> tuple[TargetRegion, ...]:
    """The target regions of a version in `location`, in their configured spelling."""
    regions = tuple(regions)
    result = tuple(_target(target, regions) for target in wanted or [TargetRegion(location.name)])
    keys = [target.key for target in result]
    if len(set(keys)) < len(keys):
        twice = next(target.name for target in result if keys.count(target.key) > 1)
        raise InvalidParameter(
            f"Duplicate regions are not allowed in target publishing regions: '{twice}' is there "
            "more than once."
        )
    if region_key(location.name) not in keys:
        listed = ", ".join(target.name for target in result)
        raise InvalidParameter(
            f"Gallery image version publishing profile regions '{listed}' must contain the "
            f"location of image version '{location.name}'.",
            hint=f"add --target-region {location.name}, or choose the source region with "
            "--location",
        )
    if mode is ReplicationMode.SHALLOW:
        _shallow(result)
    return result


def _target(target: TargetRegion, regions: tuple[Region, ...]) -> TargetRegion:
    region = known_region(target.name, regions, kind="galleries/images/versions")
    replica_count(target.regional_replica_count, "targetRegion.regionalReplicaCount")
    kind = target.storage_account_type
    if kind not in region.storage_account_types:
        family = "ZRS" if kind is StorageAccountType.STANDARD_ZRS else kind.value
        raise InvalidParameter(
            f"{family} storage account type is not supported in this region: '{region.name}'.",
            hint="supported there: " + ", ".join(k.value for k in region.storage_account_types),
        )
    return TargetRegion(
        region.name, target.regional_replica_count, kind, target.exclude_from_latest
    )


def _shallow(result: tuple[TargetRegion, ...]) -> None:
    if len(result) > 1 or (result[0].regional_replica_count or 1) > 1:
        raise InvalidParameter(
            "A version in replication mode Shallow has its source region alone and one replica: "
            "its replicas lean on the source."
        )


def replica_count(value: int | None, parameter: str) -> None:
    if value is not None and not 1 <= value <= MAX_REPLICAS:
        raise InvalidParameter(
            f"The value {value} of parameter {parameter} is out of range. The value must be "
            f"between 1 and {MAX_REPLICAS}, inclusive."
        )


# --- galleries ----------------------------------------------------------------------------------


def gallery_put(new: Gallery, old: Gallery | None) -> None:
    """`old` is the gallery of that name in the subscription."""
    if old is None:
        return
    if old.name != new.name:
        raise Conflict(
            f"The gallery name '{new.name.name}' is not unique within the subscription "
            f"'{new.name.subscription}'. Please pick another gallery name.",
            hint=f"it is in resource group {old.name.resource_group}",
        )
    if region_key(old.location) != region_key(new.location):
        raise Conflict(
            f"The resource '{new.name}' already exists in location '{old.location}' in resource "
            f"group '{old.name.resource_group}'. A resource with the same name cannot be created "
            f"in location '{new.location}'.",
            code="InvalidResourceLocation",
        )


def deletable(name: object, nested: Sequence[object]) -> None:
    """Only what holds nothing is deleted: versions first, then definitions, then galleries."""
    if nested:
        listed = ", ".join(f"'{item}'" for item in nested[:5])
        raise Conflict(
            f"Cannot delete resource '{name}' while nested resources exist. Some existing nested "
            f"resource IDs include: {listed}.",
            hint="delete versions first, then definitions, then the gallery",
            code="CannotDeleteResource",
        )


# --- definitions --------------------------------------------------------------------------------

# Azure's names of what a definition keeps for life; the rest may be changed.
IMMUTABLE: tuple[tuple[str, str], ...] = (
    ("osType", "os_type"),
    ("osState", "os_state"),
    ("hyperVGeneration", "hyper_v_generation"),
    ("architecture", "architecture"),
    ("eula", "eula"),
    ("privacyStatementUri", "privacy_statement_uri"),
    ("disallowed", "disallowed"),
    ("features", "features"),
    ("purchasePlan", "purchase_plan"),
)


def definition_put(
    new: ImageDefinition,
    old: ImageDefinition | None,
    siblings: Iterable[ImageDefinition],
    now: datetime,
) -> None:
    """`siblings` are the definitions of the gallery, the old one among them or not."""
    for part in ("publisher", "offer", "sku"):
        check_identifier(part, getattr(new.identifier, part))
    recommended(new.recommended)
    if old is None or old.end_of_life_date != new.end_of_life_date:
        end_of_life(new.end_of_life_date, now)
    if old is not None:
        _unchanged(new, old)
    for sibling in siblings:
        if sibling.name != new.name and sibling.identifier.key == new.identifier.key:
            triple = new.identifier
            raise Conflict(
                f"Gallery image: '{sibling.name}' identified by (publisher:{triple.publisher}, "
                f"offer:{triple.offer}, sku:{triple.sku}) already exists. Choose a different "
                "publisher, offer, sku combination."
            )


def _unchanged(new: ImageDefinition, old: ImageDefinition) -> None:
    changed = [path for path, name in IMMUTABLE if getattr(new, name) != getattr(old, name)]
    for part in ("publisher", "offer", "sku"):
        if getattr(new.identifier, part) != getattr(old.identifier, part):
            changed.append(f"identifier.{part}")
    if region_key(new.location) != region_key(old.location):
        raise Conflict(
            f"The resource '{new.name}' already exists in location '{old.location}'. A resource "
            f"with the same name cannot be created in location '{new.location}'.",
            code="InvalidResourceLocation",
        )
    if changed:
        raise Conflict(
            f"Changing property 'galleryImage.properties.{changed[0]}' is not allowed: "
            f"'{new.name}' exists with another value.",
            hint="make another image definition",
            code="PropertyChangeNotAllowed",
        )


def recommended(value: Recommended) -> None:
    for name, limits in (("vCPUs", value.vcpus), ("memory", value.memory)):
        low, high = limits.min, limits.max
        for bound in (low, high):
            if bound is not None and bound < 1:
                raise InvalidParameter(
                    f"The value {bound} of parameter recommended.{name} is out "
                    "of range. The value must be at least 1."
                )
        if low is not None and high is not None and low > high:
            raise InvalidParameter(
                f"The minimum value of recommended.{name} must not be greater than the maximum "
                f"value of recommended.{name}: {low} > {high}."
            )


def end_of_life(date: datetime | None, now: datetime) -> None:
    if date is not None and date <= now:
        raise InvalidParameter(
            f"EndOfLifeDate must be set to a future date: {date.isoformat()} is past."
        )


def parent(found: T | None, name: object) -> T:
    """The parent that something is to be made in."""
    if found is None:
        raise NotFound(
            f"Can not perform requested operation on nested resource. Parent resource '{name}' not "
            "found.",
            code="ParentResourceNotFound",
        )
    return found


def existing(found: T | None, name: object) -> T:
    if found is None:
        raise NotFound(f"The resource '{name}' was not found.", code="ResourceNotFound")
    return found


# --- versions -----------------------------------------------------------------------------------


def version_request(request: VersionRequest, definition: ImageDefinition, now: datetime) -> None:
    """What does not depend on other versions; regions are checked by `targets`."""
    replica_count(request.replica_count, "publishingProfile.replicaCount")
    end_of_life(request.end_of_life_date, now)
    if request.generalize and definition.os_state is OsState.SPECIALIZED:
        raise InvalidParameter(
            f"Cannot create Gallery Image Version from: '{request.name}' since the OS State in the "
            "parent gallery image (Specialized) is not Generalized.",
            hint="a Specialized definition takes disks as they are: leave --generalize out, or use "
            "a Generalized definition",
        )
    for lun in request.luns:
        if lun < 0:
            raise InvalidParameter(
                f"The value {lun} of parameter lun is out of range. The value must not be negative."
            )
        if request.luns.count(lun) > 1:
            raise InvalidParameter(
                f"Duplicated lun numbers have been detected: {lun}. Each data disk has its own."
            )


def disk_limit(virtual_size: int, mode: ReplicationMode, disk: str) -> None:
    """`virtual_size` is in bytes; called when inspection has found it, before content is read."""
    limit = MAX_DISK_GIB[mode]
    if virtual_size > limit * GIB:
        raise Refused(
            f"The GalleryImageVersion source resource size {-(-virtual_size // GIB)} exceeds the "
            f"max size {limit} supported (GiB, replication mode {mode.value}): {disk}."
        )


def number_free(old: ImageVersion | None, fingerprint: str, *, owner_alive: bool) -> None:
    """Whether a number can be published under: it is free, or left behind by a process that died
    or failed, and then either nothing of it is usable or the same content is asked for."""
    if old is None:
        return
    not_busy(old, owner_alive=owner_alive, operation="Create")
    done = old.completed_regions
    if old.provisioning_state is ProvisioningState.SUCCEEDED:
        raise Conflict(
            f"The image version '{old.name}' already exists: its content is immutable.",
            hint="publish the next number, or delete this version first",
        )
    if done and old.fingerprint != fingerprint:
        raise Conflict(
            f"The image version '{old.name}' is unfinished but usable in {', '.join(done)}, from "
            "other sources or with another profile than these: its content is immutable.",
            hint="finish it with galleria replicate, publish the next number, or delete it first",
        )


def not_busy(version: ImageVersion, *, owner_alive: bool, operation: str) -> None:
    """Refuse what a live process works on, and any change of what is being deleted."""
    if version.provisioning_state is ProvisioningState.DELETING and operation != "Delete":
        raise Conflict(
            f"Operation '{operation} Gallery Image Version' is not allowed on '{version.name}'; "
            "since it is marked for deletion. You can only retry the Delete operation.",
            code="OperationNotAllowed",
        )
    if version.owner is not None and owner_alive:
        since = version.owned_since.isoformat(timespec="seconds") if version.owned_since else "?"
        raise Conflict(
            f"Operation '{operation} Gallery Image Version' is not allowed on '{version.name}': "
            f"process {version.owner.pid} on {version.owner.host} has been working on it since "
            f"{since} (state {version.provisioning_state.value}).",
            hint="wait for it, or end that process; the work is taken over from a dead one",
        )


def has_source(version: ImageVersion) -> None:
    """Replication reads the base of a region that has one, never the sources."""
    if not version.completed_regions:
        raise Conflict(
            f"The image version '{version.name}' is not Completed in any region: there is nothing "
            "to replicate from.",
            hint="publish it again: a failed publication leaves its number free",
        )


def replication_put(version: ImageVersion, wanted: Iterable[TargetRegion]) -> None:
    """Regions may be added and unfinished ones asked for again, not one that is done changed."""
    for target in wanted:
        if version.is_completed_in(target.name) and version.target(target.name) != target:
            raise Conflict(
                "Changing property "
                "'galleryImageVersion.properties.publishingProfile.targetRegions' "
                f"is not allowed for region '{target.name}', where '{version.name}' is Completed.",
                code="PropertyChangeNotAllowed",
            )


def version_deletable(version: ImageVersion, now: datetime) -> None:
    end = version.end_of_life_date
    if version.safety_profile.block_deletion_before_end_of_life and end is not None and end > now:
        raise Conflict(
            f"The gallery image version '{version.name}' can't be deleted before its end of life "
            f"{end.isoformat()}.",
            hint="set blockDeletionBeforeEndOfLife to false",
            code="DeleteGalleryImageVersionBlockedBeforeEndOfLife",
        )


# --- use ----------------------------------------------------------------------------------------


def not_in_region(name: VersionName, region: str) -> NotFound:
    return NotFound(
        f"The gallery image '{name}' is not available in {region} region. Please contact image "
        "owner to replicate to this region, or change your requested region.",
        code="GalleryImageNotFound",
    )


def no_latest(name: object, region: str | None) -> NotFound:
    place = f" in {region} region" if region else ""
    return NotFound(
        f"There is no latest image version exists for '{name}'{place}.",
        hint="versions excluded from latest, and those not Completed there, do not count",
        code="GalleryImageNotFound",
    )
