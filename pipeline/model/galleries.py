"""Tenants, subscriptions, resource groups, regions and galleries."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.model.kinds import SharingPermissions, StorageAccountType
from pipeline.model.names import DEFAULT_TENANT, GalleryName
from pipeline.model.spelling import EDGE


@dataclass(frozen=True, slots=True)
class Region:
    """A region of this installation, or an edge zone of one (`eu/paris`), and the storage account
    types that its zones can offer."""

    name: str
    storage_account_types: tuple[StorageAccountType, ...] = (StorageAccountType.STANDARD_LRS,)

    @property
    def is_edge_zone(self) -> bool:
        return EDGE in self.name


@dataclass(frozen=True, slots=True)
class Tenant:
    """An organisation, to which subscriptions and principals belong. `id` is a GUID in lower
    case."""

    id: str
    display_name: str
    created: datetime

    @property
    def arm_id(self) -> str:
        return f"/tenants/{self.id}"


@dataclass(frozen=True, slots=True)
class Subscription:
    """`id` and `tenant` are GUIDs in lower case."""

    id: str
    display_name: str
    created: datetime
    tenant: str = DEFAULT_TENANT

    @property
    def arm_id(self) -> str:
        return f"/subscriptions/{self.id}"


@dataclass(frozen=True, slots=True)
class ResourceGroup:
    subscription: str
    name: str
    location: str
    created: datetime
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def arm_id(self) -> str:
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.name}"


@dataclass(frozen=True, slots=True)
class SharingProfile:
    permissions: SharingPermissions = SharingPermissions.PRIVATE


@dataclass(frozen=True, slots=True)
class SoftDeletePolicy:
    """What deleting a version means. Days of retention, in which it stays usable, are followed by
    days of grace, in which it can only be undeleted."""

    is_soft_delete_enabled: bool = False
    retention_period_in_days: int = 7
    grace_period_in_days: int = 0


@dataclass(frozen=True, slots=True)
class Gallery:
    name: GalleryName
    location: str
    created: datetime
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    sharing_profile: SharingProfile = SharingProfile()
    soft_delete_policy: SoftDeletePolicy = SoftDeletePolicy()
