"""The composition root: a Config in, the wired application out; the one module that knows all
adapters."""

import os
import pwd
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from adapters.catalog import open_catalog
from adapters.config import Config
from adapters.filesystem.disks import HostDiskDirectories
from adapters.filesystem.files import HostFiles
from adapters.filesystem.work import WorkDirectory
from adapters.guestfs.client import GuestfsHost
from adapters.guestfs.luks import Key
from adapters.images import Policy, QemuImages
from adapters.pins import FilePins
from adapters.process import command
from adapters.process.owners import ProcessOwners
from adapters.process.sandbox import Sandbox
from adapters.process.usage import cpu_seconds
from adapters.qemu.emulator import Firmware, QemuBoots
from adapters.qmp.machine import QemuMachines
from adapters.sources import HostSources
from adapters.vms import firmware
from adapters.zones import DirectoryZone, create_zone, open_zone, zone_name
from pipeline.errors import GalleriaError
from pipeline.gallery.access.grants import Grants
from pipeline.gallery.access.guard import guarded
from pipeline.gallery.access.subjects import Access
from pipeline.gallery.access.views import SharedViews
from pipeline.gallery.audited import AuditedCatalog
from pipeline.gallery.service import GalleryService
from pipeline.gallery.service.resources import ResourceService
from pipeline.jobs.context import JobContext
from pipeline.model import Architecture, ImageVersion, Region
from pipeline.model.audit import Actor
from pipeline.model.spelling import EDGE
from pipeline.ports import Progress, Zone
from pipeline.resources.opening import StoredSources
from pipeline.storage.placement import storage_types

if TYPE_CHECKING:
    from adapters.sources.download import Downloads


@dataclass(frozen=True, slots=True)
class App:
    """The wired application. `gallery` answers what is there, `grants` who may do what and `views`
    what is shared; `context` is what the jobs take. All act for the configured
    principal."""

    config: Config
    gallery: GalleryService
    grants: Grants
    views: SharedViews
    context: JobContext
    zones: Mapping[str, tuple[Zone, ...]]


@contextmanager
def open_app(config: Config, progress: Progress, *, keys: Sequence[Key] = ()) -> Iterator[App]:
    """Wire everything for the length of a `with`. A zone that can't be opened (its file system is
    not mounted, say) is warned of and left out: what needs it says so."""
    sandbox = Sandbox(enabled=config.sandbox)
    account, principal = local_account(), config.principal or None
    actor = Actor(principal or account, account, uuid.uuid4().hex)
    catalog = AuditedCatalog(open_catalog(config.catalog), actor)
    try:
        access = Access(catalog, account, principal)
        views = SharedViews(catalog, access)
        gallery = GalleryService(catalog, ProcessOwners(), _regions(config))
        zones = {region: _zones(config, region, sandbox, progress) for region in config.regions}
        whole = guarded(gallery, access, views, whole=True)
        resources = ResourceService(
            catalog, ProcessOwners(), _regions(config), require=access.require, may=access.may
        )
        machines = QemuMachines(config.captures, sandbox)
        downloads = partial(_downloads, config, progress)
        pins = FilePins()
        files = HostSources(pins, downloads, config.libvirt)
        guests = GuestfsHost(sandbox, config.cache, keys=tuple(keys))
        context = JobContext(
            gallery=whole,
            resources=resources,
            machines=machines,
            sources=StoredSources(files, whole, resources, machines, zones, pins, progress),
            images=QemuImages(sandbox, Policy(virtual_size=config.max_virtual_size)),
            pins=pins,
            files=HostFiles(),
            disks=HostDiskDirectories(),
            guests=guests,
            boots=QemuBoots(sandbox, lambda: guests.accelerator().kind, _firmware),
            zones=zones,
            work=WorkDirectory(config.work / "galleria"),
            logs=config.logs,
            progress=progress,
            later=partial(_replicate_later, config),
            cpu=cpu_seconds,
            sleep=time.sleep,
            zrs_same_filesystem=config.zrs_same_filesystem,
        )
        seen = guarded(gallery, access, views)
        yield App(config, seen, Grants(catalog, access), views, context, zones)
    finally:
        catalog.close()


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
    )


def create_zones(config: Config) -> None:
    """Make the directories of all regions zones; those that are stay as they are, and keep their
    names. Raises Conflict when one is a zone of another region, or holds something else."""
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
            create_zone(place.path, name=name, region=region, sandbox=sandbox)


def _regions(config: Config) -> list[Region]:
    """The regions, and what each can offer by its configured zones, mounted or not."""
    return [
        Region(name, storage_types([place.premium for place in places]))
        for name, places in config.regions.items()
    ]


def _zones(
    config: Config, region: str, sandbox: Sandbox, progress: Progress
) -> tuple[DirectoryZone, ...]:
    zones = []
    for place in config.regions[region]:
        try:
            zone = open_zone(
                place.path,
                sandbox=sandbox,
                immutable=config.immutable,
                premium=place.premium,
                writing=place.writing,
            )
            zones.append(zone)
        except (GalleriaError, OSError) as error:
            hint = error.hint if isinstance(error, GalleriaError) else ""
            progress.warn(f"region {region}: {error}" + f" ({hint})" * bool(hint))
    return tuple(zones)


def _firmware(architecture: Architecture, nvram_length: int | None) -> Firmware:
    found = firmware.find(architecture, secure_boot=False, nvram_length=nvram_length)
    return Firmware(found.code, found.template)


def _replicate_later(config: Config, version: ImageVersion) -> None:
    """Start a process of its own that finishes the version's regions; its output goes to a log."""
    config.logs.mkdir(parents=True, exist_ok=True)
    # -P: what lies in the user's present directory is no part of the program
    program = [sys.executable, "-P", "-m", "adapters.cli"]
    options = ["--config", str(config.file)] if config.file else []
    options += ["--as", config.principal] if config.principal else []
    command.detach(
        [*program, *options, "replicate", str(version.name), "--retry"],
        log=config.logs / f"replicate-{version.zone_key}.log",
    )
