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
    PREMIUM_V2_LRS = "PremiumV2_LRS"  # Azure's alone: no zone offers it


class StorageAccountStrategy(Enum):
    """How the storage account type of a region is chosen that names none."""

    PREFER_STANDARD_ZRS = "PreferStandard_ZRS"  # where the region can, else Standard_LRS
    DEFAULT_STANDARD_LRS = "DefaultStandard_LRS"


class HostCaching(Enum):
    """Whether the host of a VM caches what the VM reads from a disk, and writes to it."""

    NONE = "None"
    READ_ONLY = "ReadOnly"
    READ_WRITE = "ReadWrite"


class SignatureTemplate(Enum):
    """Whose keys the firmware of a VM trusts before others are enrolled."""

    NONE = "NoSignatureTemplate"
    MICROSOFT_UEFI_CA = "MicrosoftUefiCertificateAuthorityTemplate"
    MICROSOFT_WINDOWS = "MicrosoftWindowsTemplate"


class SignatureType(Enum):
    """What tells a firmware whom to trust: a digest of what it loads, or a certificate."""

    SHA256 = "sha256"
    X509 = "x509"


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
