"""Where a version may be."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pipeline.errors import InvalidParameter
from pipeline.model import (
    Region,
    ReplicationMode,
    StorageAccountStrategy,
    StorageAccountType,
    TargetRegion,
    VersionRequest,
)
from pipeline.model.spelling import did_you_mean, region_key

MAX_REPLICAS = 100
_PREMIUM = (StorageAccountType.PREMIUM_LRS, StorageAccountType.PREMIUM_V2_LRS)


def known_region(
    name: str,
    regions: Iterable[Region],
    *,
    kind: str = "galleries",
    provider: str = "Microsoft.Compute",
    edge_zones: bool = False,
) -> Region:
    """The configured region (or edge zone) of that name, in its configured spelling."""
    regions = tuple(region for region in regions if edge_zones or not region.is_edge_zone)
    for region in regions:
        if region_key(region.name) == region_key(name):
            return region
    if not regions:
        raise InvalidParameter(
            "there is no region in the configuration",
            hint="galleria init makes one, or those that --region names",
            code="LocationNotAvailableForResourceType",
        )
    available = ", ".join(sorted(region.name for region in regions))
    raise InvalidParameter(
        f"The provided location {name!r} is not available for resource type "
        f"'{provider}/{kind}'. List of available regions for the resource type is "
        f"'{available}'.",
        plain=f"there is no region {name!r}{did_you_mean(name, (one.name for one in regions))}",
        hint=f"regions in the configuration: {available}",
        code="LocationNotAvailableForResourceType",
    )


def targets(
    wanted: Sequence[TargetRegion],
    location: Region,
    regions: Iterable[Region],
    mode: ReplicationMode = ReplicationMode.FULL,
    *,
    kind: StorageAccountType | None = None,
    strategy: StorageAccountStrategy | None = None,
    common: int | None = None,
) -> tuple[TargetRegion, ...]:
    """The target regions of a version in `location`, in their configured spelling; `kind` is the
    storage account type of those that name none, or `strategy` chooses it; `common` is how many
    replicas those have that give no number."""
    regions = tuple(regions)
    if all(target.is_edge_zone for target in wanted):  # those come beside regions
        wanted = [TargetRegion(location.name), *wanted]
    result = tuple(_target(target, regions, kind, strategy) for target in wanted)
    keys = [target.key for target in result]
    if len(set(keys)) < len(keys):
        twice = next(target.name for target in result if keys.count(target.key) > 1)
        raise InvalidParameter(
            f"Duplicate regions are not allowed in target publishing regions: '{twice}' is there "
            "more than once.",
            plain=f"region {twice} is given more than once",
        )
    source_region_targeted(result, location)
    if mode is ReplicationMode.SHALLOW:
        _shallow(result)
    total = sum(target.count(common) for target in result)
    if total > MAX_REPLICAS:
        raise InvalidParameter(
            f"The image version would have {total} replicas in {len(result)} regions: an image "
            f"version has at most {MAX_REPLICAS}."
        )
    return result


def source_region_targeted(wanted: Sequence[TargetRegion], location: Region) -> None:
    if region_key(location.name) not in [target.key for target in wanted]:
        listed = ", ".join(target.name for target in wanted)
        raise InvalidParameter(
            f"Gallery image version publishing profile regions '{listed}' must contain the "
            f"location of image version '{location.name}'.",
            plain=f"the source region, {location.name}, must be one of the target regions",
            hint=f"add --target-region {location.name}, or choose the source region with "
            "--location",
        )


def storage_type(request: VersionRequest) -> StorageAccountType | None:
    """The storage account type of a version's regions that name none. None: a strategy chooses."""
    kind, strategy = request.storage_account_type, request.storage_account_strategy
    if kind is not None and strategy is not None:
        raise InvalidParameter(
            "The properties 'publishingProfile.storageAccountType' and "
            "'publishingProfile.storageAccountStrategy' exclude each other: "
            f"'{kind.value}' and '{strategy.value}' are given.",
            plain="a storage account type and a storage account strategy exclude each other: "
            f"{kind.value} and {strategy.value} are given",
        )
    return kind or (None if strategy else StorageAccountType.STANDARD_LRS)


def _chosen(region: Region, strategy: StorageAccountStrategy | None) -> StorageAccountType:
    zrs = StorageAccountType.STANDARD_ZRS
    preferred = strategy is StorageAccountStrategy.PREFER_STANDARD_ZRS
    if preferred and zrs in region.storage_account_types:
        return zrs
    return StorageAccountType.STANDARD_LRS


def _target(
    target: TargetRegion,
    regions: tuple[Region, ...],
    default: StorageAccountType | None,
    strategy: StorageAccountStrategy | None,
) -> TargetRegion:
    kinds = "galleries/images/versions"
    region = known_region(target.name, regions, kind=kinds, edge_zones=target.is_edge_zone)
    replica_count(target.regional_replica_count, "targetRegion.regionalReplicaCount")
    kind = target.storage_account_type or default or _chosen(region, strategy)
    offered(region, kind)
    _additional(target, region, kind)
    return replace(target, name=region.name, storage_account_type=kind)


def _additional(target: TargetRegion, region: Region, kind: StorageAccountType) -> None:
    """More replicas in a region lie in the other sort of zones: beside a base in an ordinary zone
    another one there would be the region's own."""
    sets = target.additional_replica_sets
    for item in sets:
        replica_count(item.regional_replica_count, "additionalReplicaSets.regionalReplicaCount")
        offered(region, item.storage_account_type)
    sorts = [kind in _PREMIUM, *(item.storage_account_type in _PREMIUM for item in sets)]
    if len(set(sorts)) < len(sorts):
        listed = ", ".join(item.storage_account_type.value for item in sets)
        raise InvalidParameter(
            f"The additionalReplicaSets of region '{region.name}' are not valid: {listed} beside "
            f"the region's own {kind.value}.",
            plain=f"region {region.name} keeps its replicas in {kind.value}; more replicas can't "
            f"be kept in {listed}",
            hint="beside a standard type one set of Premium_LRS, beside Premium_LRS one of a "
            "standard type",
        )


def offered(region: Region, kind: StorageAccountType) -> None:
    """Refuse a storage account type that no zone of the region has."""
    if kind not in region.storage_account_types:
        family = "ZRS" if kind is StorageAccountType.STANDARD_ZRS else kind.value
        raise InvalidParameter(
            f"{family} storage account type is not supported in this region: '{region.name}'.",
            plain=f"region {region.name} has no zones for {kind.value}",
            hint="supported there: " + ", ".join(k.value for k in region.storage_account_types),
        )


def _shallow(result: tuple[TargetRegion, ...]) -> None:
    if len(result) > 1 or result[0].count(None) > 1:
        raise InvalidParameter(
            "A version in replication mode Shallow exists in its source region only, with one "
            "replica: the replica depends on the files of the source."
        )


def replica_count(value: int | None, parameter: str) -> None:
    if value is not None and not 1 <= value <= MAX_REPLICAS:
        raise InvalidParameter(
            f"The value {value} of parameter {parameter} is out of range. The value must be "
            f"between 1 and {MAX_REPLICAS}, inclusive.",
            plain=f"the number of replicas must be between 1 and {MAX_REPLICAS}: {value}",
        )
