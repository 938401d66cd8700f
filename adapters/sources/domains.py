"""A virtual machine as libvirt's domain XML describes it: its disks, with their chains as the XML
declares them, its firmware, controller and architecture; in the sandbox
(`adapters.process.parser`).

Source: libvirt, "Domain XML format" (formatdomain). Nothing is asked of image headers here.
"""

import base64
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from adapters.sources.xml import number, parse
from pipeline.errors import DescriptionInvalid
from pipeline.model.descriptions import Description
from pipeline.model.images import QEMU_FORMATS, ImageFormat
from pipeline.model.sources import Backing, DiskSource

ARCHITECTURES = {"x86_64": "x64", "aarch64": "Arm64"}
# what makes a disk something else than the bytes of its file, or its file somebody else's
UNKNOWN = ("encryption", "mirror", "transient", "shareable")
SOURCE_UNKNOWN = ("encryption", "slices", "reservations", "dataStore")
DEPTH = 32
VOLUME = b"<volume"  # how libvirt begins what it says of one
# hosts of libosinfo's ids (https://osinfo.org)
WINDOWS_HOSTS = ("microsoft.com",)
LINUX_HOSTS = (
    *("almalinux.org", "alpinelinux.org", "archlinux.org", "centos.org", "debian.org"),
    *("fedoraproject.org", "gentoo.org", "opensuse.org", "oracle.com", "redhat.com"),
    *("rockylinux.org", "suse.com", "ubuntu.com"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """A domain. `nvram` is the file of its UEFI variables, `live` whether it ran when described,
    `targets` what the guest is offered the disks as (vda, ...)."""

    name: str
    disks: tuple[DiskSource, ...]
    description: Description
    nvram: Path | None
    live: bool
    targets: tuple[str, ...] = ()


def answer() -> dict[str, Any]:
    """The domains and volumes on standard input: each an XML, in base 64, with where its paths are
    relative to."""
    return {
        "domains": [
            _spelled(base64.b64decode(content), Path(directory))
            for content, directory in json.load(sys.stdin)
        ]
    }


def _spelled(content: bytes, directory: Path) -> dict[str, Any]:
    try:
        if content.lstrip().startswith(VOLUME):
            return {"below": volume_below(content)}
        machine = parse_domain(content, directory)
    except DescriptionInvalid as error:
        return {"invalid": error.message, "hint": error.hint}
    said = machine.description
    return {
        "name": machine.name,
        "disks": [
            {
                "layers": [[str(layer.path), _name(layer.declared)] for layer in disk.layers],
                "sector_size": disk.sector_size,
                "target": target,
            }
            for disk, target in zip(machine.disks, machine.targets, strict=True)
        ],
        "description": [said.generation, said.architecture, said.controller, said.os_type],
        "nvram": None if machine.nvram is None else str(machine.nvram),
        "live": machine.live,
    }


def _name(format: ImageFormat | None) -> str | None:
    return None if format is None else format.value


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
        targets=tuple(_attribute(disk.find("target"), "dev") for disk in disks),
    )


def volume_below(content: bytes) -> tuple[str, str] | None:
    """The file and format below a volume of a storage pool (libvirt, "Storage volume XML"); None
    where there is none."""
    store = parse(content, "the volume's XML").find("backingStore")
    path = "" if store is None else store.findtext("path", "").strip()
    if store is None or not path:
        return None
    return path, _format(_attribute(store.find("format"), "type")).value


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
