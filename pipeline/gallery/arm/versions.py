"""Image versions as Azure's REST API has them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline.errors import InvalidParameter
from pipeline.gallery import rules
from pipeline.gallery.access.shared_ids import is_shared_reference
from pipeline.gallery.answers import edge_zone
from pipeline.gallery.arm import Told, moment, read, require_location, system_data, tracked
from pipeline.gallery.documents import encode
from pipeline.gallery.rules import VersionChange
from pipeline.model import (
    AdditionalReplicaSet,
    HostCaching,
    ImageDisk,
    ImageVersion,
    ReplicationMode,
    SafetyProfile,
    SecurityProfile,
    StorageAccountStrategy,
    StorageAccountType,
    TargetRegion,
    VersionRequest,
)
from pipeline.model.names import VersionName, parse_version
from pipeline.model.resource_names import ResourceKind, resource_of
from pipeline.model.sources import (
    AnySource,
    ManagedImageSource,
    SnapshotSource,
    StoredDiskSource,
    VersionSource,
)
from pipeline.model.spelling import EDGE

KIND = "Microsoft.Compute/galleries/images/versions"

_GIB = 1 << 30
_WHOLE = ("managedImage", "version")  # kinds of origin that give all disks

# --- what is answered ----------------------------------------------------------------------------


def version(item: ImageVersion, *, status: bool = False, uefi: bool = False) -> dict[str, Any]:
    """With its replication `status`, and what its VMs' firmware trusts (`uefi`), if that is asked
    for. Nothing of the host is told: no paths of sources, no files."""
    properties: dict[str, Any] = {
        "publishingProfile": _publishing(item),
        "storageProfile": _storage(item),
        "safetyProfile": {
            **encode(item.safety_profile),
            "reportedForPolicyViolation": False,
            "policyViolations": [],
        },
        "provisioningState": item.provisioning_state.value,
    }
    if status:
        properties["replicationStatus"] = replication_status(item)
    if uefi:
        properties["securityProfile"] = encode(item.security_profile)
    found = tracked(item.name.arm_id, KIND, item.location, item.tags, properties)
    return found | system_data(item.created)


def replication_status(item: ImageVersion) -> dict[str, Any]:
    return {
        "aggregatedState": item.aggregated_state.value,
        "summary": [
            {
                "region": status.region,
                "state": status.state.value,
                "details": status.details,
                "progress": status.progress,
            }
            for status in item.regions
        ],
    }


def progress(item: ImageVersion) -> float:
    """How far its regions are, in per cent."""
    return sum(status.progress for status in item.regions) / max(1, len(item.regions))


def _publishing(item: ImageVersion) -> dict[str, Any]:
    plain = [target for target in item.target_regions if not target.is_edge_zone]
    found: dict[str, Any] = {
        "targetRegions": [_target(item, target) for target in plain],
        "replicaCount": item.replica_count or 1,
        "excludeFromLatest": item.exclude_from_latest,
        "replicationMode": item.replication_mode.value,
        "storageAccountType": (item.storage_account_type or _storage_of(item)).value,
        "publishedDate": moment(item.published_date or item.created),
        "endOfLifeDate": moment(item.end_of_life_date),
        "targetExtendedLocations": [edge_zone(item, target) for target in item.edge_zones] or None,
    }
    if item.storage_account_strategy is not None:
        found["storageAccountStrategy"] = item.storage_account_strategy.value
    return {key: value for key, value in found.items() if value is not None}


def _storage_of(item: ImageVersion) -> StorageAccountType:
    types = [target.storage_account_type for target in item.target_regions]
    return next((kind for kind in types if kind is not None), StorageAccountType.STANDARD_LRS)


def _target(item: ImageVersion, target: TargetRegion) -> dict[str, Any]:
    kind = target.storage_account_type or item.storage_account_type
    found: dict[str, Any] = {
        "name": target.name,
        "regionalReplicaCount": target.own_count(item.replica_count),
        "storageAccountType": (kind or StorageAccountType.STANDARD_LRS).value,
        "excludeFromLatest": target.exclude_from_latest,
    }
    if target.additional_replica_sets:
        found["additionalReplicaSets"] = encode(target.additional_replica_sets)
    return found


def _storage(item: ImageVersion) -> dict[str, Any]:
    """The disks, and what they were made from where that is a resource."""
    found: dict[str, Any] = {}
    for disk in item.disks:
        origin = disk.source.origin
        if origin is not None and origin.kind in _WHOLE:
            found["source"] = {"id": origin.id}
        if disk.lun is None:
            found["osDiskImage"] = _disk(disk)
        else:
            data = {"lun": disk.lun, **_disk(disk)}
            found.setdefault("dataDiskImages", []).append(data)
    return found


def _disk(disk: ImageDisk) -> dict[str, Any]:
    origin = disk.source.origin
    found: dict[str, Any] = {
        "sizeInGB": -(-disk.virtual_size // _GIB),
        "hostCaching": (disk.host_caching or HostCaching.NONE).value,
    }
    if origin is not None and resource_of(origin.id) is not None and origin.kind not in _WHOLE:
        found["source"] = {"id": origin.id}
    return found


# --- what is asked for ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DiskEncryption:
    """No zone holds encrypted bases: a set that is named is refused."""

    disk_encryption_set_id: str = ""
    lun: int | None = None
    security_profile: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EncryptionImages:
    os_disk_image: DiskEncryption = DiskEncryption()
    data_disk_images: tuple[DiskEncryption, ...] = ()

    @property
    def set(self) -> str:
        """The set that is named, or what says that there is none."""
        disks = (self.os_disk_image, *self.data_disk_images)
        profiles = (str(value) for disk in disks for value in disk.security_profile.values())
        named = (*(disk.disk_encryption_set_id for disk in disks), *profiles)
        return next(filter(None, named), "null")


@dataclass(frozen=True, slots=True)
class TargetRegionBody:
    name: str
    regional_replica_count: int | None = None
    storage_account_type: StorageAccountType | None = None
    exclude_from_latest: bool = False
    additional_replica_sets: tuple[AdditionalReplicaSet, ...] = ()
    encryption: EncryptionImages = EncryptionImages()

    @property
    def target(self) -> TargetRegion:
        return TargetRegion(
            self.name,
            self.regional_replica_count,
            self.storage_account_type,
            self.exclude_from_latest,
            self.additional_replica_sets,
        )


@dataclass(frozen=True, slots=True)
class ExtendedLocation:
    name: str
    type: str = "EdgeZone"


@dataclass(frozen=True, slots=True)
class TargetExtendedLocation:
    name: str
    extended_location: ExtendedLocation
    extended_location_replica_count: int | None = None
    storage_account_type: StorageAccountType | None = None
    encryption: EncryptionImages = EncryptionImages()

    @property
    def target(self) -> TargetRegion:
        return TargetRegion(
            f"{self.name}{EDGE}{self.extended_location.name}",
            self.extended_location_replica_count,
            self.storage_account_type,
        )


@dataclass(frozen=True, slots=True)
class SubResource:
    id: str


@dataclass(frozen=True, slots=True)
class OldSource:
    """Where the first api-version has the source."""

    managed_image: SubResource


@dataclass(frozen=True, slots=True)
class PublishingProfile:
    target_regions: tuple[TargetRegionBody, ...] = ()
    replica_count: int | None = None
    exclude_from_latest: bool | None = None
    end_of_life_date: datetime | None = None
    storage_account_type: StorageAccountType | None = None
    storage_account_strategy: StorageAccountStrategy | None = None
    replication_mode: ReplicationMode | None = None
    target_extended_locations: tuple[TargetExtendedLocation, ...] = ()
    source: OldSource | None = None
    published_date: Told = None


@dataclass(frozen=True, slots=True)
class FullSource:
    """Exactly one of these."""

    id: str = ""
    virtual_machine_id: str = ""
    community_gallery_image_id: str = ""


@dataclass(frozen=True, slots=True)
class DiskImageSource:
    id: str = ""
    uri: str = ""
    storage_account_id: str = ""


@dataclass(frozen=True, slots=True)
class DiskImage:
    host_caching: HostCaching | None = None
    source: DiskImageSource | None = None
    size_in_gb: Told = field(default=None, metadata={"json": "sizeInGB"})
    lun: int | None = None


@dataclass(frozen=True, slots=True)
class StorageProfile:
    source: FullSource | None = None
    os_disk_image: DiskImage | None = None
    data_disk_images: tuple[DiskImage, ...] = ()


@dataclass(frozen=True, slots=True)
class SafetyProfileBody:
    allow_deletion_of_replicated_locations: bool | None = None
    block_deletion_before_end_of_life: bool | None = None
    reported_for_policy_violation: Told = None
    policy_violations: Told = None


@dataclass(frozen=True, slots=True)
class VersionProperties:
    publishing_profile: PublishingProfile = PublishingProfile()
    storage_profile: StorageProfile = StorageProfile()
    safety_profile: SafetyProfileBody = SafetyProfileBody()
    security_profile: SecurityProfile | None = None
    restore: bool = False
    provisioning_state: Told = None
    replication_status: Told = None
    validations_profile: Told = None
    image_metadata_profiles: Told = None


@dataclass(frozen=True, slots=True)
class VersionBody:
    """What a PUT or PATCH says. `properties` None: none are given, which a PUT does that takes a
    version out of the bin."""

    location: str = ""
    tags: Mapping[str, str] | None = None
    properties: VersionProperties | None = None
    id: Told = None
    name: Told = None
    type: Told = None
    system_data: Told = None

    @property
    def restores(self) -> bool:
        return self.properties is None or self.properties.restore

    @property
    def given(self) -> VersionProperties:
        return self.properties or VersionProperties()


def read_version(document: object) -> VersionBody:
    return read(VersionBody, document)


def request_of(name: VersionName, body: VersionBody) -> VersionRequest:
    """What a PUT of a new version asks for; its sources are told by `sources_of`."""
    require_location(body.location)
    profile, safety = body.given.publishing_profile, body.given.safety_profile
    return VersionRequest(
        name,
        fingerprint="",
        location=body.location,
        target_regions=(*_regions(profile), *_edge_zones(profile)),
        replica_count=profile.replica_count,
        replication_mode=profile.replication_mode or ReplicationMode.FULL,
        storage_account_type=profile.storage_account_type,
        storage_account_strategy=profile.storage_account_strategy,
        exclude_from_latest=bool(profile.exclude_from_latest),
        end_of_life_date=profile.end_of_life_date,
        tags=body.tags or {},
        safety_profile=SafetyProfile(
            safety.allow_deletion_of_replicated_locations,
            block_deletion_before_end_of_life=bool(safety.block_deletion_before_end_of_life),
        ),
        security_profile=body.given.security_profile or SecurityProfile(),
        host_caching=dict(_caching(body.given.storage_profile)),
    )


def sources_of(body: VersionBody) -> tuple[AnySource, ...]:
    """The sources that a version is to be made from: one for all disks, or one for each."""
    profile, old = body.given.storage_profile, body.given.publishing_profile.source
    whole = profile.source
    if whole is None and old is not None:
        whole = FullSource(id=old.managed_image.id)
    disks = [(None, profile.os_disk_image)] if profile.os_disk_image else []
    each = [_disk_source(disk, lun) for lun, disk in (*disks, *_data(profile))]
    single = [source for source in each if source is not None]
    if (whole is None) == (not single):
        raise rules.one_kind_of_source()
    return (_whole(whole),) if whole is not None else tuple(single)


def change_of(old: ImageVersion, body: VersionBody) -> VersionChange:
    """What a PUT or PATCH of a version that is there asks for. What it does not say stays as it is;
    a list of regions is the whole new list. Raises what rules say of what can't be changed."""
    if body.location:
        rules.same_location(old, body.location)
    profile, safety = body.given.publishing_profile, body.given.safety_profile
    _unchanged(old, body.given)
    return VersionChange(
        target_regions=_regions(profile) or None,
        target_edge_zones=_edge_zones(profile) or None,
        replica_count=profile.replica_count,
        exclude_from_latest=profile.exclude_from_latest,
        end_of_life_date=profile.end_of_life_date,
        allow_deletion_of_replicated_locations=safety.allow_deletion_of_replicated_locations,
        block_deletion_before_end_of_life=safety.block_deletion_before_end_of_life,
        tags=body.tags,
    )


