"""Zones: where bases, replicas and their records are."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from pipeline.model import DeployedDisk
from pipeline.model.garbage import AT_ONCE, Collected, Keep
from pipeline.model.images import ImageFormat
from pipeline.ports.images import Chain, Sink
from pipeline.ports.runs import Lease

# Who needs which of these bases, for people: it is asked for those that nothing in a zone uses.
Needed = Callable[[Sequence[str]], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class StoredBase:
    """The immutable content of one disk in one zone, named by its root digest. `chain` reads it."""

    digest: str
    virtual_size: int
    chain: Chain
    manifest: Path
    # "copy", "reflink" (started as a clone of an older base, or is one of another zone's), "delta"
    # (qcow2 on its parent)
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
    file_digest: str = ""  # of an overlay's own bytes; empty for clones, and if it is not known


@dataclass(frozen=True, slots=True)
class Replica:
    index: int
    disks: tuple[ReplicaDisk, ...]


class BaseStaging(Protocol):
    """A base being written in a zone; invisible until `commit`."""

    sink: Sink
    parent: StoredBase | None  # what the sink reads as before it is written; None: zeros

    def commit(self, digest: str, manifest: Path, *, replace: bool = False) -> StoredBase:
        """Make it durable and visible under its digest. If the zone holds that base already, that
        one is returned, unless its files show that it is damaged, or `replace` says that it is:
        then this takes its place, and the bad one goes to quarantine."""
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
class ShallowDisk:
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
    def unusable(self) -> str:
        """Why the zone can't be used now; empty when it can."""
        ...

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

    def under(self, lease: Lease) -> "Zone":
        """The same zone for one who changes it under a lease: of nobody who has lost that does it
        take a change, and what such have begun there is removed by who comes next."""
        ...

    def free_bytes(self) -> int: ...
    def check_writable(self) -> None:
        """Raise EnvironmentMissing when this user can't store anything here."""
        ...

    def find_base(self, digest: str) -> StoredBase | None:
        """Raises VerificationFailed for one that can't be whole, as its files show at once."""
        ...

    def base_changes(self, base: StoredBase) -> str | None:
        """What of a base's files is not as it was when it was last known to be sound (length,
        times, flags), or what was found wrong with it; empty when all is as it was. None when
        nothing is known of it."""
        ...

    def base_problem(self, base: StoredBase, *, cached: bool = True) -> str:
        """Why a file of a base is not what was written, beside its content; empty when nothing
        shows it. Not `cached`: as it is on the medium."""
        ...

    def base_read(self, base: StoredBase) -> datetime | None:
        """When all of a base, and of those below it, was last read from the medium; None: never."""
        ...

    def remember_base(self, base: StoredBase, problem: str = "", *, read: bool = False) -> None:
        """Note that a base was read and is sound, or what is wrong with it; `read` from the medium,
        and not from what memory held of it."""
        ...

    def digests(self) -> list[str]:
        """The names of all bases that are here."""
        ...

    def deployed_problem(self, disk: DeployedDisk) -> str:
        """Why a VM could not use a disk that was deployed from here: it is gone, names another
        base than this zone has, or its tables are damaged. Empty when nothing shows it."""
        ...

    def relink(self, disk: DeployedDisk) -> None:
        """Let a deployed overlay name this zone's base, wherever that was before. Raises Conflict
        while a VM uses it."""
        ...

    def replica_problem(self, disk: ReplicaDisk, base: StoredBase | None) -> str:
        """Why a replica's own file is not what was made, beside its content; empty when nothing
        shows it."""
        ...

    def stage_base(self, virtual_size: int, parents: Sequence[str]) -> BaseStaging:
        """Start a base from the first of `parents` (root digests) that the zone holds, else from
        nothing."""
        ...

    def restage_base(self, digest: str, virtual_size: int, parents: Sequence[str]) -> BaseStaging:
        """Start a base anew that is here and bad, or was. It gets the file name and format that it
        had, by which overlays find it. `parents` are as for `stage_base`."""
        ...

    def base_remains(self, digest: str) -> Chain | None:
        """The file of a base whose record can't be used: what is in it may be right. None where
        there is none, or it needs another one to be read."""
        ...

    def base_manifest(self, digest: str) -> Path:
        """Where the manifest of a base is, or would be."""
        ...

    def base_parent(self, digest: str) -> str | None:
        """The base that a base was started from, as far as its record or its file says."""
        ...

    def delta_parent(self, parents: Sequence[str]) -> str | None:
        """What `stage_base` would store only the differences from; None where it clones, or would
        begin with nothing."""
        ...

    def clone_base_from(self, base: StoredBase, *, replace: bool = False) -> StoredBase | None:
        """Take over a base of another zone: as a clone, without moving a byte of it, or, of a
        delta, with only its own bytes. None where neither can be: other file systems, or one that
        does not clone; no parent of the delta here."""
        ...

    def publish(
        self, record: VersionRecord, disks: Mapping[int | None, str], replicas: int
    ) -> tuple[Replica, ...]:
        """Commit a version: `replicas` copy-on-write children of the bases named by digest, by
        LUN, and the record.
        Verified, durable and visible at once, or not there. The same version already there is
        returned, with that number of replicas. None at all keeps the bases here."""
        ...

    def restore_version(
        self, record: VersionRecord, disks: Mapping[int | None, str], replicas: int
    ) -> tuple[Replica, ...]:
        """Make the record and the replicas of a version anew, in place of what is there under its
        key, which goes to quarantine."""
        ...

    def publish_shallow(
        self, record: VersionRecord, disks: Sequence[ShallowDisk]
    ) -> tuple[Replica, ...]:
        """Commit a shallow version: one replica, of overlays on the source's files."""
        ...

    def set_replicas(self, key: str, count: int) -> tuple[Replica, ...]:
        """Add replicas to a version that is here, or take the last ones away; returns all. Safe to
        interrupt: the old number holds until the new one does. Raises NotFound."""
        ...

    def find_version(self, key: str) -> tuple[Replica, ...] | None: ...
    def held_bases(self, key: str) -> Mapping[int | None, str]:
        """The digests, by LUN, of the bases that a version here holds."""
        ...

    def find_nvram(self, key: str) -> bytes | None: ...
    def nvram_remains(self, key: str) -> bytes | None:
        """The firmware's variables of a version whose record may be damaged. Raises
        VerificationFailed when they are not what the record says."""
        ...

    def find_document(self, key: str) -> Mapping[str, Any] | None:
        """The document of a version's record."""
        ...

    def version_directory(self, key: str) -> Path:
        """Where the files of a version's replicas are, or would be."""
        ...

    def backing_files(self, *, strict: bool = False) -> set[Path]:
        """The files outside of the zone that its shallow versions need."""
        ...

    def deploy(self, replica: Replica, targets: Sequence[Path]) -> list[tuple[ReplicaDisk, ...]]:
        """Copy-on-write disks for new VMs (FICLONE where it can, else overlays): one set in each
        of the directories `targets`, which are made and not synced. All of them, or none."""
        ...

    def remove_version(self, key: str) -> None: ...
    def hold(self) -> AbstractContextManager[None]:
        """Keep `garbage_collect` out while bases are stored and not yet used by a version."""
        ...

    def garbage_collect(
        self, needed: Needed, files: Iterable[Path] = (), keep: Keep = AT_ONCE
    ) -> Collected:
        """Remove the bases that nobody needs: without any of `files`, not used by a version here,
        not the parent of one that stays, and not `needed`, which is asked while nobody writes to
        the zone. Raises Busy while another job holds it, and what is wrong with a record that can't
        be read: what that needs is not known, so all stay."""
        ...

    def collect_rest(self, keep: Keep) -> Collected:
        """Remove what killed runs left unfinished, and what is old or too much in quarantine."""
        ...

    def allocated_bytes(self, keys: Iterable[str] | None = None) -> int:
        """What the zone's files occupy, or those of these versions with the bases that they need:
        shared blocks are counted once where the file system can tell."""
        ...
