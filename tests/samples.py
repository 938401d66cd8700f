"""Galleries, definitions and versions for tests; a clock and owners that do as they are told."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.gallery.rules import Limits
from pipeline.gallery.service.running import JobRuns, attendance
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
    ProvisioningState,
    Region,
    RegionStatus,
    ReplicationState,
    TargetRegion,
    VersionRequest,
)
from pipeline.model.access import Identity
from pipeline.model.names import parse_definition, parse_gallery, parse_version
from pipeline.model.runs import RunKind
from pipeline.ports.catalog import Catalog
from pipeline.ports.runs import RunHost
from tests.memory_catalog import MemoryCatalog

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
REGIONS = (Region("eu"), Region("us"), Region("UK South"))
OWNER = "0123456789ab"  # a run


class FakeClock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


class FakeRunHost:
    """A host whose heart beats when `beat` is called."""

    name, boot_id, pid = "build1", "boot", 1234

    def __init__(self) -> None:
        self.acts: list[Callable[[], None]] = []
        self.interrupted = 0
        self.lines: list[str] = []
        self.removed: list[str] = []

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

    def remove_log(self, id: str) -> None:
        self.removed.append(id)


class FakeRunLog:
    def __init__(self, path: Path, lines: list[str]) -> None:
        self.path = path
        self._lines = lines

    def write(self, line: str) -> None:
        self._lines.append(line)


_host: type[RunHost] = FakeRunHost


class Processes(JobRuns):
    """Processes that ask in turn, each in a run of its own; nobody but the local operator sees
    these."""

    attending: Mapping[str, AbstractContextManager[object]] = {}

    def start(self) -> None:
        self.work_on(None)
        run = uuid.uuid4().hex[:12]
        attending = self._catalog.attend(attendance(run, 1))
        own = self.begin(run, RunKind.PUBLISH, "/", {}, "", attending.__enter__())
        with self._catalog.unguarded() as (_, changes):
            changes.put_run(replace(own.record, principal=""))
        self.attending = {**self.attending, run: attending}
        self.work_on(own)


def become_another(ask: Services) -> str:
    """What asks from now on is another process, with a run of its own."""
    assert isinstance(ask.job_runs, Processes)
    ask.job_runs.start()
    return ask.job_runs.id


def die(ask: Services, run: str | None = None) -> None:
    """The process of a run ends, without a word to it: of the one that asks (None), after which
    another asks."""
    assert isinstance(ask.job_runs, Processes)
    ask.job_runs.attending[run or ask.job_runs.id].__exit__(None, None, None)
    if run is None:
        ask.job_runs.start()


def services(
    clock: Callable[[], datetime] | None = None,
    *,
    catalog: Catalog | None = None,
    regions: Iterable[Region] = REGIONS,
    principal: str | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Services:
    """The operations for the local operator, or for a principal."""
    identity = Identity("root@host", principal, "r")
    made = Services(
        catalog or MemoryCatalog(),
        regions,
        identity,
        FakeRunHost(),
        "eu",
        clock or FakeClock(),
        limits,
    )
    made.job_runs.__class__ = Processes
    become_another(made)
    return made


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
