"""What a version is made from: each kind of source, and the one thing that they all come down to.

    a kind of source          is opened into
    DiskSource                itself: a file, and the files below it as they were declared
    UrlSource                 one DiskSource: the downloaded file
    VmSource, ArchiveSource   a DiskSource for every disk, and what the description says of the VM
    QemuSource                a DiskSource for every disk, captured while the machine runs
    StoredDiskSource          a DiskSource: the files of one of galleria's own disks
    SnapshotSource, ManagedImageSource, VersionSource
                              a DiskSource for every disk, and the digests of what a zone holds

A kind is a frozen record of what the user named. `Sources` opens it; nothing of it is trusted
before `ingest` has inspected every layer of every disk.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pipeline.errors import InvalidParameter
from pipeline.gallery import rules
from pipeline.gallery.model import HostCaching, Origin, PurchasePlan
from pipeline.machines import MachineFacts
from pipeline.ports import ImageFormat


class SourceKind(Enum):
    """Azure's kinds: what rights a publisher needs on the source depends on it."""

    VIRTUAL_MACHINE = "virtualMachine"
    DISK = "disk"
    SNAPSHOT = "snapshot"
    VHD = "vhd"
    MANAGED_IMAGE = "managedImage"
    VERSION = "version"


# --- the kinds -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Backing:
    """A file that a layer leans on, and the format that it was declared to have."""

    path: Path
    declared: ImageFormat | None = None


@dataclass(frozen=True, slots=True)
class DiskSource:
    """A disk-image file. `lun` None is the OS disk; `snapshot` a qcow2 internal snapshot of it.

    `backing` names what lies below the file, the bottom last: a header is never followed.
    A description may tell more: `sector_size` is the logical sector size that the disk was used
    with, `virtual_size` the length that it has to have.
    """

    lun: int | None
    path: Path
    snapshot: str | None = None
    declared: ImageFormat | None = None
    backing: tuple[Backing, ...] = ()
    sector_size: int = 512
    virtual_size: int | None = None

    kind: ClassVar[SourceKind] = SourceKind.VHD

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
    """A virtual machine: a file of libvirt's domain XML, or the name of a domain."""

    name: str

    kind: ClassVar[SourceKind] = SourceKind.VIRTUAL_MACHINE


class ArchiveForm(Enum):
    BOX = "box"
    OVA = "ova"


@dataclass(frozen=True, slots=True)
class ArchiveSource:
    """A VM in one archive: a Vagrant box or an OVA."""

    path: Path
    form: ArchiveForm

    kind: ClassVar[SourceKind] = SourceKind.VIRTUAL_MACHINE


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


# --- what they come down to ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Description:
    """What a VM's description says, in Azure's words; None where it does not say.

    `controller` is SCSI or NVMe. `nvram` is the VM's UEFI variable store; `purchase_plan` that of
    the marketplace image that it comes from, however many copies ago; `host_caching` is by LUN.
    """

    generation: str | None = None  # V1, V2
    architecture: str | None = None  # x64, Arm64
    controller: str | None = None
    os_type: str | None = None  # Linux, Windows
    nvram: bytes | None = None
    accelerated_network: bool | None = None
    purchase_plan: PurchasePlan | None = None
    host_caching: Mapping[int | None, HostCaching] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Supply:
    """The disks of a source. They are there as long as it is open.

    `origins` says, by LUN, what disks are copies of; one with a digest is a base of a zone, and
    need not be read again. `generalized`: all of it is known to be; `report` is what was stored of
    its guest (pipeline.guest.report), if all of it was stored together.
    """

    disks: tuple[DiskSource, ...]
    description: Description = Description()
    origins: Mapping[int | None, Origin] = field(default_factory=dict)
    generalized: bool = False
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stored(self) -> dict[int | None, str]:
        """The digests by LUN, when zones hold every disk; else nothing."""
        found = {lun: origin.digest for lun, origin in self.origins.items() if origin.digest}
        return found if len(found) == len(self.disks) else {}


