"""Azure's documents: resources as its REST API has them, and back.

What is asked for is read by `documents.decode`, so a member that a resource does not have is
refused by name. As Azure does, null is taken for absent, and what an answer tells may come back in
a request: it is not looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from pipeline.errors import InvalidParameter
from pipeline.gallery.documents import decode
from pipeline.model import Region, ResourceGroup, Subscription, Tenant

T = TypeVar("T")
Told = Any  # a member that only answers have

# --- what all have in common ---------------------------------------------------------------------


def tracked(
    id: str, kind: str, location: str, tags: Mapping[str, str], properties: Mapping[str, Any]
) -> dict[str, Any]:
    """A resource that has a location and tags. Members that say nothing are left out."""
    return {
        "id": id,
        "name": id.rpartition("/")[2],
        "type": kind,
        "location": location,
        "tags": dict(tags),
        "properties": {key: value for key, value in properties.items() if value is not None},
    }


def moment(date: datetime | None) -> str | None:
    """As Azure writes it: clients compare texts."""
    return None if date is None else date.astimezone(UTC).isoformat()


def system_data(created: datetime | None) -> dict[str, Any]:
    return {} if created is None else {"systemData": {"createdAt": moment(created)}}


def read(kind: type[T], document: object) -> T:
    """The value that a request's document means."""
    return decode(kind, without_nulls(document))


def require_location(location: str) -> None:
    if not location:
        raise InvalidParameter(
            "The location property is required for this definition.", code="LocationRequired"
        )


def without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def merged(document: Mapping[str, Any], change: object) -> dict[str, Any]:
    """A resource's document as a PATCH changes it: objects member by member, all else whole, the
    tags too."""
    if not isinstance(change, Mapping):
        raise InvalidParameter(
            "The request content was invalid: an object is expected.", code="InvalidRequestContent"
        )
    result = dict(document)
    for key, value in without_nulls(change).items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping) and key != "tags"
        result[key] = merged(old, value) if both and old is not None else value
    return result


# --- scopes --------------------------------------------------------------------------------------


def tenant(item: Tenant) -> dict[str, Any]:
    return {
        "id": item.arm_id,
        "tenantId": item.id,
        "displayName": item.display_name,
        "tenantCategory": "Home",
    }


def subscription(item: Subscription) -> dict[str, Any]:
    return {
        "id": item.arm_id,
        "subscriptionId": item.id,
        "tenantId": item.tenant,
        "homeTenantId": item.tenant,
        "displayName": item.display_name,
        "state": "Enabled",
        "managedByTenants": [],
    }


def location(of: Subscription, item: Region) -> dict[str, Any]:
    name = item.name.replace(" ", "").lower()
    return {
        "id": f"{of.arm_id}/locations/{name}",
        "name": name,
        "displayName": item.name,
        "regionalDisplayName": item.name,
        "metadata": {"regionType": "Physical"},
    }


def resource_group(item: ResourceGroup) -> dict[str, Any]:
    properties = {"provisioningState": "Succeeded"}
    kind = "Microsoft.Resources/resourceGroups"
    return tracked(item.arm_id, kind, item.location, item.tags, properties)


@dataclass(frozen=True, slots=True)
class GroupBody:
    """What a PUT of a resource group says."""

    location: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    properties: Told = None
    managed_by: Told = None
    id: Told = None
    name: Told = None
    type: Told = None


def read_group(document: object) -> GroupBody:
    body = read(GroupBody, document)
    require_location(body.location)
    return body
