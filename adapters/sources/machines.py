"""Vagrant boxes and OVAs: what is in the archive, as the disks and the description of one machine;
in the sandbox (`adapters.sources.unpacker`).

A box's Vagrantfile is code: it is never run, and not read either. What describes the machine says
which members are its disks; the others, licences and keys and CDs, are not needed, but every one
that a manifest lists has to be what the manifest says.

    box, libvirt       metadata.json (provider, format, disks), box.img or the disks it names
    box, VirtualBox    box.ovf, its VMDKs
    box, VMware        NAME.vmx, its VMDKs, whole or in parts
    box, Hyper-V       Virtual Hard Disks/NAME.vhdx
    box, UTM           box.utm/config.plist, the disks it names
    box, Parallels     NAME.hdd/DiskDescriptor.xml, a plain image
    OVA                NAME.ovf, manifests perhaps, the disks that the OVF names
"""

import json
import plistlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.parsers.expat import ExpatError

from adapters.sources.archive import Contents, check_manifest
from adapters.sources.compression import compression_of, head_of
from adapters.sources.ovf import OvfDisk, all_of, local, parse_ovf
from adapters.sources.xml import parse
from pipeline.errors import DescriptionInvalid, InvalidParameter, UnsafeImage
from pipeline.model.descriptions import Description
from pipeline.model.images import QEMU_FORMATS, ImageFormat
from pipeline.model.sources import ArchiveForm

