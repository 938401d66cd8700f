"""A VM to be: what its description is written from, and who writes it."""

import re
import secrets
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline.errors import InvalidParameter
from pipeline.model import (
    Architecture,
    HostCaching,
    HyperVGeneration,
    ImageVersion,
    OsProfile,
    OsType,
    SignatureTemplate,
    UefiKeySignatures,
)
from pipeline.ports import ReplicaDisk

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DEFAULT_MEMORY = 2048  # MiB
DEFAULT_VCPUS = 2


@dataclass(frozen=True, slots=True)
class Machine:
    """`disks` are those of a replica, named as they will be; `nvram` None is a fresh one.
    `enrolled_keys` says whether its Secure Boot trusts anybody's keys from the start, `signatures`
    whose it trusts besides;
    `host_caching` is by LUN, of the disks of which the version says it."""

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


def check_name(name: str) -> None:
    """A VM's name is also its directory's, and its libvirt domain's."""
    if not _NAME.fullmatch(name):
        raise InvalidParameter(
            f"{name!r} can't be the name of a VM: letters, digits, '.', '_' and '-', at most 64, "
            "the first a letter or digit"
        )


def new_uuid() -> str:
    return str(uuid.uuid4())


def new_mac_address() -> str:
    """In the range of QEMU and KVM, 52:54:00."""
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3))


def enrolled_keys(version: ImageVersion) -> bool:
    """Whether its VMs start with keys in their firmware. Of Microsoft's two templates host firmware
    has both or neither, so either one means both."""
    names = version.security_profile.uefi_settings.signature_template_names
    return SignatureTemplate.NONE not in names
