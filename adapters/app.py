"""The composition root: a Config in, the wired application out; the one module that knows all
adapters.

An adapter is imported where it is made, and made when it is first used: most commands use few, and
to load all takes longer than most commands run.
"""

import contextlib
import os
import pwd
import re
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.catalog import LateCatalog, catalog_file, open_catalog
from adapters.config import Config
from adapters.process.runs import ProcessRunHost
from adapters.process.sandbox import Sandbox
from pipeline.errors import Busy, Conflict, GalleriaError, Refused
from pipeline.gallery.audit import append, removal
from pipeline.gallery.audited import AuditedCatalog
from pipeline.gallery.service.running import RunTerms
from pipeline.gallery.services import Services
from pipeline.model import Architecture, ProvisioningState, Region
from pipeline.model.access import ROOT, Action, Identity
from pipeline.model.audit import AuditHead, Event
from pipeline.model.clock import utc_now
from pipeline.model.garbage import Collected, Garbage, Keep
from pipeline.model.runs import Run
from pipeline.model.spelling import EDGE
from pipeline.ports import Pins, Progress, Zone
from pipeline.ports.catalog import CatalogHealth
from pipeline.storage.placement import Zones, storage_types

if TYPE_CHECKING:
    from adapters.catalog.sql import SqlCatalog
    from adapters.guestfs.luks import Key
    from adapters.qemu.emulator import Firmware
    from adapters.sources.download import Downloads
    from pipeline.gallery.descriptions import Rebuilt
    from pipeline.gallery.metrics import Metric
    from pipeline.gallery.service.taken import JobRecords
    from pipeline.jobs.context import JobContext
    from pipeline.ports.vms import VmDirectories


# What galleria names so, and nobody else, in the directories of its cache and logs.
_FIXTURES = re.compile(r"(guest-v[12]|windows)-[0-9a-f]{16}")
_TREES = re.compile(r"tree-[0-9a-f]{16}\.tar")
_LOGS = re.compile(r"(boot|build|publish|replicate)-[^/]*[0-9a-f]{32}\.log")
_RUN_LOGS = re.compile(r"[0-9a-f-]{8,36}\.log")


class App:
    """The wired application, for whoever asks: its sessions share the catalog and the zones."""

    def __init__(
        self,
        config: Config,
        progress: Progress,
        catalog: LateCatalog,
        *,
        keys: Sequence["Key"] = (),
    ) -> None:
        self.config = config
        self.progress = progress
        self.catalog = catalog
        self.keys = keys
        self.regions = _regions(config)
        self.sandbox = Sandbox(enabled=config.sandbox)
        self._behind = False  # whether the zones' records of the catalog are

    def noted(self, events: Collection[Event]) -> None:
        """The catalog was changed: so are the zones' records of it. That of an unfinished version
        waits for the next change, or the end: it has more to come."""
        self._behind = True
        if any(map(_lasting, events)):
            self.describe_catalog()

    def describe_catalog(self) -> None:
        """Bring the zones' records of the catalog up to date. A zone that is not there, or can't be
        written, lags."""
        from adapters.zones import records

        self._behind = False
        catalog = self.catalog.opened
        for path in _own_zones(self.config, catalog):
            with contextlib.suppress(GalleriaError, OSError):
                records.bring_up(path, catalog, catalog.identity)

    def close(self) -> None:
        if self._behind:
            self.describe_catalog()

    @cached_property
    def zones(self) -> Zones:
        """The zones of each region. One that can't be opened (its file system is not mounted, say)
        is warned of, and stands for itself: what is to be written to it fails."""
        config = self.config
        return {
            region: _zones(config, region, self.sandbox, self.catalog.opened, self.progress)
            for region in config.regions
        }

    @cached_property
    def pins(self) -> Pins:
        """The source files that versions depend on."""
        from adapters.pins import FilePins

        return FilePins()

    @contextmanager
    def again(self) -> Iterator["App"]:
        """The same on the same catalog, for one request of a process that goes on: zones are opened
        as they are then."""
        app = App(self.config, self.progress, self.catalog, keys=self.keys)
        try:
            yield app
        finally:
            app.close()

    def session(self, identity: Identity) -> "Session":
        """For one run or one request, with the rights of who asks."""
        return Session(self, identity)


