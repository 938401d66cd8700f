"""VMs to be: what they are described from, and the directories that they are put together in."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline.model import (
    Architecture,
    Forward,
    HostCaching,
    HyperVGeneration,
    OsProfile,
    OsType,
    UefiKeySignatures,
)
from pipeline.ports.zones import ReplicaDisk


@dataclass(frozen=True, slots=True)
class Machine:
    """`disks` are those of a replica, named as they will be; `nvram` None is a fresh one.
    `enrolled_keys` says whether its Secure Boot trusts anybody's keys from the start, `signatures`
    whose it trusts besides;
    `host_caching` is by LUN, of the disks of which the version says it. `network` and `forwards`
    are those of Hardware."""

    name: str
    home: Path
    uuid: str
    mac_address: str
    os_type: OsType
    generation: HyperVGeneration
    architecture: Architecture
    secure_boot: bool
    memory_mib: int
    vcpus: int
    disks: tuple[ReplicaDisk, ...]
    nvram: bytes | None = None
    profile: OsProfile | None = None
    title: str = ""
    network: str = ""
    forwards: tuple[Forward, ...] = ()
    enrolled_keys: bool = True
    signatures: UefiKeySignatures = field(default_factory=UefiKeySignatures)
    host_caching: Mapping[int | None, HostCaching] = field(default_factory=dict)


class VmDirectories(Protocol):
    """Where VMs are put together on this host."""

    def exists(self, home: Path) -> bool:
        """Whether there is something in the place of a machine's directory."""
        ...

    def holds(self, home: Path, uuid: str) -> bool:
        """Whether the machine of that UUID is in its directory."""
        ...

    def staging(self, out: Path) -> AbstractContextManager[Path]:
        """A private directory on the file system of `out` (made if absent); what is left in it at
        the end goes, also after a crash, with the next run."""
        ...

    def describe(self, machines: Sequence[Machine], staged: Sequence[Path]) -> None:
        """Write beside each machine's disks, in `staged`, what it is started with: a libvirt domain
        and a qemu command line, its NVRAM and the seed of its OS profile. Raises
        EnvironmentMissing when the host has no firmware for it."""
        ...

    def place(self, staged: Sequence[Path], homes: Sequence[Path]) -> None:
        """Make the directories durable and give them their names; all or none. Raises Conflict."""
        ...

    def users(self, path: Path) -> str:
        """Who has a disk in use, for people; empty when nobody has."""
        ...

    def discard(self, home: Path) -> None:
        """Remove a machine's directory; nothing to do when it is absent."""
        ...
