"""Image versions: what is asked for, what is there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline.model.definitions import PurchasePlan
from pipeline.model.disks import ImageDisk
from pipeline.model.kinds import (
    AggregatedState,
    HostCaching,
    ProvisioningState,
    ReplicationMode,
    ReplicationState,
    StorageAccountStrategy,
    StorageAccountType,
)
from pipeline.model.names import VersionName, VersionNumber
from pipeline.model.security import SecurityProfile
from pipeline.model.spelling import EDGE, region_key


@dataclass(frozen=True, slots=True)
class AdditionalReplicaSet:
    """Replicas that a region has besides its own, in storage of another type."""

    storage_account_type: StorageAccountType
    regional_replica_count: int = 1


@dataclass(frozen=True, slots=True)
class TargetRegion:
    """A region, or an edge zone of one, that a version is to be in. `name` keeps the spelling of
    the configuration; `storage_account_type` None, in a request, is the version's."""

    name: str
    regional_replica_count: int | None = None
    storage_account_type: StorageAccountType | None = None
    exclude_from_latest: bool = False
    additional_replica_sets: tuple[AdditionalReplicaSet, ...] = ()

    @property
    def key(self) -> str:
        return region_key(self.name)

    @property
    def is_edge_zone(self) -> bool:
        return EDGE in self.name

    def own_count(self, common: int | None) -> int:
        """Replicas of its own type of storage: its own count, else the common one, else 1."""
        return self.regional_replica_count or common or 1

    def count(self, common: int | None) -> int:
        """All its replicas, the additional ones too."""
        more = sum(item.regional_replica_count for item in self.additional_replica_sets)
        return self.own_count(common) + more


@dataclass(frozen=True, slots=True)
class RegionResult:
    """What making a region's replicas did: bytes read, written, and shared with older bases, and
    how the bases were made (copy, reflink, delta; by disk)."""

    replicas: tuple[Mapping[str, Any], ...] = ()
    methods: tuple[str, ...] = ()
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_shared: int = 0


@dataclass(frozen=True, slots=True)
class RegionStatus:
    """How far a version is in one region. `progress` is per cent."""

    region: str
    state: ReplicationState = ReplicationState.UNKNOWN
    progress: int = 0
    details: str = ""
    result: RegionResult = RegionResult()

    @property
    def key(self) -> str:
        return region_key(self.region)


@dataclass(frozen=True, slots=True)
class SafetyProfile:
    """`allow_deletion_of_replicated_locations`: whether a version may lose a region. True: also by
    leaving it out of a list of regions; None: only by naming it; False: not at all."""

    allow_deletion_of_replicated_locations: bool | None = None
    block_deletion_before_end_of_life: bool = False


@dataclass(frozen=True, slots=True)
class SoftDeletion:
    """A version in the bin: usable until `consumption_end_time`, and gone after
    `hard_deletion_target_time`."""

    deleted: datetime
    consumption_end_time: datetime
    hard_deletion_target_time: datetime


ZONE_KEY_LENGTH = (
    201  # file names have 255 characters: with this, logs can be named after a version
)


