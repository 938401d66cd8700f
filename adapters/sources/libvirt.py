"""A virtual machine as libvirt's domain XML describes it: its disks, with their chains as the XML
declares them, its firmware, controller and architecture.

Source: libvirt, "Domain XML format" (formatdomain). Nothing is asked of image headers here.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from adapters.process import command
from adapters.sources.xml import LIMIT, DescriptionInvalid, number, parse
from pipeline.errors import (
    CommandFailed,
    Conflict,
    EnvironmentMissing,
    InvalidParameter,
    NotFound,
)
from pipeline.model.images import QEMU_FORMATS
from pipeline.model.sources import Backing, DiskSource, VmSource
from pipeline.ports import ImageFormat
from pipeline.ports.sources import Description

ARCHITECTURES = {"x86_64": "x64", "aarch64": "Arm64"}
# what makes a disk something else than the bytes of its file, or its file somebody else's
UNKNOWN = ("encryption", "mirror", "transient", "shareable")
SOURCE_UNKNOWN = ("encryption", "slices", "reservations", "dataStore")
DEPTH = 32
# hosts of libosinfo's ids (https://osinfo.org)
WINDOWS_HOSTS = ("microsoft.com",)
LINUX_HOSTS = (
    *("almalinux.org", "alpinelinux.org", "archlinux.org", "centos.org", "debian.org"),
    *("fedoraproject.org", "gentoo.org", "opensuse.org", "oracle.com", "redhat.com"),
    *("rockylinux.org", "suse.com", "ubuntu.com"),
)
NVRAM_LIMIT = 64 << 20  # AArch64's flash; x86's has half a MiB
NAME = re.compile(r"[A-Za-z0-9_.+:][A-Za-z0-9_.+: -]{0,199}")
UNKNOWN_DOMAIN = "failed to get domain"  # what virsh says, in English, of a name that libvirt lacks
SESSION = ("HOME", "XDG_RUNTIME_DIR")  # where virsh finds a user's own libvirt


@dataclass(frozen=True, slots=True)
class Machine:
    """A domain. `nvram` is the file of its UEFI variables, `live` whether it ran when described."""

    name: str
    disks: tuple[DiskSource, ...]
    description: Description
    nvram: Path | None
    live: bool


def read_machine(source: VmSource, uri: str) -> Machine:
    """The domain of an XML file, or the one of that name of the libvirt at `uri`. Raises NotFound,
    DescriptionInvalid for what galleria does not know to read, and EnvironmentMissing when libvirt
    does not answer."""
    path = Path(source.name)
    if path.is_file():
        return parse_domain(_content(path), path.parent)
    if "/" in source.name or source.name.endswith(".xml"):
        raise NotFound(f"no such file: {source.name}")
    return parse_domain(_dump(uri, source.name), Path("/"))


def machine_at_rest(source: VmSource, uri: str) -> Machine:
    """As `read_machine`. Raises Conflict for one that libvirt runs; of one that a file describes,
    the locks of its disks tell."""
    machine = read_machine(source, uri)
    if machine.live and not Path(source.name).is_file():
        raise Conflict(
            f"the virtual machine {source.name!a} is running: its disks are being written to",
            hint="shut it down, or capture it through QEMU's own socket: --qmp",
        )
    return machine


def list_machines(
    directory: Path | None, uri: str
) -> list[tuple[str, Machine | DescriptionInvalid]]:
    """The domains of a directory's *.xml files, or of libvirt; for one that is not understood, what
    is wrong with it."""
    if directory is None:
        listing = _virsh(uri, "list", "--all", "--name").decode(errors="replace")
        names = [line.strip() for line in listing.splitlines() if line.strip()]
        return [(name, _attempt(_dump(uri, name), Path("/"))) for name in names]
    if not directory.is_dir():
        raise NotFound(f"no such directory: {directory}")
    files = sorted(directory.glob("*.xml"))
    return [(str(file), _attempt(_content(file), directory)) for file in files]


def _attempt(content: bytes, directory: Path) -> Machine | DescriptionInvalid:
    try:
        return parse_domain(content, directory)
    except DescriptionInvalid as error:
        return error


def _content(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise DescriptionInvalid(f"{str(path)!a} is not a regular file")
        return file.read(LIMIT + 1)


def _dump(uri: str, name: str) -> bytes:
    if not NAME.fullmatch(name):
        raise InvalidParameter(f"{name!a} is no name of a virtual machine")
    return _virsh(uri, "dumpxml", "--domain", name)


def _virsh(uri: str, *arguments: str) -> bytes:
    env = {name: os.environ[name] for name in SESSION if name in os.environ}
    try:
        return command.run(["virsh", "--connect", uri, *arguments], timeout=30, env=env).stdout
    except CommandFailed as error:
        kind = NotFound if UNKNOWN_DOMAIN in error.stderr else EnvironmentMissing
        raise kind(
            f"libvirt does not tell: {error.message}", hint="a file of domain XML works as well"
        ) from error


# --- the XML -------------------------------------------------------------------------------------


def parse_domain(content: bytes, directory: Path) -> Machine:
    """Read a domain; paths that are not absolute are relative to `directory`."""
    root = parse(content, "the domain XML")
    if root.tag != "domain":
        raise DescriptionInvalid(f"it is not a libvirt domain, but <{root.tag[:100]!a}>")
    name = root.findtext("name", "").strip() or "?"
    disks = [disk for disk in root.iterfind("devices/disk") if _is_disk(disk)]
    if not disks:
        raise DescriptionInvalid(f"the domain {name!a} has no disks")
    disks.sort(key=_boot_order)
    buses = {_attribute(disk.find("target"), "bus") for disk in disks[:1]}
    generation = _generation(root)
    return Machine(
        name=name,
        disks=tuple(
            _disk(disk, None if number == 0 else number - 1, directory)
            for number, disk in enumerate(disks)
        ),
        description=Description(
            generation=generation,
            architecture=_architecture(root),
            controller="NVMe" if buses == {"nvme"} else "SCSI",
            os_type=_os_type(root),
        ),
        nvram=_nvram(root, directory),
        live=root.get("id") is not None,
    )


def _is_disk(disk: Element) -> bool:
    """CD-ROMs and floppies are no part of an image."""
    kind = disk.get("device", "disk")
    if kind in ("cdrom", "floppy"):
        return False
    if kind != "disk":
        raise DescriptionInvalid(f"a disk is a {kind!a}: only whole disks can be published")
    return True


def _boot_order(disk: Element) -> int:
    order = number(_attribute(disk.find("boot"), "order"))
    return 1 << 64 if order is None else order


def _disk(disk: Element, lun: int | None, directory: Path) -> DiskSource:
    for tag in UNKNOWN:
        if disk.find(tag) is not None:
            raise DescriptionInvalid(f"a disk of the domain has <{tag}>, which is not known here")
    driver = disk.find("driver")
    # libvirt's own default; it forbids probing
    top = Backing(_file(disk, directory), _format(_attribute(driver, "type") or "raw"))
    below = tuple(_backing(disk, directory))
    sector = number(_attribute(disk.find("blockio"), "logical_block_size"))
    return DiskSource(
        lun,
        top.path,
        declared=top.declared,
        backing=below,
        sector_size=512 if sector is None else sector,
    )


def _backing(disk: Element, directory: Path) -> Iterator[Backing]:
    """The layers below; an empty <backingStore/> is the end of the chain."""
    store = disk.find("backingStore")
    for _ in range(DEPTH):
        if store is None or (len(store) == 0 and not store.attrib):
            return
        kind = _attribute(store.find("format"), "type")
        if not kind:
            raise DescriptionInvalid("a <backingStore> of the domain has no format")
        yield Backing(_file(store, directory), _format(kind))
        store = store.find("backingStore")
    raise DescriptionInvalid(f"a disk of the domain has more than {DEPTH} layers")


def _file(element: Element, directory: Path) -> Path:
    kind = element.get("type", "file")
    source = element.find("source")
    device = "" if source is None or kind != "block" else source.get("dev", "")
    if source is None or (kind != "file" and not device):
        raise DescriptionInvalid(
            f"a disk of the domain is of type {kind!a}: only files can be read",
            hint="make a snapshot or a copy of it as a file, and publish that",
        )
    for tag in SOURCE_UNKNOWN:
        if source.find(tag) is not None:
            raise DescriptionInvalid(f"a disk of the domain has <{tag}>, which is not known here")
    name = device or source.get("file", "")
    if not name or "\0" in name:
        raise DescriptionInvalid("a disk of the domain names no file")
    return directory / name


def _format(name: str) -> ImageFormat:
    if name not in QEMU_FORMATS:
        raise DescriptionInvalid(f"a disk of the domain has the unknown format {name[:100]!a}")
    return QEMU_FORMATS[name]


def _generation(root: Element) -> str:
    system = root.find("os")
    loader = system.find("loader") if system is not None else None
    efi = _attribute(system, "firmware") == "efi" or _attribute(loader, "type") == "pflash"
    return "V2" if efi or _architecture(root) == "Arm64" else "V1"


def _architecture(root: Element) -> str | None:
    kind = _attribute(root.find("os/type"), "arch")
    if kind and kind not in ARCHITECTURES:
        raise DescriptionInvalid(f"the domain's architecture {kind[:100]!a} is not x64 or Arm64")
    return ARCHITECTURES.get(kind)


def _nvram(root: Element, directory: Path) -> Path | None:
    element = root.find("os/nvram")
    if element is None:
        return None
    if _attribute(element, "format") not in ("", "raw"):
        raise DescriptionInvalid("the domain's NVRAM is not a raw file")
    source = element.find("source")
    name = _attribute(source, "file") if source is not None else (element.text or "").strip()
    return directory / name if name else None


def _os_type(root: Element) -> str | None:
    for element in root.iter():
        if element.tag.rpartition("}")[2] == "os" and "id" in element.attrib:
            host = element.attrib["id"].removeprefix("http://").split("/")[0]
            if host in WINDOWS_HOSTS:
                return "Windows"
            if host in LINUX_HOSTS:
                return "Linux"
    return None


def _attribute(element: Element | None, name: str) -> str:
    return "" if element is None else element.get(name, "")
