"""What is answered: documents with the members that Azure shows besides those that are stored.

`documents` writes what the catalog stores; here is what follows from it, and what whoever a gallery
is shared with may know.
"""

from typing import Any

from pipeline.gallery.access.shared_ids import is_shared_reference, shared_name, unique_name
from pipeline.gallery.access.views import SharedGallery
from pipeline.gallery.documents import encode, without_inventory
from pipeline.model import (
    Deployment,
    Gallery,
    ImageDefinition,
    ImageVersion,
    ProvisioningState,
    ScaleSet,
    SharingPermissions,
    TargetRegion,
)
from pipeline.model.resources import ManagedImage, Resource
from pipeline.model.sharing import Sharing
from pipeline.model.spelling import EDGE

# --- galleries, definitions, versions ------------------------------------------------------------


def settled(value: Gallery | ImageDefinition) -> dict[str, Any]:
    """A gallery or a definition. It is made and changed in one transaction: what can be seen of it
    is done."""
    return {**encode(value), "provisioningState": ProvisioningState.SUCCEEDED.value}


def edge_zone(version: ImageVersion, target: TargetRegion) -> dict[str, Any]:
    """An edge zone, which the version's own document has among the target regions."""
    region, _, zone = target.name.partition(EDGE)
    return {
        "name": region,
        "extendedLocation": {"name": zone, "type": "EdgeZone"},
        "extendedLocationReplicaCount": target.own_count(version.replica_count),
        "storageAccountType": encode(target.storage_account_type),
    }


# --- what was made from versions -----------------------------------------------------------------


def deployment(item: Deployment) -> dict[str, Any]:
    """A VM; one of a shared version says of it what whoever made it knows."""
    document: dict[str, Any] = encode(item)
    if item.image:
        del document["version"], document["versionUid"]
    return document


def last_image(item: ScaleSet) -> str:
    """The version that a scale set's image last meant, by the name that its maker uses."""
    return shared_name(item.image, item.version.number) or str(item.version)


def scale_set(item: ScaleSet, capacity: int) -> dict[str, Any]:
    """A scale set of so many VMs; of a shared version it says what whoever made it knows."""
    document: dict[str, Any] = {**encode(item), "capacity": capacity}
    if is_shared_reference(item.image):
        document["version"] = last_image(item)
    return document


# --- disks, snapshots, managed images ------------------------------------------------------------


def resource(item: Resource) -> dict[str, Any]:
    """With what follows from its properties; a managed image's inventory is left out."""
    encoded = encode(item)
    if "report" in encoded:
        encoded["report"] = without_inventory(encoded["report"])
    profile = {"storageProfile": _storage_profile(item)} if isinstance(item, ManagedImage) else {}
    return {
        "name": item.name.name,
        **encoded,
        **profile,
        "diskSizeBytes": item.disk_size_bytes,
    }


def _storage_profile(image: ManagedImage) -> dict[str, Any]:
    """A managed image's disks."""
    os_disk: dict[str, Any] = {"osState": image.os_state.value}
    if image.os_type is not None:
        os_disk["osType"] = image.os_type.value
    data_disks = []
    for content in image.contents:
        disk = {
            "diskSizeGB": -(-content.virtual_size >> 30),
            "storageAccountType": image.storage.value,
        }
        if content.caching is not None:
            disk["caching"] = content.caching.value
        if content.lun is None:
            os_disk |= disk
        else:
            data_disks.append({"lun": content.lun, **disk})
    return {"osDisk": os_disk, "dataDisks": data_disks, "zoneResilient": image.zone_resilient}


# --- sharing -------------------------------------------------------------------------------------


def shared_ids(item: Sharing) -> tuple[str, str]:
    """The ids under which others have a gallery: with whom it is shared directly, and everyone; an
    empty one when they don't."""
    direct = item.subscriptions or item.tenants
    return (
        f"/SharedGalleries/{unique_name(item.gallery)}" if direct else "",
        f"/CommunityGalleries/{item.public_name}" if item.is_public else "",
    )


def sharing_profile(item: Sharing) -> dict[str, Any]:
    """With whom a gallery is shared."""
    groups = [
        {"type": kind, "ids": ids}
        for kind, ids in (("Subscriptions", item.subscriptions), ("AADTenants", item.tenants))
        if ids
    ]
    profile: dict[str, Any] = {"permissions": item.permissions.value, "groups": groups}
    community = item.community
    if community is not None:
        profile["communityGalleryInfo"] = {
            "publisherUri": community.publisher_uri,
            "publisherContact": community.publisher_contact,
            "eula": community.eula,
            "publicNamePrefix": community.public_name_prefix,
            "communityGalleryEnabled": item.is_public,
            "publicNames": [item.public_name] if item.is_public else [],
        }
    return profile


def sharing(item: Sharing) -> dict[str, Any]:
    """With whom a gallery is shared, and under which id."""
    direct, public = shared_ids(item)
    ids = {"uniqueId": direct or public} if direct or public else {}
    # a profile is one record that every region reads: it is in force when the answer is given
    status = {"sharingStatus": {"aggregatedState": "Succeeded"}} if item.is_shared else {}
    profile = sharing_profile(item)
    return {"gallery": item.gallery.arm_id, "sharingProfile": profile, "identifier": ids, **status}


def shared_gallery(item: SharedGallery) -> dict[str, Any]:
    """A gallery, for those with whom it is shared."""
    document: dict[str, Any] = {
        "name": item.reference.name,
        "location": item.gallery.location,
        "uniqueId": item.reference.id,
    }
    community = item.sharing.community
    if item.reference.kind is SharingPermissions.COMMUNITY and community is not None:
        document["communityMetadata"] = {
            "publisherUri": community.publisher_uri,
            "publisherContact": community.publisher_contact,
            "eula": community.eula,
            "publicNames": [community.public_name],
        }
    return document


def shared_definition(item: ImageDefinition, gallery_id: str) -> dict[str, Any]:
    """What a definition says, without its own id, for those with whom its gallery is shared."""
    document: dict[str, Any] = encode(item)
    for hidden in ("tags", "created", "description"):
        document.pop(hidden, None)
    return {**document, "name": item.name.name, "uniqueId": f"{gallery_id}/Images/{item.name.name}"}


def shared_version(item: ImageVersion, definition_id: str) -> dict[str, Any]:
    """What a version is, for those with whom its gallery is shared: nothing of sources, hosts and
    files."""
    return {
        "name": str(item.number),
        "uniqueId": f"{definition_id}/Versions/{item.number}",
        "publishedDate": encode(item.published_date),
        "endOfLifeDate": encode(item.end_of_life_date),
        "excludeFromLatest": item.exclude_from_latest,
        "regions": item.completed_regions,
        "disks": [
            {
                "lun": disk.lun,
                "diskSizeBytes": disk.virtual_size,
                "hostCaching": encode(disk.host_caching),
            }
            for disk in item.disks
        ],
    }
