"""The kinds of source that a version is made from."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import ClassVar

from pipeline.model.images import ImageFormat


class SourceKind(Enum):
    """Azure's kinds: what rights a publisher needs on the source depends on it."""

    VIRTUAL_MACHINE = "virtualMachine"
    DISK = "disk"
    SNAPSHOT = "snapshot"
    VHD = "vhd"
    MANAGED_IMAGE = "managedImage"
    VERSION = "version"


@dataclass(frozen=True, slots=True)
class Backing:
    """A file that a layer depends on, and the format that it was declared to have."""

    path: Path
    declared: ImageFormat | None = None


@dataclass(frozen=True, slots=True)
class DiskSource:
    """A disk-image file. `lun` None is the OS disk; `snapshot` a qcow2 internal snapshot of it.

    `backing` names what lies below the file, the bottom last: a header is never followed.
    A description may tell more: `sector_size` is the logical sector size that the disk was used
    with, `virtual_size` the length that it has to have. `name` is what people know the file by
    where galleria made it: out of an archive, say. The parts of a VMDK in several files lie in the
    directory `extents_from`, else beside its descriptor.
    """

    lun: int | None
    path: Path
    internal_snapshot: str | None = None
    declared: ImageFormat | None = None
    backing: tuple[Backing, ...] = ()
    sector_size: int = 512
    virtual_size: int | None = None
    name: str = ""
    extents_from: Path | None = None

    kind: ClassVar[SourceKind] = SourceKind.VHD

    @property
    def shown(self) -> str:
        """What messages call it."""
        return self.name or str(self.path)

    @property
    def layers(self) -> tuple[Backing, ...]:
        """Every file of the disk, top first."""
        return (Backing(self.path, self.declared), *self.backing)


@dataclass(frozen=True, slots=True)
class UrlSource:
    """A disk image behind http(s), with the SHA-256 (hexadecimal) that it has to have."""

    lun: int | None
    url: str
    sha256: str

    kind: ClassVar[SourceKind] = SourceKind.VHD


@dataclass(frozen=True, slots=True)
class VmSource:
    """A virtual machine: a file of libvirt's domain XML, or the name of a domain. `backing` names,
    by LUN, what lies below its disks where the description does not: the bottom last."""

    name: str
    backing: tuple[tuple[int | None, tuple[Path, ...]], ...] = ()

    kind: ClassVar[SourceKind] = SourceKind.VIRTUAL_MACHINE


class ArchiveForm(Enum):
    BOX = "box"
    OVA = "ova"


@dataclass(frozen=True, slots=True)
class CatalogBox:
    """A box that a catalog of Vagrant's offers behind http(s): of the newest version, and for the
    only provider, where none is named."""

    url: str
    version: str = ""
    provider: str = ""


@dataclass(frozen=True, slots=True)
class ArchiveSource:
    """A VM in one archive: a Vagrant box, which may be the directory that it was unpacked to, or an
    OVA. A box that is `remote` is downloaded first; `path` is only what it is called. Of an OVA
    with several machines, `machine` is the id or name of the one that is meant; `configuration` is
    a deployment option's id (None: the OVA's default)."""

    path: Path
    form: ArchiveForm
    machine: str | None = None
    configuration: str | None = None
    remote: UrlSource | CatalogBox | None = None

    kind: ClassVar[SourceKind] = SourceKind.VIRTUAL_MACHINE

    @property
    def shown(self) -> str:
        """What messages call it."""
        return str(self.path) if self.remote is None else public_url(self.remote.url)


@dataclass(frozen=True, slots=True)
class StoredDiskSource:
    """One of galleria's own disks, by its ARM id."""

    lun: int | None
    id: str

    kind: ClassVar[SourceKind] = SourceKind.DISK


@dataclass(frozen=True, slots=True)
class SnapshotSource:
    """A snapshot, by its ARM id."""

    lun: int | None
    id: str

    kind: ClassVar[SourceKind] = SourceKind.SNAPSHOT


@dataclass(frozen=True, slots=True)
class ManagedImageSource:
    """A managed image with all its disks, by its ARM id."""

    id: str

    kind: ClassVar[SourceKind] = SourceKind.MANAGED_IMAGE


@dataclass(frozen=True, slots=True)
class VersionSource:
    """A version of this or another gallery, by whatever names one: `g/i/v`, an ARM id, a shared or
    a community id."""

    reference: str

    kind: ClassVar[SourceKind] = SourceKind.VERSION


@dataclass(frozen=True, slots=True)
class QemuSource:
    """A running QEMU, by its QMP socket; `agent` is the socket of its guest agent."""

    socket: Path
    agent: Path | None = None

    kind: ClassVar[SourceKind] = SourceKind.VIRTUAL_MACHINE


# one disk each: may be mixed in one version
DiskKinds = DiskSource | UrlSource | StoredDiskSource | SnapshotSource


# all disks of a version: stands alone
WholeKinds = VmSource | ArchiveSource | ManagedImageSource | VersionSource | QemuSource


AnySource = DiskKinds | WholeKinds


def public_url(url: str) -> str:
    """A URL as it may be shown and kept: the query may hold a signature that is as good as a
    password."""
    return url.split("?")[0].split("#")[0][:200]