def _regions(profile: PublishingProfile) -> tuple[TargetRegion, ...]:
    """The target regions; one that is to be encrypted is refused."""
    items = profile.target_regions
    sets = [item.encryption.set for item in items]
    rules.region_encryption(sets, [item.name for item in items], "targetRegion.encryption")
    return tuple(item.target for item in items)


def _edge_zones(profile: PublishingProfile) -> tuple[TargetRegion, ...]:
    items = profile.target_extended_locations
    sets = [item.encryption.set for item in items]
    names = [item.name for item in items]
    rules.region_encryption(sets, names, "targetExtendedLocation.encryption")
    return tuple(item.target for item in items)


def _data(profile: StorageProfile) -> Iterator[tuple[int | None, DiskImage]]:
    for disk in profile.data_disk_images:
        if disk.lun is None:
            raise InvalidParameter("Required parameter 'dataDiskImages.lun' is missing (null).")
        yield disk.lun, disk


def _caching(profile: StorageProfile) -> Iterator[tuple[int | None, HostCaching]]:
    disks = [(None, profile.os_disk_image)] if profile.os_disk_image else []
    for lun, disk in (*disks, *_data(profile)):
        if disk.host_caching is not None:
            yield lun, disk.host_caching


def _whole(source: FullSource) -> AnySource:
    ids = [
        id for id in (source.id, source.community_gallery_image_id, source.virtual_machine_id) if id
    ]
    if len(ids) != 1:
        raise rules.one_kind_of_source()
    (id,) = ids
    if is_shared_reference(id):
        return VersionSource(id)
    if source.id:
        named = resource_of(id)
        if named is not None and named.kind is ResourceKind.IMAGE:
            return ManagedImageSource(id)
        if named is None and id.startswith("/"):
            return VersionSource(parse_version(id).arm_id)
    raise rules.wrong_source(id, single=False)