class Session(Services):
    """The application as one identity has it."""

    def __init__(self, app: App, identity: Identity) -> None:
        source_region = app.config.source_region
        host = ProcessRunHost(app.config.logs)
        terms = RunTerms(app.config.lease)
        super().__init__(
            app.catalog,
            app.regions,
            identity,
            host,
            source_region,
            noted=app.noted,
            terms=terms,
        )
        self._app = app
        self._identity = identity
        self.config = app.config

    @cached_property
    def zones(self) -> Zones:
        """Those of the application, changed under the lease of this session's run."""
        return {
            region: tuple(zone.under(self.job_runs) for zone in zones)
            for region, zones in self._app.zones.items()
        }

    def recreate_lost_zones(self) -> list[Path]:
        """Make the zones again, empty, whose directories are: to be called before `zones`."""
        from adapters.zones.ownership import is_lost

        registry = self._app.catalog.opened
        lost = [path for path in _directories(self.config) if is_lost(path, registry)]
        if lost:
            create_zones(self.config, self._identity)
        return lost

    @property
    def pins(self) -> Pins:
        return self._app.pins

    def check_catalog(self) -> CatalogHealth:
        """Read the whole catalog and look for damage."""
        self.grants.check_health()
        return self._app.catalog.check()

    def back_up_catalog(self, target: Path) -> None:
        """Write the catalog, one in SQLite, as it is at one moment to a new file."""
        from adapters.catalog import copies

        self.grants.check_backup()
        copies.backup(self._app.catalog.opened, target)

    def metrics(self) -> "list[Metric]":
        """What there is, as numbers."""
        from pipeline.jobs.metrics import measure

        self.grants.check_metrics()
        return measure(self.context)

    def collect_garbage(self, keep: Keep) -> list[Collected]:
        """Remove whatever nobody needs, in the zones and on this host."""
        from pipeline.jobs.garbage import collect_all

        self.grants.check_collect()
        return collect_all(self.context, keep)

    @cached_property
    def vm_directories(self) -> "VmDirectories":
        """Where VMs are put together."""
        from adapters.vms import HostVmDirectories

        return HostVmDirectories(self.config.group_id, self.job_runs, self._accelerator)

    def _accelerator(self, architecture: Architecture) -> str:
        """What VMs are run by here; a KVM that nobody has tried yet is believed in."""
        from adapters.guestfs.accelerator import known
        from adapters.qemu.emulator import NATIVE

        if architecture is not NATIVE:
            return "tcg"
        found = known(self.config.cache)
        return "kvm" if found is None else found.kind

    @cached_property
    def context(self) -> "JobContext":
        """What the jobs take."""
        from adapters.filesystem.disks import HostDiskDirectories
        from adapters.filesystem.files import HostFiles
        from adapters.filesystem.work import WorkDirectory
        from adapters.guestfs.client import GuestfsHost
        from adapters.images import Policy, QemuImages
        from adapters.process.usage import cpu_seconds
        from adapters.qemu.emulator import QemuBoots
        from adapters.qmp.machine import QemuMachines
        from adapters.sources import HostSources
        from adapters.sources.own import OwnPlaces
        from adapters.vagrant import VagrantBoxes
        from pipeline.deploying.release import bases_in_use
        from pipeline.jobs.context import JobContext
        from pipeline.resources.opening import StoredSources
        from pipeline.storage.soundness import Readers

        config, sandbox, progress = self.config, self._app.sandbox, self._app.progress
        gallery, resources, zones, pins = self.gallery, self.resources, self.zones, self.pins
        images = QemuImages(sandbox, Policy(virtual_size=config.max_virtual_size))
        seconds = config.recheck_after
        recheck_after = timedelta.max if seconds is None else timedelta(seconds=seconds)
        readers = Readers(images, HostFiles(), progress, recheck_after)
        machines = QemuMachines(config.captures, sandbox)
        own = OwnPlaces(
            _own_places(config), lambda: bases_in_use(gallery.list_deployments(), zones)
        )
        downloads = partial(_downloads, config, progress)
        files = HostSources(pins, downloads, config.libvirt, sandbox, progress, own)
        guests = GuestfsHost(sandbox, config.cache, keys=tuple(self._app.keys))
        return JobContext(
            gallery=gallery,
            resources=resources,
            records=self.records,
            runs=self.job_runs,
            machines=machines,
            sources=StoredSources(
                files, gallery, resources, machines, zones, pins, progress, readers
            ),
            images=images,
            pins=pins,
            files=readers.files,
            disks=HostDiskDirectories(config.group_id),
            guests=guests,
            boxes=VagrantBoxes(),
            boots=QemuBoots(sandbox, lambda: guests.accelerator().kind, _firmware),
            zones=zones,
            work=WorkDirectory(config.work / "galleria"),
            logs=config.logs,
            progress=progress,
            later=partial(_begin_later, config, self._identity.principal),
            leftovers=partial(_leftovers, config, self.records),
            keep=config.keep,
            cpu=cpu_seconds,
            sleep=time.sleep,
            zrs_same_filesystem=config.zrs_same_filesystem,
            recheck_after=recheck_after,
        )


