"""Actions and roles, under Azure's names. The three Compute Gallery roles have exactly the actions
of the built-in roles of that name."""

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum


class Action(Enum):
    """What is done to a resource, under the name that activity logs and role definitions use."""

    GALLERY_READ = "Microsoft.Compute/galleries/read"
    GALLERY_WRITE = "Microsoft.Compute/galleries/write"
    GALLERY_DELETE = "Microsoft.Compute/galleries/delete"
    GALLERY_SHARE = "Microsoft.Compute/galleries/share/action"
    DEFINITION_READ = "Microsoft.Compute/galleries/images/read"
    DEFINITION_WRITE = "Microsoft.Compute/galleries/images/write"
    DEFINITION_DELETE = "Microsoft.Compute/galleries/images/delete"
    VERSION_READ = "Microsoft.Compute/galleries/images/versions/read"
    VERSION_WRITE = "Microsoft.Compute/galleries/images/versions/write"
    VERSION_DELETE = "Microsoft.Compute/galleries/images/versions/delete"
    # what direct sharing and community galleries give: a read-only view under another name
    SHARED_GALLERY_READ = "Microsoft.Compute/locations/sharedGalleries/read"
    SHARED_DEFINITION_READ = "Microsoft.Compute/locations/sharedGalleries/images/read"
    SHARED_VERSION_READ = "Microsoft.Compute/locations/sharedGalleries/images/versions/read"
    COMMUNITY_GALLERY_READ = "Microsoft.Compute/locations/communityGalleries/read"
    COMMUNITY_DEFINITION_READ = "Microsoft.Compute/locations/communityGalleries/images/read"
    COMMUNITY_VERSION_READ = "Microsoft.Compute/locations/communityGalleries/images/versions/read"
    # what a version is made from
    VM_WRITE = "Microsoft.Compute/virtualMachines/write"
    DISK_READ = "Microsoft.Compute/disks/read"
    DISK_WRITE = "Microsoft.Compute/disks/write"
    DISK_DELETE = "Microsoft.Compute/disks/delete"
    SNAPSHOT_READ = "Microsoft.Compute/snapshots/read"
    SNAPSHOT_WRITE = "Microsoft.Compute/snapshots/write"
    SNAPSHOT_DELETE = "Microsoft.Compute/snapshots/delete"
    MANAGED_IMAGE_READ = "Microsoft.Compute/images/read"
    MANAGED_IMAGE_WRITE = "Microsoft.Compute/images/write"
    MANAGED_IMAGE_DELETE = "Microsoft.Compute/images/delete"
    SCALE_SET_WRITE = "Microsoft.Compute/virtualMachineScaleSets/write"
    SCALE_SET_DELETE = "Microsoft.Compute/virtualMachineScaleSets/delete"
    STORAGE_KEYS = "Microsoft.Storage/storageAccounts/listKeys/action"
    TENANT_READ = "Microsoft.Resources/tenants/read"
    TENANT_WRITE = "Microsoft.Resources/tenants/write"
    SUBSCRIPTION_READ = "Microsoft.Resources/subscriptions/read"
    SUBSCRIPTION_WRITE = "Microsoft.Resources/subscriptions/write"
    GROUP_READ = "Microsoft.Resources/subscriptions/resourceGroups/read"
    GROUP_WRITE = "Microsoft.Resources/subscriptions/resourceGroups/write"
    GROUP_DELETE = "Microsoft.Resources/subscriptions/resourceGroups/delete"
    # who has which role, who there is, and what was done
    ASSIGNMENT_READ = "Microsoft.Authorization/roleAssignments/read"
    ASSIGNMENT_WRITE = "Microsoft.Authorization/roleAssignments/write"
    ASSIGNMENT_DELETE = "Microsoft.Authorization/roleAssignments/delete"
    PRINCIPAL_READ = "Microsoft.Authorization/principals/read"
    PRINCIPAL_WRITE = "Microsoft.Authorization/principals/write"
    PRINCIPAL_DELETE = "Microsoft.Authorization/principals/delete"
    AUDIT_READ = "Microsoft.Insights/eventtypes/values/read"


class Role(Enum):
    OWNER = "Owner"
    CONTRIBUTOR = "Contributor"
    READER = "Reader"
    SHARING_ADMIN = "Compute Gallery Sharing Admin"
    ARTIFACTS_PUBLISHER = "Compute Gallery Artifacts Publisher"
    IMAGE_READER = "Compute Gallery Image Reader"
    STORAGE_CONTRIBUTOR = "Storage Account Contributor"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Patterns of actions; `*` stands for anything."""

    actions: tuple[str, ...]
    not_actions: tuple[str, ...] = ()


ROLES: Mapping[Role, Permissions] = {
    Role.OWNER: Permissions(("*",)),
    # a contributor can't give rights away: neither by roles nor by sharing, nor by moving a
    # subscription to another tenant, or making one
    Role.CONTRIBUTOR: Permissions(
        ("*",),
        (
            "Microsoft.Authorization/*/write",
            "Microsoft.Authorization/*/delete",
            "Microsoft.Compute/galleries/share/action",
            "Microsoft.Resources/subscriptions/write",
            "Microsoft.Resources/tenants/write",
        ),
    ),
    Role.READER: Permissions(("*/read",)),
    Role.SHARING_ADMIN: Permissions(("Microsoft.Compute/galleries/share/action",)),
    Role.ARTIFACTS_PUBLISHER: Permissions(
        (
            "Microsoft.Compute/galleries/*",
            "Microsoft.Compute/locations/communityGalleries/*",
            "Microsoft.Compute/locations/sharedGalleries/*",
            "Microsoft.Compute/images/*",
            "Microsoft.Compute/virtualMachines/write",
            "Microsoft.Compute/disks/write",
            "Microsoft.Authorization/*/read",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ),
        ("Microsoft.Compute/galleries/share/action",),
    ),
    Role.IMAGE_READER: Permissions(
        (
            "Microsoft.Compute/galleries/images/read",
            "Microsoft.Compute/galleries/images/versions/read",
        )
    ),
    # of the built-in role of that name, what there is here: the files of this host are one account
    Role.STORAGE_CONTRIBUTOR: Permissions(
        (
            "Microsoft.Storage/storageAccounts/*",
            "Microsoft.Authorization/*/read",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        )
    ),
}


@functools.cache
def permits(role: Role, action: Action) -> bool:
    """Whether a role has an action, wherever it is assigned."""
    permissions = ROLES[role]
    return _matches(permissions.actions, action) and not _matches(permissions.not_actions, action)


def _matches(patterns: Iterable[str], action: Action) -> bool:
    name = action.value.lower()
    return any(
        re.fullmatch(re.escape(pattern.lower()).replace(r"\*", ".*"), name) for pattern in patterns
    )
