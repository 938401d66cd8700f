"""The VHD footer: parse, make, and check what Azure demands of an upload.

Source: Microsoft, "Virtual Hard Disk Image Format Specification", 1.0 (2006); all numbers are big
endian. Azure's rules: "Prepare a Windows VHD or VHDX to upload to Azure" and "Information for
non-endorsed distributions": fixed, whole MiB, Current Size and not the geometry counts.
"""

import os
import struct
import time
import uuid
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

MIB = 1 << 20
FOOTER_SIZE = 512
COOKIE = b"conectix"
VERSION = 0x00010000
FIXED_DATA_OFFSET = 0xFFFFFFFFFFFFFFFF
EPOCH = 946684800  # 2000-01-01 00:00:00 UTC, from which VHD time stamps count
# Azure's page-blob limits for a VHD upload, footer included
AZURE_SMALLEST, AZURE_LARGEST = 20_972_032, 35_183_298_347_520
# The geometry that says "take Current Size": what qemu-img writes with force_size=on
LARGEST_GEOMETRY = (65535, 16, 255)

_LAYOUT = struct.Struct(">8sIIQI4sI4sQQHBBII16sB")


class DiskType(Enum):
    FIXED = 2
    DYNAMIC = 3
    DIFFERENCING = 4


@dataclass(frozen=True, slots=True)
class Footer:
    """The fields of a footer; sizes in bytes, `geometry` is (cylinders, heads, sectors)."""

    features: int
    version: int
    data_offset: int
    creator: bytes
    original_size: int
    current_size: int
    geometry: tuple[int, int, int]
    disk_type: int
    identifier: uuid.UUID
    saved_state: bool

    @property
    def geometry_size(self) -> int:
        cylinders, heads, sectors = self.geometry
        return cylinders * heads * sectors * 512


def checksum(data: bytes, offset: int) -> int:
    """One's complement of the sum of all bytes but the checksum's own four at `offset`."""
    return ~(sum(data) - sum(data[offset : offset + 4])) & 0xFFFFFFFF


def parse(data: bytes) -> Footer:
    """Read 512 bytes as a footer. Raises ValueError that says what is wrong with them."""
    if len(data) != FOOTER_SIZE or not data.startswith(COOKIE):
        raise ValueError("there is no VHD footer (no cookie `conectix`)")
    fields = _LAYOUT.unpack_from(data)
    if fields[13 + 1] != checksum(data, 64):
        raise ValueError("the checksum of the VHD footer is wrong")
    return Footer(
        features=fields[1],
        version=fields[2],
        data_offset=fields[3],
        creator=fields[5],
        original_size=fields[8],
        current_size=fields[9],
        geometry=(fields[10], fields[11], fields[12]),
        disk_type=fields[13],
        identifier=uuid.UUID(bytes=fields[15]),
        saved_state=bool(fields[16]),
    )


def is_without_cookie(data: bytes, file_size: int) -> bool:
    """Whether the last bytes of a file are the footer of a fixed VHD but for its cookie: the
    fields say that, and not chance."""
    if len(data) != FOOTER_SIZE or data.startswith(COOKIE):
        return False
    fields = _LAYOUT.unpack_from(data)
    version, offset, current_size, disk_type = fields[2], fields[3], fields[9], fields[13]
    return (
        (version, disk_type) == (VERSION, DiskType.FIXED.value)
        and offset == FIXED_DATA_OFFSET
        and current_size % 512 == 0
        and 0 < current_size <= file_size
    )


def make_fixed(
    size: int, *, identifier: uuid.UUID | None = None, now: float | None = None
) -> bytes:
    """The footer of a fixed VHD of `size` bytes.

    Creator `qem2` and the largest geometry, as qemu-img writes with force_size=on: every reader,
    also qemu without options, then takes Current Size and cuts nothing off.
    """
    stamp = max(0, int(time.time() if now is None else now) - EPOCH)
    data = bytearray(FOOTER_SIZE)
    _LAYOUT.pack_into(
        data,
        0,
        COOKIE,
        2,  # features: this bit is always set
        VERSION,
        FIXED_DATA_OFFSET,
        stamp,
        b"qem2",
        0x00010000,
        b"Wi2k",
        size,
        size,
        *LARGEST_GEOMETRY,
        DiskType.FIXED.value,
        0,
        (identifier or uuid.uuid4()).bytes,
        0,
    )
    struct.pack_into(">I", data, 64, checksum(bytes(data), 64))
    return bytes(data)


def azure_upload_problems(path: Path) -> tuple[str, ...]:
    """What would make Azure refuse (or misread) a file as a VHD; empty when nothing would."""
    file_size = path.stat().st_size
    problems = []
    if not AZURE_SMALLEST <= file_size <= AZURE_LARGEST:
        problems.append(
            f"the file has {file_size} bytes; Azure takes {AZURE_SMALLEST} to {AZURE_LARGEST}"
        )
    with path.open("rb") as file:
        file.seek(max(0, file_size - FOOTER_SIZE), os.SEEK_SET)
        try:
            footer = parse(file.read(FOOTER_SIZE))
        except ValueError as error:
            return (*problems, str(error))
    if footer.disk_type != DiskType.FIXED.value:
        problems.append(f"the disk type is {footer.disk_type}, not 2 (fixed)")
    if footer.data_offset != FIXED_DATA_OFFSET:
        problems.append(f"the data offset is {footer.data_offset:#x}, not all ones")
    if footer.version != VERSION:
        problems.append(f"the format version is {footer.version:#x}, not {VERSION:#x}")
    if footer.current_size != file_size - FOOTER_SIZE:
        problems.append(
            f"Current Size is {footer.current_size}, but the file holds {file_size - FOOTER_SIZE}"
        )
    if footer.current_size % MIB:
        problems.append(f"Current Size {footer.current_size} is not a whole number of MiB")
    return tuple(problems)
