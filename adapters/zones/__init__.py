"""Zones: directories that hold bases, replicas and their records. The layout is drawn in
`layout`."""

import contextlib
import dataclasses
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from adapters.filesystem import calls, durable, fiemap, modes
from adapters.filesystem.profile import Writing, ZoneProfile, probe
from adapters.process.sandbox import Sandbox
from adapters.zones import bases, children, deployed, garbage, guard, layout, versions
from adapters.zones.ownership import OWNER_FILE
from adapters.zones.records import CATALOG
from pipeline.errors import Busy, Conflict, GalleriaError, NotFound, VerificationFailed
from pipeline.model import DeployedDisk
from pipeline.model.garbage import AT_ONCE, Collected, Keep
from pipeline.ports import Chain, Replica, ReplicaDisk, ShallowDisk, StoredBase, VersionRecord, Zone
from pipeline.ports.runs import Lease, NoLease
from pipeline.ports.zones import Needed

DISKS = "disks"  # what pipeline.resources keeps here

__all__ = ["DirectoryZone", "create_zone", "open_zone", "zone_name"]


def zone_name(path: Path) -> str | None:
    """The name of the zone that a directory is; None when it is none."""
    try:
        return str(layout.decode(path / layout.ZONE_FILE)["name"])
    except (FileNotFoundError, NotADirectoryError):
        return None


def create_zone(
    path: Path,
    *,
    name: str,
    region: str,
    sandbox: Sandbox,
    immutable: bool = True,
    group: int | None = None,
) -> "DirectoryZone":
    """Make a directory a zone, for this user alone or for a group; one that is this zone already
    is opened, and for whom it is stays.

    Raises Conflict when it is another zone, or holds something else.
    """
    path.mkdir(parents=True, exist_ok=True)
    path = path.resolve()
    if not (path / layout.ZONE_FILE).exists():
        others = sorted(entry.name for entry in path.iterdir() if entry.name != "lost+found")
        if others:
            raise Conflict(
                f"{path} is not empty (it holds {others[0]!r}) and can't become a zone",
                hint="name a new or empty directory",
            )
        record = {
            "name": name,
            "region": region,
            "file_system_id": os.statvfs(path).f_fsid,
            "profile": dataclasses.asdict(probe(path)),
        }
        modes.make_root(path, group)
        for directory in (layout.BASES, layout.VERSIONS, layout.STAGING):
            (path / directory).mkdir(mode=modes.DIRECTORY, exist_ok=True)
        for directory in (layout.BASES, layout.VERSIONS):
            modes.give(path / directory, modes.group_of(path))
        # a second process that makes the same zone: the check below says whether it agrees
        with contextlib.suppress(FileExistsError):
            durable.write_file(path / layout.ZONE_FILE, layout.encode(record))
        durable.sync_directory(path.parent)
    zone = open_zone(path, sandbox=sandbox, immutable=immutable)
    if (zone.name, zone.region) != (name, region):
        raise Conflict(
            f"{path} is the zone {zone.name} of region {zone.region} already",
            hint="name another directory, or use that zone under its own name",
        )
    return zone


