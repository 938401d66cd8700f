"""What the pipeline needs from outside. Adapters implement these; tests have in-memory doubles of
them.

Sizes and offsets are bytes. A call either does all it was asked or raises a GalleriaError or
OSError.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from pipeline.data.extents import Extent, Range
from pipeline.gallery.model import SourceFile
from pipeline.guest.hives import Hive

# --- image files -------------------------------------------------------------------------------


class ImageFormat(Enum):
    """Formats of image files that galleria reads. `VHD` is qemu's vpc."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VHD = "vhd"
    VHDX = "vhdx"
    VMDK = "vmdk"
    VDI = "vdi"


@dataclass(frozen=True, slots=True)
class Layer:
    """One image file of a disk. `snapshot` names a qcow2 internal snapshot to read instead of the
    present."""

    path: Path
    format: ImageFormat
    snapshot: str | None = None


Chain = tuple[
    Layer, ...
]  # a disk: its layers, top first; every one declared, none taken from a header


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What bounded inspection of one image file found. `refusals` empty means safe to open."""

    path: Path
    format: ImageFormat
    variant: (
        str  # "dynamic", "fixed", "monolithicSparse", "streamOptimized", "v3 zstd extended_l2", ...
    )
    virtual_size: int
    file_size: int
    allocated_size: int
    logical_sector_size: int = 512
    snapshots: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """The bytes of one disk, as its guest sees them. Offsets in every call; safe from many
    threads."""

    @property
    def virtual_size(self) -> int: ...
    def extents(self) -> Iterator[Extent]:
        """Cover [0, virtual_size) in order. What is not known to be zero is data."""
        ...

    def read_into(self, buf: memoryview, extent: Extent) -> None:
        """Fill `buf` (extent.length bytes) with a DATA extent, or a part of one, of `extents()`."""
        ...

    def close(self) -> None: ...


class Sink(Protocol):
    """Where the bytes of one disk go. A new sink reads as zero, or as the base that it was started
    from."""

    def write(self, buf: memoryview, offset: int) -> None: ...
    def zero(self, length: int, offset: int) -> None:
        """Make the range read as zero; may punch a hole."""
        ...

    def flush(self) -> None:
        """Durable on return."""
        ...

    def close(self) -> None: ...


class Images(Protocol):
    """Image files: recognise, open, make."""

    def inspect(self, path: Path, *, declared: ImageFormat | None = None) -> ImageFacts:
        """Recognise by content. Never opens another file. Raises NotFound, or UnsafeImage if
        unrecognisable;
        a recognised but unsafe file is returned with its `refusals`."""
        ...

    def inspect_chain(
        self, layers: Sequence[tuple[Path, ImageFormat | None]]
    ) -> tuple[ImageFacts, ...]:
        """Inspect every declared layer of a disk, top first, each by itself. That one leans on
        another file is refused unless the next layer is the very file that its header means."""
        ...

    def open(
        self, chain: Chain, *, free: Sequence[Range] = ()
    ) -> AbstractContextManager[Source]: ...
    def create_overlay(self, chain: Chain, path: Path) -> Chain:
        """Make a qcow2 at `path` over `chain`; returns the new chain (the overlay on top)."""
        ...

    def zero(self, chain: Chain, ranges: Sequence[Range]) -> None:
        """Make ranges of a disk read as zero, in its top layer, which is a private overlay."""
        ...

    def export(
        self,
        chain: Chain,
        path: Path,
        format: ImageFormat,
        *,
        subformat: str = "",
        free: Sequence[Range] = (),
    ) -> None:
        """Write the disk as one stand-alone file of the format, complete and durable, or nothing.
        VHD: fixed unless subformat is "dynamic"; a fixed VHD is padded to whole MiB."""
        ...


class Pin(Protocol):
    """A held point in time of source files: read `chains`, then ask `verify` whether it held
    still."""

    chains: tuple[Chain, ...]
    method: str  # "reflink" or "lease"

    def verify(self) -> None:
        """Raise SourceChanged when a source file is not what it was when it was pinned."""
        ...


class Pins(Protocol):
    def fingerprint(self, layer: Layer) -> SourceFile:
        """What a file is now, for `changes` at any later time. Raises NotFound."""
        ...

    def changes(self, file: SourceFile) -> list[str]:
        """What of a file is not as it was, for people; empty when it is the same."""
        ...

    def pin(self, chains: Sequence[Chain], work: Path) -> AbstractContextManager[Pin]: ...


# --- zones -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredBase:
    """The immutable content of one disk in one zone, named by its root digest. `chain` reads it."""

    digest: str
    virtual_size: int
    chain: Chain
    manifest: Path
    # "copy", "reflink" (started as a clone of an older base), "delta" (qcow2 on its parent)
    method: str
    parent: str | None  # digest of the base it was started from


@dataclass(frozen=True, slots=True)
class ReplicaDisk:
    """One disk of one replica: a bootable copy-on-write child of a base."""

    lun: int | None  # None is the OS disk
    path: Path
    format: ImageFormat
    method: str  # "reflink" or "overlay"
    digest: str
    virtual_size: int


@dataclass(frozen=True, slots=True)
class Replica:
    index: int
    disks: tuple[ReplicaDisk, ...]


class BaseStaging(Protocol):
    """A base being written in a zone; invisible until `commit`."""

    sink: Sink
    parent: StoredBase | None  # what the sink reads as before it is written; None: zeros

    def commit(self, digest: str, manifest: Path) -> StoredBase:
        """Make it durable and visible under its digest. If the zone holds that base already, that
        one is returned."""
        ...

    def abort(self) -> None:
        """Leave nothing. Safe to call twice and after commit."""
        ...


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """What a zone keeps beside a version's bytes, enough to rebuild the catalog (`document` is
    JSON)."""

    key: str  # directory name: gallery, definition, version and a unique suffix
    document: Mapping[str, Any]
    nvram: bytes | None = None  # the variables of its UEFI firmware


@dataclass(frozen=True, slots=True)
class Leaning:
    """A disk of a shallow version: it stays in the source's files (`chain`), under an overlay.
    `overlay` is one that holds edits already; it is copied."""

    lun: int | None
    chain: Chain
    virtual_size: int
    overlay: Path | None = None


class Zone(Protocol):
    """One directory on one file system, that holds bases, replicas and their records."""

    @property
    def name(self) -> str: ...
    @property
    def region(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def reflink(self) -> bool:
        """Whether the file system clones files; found by trying."""
        ...

    @property
    def premium(self) -> bool:
        """Whether it is for Premium_LRS, and for nothing else."""
        ...

    @property
    def file_system(self) -> str:
        """What it has in common with zones on the same file system."""
        ...

    def free_bytes(self) -> int: ...
    def find_base(self, digest: str) -> StoredBase | None: ...
    def stage_base(self, virtual_size: int, parents: Sequence[str]) -> BaseStaging:
        """Start a base from the first of `parents` (root digests) that the zone holds, else from
        nothing."""
        ...

    def publish(
        self, record: VersionRecord, disks: Mapping[int | None, str], replicas: int
    ) -> tuple[Replica, ...]:
        """Commit a version: `replicas` copy-on-write children of the bases named by digest, by
        LUN, and the record.
        Verified, durable and visible at once, or not there. The same version already there is
        returned, with that number of replicas. None at all keeps the bases here."""
        ...

    def publish_leaning(
        self, record: VersionRecord, disks: Sequence[Leaning]
    ) -> tuple[Replica, ...]:
        """Commit a shallow version: one replica, of overlays on the source's files."""
        ...

    def set_replicas(self, key: str, count: int) -> tuple[Replica, ...]:
        """Add replicas to a version that is here, or take the last ones away; returns all. Safe to
        interrupt: the old number holds until the new one does. Raises NotFound."""
        ...

    def find_version(self, key: str) -> tuple[Replica, ...] | None: ...
    def find_nvram(self, key: str) -> bytes | None: ...
    def find_document(self, key: str) -> Mapping[str, Any] | None:
        """The document of a version's record."""
        ...

    def leans_on(self) -> set[Path]:
        """The files outside of the zone that its shallow versions need."""
        ...

    def deploy(self, replica: Replica, targets: Sequence[Path]) -> list[tuple[ReplicaDisk, ...]]:
        """Copy-on-write disks for new VMs (FICLONE where it can, else overlays): one set in each
        of the directories `targets`, which are made and not synced. All of them, or none."""
        ...

    def remove_version(self, key: str) -> None: ...
    def hold(self) -> AbstractContextManager[None]:
        """Keep `collect` out while bases are stored and not yet used by a version."""
        ...

    def collect(self, keep: Iterable[str], files: Iterable[Path] = ()) -> list[str]:
        """Remove the bases that nobody needs: not in `keep`, without any of `files`, not used by a
        version here, not the parent of one that stays. Raises Busy while another job holds the
        zone."""
        ...

    def allocated_bytes(self, keys: Iterable[str] | None = None) -> int:
        """What the zone's files occupy, or those of these versions with the bases that they need:
        shared blocks are counted once where the file system can tell."""
        ...