@contextmanager
def open_app(config: Config, progress: Progress, *, keys: Sequence["Key"] = ()) -> Iterator[App]:
    """The application for the length of a `with`, at whose end its catalog is closed."""
    with contextlib.closing(LateCatalog(config.catalog)) as catalog:
        app = App(config, progress, catalog, keys=keys)
        try:
            yield app
        finally:
            app.close()


def local_account() -> str:
    """Who runs this process: an account of the host, whatever principal it acts as."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container may run with a number that has no name
        name = str(os.geteuid())
    return f"{name}@{os.uname().nodename}"


def _downloads(config: Config, progress: Progress) -> "Downloads":
    from adapters.sources.addresses import networks
    from adapters.sources.download import Bounds, Downloads
    from adapters.sources.http import Reach

    return Downloads(
        config.cache / "downloads",
        progress,
        Reach(networks(config.allow_private_sources)),
        Bounds(length=config.max_virtual_size),
        config.keep,
    )


def _leftovers(config: Config, records: "JobRecords", keep: Keep) -> list[Collected]:
    """Remove what is old, or too much, in the directories of this host that are galleria's own."""
    from adapters.filesystem import leftovers
    from adapters.guestfs.fixed import collect_appliances
    from adapters.sources.download import collect_downloads
    from adapters.vagrant.shelf import collect_boxes
    from adapters.vms import STAGING

    places = [config.work / "galleria"]
    places += sorted({Path(i.directory).parent / STAGING for i in records.deployments()})
    found = [leftovers.stale(place, Garbage.WORK, keep) for place in places]
    found.append(collect_downloads(config.cache / "downloads", keep))
    found.append(collect_boxes(config.cache / "boxes", keep, age=keep.downloads))
    found.append(collect_appliances(config.cache, keep))
    for place, kind, pattern, trees, age, size in (
        (config.cache / "fixtures", Garbage.FIXTURE, _FIXTURES, True, keep.cache, None),
        (config.cache / "fixtures", Garbage.FIXTURE, _TREES, False, keep.cache, None),
        (config.logs, Garbage.LOG, _LOGS, False, keep.logs, keep.logs_size),
        (config.logs / "runs", Garbage.LOG, _RUN_LOGS, False, keep.logs, keep.logs_size),
    ):
        with leftovers.named(place, pattern, trees=trees) as entries:
            found.append(leftovers.collect(str(place), kind, entries, age, size, keep))
    return found


def restore_catalog(
    config: Config, identity: Identity, file: Path, *, force: bool = False
) -> Path | None:
    """Put the catalog of a backup in the place of the present one; returns where that one is kept,
    if there was one. Raises Conflict while jobs run, unless `force`."""
    from adapters.catalog import copies

    def note(restored: "SqlCatalog") -> None:
        event = Event(Action.CATALOG_RESTORE.value, ROOT, details=f"from {file}")
        AuditedCatalog(restored, identity.actor).record(event)

    with contextlib.ExitStack() as stack:
        present = _readable(config.catalog)
        if present is not None:
            stack.callback(present.close)
            services = _services(present, config, identity)
            services.grants.check_restore()
            stack.enter_context(present.write())  # no job begins meanwhile
            if not force and (names := services.records.worked_on()):
                raise Conflict(
                    f"galleria works on {', '.join(names)}: what it records would be lost",
                    hint="wait until it is done; --force restores all the same",
                )
        elif identity.principal is not None:
            raise Refused(
                f"there is no catalog that says whether {identity.principal} may restore it",
                hint="the local operator may: leave out --as",
            )
        return copies.restore(config.catalog, file, note, force=force)


