"""The formats of disk-image files."""

from enum import Enum


class ImageFormat(Enum):
    """Formats of image files that galleria reads."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VHD = "vhd"
    VHDX = "vhdx"
    VMDK = "vmdk"
    VDI = "vdi"

    @property
    def qemu_name(self) -> str:
        """What qemu calls its driver for the format: of a VHD that is vpc, Virtual PC."""
        return "vpc" if self is ImageFormat.VHD else self.value


QEMU_FORMATS = {format.qemu_name: format for format in ImageFormat}
