"""Image definitions as Azure's REST API has them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import InvalidParameter
from pipeline.gallery.arm import Told, moment, read, require_location, system_data, tracked
from pipeline.gallery.documents import decode, encode, unknown_member
from pipeline.model import HyperVGeneration, ImageDefinition, ProvisioningState
from pipeline.model.names import DefinitionName

KIND = "Microsoft.Compute/galleries/images"
GENERATION_2_SINCE = "2025-03-03"  # the api-version whose default it is

_OWN = ("name", "location", "tags", "created")  # not among the properties
_TOLD = ("provisioningState",)


def definition(item: ImageDefinition) -> dict[str, Any]:
    """It is made and changed in one transaction: what can be seen of it is done."""
    state = {"provisioningState": ProvisioningState.SUCCEEDED.value}
    properties = properties_of(item) | state
    found = tracked(item.name.arm_id, KIND, item.location, item.tags, properties)
    return found | system_data(item.created)


def properties_of(item: ImageDefinition) -> dict[str, Any]:
    """What was said of it."""
    properties = {key: value for key, value in encode(item).items() if key not in _OWN}
    return properties | {"endOfLifeDate": moment(item.end_of_life_date)}


@dataclass(frozen=True, slots=True)
class GalleryImageBody:
    """What a PUT says. Its properties are those of the model."""

    location: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    id: Told = None
    name: Told = None
    type: Told = None
    system_data: Told = None


@dataclass(frozen=True, slots=True)
class WantedDefinition:
    """`allow_update_image` lets features of one that is there change."""

    definition: ImageDefinition
    allow_update_image: bool


def read_definition(name: DefinitionName, document: object, api_version: str) -> WantedDefinition:
    """What a PUT asks for; what it does not say has the default of its api-version."""
    body = read(GalleryImageBody, document)
    require_location(body.location)
    properties = {key: value for key, value in body.properties.items() if key not in _TOLD}
    allow = properties.pop("allowUpdateImage", False)
    if not isinstance(allow, bool):
        raise InvalidParameter("Cannot bind parameter allowUpdateImage: it is true or false.")
    if own := [key for key in _OWN if key in properties]:
        raise unknown_member(own[0], "GalleryImageProperties", "properties")
    since = api_version >= GENERATION_2_SINCE
    default = HyperVGeneration.V2 if since else HyperVGeneration.V1
    whole = {
        "hyperVGeneration": default.value,
        **properties,
        "name": name.arm_id,
        "location": body.location,
        "tags": body.tags,
    }
    return WantedDefinition(decode(ImageDefinition, whole), allow)