@dataclass(frozen=True, slots=True)
class RebuiltCatalog:
    """`zones` are those that were read, by region; `record` is where the audit record goes on, None
    when no zone tells it."""

    zones: Sequence[tuple[str, Path]]
    rebuilt: "Rebuilt"
    record: AuditHead | None


def rebuild_catalog(config: Config, identity: Identity) -> RebuiltCatalog:
    """Make a lost catalog again from what the zones say of it. Raises Conflict when there is one
    that has content, or when the zones belong to several."""
    from adapters.zones import describe
    from pipeline.gallery.descriptions import Rebuilding

    if identity.principal is not None:
        raise Refused(
            f"there is no catalog that says whether {identity.principal} may rebuild it",
            hint="the local operator may: leave out --as",
        )
    found = describe.zones(
        [(region, place.path) for region, places in config.regions.items() for place in places]
    )
    with contextlib.closing(open_catalog(config.catalog)) as catalog:
        lost = found.lost(catalog.identity)
        with catalog.rebuild(lost, found.directories) as writer:
            fresh = writer.audit_head() == AuditHead()
            head = found.head if fresh else None
            made = Rebuilding(writer, utc_now()).fill(found.records, found.holdings)
            said = f"{len(found.zones)} zones read"
            if head is not None:
                writer.begin_audit(head)
                said = removal(head, said)
            event = Event(Action.CATALOG_REBUILD.value, ROOT, details=said)
            writer.append_audit(append(writer.audit_head(), event, identity.actor, utc_now()))
            found.own(lost)
    problems = (*found.problems, *made.problems)
    return RebuiltCatalog(found.zones, replace(made, problems=problems), head)


def unknown_versions(config: Config) -> list[dict[str, str]]:
    """Versions in the zones of which the catalog does not know, as {region, zone, version}. A zone
    that is not there or not this catalog's is passed over."""
    from adapters.zones import layout
    from adapters.zones.ownership import owner_of

    with contextlib.closing(open_catalog(config.catalog)) as catalog:
        services = _services(catalog, config, Identity(local_account()))
        known, mine = services.records.zone_keys(), catalog.identity
    found = []
    for region, places in config.regions.items():
        for zone in (place.path for place in places):
            with contextlib.suppress(GalleriaError, OSError):
                owner = owner_of(zone)
                if owner is not None and owner.catalog == mine:
                    keys = {entry.name for entry in (zone / layout.VERSIONS).iterdir()}
                    found += [
                        {"region": region, "zone": str(zone), "version": key}
                        for key in sorted(keys - known)
                    ]
    return found


def _services(catalog: "SqlCatalog", config: Config, identity: Identity) -> Services:
    """The operations on a catalog that no session is for."""
    host = ProcessRunHost(config.logs)
    return Services(catalog, _regions(config), identity, host)


def _readable(url: str) -> "SqlCatalog | None":
    """A catalog to be replaced; None when there is none, or it can't be read."""
    place = catalog_file(url)
    if place is None or not place.exists():
        return None
    try:
        catalog = open_catalog(url)
    except Busy:
        raise
    except GalleriaError:
        return None
    try:
        with catalog.read() as reader:
            reader.galleries()
        return catalog
    except GalleriaError:
        catalog.close()
        return None


def create_zones(config: Config, identity: Identity, adopted: Collection[Path] = ()) -> None:
    """Make the catalog, and the directories of all regions zones of it; those that are stay as they
    are, and keep their names. Raises Conflict when one is a zone of another region or catalog, or
    holds something else, and EnvironmentMissing when one is not there that was: but for those that
    are `adopted`, which takes a right of its own. One that is lost is made again, empty."""
    from adapters.zones.ownership import adopt, check_there, identify, is_lost

    with contextlib.closing(open_catalog(config.catalog)) as registry:
        if adopted:
            _services(registry, config, identity).grants.check_adoption()
        directories = _directories(config)
        renewed = {*adopted, *(path for path in directories if is_lost(path, registry))}
        for path in directories:
            if path not in renewed:
                check_there(path, registry)
        _create_zones(config)
        for path in directories:
            if path in renewed:
                adopt(path, registry)
                event = Event(Action.ZONE_ADOPT.value, ROOT, details=str(path))
                AuditedCatalog(registry, identity.actor).record(event)
            identify(path, registry, directories)


