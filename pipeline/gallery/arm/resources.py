"""Disks, snapshots and managed images as Azure's REST API has them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import InvalidParameter
from pipeline.gallery.arm import Told, moment, read, require_location, tracked
from pipeline.gallery.documents import encode
from pipeline.model import (
    Architecture,
    HostCaching,
    HyperVGeneration,
    OsState,
    OsType,
    PurchasePlan,
    StorageAccountType,
)
from pipeline.model.resource_names import ResourceKind
from pipeline.model.resources import (
    Content,
    CreateOption,
    CreationData,
    Disk,
    DiskControllerTypes,
    DiskState,
    ManagedImage,
    Resource,
    Snapshot,
)

GIB = 1 << 30

# --- what is answered ----------------------------------------------------------------------------


def resource(item: Resource) -> dict[str, Any]:
    """Nothing of the host is told: no paths of sources, no files."""
    kind = f"Microsoft.Compute/{item.name.kind.value}"
    if isinstance(item, ManagedImage):
        return tracked(item.id, kind, item.location, item.tags, _image(item))
    properties = _disk(item)
    found = tracked(item.id, kind, item.location, item.tags, properties)
    return found | {"sku": {"name": item.storage.value}}


def _disk(item: Resource) -> dict[str, Any]:
    """What disks and snapshots have in common, and what each has beside it."""
    properties: dict[str, Any] = {
        "timeCreated": moment(item.time_created),
        "osType": encode(item.os_type),
        "hyperVGeneration": encode(item.hyper_v_generation),
        "purchasePlan": encode(item.purchase_plan),
        "supportedCapabilities": encode(item.supported_capabilities) or None,
        "diskSizeBytes": item.disk_size_bytes,
        "diskSizeGB": -(-item.disk_size_bytes // GIB),
        "diskState": DiskState.UNATTACHED.value,
        "uniqueId": item.unique_id,
        "provisioningState": item.provisioning_state.value,
        "completionPercent": float(item.completion_percent),
    }
    if isinstance(item, Disk | Snapshot):
        properties["creationData"] = _creation(item.creation_data)
    if isinstance(item, Snapshot):
        properties["incremental"] = item.incremental
        properties["incrementalSnapshotFamilyId"] = item.incremental_snapshot_family_id or None
    return properties


def _creation(data: CreationData) -> dict[str, Any]:
    found: dict[str, Any] = {"createOption": data.create_option.value}
    if data.source_resource_id:
        found["sourceResourceId"] = data.source_resource_id
    if data.source_unique_id:
        found["sourceUniqueId"] = data.source_unique_id
    if data.gallery_image_reference:
        reference = {"id": data.gallery_image_reference, "lun": data.lun}
        found["galleryImageReference"] = {k: v for k, v in reference.items() if v is not None}
    if data.source_uri.startswith(("http://", "https://")):  # else it is a path of this host
        found["sourceUri"] = data.source_uri
    return found


def _image(item: ManagedImage) -> dict[str, Any]:
    disks = {content.lun: _image_disk(content, item) for content in item.contents}
    profile: dict[str, Any] = {"zoneResilient": item.zone_resilient}
    if None in disks:
        os_type = item.os_type or OsType.LINUX
        os_disk = {"osType": os_type.value, "osState": item.os_state.value, **disks.pop(None)}
        profile["osDisk"] = os_disk
    profile["dataDisks"] = [{"lun": lun, **disk} for lun, disk in disks.items()]
    generation = item.hyper_v_generation or HyperVGeneration.V1
    return {
        "storageProfile": profile,
        "hyperVGeneration": generation.value,
        "provisioningState": item.provisioning_state.value,
    }


def _image_disk(content: Content, item: ManagedImage) -> dict[str, Any]:
    found: dict[str, Any] = {
        "diskSizeGB": -(-content.virtual_size // GIB),
        "storageAccountType": item.storage.value,
        "caching": (content.caching or HostCaching.NONE).value,
    }
    kinds = {"snapshot": "snapshot", "disk": "managedDisk"}
    if content.origin.kind in kinds:
        found[kinds[content.origin.kind]] = {"id": content.origin.id}
    return found


# --- what is asked for ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sku:
    name: StorageAccountType = StorageAccountType.STANDARD_LRS
    tier: Told = None


@dataclass(frozen=True, slots=True)
class ImageReference:
    """A version, and which of its data disks; none: its OS disk."""

    id: str = ""
    lun: int | None = None
    shared_gallery_image_id: str = ""
    community_gallery_image_id: str = ""

    @property
    def reference(self) -> str:
        return self.id or self.shared_gallery_image_id or self.community_gallery_image_id


@dataclass(frozen=True, slots=True)
class CreationDataBody:
    create_option: CreateOption
    source_resource_id: str = ""
    gallery_image_reference: ImageReference | None = None
    image_reference: ImageReference | None = None
    source_unique_id: Told = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    architecture: Architecture | None = None
    accelerated_network: bool | None = None
    disk_controller_types: DiskControllerTypes | None = None


@dataclass(frozen=True, slots=True)
class EncryptionBody:
    """What Azure calls encryption with its own key is the host's matter here."""

    type: str = ""

    def check(self) -> None:
        if self.type not in ("", "EncryptionAtRestWithPlatformKey"):
            raise InvalidParameter(
                f"The encryption type '{self.type}' is not supported.",
                hint="zones hold no encrypted bases: put them on an encrypted volume (LUKS)",
            )