# --- guests ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileStat:
    """lstat of a guest path. `kind` is one of file, directory, symlink, other."""

    kind: str
    mode: int  # permission bits
    uid: int
    gid: int
    length: int


class Guest(Protocol):
    """The mounted file systems of one guest, edited offline. Paths are absolute, in the guest.

    No call follows a symbolic link in the last component; links in the middle are resolved inside
    the guest (`real` says where that leads). Strings that come back are hostile.
    """

    def real(self, path: str) -> str:
        """The path without links in its middle; as given when a directory on the way is absent."""
        ...

    def stat(self, path: str) -> FileStat | None: ...
    def names(self, path: str) -> list[str]:
        """Names in a directory, sorted; empty when it is absent."""
        ...

    def glob(self, pattern: str) -> list[str]: ...
    def find(self, path: str) -> list[tuple[str, FileStat]]:
        """Everything below a directory (absolute paths, sorted); empty when it is absent."""
        ...

    def read(self, path: str, limit: int = 1 << 20) -> bytes: ...
    def readlink(self, path: str) -> str: ...
    def digests(self, path: str) -> dict[str, str]:
        """SHA-256 of every regular file below a directory, by absolute path; empty when it is
        absent. Other file systems that are mounted below it are left out."""
        ...

    def initramfs(self, path: str) -> list[str]:
        """Names of the files in an initial RAM file system, of every archive that it consists of,
        sorted; empty when it is none that is known."""
        ...

    def write(self, path: str, content: bytes, mode: int | None = None) -> None:
        """Replace the content in place, owner, mode and labels kept; make the file (0644 root) if
        absent."""
        ...

    def truncate(self, path: str) -> None: ...
    def remove(self, path: str) -> None:
        """Remove a file, link or whole directory tree; nothing to do when it is absent."""
        ...

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        """With its parents; nothing to do when it is there."""
        ...

    def symlink(self, target: str, path: str) -> None: ...
    def hollow(self, path: str, keep: int) -> None:
        """Give up what is in a file behind its first `keep` bytes, without moving it: at the
        session's end it reads as zero."""
        ...

    def label(self, path: str) -> str:
        """Its SELinux label; empty when it has none."""
        ...

    def set_label(self, path: str, label: str) -> None: ...
    def run(self, script: str) -> str:
        """Run a script with the guest's own /bin/sh, chrooted, as root, without a network; returns
        what it prints. Raises StageFailed when its status is not 0."""
        ...

    def hive(self, path: str, *, writable: bool = False) -> AbstractContextManager[Hive]:
        """Open a file of the Windows registry; one at a time. What was changed is written when
        the `with` ends without an error."""
        ...