def _create_zones(config: Config) -> None:
    from adapters.zones import create_zone, zone_name

    sandbox = Sandbox(enabled=config.sandbox)
    for region, places in config.regions.items():
        plain = region.replace(EDGE, "-")
        named = {place.path: zone_name(place.path) for place in places}
        for index, place in enumerate(places, 1):
            name = named[place.path]
            if name is None:
                choices = [plain] if len(places) == 1 else (f"{plain}-{n}" for n in count(index))
                name = next(choice for choice in choices if choice not in named.values())
                named[place.path] = name
            create_zone(
                place.path, name=name, region=region, sandbox=sandbox, group=config.group_id
            )


def _regions(config: Config) -> list[Region]:
    """The regions, and what each can offer by its configured zones, mounted or not."""
    return [
        Region(name, storage_types([place.premium for place in places]))
        for name, places in config.regions.items()
    ]


def _lasting(event: Event) -> bool:
    """Whether what was changed is to stay as it is: an unfinished version is not."""
    states = (ProvisioningState.SUCCEEDED.value, ProvisioningState.FAILED.value)
    return event.action != Action.VERSION_WRITE.value or event.details in states


def _own_zones(config: Config, catalog: "SqlCatalog") -> Iterator[Path]:
    """The directories that have the zones that the catalog has seen there."""
    from adapters.zones.ownership import Owner, owner_of

    seen = catalog.zones_seen()
    for path in _directories(config):
        with contextlib.suppress(GalleriaError, OSError):
            if str(path) in seen and owner_of(path) == Owner(seen[str(path)], catalog.identity):
                yield path


def _directories(config: Config) -> list[Path]:
    return [place.path for places in config.regions.values() for place in places]


def _own_places(config: Config) -> list[Path]:
    """Where galleria keeps what nobody may name as a source."""
    places = [*_directories(config), config.work / "galleria", config.captures]
    if (file := catalog_file(config.catalog)) is not None:
        places += [file, *(file.with_name(file.name + suffix) for suffix in ("-wal", "-journal"))]
    return places


def _zones(
    config: Config, region: str, sandbox: Sandbox, registry: "SqlCatalog", progress: Progress
) -> tuple[Zone, ...]:
    from adapters.zones import open_zone
    from adapters.zones.ownership import check_there, identify, moved_from
    from adapters.zones.unusable import UnusableZone

    zones: list[Zone] = []
    for place in config.regions[region]:
        try:
            check_there(place.path, registry)
            zone = open_zone(
                place.path,
                sandbox=sandbox,
                immutable=config.immutable,
                premium=place.premium,
                writing=place.writing,
            )
            before = moved_from(place.path, registry, _directories(config))
            identify(place.path, registry, _directories(config))
            for old in before:
                from pipeline.jobs.moved import follow  # zones seldom move

                services = _services(registry, config, Identity(local_account()))
                follow(zone, old, services.records, progress)
            zones.append(zone)
        except (GalleriaError, OSError) as error:
            hint = error.hint if isinstance(error, GalleriaError) else "galleria doctor checks it"
            progress.warn(f"region {region}: {error}" + f" ({hint})" * bool(hint))
            reason = f"the zone {place.path} can't be used: {error}"
            zones.append(UnusableZone(place.path, region, reason, hint, premium=place.premium))
    return tuple(zones)


def _firmware(architecture: Architecture, nvram_length: int | None) -> "Firmware":
    from adapters.qemu.emulator import Firmware
    from adapters.vms import firmware

    found = firmware.find(architecture, secure_boot=False, nvram_length=nvram_length)
    return Firmware(found.code, found.template)


def _begin_later(config: Config, principal: str | None, run: Run) -> None:
    """Start a process of its own that does a run that waits; its output goes to the run's log."""
    from adapters.process import command

    log = Path(run.log)
    log.parent.mkdir(parents=True, exist_ok=True)
    # -P: what lies in the user's present directory is no part of the program
    program = [sys.executable, "-P", "-m", "adapters.cli"]
    options = ["--config", str(config.file)] if config.file else []
    options += ["--as", principal] if principal else []
    command.detach([*program, *options, "--quiet", "runs", "resume", run.id], log=log)