@dataclass(frozen=True, slots=True)
class ImageVersion:
    """One version: what was asked, what is there, and who works on it.

    `uid` names one life of the number (a deleted and published-again version has another one);
    `attempt` grows whenever a process takes the work over, so that one which was thought dead can
    change nothing any more. `fingerprint` is the publisher's digest of sources and profile.
    `leaving` are regions that were removed and whose data is still to go; `unverified` are the
    definition's properties that nothing could be compared with.
    """

    name: VersionName
    uid: str
    attempt: int
    fingerprint: str
    location: str
    created: datetime
    provisioning_state: ProvisioningState
    target_regions: tuple[TargetRegion, ...]
    regions: tuple[RegionStatus, ...]
    generalized: bool
    replica_count: int | None = None
    replication_mode: ReplicationMode = ReplicationMode.FULL
    exclude_from_latest: bool = False
    end_of_life_date: datetime | None = None
    safety_profile: SafetyProfile = SafetyProfile()
    tags: Mapping[str, str] = field(default_factory=dict)
    published_date: datetime | None = None  # when its first region was Completed
    disks: tuple[ImageDisk, ...] = ()
    stats: Mapping[str, Any] = field(default_factory=dict)
    owner: str | None = None  # the id of the run that works on it
    owned_since: datetime | None = None
    storage_account_type: StorageAccountType | None = None
    storage_account_strategy: StorageAccountStrategy | None = None
    security_profile: SecurityProfile = field(default_factory=SecurityProfile)
    unverified: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()
    soft_deleted: SoftDeletion | None = None
    report_digest: str = ""  # of the report that is stored with it (pipeline.guest.report)

    @property
    def number(self) -> VersionNumber:
        return self.name.number

    @property
    def zone_key(self) -> str:
        """The name of this version's directory in a zone. Its end alone tells versions apart: long
        names are cut short, for the people who look into a zone."""
        definition = self.name.definition
        end = f"+{self.number}+{self.uid}"
        names = f"{definition.gallery.name}+{definition.name}"[: ZONE_KEY_LENGTH - len(end)]
        return f"{names}{end}".lower()

    @property
    def edge_zones(self) -> tuple[TargetRegion, ...]:
        return tuple(target for target in self.target_regions if target.is_edge_zone)

    def target(self, region: str) -> TargetRegion | None:
        key = region_key(region)
        return next((target for target in self.target_regions if target.key == key), None)

    def status(self, region: str) -> RegionStatus | None:
        key = region_key(region)
        return next((status for status in self.regions if status.key == key), None)

    def replicas_in(self, region: TargetRegion) -> int:
        """How many replicas a region is to have in all."""
        return region.count(self.replica_count)

    def is_completed_in(self, region: str) -> bool:
        status = self.status(region)
        return status is not None and status.state is ReplicationState.COMPLETED

    @property
    def completed_regions(self) -> tuple[str, ...]:
        return tuple(s.region for s in self.regions if s.state is ReplicationState.COMPLETED)

    @property
    def aggregated_state(self) -> AggregatedState:
        """Azure publishes no rule: a failed region counts first, then one that is not done yet."""
        states = {status.state for status in self.regions}
        if ReplicationState.FAILED in states:
            return AggregatedState.FAILED
        if states == {ReplicationState.COMPLETED}:
            return AggregatedState.COMPLETED
        if states <= {ReplicationState.UNKNOWN}:
            return AggregatedState.UNKNOWN
        return AggregatedState.IN_PROGRESS


@dataclass(frozen=True, slots=True)
class SourceProperties:
    """What is declared of the machine that the disks come from. None: nothing is known."""

    disk_controller_type: str | None = None  # SCSI or NVMe
    accelerated_network: bool | None = None
    purchase_plan: PurchasePlan | None = None


@dataclass(frozen=True, slots=True)
class VersionRequest:
    """What a publisher asks for. None means the default: the gallery's location, that region
    alone, generalize as the definition's OS state says. `luns` are those of the data disks;
    `host_caching` is by LUN, None the OS disk's. Of storage type and strategy one is given."""

    name: VersionName
    fingerprint: str
    location: str | None = None
    target_regions: tuple[TargetRegion, ...] = ()
    replica_count: int | None = None
    replication_mode: ReplicationMode = ReplicationMode.FULL
    generalize: bool | None = None
    luns: tuple[int, ...] = ()
    exclude_from_latest: bool = False
    end_of_life_date: datetime | None = None
    safety_profile: SafetyProfile = SafetyProfile()
    tags: Mapping[str, str] = field(default_factory=dict)
    storage_account_type: StorageAccountType | None = None
    storage_account_strategy: StorageAccountStrategy | None = None
    source: SourceProperties = SourceProperties()
    security_profile: SecurityProfile = field(default_factory=SecurityProfile)
    host_caching: Mapping[int | None, HostCaching] = field(default_factory=dict)
