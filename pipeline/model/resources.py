"""Disks, snapshots and managed images, with Azure's properties.

    disk            a writable copy-on-write child of a base: files that a VM may use
    snapshot        an immutable point in time of one disk: a base
    managed image   an OS disk and data disks, generalized: bases

Their bytes lie in a zone of their region: as bases, so that equal content is stored once and every
later one starts from an older one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from pipeline.model import (
    Architecture,
    HostCaching,
    HyperVGeneration,
    Origin,
    OsState,
    OsType,
    ProvisioningState,
    PurchasePlan,
    StorageAccountType,
)
from pipeline.model.resource_names import ResourceKind, ResourceName, resource_of


class CreateOption(Enum):
    """How a disk or snapshot came to be, in Azure's words."""

    EMPTY = "Empty"
    COPY = "Copy"  # of a disk or a snapshot
    FROM_IMAGE = "FromImage"  # of a version
    IMPORT = "Import"  # of a file, an URL or a running VM


class DiskControllerTypes(Enum):
    SCSI = "SCSI"
    NVME = "NVMe"
    BOTH = "SCSI, NVMe"


class DiskState(Enum):
    UNATTACHED = "Unattached"
    ATTACHED = "Attached"


@dataclass(frozen=True, slots=True)
class CreationData:
    """`source_unique_id` tells the source from a later one of the same name."""

    create_option: CreateOption
    source_resource_id: str = ""
    source_uri: str = ""
    source_unique_id: str = ""
    gallery_image_reference: str = ""
    lun: int | None = None
    logical_sector_size: int = 512


@dataclass(frozen=True, slots=True)
class SupportedCapabilities:
    """What VMs with the disk can do; None: nothing is known."""

    architecture: Architecture | None = None
    accelerated_network: bool | None = None
    disk_controller_types: DiskControllerTypes | None = None

    @property
    def controller(self) -> str | None:
        """The one that it needs, if it does not work with both."""
        both = self.disk_controller_types is DiskControllerTypes.BOTH
        return None if both or not self.disk_controller_types else self.disk_controller_types.value


@dataclass(frozen=True, slots=True)
class Content:
    """One disk's bytes: the base `digest` in the resource's zones. `lun` None is the OS disk;
    `caching` is what VMs made from a managed image use."""

    lun: int | None
    digest: str
    virtual_size: int
    origin: Origin
    caching: HostCaching | None = None


@dataclass(frozen=True, slots=True)
class Resource:
    """What the three kinds have in common."""

    id: str
    location: str
    time_created: datetime
    unique_id: str
    provisioning_state: ProvisioningState = ProvisioningState.CREATING
    completion_percent: int = 0
    contents: tuple[Content, ...] = ()
    os_type: OsType | None = None
    hyper_v_generation: HyperVGeneration | None = None
    supported_capabilities: SupportedCapabilities = SupportedCapabilities()
    purchase_plan: PurchasePlan | None = None  # of the marketplace image that it comes from
    tags: Mapping[str, str] = field(default_factory=dict)
    owner: str | None = None  # the id of the run that works on it
    bytes_read: int = 0
    bytes_written: int = 0

    @property
    def name(self) -> ResourceName:
        found = resource_of(self.id)
        if found is None:
            raise ValueError(f"{self.id!r} is no resource's id")
        return found

    @property
    def zone_key(self) -> str:
        """What a zone keeps it under."""
        name = self.name
        return f"{name.kind.value}+{name.name}+{self.unique_id}".lower()

    @property
    def disk_size_bytes(self) -> int:
        return sum(content.virtual_size for content in self.contents)

    @property
    def storage(self) -> StorageAccountType:
        """Which zones of its region hold the bytes."""
        return StorageAccountType.STANDARD_LRS


@dataclass(frozen=True, slots=True)
class Snapshot(Resource):
    """`incremental` ones of one disk are a family; each stores what changed since the one before.
    `machine_disk` is the disk of a running VM that it was captured from."""

    creation_data: CreationData = CreationData(CreateOption.IMPORT)
    incremental: bool = False
    incremental_snapshot_family_id: str = ""
    machine_disk: str = ""
    capture_mark: str = ""  # what the machine remembers its changes since by


@dataclass(frozen=True, slots=True)
class DiskFile:
    path: str
    format: str


@dataclass(frozen=True, slots=True)
class Disk(Resource):
    """`file` is what a VM uses. What it held at first is its content's base; what is written since
    is in the file alone. `directory` is where it was to be, if not in a zone."""

    creation_data: CreationData = CreationData(CreateOption.EMPTY)
    disk_size: int = 0
    file: DiskFile | None = None
    directory: str = ""

    @property
    def disk_size_bytes(self) -> int:
        return self.disk_size


@dataclass(frozen=True, slots=True)
class ManagedImage(Resource):
    """`report` is what was done to its guest and seen in it, as a version's. A `zone_resilient` one
    has bytes of its own in each standard zone of its region."""

    os_state: OsState = OsState.GENERALIZED
    source_virtual_machine: str = ""
    storage_account_type: StorageAccountType = StorageAccountType.STANDARD_LRS
    zone_resilient: bool = False
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def storage(self) -> StorageAccountType:
        zrs = StorageAccountType.STANDARD_ZRS
        return zrs if self.zone_resilient else self.storage_account_type


KINDS: Mapping[ResourceKind, type[Resource]] = {
    ResourceKind.DISK: Disk,
    ResourceKind.SNAPSHOT: Snapshot,
    ResourceKind.IMAGE: ManagedImage,
}
