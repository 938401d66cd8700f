"""What an OVF descriptor says of a machine: its disks in order, firmware, controller, system.

Source: DMTF DSP0243, "Open Virtualization Format" 1.1 and 2.x; VMware's and VirtualBox's extensions
for firmware. Elements are known by their local names: versions differ in the name space alone.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from adapters.sources.xml import number, parse
from pipeline.errors import DescriptionInvalid
from pipeline.model.descriptions import Description

# CIM resource types (DMTF DSP1041); storage extents are what XenServer calls its disks
DISK_DRIVES = {"17", "19"}
CONTROLLERS = {"5", "6", "20"}  # IDE, SCSI, other storage (SATA, NVMe)
ITEMS = ("Item", "StorageItem")
_LINUX = re.compile(
    r"linux|debian|ubuntu|fedora|red ?hat|rhel|centos|suse|alma|rocky|oracle|gentoo|arch|alpine",
    re.IGNORECASE,
)
_UNIT = re.compile(r"bytes?\s*\*\s*2\s*\^\s*(\d{1,2})", re.IGNORECASE)
# of OVF 0.9
_OLD_UNITS = {"bytes": 0, "byte": 0, "kilobytes": 10, "megabytes": 20, "gigabytes": 30}
_PROPERTY = re.compile(r"\$\{([^}]{1,200})\}")
_DEVICE = re.compile(r"device=(\d{1,4})")  # of XenServer's Connection


@dataclass(frozen=True, slots=True)
class OvfDisk:
    """A disk of the machine; lengths in bytes, None where the descriptor does not say. Without a
    `href` it is an empty one, to be made at deployment. `chunk` is the length of its file's parts,
    and `compression` how the file is compressed ("" or gzip)."""

    href: str
    file_size: int | None
    capacity: int | None
    compression: str = ""
    chunk: int | None = None


@dataclass(frozen=True, slots=True)
class OvfMachine:
    """`files` are all that the descriptor names, of every machine and configuration."""

    disks: tuple[OvfDisk, ...]
    description: Description
    files: tuple[str, ...] = ()


def parse_ovf(content: bytes, machine: str | None = None, option: str | None = None) -> OvfMachine:
    """Read what a descriptor says of one machine, in one configuration: `machine` is its id or
    name, `option` the configuration's id; None: the only one, and the default one. Raises
    DescriptionInvalid."""
    root = parse(content, "the OVF descriptor")
    if local(root) != "Envelope":
        raise DescriptionInvalid("the OVF descriptor is not an <Envelope>")
    system = _machine(root, machine)
    option = _configuration(root, option)
    items = _items(system, option)
    files = _files(root)
    media = {_get(disk, "diskId"): disk for disk in all_of(root, "Disk")}
    drives = [item for item in items if _text(item, "ResourceType") in DISK_DRIVES]
    values = _properties(root, option)
    disks = [_disk(drive, media, files, values) for drive in sorted(drives, key=_place)]
    if not disks:
        raise DescriptionInvalid("the OVF describes a machine without disks")
    named = [disk.href for disk in disks if disk.href]
    if len(set(named)) != len(named):
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
        tuple(_get(file, "href") for file in files.values()),
    )


def _machine(root: Element, wanted: str | None) -> Element:
    systems = list(all_of(root, "VirtualSystem"))
    if wanted is not None:
        systems = [item for item in systems if wanted in (_get(item, "id"), _text(item, "Name"))]
    if len(systems) == 1:
        return systems[0]
    known = [_get(item, "id") or _text(item, "Name") for item in all_of(root, "VirtualSystem")]
    shown = ", ".join(ascii(name[:99]) for name in known[:64]) or "none"
    if wanted is None:
        raise DescriptionInvalid(
            f"the OVF describes {len(systems)} machines, and not one: {shown}",
            hint="name one with --machine NAME" if known else "",
        )
    raise DescriptionInvalid(f"the OVF has no machine {wanted[:99]!a}; it has: {shown}")


def _configuration(root: Element, wanted: str | None) -> str:
    """The id of the configuration that counts: what is asked for, else the one that is marked as
    the default, else the first (DSP0243, 9.8); empty where there is none."""
    options = {
        _get(item, "id"): item
        for section in all_of(root, "DeploymentOptionSection")
        for item in section
        if local(item) == "Configuration"
    }
    if wanted is not None:
        if wanted not in options:
            shown = ", ".join(ascii(name[:99]) for name in list(options)[:64]) or "none"
            raise DescriptionInvalid(f"the OVF has no configuration {wanted[:99]!a}: {shown}")
        return wanted
    marked = [name for name, item in options.items() if _get(item, "default") in ("true", "1")]
    return next(iter([*marked, *options]), "")


def _items(system: Element, option: str) -> list[Element]:
    """The hardware in a configuration: items of another one, and those that only bound a value, are
    left out; one of this configuration stands for the general one with its instance id."""
    found: dict[object, Element] = {}
    for item in system.iter():
        if local(item) not in ITEMS or _get(item, "bound") in ("min", "max"):
            continue
        options = _get(item, "configuration").split()
        if options and option not in options:
            continue
        key = _text(item, "InstanceID") or _text(item, "InstanceId") or item
        if key not in found or options:
            found[key] = item
        elif not _get(found[key], "configuration"):
            found[item] = item  # two general ones: each counts, whatever their ids
    return list(found.values())


def _properties(root: Element, option: str) -> dict[str, str]:
    """The values of product properties, which a capacity may refer to."""
    values = {}
    for item in all_of(root, "Property"):
        chosen = [
            _get(value, "value") for value in item if _get(value, "configuration") == option != ""
        ]
        values[_get(item, "key")] = (chosen or [_get(item, "value")])[0]
    return values


def _files(root: Element) -> dict[str, Element]:
    files: dict[str, Element] = {}
    for file in all_of(root, "File"):
        name = _get(file, "id")
        if name in files:
            raise DescriptionInvalid(f"the OVF has the file id {name[:99]!a} twice")
        files[name] = file
    return files


def _disk(
    drive: Element,
    media: dict[str, Element],
    files: dict[str, Element],
    values: Mapping[str, str],
) -> OvfDisk:
    host = _text(drive, "HostResource").removeprefix("ovf:")
    kind, _, name = host.strip("/").partition("/")
    if kind not in ("disk", "file"):  # of oVirt: an image's id, and that of its disk
        name = host.rpartition("/")[2]
        kind = "disk" if name in media else "file" if name in files else kind
    reference = name
    capacity = None
    if kind == "disk":
        if name not in media:
            raise DescriptionInvalid(f"the OVF's machine has a disk {name[:99]!a} of nowhere")
        disk = media[name]
        if _get(disk, "parentRef"):
            raise DescriptionInvalid("the OVF has a disk that depends on another disk (parentRef)")
        reference, capacity = _get(disk, "fileRef"), _capacity(disk, values)
        if not reference:
            if not capacity:
                raise DescriptionInvalid(f"the OVF's empty disk {name[:99]!a} has no capacity")
            return OvfDisk("", None, capacity)
    elif kind != "file":
        raise DescriptionInvalid(f"the OVF's machine has a disk at {host[:99]!a}: not known")
    if reference not in files:
        raise DescriptionInvalid(f"the OVF's machine has a disk of no file, {reference[:99]!a}")
    file = files[reference]
    compression = _get(file, "compression").lower()
    if compression not in ("", "identity", "gzip"):
        raise DescriptionInvalid(f"the OVF has a file that is compressed by {compression[:99]!a}")
    return OvfDisk(
        _get(file, "href"),
        number(_get(file, "size")),
        capacity,
        compression.replace("identity", ""),
        number(_get(file, "chunkSize")),
    )


def _capacity(disk: Element, values: Mapping[str, str]) -> int | None:
    text, unit = _get(disk, "capacity"), _get(disk, "capacityAllocationUnits").strip()
    if reference := _PROPERTY.fullmatch(text.strip()):
        text = values.get(reference[1], "")
    count = number(text.strip())
    if count is None:
        return None
    if match := _UNIT.fullmatch(unit):
        return count << int(match[1])
    shift = _OLD_UNITS.get(unit.lower() or "byte")
    return None if shift is None else count << shift


def _place(drive: Element) -> tuple[int, int]:
    """Controllers in the order of their ids, and disks in the order of their addresses."""
    address = number(_text(drive, "AddressOnParent"))
    if address is None and (match := _DEVICE.search(_text(drive, "Connection"))):
        address = int(match[1])
    return number(_text(drive, "Parent")) or 0, address or 0


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
