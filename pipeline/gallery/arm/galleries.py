"""Galleries as Azure's REST API has them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.gallery.access.shared_ids import unique_name
from pipeline.gallery.answers import sharing_profile
from pipeline.gallery.arm import Told, read, require_location, system_data, tracked
from pipeline.gallery.documents import encode
from pipeline.model import Gallery, ProvisioningState, SharingPermissions, SoftDeletePolicy
from pipeline.model.sharing import Community, Sharing

KIND = "Microsoft.Compute/galleries"


def gallery(item: Gallery, sharing: Sharing | None = None) -> dict[str, Any]:
    """It is made and changed in one transaction: what can be seen of it is done. With `sharing`,
    what its community sees of it, too."""
    profile = {"permissions": item.sharing_profile.permissions.value}
    properties = {
        "description": item.description or None,
        "identifier": {"uniqueName": unique_name(item.name)},
        "provisioningState": ProvisioningState.SUCCEEDED.value,
        "sharingProfile": profile if sharing is None else sharing_profile(sharing),
        "softDeletePolicy": encode(item.soft_delete_policy),
    }
    found = tracked(item.name.arm_id, KIND, item.location, item.tags, properties)
    return found | system_data(item.created)


@dataclass(frozen=True, slots=True)
class CommunityGalleryInfo:
    publisher_uri: str = ""
    publisher_contact: str = ""
    eula: str = ""
    public_name_prefix: str = ""
    community_gallery_enabled: Told = None
    public_names: Told = None


@dataclass(frozen=True, slots=True)
class SharingProfileBody:
    permissions: SharingPermissions | None = None
    community_gallery_info: CommunityGalleryInfo | None = None
    groups: Told = None


@dataclass(frozen=True, slots=True)
class GalleryProperties:
    description: str = ""
    sharing_profile: SharingProfileBody | None = None
    soft_delete_policy: SoftDeletePolicy | None = None
    identifier: Told = None
    provisioning_state: Told = None
    sharing_status: Told = None


@dataclass(frozen=True, slots=True)
class GalleryBody:
    """What a PUT says. What it leaves out of sharing and soft delete stays as it is."""

    location: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    properties: GalleryProperties = GalleryProperties()
    id: Told = None
    name: Told = None
    type: Told = None
    system_data: Told = None

    @property
    def permissions(self) -> SharingPermissions | None:
        profile = self.properties.sharing_profile
        return None if profile is None else profile.permissions

    @property
    def community(self) -> Community | None:
        """How it presents itself, if that is said."""
        profile = self.properties.sharing_profile
        info = None if profile is None else profile.community_gallery_info
        if info is None:
            return None
        return Community(
            info.publisher_uri, info.publisher_contact, info.eula, info.public_name_prefix
        )


def read_gallery(document: object) -> GalleryBody:
    body = read(GalleryBody, document)
    require_location(body.location)
    return body
