"""Vagrant boxes and OVAs: what is in the archive, as the disks and the description of one machine.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from xml.parsers.expat import ExpatError

from adapters.process.sandbox import Sandbox
from adapters.sources.archive import Contents, check_manifest, unpack
from adapters.sources.ovf import OvfDisk, all_of, local, parse_ovf
from adapters.sources.parts import Described, assemble
from adapters.sources.sparse import PIECE, write_sparse
from adapters.sources.streams import compression_of, decompressed
from adapters.sources.wrapped import DISK_SUFFIXES, expand, head_of, wrapping_of
from adapters.sources.xml import DescriptionInvalid, parse
from pipeline.data.extents import SECTOR
from pipeline.errors import InvalidParameter, UnsafeImage
from pipeline.model.images import QEMU_FORMATS
from pipeline.model.sources import ArchiveForm, ArchiveSource, DiskSource
from pipeline.ports import ImageFormat
from pipeline.ports.sources import Description, Supply

METADATA = "metadata.json"
TEXTS = {METADATA, "info.json", "Vagrantfile", "_Vagrantfile", "vagrant_private_key"}
TEXT_SUFFIXES = (".ovf", ".mf", ".cert", ".vmx", ".plist", "diskdescriptor.xml")
BOX_FORMATS = {format.value: format for format in ImageFormat} | QEMU_FORMATS
ARCHITECTURES = {"amd64": "x64", "x86_64": "x64", "arm64": "Arm64", "aarch64": "Arm64"}
DISK_LIMIT = 64
CHUNKS = 1000
BLANK_LIMIT = 64 << 40  # of an empty disk, whose length costs nothing to claim
XML_HEADS = (b"<?xml", b"<Envelope", b"<ovf:Envelope")


class Machine:
    """An unpacked archive, and the disks of its machine as they are taken out of it."""

    def __init__(self, source: ArchiveSource, contents: Contents, into: Path, box: Sandbox) -> None:
        self.source = source
        self.contents = contents
        self._into = into
        self._sandbox = box
        self._used: set[str] = set()
        self._made = 0

    def shown(self, member: str) -> str:
        """What messages call a member: the archive's name, and its own."""
        return f"{self.source.path.name}: {member}"

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

    def disk(self, name: str) -> tuple[Path, ImageFormat | None]:
        """A member as an image file: unpacked and put together where it has to be. What was put
        together is a raw disk, and known to be."""
        path = self.contents.files[name]
        if compression := compression_of(head_of(path)):
            target = self._new()
            with decompressed(path, compression, self._sandbox) as stream:
                expand(stream.read(4096), stream, path.stat().st_size, target)
            path = target
        if wrapping_of(head_of(path)) != "parts":
            return path, None
        target = self._new()
        folder = str(PurePosixPath(name).parent).removeprefix(".")

        def find(part: str) -> Path | None:
            found = self.contents.find(part, folder)
            if found is None or found not in self.contents.files:
                return None
            self._used.add(found)
            return self.contents.files[found]

        assemble([Described(path, self.shown(name), find)], target)
        return target, ImageFormat.RAW

    def joined(self, disk: OvfDisk, folder: str) -> str:
        """A file that the archive holds in chunks (DSP0243, 7.1), as one member more."""
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
        target = self._new()
        write_sparse(_pieces([self.contents.files[name] for name in chunks]), sum(lengths), target)
        for name in chunks:
            self.contents.files[name].unlink()
            self._used.add(name)
        name = f"{folder}/{disk.href}" if folder else disk.href
        self.contents.files[name] = target
        return name

    def blank(self, capacity: int) -> Path:
        """An empty disk."""
        size = -(-capacity // SECTOR) * SECTOR
        if size > BLANK_LIMIT:
            raise DescriptionInvalid(f"the OVF has an empty disk of {capacity} bytes")
        target = self._new()
        write_sparse((), size, target)
        return target

    def refuse_others(self, described: Sequence[str] = ()) -> None:
        """A disk that nothing describes is not what the user believes to publish."""
        for name in self.contents.files:
            known = name in self._used or name in described or name.startswith("include/")
            if not known and name.lower().endswith(DISK_SUFFIXES):
                raise DescriptionInvalid(f"the archive holds {name!a}, which it does not describe")

    def _new(self) -> Path:
        self._made += 1
        return self._into / f"made-{self._made}"


def _pieces(files: Sequence[Path]) -> Iterator[tuple[int, bytes]]:
    position = 0
    for path in files:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                yield position, piece
                position += len(piece)


def open_archive(source: ArchiveSource, path: Path, into: Path, sandbox: Sandbox) -> Supply:
    """Unpack into the private directory `into`, verify, and say what the machine is. `path` is
    where the archive is read from."""
    shown = str(source.path)
    head = head_of(path)
    if head.lstrip(b"\xef\xbb\xbf \r\n").startswith(XML_HEADS):
        raise InvalidParameter(
            f"{shown} is an OVF descriptor alone, without its disks",
            hint="pack it with its disks: tar -cf NAME.ova NAME.ovf NAME.mf NAME-disk1.vmdk",
        )
    try:
        machine = Machine(source, unpack(path, into, _is_text, sandbox), into, sandbox)
        return FORMS[source.form](machine)
    except UnsafeImage as error:
        raise UnsafeImage(f"{shown!a} is refused: {error.message}", hint=error.hint) from None


def _is_text(name: str) -> bool:
    return PurePosixPath(name).name in TEXTS or name.lower().endswith(TEXT_SUFFIXES)


def _supply(
    machine: Machine,
    members: Sequence[str],
    description: Description,
    formats: Sequence[ImageFormat] = (),
) -> Supply:
    """The first member is the OS disk."""
    disks = []
    for number, name in enumerate(members):
        path, made = machine.disk(name)
        declared = made or (formats[number] if formats else None)
        lun = None if number == 0 else number - 1
        disks.append(DiskSource(lun, path, declared=declared, name=machine.shown(name)))
    machine.refuse_others()
    return Supply(tuple(disks), description, lasting=False)


# --- boxes ---------------------------------------------------------------------------------------


def _box(machine: Machine) -> Supply:
    for option, value in (
        ("--machine", machine.source.machine),
        ("--configuration", machine.source.configuration),
    ):
        if value is not None:
            raise InvalidParameter(f"{option} goes with an OVA, and not with a box")
    metadata = _metadata(machine.contents)
    provider = str(metadata.get("provider"))
    architecture = ARCHITECTURES.get(str(metadata.get("architecture")))
    if provider not in PROVIDERS:
        raise DescriptionInvalid(
            f"the box is for the provider {provider[:99]!a}: known are {', '.join(PROVIDERS)}"
        )
    return PROVIDERS[provider](machine, metadata, architecture)


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


def _libvirt(machine: Machine, metadata: Mapping[str, Any], architecture: str | None) -> Supply:
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
        names.append(machine.member(str(item.get("path"))))
        formats.append(BOX_FORMATS[declared])
    return _supply(machine, names, Description(architecture=architecture), formats)


def _virtualbox(machine: Machine, metadata: Mapping[str, Any], architecture: str | None) -> Supply:
    return _from_ovf(machine, "box.ovf")


# scsi0:0.fileName = "disk.vmdk"
_VMX_LINE = re.compile(r'\s*([A-Za-z0-9_.:-]+)\s*=\s*"([^"]*)"\s*')
_VMX_DISK = re.compile(r"(nvme|scsi|sata|ide)(\d+):(\d+)\.filename")


def _vmware(machine: Machine, metadata: Mapping[str, Any], architecture: str | None) -> Supply:
    """The configuration says which files are disks; controllers in the order that VMware boots
    from them."""
    names = [name for name in machine.contents.texts if name.lower().endswith(".vmx")]
    if len(names) != 1:
        raise DescriptionInvalid(
            f"the box for the provider VMware has {len(names)} files NAME.vmx, and not one"
        )
    text = machine.contents.texts[names[0]].decode("utf-8", "replace")
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
    members = [machine.member(value, folder) for _, value, _ in found]
    return _supply(machine, members, description)


def _hyperv(machine: Machine, metadata: Mapping[str, Any], architecture: str | None) -> Supply:
    """Its configuration is binary; so only a machine of one disk is certain."""
    suffixes = (".vhdx", ".vhd", ".avhdx", ".avhd")
    found = [name for name in machine.contents.files if name.lower().endswith(suffixes)]
    if len(found) != 1:
        shown = ", ".join(ascii(name[:99]) for name in found[:DISK_LIMIT]) or "none"
        raise DescriptionInvalid(
            f"the box for the provider hyperv has {len(found)} disks, and nothing that says which "
            f"the machine boots from: {shown}",
            hint="unpack it, and name each: --os-disk FILE --data-disk LUN=FILE",
        )
    return _supply(machine, [machine.member(found[0])], Description(architecture=architecture))


def _utm(machine: Machine, metadata: Mapping[str, Any], architecture: str | None) -> Supply:
    """config.plist lists the drives; their images lie in Data (Images, in older versions)."""
    names = [name for name in machine.contents.texts if name.endswith("config.plist")]
    if len(names) != 1:
        raise DescriptionInvalid(
            f"the box for the provider utm has {len(names)} files config.plist, and not one"
        )
    try:
        config = plistlib.loads(machine.contents.texts[names[0]], fmt=plistlib.FMT_XML)
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
        place = next((one for one in places if machine.contents.find(image, one)), places[0])
        members.append(machine.member(image, place))
    description = Description(architecture=architecture or ARCHITECTURES.get(system))
    return _supply(machine, members, description)


def _parallels(machine: Machine, metadata: Mapping[str, Any], architecture: str | None) -> Supply:
    """A disk is a directory with a descriptor; a plain image is a raw disk, an expanding one is in
    Parallels' own format."""
    names = [name for name in machine.contents.texts if name.endswith("DiskDescriptor.xml")]
    if len(names) != 1:
        raise DescriptionInvalid(
            f"the box for the provider parallels has {len(names)} disks, and not one"
        )
    root = parse(machine.contents.texts[names[0]], "diskdescriptor.xml")
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
    member = machine.member(images[0].get("File", ""), folder)
    return _supply(machine, [member], Description(architecture=architecture), [ImageFormat.RAW])


Provider = Callable[[Machine, Mapping[str, Any], str | None], Supply]
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


def _ova(machine: Machine) -> Supply:
    names = [name for name in machine.contents.texts if name.lower().endswith(".ovf")]
    if len(names) != 1:
        raise DescriptionInvalid(f"the OVA has {len(names)} OVF descriptors, and not one")
    return _from_ovf(machine, names[0])


def _from_ovf(machine: Machine, name: str) -> Supply:
    contents = machine.contents
    if name not in contents.texts:
        raise DescriptionInvalid(f"the archive has no {name}")
    manifests = [text for text in contents.texts if text.lower().endswith(".mf")]
    listed = {member for manifest in manifests for member in check_manifest(manifest, contents)}
    stem = PurePosixPath(name).with_suffix("")
    if any(PurePosixPath(text).with_suffix("") == stem for text in manifests):
        _covered([name], listed)
    source = machine.source
    found = parse_ovf(contents.texts[name], source.machine, source.configuration)
    folder = str(PurePosixPath(name).parent).removeprefix(".")
    if not found.disks[0].href:
        raise DescriptionInvalid("the OVF's OS disk is without a file: an empty one")
    disks = []
    for number, disk in enumerate(found.disks):
        lun = None if number == 0 else number - 1
        if not disk.href:
            path, shown = machine.blank(disk.capacity or 0), machine.shown(f"empty disk {number}")
            disks.append(DiskSource(lun, path, declared=ImageFormat.RAW, name=shown))
            continue
        if manifests:
            _covered(_stored(machine, disk, folder), listed)
        if disk.chunk:
            machine.joined(disk, folder)
        member = machine.member(disk.href, folder)
        _check_length(disk, contents.files[member])
        path, made = machine.disk(member)
        shown = machine.shown(member)
        disks.append(DiskSource(lun, path, declared=made, virtual_size=disk.capacity, name=shown))
    described = [contents.find(file, folder) for file in found.files]
    machine.refuse_others([file for file in described if file])
    return Supply(tuple(disks), found.description, lasting=False)


def _stored(machine: Machine, disk: OvfDisk, folder: str) -> list[str]:
    """The members that hold a disk."""
    if not disk.chunk:
        found = machine.contents.find(disk.href, folder)
        return [found] if found else []
    start = f"{folder}/{disk.href}." if folder else f"{disk.href}."
    return [name for name in machine.contents.files if name.startswith(start)]


def _covered(names: Sequence[str], listed: set[str]) -> None:
    for name in names:
        if name not in listed:
            raise UnsafeImage(f"the archive's manifest does not list {name!a}")


def _check_length(disk: OvfDisk, path: Path) -> None:
    length = path.stat().st_size
    if disk.file_size is not None and disk.file_size != length:
        raise UnsafeImage(
            f"the OVF says that {disk.href[:99]!a} has {disk.file_size} bytes, and it has {length}"
        )
    if disk.compression and compression_of(head_of(path)) != disk.compression:
        raise UnsafeImage(
            f"the OVF says that {disk.href[:99]!a} is compressed ({disk.compression}), and it is "
            "not"
        )


FORMS: Mapping[ArchiveForm, Callable[[Machine], Supply]] = {
    ArchiveForm.BOX: _box,
    ArchiveForm.OVA: _ova,
}
