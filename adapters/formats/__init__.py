"""Strict bounded parsers of image formats, one module a format: an allowlist of what is understood.

Each `parse(window, findings)` reads headers and tables only, tells what it found, and refuses what
it does not know. None opens another file.
"""

from collections.abc import Callable, Mapping

from adapters.formats import qcow2, raw, vdi, vhd, vhdx, vmdk
from adapters.formats.window import Findings, Window
from pipeline.model.images import ImageFormat

PARSERS: Mapping[ImageFormat, Callable[[Window, Findings], None]] = {
    ImageFormat.RAW: raw.parse,
    ImageFormat.QCOW2: qcow2.parse,
    ImageFormat.VHD: vhd.parse,
    ImageFormat.VHDX: vhdx.parse,
    ImageFormat.VMDK: vmdk.parse,
    ImageFormat.VDI: vdi.parse,
}

__all__ = ["PARSERS", "Findings", "Window"]