@dataclass(frozen=True, slots=True)
class DiskProperties:
    """Of a disk or a snapshot. Who may reach it over a network is not asked: nobody can."""

    creation_data: CreationDataBody
    os_type: OsType | None = None
    hyper_v_generation: HyperVGeneration | None = None
    supported_capabilities: Capabilities = Capabilities()
    purchase_plan: PurchasePlan | None = None
    disk_size_gb: int | None = field(default=None, metadata={"json": "diskSizeGB"})
    incremental: bool = False
    encryption: EncryptionBody = EncryptionBody()
    network_access_policy: Told = None
    public_network_access: Told = None
    data_access_auth_mode: Told = None
    time_created: Told = None
    disk_size_bytes: Told = None
    disk_state: Told = None
    unique_id: Told = None
    provisioning_state: Told = None
    completion_percent: Told = None
    incremental_snapshot_family_id: Told = None


@dataclass(frozen=True, slots=True)
class DiskBody:
    """What a PUT of a disk or a snapshot says."""

    properties: DiskProperties
    location: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    sku: Sku = Sku()
    id: Told = None
    name: Told = None
    type: Told = None
    system_data: Told = None


@dataclass(frozen=True, slots=True)
class SubResource:
    id: str


@dataclass(frozen=True, slots=True)
class ImageDiskBody:
    """`lun` is a data disk's."""

    lun: int | None = None
    os_type: OsType | None = None
    os_state: OsState = OsState.GENERALIZED
    snapshot: SubResource | None = None
    managed_disk: SubResource | None = None
    caching: HostCaching | None = None
    storage_account_type: StorageAccountType | None = None
    disk_size_gb: Told = field(default=None, metadata={"json": "diskSizeGB"})

    @property
    def source(self) -> str:
        found = self.snapshot or self.managed_disk
        if found is None:
            raise InvalidParameter(
                "Required parameter 'imageDisk.source' is missing (null).",
                hint="name a snapshot or a managedDisk by its id",
            )
        return found.id


@dataclass(frozen=True, slots=True)
class ImageStorageBody:
    os_disk: ImageDiskBody
    data_disks: tuple[ImageDiskBody, ...] = ()
    zone_resilient: bool = False


@dataclass(frozen=True, slots=True)
class ImageProperties:
    storage_profile: ImageStorageBody
    hyper_v_generation: HyperVGeneration | None = None
    provisioning_state: Told = None


@dataclass(frozen=True, slots=True)
class ImageBody:
    """What a PUT of a managed image says."""

    properties: ImageProperties
    location: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    id: Told = None
    name: Told = None
    type: Told = None
    system_data: Told = None


@dataclass(frozen=True, slots=True)
class TagsBody:
    """What a PATCH says: only tags change."""

    tags: Mapping[str, str] | None = None


def read_disk(document: object) -> DiskBody:
    body = read(DiskBody, document)
    require_location(body.location)
    body.properties.encryption.check()
    return body


def read_image(document: object) -> ImageBody:
    body = read(ImageBody, document)
    require_location(body.location)
    return body


def read_tags(document: object) -> Mapping[str, str] | None:
    return read(TagsBody, document).tags


def location_and_tags(kind: ResourceKind, document: object) -> tuple[str, Mapping[str, str]]:
    """What a PUT may change of a resource that is there, and what may not differ."""
    body = read_image(document) if kind is ResourceKind.IMAGE else read_disk(document)
    return body.location, body.tags
