"""Vagrant boxes (the `Boxes` port): a compressed tar of the disks, of `metadata.json`, and of a
Vagrantfile with what the provider must know; for VirtualBox of an OVF, too.

Formats: https://developer.hashicorp.com/vagrant/docs/boxes/format and the pages of the providers;
several disks are version 2 of vagrant-libvirt's (https://vagrant-libvirt.github.io/vagrant-libvirt/).
"""

import gzip
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapters.filesystem.outputs import check_target, committed
from adapters.vagrant.ovf import envelope
from adapters.vagrant.vagrantfile import vagrantfile
from pipeline.model import Architecture
from pipeline.ports.boxes import Box, Boxes, Provider

ARCHITECTURES = {Architecture.X64: "amd64", Architecture.ARM64: "arm64"}  # Vagrant's words
LEVEL = 3  # of gzip: twice as fast as its default, for some per cent more
GIB = 1 << 30


class VagrantBoxes:
    def check_target(self, path: Path) -> None:
        check_target(path)

    def write(self, box: Box, path: Path) -> None:
        names = disk_names(box)
        texts = {"metadata.json": _json(metadata(box, names)), "Vagrantfile": vagrantfile(box)}
        if box.provider is Provider.VIRTUALBOX:
            texts["box.ovf"] = envelope(box, names)
        with (
            committed(path, [disk.path for disk in box.disks]) as temporary,
            _tar(temporary) as tar,
        ):
            for name, text in texts.items():
                content = text.encode()
                tar.addfile(_member(name, len(content)), io.BytesIO(content))
            for name, disk in zip(names, box.disks, strict=True):
                with disk.path.open("rb") as file:
                    tar.addfile(_member(name, disk.path.stat().st_size), file)


def disk_names(box: Box) -> tuple[str, ...]:
    """What the disks are called in the box."""
    count = len(box.disks)
    if box.provider is Provider.VIRTUALBOX:
        return tuple(f"box-disk{number:03}.vmdk" for number in range(1, count + 1))
    if count == 1:
        return ("box.img",)
    return tuple(f"box_{number}.img" for number in range(1, count + 1))


def metadata(box: Box, names: tuple[str, ...]) -> dict[str, Any]:
    """What metadata.json says. vagrant-libvirt takes one disk by its first version and several by
    its second; sizes are in GiB, rounded up."""
    found: dict[str, Any] = {
        "provider": box.provider.value,
        "architecture": ARCHITECTURES[box.architecture],
    }
    if box.provider is Provider.VIRTUALBOX:
        return found
    found["format"] = "qcow2"
    found["virtual_size"] = -(-box.disks[0].virtual_size // GIB)
    if len(names) > 1:
        found["disks"] = [{"path": name} for name in names]
    return found


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


@contextmanager
def _tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Without names and times, so that the same content makes the same file."""
    with (
        path.open("xb") as file,
        gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        yield tar


def _member(name: str, length: int) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.size, found.mode = length, 0o644
    return found


_: type[Boxes] = VagrantBoxes
