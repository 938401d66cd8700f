"""Vagrant boxes: archives of a machine's disks with what a provider of Vagrant has to know."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from pipeline.model import Architecture, OsType


class Provider(Enum):
    """What runs the machines; the values are Vagrant's names. The plugin vagrant-qemu takes boxes
    of libvirt's, and no others."""

    LIBVIRT = "libvirt"
    VIRTUALBOX = "virtualbox"


@dataclass(frozen=True, slots=True)
class BoxDisk:
    """One file of the provider's format, and the length of its disk in bytes."""

    path: Path
    virtual_size: int


@dataclass(frozen=True, slots=True)
class Box:
    """A machine; the first of its disks is the OS disk. `memory_mib` and `vcpus` are 0 where
    nothing is recommended. `seed` tells boxes of different content apart."""

    provider: Provider
    disks: tuple[BoxDisk, ...]
    os_type: OsType
    architecture: Architecture
    uefi: bool
    memory_mib: int = 0
    vcpus: int = 0
    seed: str = ""


class Boxes(Protocol):
    def check_target(self, path: Path) -> None:
        """Raise Conflict or NotFound when no file can be made at `path`."""
        ...

    def write(self, box: Box, path: Path) -> None:
        """Pack a box, complete and durable, or nothing. Raises Conflict if `path` exists."""
        ...
