"""Galleries, definitions and versions for tests; a clock and owners that do as they are told."""

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.gallery.rules import Limits
from pipeline.gallery.services import Services
from pipeline.model import (
    DiskProvenance,
    Gallery,
    Identifier,
    ImageDefinition,
    ImageDisk,
    ImageVersion,
    Origin,
    OsType,
    OwnerToken,
    ProvisioningState,
    Region,
    RegionStatus,
    ReplicationState,
    TargetRegion,
    VersionRequest,
)
from pipeline.model.access import Identity
from pipeline.model.names import parse_definition, parse_gallery, parse_version
from pipeline.ports.catalog import Catalog
from pipeline.ports.owners import Owners
from pipeline.ports.runs import RunHost
from tests.memory_catalog import MemoryCatalog

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
REGIONS = (Region("eu"), Region("us"), Region("UK South"))
OWNER = OwnerToken("build1", "boot", 4026531836, 1234, 99)


class FakeClock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


class FakeOwners:
    """Whoever is in `dead` has ended; `me` is the process that asks."""

    def __init__(self) -> None:
        self.me = OWNER
        self.dead: set[OwnerToken] = set()

    def become(self, pid: int) -> OwnerToken:
        self.me = replace(OWNER, pid=pid)
        return self.me

    def current(self) -> OwnerToken:
        return self.me

    def alive(self, token: OwnerToken) -> bool:
        return token not in self.dead


_: type[Owners] = FakeOwners


class FakeRunHost:
    """A host whose heart beats when `beat` is called."""

    name, boot_id, pid = "build1", "boot", 1234

    def __init__(self) -> None:
        self.acts: list[Callable[[], None]] = []
        self.interrupted = 0
        self.lines: list[str] = []

    def beat(self) -> None:
        for act in list(self.acts):
            act()

    @contextmanager
    def every(self, seconds: float, act: Callable[[], None]) -> Iterator[None]:
        self.acts.append(act)
        try:
            yield
        finally:
            self.acts.remove(act)

    def interrupt(self) -> None:
        self.interrupted += 1

    def log(self, id: str) -> "FakeRunLog":
        return FakeRunLog(Path(f"/logs/{id}.log"), self.lines)


class FakeRunLog:
    def __init__(self, path: Path, lines: list[str]) -> None:
        self.path = path
        self._lines = lines

    def write(self, line: str) -> None:
        self._lines.append(line)


_host: type[RunHost] = FakeRunHost


def services(
    owners: FakeOwners | None = None,
    clock: Callable[[], datetime] | None = None,
    *,
    catalog: Catalog | None = None,
    regions: Iterable[Region] = REGIONS,
    principal: str | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Services:
    """The operations for the local operator, or for a principal."""
    identity = Identity("root@host", principal, "r")
    return Services(
        catalog or MemoryCatalog(),
        owners or FakeOwners(),
        regions,
        identity,
        FakeRunHost(),
        "eu",
        clock or FakeClock(),
        limits,
    )


def gallery(name: str = "corp", **changes: Any) -> Gallery:
    return replace(Gallery(parse_gallery(name), "eu", NOW), **changes)


def definition(name: str = "corp/web", **changes: Any) -> ImageDefinition:
    sku = name.rsplit("/", 1)[-1]
    made = ImageDefinition(
        parse_definition(name), "eu", OsType.LINUX, Identifier("Contoso", "web", sku), created=NOW
    )
    return replace(made, **changes)


def version(name: str = "corp/web/1.0.0", **changes: Any) -> ImageVersion:
    """Succeeded in eu (2 replicas) and us."""
    return replace(
        ImageVersion(
            name=parse_version(name),
            uid=uuid.uuid5(uuid.NAMESPACE_URL, name).hex,
            attempt=1,
            fingerprint="f1",
            location="eu",
            created=NOW,
            provisioning_state=ProvisioningState.SUCCEEDED,
            target_regions=(TargetRegion("eu", 2), TargetRegion("us")),
            regions=(
                RegionStatus("eu", ReplicationState.COMPLETED, 100),
                RegionStatus("us", ReplicationState.COMPLETED, 100),
            ),
            generalized=True,
            published_date=NOW,
            disks=(disk(),),
        ),
        **changes,
    )


def disk(lun: int | None = None, digest: str = "d0", virtual_size: int = 1 << 30) -> ImageDisk:
    source = DiskProvenance("web.vhdx", "vhdx", Origin("vhd", "web.vhdx", digest="s0"))
    return ImageDisk(lun, digest, virtual_size, source)


def request(name: str = "corp/web/1.0.0", **changes: Any) -> VersionRequest:
    return replace(
        VersionRequest(
            parse_version(name), "f1", target_regions=(TargetRegion("eu", 2), TargetRegion("us"))
        ),
        **changes,
    )