METADATA = "metadata.json"
TEXTS = {METADATA, "info.json", "Vagrantfile", "_Vagrantfile", "vagrant_private_key"}
TEXT_SUFFIXES = (".ovf", ".mf", ".cert", ".vmx", ".plist", "diskdescriptor.xml")
BOX_FORMATS = {format.value: format for format in ImageFormat} | QEMU_FORMATS
ARCHITECTURES = {"amd64": "x64", "x86_64": "x64", "arm64": "Arm64", "aarch64": "Arm64"}
DISK_LIMIT = 64
CHUNKS = 1000


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of the machine: what messages call it, and the members that are its file, one after
    the other; one without any is empty."""

    name: str
    members: tuple[str, ...] = ()
    declared: ImageFormat | None = None
    capacity: int | None = None  # the length that it has to have


@dataclass(frozen=True, slots=True)
class Plan:
    """What a description says: the OS disk first. `described` are all files that it names."""

    disks: tuple[Disk, ...]
    description: Description
    described: tuple[str, ...] = ()


class Archive:
    """What was unpacked, and what is asked of it: in an OVA one of its machines, in one of its
    configurations."""

    def __init__(
        self, contents: Contents, machine: str | None = None, configuration: str | None = None
    ) -> None:
        self.contents = contents
        self.machine = machine
        self.configuration = configuration
        self._used: set[str] = set()

    def member(self, reference: str, folder: str = "") -> str:
        """The file that a description in `folder` means. Each makes one disk."""
        name = self.contents.find(reference, folder)
        if name is None or name not in self.contents.files:
            raise DescriptionInvalid(
                f"the archive describes a disk {reference[:99]!a} that is not in it"
            )
        if name in self._used:
            raise DescriptionInvalid("the archive's description uses one file as two disks")
        self._used.add(name)
        return name

    def chunks(self, disk: OvfDisk, folder: str) -> tuple[str, ...]:
        """The members that hold a file in chunks (DSP0243, 7.1)."""
        chunks: list[str] = []
        while len(chunks) < CHUNKS:
            found = self.contents.find(f"{disk.href}.{len(chunks):09d}", folder)
            if found is None or found not in self.contents.files:
                break
            chunks.append(found)
        if not chunks:
            raise DescriptionInvalid(
                f"the OVF says that {disk.href[:99]!a} is in chunks, and there are none "
                f"({disk.href[:99]}.000000000, ...)"
            )
        lengths = [self.contents.files[name].stat().st_size for name in chunks]
        if any(length != disk.chunk for length in lengths[:-1]):
            raise UnsafeImage(f"the chunks of {disk.href[:99]!a} are not of the length they say")
        return tuple(self.member(name) for name in chunks)


def is_text(name: str) -> bool:
    """Whether a member describes the machine, or is for people."""
    return PurePosixPath(name).name in TEXTS or name.lower().endswith(TEXT_SUFFIXES)


def plan(form: ArchiveForm, archive: Archive) -> Plan:
    """What an archive says its machine is. Raises DescriptionInvalid, and UnsafeImage for what is
    not as the archive says."""
    return FORMS[form](archive)


def _plan(
    members: Sequence[str], description: Description, formats: Sequence[ImageFormat] = ()
) -> Plan:
    declared: Sequence[ImageFormat | None] = formats or [None] * len(members)
    disks = (Disk(name, (name,), kind) for name, kind in zip(members, declared, strict=True))
    return Plan(tuple(disks), description)


# --- boxes ---------------------------------------------------------------------------------------


def _box(archive: Archive) -> Plan:
    for option, value in (
        ("--machine", archive.machine),
        ("--configuration", archive.configuration),
    ):
        if value is not None:
            raise InvalidParameter(f"{option} goes with an OVA, and not with a box")
    metadata = _metadata(archive.contents)
    provider = str(metadata.get("provider"))
    architecture = ARCHITECTURES.get(str(metadata.get("architecture")))
    if provider not in PROVIDERS:
        raise DescriptionInvalid(
            f"the box is for the provider {provider[:99]!a}: known are {', '.join(PROVIDERS)}"
        )
    return PROVIDERS[provider](archive, metadata, architecture)


def _metadata(contents: Contents) -> Mapping[str, Any]:
    try:
        metadata = json.loads(contents.texts[METADATA])
    except KeyError:
        if "box.ovf" in contents.texts:  # of Vagrant's first boxes, which were all VirtualBox's
            return {"provider": "virtualbox"}
        raise DescriptionInvalid(f"the box has no {METADATA}") from None
    except (ValueError, RecursionError):
        raise DescriptionInvalid(f"the box's {METADATA} is not JSON") from None
    if not isinstance(metadata, dict):
        raise DescriptionInvalid(f"the box's {METADATA} is not an object")
    return metadata


def _libvirt(archive: Archive, metadata: Mapping[str, Any], architecture: str | None) -> Plan:
    """`disks` lists them, the first being the boot disk; older boxes have box.img alone."""
    listed = metadata.get("disks")
    if listed is None:
        listed = [{"path": "box.img", "format": metadata.get("format", "qcow2")}]
    if not isinstance(listed, list) or not 0 < len(listed) <= DISK_LIMIT:
        raise DescriptionInvalid(f"the box's {METADATA} does not list its disks")
    names, formats = [], []
    for item in listed:
        if not isinstance(item, dict):
            raise DescriptionInvalid(f"the box's {METADATA} does not list its disks")
        declared = str(item.get("format", metadata.get("format", "qcow2")))
        if declared not in BOX_FORMATS:
            raise DescriptionInvalid(f"the box has a disk of the format {declared[:99]!a}")
        names.append(archive.member(str(item.get("path"))))
        formats.append(BOX_FORMATS[declared])
    return _plan(names, Description(architecture=architecture), formats)


def _virtualbox(archive: Archive, metadata: Mapping[str, Any], architecture: str | None) -> Plan:
    return _from_ovf(archive, "box.ovf")


# scsi0:0.fileName = "disk.vmdk"
_VMX_LINE = re.compile(r'\s*([A-Za-z0-9_.:-]+)\s*=\s*"([^"]*)"\s*')
_VMX_DISK = re.compile(r"(nvme|scsi|sata|ide)(\d+):(\d+)\.filename")


def _vmware(archive: Archive, metadata: Mapping[str, Any], architecture: str | None) -> Plan:
    """The configuration says which files are disks; controllers in the order that VMware boots
    from them."""
    names = [name for name in archive.contents.texts if name.lower().endswith(".vmx")]
    if len(names) != 1:
        raise DescriptionInvalid(
            f"the box for the provider VMware has {len(names)} files NAME.vmx, and not one"
        )
    text = archive.contents.texts[names[0]].decode("utf-8", "replace")
    matches = (_VMX_LINE.fullmatch(line) for line in text.splitlines())
    settings = {match[1].lower(): match[2] for match in matches if match}
    found = []
    for key, value in settings.items():
        match = _VMX_DISK.fullmatch(key)
        if match is None or not value.lower().endswith(".vmdk"):
            continue
        device = key.removesuffix(".filename")
        if settings.get(f"{device}.present", "TRUE").upper() != "TRUE":
            continue
        if "cdrom" in settings.get(f"{device}.devicetype", "").lower():
            continue
        place = (("scsi", "nvme", "sata", "ide").index(match[1]), int(match[2]), int(match[3]))
        found.append((place, value, match[1]))
    if not found:
        raise DescriptionInvalid(f"the box's {names[0]!a} names no disk (scsi0:0.fileName, ...)")
    found.sort()
    folder = str(PurePosixPath(names[0]).parent).removeprefix(".")
    system = settings.get("guestos", "").lower()
    description = Description(
        generation="V2" if settings.get("firmware", "").lower() == "efi" else "V1",
        architecture=architecture or ("Arm64" if system.startswith("arm-") else None),
        controller="NVMe" if found[0][2] == "nvme" else "SCSI",
        os_type="Windows" if system.startswith("win") else None,
    )
    members = [archive.member(value, folder) for _, value, _ in found]
    return _plan(members, description)


def _hyperv(archive: Archive, metadata: Mapping[str, Any], architecture: str | None) -> Plan:
    """Its configuration is binary; so only a machine of one disk is certain."""
    suffixes = (".vhdx", ".vhd", ".avhdx", ".avhd")
    found = [name for name in archive.contents.files if name.lower().endswith(suffixes)]
    if len(found) != 1:
        shown = ", ".join(ascii(name[:99]) for name in found[:DISK_LIMIT]) or "none"
        raise DescriptionInvalid(
            f"the box for the provider hyperv has {len(found)} disks, and nothing that says which "
            f"the machine boots from: {shown}",
            hint="unpack it, and name each: --os-disk FILE --data-disk LUN=FILE",
        )
    return _plan([archive.member(found[0])], Description(architecture=architecture))


def _utm(archive: Archive, metadata: Mapping[str, Any], architecture: str | None) -> Plan:
    """config.plist lists the drives; their images lie in Data (Images, in older versions)."""
    names = [name for name in archive.contents.texts if name.endswith("config.plist")]
    if len(names) != 1:
        raise DescriptionInvalid(
            f"the box for the provider utm has {len(names)} files config.plist, and not one"
        )
    try:
        config = plistlib.loads(archive.contents.texts[names[0]], fmt=plistlib.FMT_XML)
        drives = [
            drive
            for drive in config.get("Drive", config.get("Drives", ()))
            if drive.get("ImageType", "Disk").lower() == "disk" and drive.get("ImageName")
        ]
        images = [str(drive["ImageName"]) for drive in drives]
        system = str(config.get("System", {}).get("Architecture", ""))
    except (plistlib.InvalidFileException, ExpatError, ValueError, AttributeError, TypeError) as e:
        raise DescriptionInvalid(
            f"the box's {names[0]!a} is no property list of UTM: {str(e)[:99]!a}"
        ) from None
    if not 0 < len(images) <= DISK_LIMIT:
        raise DescriptionInvalid(f"the box's {names[0]!a} names no disk")
    folder = str(PurePosixPath(names[0]).parent).removeprefix(".")
    members = []
    for image in images:
        places = [f"{folder}/{place}" if folder else place for place in ("Data", "Images")]
        place = next((one for one in places if archive.contents.find(image, one)), places[0])
        members.append(archive.member(image, place))
    description = Description(architecture=architecture or ARCHITECTURES.get(system))
    return _plan(members, description)


def _parallels(archive: Archive, metadata: Mapping[str, Any], architecture: str | None) -> Plan:
    """A disk is a directory with a descriptor; a plain image is a raw disk, an expanding one is in
    Parallels' own format."""
    names = [name for name in archive.contents.texts if name.endswith("DiskDescriptor.xml")]
    if len(names) != 1:
        raise DescriptionInvalid(
            f"the box for the provider parallels has {len(names)} disks, and not one"
        )
    root = parse(archive.contents.texts[names[0]], "diskdescriptor.xml")
    images = [
        {local(child): (child.text or "").strip() for child in image}
        for image in all_of(root, "Image")
    ]
    if [image.get("Type") for image in images] != ["Plain"]:
        raise DescriptionInvalid(
            f"the disk of {names[0]!a} is in Parallels' own format, or has snapshots, which is "
            "none of galleria's",
            hint="unpack the box, and convert the image: qemu-img convert -f parallels -O qcow2 "
            "NAME.hds disk.qcow2",
        )
    folder = str(PurePosixPath(names[0]).parent).removeprefix(".")
    member = archive.member(images[0].get("File", ""), folder)
    return _plan([member], Description(architecture=architecture), [ImageFormat.RAW])


