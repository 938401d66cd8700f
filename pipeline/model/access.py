"""Who there is, what may be done, and the roles that let somebody do it."""

import uuid
from dataclasses import dataclass, field
from enum import Enum

from pipeline.model.audit import Actor
from pipeline.model.names import DEFAULT_TENANT


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
    # the catalog as a whole, and its zones: nothing that Azure has
    AUDIT_CUT = "Galleria/audit/cut/action"
    CATALOG_REBUILD = "Galleria/catalogs/rebuild/action"
    CATALOG_BACKUP = "Galleria/catalogs/backup/action"
    CATALOG_CHECK = "Galleria/catalogs/check/action"
    CATALOG_RESTORE = "Galleria/catalogs/restore/action"
    METRICS_READ = "Galleria/metrics/read"
    GARBAGE_COLLECT = "Galleria/garbage/collect/action"
    ZONE_ADOPT = "Galleria/zones/adopt/action"
    RUN_READ = "Galleria/runs/read"
    RUN_WRITE = "Galleria/runs/write"
    ZONE_SCRUB = "Galleria/zones/scrub/action"
    ZONE_REPAIR = "Galleria/zones/repair/action"


class Role(Enum):
    OWNER = "Owner"
    CONTRIBUTOR = "Contributor"
    READER = "Reader"
    SHARING_ADMIN = "Compute Gallery Sharing Admin"
    ARTIFACTS_PUBLISHER = "Compute Gallery Artifacts Publisher"
    IMAGE_READER = "Compute Gallery Image Reader"
    STORAGE_CONTRIBUTOR = "Storage Account Contributor"


ROOT = "/"


class PrincipalKind(Enum):
    USER = "User"
    GROUP = "Group"
    SERVICE_PRINCIPAL = "ServicePrincipal"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody, or some program, or a group of them. Names compare without regard to case.

    `tenant` is the home tenant, `guest_of` other tenants that have invited it. `subscriptions` are
    those whose users it is one of: what is shared with them is shared with it. `members` is for
    groups alone, names of principals (groups too).
    """

    name: str
    kind: PrincipalKind = PrincipalKind.USER
    tenant: str = DEFAULT_TENANT
    guest_of: tuple[str, ...] = ()
    subscriptions: tuple[str, ...] = ()
    members: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Assignment:
    """A role, given to a principal for a resource and everything below it."""

    principal: str
    role: Role
    scope: str  # an ARM id, or ROOT

    @property
    def key(self) -> tuple[str, str, str]:
        return self.principal.lower(), self.role.value, self.scope.lower()


def _new_request() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, in one run or one request. `account` runs galleria; it acts as `principal`, or
    (None) as the local operator, who owns everything. `address` is where a request of the network
    came from."""

    account: str
    principal: str | None = None
    request: str = field(default_factory=_new_request)
    address: str = ""

    @property
    def actor(self) -> Actor:
        """Its name in the audit record."""
        return Actor(self.principal or self.account, self.account, self.request, self.address)
