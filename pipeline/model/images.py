"""The formats of disk-image files."""

from enum import Enum


class ImageFormat(Enum):
    """Formats of image files that galleria reads. `VHD` is qemu's vpc."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VHD = "vhd"
    VHDX = "vhdx"
    VMDK = "vmdk"
    VDI = "vdi"
