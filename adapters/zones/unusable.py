"""A zone that can't be used now: not mounted, unreadable, another catalog's."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from pipeline.errors import EnvironmentMissing
from pipeline.model import DeployedDisk
from pipeline.model.garbage import AT_ONCE, Collected, Keep
from pipeline.ports import (
    BaseStaging,
    Chain,
    Replica,
    ReplicaDisk,
    ShallowDisk,
    StoredBase,
    VersionRecord,
    Zone,
)
from pipeline.ports.runs import Lease
from pipeline.ports.zones import Needed


@dataclass(frozen=True)
class UnusableZone:
    """Stands for a configured zone: it shows nothing, and refuses whatever is to be written to it,
    with the reason. So it costs its own region, and no other."""

    path: Path
    region: str
    unusable: str  # why
    hint: str
    premium: bool
    reflink: bool = False

    def under(self, lease: Lease) -> "UnusableZone":
        return self

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def file_system(self) -> str:
        return str(self.path)

    def _refuse(self) -> NoReturn:
        raise EnvironmentMissing(self.unusable, hint=self.hint)

    # --- what it shows ---------------------------------------------------------------------------

    def free_bytes(self) -> int:
        return 0

    def find_base(self, digest: str) -> StoredBase | None:
        return None

    def base_changes(self, base: StoredBase) -> str | None:
        return None

    def base_problem(self, base: StoredBase, *, cached: bool = True) -> str:
        return self.unusable

    def base_read(self, base: StoredBase) -> datetime | None:
        return None

    def base_remains(self, digest: str) -> Chain | None:
        return None

    def base_manifest(self, digest: str) -> Path:
        return self.path / digest

    def digests(self) -> list[str]:
        return []

    def deployed_problem(self, disk: DeployedDisk) -> str:
        return self.unusable

    def held_bases(self, key: str) -> Mapping[int | None, str]:
        return {}

    def base_parent(self, digest: str) -> str | None:
        return None

    def delta_parent(self, parents: Sequence[str]) -> str | None:
        return None

    def find_version(self, key: str) -> tuple[Replica, ...] | None:
        return None

    def find_nvram(self, key: str) -> bytes | None:
        return None

    def nvram_remains(self, key: str) -> bytes | None:
        return None

    def find_document(self, key: str) -> Mapping[str, object] | None:
        return None

    def replica_problem(self, disk: ReplicaDisk, base: StoredBase | None) -> str:
        return self.unusable

    def version_directory(self, key: str) -> Path:
        return self.path / key

    def backing_files(self, *, strict: bool = False) -> set[Path]:
        return set()

    def allocated_bytes(self, keys: Iterable[str] | None = None) -> int:
        return 0

    # --- what it is left out of ------------------------------------------------------------------

    def remember_base(self, base: StoredBase, problem: str = "", *, read: bool = False) -> None:
        return None

    def hold(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def garbage_collect(
        self, needed: Needed, files: Iterable[Path] = (), keep: Keep = AT_ONCE
    ) -> Collected:
        return Collected(str(self.path))

    def collect_rest(self, keep: Keep) -> Collected:
        return Collected(str(self.path))

    # --- what it refuses -------------------------------------------------------------------------

    def remove_version(self, key: str) -> None:
        """What is there would be forgotten."""
        self._refuse()

    def check_writable(self) -> None:
        self._refuse()

    def stage_base(self, virtual_size: int, parents: Sequence[str]) -> BaseStaging:
        self._refuse()

    def restage_base(self, digest: str, virtual_size: int, parents: Sequence[str]) -> BaseStaging:
        self._refuse()

    def relink(self, disk: DeployedDisk) -> None:
        self._refuse()

    def restore_version(
        self, record: VersionRecord, disks: Mapping[int | None, str], replicas: int
    ) -> tuple[Replica, ...]:
        self._refuse()

    def clone_base_from(self, base: StoredBase, *, replace: bool = False) -> StoredBase | None:
        self._refuse()

    def publish(
        self, record: VersionRecord, disks: Mapping[int | None, str], replicas: int
    ) -> tuple[Replica, ...]:
        self._refuse()

    def publish_shallow(
        self, record: VersionRecord, disks: Sequence[ShallowDisk]
    ) -> tuple[Replica, ...]:
        self._refuse()

    def set_replicas(self, key: str, count: int) -> tuple[Replica, ...]:
        self._refuse()

    def deploy(self, replica: Replica, targets: Sequence[Path]) -> list[tuple[ReplicaDisk, ...]]:
        self._refuse()


_: type[Zone] = UnusableZone