def _disk_source(disk: DiskImage, lun: int | None) -> AnySource | None:
    """None of a disk that says only how it is cached."""
    source = disk.source
    if source is None:
        return None
    if source.uri:
        raise InvalidParameter(
            f"The source uri '{source.uri}' can't be read: there are no storage accounts.",
            hint="make a managed disk or a snapshot of it, and name that by its id",
            code="InvalidSource",
        )
    named = resource_of(source.id)
    if named is None or named.kind is ResourceKind.IMAGE:
        raise rules.wrong_source(source.id, single=True)
    if named.kind is ResourceKind.SNAPSHOT:
        return SnapshotSource(lun, named.arm_id)
    return StoredDiskSource(lun, named.arm_id)


def _unchanged(old: ImageVersion, given: VersionProperties) -> None:
    """What a version keeps for life may be repeated, and not changed."""
    profile, security = given.publishing_profile, given.security_profile
    for path, wanted, have in (
        ("publishingProfile.replicationMode", profile.replication_mode, old.replication_mode),
        ("publishingProfile.storageAccountType", profile.storage_account_type, _kind_of(old)),
        (
            "publishingProfile.storageAccountStrategy",
            profile.storage_account_strategy,
            old.storage_account_strategy,
        ),
        ("securityProfile", security, old.security_profile),
    ):
        if wanted not in (None, have):
            raise rules.not_changeable(path)
    _same_sources(old, given)


