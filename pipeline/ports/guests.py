"""Guests: file systems that are edited offline."""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from pipeline.ports.extents import Range
from pipeline.ports.hives import Hive
from pipeline.ports.images import Chain


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
        sorted; empty when it is not recognized."""
        ...

    def write(self, path: str, content: bytes, mode: int | None = None) -> None:
        """Replace the content in place, owner, mode and labels kept; make the file (0644 root) if
        absent."""
        ...

    def truncate(self, path: str) -> None: ...
    def remove(self, path: str) -> None:
        """Remove a file, link or whole directory tree; nothing to do when it is absent."""
        ...

    def set_name(self, path: str, name: str) -> None:
        """Give what is at `path` another name in its directory; there must be nothing of it."""
        ...

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        """With its parents; nothing to do when it is there."""
        ...

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Give it to a user and a group; a link itself."""
        ...

    def symlink(self, target: str, path: str) -> None: ...
    def hollow(self, path: str, keep: int) -> None:
        """Give up what is in a file behind its first `keep` bytes, without moving it: at the
        session's end it reads as zero."""
        ...

    def snapshots(self) -> list[str]:
        """The file systems' own snapshots of what is mounted: their paths in these file systems."""
        ...

    def remove_snapshots(self) -> None:
        """Delete all of `snapshots`."""
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
class Unmounted:
    """A file system of the disks that the guest does not mount. `problem` says why it can't be
    looked into; empty when `GuestSession.mount_volume` takes `device`."""

    device: str
    kind: str
    problem: str = ""


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
    notes: tuple[str, ...] = ()  # mounts that the guest asks for and that were skipped, and why
    # UUID of the partition that is /var as long as the guest has its machine id; "": there is none
    var_partition: str = ""


@dataclass(frozen=True, slots=True)
class Package:
    """One installed package. `kind` is the type that package URLs have for it (deb, rpm, apk,
    alpm, generic); `version` is whole: epoch, version and release."""

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
    def mount(self, *, writable: bool = True, without: Collection[str] = ()) -> Guest:
        """Mount the guest's file systems where it would, but for the mount points of `without`;
        read-only if the session is, or if not `writable`. What was mounted before is unmounted."""
        ...

    def covered(self) -> tuple[str, ...]:
        """Mount points under which something lies that mounting hid. To be asked after `mount`."""
        ...

    def unmounted(self) -> tuple[Unmounted, ...]:
        """The file systems, and what may be one, that the guest does not mount. To be asked after
        `mount`."""
        ...

    def volumes(self) -> tuple[VolumeState, ...]:
        """The NTFS volumes; to be asked before they are mounted to be written, as that alone makes
        ntfs-3g drop their logs."""
        ...

    def mount_volume(self, device: str, at: str = "/", *, writable: bool = True) -> Guest:
        """Mount one of `volumes` or `unmounted` alone, to be written if the session is and unless
        not `writable`. What was mounted before is unmounted. Raises StageFailed when it can't be,
        or only read-only."""
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
        """Start an appliance, without waiting for it: the first question to the session does. That
        it could not be started is said then. Writable chains have a private overlay on top: only
        that is written."""
        ...
