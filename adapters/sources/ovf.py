"""What an OVF descriptor says of a machine: its disks in order, firmware, controller, system.

Source: DMTF DSP0243, "Open Virtualization Format" 1.1 and 2.x; VMware's and VirtualBox's extensions
for firmware. Elements are known by their local names: versions differ in the name space alone.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from adapters.sources.xml import DescriptionInvalid, number, parse
from pipeline.ports.sources import Description

# CIM resource types (DMTF DSP1041)
DISK_DRIVE = "17"
CONTROLLERS = {"5", "6", "20"}  # IDE, SCSI, other storage (SATA, NVMe)
_LINUX = re.compile(
    r"linux|debian|ubuntu|fedora|red ?hat|rhel|centos|suse|alma|rocky|oracle|gentoo|arch|alpine",
    re.IGNORECASE,
)
_UNIT = re.compile(r"byte\s*\*\s*2\s*\^\s*(\d{1,2})")


@dataclass(frozen=True, slots=True)
class OvfDisk:
    """A file of the archive; lengths in bytes, None where the descriptor does not say."""

    href: str
    file_size: int | None
    capacity: int | None


@dataclass(frozen=True, slots=True)
class OvfMachine:
    disks: tuple[OvfDisk, ...]
    description: Description


def parse_ovf(content: bytes) -> OvfMachine:
    """Read a descriptor of one machine. Raises DescriptionInvalid."""
    root = parse(content, "the OVF descriptor")
    if local(root) != "Envelope":
        raise DescriptionInvalid("the OVF descriptor is not an <Envelope>")
    systems = list(all_of(root, "VirtualSystem"))
    if len(systems) != 1:
        raise DescriptionInvalid(f"the OVF describes {len(systems)} machines, and not one")
    (system,) = systems
    items = [item for item in system.iter() if local(item) in ITEMS]
    files = _files(root)
    media = {_get(disk, "diskId"): disk for disk in all_of(root, "Disk")}
    drives = [item for item in items if _text(item, "ResourceType") == DISK_DRIVE]
    disks = [_disk(drive, media, files) for drive in sorted(drives, key=_place)]
    if not disks:
        raise DescriptionInvalid("the OVF describes a machine without disks")
    if len({disk.href for disk in disks}) != len(disks):
        raise DescriptionInvalid("the OVF uses one file as two disks")
    boot = min(drives, key=_place)
    return OvfMachine(
        tuple(disks),
        Description(
            generation="V2" if _is_efi(system) else "V1",
            architecture=_architecture(system),
            controller=_controller(boot, items),
            os_type=_os_type(system),
        ),
    )


ITEMS = ("Item", "StorageItem")


def _files(root: Element) -> dict[str, Element]:
    files: dict[str, Element] = {}
    for file in all_of(root, "File"):
        name = _get(file, "id")
        if name in files:
            raise DescriptionInvalid(f"the OVF has the file id {name[:99]!a} twice")
        if _get(file, "compression") not in ("", "identity") or _get(file, "chunkSize"):
            raise DescriptionInvalid("the OVF has a file that is compressed or in chunks")
        files[name] = file
    return files


def _disk(drive: Element, media: dict[str, Element], files: dict[str, Element]) -> OvfDisk:
    host = _text(drive, "HostResource").removeprefix("ovf:")
    kind, _, name = host.strip("/").partition("/")
    reference = name
    capacity = None
    if kind == "disk":
        if name not in media:
            raise DescriptionInvalid(f"the OVF's machine has a disk {name[:99]!a} of nowhere")
        disk = media[name]
        if _get(disk, "parentRef"):
            raise DescriptionInvalid("the OVF has a disk that leans on another one (parentRef)")
        reference, capacity = _get(disk, "fileRef"), _capacity(disk)
    elif kind != "file":
        raise DescriptionInvalid(f"the OVF's machine has a disk at {host[:99]!a}: not known")
    if reference not in files:
        raise DescriptionInvalid("the OVF's machine has a disk without a file: an empty one")
    file = files[reference]
    return OvfDisk(_get(file, "href"), number(_get(file, "size")), capacity)


def _capacity(disk: Element) -> int | None:
    count, unit = number(_get(disk, "capacity")), _get(disk, "capacityAllocationUnits")
    match = _UNIT.fullmatch(unit.strip()) if unit else None
    if count is None or (unit and unit.strip() != "byte" and match is None):
        return None
    return count << int(match[1]) if match else count


def _place(drive: Element) -> tuple[int, int]:
    """Controllers in the order of their ids, and disks in the order of their addresses."""
    return number(_text(drive, "Parent")) or 0, number(_text(drive, "AddressOnParent")) or 0


def _controller(drive: Element, items: list[Element]) -> str | None:
    for item in items:
        same = _text(item, "InstanceID") == _text(drive, "Parent")
        if same and _text(item, "ResourceType") in CONTROLLERS:
            kind = f"{_text(item, 'ResourceSubType')} {_text(item, 'ElementName')}".lower()
            return "NVMe" if "nvme" in kind else "SCSI"
    return None


def _is_efi(system: Element) -> bool:
    for element in system.iter():
        name = local(element)
        if name == "Config" and _get(element, "key") == "firmware":
            return _get(element, "value").lower() == "efi"
        if name == "Firmware" and _get(element, "type"):
            return _get(element, "type").upper().startswith("EFI")
    return False


def _system_words(system: Element) -> str:
    section = next(all_of(system, "OperatingSystemSection"), None)
    if section is None:
        return ""
    texts = [element.text or "" for element in section.iter() if local(element) != "Info"]
    return " ".join([*texts, _get(section, "osType")])


def _os_type(system: Element) -> str | None:
    words = _system_words(system)
    if "windows" in words.lower():
        return "Windows"
    return "Linux" if _LINUX.search(words) else None


def _architecture(system: Element) -> str | None:
    words = _system_words(system).lower()
    if "arm64" in words or "aarch64" in words:
        return "Arm64"
    return "x64" if "_64" in words or "64-bit" in words or "64guest" in words else None


def local(element: Element) -> str:
    """A tag without its name space."""
    return element.tag.rpartition("}")[2]


def all_of(root: Element, name: str) -> Iterator[Element]:
    return (element for element in root.iter() if local(element) == name)


def _get(element: Element, name: str) -> str:
    """An attribute, of whichever name space."""
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return value
    return ""


def _text(element: Element, name: str) -> str:
    for child in element:
        if local(child) == name:
            return (child.text or "").strip()
    return ""