def _kind_of(old: ImageVersion) -> StorageAccountType:
    return old.storage_account_type or _storage_of(old)


def _same_sources(old: ImageVersion, given: VersionProperties) -> None:
    told = _storage(old)
    profile = given.storage_profile
    if profile.source is not None:
        have = told.get("source", {}).get("id", "")
        ids = (profile.source.id, profile.source.community_gallery_image_id)
        if next(filter(None, ids), "").lower() != have.lower():
            raise rules.not_changeable("storageProfile.source.id")
    if profile.os_disk_image is not None:
        _same_disk("osDiskImage", profile.os_disk_image, told.get("osDiskImage", {}))
    data = {item["lun"]: item for item in told.get("dataDiskImages", ())}
    for lun, disk in _data(profile):
        if lun not in data:
            raise rules.new_data_disk()
        _same_disk("dataDiskImages", disk, data[lun])


def _same_disk(path: str, disk: DiskImage, told: Mapping[str, Any]) -> None:
    have = told.get("source", {}).get("id", "")
    if disk.source is not None and disk.source.id.lower() != have.lower():
        raise rules.not_changeable(f"storageProfile.{path}.source.id")
    if disk.host_caching not in (None, HostCaching(told.get("hostCaching", "None"))):
        raise rules.not_changeable(f"storageProfile.{path}.hostCaching")


# --- the bin -------------------------------------------------------------------------------------


def soft_deleted(item: ImageVersion) -> dict[str, Any]:
    """A version in the bin."""
    deletion = item.soft_deleted
    properties = {
        "resourceArmId": item.name.arm_id,
        "softDeletedArtifactType": "Images",
    }
    if deletion is not None:
        properties |= {
            "softDeletedTime": str(moment(deletion.deleted)),
            "consumptionEndTime": str(moment(deletion.consumption_end_time)),
            "hardDeletionTargetTime": str(moment(deletion.hard_deletion_target_time)),
        }
    kind = "Microsoft.Compute/galleries/softDeletedArtifactTypes/artifacts/versions"
    return tracked(item.name.arm_id, kind, item.location, item.tags, properties)
