"""Actions and roles, under Azure's names. The three Compute Gallery roles have exactly the actions
of the built-in roles of that name."""

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.model.access import Action, Role


@dataclass(frozen=True, slots=True)
class Permissions:
    """Patterns of actions; `*` stands for anything."""

    actions: tuple[str, ...]
    not_actions: tuple[str, ...] = ()


ROLES: Mapping[Role, Permissions] = {
    Role.OWNER: Permissions(("*",)),
    # a contributor can't give rights away: neither by roles nor by sharing, nor by moving a
    # subscription to another tenant, or making one, nor with a catalog that says otherwise
    Role.CONTRIBUTOR: Permissions(
        ("*",),
        (
            "Microsoft.Authorization/*/write",
            "Microsoft.Authorization/*/delete",
            "Microsoft.Compute/galleries/share/action",
            "Microsoft.Resources/subscriptions/write",
            "Microsoft.Resources/tenants/write",
            "Galleria/audit/*",
            "Galleria/catalogs/*",
            "Galleria/garbage/*",
            "Galleria/zones/*",
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