Provider = Callable[[Archive, Mapping[str, Any], str | None], Plan]
PROVIDERS: Mapping[str, Provider] = {
    "libvirt": _libvirt,
    "qemu": _libvirt,
    "virtualbox": _virtualbox,
    "vmware_desktop": _vmware,
    "vmware_fusion": _vmware,
    "vmware_workstation": _vmware,
    "vmware": _vmware,
    "hyperv": _hyperv,
    "utm": _utm,
    "parallels": _parallels,
}


# --- OVF -----------------------------------------------------------------------------------------


def _ova(archive: Archive) -> Plan:
    names = [name for name in archive.contents.texts if name.lower().endswith(".ovf")]
    if len(names) != 1:
        raise DescriptionInvalid(f"the OVA has {len(names)} OVF descriptors, and not one")
    return _from_ovf(archive, names[0])


def _from_ovf(archive: Archive, name: str) -> Plan:
    contents = archive.contents
    if name not in contents.texts:
        raise DescriptionInvalid(f"the archive has no {name}")
    manifests = [text for text in contents.texts if text.lower().endswith(".mf")]
    listed = {member for manifest in manifests for member in check_manifest(manifest, contents)}
    stem = PurePosixPath(name).with_suffix("")
    if any(PurePosixPath(text).with_suffix("") == stem for text in manifests):
        _covered([name], listed)
    found = parse_ovf(contents.texts[name], archive.machine, archive.configuration)
    folder = str(PurePosixPath(name).parent).removeprefix(".")
    if not found.disks[0].href:
        raise DescriptionInvalid("the OVF's OS disk is without a file: an empty one")
    disks = []
    for number, disk in enumerate(found.disks):
        if not disk.href:
            disks.append(Disk(f"empty disk {number}", capacity=disk.capacity or 0))
            continue
        if manifests:
            _covered(_stored(contents, disk, folder), listed)
        if disk.chunk:
            members = archive.chunks(disk, folder)
            shown = f"{folder}/{disk.href}" if folder else disk.href
        else:
            members = (archive.member(disk.href, folder),)
            shown = members[0]
        _check_length(disk, [contents.files[member] for member in members])
        disks.append(Disk(shown, members, capacity=disk.capacity))
    described = (contents.find(file, folder) for file in found.files)
    return Plan(tuple(disks), found.description, tuple(file for file in described if file))


def _stored(contents: Contents, disk: OvfDisk, folder: str) -> list[str]:
    """The members that hold a disk."""
    if not disk.chunk:
        found = contents.find(disk.href, folder)
        return [found] if found else []
    start = f"{folder}/{disk.href}." if folder else f"{disk.href}."
    return [name for name in contents.files if name.startswith(start)]


def _covered(names: Sequence[str], listed: set[str]) -> None:
    for name in names:
        if name not in listed:
            raise UnsafeImage(f"the archive's manifest does not list {name!a}")


def _check_length(disk: OvfDisk, files: Sequence[Path]) -> None:
    length = sum(path.stat().st_size for path in files)
    if disk.file_size is not None and disk.file_size != length:
        raise UnsafeImage(
            f"the OVF says that {disk.href[:99]!a} has {disk.file_size} bytes, and it has {length}"
        )
    if disk.compression and compression_of(head_of(files[0])) != disk.compression:
        raise UnsafeImage(
            f"the OVF says that {disk.href[:99]!a} is compressed ({disk.compression}), and it is "
            "not"
        )


FORMS: Mapping[ArchiveForm, Callable[[Archive], Plan]] = {
    ArchiveForm.BOX: _box,
    ArchiveForm.OVA: _ova,
}
