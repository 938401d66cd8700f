"""The disks of an image version, and what their content came from."""

from dataclasses import dataclass

from pipeline.model.kinds import HostCaching


@dataclass(frozen=True, slots=True)
class Origin:
    """What content came from. `id` is an ARM id, a path or a URL; `uid` the one life of that name;
    `digest` the root digest that it had, where it was known before it was read."""

    kind: str
    id: str
    uid: str = ""
    digest: str = ""
    lun: int | None = None


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that a shallow version depends on, as it was when that was published: times are
    nanoseconds since 1970."""

    path: str
    format: str
    inode: int
    length: int
    modification_time: int
    change_time: int


@dataclass(frozen=True, slots=True)
class DiskProvenance:
    """Where a disk's content came from: the path that it was read from, the format found in it, and
    what it is a copy of. `files` are what a shallow version's disk depends on, top first."""

    path: str
    format: str
    origin: Origin | None = None
    files: tuple[SourceFile, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageDisk:
    """One disk of a version. `lun` None is the OS disk; `digest` is the root digest of the guest's
    view of `virtual_size` bytes (empty in a shallow version, of which nothing was read)."""

    lun: int | None
    digest: str
    virtual_size: int
    source: DiskProvenance
    host_caching: HostCaching | None = None  # what VMs made from it use; None: as the host likes


def disk_name(lun: int | None) -> str:
    """What a disk is called on screen and in file names."""
    return "os" if lun is None else f"data-{lun}"
