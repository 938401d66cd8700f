"""What disks, snapshots and managed images are called."""

import re
from dataclasses import dataclass
from enum import Enum

from pipeline.errors import InvalidParameter
from pipeline.model.names import DEFAULT_RESOURCE_GROUP, DEFAULT_SUBSCRIPTION, GalleryName

# Azure's naming rules for Microsoft.Compute: letters, digits, _ . -, ending in a letter, digit or _
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,78}[A-Za-z0-9_])?")


class ResourceKind(Enum):
    """The last type in an ARM id."""

    DISK = "disks"
    SNAPSHOT = "snapshots"
    IMAGE = "images"

    @property
    def noun(self) -> str:
        return {"disks": "disk", "snapshots": "snapshot", "images": "managed image"}[self.value]


@dataclass(frozen=True, slots=True, eq=False)
class ResourceName:
    """Equal when the ARM ids are, whatever the case."""

    kind: ResourceKind
    name: str
    subscription: str = DEFAULT_SUBSCRIPTION
    resource_group: str = DEFAULT_RESOURCE_GROUP

    def __post_init__(self) -> None:
        GalleryName("any", self.subscription, self.resource_group)  # checks these two
        if not _NAME.fullmatch(self.name):
            raise InvalidParameter(
                f"The name {self.name!r} of a {self.kind.noun} is invalid: 1 to 80 letters, "
                "digits, _ . and -, beginning with a letter or digit, ending with one or with _."
            )

    @property
    def arm_id(self) -> str:
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.Compute/{self.kind.value}/{self.name}"
        )

    @property
    def key(self) -> str:
        return self.arm_id.lower()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ResourceName) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        default = (DEFAULT_SUBSCRIPTION, DEFAULT_RESOURCE_GROUP)
        short = (self.subscription, self.resource_group.lower()) == default
        return self.name if short else self.arm_id


def parse_resource(text: str, kind: ResourceKind) -> ResourceName:
    """`web` or an ARM id of that kind."""
    if not text.startswith("/"):
        return ResourceName(kind, text)
    found = resource_of(text)
    if found is None or found.kind is not kind:
        raise InvalidParameter(
            f"The resource id {text!r} is not that of a {kind.noun}.",
            hint=f"/subscriptions/ID/resourceGroups/RG/providers/Microsoft.Compute/{kind.value}/"
            "NAME, or the name alone",
        )
    return found


def resource_of(text: str) -> ResourceName | None:
    """The resource that an ARM id names; None when it is no id of a resource of these kinds."""
    parts = text.split("/")
    if len(parts) != 9 or parts[0]:
        return None
    fixed = [parts[index].lower() for index in (1, 3, 5, 6)]
    if fixed != ["subscriptions", "resourcegroups", "providers", "microsoft.compute"]:
        return None
    for kind in ResourceKind:
        if parts[7].lower() == kind.value:
            return ResourceName(kind, parts[8], parts[2], parts[4])
    return None


def named_resource(id: str) -> ResourceName:
    """As `resource_of`; raises InvalidParameter for the id of something else."""
    found = resource_of(id)
    if found is None:
        raise InvalidParameter(f"The resource id {id!r} is not that of a disk, snapshot or image.")
    return found
