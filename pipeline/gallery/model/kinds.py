"""The values that properties may have, spelled as Azure spells them."""

from enum import Enum


class OsType(Enum):
    LINUX = "Linux"
    WINDOWS = "Windows"


class OsState(Enum):
    GENERALIZED = "Generalized"
    SPECIALIZED = "Specialized"


class HyperVGeneration(Enum):
    V1 = "V1"  # BIOS
    V2 = "V2"  # UEFI


class Architecture(Enum):
    X64 = "x64"
    ARM64 = "Arm64"


class StorageAccountType(Enum):
    STANDARD_LRS = "Standard_LRS"
    STANDARD_ZRS = "Standard_ZRS"
    PREMIUM_LRS = "Premium_LRS"


class ReplicationMode(Enum):
    FULL = "Full"
    SHALLOW = "Shallow"


class ProvisioningState(Enum):
    CREATING = "Creating"
    UPDATING = "Updating"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    DELETING = "Deleting"


class ReplicationState(Enum):
    UNKNOWN = "Unknown"
    REPLICATING = "Replicating"
    COMPLETED = "Completed"
    FAILED = "Failed"


class AggregatedState(Enum):
    UNKNOWN = "Unknown"
    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"
    FAILED = "Failed"


class SharingPermissions(Enum):
    """The kind of a gallery: who may be let in beside those who have a role on it."""

    PRIVATE = "Private"
    GROUPS = "Groups"
    COMMUNITY = "Community"