class Sources(Protocol):
    """Opens every kind of source. None is ever written to."""

    def identity(self, source: AnySource) -> tuple[object, ...]:
        """What tells this source, as it now is, from another: cheap, no content is read. Raises
        NotFound."""
        ...

    def look(self, source: QemuSource) -> MachineFacts:
        """A running machine as it is now; nothing of it is captured. Raises NotFound."""
        ...

    def open(self, source: AnySource, work: Path) -> AbstractContextManager[Supply]:
        """Make the disks of a source available as files, in `work` where they have to be made."""
        ...


@contextmanager
def supplied(wanted: Sequence[AnySource], work: Path, sources: Sources) -> Iterator[Supply]:
    """All disks of a version. Raises InvalidParameter when they do not make one."""
    check_combination(wanted)
    with ExitStack() as stack:
        opened = [stack.enter_context(sources.open(source, work)) for source in wanted]
        disks = tuple(disk for supply in opened for disk in supply.disks)
        yield Supply(
            disks,
            _description(opened),
            {lun: origin for supply in opened for lun, origin in supply.origins.items()},
            all(supply.generalized for supply in opened),
            opened[0].report if len(opened) == 1 else {},
        )


def _description(opened: Sequence[Supply]) -> Description:
    """Of several sources only the plan is known: it goes with whatever is made from any of them."""
    if len(opened) == 1:
        return opened[0].description
    plans = (supply.description.purchase_plan for supply in opened)
    return Description(purchase_plan=next(filter(None, plans), None))


def check_combination(wanted: Sequence[AnySource]) -> None:
    """One whole source, or one source per disk; never both (Azure: storageProfile.source and
    osDiskImage exclude each other)."""
    whole = [source for source in wanted if isinstance(source, WholeKinds)]
    if len(whole) > 1 or (whole and len(wanted) > 1):
        raise rules.one_kind_of_source()
    if not whole:
        single = [source for source in wanted if not isinstance(source, WholeKinds)]
        check_luns([source.lun for source in single])
        rules.distinct_sources([(item.lun, replace(item, lun=0), _named(item)) for item in single])


def _named(source: DiskKinds) -> str:
    """As the user named it."""
    if isinstance(source, DiskSource):
        return str(source.path)
    return public_url(source.url) if isinstance(source, UrlSource) else source.id


def public_url(url: str) -> str:
    """A URL as it may be shown and kept: the query may hold a signature that is as good as a
    password."""
    return url.split("?")[0].split("#")[0][:200]


def check_luns(luns: Sequence[int | None]) -> None:
    """One OS disk, and each data disk at a LUN of its own."""
    if luns.count(None) != 1:
        raise InvalidParameter("a version has exactly one OS disk", code="OSDiskRequired")
    rules.distinct_luns([lun for lun in luns if lun is not None])


def data_luns(wanted: Sequence[AnySource]) -> tuple[int, ...]:
    """The LUNs that are known before a source is opened."""
    single = [source for source in wanted if not isinstance(source, WholeKinds)]
    return tuple(source.lun for source in single if source.lun is not None)


def parse_disk(text: str, lun: int | None = None) -> DiskSource:
    """`FILE` or `FILE@NAME`: an existing file whose name holds an @ is meant before a snapshot
    is."""
    path = Path(text)
    if "@" in path.name and not path.exists():
        file, _, snapshot = text.rpartition("@")
        return DiskSource(lun, Path(file), snapshot)
    return DiskSource(lun, path)


def file_identity(path: Path) -> tuple[int, ...]:
    """What changes when a file is written to or replaced. Raises NotFound."""
    try:
        found = path.stat()
    except OSError as error:
        raise rules.source_missing(path, error.strerror or "it can't be read") from error
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def disk_identity(disk: DiskSource) -> tuple[object, ...]:
    """As `file_identity`, for every layer of a disk."""
    files = tuple(file_identity(layer.path) for layer in disk.layers)
    return (disk.lun, disk.snapshot, *files)
