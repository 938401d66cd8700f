"""Vagrant boxes and OVAs: what is in the archive, as the disks and the description of one machine.

A box's Vagrantfile is code: it is never run, and not read either.

    box, libvirt       metadata.json (provider, format, disks), box.img or the disks it names
    box, VirtualBox    metadata.json (provider), box.ovf, its VMDKs
    OVA                NAME.ovf first, NAME.mf perhaps, the disks that the OVF names
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.sources.archive import Contents, check_manifest, unpack
from adapters.sources.ovf import parse_ovf
from adapters.sources.xml import DescriptionInvalid
from pipeline.errors import UnsafeImage
from pipeline.model.sources import ArchiveForm, DiskSource
from pipeline.ports import ImageFormat
from pipeline.ports.sources import Description, Supply

METADATA = "metadata.json"
DISK_SUFFIXES = (".img", ".qcow2", ".vmdk", ".vhd", ".vdi", ".raw")
# beside them a box may hold these; none of them is used
BOX_TEXTS = {METADATA, "info.json", "Vagrantfile", "include/_Vagrantfile", "vagrant_private_key"}
BOX_FORMATS = {"qcow2": ImageFormat.QCOW2, "raw": ImageFormat.RAW}
ARCHITECTURES = {"amd64": "x64", "x86_64": "x64", "arm64": "Arm64", "aarch64": "Arm64"}
DISK_LIMIT = 64


@dataclass(frozen=True, slots=True)
class _Form:
    texts: Callable[[str], bool]
    read: Callable[[Contents], Supply]


def open_archive(path: Path, form: ArchiveForm, into: Path) -> Supply:
    """Unpack into the private directory `into`, verify, and say what the machine is."""
    known = FORMS[form]
    contents = unpack(path, into, known.texts, lambda name: name.endswith(DISK_SUFFIXES))
    return known.read(contents)


def _box(contents: Contents) -> Supply:
    metadata = _metadata(contents)
    provider = metadata.get("provider")
    architecture = ARCHITECTURES.get(str(metadata.get("architecture")))
    if provider == "libvirt":
        return Supply(_libvirt_disks(metadata, contents), Description(architecture=architecture))
    if provider == "virtualbox":
        return _from_ovf(contents, "box.ovf")
    raise DescriptionInvalid(
        f"the box is for the provider {str(provider)[:99]!a}: libvirt and virtualbox are known"
    )


def _metadata(contents: Contents) -> Mapping[str, Any]:
    try:
        metadata = json.loads(contents.texts[METADATA])
    except KeyError:
        raise DescriptionInvalid(f"the box has no {METADATA}") from None
    except (ValueError, RecursionError):
        raise DescriptionInvalid(f"the box's {METADATA} is not JSON") from None
    if not isinstance(metadata, dict):
        raise DescriptionInvalid(f"the box's {METADATA} is not an object")
    return metadata


def _libvirt_disks(metadata: Mapping[str, Any], contents: Contents) -> tuple[DiskSource, ...]:
    """`disks` lists them, the first being the boot disk; older boxes have box.img alone."""
    listed = metadata.get("disks")
    if listed is None:
        listed = [{"path": "box.img", "format": metadata.get("format", "qcow2")}]
    if not isinstance(listed, list) or not 0 < len(listed) <= DISK_LIMIT:
        raise DescriptionInvalid(f"the box's {METADATA} does not list its disks")
    disks = []
    for number, item in enumerate(listed):
        if not isinstance(item, dict):
            raise DescriptionInvalid(f"the box's {METADATA} does not list its disks")
        declared = str(item.get("format", metadata.get("format", "qcow2")))
        if declared not in BOX_FORMATS:
            raise DescriptionInvalid(f"the box has a disk of the format {declared[:99]!a}")
        path = _member(contents, str(item.get("path")))
        lun = None if number == 0 else number - 1
        disks.append(DiskSource(lun, path, declared=BOX_FORMATS[declared]))
    _all_used(contents, [disk.path for disk in disks])
    return tuple(disks)


def _ova(contents: Contents) -> Supply:
    names = [name for name in contents.texts if name.endswith(".ovf")]
    if len(names) != 1:
        raise DescriptionInvalid(f"the OVA has {len(names)} OVF descriptors, and not one")
    return _from_ovf(contents, names[0])


def _from_ovf(contents: Contents, name: str) -> Supply:
    if name not in contents.texts:
        raise DescriptionInvalid(f"the archive has no {name}")
    manifest = name.removesuffix(".ovf") + ".mf"
    others = [text for text in contents.texts if text.endswith(".mf") and text != manifest]
    if others:
        raise UnsafeImage(f"the archive has a manifest of another descriptor, {others[0]!a}")
    if manifest in contents.texts:
        check_manifest(contents.texts[manifest], contents)
    machine = parse_ovf(contents.texts[name])
    disks = []
    for number, disk in enumerate(machine.disks):
        path = _member(contents, disk.href)
        length = path.stat().st_size
        if disk.file_size is not None and disk.file_size != length:
            raise UnsafeImage(
                f"the OVF says that {disk.href[:99]!a} has {disk.file_size} bytes, and it has "
                f"{length}"
            )
        disks.append(
            DiskSource(None if number == 0 else number - 1, path, virtual_size=disk.capacity)
        )
    _all_used(contents, [disk.path for disk in disks])
    return Supply(tuple(disks), machine.description)


def _member(contents: Contents, name: str) -> Path:
    if name not in contents.files:
        raise DescriptionInvalid(f"the archive describes a disk {name[:99]!a} that is not in it")
    return contents.files[name]


def _all_used(contents: Contents, used: list[Path]) -> None:
    """A disk that nothing describes is not what the user believes to publish."""
    if len(set(used)) != len(used):
        raise DescriptionInvalid("the archive's description uses one file as two disks")
    for name, path in contents.files.items():
        if path not in used:
            raise DescriptionInvalid(f"the archive holds {name!a}, which it does not describe")


FORMS = {
    ArchiveForm.BOX: _Form(lambda name: name in BOX_TEXTS or name.endswith((".ovf", ".mf")), _box),
    ArchiveForm.OVA: _Form(lambda name: name.endswith((".ovf", ".mf", ".cert", ".nvram")), _ova),
}