@dataclass(frozen=True, slots=True)
class VolumeState:
    """What an NTFS volume says of itself before it is mounted. `dirty`: Windows wants to check it;
    `journal`: its log holds changes that are not in the volume yet."""

    device: str
    dirty: bool
    journal: bool


@dataclass(frozen=True, slots=True)
class GuestFacts:
    """What inspection says of the operating system on a set of disks."""

    os_type: str  # "linux", "windows", "unknown"
    distribution: str = "unknown"
    version: str = ""
    product_name: str = ""
    architecture: str = "unknown"
    hostname: str = ""
    generation: str = "unknown"  # "V1", "V2"
    partition_table: str = "unknown"  # "mbr", "gpt", "none"
    filesystems: tuple[tuple[str, str], ...] = ()  # (device, type)
    mountpoints: tuple[tuple[str, str], ...] = ()  # (mount point, device)


@dataclass(frozen=True, slots=True)
class Package:
    """One installed package. `kind` is the type that package URLs have for it (deb, rpm, apk,
    alpm); `version` is whole: epoch, version and release."""

    name: str
    version: str
    architecture: str
    kind: str


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """What need not be read: `disks` has each disk's free ranges (sorted, 512-byte aligned);
    `notes` says how each file system was treated."""

    disks: tuple[tuple[Range, ...], ...]
    notes: tuple[str, ...] = ()


class GuestSession(Protocol):
    """One appliance with a guest's disks. Leaving the `with` shuts it down; a failed shutdown
    raises."""

    def inspect(self) -> GuestFacts: ...
    def mount(self, *, writable: bool = True) -> Guest:
        """Mount the guest's file systems as its fstab says; read-only if the session is, or if
        not `writable`. What was mounted before is unmounted."""
        ...

    def volumes(self) -> tuple[VolumeState, ...]:
        """The NTFS volumes; to be asked before they are mounted to be written, as that alone makes
        ntfs-3g drop their logs."""
        ...

    def rpm_packages(self) -> tuple[Package, ...]:
        """What the guest's RPM database lists. Slow (8 s), and unmounts everything."""
        ...

    def free_ranges(self, *, zero_rest: bool) -> FreeSpace:
        """Unmount everything; per disk, what its file systems report free. With `zero_rest`,
        where a bitmap can't be had the free space is filled with zeros. Writable sessions only."""
        ...


class GuestHost(Protocol):
    def session(
        self, chains: Sequence[Chain], *, writable: bool
    ) -> AbstractContextManager[GuestSession]:
        """Start an appliance. Writable chains have a private overlay on top: only that is
        written."""
        ...


# --- the rest of the world ------------------------------------------------------------------------


class Progress(Protocol):
    """Where a person, or a machine, sees how far a job is."""

    def stage(
        self, name: str, total: int = 0, unit: str = "B"
    ) -> AbstractContextManager["Meter"]: ...
    def note(self, message: str) -> None: ...
    def warn(self, message: str) -> None: ...


class Meter(Protocol):
    def advance(self, amount: int) -> None: ...


@dataclass(frozen=True, slots=True)
class TransferStats:
    """Bytes of one disk: read from the source, and per zone written, kept from the parent and
    known zero."""

    virtual_size: int
    read: int
    zero: int
    written: Mapping[str, int] = field(default_factory=dict)
    kept: Mapping[str, int] = field(default_factory=dict)


class Work(Protocol):
    """The host's scratch space. What a killed process left there goes when the next run begins."""

    def directory(self) -> AbstractContextManager[Path]:
        """A private directory for one run, removed at its end."""
        ...

    def free_bytes(self) -> int: ...
