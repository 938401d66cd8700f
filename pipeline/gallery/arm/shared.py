"""Sharing as Azure's REST API has it: what may be asked, and galleries as others see them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pipeline.errors import InvalidParameter
from pipeline.gallery.access.views import SharedGallery
from pipeline.gallery.arm import moment, read
from pipeline.gallery.arm.definitions import properties_of
from pipeline.model import HostCaching, ImageDefinition, ImageDisk, ImageVersion, SharingPermissions
from pipeline.model.spelling import region_key

_GIB = 1 << 30
_KINDS = {
    SharingPermissions.GROUPS: "Microsoft.Compute/sharedGalleries",
    SharingPermissions.COMMUNITY: "Microsoft.Compute/communityGalleries",
}

# --- changes -------------------------------------------------------------------------------------


class SharingOperation(Enum):
    ADD = "Add"
    REMOVE = "Remove"
    RESET = "Reset"
    ENABLE_COMMUNITY = "EnableCommunity"


class GroupType(Enum):
    SUBSCRIPTIONS = "Subscriptions"
    TENANTS = "AADTenants"


@dataclass(frozen=True, slots=True)
class SharingGroup:
    type: GroupType
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SharingUpdate:
    """What a POST to `share` says."""

    operation_type: SharingOperation
    groups: tuple[SharingGroup, ...] = ()

    def ids(self, kind: GroupType) -> tuple[str, ...]:
        return tuple(id for group in self.groups if group.type is kind for id in group.ids)


def read_sharing(document: object) -> SharingUpdate:
    return read(SharingUpdate, document)


# --- what others see -----------------------------------------------------------------------------


def gallery(item: SharedGallery) -> dict[str, Any]:
    kind, community = item.reference.kind, item.sharing.community
    properties: dict[str, Any] = {}
    if kind is SharingPermissions.COMMUNITY and community is not None:
        properties["communityMetadata"] = {
            "publisherUri": community.publisher_uri,
            "publisherContact": community.publisher_contact,
            "eula": community.eula,
            "publicNames": [community.public_name],
        }
    name, id = item.reference.name, item.reference.id
    return _seen(kind, name, item.gallery.location, id, properties)


def definition(item: ImageDefinition, of: SharedGallery) -> dict[str, Any]:
    """Without its own id, tags and description."""
    told = properties_of(item)
    properties = {key: value for key, value in told.items() if key != "description"}
    id = f"{of.reference.id}/Images/{item.name.name}"
    return _seen(of.reference.kind, item.name.name, item.location, id, properties, "/images")


def version(item: ImageVersion, of: SharedGallery) -> dict[str, Any]:
    """Nothing of sources, hosts and files."""
    disks = {disk.lun: _disk(disk) for disk in item.disks}
    storage: dict[str, Any] = {"osDiskImage": disks.pop(None)} if None in disks else {}
    storage["dataDiskImages"] = [{"lun": lun, **disk} for lun, disk in disks.items()]
    properties = {
        "publishedDate": moment(item.published_date),
        "endOfLifeDate": moment(item.end_of_life_date),
        "excludeFromLatest": item.exclude_from_latest,
        "storageProfile": storage,
        "imageState": "Active" if item.soft_deleted is None else "SoftDeleted",
    }
    number = str(item.number)
    name = item.name.definition.name
    id = f"{of.reference.id}/Images/{name}/Versions/{number}"
    return _seen(of.reference.kind, number, item.location, id, properties, "/images/versions")


def _disk(disk: ImageDisk) -> dict[str, Any]:
    caching = disk.host_caching or HostCaching.NONE
    return {"diskSizeGB": -(-disk.virtual_size // _GIB), "hostCaching": caching.value}


def _seen(
    kind: SharingPermissions,
    name: str,
    location: str,
    id: str,
    properties: Mapping[str, Any],
    below: str = "",
) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "location": location}
    if kind is SharingPermissions.COMMUNITY:
        found["type"] = _KINDS[kind] + below
    told = {key: value for key, value in properties.items() if value is not None}
    return found | {"identifier": {"uniqueId": id}, "properties": told}


# --- the one question of Resource Graph ----------------------------------------------------------

_QUERY = re.compile(
    r"\s*communitygalleryresources\s*\|\s*where\s+type\s*==\s*"
    r"'microsoft\.compute/locations/communitygalleries'\s*"
    r"(?:\|\s*where\s+location\s*==\s*'([^']{1,64})'\s*)?",
    re.IGNORECASE,
)
MAX_ROWS = 1000


@dataclass(frozen=True, slots=True)
class GraphQuery:
    """Which community galleries are asked for."""

    location: str | None
    top: int
    after: str


def read_query(document: object) -> GraphQuery:
    """The query that lists community galleries; any other is refused."""
    body = document if isinstance(document, Mapping) else {}
    options = body.get("options") or {}
    match = _QUERY.fullmatch(str(body.get("query", "")))
    if match is None or not isinstance(options, Mapping):
        raise InvalidParameter(
            "This query is not supported.",
            hint="communitygalleryresources | where type == "
            "'microsoft.compute/locations/communitygalleries' | where location == 'REGION'",
            code="BadRequest",
        )
    top, after = options.get("$top", 100), options.get("$skipToken") or ""
    if type(top) is not int or not 0 < top <= MAX_ROWS or not isinstance(after, str):
        raise InvalidParameter(f"The option $top is an integer of 1 to {MAX_ROWS}.")
    return GraphQuery(match[1], top, after)


def row(item: SharedGallery) -> dict[str, Any]:
    """A community gallery, as a row of Resource Graph."""
    told, place = gallery(item), region_key(item.gallery.location)
    identifier = {"uniqueId": item.reference.id}
    return {
        "id": f"/locations/{place}/communityGalleries/{item.reference.name}",
        "name": item.reference.name,
        "type": "microsoft.compute/locations/communitygalleries",
        "location": place,
        "properties": {**told["properties"], "identifier": identifier},
    }