def open_zone(
    path: Path,
    *,
    sandbox: Sandbox,
    immutable: bool = True,
    premium: bool = False,
    writing: Writing | None = None,
) -> "DirectoryZone":
    """Open a zone, wherever its directory has been moved to. `writing` overrides its profile.
    Raises NotFound."""
    try:
        path = path.resolve(strict=True)
        record = layout.decode(path / layout.ZONE_FILE)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"{path} is not a zone: it has no {layout.ZONE_FILE}",
            hint="mount its file system, or make it a zone with galleria init",
        ) from None
    try:
        profile = ZoneProfile.of(record["profile"])
        if record["file_system_id"] != os.statvfs(path).f_fsid:
            profile = probe(path / layout.STAGING)  # it was moved
        if writing is not None:
            profile = dataclasses.replace(profile, writing=writing)
        return DirectoryZone(
            path,
            record["name"],
            record["region"],
            profile,
            sandbox,
            immutable=immutable,
            premium=premium,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise layout.damaged(path / layout.ZONE_FILE, f"a property is wrong: {error}") from None


class DirectoryZone:
    """A zone in a directory. With `immutable`, bases get chattr +i where rights allow; `premium`
    is what the configuration says of its storage."""

    def __init__(
        self,
        path: Path,
        name: str,
        region: str,
        profile: ZoneProfile,
        sandbox: Sandbox,
        *,
        immutable: bool,
        premium: bool = False,
        lease: Lease | None = None,
    ) -> None:
        self._path = path
        self._name = name
        self._region = region
        self._profile = profile
        self._sandbox = sandbox
        self._immutable = immutable
        self._premium = premium
        self._lease = lease or NoLease()

    def under(self, lease: Lease) -> "DirectoryZone":
        return DirectoryZone(
            self._path,
            self._name,
            self._region,
            self._profile,
            self._sandbox,
            immutable=self._immutable,
            premium=self._premium,
            lease=lease,
        )

    @property
    def name(self) -> str:
        return self._name

    @property
    def region(self) -> str:
        return self._region

    @property
    def path(self) -> Path:
        return self._path

    @property
    def profile(self) -> ZoneProfile:
        return self._profile

    @property
    def unusable(self) -> str:
        return ""

    @property
    def reflink(self) -> bool:
        return self._profile.reflink

    @property
    def premium(self) -> bool:
        return self._premium

    @property
    def file_system(self) -> str:
        return calls.identity(self._path)

    def free_bytes(self) -> int:
        return calls.free_bytes(self._path)

    def allocated_bytes(self, keys: Iterable[str] | None = None) -> int:
        parts = [self._path / layout.BASES, self._path / layout.VERSIONS]
        if keys is not None:
            parts = list(self._parts(keys))
        return fiemap.allocated_bytes(
            path
            for part in parts
            for path in part.rglob("*")
            if path.is_file() and not path.is_symlink()
        )

    def _parts(self, keys: Iterable[str]) -> Iterator[Path]:
        """The directories of versions, and of the bases that they are read from."""
        digests: set[str] = set()
        for key in keys:
            found = None
            with contextlib.suppress(VerificationFailed):
                found = versions.find(self._path, key)
            if found is not None:
                yield layout.version_directory(self._path, key)
                digests |= bases.needed(self._path, found.bases.values())
        for digest in digests:
            yield layout.base_directory(self._path, digest)

    # --- bases -----------------------------------------------------------------------------------

    def find_base(self, digest: str) -> StoredBase | None:
        return bases.find(self._path, digest)

    def base_changes(self, base: StoredBase) -> str | None:
        return bases.changes(base)

    def base_problem(self, base: StoredBase, *, cached: bool = True) -> str:
        return bases.problem(base, cached=cached)

    def base_read(self, base: StoredBase) -> datetime | None:
        return bases.last_read(base)

    def base_remains(self, digest: str) -> Chain | None:
        return bases.remains(self._path, digest)

    def base_manifest(self, digest: str) -> Path:
        return layout.base_directory(self._path, digest) / layout.MANIFEST

    def base_parent(self, digest: str) -> str | None:
        return bases.parent_of(self._path, digest)

    def remember_base(self, base: StoredBase, problem: str = "", *, read: bool = False) -> None:
        bases.remember(base, problem, read=read)

    def replica_problem(self, disk: ReplicaDisk, base: StoredBase | None) -> str:
        return children.problem(disk, base)

    def deployed_problem(self, disk: DeployedDisk) -> str:
        return deployed.problem(self._path, self._sandbox, disk)

    def relink(self, disk: DeployedDisk) -> None:
        with self._locked(fcntl.LOCK_SH):
            deployed.relink(self._path, self._sandbox, disk)

    def digests(self) -> list[str]:
        """The names of all bases."""
        names = (entry.name for entry in (self._path / layout.BASES).iterdir())
        return sorted(name for name in names if layout.DIGEST.fullmatch(name))

    def check_writable(self) -> None:
        for name in (layout.BASES, layout.VERSIONS, layout.STAGING):
            with guard.names(self._path / name):
                writable = os.access(self._path / name, os.W_OK | os.X_OK)
            if not writable:
                raise layout.unwritable(self._path, f"{name} is read-only or another user's")

    def stage_base(self, virtual_size: int, parents: Sequence[str]) -> bases.StagedBase:
        return self._begun(partial(bases.stage, self._path, self._sandbox, virtual_size, parents))

    def restage_base(
        self, digest: str, virtual_size: int, parents: Sequence[str]
    ) -> bases.StagedBase:
        return self._begun(
            partial(bases.restage, self._path, self._sandbox, digest, virtual_size, parents)
        )

    def _begun(self, begin: Callable[..., bases.StagedBase]) -> bases.StagedBase:
        """Begin a base; nobody has the zone for itself until its staging ends."""
        with layout.room(self._path):
            self.sweep()
            release = self._lock(fcntl.LOCK_SH)
            try:
                return begin(
                    profile=self._profile,
                    immutable=self._immutable,
                    release=release,
                    lease=self._lease,
                )
            except BaseException:
                release()
                raise

    def delta_parent(self, parents: Sequence[str]) -> str | None:
        parent = None if self.reflink else bases.delta_parent(self._path, parents)
        return None if parent is None else parent.digest

    def clone_base_from(self, base: StoredBase, *, replace: bool = False) -> StoredBase | None:
        if base.method != "delta" and not self.reflink:
            return None
        with layout.room(self._path):
            self.sweep()
            with self._locked(fcntl.LOCK_SH):
                return bases.clone_base_from(
                    self._path,
                    base,
                    immutable=self._immutable,
                    replace=replace,
                    lease=self._lease,
                )

    # --- versions --------------------------------------------------------------------------------

    def publish(
        self, record: VersionRecord, disks: Mapping[int | None, str], replicas: int
    ) -> tuple[Replica, ...]:
        self.sweep()
        with self._locked(fcntl.LOCK_SH):
            return versions.publish(
                self._path,
                self._sandbox,
                record,
                disks,
                replicas,
                self._lease,
                immutable=self._immutable,
            )

    def restore_version(
        self, record: VersionRecord, disks: Mapping[int | None, str], replicas: int
    ) -> tuple[Replica, ...]:
        self.sweep()
        with self._locked(fcntl.LOCK_SH):
            return versions.restore(
                self._path,
                self._sandbox,
                record,
                disks,
                replicas,
                self._lease,
                immutable=self._immutable,
            )

    def publish_shallow(
        self, record: VersionRecord, disks: Sequence[ShallowDisk]
    ) -> tuple[Replica, ...]:
        self.sweep()
        with self._locked(fcntl.LOCK_SH):
            return versions.publish_shallow(
                self._path, self._sandbox, record, disks, self._lease, immutable=self._immutable
            )

    def set_replicas(self, key: str, count: int) -> tuple[Replica, ...]:
        self.sweep()
        with self._locked(fcntl.LOCK_SH):
            return versions.set_replicas(self._path, self._sandbox, key, count, self._lease)

    def find_version(self, key: str) -> tuple[Replica, ...] | None:
        found = versions.find(self._path, key)
        return None if found is None else found.replicas

    def find_document(self, key: str) -> Mapping[str, Any] | None:
        found = versions.find(self._path, key)
        return None if found is None else found.record.document

    def held_bases(self, key: str) -> Mapping[int | None, str]:
        found = versions.find(self._path, key)
        return {} if found is None else found.bases

    def find_nvram(self, key: str) -> bytes | None:
        found = versions.find(self._path, key)
        return None if found is None else found.record.nvram

    def nvram_remains(self, key: str) -> bytes | None:
        return versions.nvram_remains(self._path, key)

    def records(self) -> Iterator[tuple[VersionRecord, tuple[Replica, ...]]]:
        """Every version in the zone that can be read: enough to rebuild a catalog."""
        for found in versions.every(self._path).found:
            yield found.record, found.replicas

    def backing_files(self, *, strict: bool = False) -> set[Path]:
        listing = versions.every(self._path)
        for problem in listing.problems.values() if strict else ():
            raise problem
        return {path for found in listing.found for path in found.sources}

    def version_directory(self, key: str) -> Path:
        return layout.version_directory(self._path, key)

    def deploy(self, replica: Replica, targets: Sequence[Path]) -> list[tuple[ReplicaDisk, ...]]:
        self._lease.check()
        with self._locked(fcntl.LOCK_SH):
            return deployed.deploy(self._path, self._sandbox, replica, targets)

    def remove_version(self, key: str) -> None:
        self.sweep()
        with self._locked(fcntl.LOCK_SH):
            versions.remove(self._path, key, self._lease)

    # --- upkeep ----------------------------------------------------------------------------------

    def sweep(self) -> list[Path]:
        """Remove what dead processes left in staging, and those whose runs were taken over; returns
        it."""
        return durable.sweep(self._path / layout.STAGING, self._lease)

    def hold(self) -> contextlib.AbstractContextManager[None]:
        return self._locked(fcntl.LOCK_SH)

    def garbage_collect(
        self, needed: Needed, files: Iterable[Path] = (), keep: Keep = AT_ONCE
    ) -> Collected:
        with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
            return garbage.collect_bases(
                self._path, self.digests(), needed, files, keep, self._lease
            )

    def collect_rest(self, keep: Keep) -> Collected:
        return garbage.collect_rest(self._path, keep, self._lease)

    def foreign(self) -> list[Path]:
        """What is in the zone and is not galleria's; it is left alone."""
        own = {layout.ZONE_FILE, layout.BASES, layout.VERSIONS, layout.STAGING, layout.QUARANTINE}
        own |= {DISKS, OWNER_FILE, CATALOG}
        found = [entry for entry in self._path.iterdir() if entry.name not in own]
        place = self._path / layout.BASES
        found += [item for item in place.iterdir() if not layout.DIGEST.fullmatch(item.name)]
        place = self._path / layout.VERSIONS
        found += [place / name for name in versions.every(self._path).foreign]
        return sorted(found)

    def damaged(self) -> list[Exception]:
        """What records say at once that can't be used."""
        problems = list(versions.every(self._path).problems.values())
        for digest in self.digests():
            try:
                self.find_base(digest)
            except (OSError, GalleriaError) as error:
                problems.append(error)
        return problems

    def _lock(self, operation: int) -> Callable[[], None]:
        """Lock the zone against `garbage_collect`, or `garbage_collect` against all; returns what
        unlocks it."""
        fd = os.open(self._path / layout.ZONE_FILE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, operation)
        except BlockingIOError:
            os.close(fd)
            raise Busy(
                f"the zone {self._path} is being written to by another job",
                hint="try again when it has ended",
            ) from None
        except BaseException:
            os.close(fd)
            raise
        return lambda: os.close(fd)

    @contextlib.contextmanager
    def _locked(self, operation: int) -> Iterator[None]:
        release = self._lock(operation)
        try:
            yield
        finally:
            release()


_: type[Zone] = DirectoryZone
