"""What a managed image may be (reference of Microsoft.Compute/images)."""

from pipeline.errors import InvalidParameter, Refused
from pipeline.gallery.rules.versions import GIB
from pipeline.model import StorageAccountType

MAX_IMAGE_DISK_GIB = 1023


def image_disk_limit(virtual_size: int, disk: str) -> None:
    """`virtual_size` is in bytes; called when inspection has found it, before content is read."""
    if virtual_size > MAX_IMAGE_DISK_GIB * GIB:
        raise Refused(
            f"The value {-(-virtual_size // GIB)} of parameter diskSizeGB is out of range. The "
            f"disks of a managed image have at most {MAX_IMAGE_DISK_GIB} GiB: {disk}.",
            hint="publish a version from it, or from a snapshot of it: those may be larger",
        )


def image_storage(kind: StorageAccountType | None, *, zone_resilient: bool) -> None:
    """The storage of the disks: zone-resilient is what Standard_ZRS means, and nothing else."""
    zrs = StorageAccountType.STANDARD_ZRS
    if kind is not None and (kind is zrs) is not zone_resilient:
        raise InvalidParameter(
            f"The properties 'storageProfile.zoneResilient' ({str(zone_resilient).lower()}) and "
            f"'storageProfile.osDisk.storageAccountType' ({kind.value}) contradict each other.",
            hint="a zone-resilient image is stored as Standard_ZRS, any other one is not",
        )
