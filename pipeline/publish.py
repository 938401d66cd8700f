"""THE MAIN JOB: a VM's disks in; a generalized, hashed, versioned image with replicas in every region out.

Read `publish` first: it is the whole product on one screen.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from pipeline.errors import PartiallyReplicated
from pipeline.gallery.documents import encode
from pipeline.gallery.model import DiskSource as Origin
from pipeline.gallery.model import ImageDisk, ImageVersion, TargetRegion, VersionRequest
from pipeline.gallery.service import GalleryService
from pipeline.guest.profiles import Plan
from pipeline.ports import GuestHost, Images, Pins, Progress, Work, Zone
from pipeline.preflight import check_space, choose_zones
from pipeline.stages.convert import Parents, Stored, convert
from pipeline.stages.generalize import generalize
from pipeline.stages.ingest import Disk, DiskSource, ingest
from pipeline.stages.replicate import Zones, replicate, replicate_from_donor
from pipeline.stages.snapshot import snapshot


class Wait(Enum):
    """When publish returns: usable in the source region, or complete everywhere."""

    FIRST = "first"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """`plan` None leaves the guest as it is. `preflight` False goes on without estimating space."""

    version: VersionRequest
    disks: tuple[DiskSource, ...]
    plan: Plan | None
    wait: Wait = Wait.ALL
    preflight: bool = True


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything that the jobs need from outside. `later` finishes a version in the background."""

    gallery: GalleryService
    images: Images
    pins: Pins
    guests: GuestHost
    zones: Zones
    work: Work
    progress: Progress
    later: Callable[[ImageVersion], None]


def publish(request: PublishRequest, ports: Ports) -> ImageVersion:
    """Publish a version. Every rule is checked before a byte is read; the source is never written;
    a region is Completed or not there. Raises PartiallyReplicated when only some regions are."""
    version = ports.gallery.begin_version(request.version)
    with freed_on_failure(version, ports), ports.work.directory() as work:
        if version.completed_regions:  # an earlier run died after its first region: no source needed
            return replicate_missing(version, work, ports)
        disks = ingest(request.disks, ports.images)
        with snapshot(disks, work, ports.pins) as (disks, pin):
            parents = ports.gallery.parents_of(version.name.definition)
            zones = choose_zones(_first_targets(version, request.wait), parents, ports.zones)
            if request.preflight:
                check_space(disks, zones, parents, ports.work, ports.images)
            disks, report = generalize(disks, request.plan, work, ports)
            stored = convert(
                disks, zones, parents, work, pin.verify, ports.images, ports.progress
            )
        version = ports.gallery.record_disks(version, _described(request.disks, disks, stored))
        ports.gallery.record_report(version, report)
        version = replicate(version, zone_document(version, ports), stored, zones, ports.gallery)
    return finish(version, request.wait, ports)
